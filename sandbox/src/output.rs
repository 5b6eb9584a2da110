//! What comes out of a sandbox: into a log, or into memory.

use crate::limits::Limit;
use crate::log::{LogSink, Writer};
use crate::outcome::{End, Outcome, Usage};
use crate::run::SandboxError;
use std::os::fd::OwnedFd;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Where output goes.
pub(crate) enum Output {
    /// Both streams as one, in order.
    Log(LogSink),
    /// Standard output to memory, up to so many bytes, standard error up to [`crate::spawn::ERRORS_MAX_BYTES`].
    Capture { max_bytes: u64 },
}

/// What came out.
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
}

/// The daemon's ends of pipes.
pub(crate) struct Pipes {
    pub(crate) out: pipe::Receiver,
    pub(crate) err: Option<pipe::Receiver>,
    pub(crate) child_out: Option<OwnedFd>,
    pub(crate) child_err: Option<OwnedFd>,
}

impl Pipes {
    pub(crate) fn open(output: &Output) -> std::io::Result<Self> {
        let pipe = || -> std::io::Result<(pipe::Receiver, OwnedFd)> {
            let (reader, writer) = std::io::pipe()?;
            Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
        };
        let (out, child_out) = pipe()?;
        let (err, child_err) = match output {
            Output::Log(_) => (None, child_out.try_clone()?),
            Output::Capture { .. } => {
                let (err, child_err) = pipe()?;
                (Some(err), child_err)
            }
        };
        Ok(Self { out, err, child_out: Some(child_out), child_err: Some(child_err) })
    }
}

/// Reads what the command writes.
pub(crate) struct Reader {
    log: Option<Writer>,
    output: Vec<u8>,
    errors: Vec<u8>,
    output_max: u64,
    is_over: bool,
}

impl Reader {
    pub(crate) fn new(output: Output) -> Self {
        let (log, output_max) = match output {
            Output::Log(sink) => (Some(Writer::new(sink)), 0),
            Output::Capture { max_bytes } => (None, max_bytes),
        };
        Self { log, output: Vec::new(), errors: Vec::new(), output_max, is_over: false }
    }

    /// Reads to the end of both streams, whatever there is too much of is read and forgotten.
    pub(crate) async fn read(&mut self, out: &mut pipe::Receiver, err: &mut Option<pipe::Receiver>) {
        self.read_while(out, err, |_| true).await;
    }

    /// Cancel safe: yes, nothing that was read is lost.
    async fn read_while(
        &mut self,
        out: &mut pipe::Receiver,
        err: &mut Option<pipe::Receiver>,
        goes_on: impl Fn(&Self) -> bool,
    ) {
        let (mut out_buffer, mut err_buffer) = (vec![0; 64 * 1024], vec![0; 4096]);
        let (mut out_open, mut err_open) = (true, err.is_some());
        while (out_open || err_open) && goes_on(self) {
            tokio::select! {
                read = out.read(&mut out_buffer), if out_open => match read {
                    Ok(length) if length > 0 => self.take_output(out_buffer.get(..length).unwrap_or_default()),
                    Ok(_) | Err(_) => out_open = false,
                },
                read = async { match err { Some(err) => err.read(&mut err_buffer).await, None => Ok(0) } }, if err_open => match read {
                    Ok(length) if length > 0 => self.take_errors(err_buffer.get(..length).unwrap_or_default()),
                    Ok(_) | Err(_) => err_open = false,
                },
            }
        }
    }

    /// Reads on and ends only when there is too much.
    pub(crate) async fn overflow(&mut self, out: &mut pipe::Receiver, err: &mut Option<pipe::Receiver>) {
        self.read_while(out, err, |reader| !reader.is_over).await;
        if !self.is_over {
            std::future::pending::<()>().await;
        }
    }

    fn take_output(&mut self, bytes: &[u8]) {
        match &mut self.log {
            Some(log) => log.write(bytes),
            None if (self.output.len() + bytes.len()) as u64 > self.output_max => self.is_over = true,
            None => self.output.extend_from_slice(bytes),
        }
    }

    fn take_errors(&mut self, bytes: &[u8]) {
        let left =
            usize::try_from(crate::spawn::ERRORS_MAX_BYTES).unwrap_or(usize::MAX).saturating_sub(self.errors.len());
        self.errors.extend(bytes.iter().take(left));
    }

    /// The error, with what the programs said at last.
    pub(crate) fn explain(self, error: SandboxError) -> SandboxError {
        let SandboxError::Setup { said } = error else { return error };
        let last = match self.log {
            Some(log) => log.finish().0.last.join("; "),
            None => String::from_utf8_lossy(&self.errors).trim().replace('\n', "; "),
        };
        let words = [said, last].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(": ");
        SandboxError::Setup { said: if words.is_empty() { "bwrap ended without a word".into() } else { words } }
    }

    pub(crate) fn finish(self, end: End, usage: Usage) -> Finished {
        let end = if self.is_over { End::Limit(Limit::Output) } else { end };
        let (log, phase) = self.log.map(Writer::finish).unwrap_or_default();
        Finished { outcome: Outcome { end, phase, usage, log }, output: self.output, errors: self.errors }
    }
}
