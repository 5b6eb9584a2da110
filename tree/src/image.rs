//! The image of a binary package as a canonical list: what would be installed, without the times, so that two builds can be
//! compared.
//!
//! Each member of `image.tar` is one entry: path below `image/`, kind, permissions, owner by number and by name (Portage
//! installs by name where the machine has it, else by number), and what the kind needs: the content's size and digest, the
//! target of a link, the numbers of a device. Times are left out: no two builds agree on them. Of files linked together the
//! archive holds the content once, under whichever name came first in the directory; here the name that sorts first is the
//! file, and each other one is a link to it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek};
use std::ops::Bound;

use crate::digest::{Digest, Hasher};
use crate::gpkg::{Gpkg, IMAGE_BYTES_MAX, ReadGpkgError, Unpacked, shown};
use crate::gpkg_tar::{TarKind, TarMember, TarStream};

/// Entries of an image; the largest packages of ::gentoo have some two hundred thousand.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of all paths, link targets and names of owners together, which are held in memory.
pub const NAMES_BYTES_MAX: usize = 256 << 20;
/// Bytes of one path or link target: Linux' `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// What is read of the file at once. Compressed zeros become a thousand times as much, and whoever reads through a file that
/// can be stopped is to be stopped soon.
const READ_BYTES: usize = 16 << 10;

pub(crate) const PART: &str = "the image";

/// What an entry is, and what only its kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageKind {
    /// A file.
    File {
        /// Bytes of its content.
        size: u64,
        /// Digest of its content.
        content: Digest,
    },
    /// Another name of a file of the image.
    HardLink {
        /// The file's path below the image.
        target: Vec<u8>,
    },
    /// A symbolic link.
    SymbolicLink {
        /// Its target as it is written.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A device of characters; Portage refuses to install one.
    CharacterDevice {
        /// Major and minor number.
        device: (u64, u64),
    },
    /// A device of blocks; Portage refuses to install one.
    BlockDevice {
        /// Major and minor number.
        device: (u64, u64),
    },
}

impl ImageKind {
    /// The kind in a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::HardLink { .. } => "hardlink",
            Self::SymbolicLink { .. } => "symlink",
            Self::Directory => "directory",
            Self::Fifo => "fifo",
            Self::CharacterDevice { .. } => "character-device",
            Self::BlockDevice { .. } => "block-device",
        }
    }
}

/// Who owns an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOwner {
    /// Number of the user.
    pub uid: u64,
    /// Number of the group.
    pub gid: u64,
    /// Name of the user on the machine that built it; may be empty.
    pub user: Vec<u8>,
    /// Name of the group there; may be empty.
    pub group: Vec<u8>,
}

/// One entry of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// What it is.
    pub kind: ImageKind,
    /// Permissions with the set-id and sticky bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: ImageOwner,
}

/// The entries of an image by their paths; the image's own directory has the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    entries: BTreeMap<Vec<u8>, ImageEntry>,
}

/// How two images differ in one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// Only the first image has it.
    OnlyHere,
    /// Only the second image has it.
    OnlyThere,
    /// They are of different kinds.
    Kind,
    /// The permissions.
    Mode,
    /// The owner or the group.
    Owner,
    /// Size or content of a file.
    Content,
    /// The target of a link.
    Link,
    /// The numbers of a device.
    Device,
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::OnlyHere => "only here",
            Self::OnlyThere => "only there",
            Self::Kind => "kind",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Content => "content",
            Self::Link => "link target",
            Self::Device => "device",
        })
    }
}

/// One difference between two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path in both images.
    pub path: Vec<u8>,
    /// What differs there; a path with several differences has several.
    pub kind: DifferenceKind,
}

impl Image {
    /// Reads the image of a package. `file` is what the package was read from and has not changed since.
    ///
    /// # Errors
    /// When the archive is broken, has a path that leaves the image, is there twice or leads through something else than
    /// directories, or is larger than believed in.
    pub fn read(file: impl Read + Seek, gpkg: &Gpkg) -> Result<Self, ReadGpkgError> {
        let mut reading = Reading::default();
        let mut archive = TarStream::new(archive(file, gpkg)?);
        while let Some(member) = archive.advance().map_err(|source| ReadGpkgError::Tar { part: PART, source })? {
            reading.take(&member, &mut archive)?;
        }
        reading.finish()
    }

