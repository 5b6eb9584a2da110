//! A captured domain as a record: the variables, profile, repositories and files that decide what a machine builds, in one
//! DAG-CBOR block that names each file by its digest. FORMATS.md has the bytes.
//!
//! Who reads one trusts nothing in it: names of files and variables are those of a list, sizes are bounded, and whatever a
//! recipe would not name reaches no build ([`super::foreign`]).

use super::domain_file::{DomainFile, Environments, is_plain};
use super::domain_names::{assignment, is_value, line, may_be_foreign};
use crate::sizes::SaidSize;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::path::Path;
use tree::digest::Digest;
use tree::name::RepoName;
use tree::size::total;

/// The longest encoding: ten thousand files with long names.
pub(super) const RECORD_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all files together.
const FILES_BYTES_MAX: u64 = 32 << 20;
const FILES_MAX: usize = 10_000;
const VARIABLES_MAX: usize = 1000;
const REPOSITORIES_MAX: usize = 200;
/// The form written here.
const VERSION: u8 = 1;

/// Bytes of a file of a domain, as its record says.
pub(super) type FileSize = SaidSize<FILE_BYTES_MAX>;

/// One machine's configuration, as others may know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DomainRecord {
    /// Of make.conf, as Portage expands them.
    pub(super) variables: BTreeMap<String, String>,
    /// `REPOSITORY:PATH`, or empty when the profile is among the files.
    pub(super) profile: String,
    pub(super) repositories: Vec<RepositoryState>,
    /// By name below `/etc/portage`: digest and bytes.
    pub(super) files: BTreeMap<String, (Digest, FileSize)>,
}

/// An ebuild repository as its user has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryState {
    pub(super) name: String,
    pub(super) main: bool,
    pub(super) priority: i64,
    pub(super) masters: Vec<String>,
    /// What it says of its own age; for people.
    pub(super) state: String,
}

/// Why bytes are no record that may be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadRecordError {
    #[error("a domain of {0} bytes, expected at most {RECORD_BYTES_MAX}")]
    Long(usize),
    #[error("not a domain: {0}")]
    Form(String),
    #[error("version {0} of a domain, expected {VERSION}")]
    Version(u8),
    #[error("a domain with more {0} than any machine has")]
    Many(&'static str),
    #[error("a domain with {what} {text:?}, which is given to nobody")]
    Refused { what: &'static str, text: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    v: u8,
    variables: BTreeMap<String, String>,
    profile: String,
    repositories: Vec<RepositoryState>,
    files: Vec<(String, ByteBuf, FileSize)>,
}

impl DomainRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let file = |(name, (digest, size)): (&String, &(Digest, FileSize))| {
            (name.clone(), ByteBuf::from(digest.as_bytes().as_slice()), *size)
        };
        let form = Form {
            v: VERSION,
            variables: self.variables.clone(),
            profile: self.profile.clone(),
            repositories: self.repositories.clone(),
            files: self.files.iter().map(file).collect(),
        };
        serde_ipld_dagcbor::to_vec(&form).expect("text, numbers and bytes always have a DAG-CBOR form")
    }

    /// Reads and checks one: what it names is on the lists above, and within the bounds.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ReadRecordError> {
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(ReadRecordError::Long(bytes.len()));
        }
        let form: Form =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|error| ReadRecordError::Form(error.to_string()))?;
        if form.v != VERSION {
            return Err(ReadRecordError::Version(form.v));
        }
        let mut files = BTreeMap::new();
        for (name, digest, size) in form.files {
            let digest: [u8; 64] = digest
                .as_slice()
                .try_into()
                .map_err(|_| ReadRecordError::Form("a digest of another length".to_owned()))?;
            files.insert(name, (Digest::from_bytes(digest), size));
        }
        let Form { variables, profile, repositories, .. } = form;
        let record = Self { variables, profile, repositories, files };
        record.check()?;
        Ok(record)
    }

    pub(super) fn check(&self) -> Result<(), ReadRecordError> {
        let refused = |what, text: &str| ReadRecordError::Refused { what, text: text.chars().take(200).collect() };
        let many = [
            ("variables", self.variables.len() > VARIABLES_MAX),
            ("files", self.files.len() > FILES_MAX),
            ("repositories", self.repositories.len() > REPOSITORIES_MAX),
            ("bytes", self.bytes() > FILES_BYTES_MAX),
        ];
        if let Some((what, _)) = many.iter().find(|(_, over)| *over) {
            return Err(ReadRecordError::Many(what));
        }
        for (name, value) in &self.variables {
            if !may_be_foreign(name) || !is_value(value) {
                return Err(refused("the variable", name));
            }
        }
        if let Some(name) = self.files.keys().find(|name| DomainFile::at(name).is_none()) {
            return Err(refused("the file", name));
        }
        for repository in &self.repositories {
            if repository.name.parse::<RepoName>().is_err() {
                return Err(refused("the repository", &repository.name));
            }
        }
        if !self.profile.is_empty() && self.profile_place().is_none() {
            return Err(refused("the profile", &self.profile));
        }
        Ok(())
    }

    /// Repository and path below its `profiles/`.
    pub(super) fn profile_place(&self) -> Option<(&str, &Path)> {
        let (repo, path) = self.profile.split_once(':')?;
        (repo.parse::<RepoName>().is_ok() && is_plain(path)).then_some((repo, Path::new(path)))
    }

    /// The make.conf that says these variables.
    pub(super) fn make_conf(&self) -> String {
        self.variables.iter().map(|(name, value)| line(name, value)).collect()
    }

    /// Bytes of its files together, as it says.
    pub(super) fn bytes(&self) -> u64 {
        total(self.files.values().map(|(_, size)| size.get()))
    }
}

