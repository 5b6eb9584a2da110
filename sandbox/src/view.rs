//! From a policy to the list of what is seen inside: the root and its layers laid together, path by path.
//!
//! This reads the root's and the layers' directories and changes nothing. [`crate::stage`] and [`crate::argv`] turn the
//! list into mounts.

use crate::policy::{Identity, LAYERS_MAX, Policy, Root};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// What is seen, in the order in which it is put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) entries: Vec<Entry>,
    /// What is mounted beforehand in a staging directory, named there by its index.
    pub(crate) staged: Vec<Staged>,
    /// Directories below which the policy puts something: a layer's are not taken as a whole either.
    pub(crate) opened: BTreeSet<PathBuf>,
}

/// One thing that is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Symlink { to: PathBuf, at: PathBuf },
    Bind { source: Source, at: PathBuf, writable: bool },
    Scratch { at: PathBuf, size_bytes: u64, mode: u32 },
    Text { text: Text, at: PathBuf },
    Hidden { at: PathBuf },
}

impl Entry {
    fn at(&self) -> &Path {
        match self {
            Self::Symlink { at, .. }
            | Self::Bind { at, .. }
            | Self::Scratch { at, .. }
            | Self::Text { at, .. }
            | Self::Hidden { at } => at,
        }
    }
}

/// Where the bytes of a bind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Outside(PathBuf),
    /// Below the staging directory.
    Staged(PathBuf),
}

/// A file that is made for the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Passwd,
    Group,
    Hosts,
    Empty,
}

/// A mount that is made before the sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Staged {
    Bind {
        source: PathBuf,
        is_directory: bool,
    },
    /// Read-only, the highest first: a staged directory and a path below it.
    Overlay {
        lower: Vec<(usize, PathBuf)>,
    },
}

/// Why a policy cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A path inside is not absolute, or has `.` or `..` in it.
    #[error("{0} is not an absolute path without dots")]
    Path(PathBuf),
    /// A directory or file that shall be seen inside cannot be looked at.
    #[error("cannot look at {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There are more layers than [`LAYERS_MAX`].
    #[error("{0} layers are more than {LAYERS_MAX}")]
    Layers(usize),
    /// A layer has a directory where the root has a link: it was not made with [`crate::prepare_layer`].
    #[error("the layer {layer} has a directory {name} where the root has a link")]
    Shape {
        /// The layer.
        layer: PathBuf,
        /// The path in it.
        name: PathBuf,
    },
    /// Root and layers have too many different things at their tops.
    #[error("root and layers have more than {MOUNTS_MAX} entries")]
    Mounts,
}

/// More mounts than this are refused.
pub(crate) const MOUNTS_MAX: usize = 1024;

/// Directories that are not taken as a whole: what is in them is looked at one by one.
const OPEN: [&str; 6] = ["", "etc", "var", "var/db", "var/lib", "var/cache"];

/// What is seen of a root. All else of it, `/home`, `/root`, `/etc/shadow` and `/etc/ssh` among it, is not there.
const OF_ROOT: [&str; 9] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "var/db/pkg"];

/// What is seen of a root's `/etc`: what compilers, linkers and interpreters read, and nothing that is a secret.
const OF_ETC: [&str; 27] = [
    "alternatives",
    "binutils",
    "bash",
    "csh.env",
    "debian_version",
    "env.d",
    "fonts",
    "gentoo-release",
    "gtk-2.0",
    "gtk-3.0",
    "inputrc",
    "java-config-2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "profile.env",
    "protocols",
    "python-exec",
    "services",
    "sgml",
    "xml",
];

/// What a layer may not bring: kernel and private places, accounts, and what the daemon itself decides.
const NEVER: [&str; 18] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "home",
    "var/tmp",
    "var/run",
    "var/lock",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/hosts",
    "etc/portage",
    "etc/resolv.conf",
    "etc/ssh",
];

/// The private places that every sandbox has, with their modes.
pub(crate) const PRIVATE: [(&str, u32); 4] =
    [("/tmp", 0o1777), ("/run", 0o755), ("/var/tmp", 0o1777), ("/dev/shm", 0o1777)];

