//! The OpenPGP key this node signs binary packages with (GLEP 78): made, kept and used here, without gpg.
//!
//! One version 4 Ed25519 key ("EdDSA legacy" of RFC 9580, which is what GnuPG since 2.1 speaks; the newer spelling of the
//! same curve and version 6 keys are unknown to it) that certifies itself and signs, with SHA-512.
//!
//! It never expires. Portage refuses a package whose key has expired, so an expiry would make every package of this node
//! unusable on a day nobody thinks of; and it would protect from nobody, for whoever has the secret can move the expiry.
//! What ends the trust is taking the public key out of Portage's keyring.

use crate::private_files::{self, PrivateFileError};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, Deserializable as _, DetachedSignature, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails as _, KeyVersion, Password, Timestamp};
use rand::rngs::OsRng;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tree::gpkg_write::GpkgSigner;

/// A key of this kind has some 700 bytes; one that a person put there may carry more signatures.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a user id: gpg refuses more than 2048, and this one only says which node it is.
const USER_ID_BYTES_MAX: usize = 256;
/// Only the daemon's user reads the secret.
const KEY_MODE: u32 = 0o600;
/// Only the daemon's user sees what keys there are.
const KEYS_MODE: u32 = 0o700;
/// What is signed is hashed with the sum that Portage's own signing command asks of gpg (BINPKG_GPG_SIGNING_DIGEST).
const HASH: HashAlgorithm = HashAlgorithm::Sha512;

/// Why there is no key or no signature.
#[derive(Debug, thiserror::Error)]
pub enum OpenPgpError {
    /// A user id that a keyring would not take or not show as it is.
    #[error("{user_id:?} cannot name a key: 1 to {USER_ID_BYTES_MAX} bytes without control characters are expected")]
    UserId {
        /// What was given.
        user_id: String,
    },
    /// The file or its directory.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot keep the key")]
    Write(#[from] store::PathError),
    /// The file cannot be read, or others than its owner may use the secret.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    /// The file is not a key that this node could have made.
    #[error("{path} is not a signing key of this node: {why}")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A public key is another one, or none.
    #[error("this is not the public key {fingerprint}: {why}")]
    NotTheKey {
        /// The key that is meant.
        fingerprint: String,
        /// What was found instead.
        why: String,
    },
    /// A line of a text ends with blanks, which a cleartext signature does not cover (RFC 9580, 7.2).
    #[error("line {line} of the text to sign ends with blanks")]
    Blanks {
        /// Counted from 1.
        line: usize,
    },
    /// What is to be signed cannot be read, or the key does not sign.
    #[error("cannot sign: {why}")]
    Sign {
        /// What the signing says.
        why: String,
    },
}

/// A secret key and its self-signed public half.
#[derive(Clone)]
pub struct OpenPgpKey {
    secret: SignedSecretKey,
    user_id: String,
}

impl OpenPgpKey {
    /// A new key from the system's random source.
    ///
    /// # Errors
    /// When the user id is none that a keyring shows.
    pub fn generate(user_id: &str) -> Result<Self, OpenPgpError> {
        if user_id.is_empty() || user_id.len() > USER_ID_BYTES_MAX || user_id.chars().any(char::is_control) {
            return Err(OpenPgpError::UserId { user_id: user_id.to_owned() });
        }
        let mut params = SecretKeyParamsBuilder::default();
        params.version(KeyVersion::V4).key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true);
        params.primary_user_id(user_id.to_owned()).preferred_hash_algorithms([HASH].as_slice().into());
        let params = params.build().map_err(|error| OpenPgpError::Sign { why: error.to_string() })?;
        let secret = params.generate(OsRng).map_err(signing)?;
        Ok(Self { secret, user_id: user_id.to_owned() })
    }

    /// The key in a file; none when there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, others may read it, or it is no key that signs.
    pub fn load(path: &Path) -> Result<Option<Self>, OpenPgpError> {
        let not_a_key = |why: String| OpenPgpError::NotAKey { path: path.to_owned(), why };
        let Some(armored) = private_files::read(path, KEY_BYTES_MAX)? else { return Ok(None) };
        Self::from_armored(&armored).map(Some).map_err(not_a_key)
    }

