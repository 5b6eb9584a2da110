//! Portage's keyring of binary package keys, and this node's public key in it, trusted (make.conf(5),
//! `BINPKG_GPG_VERIFY_GPG_HOME`).
//!
//! Portage takes a package when gpg says that its signature is good and its key fully or ultimately trusted. Here the
//! key gets ultimate ownertrust, the only kind that needs no other key's signature. Portage starts gpg as
//! `nobody:nogroup` when it is root itself, so the directory, the keys and the trust database must be readable for
//! everybody; getuto, Gentoo's own caretaker of this keyring, makes them so, and so does this.

use crate::openpgp::{self, OpenPgpError};
use sandbox::spawn::{Ended, Job, RunError, run};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tree::conf::MakeConf;

/// Where Portage looks, whatever PORTAGE_CONFIGROOT says.
const DEFAULT_DIR: &str = "etc/portage/gnupg";
/// The variable of make.conf that says otherwise.
const DIR_VARIABLE: &str = "BINPKG_GPG_VERIFY_GPG_HOME";
/// gpg reads and writes a few files; it waits this long at most for another gpg that has them locked.
const GPG_DEADLINE: Duration = Duration::from_secs(60);
/// getuto asks several key servers and waits up to three minutes for each.
const GETUTO_DEADLINE: Duration = Duration::from_secs(1200);
/// Answers are a few lines of one key.
const ANSWER_MAX_BYTES: u64 = 1024 * 1024;
/// As getuto makes it: everybody may read, see above; the secret keys in it have a directory of their own.
const DIR_MODE: u32 = 0o755;
/// As getuto writes it: that the directory is open is meant so.
const GPG_CONF: &str = "no-greeting\nno-permission-warning\n";
/// Files that gpg as `nobody` must read; which of the first two there is depends on gpg's age.
const READ_BY_PORTAGE: [&str; 3] = ["pubring.kbx", "pubring.gpg", "trustdb.gpg"];

/// How a key stands in a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTrust {
    /// There is no keyring yet.
    NoKeyring,
    /// The keyring does not have the key.
    Absent,
    /// It has it, but Portage would not take its signatures.
    Untrusted,
    /// Portage takes its signatures.
    Trusted,
    /// It is trusted, but `nobody`, as whom Portage asks, cannot read the keyring.
    Closed,
}

impl KeyTrust {
    /// What it is, as one short phrase.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoKeyring => "there is no keyring",
            Self::Absent => "the key is not in it",
            Self::Untrusted => "the key is in it, but not trusted",
            Self::Trusted => "the key is in it and trusted",
            Self::Closed => "the key is in it and trusted, but Portage's verifier (nobody) cannot read the keyring",
        }
    }
}

/// Why a keyring was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// There is no gpg.
    #[error("gpg is not in PATH, and Portage verifies with it too")]
    NoGpg,
    /// It is somebody else's, usually root's.
    #[error("{dir} is not this user's to change or read")]
    NotPermitted {
        /// The keyring.
        dir: PathBuf,
        /// The key it is about.
        fingerprint: String,
    },
    /// The directory or a file in it.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program did not come to its end.
    #[error("cannot work on the keyring")]
    Run(#[from] RunError),
    /// A file cannot be written.
    #[error("cannot make the keyring")]
    Write(#[from] store::PathError),
    /// What shall be put in is not the key it should be.
    #[error(transparent)]
    Key(#[from] OpenPgpError),
    /// gpg did not do it.
    #[error("gpg cannot {doing}: {said}")]
    Gpg {
        /// Reads after "cannot".
        doing: &'static str,
        /// What it said.
        said: String,
    },
}

impl KeyringError {
    /// What the user may do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoGpg => Some("emerge app-crypt/gnupg".to_owned()),
            Self::NotPermitted { dir, fingerprint } => {
                let dir = dir.display();
                Some(format!(
                    "run `peer key init` as root; or, as root by hand: mkdir -p -m 755 {dir}; \
                     peer key show --armor | gpg --homedir {dir} --import; \
                     echo {fingerprint}:6: | gpg --homedir {dir} --import-ownertrust; \
                     gpg --homedir {dir} --check-trustdb; chmod a+r {dir}/pubring.kbx {dir}/trustdb.gpg"
                ))
            }
            Self::Path { .. } | Self::Run(_) | Self::Write(_) | Self::Key(_) | Self::Gpg { .. } => None,
        }
    }
}