impl View {
    pub(crate) fn compose(policy: &Policy) -> Result<Self, PolicyError> {
        if policy.layers.len() > LAYERS_MAX {
            return Err(PolicyError::Layers(policy.layers.len()));
        }
        let mut view = Self::default();
        let layers = policy.layers.iter().map(|layer| canonical(layer)).collect::<Result<Vec<_>, _>>()?;
        for layer in &layers {
            view.staged.push(Staged::Bind { source: layer.clone(), is_directory: true });
        }
        let root = canonical(policy.root.path())?;
        view.opened = opened(policy)?;
        view.lay(policy.identity, &root, &layers, Path::new(""))?;
        for (text, at) in [(Text::Passwd, "/etc/passwd"), (Text::Group, "/etc/group"), (Text::Hosts, "/etc/hosts")] {
            view.entries.push(Entry::Text { text, at: at.into() });
        }
        for (at, mode) in PRIVATE {
            let size_bytes = policy.limits.scratch_bytes;
            view.entries.push(Entry::Scratch { at: at.into(), size_bytes, mode });
        }
        for scratch in &policy.scratch {
            let (at, size_bytes, mode) = (inside(&scratch.target)?, scratch.size_bytes, scratch.mode);
            view.entries.push(Entry::Scratch { at, size_bytes, mode });
        }
        // Parents before what is in them: a scratch directory may hold what is laid, and is over it at the same path.
        view.entries.sort_by_key(|entry| entry.at().components().count());
        for link in &policy.links {
            view.entries.push(Entry::Symlink { to: link.to.clone(), at: inside(&link.at)? });
        }
        for bind in &policy.binds {
            let (at, path) = (inside(&bind.target)?, canonical(&bind.source)?);
            let is_directory = look(&path)?.is_dir();
            let source = view.source(policy.identity, path, is_directory);
            view.entries.push(Entry::Bind { source, at, writable: bind.writable });
        }
        for path in &policy.hidden {
            view.hide(policy, &inside(path)?);
        }
        inside(&policy.directory)?;
        if view.entries.len() + view.staged.len() > MOUNTS_MAX { Err(PolicyError::Mounts) } else { Ok(view) }
    }

    /// Lays what root and layers have below `at`, an [`OPEN`] directory.
    fn lay(&mut self, identity: Identity, root: &Path, layers: &[PathBuf], at: &Path) -> Result<(), PolicyError> {
        for name in names(root, layers, at)? {
            let path = at.join(&name);
            if OPEN.iter().any(|open| path == Path::new(open)) || self.opened.contains(&path) {
                self.lay(identity, root, layers, &path)?;
                continue;
            }
            self.lay_one(identity, root, layers, path)?;
            if self.entries.len() > MOUNTS_MAX {
                return Err(PolicyError::Mounts);
            }
        }
        Ok(())
    }

