//! Looks at a sandbox from time to time, and says when it is over a bound that the kernel does not hold for it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::limits::{Limit, Limits, SCRATCH_FILE_BYTES};
use crate::outcome::Usage;
use crate::policy::Policy;
use crate::view::PRIVATE;
use crate::watch::{DiskMeter, ENTRIES_MAX, Room, Sample, children, proportional_memory};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at processes, when they are far from their bound and when they are near it.
const CALM: Duration = Duration::from_millis(500);
const TENSE: Duration = Duration::from_millis(50);
/// Looking at the disk takes at most one part of this many.
const DISK_SHARE: u32 = 20;
/// So many directories are looked at before others get their turn.
const DISK_STEPS: usize = 16;
/// A sandbox's own programs around the command: bwrap twice.
const OWN_TASKS: u64 = 2;
/// One part of this many of the files that a file system can have stays free.
const FILES_RESERVE: u64 = 20;

fn later(by: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(by).unwrap_or(now)
}

#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    first: Option<i32>,
    has_cgroup: bool,
    directories: Vec<PathBuf>,
    room_at_start: Vec<Option<Room>>,
    /// The private directories as they are seen from here, and the files that each may hold, those there were at the start
    /// among them.
    scratch: Vec<(PathBuf, u64)>,
    /// By how many bytes and files the disk had got fuller when it was walked last.
    walked: (u64, u64),
    usage: Usage,
}

impl Meter {
    pub(crate) fn new(policy: &Policy, first: Option<i32>, has_cgroup: bool) -> Self {
        let directories: Vec<PathBuf> =
            policy.binds.iter().filter(|bind| bind.writable).map(|bind| bind.source.clone()).collect();
        let room_at_start = directories.iter().map(|directory| Room::of(directory)).collect();
        let private = PRIVATE.iter().map(|(at, _)| (Path::new(at), policy.limits.scratch_bytes));
        let scratch = private.chain(policy.scratch.iter().map(|one| (one.target.as_path(), one.size_bytes)));
        // The first process itself is bwrap's, which sees this machine; its child is inside.
        let inside = first.and_then(|first| children(first).first().copied());
        let seen = |at: &Path| Some(Path::new(&format!("/proc/{}/root", inside?)).join(at.strip_prefix("/").ok()?));
        let most = |at: &Path, bytes: u64| Room::of(at)?.used_files().checked_add(bytes / SCRATCH_FILE_BYTES);
        let scratch = scratch.filter_map(|(at, bytes)| Some((seen(at)?, bytes)));
        let scratch = scratch.filter_map(|(at, bytes)| most(&at, bytes).map(|most| (at, most))).collect();
        let (limits, usage) = (policy.limits.clone(), Usage::default());
        Self { limits, first, has_cgroup, directories, room_at_start, scratch, walked: (0, 0), usage }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Ends when a bound is passed. Cancel safe: yes.
    pub(crate) async fn watch(&mut self) -> Limit {
        let mut disk = DiskMeter::new(self.directories.clone());
        let mut next_walk = later(CALM);
        // Most commands that are asked questions have ended by then.
        tokio::time::sleep(TENSE).await;
        loop {
            let is_tense = match self.processes() {
                Err(limit) => return limit,
                Ok(is_tense) => is_tense,
            };
            let (filled, files) = match self.filled() {
                Err(limit) => return limit,
                Ok(filled) => filled,
            };
            if let Some(limit) = self.private_files() {
                return limit;
            }
            let might_be_full = filled > self.limits.disk_bytes || files > self.limits.files;
            let is_growing = filled > self.walked.0.saturating_add(self.limits.disk_bytes / 8)
                || files > self.walked.1.saturating_add(self.limits.files / 8);
            if Instant::now() >= next_walk || (is_growing && might_be_full) {
                let began = Instant::now();
                if let Some(limit) = self.walk(&mut disk, filled > self.limits.disk_bytes).await {
                    return limit;
                }
                self.walked = (filled, files);
                next_walk = later(CALM.max(began.elapsed().saturating_mul(DISK_SHARE)));
            }
            tokio::time::sleep(if is_tense || might_be_full { TENSE } else { CALM }).await;
        }
    }

    /// Whether the processes are near a bound.
    fn processes(&mut self) -> Result<bool, Limit> {
        let Some(first) = self.first else { return Ok(false) };
        let sample = Sample::take(first);
        self.usage.cpu = self.usage.cpu.max(Some(sample.cpu));
        self.usage.memory_peak_bytes = self.usage.memory_peak_bytes.max(Some(sample.memory_bytes));
        if self.has_cgroup {
            return Ok(false);
        }
        if sample.tasks > u64::from(self.limits.pids).saturating_add(OWN_TASKS) {
            return Err(Limit::Pids);
        }
        if sample.memory_bytes > self.limits.memory_bytes
            && proportional_memory(first).unwrap_or(sample.memory_bytes) > self.limits.memory_bytes
        {
            return Err(Limit::Memory);
        }
        let is_near = |used: u64, bound: u64| used > bound / 4;
        Ok(is_near(sample.memory_bytes, self.limits.memory_bytes) || is_near(sample.tasks, self.limits.pids.into()))
    }

    /// By how many bytes and files the file systems have got fuller since the start, whoever filled them.
    fn filled(&self) -> Result<(u64, u64), Limit> {
        let (mut bytes, mut files) = (0, 0);
        for (directory, at_start) in self.directories.iter().zip(&self.room_at_start) {
            if let (Some(now), Some(at_start)) = (Room::of(directory), at_start) {
                // A disk that was full before is not this sandbox's doing: it may go on with what little it needs.
                let reserve = self.limits.disk_reserve_bytes;
                let is_full = now.free_bytes < reserve && at_start.free_bytes > reserve;
                let reserve = if self.limits.disk_reserve_bytes == 0 { 0 } else { now.files / FILES_RESERVE };
                if is_full || (now.free_files < reserve && at_start.free_files > reserve) {
                    return Err(Limit::DiskReserve);
                }
                bytes = bytes.max(at_start.free_bytes.saturating_sub(now.free_bytes));
                files = files.max(at_start.free_files.saturating_sub(now.free_files));
            }
        }
        Ok((bytes, files))
    }

    /// Whether a private directory holds more files than it may. They are in the kernel's memory, and nobody else counts them.
    fn private_files(&self) -> Option<Limit> {
        let is_over = |(at, most): &(PathBuf, u64)| Room::of(at).is_some_and(|room| room.used_files() > *most);
        self.scratch.iter().any(is_over).then_some(Limit::Files)
    }

    async fn walk(&mut self, disk: &mut DiskMeter, might_be_full: bool) -> Option<Limit> {
        loop {
            for _step in 0..DISK_STEPS {
                let Some(found) = disk.step() else { continue };
                self.usage.disk_bytes = Some(found.bytes);
                // What cannot be looked into may hold all by which the disk has got fuller.
                if found.entries > self.limits.files.min(ENTRIES_MAX) {
                    return Some(Limit::Files);
                }
                let is_over = found.bytes > self.limits.disk_bytes || (found.is_partial && might_be_full);
                return is_over.then_some(Limit::Disk);
            }
            tokio::task::yield_now().await;
        }
    }
}
