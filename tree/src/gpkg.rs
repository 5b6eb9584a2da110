//! Binary packages, gpkg (GLEP 78): a tar archive of an identifier, the metadata, the image, signatures and a Manifest.
//!
//! Everything comes from another machine or from a build, so everything is bounded, and a package that Portage would refuse
//! is refused. Signatures are told of and not checked: Portage does that when it installs.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;

use crate::digest::Hasher;
use crate::gpkg_manifest::{self, DataLine};
pub use crate::gpkg_metadata::Metadata;
pub use crate::gpkg_tar::ReadTarError;
use crate::gpkg_tar::{TarKind, TarMember, TarStream};
use crate::gpkg_zstd::ZstdReader;
use crate::name::NAME_BYTES_MAX;

/// Members of a gpkg: seven kinds are known, each at most once.
pub const MEMBERS_MAX: usize = 16;
/// Bytes of the compressed metadata; mostly `environment.bz2`, about 50 kB. Portage itself reads at most 10 MB of it from afar.
pub const METADATA_PACKED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the metadata once decompressed, which are held in memory.
pub const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Keys of the metadata; Portage writes about forty.
pub const METADATA_KEYS_MAX: usize = 1024;
/// Bytes of the Manifest: six lines and a signature.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a signature, and of the identifier, which is empty.
pub const SIGNATURE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the image once decompressed, which are hashed and never held.
pub const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// Why a file is not a gpkg.
#[derive(Debug, Error)]
pub enum ReadGpkgError {
    /// The file cannot be read.
    #[error("cannot read the binary package")]
    Read {
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The container, or an archive in it, is broken.
    #[error("{part} is broken")]
    Tar {
        /// Which archive.
        part: &'static str,
        /// The fault.
        #[source]
        source: ReadTarError,
    },
    /// A member of the container that does not belong there.
    #[error("unexpected member {name:?}: {fault}")]
    Member {
        /// Its path, shortened.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The archives in it are compressed in a way that is not read here.
    #[error("member {name:?} is compressed with {suffix}: expected no compression or zst (BINPKG_COMPRESS=\"zstd\")")]
    Compression {
        /// The member.
        name: String,
        /// Its suffix.
        suffix: String,
    },
    /// A member has more bytes than is believed in.
    #[error("member {name:?} has {found} bytes: at most {limit} are read")]
    TooLarge {
        /// The member.
        name: String,
        /// Its bytes.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A member is missing.
    #[error("there is no {what}")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// Some of the signatures are there and some are not.
    #[error("it is signed in part: {missing} is missing")]
    HalfSigned {
        /// What is missing.
        missing: &'static str,
    },
    /// A line of the Manifest is not a DATA line with a size, a SHA512 and a BLAKE2B, or names a member twice.
    #[error("line {line:?} of its Manifest is wrong: expected DATA NAME SIZE SHA512 … BLAKE2B …")]
    ManifestLine {
        /// The line, shortened.
        line: String,
    },
    /// The Manifest does not name a member, or names one that is not there.
    #[error("{name:?} is only in {place}")]
    Unlisted {
        /// The member.
        name: String,
        /// Where alone it is: the Manifest or the container.
        place: &'static str,
    },
    /// Size or digest of a member are not those of its line.
    #[error("member {name:?} is not what the Manifest says: {what} differs")]
    Mismatch {
        /// The member.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// Looking into its programs takes too long.
    #[error("its programs cost more to look into than those of any package do")]
    Costly,
    /// A member of the metadata or of the image does not belong there.
    #[error("unexpected member {path:?} of {part}: {fault}")]
    Inner {
        /// Which archive.
        part: &'static str,
        /// Its path, shortened.
        path: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// How an archive inside the container is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Zstd,
}

/// What a member of the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Identifier,
    Metadata(Packing),
    Image(Packing),
    Signature,
    Manifest,
}

impl Part {
    fn of(name: &str) -> Result<Self, ReadGpkgError> {
        let (stem, signature) = name.strip_suffix(".sig").map_or((name, false), |stem| (stem, true));
        let (inner, suffix) = match (stem.strip_prefix("metadata.tar"), stem.strip_prefix("image.tar")) {
            (Some(suffix), _) => (Some(true), suffix),
            (_, Some(suffix)) => (Some(false), suffix),
            _ => (None, ""),
        };
        let packing = match suffix {
            "" => Packing::Plain,
            ".zst" => Packing::Zstd,
            suffix => {
                let (name, suffix) =
                    (shown(name.as_bytes()), suffix.trim_start_matches('.').chars().take(20).collect());
                return Err(ReadGpkgError::Compression { name, suffix });
            }
        };
        match (inner, stem, signature) {
            (Some(_), _, true) => Ok(Self::Signature),
            (Some(true), _, false) => Ok(Self::Metadata(packing)),
            (Some(false), _, false) => Ok(Self::Image(packing)),
            (None, "gpkg-1", false) => Ok(Self::Identifier),
            (None, "Manifest", false) => Ok(Self::Manifest),
            _ => Err(ReadGpkgError::Member { name: shown(name.as_bytes()), fault: "no gpkg has such a member" }),
        }
    }

    const fn bytes_max(self) -> u64 {
        match self {
            Self::Identifier | Self::Signature => SIGNATURE_BYTES_MAX,
            Self::Metadata(_) => METADATA_PACKED_BYTES_MAX,
            Self::Image(_) => crate::manifest::DISTFILE_BYTES_MAX,
            Self::Manifest => MANIFEST_BYTES_MAX,
        }
    }
}

/// A member of the container and where its content begins in the file.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    part: Part,
    pub(crate) line: DataLine,
    pub(crate) offset: u64,
}

/// A binary package whose members are what its Manifest says.
#[derive(Debug, Clone)]
pub struct Gpkg {
    /// The one directory of the container: `greeter-1.0-1`, with the build's number behind the version.
    pub basename: String,
    /// What the package says of itself.
    pub metadata: Metadata,
    /// Whether the metadata, the image and the Manifest are signed. By whom, and whether rightly, is not known.
    pub signed: bool,
    identifier: Member,
    packed_metadata: Member,
    image: Member,
}

impl Gpkg {
    /// Reads a gpkg from its first byte. Every member's size, SHA512 and BLAKE2B are compared with the Manifest inside; the
    /// image is hashed and not unpacked.
    ///
    /// # Errors
    /// When the file cannot be read, Portage would refuse it, or it is larger somewhere than the limits of this module.
    pub fn read(mut file: impl Read + Seek) -> Result<Self, ReadGpkgError> {
        file.seek(SeekFrom::Start(0)).map_err(|source| ReadGpkgError::Read { source })?;
        let mut reading = Reading::default();
        let mut container = TarStream::new(io::BufReader::with_capacity(1 << 17, file));
        let broken = |source| ReadGpkgError::Tar { part: "the container", source };
        while let Some(member) = container.advance().map_err(broken)? {
            reading.take(&member, &mut container)?;
        }
        reading.finish()
    }

    /// The members that a rewritten package keeps, in Portage's order.
    pub(crate) fn kept_members(&self) -> [&Member; 3] {
        [&self.identifier, &self.packed_metadata, &self.image]
    }

    /// The image's tar archive out of the file that this was read from.
    pub(crate) fn image_archive<R: Read + Seek>(&self, mut file: R) -> Result<Unpacked<io::Take<R>>, ReadGpkgError> {
        file.seek(SeekFrom::Start(self.image.offset)).map_err(|source| ReadGpkgError::Read { source })?;
        Ok(Unpacked::new(file.take(self.image.line.size), self.image.part, IMAGE_BYTES_MAX))
    }
}

/// An archive without its compression.
pub(crate) enum Unpacked<R> {
    Plain(R),
    Zstd(Box<ZstdReader<R>>),
}

impl<R: Read> Unpacked<R> {
    fn new(packed: R, part: Part, bytes_max: u64) -> Self {
        match part {
            Part::Metadata(Packing::Zstd) | Part::Image(Packing::Zstd) => {
                Self::Zstd(Box::new(ZstdReader::new(packed, bytes_max)))
            }
            _ => Self::Plain(packed),
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(packed) => packed.read(bytes),
            Self::Zstd(packed) => packed.read(bytes),
        }
    }
}

#[derive(Default)]
struct Reading {
    basename: Option<String>,
    members: Vec<Member>,
    packed_metadata: Vec<u8>,
    manifest: Option<Vec<u8>>,
}

impl Reading {
    fn take<R: Read>(&mut self, member: &TarMember, content: &mut TarStream<R>) -> Result<(), ReadGpkgError> {
        let (basename, name) = self.place(member)?;
        if name != "gpkg-1" && self.basename.is_none() {
            return Err(ReadGpkgError::Missing { what: "gpkg-1 at the beginning" });
        }
        let part = Part::of(name)?;
        let (found, limit) = (member.size, part.bytes_max());
        if found > limit {
            return Err(ReadGpkgError::TooLarge { name: name.to_owned(), found, limit });
        }
        let twice = self.members.iter().any(|known| known.line.name == name)
            || part == Part::Manifest && self.manifest.is_some()
            || self.members.len() >= MEMBERS_MAX;
        if twice {
            return Err(ReadGpkgError::Member { name: shown(&member.path), fault: "it is there twice" });
        }
        self.basename = Some(basename.to_owned());
        let mut kept = Vec::new();
        let line = hash(name, content, matches!(part, Part::Metadata(_) | Part::Manifest).then_some(&mut kept))
            .map_err(|source| ReadGpkgError::Read { source })?;
        match part {
            Part::Manifest => self.manifest = Some(kept),
            Part::Metadata(_) => self.packed_metadata = kept,
            _ => {}
        }
        if part != Part::Manifest {
            self.members.push(Member { part, line, offset: member.offset });
        }
        Ok(())
    }

    /// The directory and the name of a member.
    fn place<'a>(&self, member: &'a TarMember) -> Result<(&'a str, &'a str), ReadGpkgError> {
        let wrong = |fault| ReadGpkgError::Member { name: shown(&member.path), fault };
        let path = str::from_utf8(&member.path).map_err(|_| wrong("its path is not UTF-8"))?;
        let (basename, name) = path.split_once('/').ok_or_else(|| wrong("it is in no directory"))?;
        let strange = basename.is_empty()
            || basename.starts_with('.')
            || basename.len() > NAME_BYTES_MAX
            || basename.chars().any(|character| character.is_control() || character.is_whitespace());
        if strange {
            return Err(wrong("its directory has a strange name"));
        }
        if self.basename.as_deref().is_some_and(|known| known != basename) {
            return Err(wrong("it is in another directory than gpkg-1"));
        }
        if member.kind != TarKind::File {
            return Err(wrong("it is not a file"));
        }
        Ok((basename, name))
    }

    fn finish(self) -> Result<Gpkg, ReadGpkgError> {
        let manifest = self.manifest.ok_or(ReadGpkgError::Missing { what: "Manifest" })?;
        let (lines, clear_signed) = gpkg_manifest::parse(&manifest)?;
        compare(&self.members, &lines)?;
        let only = |fits: fn(Part) -> bool, what| {
            let mut found = self.members.iter().filter(|member| fits(member.part));
            match (found.next(), found.next()) {
                (Some(member), None) => Ok(member.clone()),
                (None, _) => Err(ReadGpkgError::Missing { what }),
                (Some(_), Some(second)) => {
                    Err(ReadGpkgError::Member { name: second.line.name.clone(), fault: "another one has this part" })
                }
            }
        };
        let identifier = only(|part| part == Part::Identifier, "gpkg-1")?;
        let packed_metadata = only(|part| matches!(part, Part::Metadata(_)), "metadata.tar")?;
        let image = only(|part| matches!(part, Part::Image(_)), "image.tar")?;
        let signed = signed(&self.members, [&packed_metadata, &image], clear_signed)?;
        let archive = Unpacked::new(&self.packed_metadata[..], packed_metadata.part, METADATA_BYTES_MAX);
        let metadata = Metadata::read(archive)?;
        let basename = self.basename.ok_or(ReadGpkgError::Missing { what: "gpkg-1" })?;
        Ok(Gpkg { basename, metadata, signed, identifier, packed_metadata, image })
    }
}

fn hash(name: &str, content: &mut impl Read, mut kept: Option<&mut Vec<u8>>) -> io::Result<DataLine> {
    let mut hasher = Hasher::new(true);
    let mut buffer = vec![0; 1 << 17];
    let mut size = 0;
    loop {
        let read = content.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        size = u64::saturating_add(size, bytes.len() as u64);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(bytes);
        }
    }
    let (blake2b, sha512) = hasher.finish();
    let sha512 = sha512.ok_or(io::ErrorKind::Other)?;
    Ok(DataLine { name: name.to_owned(), size, blake2b, sha512 })
}

/// Compares members and lines both ways.
fn compare(members: &[Member], lines: &[DataLine]) -> Result<(), ReadGpkgError> {
    for found in members.iter().map(|member| &member.line) {
        let name = found.name.clone();
        let Some(said) = lines.iter().find(|line| line.name == name) else {
            return Err(ReadGpkgError::Unlisted { name, place: "the container" });
        };
        let what = match said {
            said if said.size != found.size => "the size",
            said if said.blake2b != found.blake2b => "BLAKE2B",
            said if said.sha512 != found.sha512 => "SHA512",
            _ => continue,
        };
        return Err(ReadGpkgError::Mismatch { name, what });
    }
    match lines.iter().find(|line| !members.iter().any(|member| member.line.name == line.name)) {
        Some(line) => Err(ReadGpkgError::Unlisted { name: shown(line.name.as_bytes()), place: "the Manifest" }),
        None => Ok(()),
    }
}

/// Whether everything is signed; Portage takes one signature as a promise of the others.
fn signed(members: &[Member], parts: [&Member; 2], clear_signed: bool) -> Result<bool, ReadGpkgError> {
    let signatures: Vec<&str> = members
        .iter()
        .filter(|member| member.part == Part::Signature)
        .map(|member| member.line.name.as_str())
        .collect();
    for name in &signatures {
        let stem = name.strip_suffix(".sig").unwrap_or(name);
        if !parts.iter().any(|part| part.line.name == stem) {
            return Err(ReadGpkgError::Member { name: shown(name.as_bytes()), fault: "it signs nothing" });
        }
    }
    match (signatures.len(), clear_signed) {
        (0, false) => Ok(false),
        (2, true) => Ok(true),
        (2, false) => Err(ReadGpkgError::HalfSigned { missing: "the signature of the Manifest" }),
        _ => Err(ReadGpkgError::HalfSigned { missing: "the signature of the metadata or of the image" }),
    }
}

/// A foreign path for people: short and without control characters.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::gpkg_made::{Made, container, data_line, image, tar_of, zstd};