    /// Lays one path: the highest wins where it is no directory, directories are laid over each other.
    fn lay_one(
        &mut self,
        identity: Identity,
        root: &Path,
        layers: &[PathBuf],
        path: PathBuf,
    ) -> Result<(), PolicyError> {
        let at = Path::new("/").join(&path);
        let of_root = if is_of_root(&path) { look_if_there(&root.join(&path))? } else { None };
        if let Some(about) = &of_root
            && about.is_symlink()
        {
            for layer in layers {
                if look_if_there(&layer.join(&path))?.is_some_and(|about| about.is_dir()) {
                    return Err(PolicyError::Shape { layer: layer.clone(), name: path });
                }
            }
        }
        let mut lower = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            match look_if_there(&layer.join(&path))? {
                Some(about) if about.is_dir() => lower.push((index, path.clone())),
                Some(about) if lower.is_empty() => return self.single(identity, layer.join(&path), at, &about),
                Some(_) | None => {}
            }
        }
        match of_root {
            Some(about) if lower.is_empty() => self.single(identity, root.join(&path), at, &about),
            Some(about) if about.is_dir() => {
                lower.push((self.staged.len(), PathBuf::new()));
                self.staged.push(Staged::Bind { source: root.join(&path), is_directory: true });
                self.overlay(lower, at);
                Ok(())
            }
            Some(_) | None => {
                self.overlay(lower, at);
                Ok(())
            }
        }
    }

    /// An overlay needs two directories; one is simply bound.
    fn overlay(&mut self, lower: Vec<(usize, PathBuf)>, at: PathBuf) {
        let staged = match lower.as_slice() {
            [(index, path)] => Path::new(&index.to_string()).join(path),
            _ => {
                self.staged.push(Staged::Overlay { lower });
                PathBuf::from((self.staged.len() - 1).to_string())
            }
        };
        self.entries.push(Entry::Bind { source: Source::Staged(staged), at, writable: false });
    }

    fn single(&mut self, identity: Identity, path: PathBuf, at: PathBuf, about: &Metadata) -> Result<(), PolicyError> {
        if about.is_symlink() {
            let to = std::fs::read_link(&path).map_err(|source| PolicyError::Read { path, source })?;
            self.entries.push(Entry::Symlink { to, at });
        } else if about.is_dir() || about.is_file() {
            let source = self.source(identity, path, about.is_dir());
            self.entries.push(Entry::Bind { source, at, writable: false });
        }
        Ok(())
    }

    /// The path itself, or a staged mount of it where the identity outside may not go through its parents.
    fn source(&mut self, identity: Identity, path: PathBuf, is_directory: bool) -> Source {
        if is_reachable(&path, identity) {
            return Source::Outside(path);
        }
        self.staged.push(Staged::Bind { source: path, is_directory });
        Source::Staged((self.staged.len() - 1).to_string().into())
    }

    /// Hides a path, if the last bind that covers it, or the root, has it.
    fn hide(&mut self, policy: &Policy, path: &Path) {
        let bound = policy.binds.iter().rev().find_map(|bind| {
            let below = path.strip_prefix(&bind.target).ok()?;
            Some(if below.as_os_str().is_empty() { bind.source.clone() } else { bind.source.join(below) })
        });
        let outside = bound.unwrap_or_else(|| policy.root.path().join(path.strip_prefix("/").unwrap_or(path)));
        match std::fs::symlink_metadata(outside) {
            Ok(about) if about.is_dir() => self.entries.push(Entry::Hidden { at: path.into() }),
            Ok(about) if about.is_file() => self.entries.push(Entry::Text { text: Text::Empty, at: path.into() }),
            Ok(_) | Err(_) => {}
        }
    }
}

/// What is on the way to binds and links and is not the root's, which brings what is below it.
fn opened(policy: &Policy) -> Result<BTreeSet<PathBuf>, PolicyError> {
    let targets = policy.binds.iter().map(|bind| &bind.target).chain(policy.links.iter().map(|link| &link.at));
    let mut opened = BTreeSet::new();
    for target in targets {
        let target = inside(target)?;
        let parents = target.ancestors().skip(1).filter_map(|parent| parent.strip_prefix("/").ok());
        opened.extend(parents.filter(|parent| !is_below_root(parent)).map(Path::to_owned));
    }
    Ok(opened)
}

impl Root {
    /// Whether a path lies in what is seen of a root, so that a bind below it needs something there to lie over.
    #[must_use]
    pub fn shows(path: &Path) -> bool {
        path.strip_prefix("/").is_ok_and(is_below_root)
    }
}

fn is_below_root(path: &Path) -> bool {
    path.ancestors().any(is_of_root)
}

/// The names below `at` that root and layers bring, without those they may not.
fn names(root: &Path, layers: &[PathBuf], at: &Path) -> Result<BTreeSet<OsString>, PolicyError> {
    let mut names = BTreeSet::new();
    for path in
        OF_ROOT.iter().map(|path| PathBuf::from(*path)).chain(OF_ETC.iter().map(|name| Path::new("etc").join(name)))
    {
        if let Ok(below) = path.strip_prefix(at)
            && let Some(Component::Normal(first)) = below.components().next()
            && look_if_there(&root.join(&path))?.is_some()
        {
            names.insert(first.to_owned());
        }
    }
    for layer in layers {
        let directory = layer.join(at);
        if !look_if_there(&directory)?.is_some_and(|about| about.is_dir()) {
            continue;
        }
        let failed = |source| PolicyError::Read { path: directory.clone(), source };
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            names.insert(entry.map_err(failed)?.file_name());
            if names.len() > MOUNTS_MAX {
                return Err(PolicyError::Mounts);
            }
        }
    }
    names.retain(|name| is_plain(name) && !NEVER.iter().any(|never| at.join(name) == Path::new(never)));
    Ok(names)
}

/// A name that the options of an overlay can hold. Others are at the top of no package's image.
fn is_plain(name: &OsStr) -> bool {
    !name.as_bytes().iter().any(|byte| matches!(byte, b':' | b',' | b'\\' | b'\n' | b'"'))
}

