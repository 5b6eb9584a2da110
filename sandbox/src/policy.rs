//! What a process in the sandbox sees and may do, in types. Everything that is not named here is not there.
//!
//! A policy is made by the daemon from its own configuration. Nothing in it comes from a remote's request.

use crate::ids;
use crate::limits::Limits;
use rustix::fs::{Access, AtFlags};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The whole of what one sandbox is given.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The system whose programs, headers and libraries are seen, read-only.
    pub root: Root,
    /// Trees like a root (`usr/`, `etc/`, `var/db/pkg` …) laid over it read-only, the highest first. At most [`LAYERS_MAX`].
    pub layers: Vec<PathBuf>,
    /// Symbolic links that are made inside, at paths that neither root nor binds bring.
    pub links: Vec<Link>,
    /// Directories and files of this machine seen inside. Later ones lie over earlier ones.
    pub binds: Vec<Bind>,
    /// Private, empty, writable directories in memory besides `/tmp`, `/run`, `/dev/shm` and `/var/tmp`, which always are.
    /// What root and layers have below one is seen in it, what they have at the same path is not.
    pub scratch: Vec<Scratch>,
    /// Paths whose content is hidden by an empty read-only directory or file, if they are there at all.
    pub hidden: Vec<PathBuf>,
    /// The whole environment: nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Whose rights it has, outside and inside.
    pub identity: Identity,
    /// What it may use up.
    pub limits: Limits,
    /// The host's name inside.
    pub hostname: String,
    /// Where the command starts.
    pub directory: PathBuf,
}

/// More layers than this are refused; every package of a plan goes into one, so that a handful is usual.
pub const LAYERS_MAX: usize = 64;

impl Policy {
    /// A policy with nothing bound, no layer, an environment of `PATH`, `HOME` and `LANG`, and the default limits.
    #[must_use]
    pub fn new(root: Root, identity: Identity) -> Self {
        let environment = [("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), ("HOME", "/var/tmp"), ("LANG", "C.UTF-8")];
        Self {
            root,
            layers: Vec::new(),
            links: Vec::new(),
            binds: Vec::new(),
            scratch: Vec::new(),
            hidden: Vec::new(),
            environment: environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            identity,
            limits: Limits::default(),
            hostname: "builder".to_owned(),
            directory: PathBuf::from("/"),
        }
    }
}

/// The system a sandbox is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// The machine's own `/`.
    #[must_use]
    pub fn host() -> Self {
        Self { path: PathBuf::from("/") }
    }

    /// An unpacked stage, or another directory with a system in it.
    #[must_use]
    pub fn stage(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is on this machine.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory or file of this machine that is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Where it is seen; its parents are made, with mode 0755, where nothing else brings them.
    pub target: PathBuf,
    /// Whether it may be written. What is written is seen on this machine.
    pub writable: bool,
}

impl Bind {
    /// Seen inside at the same path, not writable.
    #[must_use]
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        let source = path.into();
        Self { target: source.clone(), source, writable: false }
    }

    /// Seen inside at the same path, writable.
    #[must_use]
    pub fn writable(path: impl Into<PathBuf>) -> Self {
        Self { writable: true, ..Self::read_only(path) }
    }

    /// The same, seen at another path.
    #[must_use]
    pub fn at(self, target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), ..self }
    }
}

/// A symbolic link that is made inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it is seen, without links on the way; its parents are made.
    pub at: PathBuf,
    /// What it says.
    pub to: PathBuf,
}

/// A private directory in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Where it is seen.
    pub target: PathBuf,
    /// Bytes it can hold.
    pub size_bytes: u64,
    /// Permission bits, for instance 0o1777.
    pub mode: u32,
}

/// Whose rights a process has. In neither case has it any right of the machine's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The numbers `0..count` inside are `outer_first..outer_first + count` outside. The command starts as 0 and may
    /// change owners and become others of these, as a build on Gentoo does. Only a daemon that is root can give this.
    Mapped {
        /// The number that 0 inside is outside.
        outer_first: u32,
        /// How many numbers there are.
        count: u32,
    },
    /// One number inside, which is the daemon's own user outside; no capability at all.
    Single {
        /// User number inside.
        uid: u32,
        /// Group number inside.
        gid: u32,
    },
}

