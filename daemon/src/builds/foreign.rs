//! Another machine's domain on this one: its record and files become a directory that Portage inside takes for
//! `/etc/portage`. Repositories are this machine's own of the same names; programs are those of `build.root`.
//!
//! Nothing of this machine's configuration is seen by such a build, and nothing of the client's decides more than what its
//! recipe names: [`super::record`] refuses the rest, and variables.py keeps it out once more.

use super::record::{DomainRecord, fits};
use crate::swarm::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tree::digest::Digest;

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Why another machine's domain cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForeignError {
    #[error("the repository {name} is not on this machine")]
    Repository { name: String },
    #[error("the profile {profile} is not on this machine")]
    Profile { profile: String },
    #[error("{name} of the domain is not what its name says")]
    Content { name: String },
    #[error("{name} of the domain did not come with it")]
    Missing { name: String },
    #[error("the domain cannot be written to {path}")]
    Path {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Another machine's domain, laid out below this machine's data directory as long as somebody holds it.
#[derive(Debug)]
pub struct Foreign {
    /// Whose it is.
    pub(super) client: PeerId,
    /// `PORTAGE_CONFIGROOT`.
    pub(super) config_root: PathBuf,
    /// The text of a repos.conf.
    pub(super) repos_conf: String,
    /// Where the repositories are.
    pub(super) repositories: Vec<PathBuf>,
    /// Those of the client that are not here, by name.
    pub(super) missing: Vec<String>,
    /// Names of its variables: what the client's user lets through is let through here.
    pub(super) variables: Vec<String>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Err(error) = sandbox::remove_tree(&self.config_root) {
            tracing::warn!(path = %self.config_root.display(), %error, "a domain that nobody needs cannot be removed");
        }
    }
}

/// Those in use, each laid out once.
#[derive(Debug, Default)]
pub(super) struct Foreigners {
    dir: PathBuf,
    next: AtomicU64,
    used: Mutex<HashMap<(Digest, PeerId), Weak<Foreign>>>,
}

impl Foreigners {
    /// Below a directory that is nobody else's; what an earlier daemon left there goes. Blocking.
    pub(super) fn below(dir: PathBuf) -> Self {
        if dir.is_dir()
            && let Err(error) = sandbox::remove_tree(&dir)
        {
            tracing::warn!(path = %dir.display(), %error, "domains of an earlier run cannot be removed");
        }
        Self { dir, ..Self::default() }
    }

    /// One that is in use already.
    pub(super) fn get(&self, digest: &Digest, client: &PeerId) -> Option<Arc<Foreign>> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.get(&(*digest, *client)).and_then(Weak::upgrade)
    }

    /// Lays a domain out. `repositories` are this machine's, by name; `content` gives a file's bytes. Blocking.
    pub(super) fn lay_out(
        &self,
        digest: Digest,
        client: PeerId,
        record: &DomainRecord,
        repositories: &BTreeMap<String, PathBuf>,
        content: impl Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<Arc<Foreign>, ForeignError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name: String = digest.to_string().chars().take(16).collect();
        let mut foreign = Foreign {
            client,
            config_root: self.dir.join(format!("{name}-{number}")),
            repos_conf: repos_conf(record, repositories)?,
            repositories: record.repositories.iter().filter_map(|repo| repositories.get(&repo.name).cloned()).collect(),
            missing: missing(record, repositories),
            variables: Vec::new(),
        };
        let etc = foreign.config_root.join("etc/portage");
        folder(&etc)?;
        let mut variables: BTreeSet<String> = record.variables.keys().cloned().collect();
        write(&etc.join("make.conf"), record.make_conf().as_bytes())?;
        for (name, (wanted, _size)) in &record.files {
            let bytes = content(wanted).ok_or_else(|| ForeignError::Missing { name: name.clone() })?;
            if !fits(name, &bytes) {
                return Err(ForeignError::Content { name: name.clone() });
            }
            if name.starts_with("env/") {
                let text = String::from_utf8_lossy(&bytes);
                variables.extend(text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()));
            }
            let path = etc.join(name);
            folder(path.parent().unwrap_or(&etc))?;
            write(&path, &bytes)?;
        }
        if let Some((repo, path)) = record.profile_place() {
            let profile = repositories.get(repo).map(|repo| repo.join("profiles").join(path));
            let profile = profile.filter(|profile| profile.is_dir());
            let profile = profile.ok_or_else(|| ForeignError::Profile { profile: record.profile.clone() })?;
            let at = etc.join("make.profile");
            std::os::unix::fs::symlink(profile, &at).map_err(|source| ForeignError::Path { path: at, source })?;
        }
        foreign.variables = variables.into_iter().collect();
        let foreign = Arc::new(foreign);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, other| other.strong_count() > 0);
        used.insert((digest, client), Arc::downgrade(&foreign));
        Ok(foreign)
    }
}