    /// The entries in the order of their paths' bytes.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&[u8], &ImageEntry)> {
        self.entries.iter().map(|(path, entry)| (path.as_slice(), entry))
    }

    /// The digest of the canonical bytes: `peerage image 1` and a line feed, then for each entry in the order of the paths'
    /// bytes these fields, each followed by a zero byte: path, kind in a word, mode in octal, uid, gid, user, group, and by
    /// kind the size and the digest, the target, or the major and minor number; a line feed ends the entry. No field can hold
    /// a zero byte.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new(false);
        hasher.update(b"peerage image 1\n");
        let mut line = Vec::new();
        for (path, entry) in &self.entries {
            line.clear();
            entry.write_canonical(path, &mut line);
            hasher.update(&line);
        }
        hasher.finish().0
    }

    /// Bytes of all files together; of files linked together each name counts once.
    #[must_use]
    pub fn size(&self) -> u64 {
        let size = |entry: &ImageEntry| if let ImageKind::File { size, .. } = entry.kind { size } else { 0 };
        self.entries.values().map(size).fold(0, u64::saturating_add)
    }

    /// The first `max` differences in the order of the paths; this image is "here" and the other one "there".
    #[must_use]
    pub fn differences(&self, other: &Self, max: usize) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut there = other.entries.iter().peekable();
        let mut add = |path: &[u8], kind| {
            if found.len() < max {
                found.push(Difference { path: path.to_vec(), kind });
            }
        };
        for (path, entry) in &self.entries {
            while let Some((other_path, _)) = there.next_if(|(other_path, _)| *other_path < path) {
                add(other_path, DifferenceKind::OnlyThere);
            }
            match there.next_if(|(other_path, _)| *other_path == path) {
                None => add(path, DifferenceKind::OnlyHere),
                Some((_, other_entry)) => entry.compare(other_entry, |kind| add(path, kind)),
            }
        }
        for (other_path, _) in there {
            add(other_path, DifferenceKind::OnlyThere);
        }
        found
    }
}

impl ImageEntry {
    fn write_canonical(&self, path: &[u8], line: &mut Vec<u8>) {
        let mut field = |bytes: &[u8]| {
            line.extend_from_slice(bytes);
            line.push(0);
        };
        field(path);
        field(self.kind.word().as_bytes());
        field(format!("{:o}", self.mode).as_bytes());
        field(self.owner.uid.to_string().as_bytes());
        field(self.owner.gid.to_string().as_bytes());
        field(&self.owner.user);
        field(&self.owner.group);
        match &self.kind {
            ImageKind::File { size, content } => {
                field(size.to_string().as_bytes());
                field(content.to_string().as_bytes());
            }
            ImageKind::HardLink { target } | ImageKind::SymbolicLink { target } => field(target),
            ImageKind::CharacterDevice { device } | ImageKind::BlockDevice { device } => {
                field(device.0.to_string().as_bytes());
                field(device.1.to_string().as_bytes());
            }
            ImageKind::Directory | ImageKind::Fifo => {}
        }
        line.push(b'\n');
    }

    fn compare(&self, other: &Self, mut add: impl FnMut(DifferenceKind)) {
        if self.kind.word() != other.kind.word() {
            add(DifferenceKind::Kind);
        } else if self.kind != other.kind {
            add(match self.kind {
                ImageKind::HardLink { .. } | ImageKind::SymbolicLink { .. } => DifferenceKind::Link,
                ImageKind::CharacterDevice { .. } | ImageKind::BlockDevice { .. } => DifferenceKind::Device,
                _ => DifferenceKind::Content,
            });
        }
        if self.mode != other.mode {
            add(DifferenceKind::Mode);
        }
        if self.owner != other.owner {
            add(DifferenceKind::Owner);
        }
    }
}

#[derive(Default)]
struct Reading {
    entries: BTreeMap<Vec<u8>, ImageEntry>,
    names_bytes: usize,
    content_bytes: u64,
}

