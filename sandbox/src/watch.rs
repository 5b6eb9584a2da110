//! What a sandbox uses, looked at from outside: its processes, and its directories on disk.
//!
//! This is how memory, processes and disk are bounded in sum where there is no cgroup. The first process of the
//! sandbox's process namespace is the ancestor of all others, also of those whose parents are gone.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tree::size::total;

/// One look at all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) tasks: u64,
    /// Memory that is no file's on a disk. Pages that processes share are counted once for each of them.
    pub(crate) memory_bytes: u64,
    pub(crate) cpu: Duration,
}

/// More processes than this are not looked at one by one; they are counted as too many long before.
const PROCESSES_MAX: usize = 100_000;

/// The processes that a process is the ancestor of, itself among them.
pub(crate) fn descendants(ancestor: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![ancestor] };
    for entry in entries.flatten().take(PROCESSES_MAX) {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            && let Some(stat) = Stat::read(pid)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut all = vec![ancestor];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        all.extend(children.remove(&pid).unwrap_or_default());
        at = usize::saturating_add(at, 1);
    }
    all
}

/// Children of a process that has one thread, without looking at all processes where the kernel can tell.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    match std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(text) => text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect(),
        Err(_) => descendants(pid)
            .into_iter()
            .skip(1)
            .filter(|child| Stat::read(*child).is_some_and(|stat| stat.parent == pid))
            .collect(),
    }
}

impl Sample {
    pub(crate) fn take(first: i32) -> Self {
        let tick = rustix::param::clock_ticks_per_second().max(1);
        let mut sample = Self::default();
        let mut ticks = 0;
        for pid in descendants(first) {
            let Some(stat) = Stat::read(pid) else { continue };
            sample.tasks = sample.tasks.saturating_add(stat.threads);
            ticks = total([ticks, stat.ticks]);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kilobytes = kilobytes(&status, &["RssAnon:", "RssShmem:"]);
            sample.memory_bytes = sample.memory_bytes.saturating_add(kilobytes.saturating_mul(1024));
        }
        sample.cpu = Duration::from_millis(ticks.saturating_mul(1000).checked_div(tick).unwrap_or(0));
        sample
    }
}

/// The sum of lines such as `RssAnon:  12 kB`.
fn kilobytes(text: &str, names: &[&str]) -> u64 {
    let value = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()
    };
    total(text.lines().filter_map(value))
}

/// The same with shared pages divided among those who share them: exact, and much slower to ask.
pub(crate) fn proportional_memory(first: i32) -> Option<u64> {
    let mut sum = 0;
    for pid in descendants(first) {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        sum = total([sum, kilobytes(&text, &["Pss_Anon:", "Pss_Shmem:"]).saturating_mul(1024)]);
    }
    (sum > 0).then_some(sum)
}

/// Some fields of `/proc/PID/stat` (proc(5)).
struct Stat {
    parent: i32,
    threads: u64,
    ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// The name, second, may hold anything: fields are counted from its last parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let parent = fields.get(1)?.parse().ok()?;
        // Own time and that of children that were waited for; those of a living child are its own to tell.
        let ticks = total([11, 12, 13, 14].into_iter().filter_map(number));
        Some(Self { parent, threads: number(17)?, ticks })
    }
}

/// Adds up what directories hold on disk, one directory at a time, so that nobody waits long for it.
#[derive(Debug)]
pub(crate) struct DiskMeter {
    roots: Vec<PathBuf>,
    queue: VecDeque<PathBuf>,
    root: Option<OwnedFd>,
    next_root: usize,
    seen: HashSet<(u64, u64)>,
    sum: u64,
    entries: u64,
    is_partial: bool,
}

/// A sum of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUse {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Something could not be looked into.
    pub(crate) is_partial: bool,
}

/// So many directories may wait to be looked at; the sum is partial if there are more.
const WAITING_MAX: usize = 1_000_000;
/// More entries than this are not counted.
pub(crate) const ENTRIES_MAX: u64 = 20_000_000;

