//! The log of a build on another machine, kept here as that of a build of this one is.

use crate::builds::jobs::Entry;
use crate::builds::local::{JOB_MODE, LOG, LOG_BYTES_MAX};
use crate::domain::Domain;
use sandbox::LogFile;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

/// Bytes of a line of a log.
const LINE_MAX_BYTES: usize = 8 * 1024;

/// The builder's log as this machine keeps it.
pub(super) struct Log {
    file: Option<LogFile>,
    /// What came since the last end of a line.
    rest: Vec<u8>,
    pub(super) bytes: u64,
}

impl Log {
    pub(super) fn new(domain: &Domain, entry: &Entry) -> Self {
        let dir = domain.builds.jobs.dir_of(entry.id());
        let made = DirBuilder::new().recursive(true).mode(JOB_MODE).create(&dir);
        let file = made.and_then(|()| LogFile::create(&dir.join(LOG), LOG_BYTES_MAX));
        if let Err(error) = &file {
            tracing::warn!(job = entry.id(), %error, "the log of a builder is not kept");
        }
        Self { file: file.ok(), rest: Vec::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n').or_else(|| {
            // A line without end is cut.
            (self.rest.len() >= LINE_MAX_BYTES).then_some(LINE_MAX_BYTES - 1)
        }) {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if let Some(file) = &mut self.file
            && let Err(error) = file.line(text.trim_end_matches('\n'))
        {
            tracing::warn!(%error, "the log of a builder is not kept to its end");
            self.file = None;
        }
    }

    pub(super) fn end(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest);
        }
        if let Some(mut file) = self.file.take()
            && let Err(error) = file.finish()
        {
            tracing::warn!(%error, "the log of a builder is not kept to its end");
        }
    }
}
