//! What jobs leave: their logs stay, what they worked with goes.

use super::local::{DEPENDENCIES_LOG, LOG, RECIPE};
use crate::domain::Domain;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Lines of a failed job's log that are shown with it, and bytes they may have.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 32 * 1024;
/// Lines of Portage's own report among them: what failed, and the words of `die`.
const REPORT_LINES: usize = 3;
/// What of a job's directory stays when it ended.
const KEPT: [&str; 3] = [LOG, RECIPE, DEPENDENCIES_LOG];

/// What of a log tells why it failed, for who asked: the lines before Portage's report, where the compiler's own words are,
/// and the beginning of that; without a report the last lines. Blocking.
pub(super) fn tail(path: &Path) -> Vec<String> {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let report = lines.iter().position(|line| line.trim_start().starts_with("* ERROR:"));
    let end = report.map_or(lines.len(), |at| lines.len().min(at + REPORT_LINES));
    lines.iter().take(end).skip(end.saturating_sub(TAIL_LINES)).map(|line| (*line).to_owned()).collect()
}

/// What a job worked with goes; its logs stay. Blocking.
pub(super) fn put_away(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
            remove(&entry.path());
        }
    }
}

pub(super) fn remove(path: &Path) {
    if let Err(error) = sandbox::remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "what a job left cannot be removed");
    }
}

/// At the start: what jobs of an earlier run worked with goes, and the logs of jobs that are forgotten. Blocking.
pub(super) fn clean_all(domain: &Domain) {
    let jobs = &domain.builds.jobs;
    let Ok(entries) = std::fs::read_dir(jobs.dir()) else { return };
    for entry in entries.flatten() {
        let known = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(|id| jobs.get(id));
        match known {
            Some(_job) => put_away(&entry.path()),
            None => remove(&entry.path()),
        }
    }
}
