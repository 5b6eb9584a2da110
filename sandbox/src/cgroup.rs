//! A cgroup (version 2) of its own for a sandbox, where this process may make one. Source: the kernel's cgroup-v2.rst.

use crate::limits::Limits;
use rustix::fs::{Mode, OFlags};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A group below which groups may be made, with the controllers that are needed.
#[derive(Clone, Debug)]
pub(crate) struct CgroupBase(PathBuf);

/// Controllers without which a group bounds nothing that is asked for.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// The group of the node itself, beside those of its builds.
const NODE: &str = "node";

fn has_all(controllers: &str) -> bool {
    NEEDED.iter().all(|needed| controllers.split_ascii_whitespace().any(|controller| controller == *needed))
}

impl CgroupBase {
    /// The group this process is in, made ready: this process moves into a group `node` of it, because a group that
    /// gives controllers on may hold no process itself. Where whoever started this process has done that already, it is
    /// the group above.
    ///
    /// # Errors
    /// When there is no version 2, it lacks controllers, or the group is not this process' own to divide.
    pub(crate) fn of_this_process() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        let base =
            locate(&mounts, &groups).ok_or_else(|| Error::new(ErrorKind::NotFound, "no cgroup v2 is mounted"))?;
        Self::prepare(base, std::process::id())
    }

    fn prepare(base: PathBuf, this_process: u32) -> Result<Self> {
        if let Some(above) = base.parent().filter(|_| base.file_name().is_some_and(|name| name == NODE)) {
            let given = std::fs::read_to_string(above.join("cgroup.subtree_control")).unwrap_or_default();
            let may_write = |file: &str| rustix::fs::access(above.join(file), rustix::fs::Access::WRITE_OK).is_ok();
            if has_all(&given) && may_write("") && may_write("cgroup.procs") {
                return Ok(Self(above.to_owned()));
            }
        }
        let available = std::fs::read_to_string(base.join("cgroup.controllers"))?;
        for needed in NEEDED {
            if !available.split_ascii_whitespace().any(|controller| controller == needed) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the controller {needed} is not given to this group"),
                ));
            }
        }
        let given = std::fs::read_to_string(base.join("cgroup.subtree_control"))?;
        if has_all(&given) {
            return Ok(Self(base));
        }
        let members = std::fs::read_to_string(base.join("cgroup.procs"))?;
        if members.split_ascii_whitespace().any(|member| member != this_process.to_string()) {
            return Err(Error::new(ErrorKind::ResourceBusy, "other processes are in the group of this one"));
        }
        let node = base.join(NODE);
        make(&node)?;
        put(&node.join("cgroup.procs"), &this_process.to_string())?;
        put(&base.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
        Ok(Self(base))
    }
}

/// The path of the group of version 2 that this process is in. Not the root group: that is the machine's.
fn locate(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).filter(|group| !group.is_empty())?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split(' ').next() == Some("cgroup2");
        is_v2.then(|| before.split(' ').nth(4)).flatten()
    })?;
    Some(Path::new(mount).join(group))
}

/// The group of one sandbox; all in it is killed, and it is removed, when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

/// What a group used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupUsage {
    pub(crate) cpu: Option<Duration>,
    pub(crate) memory_peak_bytes: Option<u64>,
    /// The kernel ended a process of it because the group was at its bound.
    pub(crate) is_out_of_memory: bool,
}

impl Cgroup {
    pub(crate) fn create(base: &CgroupBase, name: &str, limits: &Limits) -> Result<Self> {
        let path = base.0.join(name);
        make(&path)?;
        let group = Self { path };
        group.set("memory.max", &limits.memory_bytes.to_string())?;
        // Without swap accounting the file is not there, and there is nothing to bound.
        group.set_if_there("memory.swap.max", "0")?;
        group.set_if_there("memory.oom.group", "1")?;
        // bwrap and its parent are in the group too.
        group.set("pids.max", &limits.pids.saturating_add(4).to_string())?;
        group.set("cpu.weight", &limits.cpu_weight.clamp(1, 10_000).to_string())?;
        Ok(group)
    }