impl Reading {
    fn take<R: Read>(&mut self, member: &TarMember, content: &mut TarStream<R>) -> Result<(), ReadGpkgError> {
        let wrong = |fault| wrong(&member.path, fault);
        let path = below_image(&member.path).ok_or_else(|| wrong("it leaves the image"))?;
        self.hold(&[&path, &member.link, &member.user, &member.group]).map_err(wrong)?;
        self.content_bytes = self.content_bytes.saturating_add(member.size);
        if self.entries.len() >= ENTRIES_MAX || self.content_bytes > IMAGE_BYTES_MAX {
            return Err(wrong(TOO_MUCH));
        }
        let kind = match member.kind {
            TarKind::File => {
                let (size, content) = hash(content).map_err(|source| ReadGpkgError::Read { source })?;
                ImageKind::File { size, content }
            }
            TarKind::HardLink => {
                let target = below_image(&member.link).ok_or_else(|| wrong("it links to outside of the image"))?;
                // The archive must have told the file before; a link to a link is told as one to the file.
                match self.entries.get(&target).map(|entry| &entry.kind) {
                    Some(ImageKind::File { .. }) => ImageKind::HardLink { target },
                    Some(ImageKind::HardLink { target }) => ImageKind::HardLink { target: target.clone() },
                    Some(ImageKind::SymbolicLink { target }) => ImageKind::SymbolicLink { target: target.clone() },
                    _ => return Err(wrong("it links to nothing that was there before")),
                }
            }
            TarKind::SymbolicLink => ImageKind::SymbolicLink { target: member.link.clone() },
            TarKind::Directory => ImageKind::Directory,
            TarKind::Fifo => ImageKind::Fifo,
            TarKind::CharacterDevice => ImageKind::CharacterDevice { device: member.device },
            TarKind::BlockDevice => ImageKind::BlockDevice { device: member.device },
        };
        let owner =
            ImageOwner { uid: member.uid, gid: member.gid, user: member.user.clone(), group: member.group.clone() };
        let entry = ImageEntry { kind, mode: member.mode & 0o7777, owner };
        if self.entries.insert(path, entry).is_some() {
            return Err(wrong("it is there twice"));
        }
        Ok(())
    }

    /// Names that are held from now on.
    fn hold(&mut self, names: &[&[u8]]) -> Result<(), &'static str> {
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let all = names.iter().fold(self.names_bytes, |sum, name| sum.saturating_add(name.len()));
        self.names_bytes = all;
        if longest > PATH_BYTES_MAX || all > NAMES_BYTES_MAX { Err(TOO_MUCH) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Image, ReadGpkgError> {
        self.resolve_links()?;
        // What is installed through a link or below a file is not what stands here.
        if self.entries.get(&b""[..]).is_some_and(|top| top.kind != ImageKind::Directory) {
            return Err(wrong(b"", "it is no directory"));
        }
        for (path, entry) in &self.entries {
            let inside = [path.as_slice(), b"/"].concat();
            let below = (Bound::Included(inside.as_slice()), Bound::Unbounded);
            if entry.kind != ImageKind::Directory
                && let Some((below, _)) = self.entries.range::<[u8], _>(below).next()
                && below.starts_with(&inside)
            {
                return Err(wrong(below, "it lies below something that is no directory"));
            }
        }
        Ok(Image { entries: self.entries })
    }

    /// Makes the name that sorts first the file and the others links to it, whatever order the archive has.
    fn resolve_links(&mut self) -> Result<(), ReadGpkgError> {
        let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if let ImageKind::HardLink { target } = &entry.kind {
                names.entry(target.clone()).or_default().push(path.clone());
            }
        }
        for (file, links) in names {
            let first = links.iter().chain([&file]).min().unwrap_or(&file).clone();
            let Some(content) = self.entries.get(&file).cloned() else { continue };
            for name in links.iter().chain([&file]) {
                // The names of the file and its owner are held once more for each link.
                let held = self.hold(&[&first, &content.owner.user, &content.owner.group]);
                held.map_err(|fault| wrong(name, fault))?;
                if let Some(entry) = self.entries.get_mut(name) {
                    // One file has one mode and one owner: those of its header, whatever the links' headers say.
                    *entry = content.clone();
                    if *name != first {
                        entry.kind = ImageKind::HardLink { target: first.clone() };
                    }
                }
            }
        }
        Ok(())
    }
}

/// The archive, unpacked as it is read.
pub(crate) fn archive<R: Read + Seek>(
    file: R,
    gpkg: &Gpkg,
) -> Result<Unpacked<io::Take<io::BufReader<R>>>, ReadGpkgError> {
    gpkg.image_archive(io::BufReader::with_capacity(READ_BYTES, file))
}

fn wrong(path: &[u8], fault: &'static str) -> ReadGpkgError {
    ReadGpkgError::Inner { part: PART, path: shown(path), fault }
}

