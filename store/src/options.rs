//! How a store keeps itself: budgets, checks, and for how long things stay.

use std::time::Duration;

use crate::clock::Clock;

/// How a store keeps itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that blobs and partials together may take; gc brings them back to it. None: only the disk bounds them.
    pub size_max_bytes: Option<u64>,
    /// Bytes of the file system that are left to others: nothing is taken in below it, and gc frees up to it.
    pub free_min_bytes: u64,
    /// Most bytes of an incoming whose size nobody knows.
    pub incoming_max_bytes: u64,
    /// Whether a SHA-512 that is known is checked beside the BLAKE2B; it more than doubles the work.
    pub check_sha512: bool,
    /// A blob younger than this is not removed by gc.
    pub grace: Duration,
    /// A partial that nobody wrote to for this long is removed by gc.
    pub partial_keep: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size_max_bytes: None,
            free_min_bytes: 512 << 20,
            incoming_max_bytes: 32 << 30,
            check_sha512: true,
            grace: Duration::from_secs(60 * 60),
            partial_keep: Duration::from_secs(7 * 24 * 60 * 60),
            clock: Clock::System,
        }
    }
}
