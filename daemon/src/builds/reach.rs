//! How far Portage's configuration reaches: what it reads outside of `/etc/portage` and the repositories.
//!
//! People keep their configuration elsewhere and link it: `package.use` into a dotfiles directory, `/etc/portage` itself,
//! a repository's location, a file that make.conf sources. A build is shown `/etc/portage` and the repositories, so each of
//! these would be empty inside, and another package would be made than the user asked for. Before a sandbox is made, this
//! room walks over all that Portage reads, and says what must be seen besides: links are made again as they are, and what
//! they lead to is bound at its own path, so that every name means inside what it means outside.
//!
//! The rules:
//! - Followed is what Portage reads: the files and directories of `/etc/portage` that it has names for, `/etc/make.conf`,
//!   what `source` names, what package.env, sets.conf and `parent` files of the user's own profiles name, the locations
//!   of repositories, the world files. Never `gnupg` and `binrepos.conf`, also by another name.
//! - A link is the word of whoever may write where it lies. Links *in a repository* are not: a repository is somebody
//!   else's, and what it links to is seen only if it lies in a repository, too.
//! - A file is bound alone. A directory is bound as a whole, so it must be one that was made for this: not `/`, a directory
//!   of the system, a home, one with keys in it, or one of the node ([`rules`]).
//! - What is there and cannot be shown (refused, not readable for who builds, too much) is an error that names the file
//!   and what leads to it. What is not there for Portage either is not there inside.
//!
//! Everything is bounded: links on one way, entries in all, depth, files that name others, binds.

#[cfg(test)]
mod forms;
#[cfg(test)]
mod maze;
mod named;
mod names;
mod paths;
mod rules;

use names::{Kind, is_looked_at, is_patch, kind_of};
use paths::{End, resolve};
pub use rules::Refusal;
use sandbox::{Identity, Link, Root};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use tree::conf::ReposConf;
use tree::sources::Sources;

/// Entries that are looked at; a large `/etc/portage` has a few thousand.
const ENTRIES_MAX: usize = 100_000;
/// Directories inside directories.
const DEPTH_MAX: usize = 32;
/// Files and directories that are bound one by one, and links made again: a sandbox has no more than some thousand mounts.
const SHOWN_MAX: usize = 768;
/// Profiles of the user's own.
const PROFILES_MAX: usize = 256;
/// Portage's configuration, below its root.
pub(super) const ETC: &str = "etc/portage";
/// What is in /etc/portage and not for an ebuild: keys and credentials.
const SECRETS: [&str; 2] = ["gnupg", "binrepos.conf"];
/// What the user chose to have.
const WORLD: [&str; 2] = ["var/lib/portage/world", "var/lib/portage/world_sets"];

/// Why builds cannot be shown what Portage reads.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Something that is shown to no build.
    #[error("{} leads to {}, {why}", name.display(), target.display())]
    Refused {
        /// What Portage reads.
        name: PathBuf,
        /// Where it lies.
        target: PathBuf,
        /// Why not.
        why: Refusal,
    },
    /// Only others can read it.
    #[error("{} may not be read by those who build: `chmod {mend} {}`, or take it out of Portage's configuration", name.display(), path.display())]
    Unreadable {
        /// What Portage reads.
        name: PathBuf,
        /// The file.
        path: PathBuf,
        /// What makes it readable.
        mend: &'static str,
    },
    /// The daemon cannot look at it.
    #[error("{} cannot be shown to builds: the daemon cannot look at {}: {source}", name.display(), path.display())]
    Denied {
        /// What Portage reads.
        name: PathBuf,
        /// Where it ended.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than anyone writes.
    #[error("{} has more than {max} {what}: too many to show to builds", name.display())]
    TooMany {
        /// Where the count ended.
        name: PathBuf,
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
}

/// Whose configuration, and what is seen of it anyway.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `PORTAGE_CONFIGROOT`.
    pub config_root: PathBuf,
    /// The repositories, without links.
    pub repositories: Vec<PathBuf>,
    /// Whether those are the ones that repos.conf names.
    pub of_repos_conf: bool,
    /// What the node's own configuration binds, at the same path.
    pub bound: Vec<PathBuf>,
    /// The system that is seen.
    pub root: Root,
    /// Who builds.
    pub identity: Identity,
    /// The node's directory: keys, and what others gave it.
    pub data_dir: PathBuf,
}