const TOO_MUCH: &str = "there is more than is believed in";

fn hash(content: &mut impl Read) -> io::Result<(u64, Digest)> {
    let mut hasher = Hasher::new(false);
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0_u64;
    loop {
        let read = content.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((size, hasher.finish().0));
        }
        hasher.update(bytes);
        size = size.saturating_add(bytes.len() as u64);
    }
}

/// A path of the archive without `image/`, doubled slashes and dots; None where it is not below the image.
pub(crate) fn below_image(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let inside = !path.starts_with(b"/") && parts.next() == Some(b"image") && !path.contains(&0);
    let parts: Vec<&[u8]> = parts.collect();
    (inside && !parts.contains(&&b".."[..])).then(|| parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tar::EntryType;

    use super::*;
    use crate::gpkg_made::{Made, header, image};

    fn of(archive: Vec<u8>) -> Result<Image, ReadGpkgError> {
        let bytes = Made { image: archive, ..Made::default() }.bytes();
        let gpkg = Gpkg::read(Cursor::new(&bytes))?;
        Image::read(Cursor::new(&bytes), &gpkg)
    }

    /// An archive of these members: path, kind, target of a link or content of a file.
    fn archive(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, text) in members {
            let content = if *kind == EntryType::Regular { *text } else { "" };
            let mut header = header(path, *kind, content.len());
            if content.is_empty() {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn fault(members: &[(&str, EntryType, &str)]) -> String {
        of(archive(members)).expect_err("this is no image").to_string()
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Link;
    const SOFT: EntryType = EntryType::Symlink;
    const DIRECTORY: EntryType = EntryType::Directory;

    #[test]
    fn the_canonical_bytes_are_the_documented_ones() {
        let image =
            of(archive(&[("image", DIRECTORY, ""), ("image/b", SOFT, "/a"), ("image/a", FILE, "one")])).unwrap();
        let file = Digest::of(b"one");
        let text = format!(
            "peerage image 1\n\0directory\x00644\x000\x000\0\0\0\na\0file\x00644\x000\x000\0\0\x003\0{file}\0\n\
             b\0symlink\x00644\x000\x000\0\0\0/a\0\n"
        );
        assert_eq!(image.digest(), Digest::of(text.as_bytes()));
        assert_eq!((image.size(), image.entries().len()), (3, 3));
    }

    #[test]
    fn the_order_of_the_archive_and_the_spelling_of_paths_do_not_matter() {
        let first =
            of(archive(&[("image/", DIRECTORY, ""), ("image/a", FILE, "1"), ("image/b", LINK, "image/a")])).unwrap();
        let second =
            of(archive(&[("./image/b", FILE, "1"), ("image//a", LINK, "image/./b"), ("image/.", DIRECTORY, "")]));
        assert_eq!(first.digest(), second.unwrap().digest());
    }

    #[test]
    fn a_link_to_a_link_is_one_to_the_file() {
        let links = [("image/c", FILE, "1"), ("image/b", LINK, "image/c"), ("image/a", LINK, "image/b")];
        let image = of(archive(&links)).unwrap();
        let kinds: Vec<&str> = image.entries().map(|(_, entry)| entry.kind.word()).collect();
        assert_eq!(kinds, ["file", "hardlink", "hardlink"]);
        let soft = [("image/b", SOFT, "x"), ("image/a", LINK, "image/b")];
        let kinds: Vec<_> = of(archive(&soft)).unwrap().entries.into_values().map(|entry| entry.kind).collect();
        assert_eq!(kinds[0], kinds[1], "two names of one symbolic link are two symbolic links");
    }

    #[test]
    fn paths_and_links_that_leave_the_image_are_refused() {
        for path in ["etc/passwd", "/image/a", "image/../a", "image/a/..", "metadata/a", "..", "/"] {
            assert!(fault(&[(path, FILE, "x")]).contains("leaves the image"), "{path}");
        }
        assert!(fault(&[("image/a", LINK, "/etc/shadow")]).contains("outside of the image"));
        assert!(fault(&[("image/a", LINK, "image/../x")]).contains("outside of the image"));
        assert!(
            fault(&[("image/a", LINK, "image/b"), ("image/b", FILE, "x")]).contains("nothing that was there before")
        );
        assert!(fault(&[("image/a", LINK, "image/a")]).contains("nothing that was there before"));
        assert!(fault(&[("image/a", FILE, "x"), ("image/./a", SOFT, "y")]).contains("it is there twice"));
        assert!(
            of(archive(&[("image/a", SOFT, "../../../etc")])).is_ok(),
            "where a symbolic link points is its own affair"
        );
    }

    #[test]
    fn nothing_lies_below_what_is_no_directory() {
        for (kind, target) in [(FILE, "x"), (SOFT, "/etc"), (LINK, "image/f"), (EntryType::Fifo, "")] {
            let members =
                [("image/f", FILE, "f"), ("image/a", kind, target), ("image/a-b", FILE, ""), ("image/a/b", FILE, "y")];
            let told = fault(&members);
            assert!(told.contains("\"a/b\"") && told.contains("no directory"), "{kind:?}: {told}");
            assert!(of(archive(&members[..3])).is_ok(), "{kind:?}");
        }
        assert!(of(archive(&[("image/a/b", FILE, "y"), ("image/a", DIRECTORY, "")])).is_ok());
        for (kind, target) in [(FILE, "x"), (SOFT, "/etc")] {
            assert!(fault(&[("image", kind, target)]).contains("no directory"), "the image itself");
        }
    }

    /// A million links to one file whose name that sorts first is long: the archive is small, what is held is not.
    #[test]
    fn what_links_hold_is_counted_for_each_of_them() {
        let long = format!("a{}", "x".repeat(PATH_BYTES_MAX - 1)).into_bytes();
        let file = ImageKind::File { size: 1, content: Digest::of(b"1") };
        let owner = ImageOwner { uid: 0, gid: 0, user: Vec::new(), group: Vec::new() };
        let entry = |kind| ImageEntry { kind, mode: 0o644, owner: owner.clone() };
        let mut reading = Reading::default();
        reading.entries.insert(b"b".to_vec(), entry(file));
        let link = || entry(ImageKind::HardLink { target: b"b".to_vec() });
        reading.entries.insert(long, link());
        // All but the last MiB is held by others.
        reading.names_bytes = NAMES_BYTES_MAX - (1 << 20);
        reading.entries.extend((0..300).map(|number| (format!("z{number}").into_bytes(), link())));
        let told = reading.finish().unwrap_err().to_string();
        assert!(told.contains("more than is believed in"), "{told}");
    }

    #[test]
    fn an_image_that_is_broken_or_none_is_refused() {
        assert!(of(Vec::new()).is_err());
        assert!(of(b"not a tar archive".repeat(100)).is_err());
        let whole = image();
        assert!(of(whole[..whole.len() - 3000].to_vec()).is_err(), "cut off inside of a member");
        for kind in [EntryType::GNUSparse, EntryType::Continuous, EntryType::XGlobalHeader] {
            assert!(fault(&[("image/a", kind, "")]).contains("is broken"), "{kind:?}");
        }
    }

    #[test]
    fn each_difference_is_named_and_their_number_is_bounded() {
        let first = of(image()).unwrap();
        assert_eq!(first.differences(&first, 10), []);
        let mut second = first.clone();
        second.entries.remove(&b"usr/bin/again"[..]);
        second.entries.insert(b"usr/extra".to_vec(), first.entries[&b"usr"[..]].clone());
        let content = ImageKind::File { size: 5, content: Digest::of(b"other") };
        second.entries.get_mut(&b"usr/bin/greet"[..]).unwrap().kind = content;
        second.entries.get_mut(&b"usr/bin/soft"[..]).unwrap().kind = ImageKind::SymbolicLink { target: b"x".to_vec() };
        let directory = second.entries.get_mut(&b"usr"[..]).unwrap();
        (directory.mode, directory.owner.gid, directory.kind) = (0o700, 7, ImageKind::Fifo);
        let told: Vec<String> = first
            .differences(&second, 100)
            .iter()
            .map(|difference| format!("{}: {}", String::from_utf8_lossy(&difference.path), difference.kind))
            .collect();
        let expected = [
            "usr: kind",
            "usr: mode",
            "usr: owner",
            "usr/bin/again: only here",
            "usr/bin/greet: kind",
            "usr/bin/soft: link target",
            "usr/extra: only there",
        ];
        assert_eq!(told, expected);
        assert_ne!(first.digest(), second.digest());
        assert_eq!(first.differences(&second, 2).len(), 2);
        assert_eq!(Image::default().differences(&first, 100).len(), first.entries().len());
    }
}