/// A keyring, and where gpg is looked for.
#[derive(Clone, Debug)]
pub struct Keyring {
    dir: PathBuf,
    path: OsString,
}

impl Keyring {
    /// The keyring in this directory; `path` is a `PATH`.
    #[must_use]
    pub fn at(dir: PathBuf, path: OsString) -> Self {
        Self { dir, path }
    }

    /// The keyring of the Portage whose configuration is below `config_root`: what its make.conf says, word for word as
    /// Portage takes it, or the usual place below the same root. A make.conf that cannot be read says nothing.
    #[must_use]
    pub fn of_portage(config_root: &Path, path: OsString) -> Self {
        let conf = MakeConf::load(config_root).ok();
        let said = conf.as_ref().and_then(|conf| conf.get(DIR_VARIABLE)).map(PathBuf::from);
        Self { dir: said.filter(|dir| dir.is_absolute()).unwrap_or_else(|| config_root.join(DEFAULT_DIR)), path }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// getuto, if making this keyring is its business: it does so only where there is none, and only it puts the keys
    /// of Gentoo's own binary packages into it.
    #[must_use]
    pub fn getuto(&self) -> Option<PathBuf> {
        let ours = self.dir == Path::new("/").join(DEFAULT_DIR) && !self.dir.exists();
        let programs = || std::env::split_paths(&self.path).map(|dir| dir.join("getuto"));
        if ours { programs().find(|program| program.is_file()) } else { None }
    }

    /// How a key stands here. Changes nothing.
    ///
    /// # Errors
    /// When this user may not read the keyring, or gpg does not answer.
    pub async fn trust_of(&self, fingerprint: &str) -> Result<KeyTrust, KeyringError> {
        let mut files = Vec::new();
        for name in READ_BY_PORTAGE {
            let path = self.dir.join(name);
            match path.symlink_metadata() {
                Ok(_) if rustix::fs::access(&path, rustix::fs::Access::READ_OK).is_ok() => files.push(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return Err(self.not_permitted(fingerprint)),
            }
        }
        if !files.iter().any(|name| name.starts_with("pubring")) {
            return Ok(if self.dir.is_dir() { KeyTrust::Absent } else { KeyTrust::NoKeyring });
        }
        // Without a trust database gpg would make one; told to do without it says of each key that its trust is unknown.
        let model = if files.contains(&"trustdb.gpg") { "pgp" } else { "always" };
        let reading = ["--trust-model", model, "--lock-never", "--no-auto-check-trustdb", "--with-colons"];
        let ended = self.gpg(&[&reading[..], &["--list-keys", fingerprint]].concat(), Vec::new()).await?;
        let text = String::from_utf8_lossy(&ended.output);
        let key = text.lines().find_map(|line| line.strip_prefix("pub:"));
        match key.map(|fields| fields.split(':').next().unwrap_or_default()) {
            // gpg says with its second code both that there is no such key and that it cannot read; it names the latter.
            None if ended.errors.contains("No public key") || ended.errors.contains("Not found") => {
                Ok(KeyTrust::Absent)
            }
            None => Err(KeyringError::Gpg { doing: "list the keys", said: said(&ended) }),
            Some("u" | "f") if self.is_open() => Ok(KeyTrust::Trusted),
            Some("u" | "f") => Ok(KeyTrust::Closed),
            Some(_) => Ok(KeyTrust::Untrusted),
        }
    }

    /// Puts a public key into the keyring and trusts it; makes the keyring if there is none. Other keys stay as they are.
    /// False when there was nothing to do.
    ///
    /// # Errors
    /// When this user may not, or gpg does not do it.
    pub async fn trust(&self, armored: &str, fingerprint: &str) -> Result<bool, KeyringError> {
        // What another process hands over to be imported as root is this one key and nothing beside it.
        let armored = openpgp::public_key(armored, fingerprint)?;
        if self.trust_of(fingerprint).await? == KeyTrust::Trusted {
            return Ok(false);
        }
        self.must_be_writable(fingerprint)?;
        if let Some(getuto) = self.getuto() {
            // Where it fails (it wants a network) our own key is put in all the same.
            let ended = run(self.job(getuto, Vec::new(), Vec::new(), GETUTO_DEADLINE)).await?;
            tracing::debug!(code = ended.code, errors = ended.errors, "getuto made the keyring");
        }
        self.make()?;
        self.change("import the key", &["--import"], armored.into_bytes()).await?;
        self.set_trust(fingerprint, "6").await?;
        match self.trust_of(fingerprint).await? {
            KeyTrust::Trusted => Ok(true),
            other => Err(KeyringError::Gpg { doing: "trust the key", said: other.words().to_owned() }),
        }
    }

    /// Takes a key and its trust out of the keyring. False when it was not there.
    ///
    /// # Errors
    /// When this user may not, or gpg does not do it.
    pub async fn distrust(&self, fingerprint: &str) -> Result<bool, KeyringError> {
        if matches!(self.trust_of(fingerprint).await?, KeyTrust::NoKeyring | KeyTrust::Absent) {
            return Ok(false);
        }
        self.must_be_writable(fingerprint)?;
        // Trust outlives the key in gpg's database: 2 is "undefined", as if it had never been said.
        self.set_trust(fingerprint, "2").await?;
        self.change("take the key out", &["--yes", "--delete-keys", fingerprint], Vec::new()).await?;
        self.open()?;
        Ok(true)
    }

    async fn set_trust(&self, fingerprint: &str, trust: &str) -> Result<(), KeyringError> {
        let line = format!("{fingerprint}:{trust}:\n");
        self.change("set the trust in the key", &["--import-ownertrust"], line.into_bytes()).await?;
        // Portage asks with --no-auto-check-trustdb: what the trust makes of the keys must be worked out before.
        self.change("check its trust database", &["--check-trustdb"], Vec::new()).await?;
        self.open()
    }

    async fn change(&self, doing: &'static str, arguments: &[&str], input: Vec<u8>) -> Result<(), KeyringError> {
        let ended = self.gpg(arguments, input).await?;
        if ended.code == Some(0) { Ok(()) } else { Err(KeyringError::Gpg { doing, said: said(&ended) }) }
    }

    async fn gpg(&self, arguments: &[&str], input: Vec<u8>) -> Result<Ended, KeyringError> {
        let fixed =
            ["--batch", "--no-tty", "--no-autostart", "--no-permission-warning", "--status-fd", "1", "--homedir"];
        let mut all: Vec<OsString> = fixed.into_iter().map(Into::into).collect();
        all.push(self.dir.clone().into_os_string());
        all.extend(arguments.iter().map(Into::into));
        match run(self.job("gpg".into(), all, input, GPG_DEADLINE)).await {
            Err(RunError::Start { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(KeyringError::NoGpg),
            ended => Ok(ended?),
        }
    }

    fn job(&self, program: PathBuf, arguments: Vec<OsString>, input: Vec<u8>, deadline: Duration) -> Job {
        let environment = [("PATH", self.path.clone()), ("LC_ALL", "C.UTF-8".into()), ("HOME", "/nonexistent".into())];
        Job {
            program,
            arguments,
            environment: environment.map(|(name, value)| (name.into(), value)).into(),
            input,
            output_max_bytes: ANSWER_MAX_BYTES,
            deadline,
        }
    }

    /// The directory as getuto makes it, where there is none.
    fn make(&self) -> Result<(), KeyringError> {
        if self.dir.is_dir() {
            return Ok(());
        }
        let failed = |source| KeyringError::Path { path: self.dir.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(&self.dir).map_err(failed)?;
        // Whatever the umask takes away is meant.
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(DIR_MODE)).map_err(failed)?;
        Ok(store::write_atomically(&self.dir.join("gpg.conf"), GPG_CONF.as_bytes(), 0o644)?)
    }

    fn must_be_writable(&self, fingerprint: &str) -> Result<(), KeyringError> {
        let existing = self.dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(existing, wanted).map_err(|_| self.not_permitted(fingerprint))
    }

    fn not_permitted(&self, fingerprint: &str) -> KeyringError {
        KeyringError::NotPermitted { dir: self.dir.clone(), fingerprint: fingerprint.to_owned() }
    }

    /// What must be readable, with the bits it wants for everybody.
    fn read_by_portage(&self) -> Vec<(PathBuf, u32)> {
        let files = READ_BY_PORTAGE.iter().map(|name| (self.dir.join(name), 0o444));
        std::iter::once((self.dir.clone(), 0o555)).chain(files.filter(|(path, _)| path.exists())).collect()
    }

    /// True when Portage, which drops to `nobody` only as root, can read it.
    fn is_open(&self) -> bool {
        let open = |(path, bits): &(PathBuf, u32)| {
            path.metadata().is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & bits == *bits)
        };
        self.read_by_portage().iter().all(open)
    }

    /// Makes it readable for `nobody`, where it is root's.
    fn open(&self) -> Result<(), KeyringError> {
        for (path, bits) in self.read_by_portage() {
            let failed = |source| KeyringError::Path { path: path.clone(), source };
            let metadata = path.metadata().map_err(failed)?;
            if metadata.uid() == 0 && metadata.mode() & bits != bits {
                let mode = (metadata.mode() & 0o7777) | bits;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// The lines of gpg's complaint as one.
fn said(ended: &Ended) -> String {
    let lines: Vec<&str> = ended.errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { format!("it ended with {:?} and said nothing", ended.code) } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::OpenPgpKey;

    const PATH: &str = "/usr/bin:/bin";

    fn keyring(dir: &Path) -> Keyring {
        Keyring::at(dir.join("etc/portage/gnupg"), PATH.into())
    }

    async fn trust(keyring: &Keyring, key: &OpenPgpKey) -> bool {
        keyring.trust(&key.public_armored(), &key.fingerprint()).await.unwrap()
    }

    async fn trust_of(keyring: &Keyring, key: &OpenPgpKey) -> KeyTrust {
        keyring.trust_of(&key.fingerprint()).await.unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_key_is_put_in_once_and_taken_out_again_and_other_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        let (ours, other) = (OpenPgpKey::generate("ours").unwrap(), OpenPgpKey::generate("other").unwrap());
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::NoKeyring);
        assert!(!keyring.distrust(&ours.fingerprint()).await.unwrap());
        assert!(!keyring.dir().exists(), "a question makes nothing");

        assert!(trust(&keyring, &other).await);
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::Absent);
        assert!(trust(&keyring, &ours).await);
        assert!(!trust(&keyring, &ours).await, "the second time there is nothing to do");
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::Trusted);

        assert!(keyring.distrust(&ours.fingerprint()).await.unwrap());
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::Absent);
        assert_eq!(trust_of(&keyring, &other).await, KeyTrust::Trusted);
        assert!(!keyring.distrust(&ours.fingerprint()).await.unwrap());
        assert!(trust(&keyring, &ours).await, "and it can be put in again");
    }

    #[tokio::test]
    async fn a_key_that_is_there_without_trust_is_told_from_a_trusted_one_and_then_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        let key = OpenPgpKey::generate("ours").unwrap();
        keyring.make().unwrap();
        assert_eq!(trust_of(&keyring, &key).await, KeyTrust::Absent);
        keyring.gpg(&["--import"], key.public_armored().into_bytes()).await.unwrap();
        assert_eq!(trust_of(&keyring, &key).await, KeyTrust::Untrusted);
        assert!(trust(&keyring, &key).await);
        std::fs::remove_file(keyring.dir().join("trustdb.gpg")).unwrap();
        assert_eq!(trust_of(&keyring, &key).await, KeyTrust::Untrusted);
        assert!(!keyring.dir().join("trustdb.gpg").exists(), "a question makes nothing");
        assert!(trust(&keyring, &key).await);
    }

    #[tokio::test]
    async fn a_new_keyring_can_be_read_by_nobody_and_an_old_closed_one_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        let key = OpenPgpKey::generate("ours").unwrap();
        assert!(trust(&keyring, &key).await);
        assert_eq!(mode(keyring.dir()), 0o755);
        let is_root = rustix::process::geteuid().is_root();
        for name in ["pubring.kbx", "trustdb.gpg"] {
            let path = keyring.dir().join(name);
            assert!(!is_root || mode(&path) & 0o444 == 0o444, "{name} {:o}", mode(&path));
            chmod(&path, 0o600);
            let closed = if is_root { KeyTrust::Closed } else { KeyTrust::Trusted };
            assert_eq!(trust_of(&keyring, &key).await, closed);
            assert_eq!(trust(&keyring, &key).await, is_root);
        }
    }

    #[tokio::test]
    async fn a_keyring_of_somebody_else_is_not_touched_and_the_commands_for_root_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        let key = OpenPgpKey::generate("ours").unwrap();
        keyring.make().unwrap();
        chmod(keyring.dir(), 0o555);
        let done = keyring.trust(&key.public_armored(), &key.fingerprint()).await;
        if rustix::process::geteuid().is_root() {
            assert!(done.unwrap(), "nothing is closed to root");
        } else {
            assert!(matches!(done, Err(KeyringError::NotPermitted { .. })), "{done:?}");
            assert_eq!(trust_of(&keyring, &key).await, KeyTrust::Absent);
        }
        let error = keyring.not_permitted(&key.fingerprint());
        let hint = error.hint().unwrap();
        for part in ["peer key init", &format!("echo {}:6:", key.fingerprint()), keyring.dir().to_str().unwrap()] {
            assert!(hint.contains(part), "{hint}");
        }
    }

