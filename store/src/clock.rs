//! What time it is: the system's, or what a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::disk::secs_since_1970;

/// Where the time is read.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of this machine.
    #[default]
    System,
    /// Seconds since 1970, set by whoever holds it.
    Set(Arc<AtomicU64>),
}

impl Clock {
    /// Seconds since 1970.
    pub(crate) fn now_secs(&self) -> u64 {
        match self {
            Self::System => secs_since_1970(SystemTime::now()),
            Self::Set(secs) => secs.load(Ordering::Relaxed),
        }
    }
}
