//! Blocking work that ends soon after nobody wants it any more: it reads through something that then fails.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io::{self, Read, Seek, SeekFrom};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether something is still wanted: its user has not cancelled it, and the daemon does not stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    cancelled: watch::Receiver<bool>,
    stopping: CancellationToken,
}

/// What reading answers once nobody wants it.
#[derive(Debug, thiserror::Error)]
#[error("nobody wants it any more")]
struct Unwanted;

impl Stop {
    pub(crate) fn when(cancelled: watch::Receiver<bool>, stopping: &CancellationToken) -> Self {
        Self { cancelled, stopping: stopping.clone() }
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.cancelled.borrow() || self.stopping.is_cancelled()
    }

    /// The same source, as long as it is wanted.
    pub(crate) fn through<R>(&self, source: R) -> Stoppable<'_, R> {
        Stoppable { source, stop: self }
    }
}

/// See [`Stop::through`].
#[derive(Debug)]
pub(crate) struct Stoppable<'a, R> {
    source: R,
    stop: &'a Stop,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() { Err(io::Error::other(Unwanted)) } else { self.source.read(into) }
    }
}

impl<R: Seek> Seek for Stoppable<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ends_when_it_is_cancelled_and_when_the_daemon_stops() {
        for by_user in [true, false] {
            let (cancel, stopping) = (watch::Sender::new(false), CancellationToken::new());
            let stop = Stop::when(cancel.subscribe(), &stopping);
            let mut endless = stop.through(io::repeat(7));
            let mut bytes = [0; 4];
            assert_eq!(endless.read(&mut bytes).unwrap(), 4);
            if by_user {
                cancel.send_replace(true);
            } else {
                stopping.cancel();
            }
            assert!(stop.is_set());
            assert!(endless.read(&mut bytes).unwrap_err().to_string().contains("nobody wants it"));
            // Copying ends too, and does not take it for an interruption.
            assert!(io::copy(&mut endless, &mut io::sink()).is_err());
        }
    }
}