fn is_of_root(path: &Path) -> bool {
    OF_ROOT.iter().any(|shown| path == Path::new(shown))
        || path.strip_prefix("etc").is_ok_and(|below| OF_ETC.iter().any(|shown| below == Path::new(shown)))
}

/// Whether the identity outside may go through all parents of a canonical path.
fn is_reachable(path: &Path, identity: Identity) -> bool {
    let user = match identity {
        Identity::Mapped { outer_first, .. } => outer_first,
        Identity::Single { .. } => rustix::process::geteuid().as_raw(),
    };
    path.ancestors().skip(1).all(|parent| {
        std::fs::metadata(parent).is_ok_and(|about| {
            let (others, owner) = (about.mode() & 0o001 != 0, about.mode() & 0o100 != 0);
            if about.uid() == user { owner } else { others }
        })
    })
}

fn canonical(path: &Path) -> Result<PathBuf, PolicyError> {
    std::fs::canonicalize(path).map_err(|source| PolicyError::Read { path: path.into(), source })
}

fn look(path: &Path) -> Result<Metadata, PolicyError> {
    std::fs::symlink_metadata(path).map_err(|source| PolicyError::Read { path: path.into(), source })
}

fn look_if_there(path: &Path) -> Result<Option<Metadata>, PolicyError> {
    match look(path) {
        Err(PolicyError::Read { source, .. })
            if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// A path inside: absolute, with no dots in it.
fn inside(path: &Path) -> Result<PathBuf, PolicyError> {
    let is_clean = path.has_root()
        && path.components().skip(1).all(|component| matches!(component, Component::Normal(_)))
        && !path.as_os_str().as_bytes().contains(&0);
    if is_clean { Ok(path.components().collect()) } else { Err(PolicyError::Path(path.into())) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;
    use crate::policy::Bind;
    use std::os::unix::fs::symlink;

    const SINGLE: Identity = Identity::Single { uid: 250, gid: 250 };

    /// A root as of a system with one `/usr`, and a layer.
    fn root_and_layer() -> (tempfile::TempDir, Policy) {
        let directory = tempfile::tempdir().unwrap();
        let (root, layer) = (directory.path().join("root"), directory.path().join("layer"));
        for path in ["usr/bin", "usr/lib", "etc/env.d", "etc/ssh", "root", "home/ada", "var/db/pkg", "opt"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["etc/shadow", "etc/passwd", "etc/os-release"] {
            std::fs::write(root.join(path), "x").unwrap();
        }
        symlink("usr/bin", root.join("bin")).unwrap();
        std::fs::create_dir(&layer).unwrap();
        let mut policy = Policy::new(Root::stage(root), SINGLE);
        policy.layers.push(layer);
        (directory, policy)
    }

    fn seen(view: &View) -> Vec<String> {
        let at = |entry: &Entry| match entry {
            Entry::Symlink { at, .. } | Entry::Bind { at, .. } => Some(at.display().to_string()),
            _ => None,
        };
        view.entries.iter().filter_map(at).collect()
    }

    #[test]
    fn of_a_root_only_what_is_listed_is_seen() {
        let (_directory, policy) = root_and_layer();
        let view = View::compose(&policy).unwrap();
        assert_eq!(seen(&view), ["/bin", "/opt", "/usr", "/etc/env.d", "/etc/os-release", "/var/db/pkg"]);
    }

    #[test]
    fn a_layer_is_laid_over_and_brings_no_accounts() {
        let (_directory, policy) = root_and_layer();
        let layer = policy.layers[0].clone();
        for path in ["usr/include", "etc/portage", "etc/new.d", "var/tmp/x", "var/lib/thing", "proc", "root/.ssh"] {
            std::fs::create_dir_all(layer.join(path)).unwrap();
        }
        for path in ["etc/shadow", "etc/passwd", "etc/os-release"] {
            std::fs::write(layer.join(path), "y").unwrap();
        }
        let view = View::compose(&policy).unwrap();
        let expected =
            ["/bin", "/opt", "/usr", "/etc/env.d", "/etc/new.d", "/etc/os-release", "/var/db/pkg", "/var/lib/thing"];
        assert_eq!(seen(&view), expected);
        let overlays: Vec<_> = view.staged.iter().filter(|staged| matches!(staged, Staged::Overlay { .. })).collect();
        assert_eq!(overlays, [&Staged::Overlay { lower: vec![(0, "usr".into()), (1, "".into())] }]);
    }

    #[test]
    fn a_layer_is_opened_where_a_bind_or_link_of_the_policy_goes_below_it() {
        use crate::policy::Link;
        let (directory, mut policy) = root_and_layer();
        for path in ["srv/dots/old", "srv/www", "usr/include"] {
            std::fs::create_dir_all(policy.layers[0].join(path)).unwrap();
        }
        policy.binds = vec![Bind::read_only(directory.path().join("root/opt")).at("/srv/dots/portage")];
        policy.links = vec![Link { at: "/srv/link".into(), to: "dots/portage".into() }];
        let view = View::compose(&policy).unwrap();
        let of_srv: Vec<String> = seen(&view).into_iter().filter(|at| at.starts_with("/srv")).collect();
        assert_eq!(of_srv, ["/srv/www", "/srv/dots/old", "/srv/link", "/srv/dots/portage"]);
        assert!(Root::shows(Path::new("/usr/local/dots")) && Root::shows(Path::new("/etc/env.d/99x")));
        assert!(!Root::shows(Path::new("/etc/portage")) && !Root::shows(Path::new("/srv")));
    }

    #[test]
    fn a_scratch_directory_is_under_what_is_laid_in_it_and_over_what_is_laid_at_it() {
        use crate::policy::Scratch;
        let (_directory, mut policy) = root_and_layer();
        std::fs::create_dir_all(policy.layers[0].join("var/cache/edb")).unwrap();
        let scratch = |target: &str| Scratch { target: target.into(), size_bytes: 1, mode: 0o755 };
        policy.scratch = vec![scratch("/var/cache/edb"), scratch("/var/db")];
        let view = View::compose(&policy).unwrap();
        let is_scratch = |entry: &&Entry| matches!(entry, Entry::Scratch { size_bytes: 1, .. });
        let place = |at: &str, scratch: bool| {
            view.entries.iter().position(|entry| entry.at() == Path::new(at) && is_scratch(&entry) == scratch).unwrap()
        };
        assert!(place("/var/db", true) < place("/var/db/pkg", false));
        assert!(place("/var/cache/edb", false) < place("/var/cache/edb", true));
    }

    #[test]
    fn a_layer_that_was_not_prepared_is_refused() {
        let (_directory, policy) = root_and_layer();
        std::fs::create_dir(policy.layers[0].join("bin")).unwrap();
        let error = View::compose(&policy).unwrap_err();
        assert!(matches!(&error, PolicyError::Shape { name, .. } if name == Path::new("bin")), "{error}");
    }

    #[test]
    fn too_many_layers_and_too_many_entries_are_refused() {
        let (_directory, mut policy) = root_and_layer();
        for number in 0..=MOUNTS_MAX {
            std::fs::write(policy.layers[0].join(format!("f{number}")), "").unwrap();
        }
        assert!(matches!(View::compose(&policy), Err(PolicyError::Mounts)));
        policy.layers = vec![policy.layers[0].clone(); LAYERS_MAX + 1];
        assert!(matches!(View::compose(&policy), Err(PolicyError::Layers(65))));
    }

    #[test]
    fn a_target_with_dots_is_refused() {
        for path in ["/a/../b", "a", "/.", "", "/a/./../b"] {
            let is_clean = inside(Path::new(path)).is_ok();
            // A lone dot is dropped by the system's own reading of paths.
            assert_eq!(is_clean, path == "/.", "{path}");
        }
        assert_eq!(inside(Path::new("/a//b/")).unwrap(), Path::new("/a/b"));
    }

    #[test]
    fn what_is_behind_a_closed_parent_is_staged_for_a_mapped_identity() {
        use std::os::unix::fs::PermissionsExt as _;
        let (directory, mut policy) = root_and_layer();
        policy.layers.clear();
        policy.identity = Identity::Mapped { outer_first: 100_000, count: 65_536 };
        policy.binds = vec![Bind::writable(directory.path().join("layer")).at("/work")];
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let view = View::compose(&policy).unwrap();
        let last = view.entries.last().unwrap();
        assert!(matches!(last, Entry::Bind { source: Source::Staged(_), writable: true, .. }), "{last:?}");
    }
}
