//! Looks at a sandbox from time to time, and says when it is over a bound that the kernel does not hold for it.

use crate::limits::{Limit, Limits};
use crate::outcome::Usage;
use crate::policy::Policy;
use crate::watch::{DiskMeter, ENTRIES_MAX, Sample, free_bytes, proportional_memory};
use std::path::PathBuf;
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

#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    first: Option<i32>,
    has_cgroup: bool,
    directories: Vec<PathBuf>,
    free_at_start: Vec<Option<u64>>,
    usage: Usage,
}

impl Meter {
    pub(crate) fn new(policy: &Policy, first: Option<i32>, has_cgroup: bool) -> Self {
        let directories: Vec<PathBuf> =
            policy.binds.iter().filter(|bind| bind.writable).map(|bind| bind.source.clone()).collect();
        let free_at_start = directories.iter().map(|directory| free_bytes(directory)).collect();
        Self { limits: policy.limits.clone(), first, has_cgroup, directories, free_at_start, usage: Usage::default() }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Ends when a bound is passed. Cancel safe: yes.
    pub(crate) async fn watch(&mut self) -> Limit {
        let mut disk = DiskMeter::new(self.directories.clone());
        let mut next_walk = Instant::now() + CALM;
        // Most commands that are asked questions have ended by then.
        tokio::time::sleep(TENSE).await;
        loop {
            let is_tense = match self.processes() {
                Err(limit) => return limit,
                Ok(is_tense) => is_tense,
            };
            let filled = match self.free() {
                Err(limit) => return limit,
                Ok(filled) => filled,
            };
            let might_be_full = filled > self.limits.disk_bytes;
            let is_growing = filled > self.usage.disk_bytes.unwrap_or(0) + self.limits.disk_bytes / 8;
            if Instant::now() >= next_walk || (is_growing && might_be_full) {
                let began = Instant::now();
                if let Some(limit) = self.walk(&mut disk, might_be_full).await {
                    return limit;
                }
                next_walk = Instant::now() + CALM.max(began.elapsed() * DISK_SHARE);
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
        if sample.tasks > u64::from(self.limits.pids) + OWN_TASKS {
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

    /// By how much the file systems have got fuller since the start, whoever filled them.
    fn free(&self) -> Result<u64, Limit> {
        let mut filled = 0;
        for (directory, at_start) in self.directories.iter().zip(&self.free_at_start) {
            if let (Some(now), Some(at_start)) = (free_bytes(directory), at_start) {
                // A disk that was full before is not this sandbox's doing: it may go on with what little it needs.
                if now < self.limits.disk_reserve_bytes && *at_start > self.limits.disk_reserve_bytes {
                    return Err(Limit::DiskReserve);
                }
                filled = filled.max(at_start.saturating_sub(now));
            }
        }
        Ok(filled)
    }

    async fn walk(&mut self, disk: &mut DiskMeter, might_be_full: bool) -> Option<Limit> {
        loop {
            for _step in 0..DISK_STEPS {
                let Some(found) = disk.step() else { continue };
                self.usage.disk_bytes = Some(found.bytes);
                // What cannot be looked into may hold all by which the disk has got fuller.
                let is_over = found.bytes > self.limits.disk_bytes
                    || found.entries > ENTRIES_MAX
                    || (found.is_partial && might_be_full);
                return is_over.then_some(Limit::Disk);
            }
            tokio::task::yield_now().await;
        }
    }
}
