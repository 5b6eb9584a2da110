//! Gpkgs made for tests, without Portage.

use std::io::Cursor;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::digest::{Digest, Sha512};

/// A package to be made: everything right unless a test changes it.
pub(crate) struct Made {
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    pub(crate) image: Vec<u8>,
    pub(crate) suffix: &'static str,
    pub(crate) signed: bool,
}

impl Default for Made {
    fn default() -> Self {
        let metadata = [
            ("BUILD_ID", "1"),
            ("BUILD_TIME", "1700000000"),
            ("CATEGORY", "app-misc"),
            ("PF", "greeter-1.0"),
            ("SLOT", "0"),
            ("USE", "amd64 color"),
            ("repository", "gentoo"),
        ];
        let metadata = metadata.map(|(key, value)| (format!("metadata/{key}"), format!("{value}\n").into_bytes()));
        Self { metadata: metadata.into(), image: image(), suffix: ".zst", signed: false }
    }
}

impl Made {
    fn packed(&self, bytes: &[u8]) -> Vec<u8> {
        if self.suffix.is_empty() { bytes.to_vec() } else { zstd(bytes) }
    }

    /// All members but the Manifest.
    pub(crate) fn members(&self) -> Vec<(String, Vec<u8>)> {
        let mut members = vec![("gpkg-1".to_owned(), Vec::new())];
        for (stem, bytes) in [("metadata", tar_of(&self.metadata)), ("image", self.image.clone())] {
            members.push((format!("{stem}.tar{}", self.suffix), self.packed(&bytes)));
            if self.signed {
                members.push((format!("{stem}.tar{}.sig", self.suffix), format!("signature of {stem}").into_bytes()));
            }
        }
        members
    }

    pub(crate) fn members_with_manifest(&self) -> Vec<(String, Vec<u8>)> {
        let mut members = self.members();
        members.push(("Manifest".to_owned(), self.manifest(&members)));
        members
    }

    fn manifest(&self, members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let lines: String = members.iter().map(|(name, bytes)| data_line(name, bytes)).collect();
        if !self.signed {
            return lines.into_bytes();
        }
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{lines}-----BEGIN PGP SIGNATURE-----\n\nabcd\n\
             -----END PGP SIGNATURE-----\n"
        )
        .into_bytes()
    }

    /// A container of these members and a Manifest that fits.
    pub(crate) fn with_manifest(&self, members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut members = members.to_vec();
        members.push(("Manifest".to_owned(), self.manifest(&members)));
        container("greeter-1.0-1", &members)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        container("greeter-1.0-1", &self.members_with_manifest())
    }
}

pub(crate) fn data_line(name: &str, bytes: &[u8]) -> String {
    format!("DATA {name} {} SHA512 {} BLAKE2B {}\n", bytes.len(), Sha512::of(bytes), Digest::of(bytes))
}

pub(crate) fn container(basename: &str, members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(name, bytes)| (format!("{basename}/{name}"), bytes.clone())).collect();
    tar_of(&members)
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(Cursor::new(bytes), CompressionLevel::Fastest)
}

/// A header whose name is taken as it is, however hostile.
pub(crate) fn header(path: &str, kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

pub(crate) fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in members {
        archive.append(&header(path, tar::EntryType::Regular, bytes.len()), &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An image of a directory, a file, a link of each kind.
pub(crate) fn image() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in ["image", "image/usr", "image/usr/bin"] {
        let mut header = header(path, tar::EntryType::Directory, 0);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append(&header, &[][..]).unwrap();
    }
    archive.append(&header("image/usr/bin/greet", tar::EntryType::Regular, 5), &b"hello"[..]).unwrap();
    for (path, kind, target) in [
        ("image/usr/bin/again", tar::EntryType::Link, "image/usr/bin/greet"),
        ("image/usr/bin/soft", tar::EntryType::Symlink, "../bin/greet"),
    ] {
        let mut header = header(path, kind, 0);
        header.set_link_name(target).unwrap();
        header.set_cksum();
        archive.append(&header, &[][..]).unwrap();
    }
    archive.into_inner().unwrap()
}
