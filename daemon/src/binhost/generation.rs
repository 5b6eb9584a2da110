//! One state of the binhost's index: text, compressed text and time, made at once and never changed.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use tree::digest::Digest;
use tree::moment::Moment;

/// An index as it is served.
#[derive(Debug)]
pub struct Generation {
    /// `Packages`.
    pub text: Bytes,
    /// `Packages.gz`, the same.
    pub gzip: Bytes,
    /// Its `TIMESTAMP` and `Last-Modified`, in seconds since 1970.
    pub timestamp: u64,
    /// Packages in it.
    pub packages: usize,
    served: AtomicBool,
}

impl Generation {
    pub(super) fn new(text: String, timestamp: u64, packages: usize) -> Self {
        let gzip = compress(text.as_bytes(), timestamp);
        Self { text: text.into(), gzip, timestamp, packages, served: AtomicBool::new(false) }
    }

    /// Whether another text differs in nothing but its time.
    pub(super) fn says_the_same_as(&self, text: &str) -> bool {
        std::str::from_utf8(&self.text).is_ok_and(|own| without_time(own) == without_time(text))
    }

    /// When it came to be.
    #[must_use]
    pub fn modified(&self) -> Moment {
        Moment::of_seconds(self.timestamp).unwrap_or(Moment::EPOCH)
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }

    pub(super) fn mark_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }
}

/// What stands before and behind the line with the time, which is one of the header's.
fn without_time(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_once("TIMESTAMP: ")?;
    Some((before, rest.split_once('\n')?.1))
}

fn compress(text: &[u8], timestamp: u64) -> Bytes {
    let time = u32::try_from(timestamp).unwrap_or(0);
    let mut writer = GzBuilder::new().mtime(time).write(Vec::new(), Compression::default());
    let written = writer.write_all(text).and_then(|()| writer.finish());
    written.expect("memory takes everything").into()
}