    fn from_armored(armored: &[u8]) -> Result<Self, String> {
        let (secret, _headers) = SignedSecretKey::from_armor_single(armored).map_err(|error| error.to_string())?;
        secret.verify_bindings().map_err(|error| error.to_string())?;
        let key = &secret.primary_key;
        if key.version() != KeyVersion::V4 || key.algorithm() != PublicKeyAlgorithm::EdDSALegacy {
            return Err(format!("{:?} {:?}, expected a version 4 EdDSA key", key.version(), key.algorithm()));
        }
        if key.secret_params().is_encrypted() {
            return Err("it is locked with a passphrase, and the daemon has nobody to ask".to_owned());
        }
        let user_id = secret.details.users.first().and_then(|user| user.id.as_str());
        let user_id = user_id.ok_or_else(|| "it has no user id".to_owned())?.to_owned();
        Ok(Self { secret, user_id })
    }

    /// Keeps the key in a file that only its owner reads; makes the directory it lies in.
    ///
    /// # Errors
    /// When it cannot be written. Afterwards the old file, or none, is there.
    pub fn save(&self, path: &Path) -> Result<(), OpenPgpError> {
        if let Some(dir) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(KEYS_MODE).create(dir);
            made.map_err(|source| OpenPgpError::Path { path: dir.to_owned(), source })?;
        }
        let armored = self.secret.to_armored_bytes(ArmorOptions::default()).map_err(signing)?;
        Ok(store::write_atomically(path, &armored, KEY_MODE)?)
    }

    /// The public half as keyrings import it.
    #[must_use]
    pub fn public_armored(&self) -> String {
        let armored = self.secret.to_public_key().to_armored_string(ArmorOptions::default());
        armored.expect("a key that was made or parsed here has an armored form")
    }

    /// The fingerprint, 40 upper case hex digits as gpg shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.secret.fingerprint().to_string().to_ascii_uppercase()
    }

    /// Whom the key says it belongs to.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// An armored signature of everything the reader gives: what Portage puts beside a member of a gpkg as `NAME.sig`
    /// (`gpg --sign --armor --detach-sig`).
    ///
    /// # Errors
    /// When the reader fails.
    pub fn detached(&self, content: &mut dyn Read) -> Result<Vec<u8>, OpenPgpError> {
        let signature = self.config(SignatureType::Binary)?.sign(&self.secret.primary_key, &Password::empty(), content);
        let signature = DetachedSignature::new(signature.map_err(signing)?);
        signature.to_armored_bytes(ArmorOptions::default()).map_err(signing)
    }

    /// A text with its signature around it: what Portage makes of a gpkg's Manifest (`gpg --clear-sign`). As gpg does
    /// it, the end of the last line belongs to the frame and not to the text.
    ///
    /// # Errors
    /// When a line ends with blanks: they would be outside the signature.
    pub fn clear(&self, text: &str) -> Result<String, OpenPgpError> {
        let blank_end = |line: &str| line.ends_with([' ', '\t', '\r']);
        if let Some(line) = text.split('\n').position(blank_end) {
            return Err(OpenPgpError::Blanks { line: line + 1 });
        }
        let text = text.strip_suffix('\n').unwrap_or(text);
        let config = self.config(SignatureType::Text)?;
        let message = CleartextSignedMessage::new(text, config, &self.secret.primary_key, &Password::empty());
        message.and_then(|message| message.to_armored_string(ArmorOptions::default())).map_err(signing)
    }

    /// A signature made now. The key's id beside its fingerprint is what old verifiers look keys up by.
    fn config(&self, kind: SignatureType) -> Result<SignatureConfig, OpenPgpError> {
        let key = &self.secret.primary_key;
        let mut config = SignatureConfig::v4(kind, key.algorithm(), HASH);
        let subpacket = |data| Subpacket::regular(data).map_err(signing);
        config.hashed_subpackets = vec![
            subpacket(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
            subpacket(SubpacketData::SignatureCreationTime(Timestamp::now()))?,
        ];
        config.unhashed_subpackets = vec![subpacket(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
        Ok(config)
    }
}

/// Only reads the key, so that packages can be signed side by side with one.
impl GpkgSigner for &OpenPgpKey {
    fn detached(&mut self, content: &mut dyn Read) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(OpenPgpKey::detached(self, content)?)
    }

    fn clear(&mut self, text: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(OpenPgpKey::clear(self, text)?)
    }
}

impl fmt::Debug for OpenPgpKey {
    /// Shows the public name only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenPgpKey({})", self.fingerprint())
    }
}

