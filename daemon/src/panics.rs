//! Panics: each is a bug; it costs the task it happened in, is logged, counted and told. See decision 0027.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;

/// Panics since the process began, those of tasks that libraries started too.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The last of them.
static LAST: Mutex<Option<String>> = Mutex::new(None);

tokio::task_local! {
    /// What the task is called that runs now.
    static TASK: &'static str;
}

/// A task, or a part of one, ended in a panic. What it was is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has a fault that its log tells of: please report it")]
pub struct Panicked;

/// Counts every panic of this process from now on, and logs it with the name of its task; what reported panics before
/// still does. For the start of the process.
#[expect(clippy::disallowed_methods, reason = "the one lawful hook of the daemon")]
pub fn note() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        COUNT.fetch_add(1, Ordering::Relaxed);
        let at = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let task = current().unwrap_or("another task");
        let what = panic.payload_as_str().unwrap_or_default();
        tracing::error!(task, at, what, "a panic: this is a fault of the program");
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{task} at {at}"));
    }));
}

/// How many there were, and the task and place of the last one.
#[must_use]
pub fn noted() -> (u64, Option<String>) {
    (COUNT.load(Ordering::Relaxed), LAST.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// What the task is called that runs now.
pub(crate) fn current() -> Option<&'static str> {
    TASK.try_with(|name| *name).ok()
}

/// The work under the name of its task.
pub(crate) fn named<T>(name: &'static str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    TASK.scope(name, work)
}

/// Blocking work under the name of the task that waits for it.
pub(crate) fn named_blocking<T>(name: Option<&'static str>, work: impl FnOnce() -> T) -> T {
    match name {
        Some(name) => TASK.sync_scope(name, work),
        None => work(),
    }
}

/// The work, or that it ended in a panic. What it shares with others is guarded by types that put it right when they are
/// dropped, or is whole between any two statements: decision 0027 names what is relied on.
///
/// # Errors
/// When it panicked.
pub(crate) fn caught<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Panicked>> {
    // On the heap: a job is large, and each frame that moves it costs as much of the stack.
    AssertUnwindSafe(Box::pin(work)).catch_unwind().map(|done| done.map_err(|_payload| Panicked))
}
