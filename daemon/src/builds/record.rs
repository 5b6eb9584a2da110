//! A captured domain as a record: the variables, profile, repositories and files that decide what a machine builds, in one
//! DAG-CBOR block that names each file by its digest. FORMATS.md has the bytes.
//!
//! Who reads one trusts nothing in it: names of files and variables are those of a list, and whatever a recipe would not
//! name reaches no build ([`super::foreign`]).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use tree::digest::Digest;
use tree::name::RepoName;
use tree::size::total;

/// The longest encoding: ten thousand files with long names.
pub(super) const RECORD_BYTES_MAX: usize = 4 << 20;
/// Bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all files together.
pub(super) const FILES_BYTES_MAX: u64 = 32 << 20;
const FILES_MAX: usize = 10_000;
const VARIABLES_MAX: usize = 1000;
const VALUE_BYTES_MAX: usize = 64 * 1024;
const REPOSITORIES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 1024;
/// The form written here.
const VERSION: u8 = 1;

/// What of `/etc/portage` may be in one.
const NAMES: [&str; 15] = [
    "env",
    "make.profile",
    "package.accept_keywords",
    "package.accept_restrict",
    "package.env",
    "package.keywords",
    "package.license",
    "package.mask",
    "package.properties",
    "package.provided",
    "package.unmask",
    "package.use",
    "patches",
    "profile",
    "sets",
];
/// Variables of `PORTAGE_*` that change an image; all others say how Portage works.
const OF_PORTAGE: [&str; 9] = [
    "PORTAGE_COMPRESS",
    "PORTAGE_COMPRESS_EXCLUDE_SUFFIXES",
    "PORTAGE_COMPRESS_FLAGS",
    "PORTAGE_DOCOMPRESS_SIZE_LIMIT",
    "PORTAGE_GRPNAME",
    "PORTAGE_INST_GID",
    "PORTAGE_INST_UID",
    "PORTAGE_STRIP_FLAGS",
    "PORTAGE_USERNAME",
];
/// Variables that would change how a build goes and not what its recipe says.
const REFUSED: [&str; 21] = [
    "BROOT",
    "D",
    "DISTDIR",
    "ED",
    "ENV",
    "EPREFIX",
    "EROOT",
    "ESYSROOT",
    "GENTOO_MIRRORS",
    "HOME",
    "IFS",
    "PATH",
    "PKGDIR",
    "ROOT",
    "SHELL",
    "SYSROOT",
    "T",
    "TEMP",
    "TMP",
    "TMPDIR",
    "WORKDIR",
];
const REFUSED_FAMILIES: [&str; 13] = [
    "PORTAGE_",
    "EMERGE_",
    "BINPKG_",
    "FETCHCOMMAND",
    "RESUMECOMMAND",
    "SANDBOX_",
    "FAKEROOT",
    "GPG_",
    "BASH",
    "CCACHE_",
    "DISTCC_",
    "PEERAGE_",
    "LD_",
];

/// One machine's configuration, as others may know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DomainRecord {
    /// Of make.conf, as Portage expands them.
    pub(super) variables: BTreeMap<String, String>,
    /// `REPOSITORY:PATH`, or empty when the profile is among the files.
    pub(super) profile: String,
    pub(super) repositories: Vec<RepositoryState>,
    /// By name below `/etc/portage`: digest and bytes.
    pub(super) files: BTreeMap<String, (Digest, u64)>,
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
    files: Vec<(String, ByteBuf, u64)>,
}

impl DomainRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let file = |(name, (digest, size)): (&String, &(Digest, u64))| {
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
        if bytes.len() > RECORD_BYTES_MAX {
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
            ("bytes", total(self.files.values().map(|(_, size)| *size)) > FILES_BYTES_MAX),
        ];
        if let Some((what, _)) = many.iter().find(|(_, over)| *over) {
            return Err(ReadRecordError::Many(what));
        }
        for (name, value) in &self.variables {
            if !may_be_foreign(name) || value.len() > VALUE_BYTES_MAX || value.contains(['\0', '\n']) {
                return Err(refused("the variable", name));
            }
        }
        for (name, (_, size)) in &self.files {
            if !is_listed(name) || *size > FILE_BYTES_MAX {
                return Err(refused("the file", name));
            }
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
        self.variables.iter().map(|(name, value)| quoted(name, value)).collect()
    }
}

/// A line that Portage's `getconfig` reads as this value: it removes one layer of backslashes with the quotes and another
/// one where it expands.
pub(super) fn quoted(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\\\\\").replace('"', "\\\"").replace('$', "\\$");
    format!("{name}=\"{value}\"\n")
}