/// The one public key of this fingerprint in an armored text, written anew without anything that was beside it.
///
/// # Errors
/// When the text is too long, or begins with another key or none, or the key's own signatures on itself are not good.
pub fn public_key(armored: &str, fingerprint: &str) -> Result<String, OpenPgpError> {
    let not_it = |why: String| OpenPgpError::NotTheKey { fingerprint: fingerprint.to_owned(), why };
    if armored.len() as u64 > KEY_BYTES_MAX {
        return Err(not_it(format!("it has more than {KEY_BYTES_MAX} bytes")));
    }
    let (key, _headers) = SignedPublicKey::from_string(armored).map_err(|error| not_it(error.to_string()))?;
    key.verify_bindings().map_err(|error| not_it(error.to_string()))?;
    let found = key.fingerprint().to_string();
    if !found.eq_ignore_ascii_case(fingerprint) {
        return Err(not_it(format!("it is {found}")));
    }
    key.to_armored_string(ArmorOptions::default()).map_err(signing)
}

fn signing(error: impl fmt::Display) -> OpenPgpError {
    OpenPgpError::Sign { why: error.to_string() }
}

/// The key of this node on its disk: made when it is first needed, read once.
#[derive(Debug)]
pub struct SigningKey {
    path: PathBuf,
    user_id: String,
    key: Mutex<Option<Arc<OpenPgpKey>>>,
}

impl SigningKey {
    /// The key below a data directory, for the node of this peer id. Reads nothing yet.
    #[must_use]
    pub fn below(data_dir: &Path, peer_id: &str) -> Self {
        Self {
            path: data_dir.join("keys").join("openpgp.asc"),
            user_id: format!("Peerage node {peer_id}"),
            key: Mutex::default(),
        }
    }