/// What a member sends about a build for it, over the same bytes, for fuzzing: nothing may panic, what reads is written back to
/// what reads the same, and a file that is laid out says nothing else when it is laid out once more.
///
/// # Panics
/// When one of these is not so: that is the bug to find.
pub fn exercise(bytes: &[u8]) {
    if let Ok(record) = DomainRecord::decode(bytes) {
        assert!(record.bytes() <= FILES_BYTES_MAX, "a record larger than a domain may be");
        assert_eq!(DomainRecord::decode(&record.encode()).expect("our own encoding reads"), record);
        assert!(record.make_conf().lines().all(|line| assignment(line).is_some()), "a make.conf of something else");
    }
    let (place, content) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    let content = content.strip_prefix(b"\n").unwrap_or(content);
    let place = String::from_utf8_lossy(place);
    let environments = Environments::of(std::iter::once(&"env/x".to_owned()));
    if let Some(file) = DomainFile::at(&place)
        && let Ok(once) = file.written_anew(content, &environments)
        && !place.starts_with("package.env")
    {
        assert_eq!(file.written_anew(&once, &environments).as_ref(), Ok(&once), "{place}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64) -> FileSize {
        bytes.try_into().unwrap()
    }

    fn record() -> DomainRecord {
        DomainRecord {
            variables: [("CFLAGS".to_owned(), "-O2 -DA=\"\\$x\"".to_owned())].into(),
            profile: "gentoo:default/linux/amd64/23.0".to_owned(),
            repositories: vec![RepositoryState { name: "gentoo".to_owned(), main: true, ..RepositoryState::default() }],
            files: [("package.use/a".to_owned(), (Digest::of(b"x"), size(1)))].into(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        assert_eq!(DomainRecord::decode(&record().encode()).unwrap(), record());
    }

    #[test]
    fn what_is_on_no_list_is_refused() {
        for name in ["make.conf", "../etc/shadow", "profile//parent", "env", "patches/a/b/run.sh"] {
            let mut wrong = record();
            wrong.files.insert(name.to_owned(), (Digest::of(b""), size(0)));
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{name}");
        }
        for name in ["PATH", "LD_PRELOAD", "MAKEOPTS", "NINJAOPTS", "LESSOPEN", "PAGER", "a b", "PEERAGE_X"] {
            let mut wrong = record();
            wrong.variables.insert(name.to_owned(), "x".to_owned());
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{name}");
        }
        for value in ["a\nb", "`id`", "$(id)"] {
            let mut wrong = record();
            wrong.variables.insert("CFLAGS".to_owned(), value.to_owned());
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{value}");
        }
        for profile in ["gentoo:../../..", "gentoo:/x", "gentoo:a//b", "gentoo", ":x", "gentoo:"] {
            let wrong = DomainRecord { profile: profile.to_owned(), ..record() };
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{profile}");
        }
    }

    /// The sum of two sizes of 2^63 was more than a number holds: a record of a member ended the daemon.
    #[test]
    fn sizes_of_any_number_are_refused_one_by_one_and_together() {
        #[derive(Serialize)]
        struct Said {
            v: u8,
            variables: BTreeMap<String, String>,
            profile: String,
            repositories: Vec<RepositoryState>,
            files: Vec<(String, ByteBuf, u64)>,
        }
        let read = |count: usize, said: u64| {
            let digest = |n: usize| ByteBuf::from(Digest::of(&n.to_be_bytes()).as_bytes().as_slice());
            let files = (0..count).map(|n| (format!("package.use/{n}"), digest(n), said)).collect();
            let (variables, profile, repositories) = (BTreeMap::new(), "gentoo:a".to_owned(), Vec::new());
            let said = Said { v: VERSION, variables, profile, repositories, files };
            DomainRecord::decode(&serde_ipld_dagcbor::to_vec(&said).unwrap())
        };
        for said in [1 << 31, 1 << 32, 1 << 63, (1 << 63) + 1, u64::MAX, FILE_BYTES_MAX + 1] {
            assert!(matches!(read(2, said), Err(ReadRecordError::Form(_))), "{said}");
        }
        assert_eq!(read(32, FILE_BYTES_MAX).unwrap().bytes(), FILES_BYTES_MAX);
        assert!(matches!(read(33, FILE_BYTES_MAX), Err(ReadRecordError::Many("bytes"))));
        assert!(matches!(read(FILES_MAX + 1, 0), Err(ReadRecordError::Many("files"))));
    }
}