impl DiskMeter {
    pub(crate) fn new(roots: Vec<PathBuf>) -> Self {
        let (queue, seen) = (VecDeque::new(), HashSet::new());
        Self { roots, queue, root: None, next_root: 0, seen, sum: 0, entries: 0, is_partial: false }
    }

    /// Looks at one directory more; the sum once all were looked at, after which it begins anew.
    pub(crate) fn step(&mut self) -> Option<DiskUse> {
        // The last in is taken first, so that what waits is as short as the tree allows.
        if let Some(path) = self.queue.pop_back() {
            if self.directory(&path).is_err() {
                self.is_partial = true;
            }
            return None;
        }
        if let Some(root) = self.roots.get(self.next_root) {
            self.next_root = self.next_root.saturating_add(1);
            self.root = rustix::fs::open(root, DIRECTORY, Mode::empty()).ok();
            match &self.root {
                Some(_) => self.queue.push_back(PathBuf::from(".")),
                // A single file, or nothing any more.
                None => self.is_partial |= root.is_dir(),
            }
            return None;
        }
        let found = DiskUse { bytes: self.sum, entries: self.entries, is_partial: self.is_partial };
        (self.next_root, self.sum, self.entries, self.is_partial) = (0, 0, 0, false);
        self.seen.clear();
        Some(found)
    }

    fn directory(&mut self, path: &Path) -> std::io::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        // A part of the path that has become a link in the meantime leads nowhere.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve)?;
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries = self.entries.saturating_add(1);
            if self.entries > ENTRIES_MAX {
                return Ok(());
            }
            let name = entry.file_name();
            let Ok(about) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
            if about.st_nlink > 1 && !is_directory && !self.seen.insert((about.st_dev, about.st_ino)) {
                continue;
            }
            self.sum = self.sum.saturating_add(u64::try_from(about.st_blocks).unwrap_or(0).saturating_mul(512));
            if is_directory && self.queue.len() < WAITING_MAX {
                self.queue.push_back(path.join(OsStr::from_bytes(name.to_bytes())));
            } else if is_directory {
                self.is_partial = true;
            }
        }
        Ok(())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the file system of a path has, and still has for an ordinary user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    /// Files that it can have in all; 0 where it does not count them.
    pub(crate) files: u64,
    pub(crate) free_files: u64,
}

impl Room {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let about = rustix::fs::statvfs(path).ok()?;
        let free_bytes = about.f_bavail.saturating_mul(about.f_frsize);
        Some(Self { free_bytes, files: about.f_files, free_files: about.f_favail })
    }

    /// Files that are there.
    pub(crate) fn used_files(self) -> u64 {
        self.files.saturating_sub(self.free_files)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;

    #[test]
    fn a_process_name_with_parentheses_is_no_way_to_hide() {
        let stat = Stat::parse("12 (a) S 1 ) R) S 7 12 12 0 -1 4194304 5 6 7 8 10 20 30 40 20 0 3 0 99 1 2").unwrap();
        assert_eq!((stat.parent, stat.ticks, stat.threads), (7, 100, 3));
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn this_process_uses_memory() {
        let me = i32::try_from(std::process::id()).unwrap();
        let sample = Sample::take(me);
        assert!(sample.tasks >= 1 && sample.memory_bytes > 0, "{sample:?}");
    }

    #[test]
    fn a_tree_is_added_up_and_links_are_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b/c")).unwrap();
        std::fs::write(directory.path().join("a/b/c/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(directory.path().join("a/b/c/file"), directory.path().join("a/link")).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("a/away")).unwrap();
        let mut meter = DiskMeter::new(vec![directory.path().into()]);
        for _again in 0..2 {
            let found = std::iter::from_fn(|| Some(meter.step())).find_map(|found| found).unwrap();
            assert!((1 << 20..1 << 21).contains(&found.bytes), "{found:?}");
            assert_eq!((found.entries, found.is_partial), (6, false));
        }
    }
}