/// What must be seen besides `/etc/portage` and the repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Where `/etc/portage` lies, without links.
    pub etc: PathBuf,
    /// Links outside of what is seen, by where they lie.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Files and directories outside, at their own paths.
    pub shown: BTreeSet<PathBuf>,
    /// What of all that is not for an ebuild.
    pub hidden: BTreeSet<PathBuf>,
    /// Files, directories and links outside: when one changes, the configuration did.
    pub watched: BTreeSet<PathBuf>,
    /// What is named and not there.
    pub missing: BTreeSet<PathBuf>,
}

impl Reach {
    /// Of a configuration that leads nowhere.
    #[must_use]
    pub fn nowhere(config_root: &Path) -> Self {
        Self { etc: config_root.join(ETC), ..Self::default() }
    }

    /// Follows everything. Blocking: it looks at each file of the configuration, and reads those that name others.
    ///
    /// # Errors
    /// What Portage reads here and builds cannot be shown.
    pub fn of(asked: &Asked) -> Result<Self, ReachError> {
        let mut walk = Walk::new(asked);
        walk.configuration()?;
        walk.finish()
    }

    /// The links, as a sandbox makes them.
    pub fn links(&self) -> impl Iterator<Item = Link> {
        self.links.iter().map(|(at, to)| Link { at: at.clone(), to: to.clone() })
    }
}

/// One walk over a configuration.
struct Walk<'a> {
    asked: &'a Asked,
    found: Reach,
    secrets: BTreeSet<PathBuf>,
    /// Directories and files seen already, with what was wanted of them.
    seen: BTreeSet<(PathBuf, bool)>,
    profiles: BTreeSet<PathBuf>,
    entries: usize,
}

impl<'a> Walk<'a> {
    fn new(asked: &'a Asked) -> Self {
        let name = asked.config_root.join(ETC);
        let resolved = resolve(&name);
        let etc = match resolved.end {
            End::There(path, _) => path,
            End::Missing(_) | End::Denied(..) => name,
        };
        let mut secrets = BTreeSet::new();
        for path in SECRETS.map(|secret| etc.join(secret)) {
            if let End::There(target, _) = resolve(&path).end {
                secrets.insert(target);
            }
            secrets.insert(path);
        }
        let mut walk = Self {
            asked,
            found: Reach { etc, ..Reach::default() },
            secrets,
            seen: BTreeSet::new(),
            profiles: BTreeSet::new(),
            entries: 0,
        };
        walk.note(resolved.links);
        walk
    }

    fn configuration(&mut self) -> Result<(), ReachError> {
        let (root, etc) = (self.asked.config_root.clone(), self.asked.config_root.join(ETC));
        if let End::There(target, about) = resolve(&etc).end {
            if target != etc {
                rules::refuse(&etc, &target, &about, self.asked, &self.secrets, &self.found.etc)?;
            }
            self.readable(&etc, &target, &about)?;
        }
        let mut env = BTreeSet::new();
        for name in names_of(&self.found.etc, &etc)? {
            let Some(kind) = kind_of(&name) else { continue };
            let files = self.walk(&etc.join(&name), kind)?;
            match name.to_str().unwrap_or_default() {
                "package.env" => files.iter().for_each(|file| env.extend(named::by_package_env(file))),
                "sets.conf" => {
                    for named in files.iter().flat_map(|file| named::by_sets_conf(file)) {
                        self.walk(&named, Kind::Lines)?;
                    }
                }
                "bashrc" | "bashrc.d" | "env" => self.scripts(files)?,
                _ => {}
            }
        }
        self.walk(&root.join("etc/make.conf"), Kind::Lines)?;
        self.walk(&root.join("etc/make.profile"), Kind::Profile)?;
        // What they lie in is bound as a whole; elsewhere it may lie for a link.
        for state in [root.as_path(), Path::new("/")] {
            for world in WORLD.map(|world| state.join(world)).iter().filter(|world| world.is_symlink()) {
                self.walk(world, Kind::Lines)?;
            }
        }
        let sources = Sources::of_make_conf(&root);
        let mut sourced: Vec<PathBuf> = sources.files().to_vec();
        for name in env {
            let path = etc.join("env").join(name);
            self.walk(&path, Kind::Tree)?;
            sourced.extend(sources.of_env(&path));
        }
        for path in sourced {
            self.walk(&path, Kind::Tree)?;
        }
        self.locations()
    }

