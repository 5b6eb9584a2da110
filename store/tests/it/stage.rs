//! What the tests share: a fresh store, bytes for it, and the few steps that nearly all of them take.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use store::{Blob, Options, Store, VerifyReport, Wanted};
use tempfile::TempDir;
use tree::digest::{Digest, Sha512};

pub(crate) fn options() -> Options {
    Options { free_min_bytes: 0, grace: Duration::ZERO, ..Options::default() }
}

pub(crate) fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), options()).expect("a fresh store opens");
    (dir, store)
}

/// In memory where that can be had: hundreds of stores are made, and their syncs are counted, not needed.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

pub(crate) fn bytes_of(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

pub(crate) fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { digest: Digest::of(bytes), size: Some(bytes.len() as u64), sha512: Some(Sha512::of(bytes)) }
}

pub(crate) fn add(store: &Store, bytes: &[u8]) -> Blob {
    let mut incoming = store.incoming(&wanted(bytes)).expect("an incoming begins");
    for piece in bytes.chunks(100_000) {
        incoming.append(piece).expect("the disk takes bytes");
    }
    incoming.finish().expect("the bytes are right")
}

pub(crate) fn content(blob: &Blob) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(blob.size()).expect("a small blob")];
    blob.file().read_exact_at(&mut bytes, 0).expect("a blob reads");
    bytes
}

pub(crate) fn verify(store: &Store) -> VerifyReport {
    store.verify(None, &mut |_| {}, &AtomicBool::new(false))
}

/// Writes over a blob as a rotting disk would.
pub(crate) fn rot(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a blob of ours");
    store::write_atomically(path, bytes, 0o444).expect("a writable directory");
}
