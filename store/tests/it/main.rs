//! A store as its user sees it, on a real disk and on disks that go wrong; one binary.
//!
//! Rooms that set the stage: `stage` (a fresh store and bytes for it), `faulty_disk` (a disk that fails when told to).
//! The others are tests, one subject a room.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this binary is a test, the functions without `#[test]` too"
)]

mod faulty_disk;
mod stage;

mod blobs;
mod full_disk;
mod gc;
mod gc_model;
mod import;
mod incoming;
mod kill;
mod pins;
mod promises;
mod scrub;