    /// What scripts source, as far as their words say it, and what that does.
    fn scripts(&mut self, files: Vec<PathBuf>) -> Result<(), ReachError> {
        let (mut ahead, mut seen) = (files, BTreeSet::new());
        while let Some(script) = ahead.pop() {
            if !seen.insert(script.clone()) || seen.len() > ENTRIES_MAX {
                continue;
            }
            for name in named::by_script(&script, &self.asked.config_root) {
                ahead.extend(self.walk(&name, Kind::Tree)?);
            }
        }
        Ok(())
    }

    /// Repositories at the places where repos.conf (and make.conf, by PORTDIR) says that they are.
    fn locations(&mut self) -> Result<(), ReachError> {
        if !self.asked.of_repos_conf {
            return Ok(());
        }
        // Where it cannot be read, Portage says why.
        let written = ReposConf::load(&self.asked.config_root).map(|conf| conf.written).unwrap_or_default();
        for location in written.iter().filter(|location| location.is_absolute()) {
            self.reach(location)?;
        }
        Ok(())
    }

    /// Follows a name of what Portage reads; what it leads to, if that is there, is shown.
    fn reach(&mut self, name: &Path) -> Result<Option<(PathBuf, Metadata)>, ReachError> {
        let resolved = resolve(name);
        if let Some(link) = resolved.links.iter().find(|link| !rules::can_lie(link, &self.asked.root)) {
            let (name, target, why) = (name.to_owned(), link.at.clone(), Refusal::OfRoot);
            return Err(ReachError::Refused { name, target, why });
        }
        self.note(resolved.links);
        match resolved.end {
            End::There(target, about) => {
                self.show(name, &target, &about)?;
                Ok(Some((target, about)))
            }
            End::Missing(path) => {
                self.found.missing.insert(path);
                Ok(None)
            }
            End::Denied(path, source) => Err(ReachError::Denied { name: name.to_owned(), path, source }),
        }
    }

    fn note(&mut self, links: Vec<Link>) {
        for link in links {
            self.found.watched.insert(link.at.clone());
            if !self.is_seen(&link.at) {
                self.found.links.insert(link.at, link.to);
            }
        }
    }

    fn show(&mut self, name: &Path, target: &Path, about: &Metadata) -> Result<(), ReachError> {
        // Pipes and devices: Portage passes over them, and /dev/null is there inside.
        if !about.is_file() && !about.is_dir() {
            return Ok(());
        }
        if self.secrets.iter().any(|secret| target.starts_with(secret)) {
            let why = Refusal::Secret;
            return Err(ReachError::Refused { name: name.to_owned(), target: target.to_owned(), why });
        }
        if self.is_seen(target) || self.is_shown(target) {
            return Ok(());
        }
        rules::refuse(name, target, about, self.asked, &self.secrets, &self.found.etc)?;
        self.found.shown.insert(target.to_owned());
        self.found.watched.insert(target.to_owned());
        Ok(())
    }

    /// Whether it lies in what is seen anyway.
    fn is_seen(&self, path: &Path) -> bool {
        path.starts_with(&self.found.etc)
            || self.asked.repositories.iter().chain(&self.asked.bound).any(|seen| path.starts_with(seen))
            || rules::is_of_root(path, &self.asked.root)
    }

    /// Whether it lies in what is shown for another name.
    fn is_shown(&self, path: &Path) -> bool {
        path.ancestors().any(|parent| self.found.shown.contains(parent))
    }

