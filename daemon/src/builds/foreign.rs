//! Another machine's domain on this one: its record and files become a directory that Portage inside takes for
//! `/etc/portage`. Repositories are this machine's own of the same names; programs are those of `build.root`.
//!
//! Nothing of this machine's configuration is seen by such a build, and nothing of the client's decides more than what its
//! recipe names: [`super::record`] refuses the rest, [`super::domain_file`] writes each file anew from what was understood,
//! and variables.py compares the environment that an ebuild gets with the recipe. What a client has here is charged to it.

use super::domain_file::{DomainFile, Environments};
use super::record::DomainRecord;
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
use tree::size::total;

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// Bytes of domains that one client has here at a time: the largest one, and some usual ones.
const OF_CLIENT_MAX: u64 = 128 << 20;
/// Bytes of the domains of all clients.
const OF_ALL_MAX: u64 = 512 << 20;
/// What a file takes at least.
const FILE_TAKES: u64 = 4096;

/// Why another machine's domain cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForeignError {
    #[error("the repository {name} is not on this machine")]
    Repository { name: String },
    #[error("the profile {profile} is not on this machine")]
    Profile { profile: String },
    #[error("{name} of the domain has what no other machine's may have: {line:?}")]
    Content { name: String, line: String },
    #[error("{name} of the domain did not come with it")]
    Missing { name: String },
    #[error("no more than {} of {whose} are kept here at a time", store::human(*max))]
    Charged { whose: &'static str, max: u64 },
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
    _charge: Arc<Charge>,
}

/// Bytes of domains by client.
#[derive(Debug, Default)]
struct Ledger(Mutex<HashMap<PeerId, u64>>);

/// Bytes of a domain, charged to its client as long as this lives.
#[derive(Debug)]
pub(super) struct Charge {
    ledger: Arc<Ledger>,
    client: PeerId,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut charged = self.ledger.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = charged.get_mut(&self.client) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                charged.remove(&self.client);
            }
        }
    }
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
    ledger: Arc<Ledger>,
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

    /// Charges a domain to its client, before anything of it is fetched.
    pub(super) fn charge(&self, client: PeerId, record: &DomainRecord) -> Result<Arc<Charge>, ForeignError> {
        let bytes = total(record.files.values().map(|(_, size)| size.get().max(FILE_TAKES)));
        let mut charged = self.ledger.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = charged.get(&client).copied().unwrap_or_default().saturating_add(bytes);
        let of_all = total(charged.values().copied().chain([bytes]));
        if of_client > OF_CLIENT_MAX {
            return Err(ForeignError::Charged { whose: "one machine's domains", max: OF_CLIENT_MAX });
        }
        if of_all > OF_ALL_MAX {
            return Err(ForeignError::Charged { whose: "other machines' domains", max: OF_ALL_MAX });
        }
        charged.insert(client, of_client);
        Ok(Arc::new(Charge { ledger: Arc::clone(&self.ledger), client, bytes }))
    }

    /// Lays a domain out. `repositories` are this machine's, by name; `content` gives a file's bytes. Blocking.
    pub(super) fn lay_out(
        &self,
        digest: Digest,
        charge: &Arc<Charge>,
        record: &DomainRecord,
        repositories: &BTreeMap<String, PathBuf>,
        content: impl Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<Arc<Foreign>, ForeignError> {
        let client = charge.client;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name: String = digest.to_string().chars().take(16).collect();
        let mut foreign = Foreign {
            client,
            config_root: self.dir.join(format!("{name}-{number}")),
            repos_conf: repos_conf(record, repositories)?,
            repositories: record.repositories.iter().filter_map(|repo| repositories.get(&repo.name).cloned()).collect(),
            missing: missing(record, repositories),
            variables: Vec::new(),
            _charge: Arc::clone(charge),
        };
        let etc = foreign.config_root.join("etc/portage");
        folder(&etc)?;
        let mut variables: BTreeSet<String> = record.variables.keys().cloned().collect();
        write(&etc.join("make.conf"), record.make_conf().as_bytes())?;
        let environments = Environments::of(record.files.keys());
        for (name, (wanted, _size)) in &record.files {
            let wrong = |line: &str| ForeignError::Content { name: name.clone(), line: line.to_owned() };
            let file = DomainFile::at(name).ok_or_else(|| wrong(name))?;
            let Some(place) = file.place(&environments) else { continue };
            let bytes = content(wanted).ok_or_else(|| ForeignError::Missing { name: name.clone() })?;
            let bytes = file.written_anew(&bytes, &environments).map_err(|error| wrong(&error.0))?;
            variables.extend(file.variables(&bytes));
            let path = etc.join(place);
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
mod layers;

#[cfg(test)]
mod tests {
    use super::super::record::RepositoryState;
    use super::*;
    use crate::builds::record::FileSize;

    fn size(bytes: u64) -> FileSize {
        bytes.try_into().unwrap()
    }

    #[test]
    fn what_a_client_has_here_is_charged_to_it_until_it_is_gone() {
        let foreigners = Foreigners::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let of = |count: usize, bytes: u64| {
            let file = |n: usize| (format!("package.use/{n}"), (Digest::of(b"x"), size(bytes)));
            DomainRecord { files: (0..count).map(file).collect(), ..DomainRecord::default() }
        };
        let large = of(32, 1 << 20);
        let mut charges: Vec<_> = (0..4).map(|_| foreigners.charge(one, &large).unwrap()).collect();
        let refused = foreigners.charge(one, &of(1, 0));
        assert!(
            matches!(refused, Err(ForeignError::Charged { max: OF_CLIENT_MAX, .. })),
            "an empty file takes room too"
        );
        let _of_other = foreigners.charge(other, &large).unwrap();
        charges.pop();
        charges.push(foreigners.charge(one, &large).unwrap());
        let others: Vec<_> = (0..11).map(|_| foreigners.charge(PeerId::random(), &large).unwrap()).collect();
        let refused = foreigners.charge(PeerId::random(), &large);
        assert!(matches!(refused, Err(ForeignError::Charged { max: OF_ALL_MAX, .. })));
        drop((charges, others));
        assert!(foreigners.charge(one, &large).is_ok());
    }

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
            files: [("package.use/a".to_owned(), (Digest::of(&flags), size(6)))].into(),
        };
        let (digest, client) = (Digest::of(&record.encode()), PeerId::random());
        let foreigners = Foreigners::below(dir.path().join("domains"));
        let charge = foreigners.charge(client, &record).unwrap();
        let laid_out = foreigners.lay_out(digest, &charge, &record, &here, |_| Some(flags.clone())).unwrap();
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
        let refused = foreigners.lay_out(digest, &charge, &wanting, &here, |_| Some(flags.clone()));
        assert!(matches!(refused, Err(ForeignError::Profile { .. })));
        let mut more = record.clone();
        more.repositories.push(RepositoryState { name: "extra".to_owned(), ..RepositoryState::default() });
        let without = foreigners.lay_out(digest, &charge, &more, &here, |_| Some(flags.clone())).unwrap();
        assert!(without.missing == ["extra"] && !without.repos_conf.contains("extra"), "{without:?}");
        let refused = foreigners.lay_out(digest, &charge, &record, &BTreeMap::new(), |_| None);
        assert!(matches!(refused, Err(ForeignError::Repository { name }) if name == "main"));
    }
}