    pub(crate) fn add(&self, pid: i32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    pub(crate) fn kill(&self) -> Result<()> {
        self.set_if_there("cgroup.kill", "1")
    }

    pub(crate) fn usage(&self) -> CgroupUsage {
        let read = |name: &str| std::fs::read_to_string(self.path.join(name)).unwrap_or_default();
        let field =
            |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        CgroupUsage {
            cpu: field(&read("cpu.stat"), "usage_usec ").map(Duration::from_micros),
            memory_peak_bytes: read("memory.peak").trim().parse().ok(),
            is_out_of_memory: field(&read("memory.events"), "oom_kill ").is_some_and(|count| count > 0),
        }
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        put(&self.path.join(file), value)
    }

    fn set_if_there(&self, file: &str, value: &str) -> Result<()> {
        match self.set(file, value) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _killed = self.kill();
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a cgroup stays for now");
        }
    }
}

fn make(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Writes to a file of the kernel's: in one piece, and the file is never made.
pub(crate) fn put(path: &Path, value: &str) -> Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::write(&file, value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(Error::from(ErrorKind::WriteZero)) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;

    /// A directory with the files that a kernel would have in a group.
    fn imitation(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn the_group_is_found_and_the_machines_own_is_left_alone() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n31 23 0:27 / /x rw - tmpfs t rw\n";
        let found = locate(mounts, "12:pids:/\n0::/system.slice/peer.service\n");
        assert_eq!(found, Some("/sys/fs/cgroup/system.slice/peer.service".into()));
        assert_eq!(locate(mounts, "0::/\n"), None);
        assert_eq!(locate("31 23 0:27 / /x rw - tmpfs t rw\n", "0::/a\n"), None);
    }

    #[test]
    fn a_group_without_controllers_or_with_strangers_is_not_divided() {
        let files = [("cgroup.controllers", "cpu pids\n"), ("cgroup.subtree_control", ""), ("cgroup.procs", "7\n")];
        let directory = imitation(&files);
        let error = CgroupBase::prepare(directory.path().into(), 7).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        std::fs::write(directory.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let error = CgroupBase::prepare(directory.path().into(), 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    }

    #[test]
    fn a_group_that_was_divided_before_is_the_one_above() {
        let files = [
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("cgroup.procs", ""),
            ("node/cgroup.controllers", "cpu memory pids\n"),
            ("node/cgroup.subtree_control", ""),
            ("node/cgroup.procs", "7\n8\n"),
        ];
        let directory = imitation(&files);
        let base = CgroupBase::prepare(directory.path().join("node"), 7).unwrap();
        assert_eq!(base.0, directory.path());
        std::fs::write(directory.path().join("cgroup.subtree_control"), "memory\n").unwrap();
        let error = CgroupBase::prepare(directory.path().join("node"), 7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy, "it is no division of ours");
    }

    #[test]
    fn bounds_are_written_as_the_kernel_reads_them() {
        let files = [
            ("cgroup.controllers", "cpu memory pids io\n"),
            ("cgroup.subtree_control", ""),
            ("cgroup.procs", "7\n"),
            ("node/cgroup.procs", ""),
            ("job/memory.max", "max\n"),
            ("job/pids.max", "max\n"),
            ("job/cpu.weight", "100\n"),
            ("job/cgroup.procs", ""),
            ("job/cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
            ("job/memory.peak", "4096\n"),
            ("job/memory.events", "low 0\noom 1\noom_kill 2\n"),
        ];
        let directory = imitation(&files);
        let base = CgroupBase::prepare(directory.path().into(), 7).unwrap();
        let limits = Limits { memory_bytes: 1000, pids: 10, cpu_weight: 99_999, ..Limits::default() };
        let group = Cgroup::create(&base, "job", &limits).unwrap();
        group.add(12).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("cgroup.subtree_control").starts_with("+cpu +memory +pids"));
        assert!(read("node/cgroup.procs").starts_with('7'));
        assert!(read("job/memory.max").starts_with("1000"));
        assert!(read("job/pids.max").starts_with("14"));
        assert!(read("job/cpu.weight").starts_with("10000"));
        assert!(read("job/cgroup.procs").starts_with("12"));
        let usage = CgroupUsage {
            cpu: Some(Duration::from_millis(1500)),
            memory_peak_bytes: Some(4096),
            is_out_of_memory: true,
        };
        assert_eq!(group.usage(), usage);
    }
}
