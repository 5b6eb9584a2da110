//! What is shown to no build, whatever leads there.

use super::{Asked, ReachError};
use sandbox::{Link, Root};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Why something is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A directory that holds much else.
    System,
    /// All that somebody has.
    Home,
    /// A directory with `.ssh` or `.gnupg` in it.
    Keys,
    /// The user's keys and credentials for Portage, by another name.
    Secret,
    /// Of the node, or what holds it.
    Node,
    /// Made by the kernel.
    Kernel,
    /// In a place that the root has for itself.
    OfRoot,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "a directory of the system that is not shown to builds as a whole: link to what is meant in it",
            Self::Home => "a whole home, which is not shown to builds: link to what is meant in it",
            Self::Keys => "a directory with keys in it (.ssh or .gnupg), which is not shown to builds: link to what is meant in it",
            Self::Secret => "keys or credentials, which are not shown to builds",
            Self::Node => "a directory of this node or one that holds it, which is not shown to builds: move it elsewhere",
            Self::Kernel => "which the kernel makes: builds have their own",
            Self::OfRoot => "a place that builds have from build.root, where it is not: copy it there, or move it elsewhere",
        })
    }
}

/// Directories that hold much else, at the top of a system and one step below.
const SYSTEM: [&str; 37] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/etc/ssh",
    "/etc/ssl",
    "/usr/local",
    "/usr/src",
    "/var/cache",
    "/var/db",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/run",
    "/var/spool",
    "/var/tmp",
    "/var/www",
    "/usr/share",
    "/usr/lib",
];
/// Made by the kernel.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Bytes of /etc/passwd.
const PASSWD_BYTES_MAX: u64 = 4 << 20;
/// Names that are keys or credentials wherever they lie.
const FOR_NOBODY: [&str; 6] = [".gnupg", ".ssh", "binrepos.conf", "gnupg", "private-keys-v1.d", ".password-store"];

/// Whether something of this name is hidden in what is shown.
pub(super) fn is_for_nobody(name: &OsStr) -> bool {
    FOR_NOBODY.iter().any(|secret| name == *secret)
}

/// Whether it is seen as a part of the root. A stage has its own.
pub(super) fn is_of_root(path: &Path, root: &Root) -> bool {
    Root::shows(path)
        && (root.path() == Path::new("/")
            || std::fs::symlink_metadata(root.path().join(path.strip_prefix("/").unwrap_or(path)))
                .is_ok_and(|about| about.is_symlink()))
}

/// Whether a link can be where it is, or is there: in the places of a stage only what the stage has.
pub(super) fn can_lie(link: &Link, root: &Root) -> bool {
    let at = || root.path().join(link.at.strip_prefix("/").unwrap_or(&link.at));
    !Root::shows(&link.at) || std::fs::read_link(at()).is_ok_and(|to| to == link.to)
}

/// Nothing, for what may be shown at its own path.
pub(super) fn refuse(
    name: &Path,
    target: &Path,
    about: &Metadata,
    asked: &Asked,
    secrets: &BTreeSet<PathBuf>,
    etc: &Path,
) -> Result<(), ReachError> {
    let why = why(target, about, asked, secrets, etc);
    why.map_or(Ok(()), |why| Err(ReachError::Refused { name: name.to_owned(), target: target.to_owned(), why }))
}

fn why(target: &Path, about: &Metadata, asked: &Asked, secrets: &BTreeSet<PathBuf>, etc: &Path) -> Option<Refusal> {
    if KERNEL.iter().any(|kernel| target.starts_with(kernel)) {
        return Some(Refusal::Kernel);
    }
    if Root::shows(target) {
        let inside = asked.root.path().join(target.strip_prefix("/").unwrap_or(target));
        let is_same = std::fs::metadata(inside).is_ok_and(|inside| inside.is_dir() == about.is_dir());
        return (!is_same).then_some(Refusal::OfRoot);
    }
    let data = std::fs::canonicalize(&asked.data_dir).unwrap_or_else(|_| asked.data_dir.clone());
    if target.starts_with(&data) {
        return Some(Refusal::Node);
    }
    if !about.is_dir() {
        return None;
    }
    if SYSTEM.iter().any(|system| target == Path::new(system)) {
        return Some(Refusal::System);
    }
    if target.parent() == Some(Path::new("/home")) || homes().contains(target) {
        return Some(Refusal::Home);
    }
    if [".ssh", ".gnupg"].iter().any(|keys| target.join(keys).is_dir()) {
        return Some(Refusal::Keys);
    }
    if data.starts_with(target) {
        return Some(Refusal::Node);
    }
    // Above /etc/portage, so that it would be seen twice, or holds what is hidden there.
    let holds_secrets = secrets.iter().any(|secret| secret.starts_with(target) && !secret.starts_with(etc));
    let holds_etc = etc.starts_with(target) && etc != target;
    (holds_etc || holds_secrets && target != etc).then_some(Refusal::System)
}

/// Homes of people: of the accounts of /etc/passwd that are not the system's own, and of root.
fn homes() -> BTreeSet<PathBuf> {
    let mut text = Vec::new();
    let read = std::fs::File::open("/etc/passwd").and_then(|file| file.take(PASSWD_BYTES_MAX).read_to_end(&mut text));
    if read.is_err() {
        return BTreeSet::new();
    }
    let home = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid: u32 = fields.get(2)?.parse().ok()?;
        let home = fields.get(5).filter(|home| home.starts_with('/'))?;
        (uid == 0 || uid >= 1000).then(|| PathBuf::from(home))
    };
    String::from_utf8_lossy(&text).lines().filter_map(home).collect()
}
