//! How a command in the sandbox ended, and what it used.

use crate::limits::Limit;
use crate::log::LogSummary;
use crate::phase::Phase;
use std::time::Duration;

/// The end of a command that was started. None of its processes is left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The phase of the build it was in at last, by its log.
    pub phase: Option<Phase>,
    /// What it used.
    pub usage: Usage,
    /// What there is of its log.
    pub log: LogSummary,
}

impl Outcome {
    /// Whether it ended by itself and says it succeeded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.end == End::Ended { code: 0 }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself; a signal n is told as code 128 + n, as shells do.
    Ended {
        /// Exit code.
        code: i32,
    },
    /// It reached a bound and was ended.
    Limit(Limit),
    /// It was cancelled and was ended.
    Cancelled,
}

/// What it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the start of the command to the end of the last process.
    pub wall: Duration,
    /// Time on processors; sampled, hence a little too small, where there is no cgroup. None when it ended before a sample.
    pub cpu: Option<Duration>,
    /// The most memory at one time; sampled where there is no cgroup. None when it ended before a sample.
    pub memory_peak_bytes: Option<u64>,
    /// What its writable directories held when they were last looked at. None when it ended before that.
    pub disk_bytes: Option<u64>,
}
