//! One state of the binhost's index: text, compressed text and time, made at once and never changed.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use tree::digest::Digest;
use tree::moment::Moment;
use tree::packages::PackagesIndex;

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
    pub(super) fn new(index: &PackagesIndex) -> Self {
        let (text, timestamp) = (index.to_string(), index.timestamp().unwrap_or(0));
        let gzip = compress(text.as_bytes(), timestamp);
        let packages = index.entries().len();
        Self { text: text.into(), gzip, timestamp, packages, served: AtomicBool::new(false) }
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

fn compress(text: &[u8], timestamp: u64) -> Bytes {
    let time = u32::try_from(timestamp).unwrap_or(0);
    let mut writer = GzBuilder::new().mtime(time).write(Vec::new(), Compression::default());
    let written = writer.write_all(text).and_then(|()| writer.finish());
    written.expect("memory takes everything").into()
}