/// Repositories of the client that this machine has not. One of them may have nothing to do with a package: whether it has,
/// its recipe tells.
fn missing(record: &DomainRecord, here: &BTreeMap<String, PathBuf>) -> Vec<String> {
    record.repositories.iter().filter(|repo| !here.contains_key(&repo.name)).map(|repo| repo.name.clone()).collect()
}

/// The client's repositories, in its order, at the places they have here; the main one must be here.
fn repos_conf(record: &DomainRecord, here: &BTreeMap<String, PathBuf>) -> Result<String, ForeignError> {
    let mut text = String::new();
    if let Some(main) = record.repositories.iter().find(|repo| repo.main) {
        if !here.contains_key(&main.name) {
            return Err(ForeignError::Repository { name: main.name.clone() });
        }
        let _infallible = write!(text, "[DEFAULT]\nmain-repo = {}\n", main.name);
    }
    for (repo, place) in record.repositories.iter().filter_map(|repo| Some((repo, here.get(&repo.name)?))) {
        let (name, priority) = (&repo.name, repo.priority);
        let _infallible =
            write!(text, "[{name}]\nlocation = {}\npriority = {priority}\nauto-sync = no\n", place.display());
    }
    Ok(text)
}

fn folder(path: &Path) -> Result<(), ForeignError> {
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    made.map_err(|source| ForeignError::Path { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ForeignError> {
    let written = store::write_atomically(path, bytes, FILE_MODE);
    written.map_err(|error| ForeignError::Path { path: path.to_owned(), source: io::Error::other(error) })
}

#[cfg(test)]
mod tests {
    use super::super::record::RepositoryState;
    use super::*;

    #[test]
    fn a_domain_is_laid_out_once_and_goes_with_the_last_who_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("main");
        std::fs::create_dir_all(repo.join("profiles/base")).unwrap();
        let here: BTreeMap<String, PathBuf> = [("main".to_owned(), repo)].into();
        let flags = b"a/b c\n".to_vec();
        let record = DomainRecord {
            variables: [("CFLAGS".to_owned(), "-O2".to_owned())].into(),
            profile: "main:base".to_owned(),
            repositories: vec![RepositoryState { name: "main".to_owned(), main: true, ..RepositoryState::default() }],
            files: [("package.use/a".to_owned(), (Digest::of(&flags), 6))].into(),
        };
        let (digest, client) = (Digest::of(&record.encode()), PeerId::random());
        let foreigners = Foreigners::below(dir.path().join("domains"));
        let laid_out = foreigners.lay_out(digest, client, &record, &here, |_| Some(flags.clone())).unwrap();
        let root = laid_out.config_root.clone();
        let etc = root.join("etc/portage");
        assert_eq!(std::fs::read_to_string(etc.join("make.conf")).unwrap(), "CFLAGS=\"-O2\"\n");
        assert_eq!(std::fs::read(etc.join("package.use/a")).unwrap(), flags);
        assert!(etc.join("make.profile").is_dir());
        assert!(laid_out.repos_conf.starts_with("[DEFAULT]\nmain-repo = main\n[main]\nlocation = "));
        assert!(Arc::ptr_eq(&foreigners.get(&digest, &client).unwrap(), &laid_out));
        drop(laid_out);
        assert!(foreigners.get(&digest, &client).is_none() && !root.exists());
        let wanting = DomainRecord { profile: "main:other".to_owned(), ..record.clone() };
        let refused = foreigners.lay_out(digest, client, &wanting, &here, |_| Some(flags.clone()));
        assert!(matches!(refused, Err(ForeignError::Profile { .. })));
        let mut more = record.clone();
        more.repositories.push(RepositoryState { name: "extra".to_owned(), ..RepositoryState::default() });
        let without = foreigners.lay_out(digest, client, &more, &here, |_| Some(flags.clone())).unwrap();
        assert!(without.missing == ["extra"] && !without.repos_conf.contains("extra"), "{without:?}");
        let refused = foreigners.lay_out(digest, client, &record, &BTreeMap::new(), |_| None);
        assert!(matches!(refused, Err(ForeignError::Repository { name }) if name == "main"));
    }
}