    /// The file of the secret.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key, if it has been made. Blocking.
    ///
    /// # Errors
    /// When its file is there and cannot be used.
    pub fn get(&self) -> Result<Option<Arc<OpenPgpKey>>, OpenPgpError> {
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = OpenPgpKey::load(&self.path)?.map(Arc::new);
        }
        Ok(held.clone())
    }

    /// The key, made now if there is none; true when it was. Blocking.
    ///
    /// # Errors
    /// When its file cannot be used or written.
    pub fn obtain(&self) -> Result<(Arc<OpenPgpKey>, bool), OpenPgpError> {
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = held.as_ref() {
            return Ok((Arc::clone(key), false));
        }
        let (key, made) = match OpenPgpKey::load(&self.path)? {
            Some(key) => (Arc::new(key), false),
            None => {
                let key = OpenPgpKey::generate(&self.user_id)?;
                key.save(&self.path)?;
                tracing::info!(fingerprint = key.fingerprint(), "made the key that binary packages are signed with");
                (Arc::new(key), true)
            }
        };
        *held = Some(Arc::clone(&key));
        Ok((key, made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::spawn::{Ended, Job};
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    /// Runs the real gpg in a home of its own; what it says about keys and signatures is on standard output.
    async fn gpg(home: &Path, arguments: &[&str], input: &[u8]) -> Ended {
        let mut all = vec!["--batch", "--no-tty", "--no-autostart", "--status-fd", "1", "--homedir"];
        all.push(home.to_str().unwrap());
        all.extend(arguments);
        let job = Job {
            program: "gpg".into(),
            arguments: all.into_iter().map(Into::into).collect(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("LANG".into(), "C.UTF-8".into())],
            input: input.to_vec(),
            output_max_bytes: 1 << 20,
            deadline: Duration::from_secs(30),
        };
        sandbox::spawn::run(job).await.unwrap()
    }

    fn said(ended: &Ended) -> String {
        format!("{:?}\n{}\n{}", ended.code, String::from_utf8_lossy(&ended.output), ended.errors)
    }

    /// A gpg home that trusts a key as the user's own.
    async fn trusting(key: &OpenPgpKey) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let imported = gpg(home.path(), &["--import"], key.public_armored().as_bytes()).await;
        assert!(said(&imported).contains(&format!("IMPORT_OK 1 {}", key.fingerprint())), "{}", said(&imported));
        let trust = gpg(home.path(), &["--import-ownertrust"], format!("{}:6:\n", key.fingerprint()).as_bytes()).await;
        assert_eq!(trust.code, Some(0), "{}", said(&trust));
        home
    }

    async fn verify_detached(home: &Path, signature: &[u8], content: &[u8]) -> Ended {
        let path = home.join("content.sig");
        store::write_atomically(&path, signature, 0o644).unwrap();
        gpg(home, &["--verify", path.to_str().unwrap(), "-"], content).await
    }

    fn is_good(ended: &Ended) -> bool {
        let text = said(ended);
        ended.code == Some(0) && text.contains("[GNUPG:] GOODSIG") && text.contains("[GNUPG:] TRUST_ULTIMATE")
    }

    #[tokio::test]
    async fn gpg_takes_the_signatures_and_refuses_every_tampered_byte() {
        let key = OpenPgpKey::generate("Peerage node test").unwrap();
        let home = trusting(&key).await;
        for content in [&b""[..], b"\n", b"a\r\nb \n", &vec![0x2d; 1_000_000]] {
            let signature = key.detached(&mut &content[..]).unwrap();
            let good = verify_detached(home.path(), &signature, content).await;
            assert!(is_good(&good), "{}", said(&good));
            let bad = verify_detached(home.path(), &signature, &[content, b"x"].concat()).await;
            assert!(!is_good(&bad) && said(&bad).contains("BADSIG"), "{}", said(&bad));
        }
        for text in ["", "a", "a\n", "- a\n-----BEGIN PGP\n\n\nDATA x 1\n", "ü\n\n"] {
            let signed = key.clear(text).unwrap();
            let good = gpg(home.path(), &["--verify"], signed.as_bytes()).await;
            assert!(is_good(&good), "{text:?} {}", said(&good));
            let tampered = signed.replacen("\n\n", "\n\nz", 1);
            let bad = gpg(home.path(), &["--verify"], tampered.as_bytes()).await;
            assert!(!is_good(&bad), "{text:?} {}", said(&bad));
        }
    }

    #[tokio::test]
    async fn gpg_says_the_text_again_as_it_was_given() {
        let key = OpenPgpKey::generate("Peerage node test").unwrap();
        let home = trusting(&key).await;
        let text = "DATA greeter-1.0-1/image.tar.zst 1 SHA512 00\n- dashes\n-- more\n";
        let signed = key.clear(text).unwrap();
        let shown = home.path().join("shown");
        let ended = gpg(home.path(), &["--output", shown.to_str().unwrap(), "--verify"], signed.as_bytes()).await;
        assert!(is_good(&ended), "{}", said(&ended));
        assert_eq!(std::fs::read_to_string(shown).unwrap(), text);
    }

    #[tokio::test]
    async fn the_signature_of_a_stranger_is_not_taken_for_ours() {
        let (ours, stranger) = (OpenPgpKey::generate("ours").unwrap(), OpenPgpKey::generate("ours").unwrap());
        let home = trusting(&ours).await;
        let signature = stranger.detached(&mut &b"bytes"[..]).unwrap();
        let ended = verify_detached(home.path(), &signature, b"bytes").await;
        assert!(!is_good(&ended) && said(&ended).contains("NO_PUBKEY"), "{}", said(&ended));
    }

    #[tokio::test]
    async fn gpg_shows_the_key_as_a_signing_key_that_does_not_expire() {
        let key = OpenPgpKey::generate("Peerage node test").unwrap();
        let home = trusting(&key).await;
        let listed = gpg(home.path(), &["--with-colons", "--list-keys"], b"").await;
        let text = said(&listed);
        let fields: Vec<&str> = text.lines().find(|line| line.starts_with("pub:")).unwrap().split(':').collect();
        // Validity u, 255 bits, algorithm 22 (EdDSA), no expiry, may certify and sign and nothing else.
        assert_eq!((fields[1], fields[2], fields[3], fields[6]), ("u", "255", "22", ""), "{text}");
        assert!(fields[11].starts_with("cs") || fields[11].starts_with("sc"), "{text}");
        assert!(text.contains(&format!("fpr:::::::::{}:", key.fingerprint())), "{text}");
        assert!(text.contains(":Peerage node test:"), "{text}");
    }

    #[test]
    fn what_was_saved_is_loaded_again_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys").join("openpgp.asc");
        assert!(OpenPgpKey::load(&path).unwrap().is_none());
        let key = OpenPgpKey::generate("Peerage node test").unwrap();
        key.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        let loaded = OpenPgpKey::load(&path).unwrap().unwrap();
        assert_eq!(loaded.fingerprint(), key.fingerprint());
        assert_eq!(loaded.user_id(), "Peerage node test");
        assert_eq!(loaded.public_armored(), key.public_armored());
        assert!(!key.public_armored().contains("PRIVATE"));
        assert_eq!(format!("{loaded:?}"), format!("OpenPgpKey({})", key.fingerprint()));
    }

    #[test]
    fn files_that_are_no_signing_key_or_that_others_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = OpenPgpKey::generate("x").unwrap();
        let armored = key.secret.to_armored_string(ArmorOptions::default()).unwrap();
        let other = {
            let mut params = SecretKeyParamsBuilder::default();
            params.version(KeyVersion::V4).key_type(KeyType::Ed25519).can_sign(true).primary_user_id("x".to_owned());
            params.build().unwrap().generate(OsRng).unwrap().to_armored_string(ArmorOptions::default()).unwrap()
        };
        let locked = {
            let mut locked = key.secret.clone();
            locked.primary_key.set_password(OsRng, &"secret".into()).unwrap();
            locked.to_armored_string(ArmorOptions::default()).unwrap()
        };
        let half = &armored[..armored.len() / 2];
        let public = key.public_armored();
        for text in ["", "no key", &public, half, &other, &locked] {
            store::write_atomically(&path, text.as_bytes(), 0o600).unwrap();
            let error = OpenPgpKey::load(&path).unwrap_err();
            assert!(matches!(error, OpenPgpError::NotAKey { .. }), "{error}");
        }
        store::write_atomically(&path, armored.as_bytes(), 0o640).unwrap();
        let error = OpenPgpKey::load(&path).unwrap_err();
        let told = |error: &OpenPgpError| {
            matches!(error, OpenPgpError::Private(PrivateFileError::Exposed { mode: 0o640, .. }))
        };
        assert!(told(&error), "{error}");
        let no_file = |path: &Path| {
            matches!(OpenPgpKey::load(path), Err(OpenPgpError::Private(PrivateFileError::NotAFile { .. })))
        };
        store::write_atomically(&path, &[b'x'; 100_000], 0o600).unwrap();
        assert!(no_file(&path) && no_file(dir.path()));
    }

    #[test]
    fn user_ids_and_texts_that_would_not_come_back_as_they_are_are_refused() {
        for user_id in ["", "a\nb", "\u{7f}", &"x".repeat(USER_ID_BYTES_MAX + 1)] {
            assert!(matches!(OpenPgpKey::generate(user_id), Err(OpenPgpError::UserId { .. })), "{user_id:?}");
        }
        let key = OpenPgpKey::generate("x").unwrap();
        for (text, at) in [(" ", 1), ("a\nb \n", 2), ("a\r\n", 1), ("a\nb\n\t\nc", 3)] {
            let error = key.clear(text).unwrap_err();
            assert!(matches!(error, OpenPgpError::Blanks { line } if line == at), "{text:?} {error}");
        }
    }

    #[test]
    fn a_reader_that_fails_leaves_no_signature() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let error = OpenPgpKey::generate("x").unwrap().detached(&mut Broken).unwrap_err();
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }

    #[test]
    fn the_key_of_a_node_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let signing = SigningKey::below(dir.path(), "12D3KooWtest");
        assert!(signing.get().unwrap().is_none());
        let (key, made) = signing.obtain().unwrap();
        assert!(made && key.user_id() == "Peerage node 12D3KooWtest");
        assert_eq!(signing.get().unwrap().unwrap().fingerprint(), key.fingerprint());
        let again = SigningKey::below(dir.path(), "12D3KooWtest");
        let (found, made) = again.obtain().unwrap();
        assert!(!made && found.fingerprint() == key.fingerprint());
        assert!(!format!("{again:?}").contains("BEGIN"));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let signing = SigningKey::below(dir.path(), "12D3KooWtest");
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        store::write_atomically(signing.path(), b"rotten", 0o600).unwrap();
        assert!(signing.obtain().is_err());
        assert_eq!(std::fs::read(signing.path()).unwrap(), b"rotten");
    }
}
