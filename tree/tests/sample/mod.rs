//! The metadata of a real overlay, which lies beside the checkout on machines of its developers and nowhere else.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The overlay unpacked, or None (with a message) where there is no sample.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
pub(crate) fn unpacked() -> Option<TempDir> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/guru-metadata.tar.xz");
    if !archive.exists() {
        println!("skipped: there is no sample overlay at {}", archive.display());
        return None;
    }
    // Thousands of small files: in memory where that is to be had, for a slow disk takes longer than the tests.
    let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary directory");
    #[expect(clippy::disallowed_methods, reason = "tests may start processes")]
    let status = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(directory.path()).status();
    assert!(status.expect("tar starts").success(), "tar unpacks the sample");
    Some(directory)
}