/// Whether another machine may set this variable for a build here.
pub(super) fn may_be_foreign(name: &str) -> bool {
    let python = name.strip_prefix("PYTHON").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('_'));
    crate::config_build::is_variable(name)
        && !REFUSED.contains(&name)
        && !python
        && (OF_PORTAGE.contains(&name) || !REFUSED_FAMILIES.iter().any(|family| name.starts_with(family)))
}

/// A relative path without surprises.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= NAME_BYTES_MAX
        && !path.contains(['\0', '\n'])
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_listed(name: &str) -> bool {
    let top = name.split('/').next().unwrap_or_default();
    let below = name.contains('/');
    let fits = match top {
        "patches" => name.ends_with(".patch") || name.ends_with(".diff"),
        "env" | "profile" | "make.profile" => below && !name.ends_with("bashrc"),
        _ => true,
    };
    is_plain(name) && NAMES.contains(&top) && fits
}

/// Whether the content of a file is what its name promises: files of variables have lines `NAME="VALUE"` of names that may
/// be foreign, a list of parents only names places in repositories. All else is lines or patches, which run nothing.
pub(super) fn fits(name: &str, content: &[u8]) -> bool {
    let text = || std::str::from_utf8(content).ok();
    if name.starts_with("env/") || name.ends_with("/make.defaults") {
        return text().is_some_and(|text| text.lines().all(is_assignment));
    }
    if name.ends_with("profile/parent") {
        return text().is_some_and(|text| text.lines().all(is_parent));
    }
    true
}

fn is_parent(line: &str) -> bool {
    line.split_once(':').is_some_and(|(repo, path)| repo.parse::<RepoName>().is_ok() && is_plain(path))
}

/// `NAME="VALUE"` with nothing after the closing quote and nothing that is expanded.
fn is_assignment(line: &str) -> bool {
    let Some((name, rest)) = line.split_once("=\"") else { return false };
    let Some(value) = rest.strip_suffix('"') else { return false };
    let mut escaped = false;
    for letter in value.chars() {
        match letter {
            '\\' => escaped = !escaped,
            '"' | '$' if !escaped => return false,
            _ => escaped = false,
        }
    }
    may_be_foreign(name) && !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> DomainRecord {
        DomainRecord {
            variables: [("CFLAGS".to_owned(), "-O2 -DA=\"\\$x\"".to_owned())].into(),
            profile: "gentoo:default/linux/amd64/23.0".to_owned(),
            repositories: vec![RepositoryState { name: "gentoo".to_owned(), main: true, ..RepositoryState::default() }],
            files: [("package.use/a".to_owned(), (Digest::of(b"x"), 1))].into(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        assert_eq!(DomainRecord::decode(&record().encode()).unwrap(), record());
    }

    #[test]
    fn what_is_on_no_list_is_refused() {
        for name in [
            "make.conf",
            "repos.conf/x",
            "gnupg/key",
            "../etc/shadow",
            "/etc/shadow",
            "bashrc",
            "env",
            "profile/profile.bashrc",
            "patches/a/b/run.sh",
            "binrepos.conf",
            "env/../make.conf",
            "package.use//../../x",
        ] {
            let mut wrong = record();
            wrong.files.insert(name.to_owned(), (Digest::of(b""), 0));
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{name}");
        }
        for name in
            ["PATH", "LD_PRELOAD", "PORTAGE_BASHRC", "BASH_ENV", "a b", "PYTHONPATH", "FETCHCOMMAND_SSH", "PEERAGE_X"]
        {
            let mut wrong = record();
            wrong.variables.insert(name.to_owned(), "x".to_owned());
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{name}");
        }
        for profile in ["gentoo:../../..", "gentoo:/x", "gentoo", ":x", "gentoo:"] {
            let wrong = DomainRecord { profile: profile.to_owned(), ..record() };
            assert!(DomainRecord::decode(&wrong.encode()).is_err(), "{profile}");
        }
    }

    #[test]
    fn files_of_variables_run_and_expand_nothing() {
        for good in ["", "CFLAGS=\"-O2\"\n", "CFLAGS=\"-DX=\\\"a\\\"\"\nUSE=\"a -b\"\n", "PYTHON_TARGETS=\"\"\n"] {
            assert!(fits("env/x", good.as_bytes()), "{good}");
        }
        for bad in [
            "source /etc/passwd\n",
            "CFLAGS=\"$(id)\"\n",
            "CFLAGS=\"${HOME}\"\n",
            "CFLAGS=\"a\" b\n",
            "PATH=\"x\"\n",
            "A=\"\\\"\n",
            "CFLAGS=\"a\"; b=\"\"\n",
        ] {
            assert!(!fits("env/x", bad.as_bytes()), "{bad}");
        }
        assert!(fits("profile/parent", b"gentoo:default/linux\n") && !fits("profile/parent", b"/etc\n"));
    }
}
