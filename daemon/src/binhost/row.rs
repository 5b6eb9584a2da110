//! What is known of one binary package of this node: a row of the store's table, in DAG-CBOR.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::owner::Owner;
use super::path::path_of;
use crate::statement::peer_id;
use crate::stats::now_s;
use crate::swarm::PeerId;
use md5::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use tree::digest::Digest;
use tree::elf::{Abi, Links, Soname, Versions};
use tree::gpkg::Gpkg;
use tree::packages::{MakeEntryError, PackageEntry, PackageFile};

/// The version of a row that is written; older ones are read.
const VERSION: u8 = 3;
/// Bytes of a row: the keys of an entry are some kilobytes, `REQUIRES` and `PROVIDES` of the largest packages some hundred.
const ROW_BYTES_MAX: usize = 768 << 10;
/// Sonames and symbol versions of a row, together; a package that has more is listed without them being compared.
const LINKS_BYTES_MAX: usize = 256 << 10;
/// Bytes of the options of one variable of a row.
const FLAGS_BYTES_MAX: usize = 16 << 10;

/// Where a binary package came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was built on this machine.
    Built,
    /// Another node built it.
    Substitute {
        /// The public key (Ed25519) of the node whose claim was believed.
        builder: [u8; 32],
        /// The blob that the claim names, before it was signed anew here.
        original: Digest,
    },
}

/// A binary package that this node offers to its own Portage: signed by this node, its bytes a blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinpkgRow {
    /// The blob.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its MD5, which Portage compares.
    pub md5: [u8; 16],
    /// Its SHA-1, which Portage compares.
    pub sha1: [u8; 20],
    /// The time that the index gives it, in seconds since 1970. Portage takes the same time for the same file.
    pub mtime: u64,
    /// What the index says of the package. Path, size, sums and time are not taken from here.
    pub entry: PackageEntry,
    /// The recipe that it was built by.
    pub fingerprint: Digest,
    /// Digest of what it installs.
    pub image: Digest,
    /// Where it came from.
    pub origin: Origin,
    /// When this node had it, in seconds since 1970.
    pub added_at: u64,
    /// Whose it is.
    pub owner: Owner,
    /// What it needs of a machine; None where that was not looked at yet (a row of version 1).
    pub demands: Option<Demands>,
}

/// What a package needs of the machine that installs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// The variables with the options that it was compiled with (`CFLAGS`…), `native` resolved where the recipe is known.
    pub flags: BTreeMap<String, String>,
    /// What its programs and libraries need and give.
    pub links: Links,
}

/// The variables whose options choose instructions.
pub const COMPILED_WITH: [&str; 6] = ["CFLAGS", "CXXFLAGS", "FFLAGS", "FCFLAGS", "RUSTFLAGS", "GOAMD64"];

impl Demands {
    /// Of options by `value` (a variable's text) and of what was found in the image. Options that are too long are cut to
    /// a form that no processor is known for.
    pub fn new(value: impl Fn(&str) -> Option<String>, links: Links) -> Self {
        let text = |name: &str| value(name).filter(|text| !text.is_empty());
        let short = |text: String| if text.len() > FLAGS_BYTES_MAX { "-march=too-long".to_owned() } else { text };
        let flags = COMPILED_WITH.iter().filter_map(|name| Some(((*name).to_owned(), short(text(name)?)))).collect();
        let count = links.needs.len().saturating_add(links.gives.len());
        if links.bytes().saturating_add(count.saturating_mul(16)) > LINKS_BYTES_MAX {
            return Self { flags, links: Links::default() };
        }
        Self { flags, links }
    }

    /// As far as the package itself says it: its options are those of the builder's configuration, `native` and all.
    #[must_use]
    pub fn of_gpkg(gpkg: &Gpkg, links: Links) -> Self {
        Self::new(|name| gpkg.metadata.text(name).map(str::to_owned), links)
    }

    fn form(&self) -> DemandsForm {
        let Links { needs, gives, paths } = &self.links;
        (self.flags.clone(), links_form(needs), links_form(gives), paths.clone())
    }

    fn of_form((flags, needs, gives, paths): DemandsForm) -> Self {
        Self { flags, links: Links { needs: links_of(needs), gives: links_of(gives), paths } }
    }
}