/// The first number outside that builds of this process have: the same as long as it runs, as directories are given to it.
static OUTER_FIRST: OnceLock<u32> = OnceLock::new();

/// How many numbers a mapped range has: all that a 16-bit user number can name.
pub const MAPPED_COUNT: u32 = 65_536;

/// Portage's user and group on Gentoo.
pub const PORTAGE_ID: u32 = 250;

impl Identity {
    /// What this process can give: a mapped range when it is root, of numbers that no user of this machine has or may get
    /// ([`crate::ids`]), else Portage's number for its own.
    #[must_use]
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Mapped { outer_first: *OUTER_FIRST.get_or_init(ids::first_of_builds), count: MAPPED_COUNT }
        } else {
            Self::Single { uid: PORTAGE_ID, gid: PORTAGE_ID }
        }
    }

    /// The number outside of a number inside; none when it has none. The daemon gives a directory to it that the
    /// sandbox shall write.
    #[must_use]
    pub fn outer(self, inner: u32) -> Option<u32> {
        match self {
            Self::Mapped { outer_first, count } => {
                (inner < count).then_some(inner).and_then(|inner| outer_first.checked_add(inner))
            }
            Self::Single { uid, .. } => (inner == uid).then(|| rustix::process::geteuid().as_raw()),
        }
    }

    /// Whether the command can read a file, or list and enter a directory, as far as its own bits say. What leads there is
    /// not looked at: a bind brings it past its parents.
    #[must_use]
    pub fn may_read(self, path: &Path, about: &Metadata) -> bool {
        match self {
            Self::Mapped { outer_first, .. } => {
                let wanted = if about.is_dir() { 0o5 } else { 0o4 };
                let bits = if about.uid() == outer_first { about.mode() >> 6 } else { about.mode() };
                bits & wanted == wanted
            }
            Self::Single { .. } => {
                let wanted = if about.is_dir() { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
                rustix::fs::accessat(rustix::fs::CWD, path, wanted, AtFlags::EACCESS).is_ok()
            }
        }
    }

    /// User and group that the command starts as, inside.
    #[must_use]
    pub fn start(self) -> (u32, u32) {
        match self {
            Self::Mapped { .. } => (0, 0),
            Self::Single { uid, gid } => (uid, gid),
        }
    }
}

/// Capabilities, inside its own user namespace, of a command with a mapped range: to change owners and users and to
/// end what it started. None of them reaches beyond the mapped range.
pub(crate) const CAPABILITIES: [&str; 7] =
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_beyond_the_range_is_nobody_outside() {
        let mapped = Identity::Mapped { outer_first: 100_000, count: 65_536 };
        assert_eq!(mapped.outer(0), Some(100_000));
        assert_eq!(mapped.outer(250), Some(100_250));
        assert_eq!(mapped.outer(65_535), Some(165_535));
        assert_eq!(mapped.outer(65_536), None);
        assert_eq!(Identity::Mapped { outer_first: u32::MAX, count: 2 }.outer(1), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test makes its files")]
    fn a_mapped_identity_reads_what_everybody_may() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (file, mapped) = (dir.path().join("f"), Identity::Mapped { outer_first: 100_000, count: 65_536 });
        std::fs::write(&file, "").unwrap();
        for (path, mode, may) in [
            (file.as_path(), 0o644, true),
            (&file, 0o604, true),
            (&file, 0o640, false),
            (&file, 0o600, false),
            (dir.path(), 0o755, true),
            (dir.path(), 0o754, false),
            (dir.path(), 0o751, false),
            (dir.path(), 0o700, false),
        ] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(mapped.may_read(path, &path.metadata().unwrap()), may, "{path:?} {mode:o}");
            let single = Identity::Single { uid: 250, gid: 250 };
            assert!(single.may_read(path, &path.metadata().unwrap()), "{path:?} {mode:o}: the owner may");
        }
    }

    #[test]
    fn a_single_identity_is_this_process_outside() {
        let single = Identity::Single { uid: 250, gid: 250 };
        assert_eq!(single.outer(250), Some(rustix::process::geteuid().as_raw()));
        assert_eq!(single.outer(0), None);
    }
}