    /// Walks over what Portage reads under a name; the files it reads, where they lie.
    fn walk(&mut self, top: &Path, kind: Kind) -> Result<Vec<PathBuf>, ReachError> {
        if kind == Kind::Profile {
            self.profile(top)?;
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        let mut ahead = vec![(top.to_owned(), top.to_owned(), 0)];
        while let Some((name, path, depth)) = ahead.pop() {
            if depth > 0 && !is_looked_at(&path) {
                continue;
            }
            let Some((target, about)) = self.reach(&path).map_err(|error| error.named(&name))? else { continue };
            let is_repository = self.asked.repositories.iter().any(|repo| target.starts_with(repo));
            if is_repository || !self.seen.insert((target.clone(), kind == Kind::Lines)) {
                if about.is_file() {
                    files.push(target);
                }
                continue;
            }
            if about.is_file() && (kind != Kind::Patches || is_patch(&path)) {
                self.readable(&name, &target, &about)?;
                files.push(target);
            } else if about.is_dir() {
                self.readable(&name, &target, &about)?;
                if depth >= DEPTH_MAX {
                    return Err(ReachError::TooMany { name, what: "directories inside each other", max: DEPTH_MAX });
                }
                for child in names_of(&target, &name)? {
                    self.entries += 1;
                    if self.entries > ENTRIES_MAX {
                        return Err(ReachError::TooMany { name, what: "files", max: ENTRIES_MAX });
                    }
                    if rules::is_for_nobody(&child) && !target.starts_with(&self.found.etc) {
                        self.found.hidden.insert(target.join(&child));
                        continue;
                    }
                    ahead.push((name.join(&child), target.join(&child), depth + 1));
                }
            }
        }
        Ok(files)
    }

    fn readable(&self, name: &Path, path: &Path, about: &Metadata) -> Result<(), ReachError> {
        if self.asked.identity.may_read(path, about) {
            return Ok(());
        }
        let mend = if about.is_dir() { "o+rx" } else { "o+r" };
        Err(ReachError::Unreadable { name: name.to_owned(), path: path.to_owned(), mend })
    }

    /// A profile, and its parents as far as they are the user's own: those of a repository stay in repositories.
    fn profile(&mut self, top: &Path) -> Result<(), ReachError> {
        let mut ahead = vec![top.to_owned()];
        while let Some(name) = ahead.pop() {
            let Some((target, about)) = self.reach(&name)? else { continue };
            let is_repository = self.asked.repositories.iter().any(|repo| target.starts_with(repo));
            if is_repository || !about.is_dir() || !self.profiles.insert(target.clone()) {
                continue;
            }
            if self.profiles.len() > PROFILES_MAX {
                return Err(ReachError::TooMany { name, what: "profiles", max: PROFILES_MAX });
            }
            let scripts = self.walk(&name, Kind::Tree)?;
            self.scripts(scripts.into_iter().filter(|path| path.ends_with("profile.bashrc")).collect())?;
            let parents = named::lines_of(&target.join("parent"));
            // With a colon it is a profile of a repository.
            let parents = parents.iter().filter(|line| line.starts_with('/') || !line.contains(':'));
            ahead.extend(parents.map(|line| target.join(line)));
        }
        Ok(())
    }

    /// Leaves out what lies in something that is shown as a whole.
    fn prune(&mut self) {
        let shown = std::mem::take(&mut self.found.shown);
        let mut kept: Option<PathBuf> = None;
        for path in shown {
            // In order a directory stands before what is in it.
            if !kept.as_ref().is_some_and(|kept| path.starts_with(kept)) {
                kept = Some(path.clone());
                self.found.shown.insert(path);
            }
        }
        let links = std::mem::take(&mut self.found.links);
        self.found.links = links.into_iter().filter(|(at, _)| !self.is_shown(at)).collect();
    }

    fn finish(mut self) -> Result<Reach, ReachError> {
        self.prune();
        if self.found.shown.len() + self.found.links.len() > SHOWN_MAX {
            let name = self.asked.config_root.join(ETC);
            return Err(ReachError::TooMany { name, what: "links to elsewhere", max: SHOWN_MAX });
        }
        self.found.hidden.extend(self.secrets);
        Ok(self.found)
    }
}

impl ReachError {
    /// With the name by which people know it.
    fn named(self, called: &Path) -> Self {
        let name = called.to_owned();
        match self {
            Self::Refused { target, why, .. } => Self::Refused { name, target, why },
            Self::Denied { path, source, .. } => Self::Denied { name, path, source },
            other => other,
        }
    }
}

/// The names in a directory; none where there is no such directory.
fn names_of(dir: &Path, called: &Path) -> Result<Vec<OsString>, ReachError> {
    let denied = |source| ReachError::Denied { name: called.to_owned(), path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(denied(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(denied)?.file_name();
        if names.len() >= ENTRIES_MAX {
            return Err(ReachError::TooMany { name: called.to_owned(), what: "files", max: ENTRIES_MAX });
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}
