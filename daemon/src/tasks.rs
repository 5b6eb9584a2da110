//! The only `spawn`: every task has a name, ends when the daemon ends, and its end is noticed.

use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The tasks of one daemon. Clones share the same tracker; a child token is cancelled with its parent.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is cancelled when the daemon shuts down; long waits select on it.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs `work` until it ends or the daemon stops, whichever is first.
    ///
    /// `work` is dropped at its next await point when the daemon stops, so it must be safe to drop there.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn_to_end(name, async move {
            // A dropped future is the whole of the shutdown: nothing is returned either way.
            stop.run_until_cancelled(work).await.unwrap_or_default();
        });
    }

    /// Runs `work` to its own end: for tasks that watch [`Tasks::stopping`] themselves because they have to tidy up.
    #[expect(clippy::disallowed_methods, reason = "the one lawful spawn")]
    pub fn spawn_to_end(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let named = async move {
            work.await;
            tracing::trace!(task = name, "task ended");
        };
        drop(tokio::spawn(self.tracker.track_future(named.instrument(tracing::debug_span!("task", name)))));
    }

    /// Cancels every task and waits at most `patience`. True when all ended in time.
    ///
    /// Cancel safe: yes (cancellation has been requested by then).
    pub async fn shutdown(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}