    fn read(bytes: &[u8]) -> Result<Gpkg, ReadGpkgError> {
        Gpkg::read(Cursor::new(bytes))
    }

    fn fault(bytes: &[u8]) -> String {
        let error = read(bytes).expect_err("this is no gpkg");
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    #[test]
    fn a_package_tells_what_it_is() {
        for made in [Made::default(), Made { suffix: "", ..Made::default() }] {
            let gpkg = read(&made.bytes()).unwrap();
            assert_eq!((gpkg.basename.as_str(), gpkg.signed), ("greeter-1.0-1", false));
            assert_eq!(gpkg.metadata.cpv().unwrap().to_string(), "app-misc/greeter-1.0");
            assert_eq!(gpkg.metadata.text("USE"), Some("amd64 color"));
            assert_eq!(gpkg.metadata.get("USE"), Some(&b"amd64 color\n"[..]));
            assert_eq!((gpkg.metadata.slot(), gpkg.metadata.repository()), ("0", Some("gentoo")));
            assert_eq!((gpkg.metadata.build_id(), gpkg.metadata.build_time()), (Some(1), Some(1_700_000_000)));
        }
    }

    #[test]
    fn a_signed_package_has_all_three_signatures() {
        let made = Made { signed: true, ..Made::default() };
        assert!(read(&made.bytes()).unwrap().signed);
        for name in ["metadata.tar.zst.sig", "image.tar.zst.sig"] {
            let mut members = made.members();
            members.retain(|(member, _)| member != name);
            assert!(fault(&made.with_manifest(&members)).starts_with("it is signed in part"), "{name}");
        }
        let mut half = made.members();
        half.push((
            "Manifest".to_owned(),
            half.iter().map(|(name, bytes)| data_line(name, bytes)).collect::<String>().into(),
        ));
        assert_eq!(
            fault(&container("greeter-1.0-1", &half)),
            "it is signed in part: the signature of the Manifest is missing"
        );
    }

    #[test]
    fn every_changed_byte_of_a_member_is_noticed() {
        let made = Made { signed: true, ..Made::default() };
        for name in ["metadata.tar.zst", "image.tar.zst", "image.tar.zst.sig", "gpkg-1"] {
            let mut members = made.members_with_manifest();
            let (_, bytes) = members.iter_mut().find(|(member, _)| member == name).unwrap();
            match bytes.last_mut() {
                Some(byte) => *byte ^= 1,
                None => bytes.push(b'x'),
            }
            let what = if name == "gpkg-1" { "the size" } else { "BLAKE2B" };
            let expected = format!("member {name:?} is not what the Manifest says: {what} differs");
            assert_eq!(fault(&container("greeter-1.0-1", &members)), expected);
        }
    }

    #[test]
    fn a_wrong_sha512_is_noticed_though_blake2b_is_right() {
        let made = Made::default();
        let mut members = made.members_with_manifest();
        let (_, manifest) = members.last_mut().unwrap();
        let text = String::from_utf8(manifest.clone()).unwrap();
        let sum = text.split(" SHA512 ").nth(1).unwrap()[..128].to_owned();
        *manifest = text.replacen(&sum, &"0".repeat(128), 1).into_bytes();
        assert_eq!(
            fault(&container("greeter-1.0-1", &members)),
            "member \"gpkg-1\" is not what the Manifest says: SHA512 differs"
        );
    }

    #[test]
    fn members_and_lines_are_the_same() {
        let made = Made::default();
        let mut members = made.members_with_manifest();
        let (_, manifest) = members.last_mut().unwrap();
        let text = String::from_utf8(manifest.clone()).unwrap();
        let without: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
        *manifest = without.into_bytes();
        assert_eq!(fault(&container("greeter-1.0-1", &members)), "\"gpkg-1\" is only in the container");
        let (_, manifest) = members.last_mut().unwrap();
        *manifest = format!("{text}{}", data_line("other", b"")).into_bytes();
        assert_eq!(fault(&container("greeter-1.0-1", &members)), "\"other\" is only in the Manifest");
        let (_, manifest) = members.last_mut().unwrap();
        *manifest = format!("{text}{text}").into_bytes();
        assert!(fault(&container("greeter-1.0-1", &members)).contains("of its Manifest is wrong"));
        members.pop();
        assert_eq!(fault(&container("greeter-1.0-1", &members)), "there is no Manifest");
    }

    #[test]
    fn the_manifest_takes_nothing_but_data_lines_inside_of_the_signature() {
        let made = Made { signed: true, ..Made::default() };
        let good = String::from_utf8(made.members_with_manifest().last().unwrap().1.clone()).unwrap();
        let bad = [
            good.replace("DATA gpkg-1", "MISC gpkg-1"),
            good.replace("SHA512", "SHA256"),
            good.replace("BLAKE2B", "SHA512"),
            good.replace("DATA gpkg-1 0", "DATA gpkg-1 +0"),
            good.replace("-----BEGIN PGP SIGNATURE-----", ""),
            format!("DATA x 0\n{good}"),
            format!("\n{good}"),
            "-----BEGIN PGP SIGNED MESSAGE-----".to_owned(),
        ];
        for manifest in bad {
            let mut members = made.members();
            members.push(("Manifest".to_owned(), manifest.clone().into_bytes()));
            assert!(fault(&container("greeter-1.0-1", &members)).contains("of its Manifest is wrong"), "{manifest}");
        }
    }

    #[test]
    fn strange_members_are_refused() {
        let made = Made::default();
        for (path, expected) in [
            ("greeter-1.0-1/evil", "no gpkg has such a member"),
            ("greeter-1.0-1/gpkg-1", "it is there twice"),
            ("greeter-1.0-1/Manifest", "it is there twice"),
            ("other-1.0-1/image.tar", "it is in another directory than gpkg-1"),
            ("image.tar", "it is in no directory"),
            ("greeter-1.0-1/a/b", "no gpkg has such a member"),
            ("greeter-1.0-1/image.tar", "\"image.tar\" is only in the container"),
            ("greeter-1.0-1/image.tar.xz", "compressed with xz"),
            ("greeter-1.0-1/metadata.tar.gz.sig", "compressed with gz"),
            ("greeter-1.0-1/gpkg-1.sig", "no gpkg has such a member"),
        ] {
            let mut members: Vec<(String, Vec<u8>)> = made
                .members_with_manifest()
                .into_iter()
                .map(|(name, bytes)| (format!("greeter-1.0-1/{name}"), bytes))
                .collect();
            members.push((path.to_owned(), Vec::new()));
            assert!(fault(&tar_of(&members)).contains(expected), "{path}: {}", fault(&tar_of(&members)));
        }
        let mut members = made.members();
        members.push(("image.tar".to_owned(), image()));
        assert!(fault(&made.with_manifest(&members)).contains("another one has this part"));
        let mut members = made.members();
        members.rotate_left(1);
        assert_eq!(fault(&made.with_manifest(&members)), "there is no gpkg-1 at the beginning");
        let mut members = made.members();
        members.push(("metadata.tar.sig".to_owned(), Vec::new()));
        assert!(fault(&made.with_manifest(&members)).contains("it signs nothing"));
    }

    #[test]
    fn strange_metadata_is_refused() {
        for (path, expected) in [
            ("KEY", "expected metadata/KEY"),
            ("metadata/", "it is not a file"),
            ("metadata/a/b", "expected metadata/KEY"),
            ("metadata/USE", "it is there twice"),
        ] {
            let mut made = Made::default();
            made.metadata.push((path.to_owned(), Vec::new()));
            let found = fault(&made.bytes());
            assert!(found.contains(expected) || found.contains("expected metadata/KEY"), "{path}: {found}");
        }
        let made = Made {
            metadata: (0..=METADATA_KEYS_MAX).map(|key| (format!("metadata/{key}"), Vec::new())).collect(),
            ..Made::default()
        };
        assert!(fault(&made.bytes()).contains("more than is believed in"));
    }

    #[test]
    fn a_bomb_of_zeros_does_not_go_off() {
        let mut made = Made::default();
        let length = usize::try_from(METADATA_BYTES_MAX).unwrap();
        made.metadata.push(("metadata/BOMB".to_owned(), vec![0; length]));
        let bytes = made.bytes();
        assert!(bytes.len() < length / 100, "{} bytes do not make a bomb", bytes.len());
        assert!(fault(&bytes).contains("cannot read"), "{}", fault(&bytes));
    }

    #[test]
    fn what_is_cut_off_is_refused_wherever_it_is_cut() {
        let bytes = Made { signed: true, ..Made::default() }.bytes();
        let end = bytes.len() - 1024;
        for length in (0..end).step_by(97) {
            assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        assert!(read(&bytes[..end]).is_ok(), "the two blocks of zeros at the end can be missing");
    }

    #[test]
    fn what_is_no_gpkg_says_so() {
        assert!(fault(b"").contains("cannot read the archive at byte 0"));
        assert!(fault(&[0; 1024]).contains("there is no Manifest"));
        assert!(fault(b"XPAKSTOP").contains("the container is broken"));
        let junk: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert!(fault(&junk).contains("begins no tar header"));
        assert!(fault(&container("..", &Made::default().members_with_manifest())).contains("strange name"));
        assert!(fault(&container("a b", &Made::default().members_with_manifest())).contains("strange name"));
    }

    #[test]
    fn frames_and_skipped_frames_are_read_one_after_the_other() {
        let plain = tar_of(&Made::default().metadata);
        let (first, second) = plain.split_at(1000);
        let mut packed = zstd(first);
        packed.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        packed.extend(zstd(second));
        let mut read = Vec::new();
        ZstdReader::new(&packed[..], 1 << 20).read_to_end(&mut read).unwrap();
        assert_eq!(read, plain);
        packed.pop();
        assert!(ZstdReader::new(&packed[..], 1 << 20).read_to_end(&mut Vec::new()).is_err());
        assert!(ZstdReader::new(&zstd(&plain)[..], 1 << 10).read_to_end(&mut Vec::new()).is_err());
    }
}
