//! The only `spawn`: every task has a name, ends when the daemon ends, and its end is noticed.
//!
//! A task that panics ends alone. What that costs is decided by how it was started: a connection, a transfer or a job is
//! lost ([`Tasks::spawn`]); what follows the store, the repositories or the groups begins anew ([`Tasks::keep`]); without
//! what drives the swarm or accepts connections there is no node, and it stops ([`Tasks::spawn_vital`]).

use crate::panics::{self, Panicked};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Before a task begins anew after a panic; twice as long each further time.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// At most this long.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// The tasks of one daemon. Clones share the same tracker; a child token is cancelled with its parent.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The vital task that ended in a panic.
    failed: watch::Sender<Option<&'static str>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), failed: watch::Sender::new(None) }
    }
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
        let (stop, work) = (self.stop.clone(), Box::pin(work));
        self.spawn_to_end(name, async move {
            // A dropped future is the whole of the shutdown: nothing is returned either way.
            stop.run_until_cancelled(work).await.unwrap_or_default();
        });
    }

    /// Runs `work` to its own end: for tasks that watch [`Tasks::stopping`] themselves because they have to tidy up.
    pub fn spawn_to_end(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let work = panics::caught(work);
        self.start(name, async move {
            // It is lost: who waits for it hears of that by what it dropped.
            let _panicked = work.await;
        });
    }

    /// As [`Tasks::spawn`], for what follows something as long as the daemon runs: after a panic it begins anew.
    pub fn keep<W>(&self, name: &'static str, mut work: impl FnMut() -> W + Send + 'static)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, async move {
            let mut pause = AGAIN_MIN;
            while let Err(Panicked) = panics::caught(work()).await {
                tracing::warn!(task = name, ?pause, "it begins anew");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(AGAIN_MAX);
            }
        });
    }

    /// As [`Tasks::spawn_to_end`], for what the node cannot be without: after a panic [`Tasks::failed`] says so.
    pub fn spawn_vital(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (failed, work) = (self.failed.clone(), panics::caught(work));
        self.start(name, async move {
            if let Err(Panicked) = work.await {
                failed.send_replace(Some(name));
            }
        });
    }

    /// Waits until a vital task has ended in a panic; the answer is its name.
    ///
    /// Cancel safe: yes.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        let found = failed.wait_for(Option::is_some).await.ok().and_then(|name| *name);
        match found {
            Some(name) => name,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one lawful spawn")]
    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let named = async move {
            work.await;
            tracing::trace!(task = name, "task ended");
        };
        let named = panics::named(name, named).instrument(tracing::debug_span!("task", name));
        drop(tokio::spawn(self.tracker.track_future(named)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::{Semaphore, oneshot};

    #[tokio::test]
    async fn a_panic_costs_its_task_and_gives_back_what_it_held() {
        panics::note();
        let (tasks, slots) = (Tasks::new(), Arc::new(Semaphore::new(1)));
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let (tell, told) = oneshot::channel::<()>();
        tasks.spawn("a guest", async move {
            let _held = (slot, tell);
            let nothing: Vec<u8> = Vec::new();
            crate::blocking::run(move || assert_eq!(nothing.len(), 7, "a test's own panic")).await;
        });
        assert!(told.await.is_err(), "who waits hears of it");
        drop(slots.acquire().await.unwrap());
        let (count, last) = panics::noted();
        let last = last.unwrap();
        assert_eq!(count, 1, "a panic on the blocking pool is one and not two");
        assert!(last.starts_with("a guest at ") && last.contains("tasks.rs"), "{last}");
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_something_begins_anew_and_what_is_vital_is_told() {
        let (tasks, begun) = (Tasks::new(), Arc::new(AtomicU32::new(0)));
        let counting = Arc::clone(&begun);
        let (done, mut ended) = tokio::sync::mpsc::channel(1);
        tasks.keep("a follower", move || {
            let (number, done) = (counting.fetch_add(1, Ordering::Relaxed), done.clone());
            async move {
                assert!(number >= 3, "a test's own panic");
                let _told = done.send(()).await;
            }
        });
        ended.recv().await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 4);
        tasks.spawn("a guest", async { panic!("a test's own panic") });
        tasks.spawn_vital("the heart", async { panic!("a test's own panic") });
        assert_eq!(tasks.failed().await, "the heart", "and not the guest");
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