    #[tokio::test]
    async fn without_gpg_it_is_said_which_package_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::at(dir.path().join("gnupg"), dir.path().into());
        let key = OpenPgpKey::generate("ours").unwrap();
        let error = keyring.trust(&key.public_armored(), &key.fingerprint()).await.unwrap_err();
        assert!(matches!(error, KeyringError::NoGpg), "{error}");
        assert!(error.hint().unwrap().contains("gnupg"));
    }

    #[tokio::test]
    async fn only_the_key_that_is_meant_is_put_in_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        let (ours, other) = (OpenPgpKey::generate("ours").unwrap(), OpenPgpKey::generate("other").unwrap());
        let half = ours.public_armored()[..200].to_owned();
        for armored in ["", "no key", &half, &other.public_armored()] {
            let error = keyring.trust(armored, &ours.fingerprint()).await.unwrap_err();
            assert!(matches!(error, KeyringError::Key(_)), "{error}");
        }
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::NoKeyring);

        let elsewhere = Keyring::at(dir.path().join("elsewhere"), PATH.into());
        assert!(trust(&elsewhere, &ours).await && trust(&elsewhere, &other).await);
        let both = elsewhere.gpg(&["--armor", "--export"], Vec::new()).await.unwrap().output;
        let both = String::from_utf8(both).unwrap();
        assert!(both.len() > ours.public_armored().len() + 200, "{both}");
        assert!(keyring.trust(&both, &ours.fingerprint()).await.unwrap());
        assert_eq!(trust_of(&keyring, &ours).await, KeyTrust::Trusted);
        assert_eq!(trust_of(&keyring, &other).await, KeyTrust::Absent);
    }

    #[tokio::test]
    async fn what_gpg_complains_of_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = keyring(dir.path());
        keyring.make().unwrap();
        let error = keyring.change("import the key", &["--import"], b"no key".to_vec()).await.unwrap_err();
        assert!(error.to_string().contains("no valid OpenPGP data"), "{error}");
        // gpg has made an empty keyring by now, and no trust database.
        let key = OpenPgpKey::generate("ours").unwrap();
        assert_eq!(trust_of(&keyring, &key).await, KeyTrust::Absent);
    }

    #[test]
    fn the_keyring_is_where_make_conf_says_or_below_the_same_root() {
        let dir = tempfile::tempdir().unwrap();
        let of = || Keyring::of_portage(dir.path(), PATH.into()).dir;
        assert_eq!(of(), dir.path().join("etc/portage/gnupg"));
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        for (text, wanted) in [
            ("BINPKG_GPG_VERIFY_GPG_HOME=\"/srv/keys\"\n", Path::new("/srv/keys").to_owned()),
            ("BINPKG_GPG_VERIFY_GPG_HOME=\"keys\"\n", dir.path().join("etc/portage/gnupg")),
            ("USE=\"x\"\n", dir.path().join("etc/portage/gnupg")),
        ] {
            store::write_atomically(&dir.path().join("etc/portage/make.conf"), text.as_bytes(), 0o644).unwrap();
            assert_eq!(of(), wanted, "{text}");
        }
    }

    #[test]
    fn getuto_is_asked_only_for_the_keyring_that_is_its_own_and_not_there() {
        let dir = tempfile::tempdir().unwrap();
        store::write_atomically(&dir.path().join("getuto"), b"#!/bin/sh\n", 0o755).unwrap();
        assert_eq!(Keyring::at(dir.path().join("gnupg"), dir.path().into()).getuto(), None);
        let own = Keyring::at("/etc/portage/gnupg".into(), dir.path().into());
        let expected = (!own.dir().exists()).then(|| dir.path().join("getuto"));
        assert_eq!(own.getuto(), expected);
        assert_eq!(Keyring::at("/etc/portage/gnupg".into(), "/nonexistent".into()).getuto(), None);
    }
}