type VersionsForm = Vec<(u8, u16, String, Vec<String>)>;
type DemandsForm = (BTreeMap<String, String>, VersionsForm, VersionsForm, BTreeSet<String>);

fn links_form(versions: &Versions) -> VersionsForm {
    let each = versions.iter();
    each.map(|(so, of)| (so.abi.bits, so.abi.machine, so.name.clone(), of.iter().cloned().collect())).collect()
}

fn links_of(form: VersionsForm) -> Versions {
    let each = form.into_iter();
    each.map(|(bits, machine, name, of)| (Soname { abi: Abi { bits, machine }, name }, of.into_iter().collect()))
        .collect()
}

/// The sums that the index has of a file, made while the file is written.
#[derive(Clone, Default)]
pub struct Sums {
    size: u64,
    md5: md5::Md5,
    sha1: sha1::Sha1,
}

impl Sums {
    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        self.md5.update(bytes);
        self.sha1.update(bytes);
    }
}

/// Why the bytes of a row are none.
#[derive(Debug, thiserror::Error)]
pub enum DecodeRowError {
    /// They have too many bytes to be looked at.
    #[error("a row of {0} bytes, more than {ROW_BYTES_MAX}")]
    Long(usize),
    /// They are not DAG-CBOR of the right form.
    #[error("not a row of a binary package: {0}")]
    Form(String),
    /// A later program wrote them.
    #[error("version {0} of a row is not known")]
    Version(u8),
    /// A field has a value that no version writes.
    #[error("a row has a wrong {0}")]
    Field(&'static str),
    /// What the index would say of it is wrong.
    #[error(transparent)]
    Entry(#[from] MakeEntryError),
}

/// The row in DAG-CBOR: a list, so that nothing depends on the order of keys. Digests are hexadecimal digits.
type Form =
    (u8, File, BTreeMap<String, String>, (String, String), (String, String), u64, (String, Option<DemandsForm>));
/// Version 2 did not say for whom a package was made, only that it was made for another machine.
type FormTwo =
    (u8, File, BTreeMap<String, String>, (String, String), (String, String), u64, (bool, Option<DemandsForm>));
/// Version 1 ended before what was added since.
type FormOne = (u8, File, BTreeMap<String, String>, (String, String), (String, String), u64);
type File = (String, u64, String, String, u64);

impl BinpkgRow {
    /// Describes the blob `digest` with these sums: a package with the metadata of `gpkg`, which installs `image`.
    ///
    /// # Errors
    /// When its metadata make no entry, or one that Portage would stop at.
    pub fn describe(
        (digest, sums): (Digest, Sums),
        gpkg: &Gpkg,
        image: Digest,
        fingerprint: Digest,
        origin: Origin,
        demands: Demands,
    ) -> Result<Self, MakeEntryError> {
        let (size, added_at) = (sums.size, now_s());
        let (md5, sha1): ([u8; 16], [u8; 20]) = (sums.md5.finalize().into(), sums.sha1.finalize().into());
        let about = PackageFile { path: path_of(&digest), size, md5: hex(&md5), sha1: hex(&sha1), mtime: added_at };
        let entry = PackageEntry::from_metadata(&gpkg.metadata, &about)?;
        let (mtime, owner, demands) = (added_at, Owner::This, Some(demands));
        Ok(Self { digest, size, md5, sha1, mtime, entry, fingerprint, image, origin, added_at, owner, demands })
    }

    /// What the index says of it: the entry, with where the blob is and what it is by this row.
    ///
    /// # Errors
    /// When a value is one Portage would stop at.
    pub fn listed(&self) -> Result<PackageEntry, MakeEntryError> {
        let mut keys: BTreeMap<String, String> =
            self.entry.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (key, value) in [
            ("PATH", path_of(&self.digest)),
            ("SIZE", self.size.to_string()),
            ("MD5", hex(&self.md5)),
            ("SHA1", hex(&self.sha1)),
            ("MTIME", self.mtime.to_string()),
        ] {
            keys.insert(key.to_owned(), value);
        }
        PackageEntry::from_keys(keys)
    }

    /// Whether it was built for another machine, by its configuration.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.owner != Owner::This
    }

    /// The node that built it, when it was another.
    #[must_use]
    pub fn builder(&self) -> Option<PeerId> {
        match &self.origin {
            Origin::Substitute { builder, .. } => peer_id(builder),
            Origin::Built => None,
        }
    }

    /// The digests that must stay in the store for it.
    pub(super) fn kept(&self) -> impl Iterator<Item = Digest> + use<> {
        let original = match self.origin {
            Origin::Substitute { original, .. } => Some(original),
            Origin::Built => None,
        };
        std::iter::once(self.digest).chain(original)
    }

    /// The bytes of the row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entry = self.entry.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let origin = match &self.origin {
            Origin::Built => (String::new(), String::new()),
            Origin::Substitute { builder, original } => (hex(builder), original.to_string()),
        };
        let form: Form = (
            VERSION,
            (self.digest.to_string(), self.size, hex(&self.md5), hex(&self.sha1), self.mtime),
            entry,
            (self.fingerprint.to_string(), self.image.to_string()),
            origin,
            self.added_at,
            (self.owner.form(), self.demands.as_ref().map(Demands::form)),
        );
        serde_ipld_dagcbor::to_vec(&form).expect("texts and numbers always have a DAG-CBOR form")
    }

    /// The row of these bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeRowError> {
        if bytes.len() > ROW_BYTES_MAX {
            return Err(DecodeRowError::Long(bytes.len()));
        }
        let wrong = |error: serde_ipld_dagcbor::DecodeError<std::convert::Infallible>| match bytes {
            // A later version may have another form, but it begins with its number as this one does.
            [_, version, ..] if (VERSION + 1..24).contains(version) => DecodeRowError::Version(*version),
            _ => DecodeRowError::Form(error.to_string()),
        };
        let form: Form = match bytes {
            [_, 1, ..] => {
                let (version, file, entry, recipe, origin, added_at): FormOne =
                    serde_ipld_dagcbor::from_slice(bytes).map_err(wrong)?;
                (version, file, entry, recipe, origin, added_at, (String::new(), None))
            }
            [_, 2, ..] => {
                let (version, file, entry, recipe, origin, added_at, (guest, demands)): FormTwo =
                    serde_ipld_dagcbor::from_slice(bytes).map_err(wrong)?;
                let owner = if guest { Owner::Forgotten } else { Owner::This };
                (version, file, entry, recipe, origin, added_at, (owner.form(), demands))
            }
            _ => serde_ipld_dagcbor::from_slice(bytes).map_err(wrong)?,
        };
        let (version, (digest, size, md5, sha1, mtime), entry, (fingerprint, image), origin, added_at, more) = form;
        let (owner, demands) = more;
        if !(1..=VERSION).contains(&version) {
            return Err(DecodeRowError::Version(version));
        }
        let digest_of = |text: &str, field| text.parse::<Digest>().map_err(|_| DecodeRowError::Field(field));
        let origin = match (origin.0.as_str(), origin.1.as_str()) {
            ("", "") => Origin::Built,
            (builder, original) => Origin::Substitute {
                builder: unhex(builder).ok_or(DecodeRowError::Field("builder"))?,
                original: digest_of(original, "original digest")?,
            },
        };
        Ok(Self {
            digest: digest_of(&digest, "digest")?,
            size,
            md5: unhex(&md5).ok_or(DecodeRowError::Field("MD5"))?,
            sha1: unhex(&sha1).ok_or(DecodeRowError::Field("SHA-1"))?,
            mtime,
            entry: PackageEntry::from_keys(entry)?,
            fingerprint: digest_of(&fingerprint, "fingerprint")?,
            image: digest_of(&image, "image digest")?,
            origin,
            added_at,
            owner: Owner::of_form(&owner)?,
            demands: demands.map(Demands::of_form),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly so many bytes in lower-case digits.
fn unhex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != LENGTH || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (hex(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Cursor;

    /// A row of a package whose blob has these bytes.
    pub(crate) fn row(blob: &[u8], version: u32) -> BinpkgRow {
        let entry = [
            ("CPV", format!("dev-libs/greet-{version}")),
            ("PATH", "elsewhere/x.gpkg.tar".to_owned()),
            ("SIZE", "999".to_owned()),
            ("USE", "amd64 color".to_owned()),
            ("CHOST", "x86_64-pc-linux-gnu".to_owned()),
        ];
        let entry = entry.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        BinpkgRow {
            digest: Digest::of(blob),
            size: blob.len() as u64,
            md5: [1; 16],
            sha1: [2; 20],
            mtime: 7,
            entry: PackageEntry::from_keys(entry).unwrap(),
            fingerprint: Digest::of(b"fingerprint"),
            image: Digest::of(b"image"),
            origin: Origin::Built,
            added_at: 8,
            owner: Owner::This,
            demands: Some(Demands::default()),
        }
    }

    fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn gpkg(pf: &[u8]) -> Vec<u8> {
        let metadata = tar_of(&[("metadata/CATEGORY", b"dev-libs"), ("metadata/PF", pf), ("metadata/USE", b"a\nb")]);
        let image = tar_of(&[("image/x", b"content")]);
        let members: [(&str, &[u8]); 3] = [("gpkg-1", b""), ("metadata.tar", &metadata), ("image.tar", &image)];
        let line = |(name, bytes): &(&str, &[u8])| {
            let (blake2b, sha512) = (Digest::of(bytes), tree::digest::Sha512::of(bytes));
            format!("DATA {name} {} SHA512 {sha512} BLAKE2B {blake2b}\n", bytes.len())
        };
        let manifest: String = members.iter().map(line).collect();
        let members = members.into_iter().chain([("Manifest", manifest.as_bytes())]);
        let members: Vec<(String, &[u8])> = members.map(|(name, bytes)| (format!("greet-1-1/{name}"), bytes)).collect();
        tar_of(&members.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect::<Vec<_>>())
    }

    #[test]
    fn a_package_is_described_by_its_own_bytes() {
        let bytes = gpkg(b"greet-1");
        let digest = Digest::of(&bytes);
        let describe = |bytes: &[u8]| {
            let read = Gpkg::read(Cursor::new(bytes)).unwrap();
            let mut sums = Sums::default();
            bytes.chunks(1000).for_each(|step| sums.update(step));
            let demands = Demands::of_gpkg(&read, Links::default());
            BinpkgRow::describe((digest, sums), &read, Digest::of(b"i"), Digest::of(b"r"), Origin::Built, demands)
        };
        let row = describe(&bytes).unwrap();
        assert_eq!((row.digest, row.size, row.fingerprint), (digest, bytes.len() as u64, Digest::of(b"r")));
        assert_eq!((row.md5, row.sha1), (md5::Md5::digest(&bytes).into(), sha1::Sha1::digest(&bytes).into()));
        assert_eq!((row.entry.cpv().to_string().as_str(), row.entry.get("USE")), ("dev-libs/greet-1", Some("a b")));
        assert_eq!((row.listed().unwrap(), row.image), (row.entry.clone(), Digest::of(b"i")));
        assert_eq!(BinpkgRow::decode(&row.encode()).unwrap(), row);
        assert!(describe(&gpkg(b"greet")).is_err(), "it names no package");
    }

    #[test]
    fn what_is_written_is_read() {
        let built = row(b"blob", 1);
        assert_eq!(BinpkgRow::decode(&built.encode()).unwrap(), built);
        let origin = Origin::Substitute { builder: [9; 32], original: Digest::of(b"original") };
        let substitute = BinpkgRow { origin, ..built };
        assert_eq!(BinpkgRow::decode(&substitute.encode()).unwrap(), substitute);
        assert_eq!(substitute.kept().collect::<Vec<_>>(), [Digest::of(b"blob"), Digest::of(b"original")]);
    }

    #[test]
    fn what_it_needs_is_written_and_read_and_bounded() {
        let so = |name: &str| Soname { abi: Abi { bits: 64, machine: 62 }, name: name.to_owned() };
        let versions = |name: &str, of: &[&str]| {
            Versions::from([(so(name), of.iter().map(|version| (*version).to_owned()).collect())])
        };
        let links = Links {
            needs: versions("libc.so.6", &["GLIBC_2.34", "GLIBC_2.4"]),
            gives: versions("libx.so.1", &[]),
            paths: ["/opt/x".to_owned()].into(),
        };
        let value = |name: &str| (name == "CFLAGS").then(|| "-O2 -march=x86-64-v3".to_owned());
        let demands = Demands::new(value, links.clone());
        assert_eq!((demands.flags.len(), &demands.links), (1, &links));
        let full = BinpkgRow { demands: Some(demands), ..row(b"blob", 1) };
        for owner in [Owner::This, Owner::Client(PeerId::random()), Owner::Forgotten] {
            let full = BinpkgRow { owner, ..full.clone() };
            assert_eq!(BinpkgRow::decode(&full.encode()).unwrap(), full);
        }
        let many: Vec<String> = (0..40_000).map(|number| format!("V_{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let large = Demands::new(value, Links { needs: versions("libx.so", &many), ..Links::default() });
        assert_eq!(large.links, Links::default());
        let long = Demands::new(|_| Some("-O2 ".repeat(FLAGS_BYTES_MAX)), Links::default());
        assert!(long.flags.values().all(|text| text == "-march=too-long"));
    }

    #[test]
    fn a_row_of_version_1_is_read_and_its_needs_are_not_known() {
        let new = row(b"blob", 1);
        let (_, file, entry, recipe, origin, added_at, _): Form =
            serde_ipld_dagcbor::from_slice(&new.encode()).unwrap();
        let old: FormOne = (1, file, entry, recipe, origin, added_at);
        let read = BinpkgRow::decode(&serde_ipld_dagcbor::to_vec(&old).unwrap()).unwrap();
        assert_eq!(read, BinpkgRow { demands: None, ..new });
    }

    #[test]
    fn a_row_of_version_2_is_read_and_a_guests_package_is_nobodys() {
        let new = row(b"blob", 1);
        for (guest, owner) in [(false, Owner::This), (true, Owner::Forgotten)] {
            let (_, file, entry, recipe, origin, added_at, (_, demands)): Form =
                serde_ipld_dagcbor::from_slice(&new.encode()).unwrap();
            let old: FormTwo = (2, file, entry, recipe, origin, added_at, (guest, demands));
            let read = BinpkgRow::decode(&serde_ipld_dagcbor::to_vec(&old).unwrap()).unwrap();
            assert_eq!(read, BinpkgRow { owner, ..new.clone() });
        }
    }

    #[test]
    fn bytes_that_are_no_row_are_refused() {
        let good = row(b"blob", 1).encode();
        for length in 0..good.len() {
            assert!(BinpkgRow::decode(&good[..length]).is_err(), "{length} bytes");
        }
        assert!(matches!(BinpkgRow::decode(&vec![0; ROW_BYTES_MAX + 1]), Err(DecodeRowError::Long(_))));
        let mut later = good.clone();
        assert_eq!(later[1], VERSION);
        later[1] = 4;
        assert!(matches!(BinpkgRow::decode(&later), Err(DecodeRowError::Version(4))));
        assert!(matches!(BinpkgRow::decode(&[0x82, 5, 0xf6]), Err(DecodeRowError::Version(5))));
        let text = String::from_utf8_lossy(&good).into_owned();
        let place = text.find("dev-libs").unwrap();
        // The text before it may hold replaced bytes of another length: the place is looked for in the bytes.
        let place = good.windows(8).position(|bytes| bytes == b"dev-libs").unwrap_or(place);
        let mut strange = good;
        strange[place] = b'/';
        assert!(matches!(BinpkgRow::decode(&strange), Err(DecodeRowError::Entry(_))));
    }

    #[test]
    fn the_index_says_what_the_row_says_of_the_file() {
        let row = row(b"blob", 1);
        let listed = row.listed().unwrap();
        assert_eq!(listed.get("PATH"), Some(path_of(&row.digest).as_str()));
        assert_eq!((listed.get("SIZE"), listed.get("MTIME")), (Some("4"), Some("7")));
        assert_eq!(listed.get("MD5"), Some("01".repeat(16).as_str()));
        assert_eq!(listed.get("USE"), Some("amd64 color"));
    }
}
