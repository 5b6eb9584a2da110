//! What a sandbox may use up, and what ended it.

use std::fmt;
use std::time::Duration;

/// Bounds of one sandbox. A bound of 0 is refused by nothing and useful to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all its processes together, and of each by itself.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub pids: u32,
    /// It is ended after this long.
    pub time: Duration,
    /// What its writable directories together may hold on disk.
    pub disk_bytes: u64,
    /// Files and directories that they together may hold, empty ones too.
    pub files: u64,
    /// The longest single file.
    pub file_bytes: u64,
    /// Each of its private directories in memory (`/tmp`, `/run`, `/dev/shm`, `/var/tmp`) holds so much, and a file for each
    /// [`SCRATCH_FILE_BYTES`] of it.
    pub scratch_bytes: u64,
    /// What stays free on the file systems of its writable directories, whoever fills them.
    pub disk_reserve_bytes: u64,
    /// Share of the processor against others, as cgroup v2 counts it: 1 to 10000, 100 is usual. Only with a cgroup.
    pub cpu_weight: u32,
    /// Niceness, 0 to 19.
    pub nice: u8,
}

/// A private directory may hold a file for each so many of its bytes: an empty one costs the kernel's memory all the same.
pub const SCRATCH_FILE_BYTES: u64 = 4096;
/// On disk there is a file for each so many bytes. The sources of a browser have 20 KiB a file, those of a kernel 16.
const DISK_FILE_BYTES: u64 = 8192;
/// However little disk there is, so many files may lie on it.
const FILES_MIN: u64 = 65_536;

/// The files that may lie on so much disk.
#[must_use]
pub const fn files_of(disk_bytes: u64) -> u64 {
    let files = disk_bytes / DISK_FILE_BYTES;
    if files < FILES_MIN { FILES_MIN } else { files }
}

const GIB: u64 = 1 << 30;

impl Default for Limits {
    /// What a large package needs: 8 GiB of memory, 4096 processes, 12 hours, 64 GiB on disk.
    fn default() -> Self {
        Self {
            memory_bytes: 8 * GIB,
            pids: 4096,
            time: Duration::from_secs(12 * 60 * 60),
            disk_bytes: 64 * GIB,
            files: files_of(64 * GIB),
            file_bytes: 16 * GIB,
            scratch_bytes: GIB,
            disk_reserve_bytes: GIB / 2,
            cpu_weight: 50,
            nice: 10,
        }
    }
}

/// A bound that was reached, so that the sandbox was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::pids`].
    Pids,
    /// [`Limits::time`].
    Time,
    /// [`Limits::disk_bytes`].
    Disk,
    /// [`Limits::files`], or those of a private directory.
    Files,
    /// [`Limits::disk_reserve_bytes`], or a twentieth of the files that the file system can have.
    DiskReserve,
    /// What is kept of a captured output.
    Output,
}

impl fmt::Display for Limit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Memory => "it used more memory than it may",
            Self::Pids => "it had more processes than it may",
            Self::Time => "it took longer than it may",
            Self::Disk => "it filled more of the disk than it may",
            Self::Files => "it made more files than it may",
            Self::DiskReserve => "the disk is nearly full",
            Self::Output => "it wrote more output than it may",
        })
    }
}
