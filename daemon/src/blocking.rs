//! The one async face of the sync crates: disk, hashes and RocksDB run on the blocking pool.

use crate::panics;

/// Runs `work` on the blocking pool and waits for it.
///
/// Cancel safe: yes, but `work` runs to its end all the same, so it must be short or hold no lock another task waits for.
#[expect(clippy::disallowed_methods, reason = "the one lawful spawn_blocking")]
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let name = panics::current();
    match tokio::task::spawn_blocking(move || panics::named_blocking(name, work)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            // A panic is a bug wherever it happens; it must not be mistaken for an answer. It was noted already.
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work, and then nobody waits for this either.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Starts `work` on the blocking pool without waiting for it.
#[expect(clippy::disallowed_methods, reason = "the one lawful spawn_blocking")]
pub fn start(work: impl FnOnce() + Send + 'static) {
    let name = panics::current();
    drop(tokio::task::spawn_blocking(move || panics::named_blocking(name, work)));
}
