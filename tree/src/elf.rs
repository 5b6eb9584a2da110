//! What the programs and libraries of a package need of other libraries, and what its libraries give: sonames and symbol
//! versions, as the dynamic linker compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use object::read::elf::{Dyn as _, FileHeader, SectionTable};
use object::{Endianness, FileKind, ReadCache, ReadRef, elf};

/// A library's name as the dynamic linker looks for it: only files of one ABI fit together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Soname {
    /// The kind of program.
    pub abi: Abi,
    /// As `DT_NEEDED` and `DT_SONAME` write it.
    pub name: String,
}

/// A kind of program: the ELF class (32 or 64 bits) and the number of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi {
    /// 32 or 64.
    pub bits: u8,
    /// `e_machine`: 3 for i386, 62 for x86-64, 183 for aarch64.
    pub machine: u16,
}

/// Sonames, and the symbol versions of each.
pub type Versions = BTreeMap<Soname, BTreeSet<String>>;

/// What the ELF files of a package, or of a machine, need and give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Libraries that are needed, and which versions of their symbols.
    pub needs: Versions,
    /// Libraries that are there, and which versions of symbols they define.
    pub gives: Versions,
    /// Directories in which its files look for libraries besides the usual ones.
    pub paths: BTreeSet<String>,
}

impl fmt::Debug for Soname {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}:{}", self.abi.bits, self.abi.machine, self.name)
    }
}

/// Bytes of an ELF file that is looked into; a browser has some 250 MB.
pub const FILE_BYTES_MAX: u64 = 320 << 20;
/// Libraries, versions and paths that are taken from one file.
const WORDS_MAX: usize = 4096;
/// Bytes of all names of a package; more are left out.
const NAMES_BYTES_MAX: usize = 4 << 20;
/// Directories of a package in which libraries are looked for.
const PATHS_MAX: usize = 64;
/// Bytes of one name.
const NAME_BYTES_MAX: usize = 255;
/// The first bytes of every ELF file.
pub const MAGIC: [u8; 4] = *b"\x7fELF";

/// What one program or library says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFile {
    /// The kind of program.
    pub abi: Abi,
    /// Its own soname.
    pub soname: Option<String>,
    /// Libraries that it is linked with.
    pub needed: Vec<String>,
    /// Directories in which the dynamic linker looks for them first, as they are written.
    pub paths: Vec<String>,
    /// Symbol versions that it needs, each with the library; those that it can do without are not here.
    pub versions: Vec<(String, String)>,
    /// Symbol versions that it defines.
    pub defined: BTreeSet<String>,
}

impl ElfFile {
    /// Reads a program or library that is linked dynamically. None for everything else: scripts, objects, static programs,
    /// files without a table of sections, and broken ones.
    pub fn read<'data, R: ReadRef<'data>>(data: R) -> Option<Self> {
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Self::of::<elf::FileHeader32<Endianness>, R>(data),
            FileKind::Elf64 => Self::of::<elf::FileHeader64<Endianness>, R>(data),
            _ => None,
        }
    }

    /// As [`ElfFile::read`], from a file, of which only what is needed is read. Blocking.
    pub fn open(file: impl io::Read + io::Seek) -> Option<Self> {
        Self::read(&ReadCache::new(file))
    }

    fn of<'data, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R) -> Option<Self> {
        let header = E::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
            return None;
        }
        let sections = header.sections(endian, data).ok()?;
        let (dynamic, link) = sections.dynamic(endian, data).ok()??;
        let strings = sections.strings(endian, data, link).ok()?;
        let bits = if header.is_class_64() { 64 } else { 32 };
        let abi = Abi { bits, machine: header.e_machine(endian).0 };
        let mut found = Self {
            abi,
            soname: None,
            needed: Vec::new(),
            paths: Vec::new(),
            versions: Vec::new(),
            defined: BTreeSet::new(),
        };
        for entry in dynamic.iter().take_while(|entry| entry.tag(endian) != elf::DT_NULL) {
            let text = || name(entry.string(endian, strings).ok()?);
            match entry.tag(endian) {
                elf::DT_SONAME => found.soname = text(),
                elf::DT_NEEDED if found.needed.len() < WORDS_MAX => found.needed.extend(text()),
                elf::DT_RPATH | elf::DT_RUNPATH => {
                    let path = entry.string(endian, strings).ok().and_then(|path| str::from_utf8(path).ok());
                    let dirs = path.unwrap_or_default().split(':').filter(|dir| !dir.is_empty() && dir.len() <= 4096);
                    found.paths.extend(dirs.take(64).map(str::to_owned));
                }
                _ => {}
            }
        }
        found.needed_versions::<E, R>(endian, data, &sections);
        found.defined_versions::<E, R>(endian, data, &sections);
        Some(found)
    }

    /// What is broken ends the list.
    fn needed_versions<'data, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        &mut self,
        endian: Endianness,
        data: R,
        sections: &SectionTable<'data, E, R>,
    ) {
        let Ok(Some((mut files, link))) = sections.gnu_verneed(endian, data) else { return };
        let Ok(strings) = sections.strings(endian, data, link) else { return };
        while let Ok(Some((file, mut versions))) = files.next() {
            let Some(library) = file.file(endian, strings).ok().and_then(name) else { return };
            while let Ok(Some(version)) = versions.next() {
                if self.versions.len() >= WORDS_MAX {
                    return;
                }
                let weak = version.vna_flags.get(endian).contains(elf::VER_FLG_WEAK);
                let text = version.name(endian, strings).ok().and_then(name);
                self.versions.extend(text.filter(|_| !weak).map(|version| (library.clone(), version)));
            }
        }
    }

    fn defined_versions<'data, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        &mut self,
        endian: Endianness,
        data: R,
        sections: &SectionTable<'data, E, R>,
    ) {
        let Ok(Some((mut all, link))) = sections.gnu_verdef(endian, data) else { return };
        let Ok(strings) = sections.strings(endian, data, link) else { return };
        while let Ok(Some((definition, mut names))) = all.next() {
            if self.defined.len() >= WORDS_MAX {
                return;
            }
            let own = definition.vd_flags.get(endian).contains(elf::VER_FLG_BASE);
            // The first is the version's name, the others are those it follows.
            let Ok(Some(first)) = names.next() else { continue };
            self.defined.extend(first.name(endian, strings).ok().and_then(name).filter(|_| !own));
        }
    }
}

/// A name as text. Bytes that no library's name has are spelled out and not left out: nothing of this machine has such a
/// name, so that a program that needs it is not taken for one that runs here.
fn name(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let spelled = text.chars().take(NAME_BYTES_MAX).map(|letter| match letter {
        letter if letter.is_control() => letter.escape_default().to_string(),
        letter => letter.to_string(),
    });
    (!text.is_empty()).then(|| spelled.collect())
}

impl Links {
    /// Adds a file of an image. `path` is where it is installed, without a slash in front; what is only there for debuggers
    /// is passed over.
    pub fn add(&mut self, path: &str, file: &ElfFile) {
        if path.starts_with("usr/lib/debug/") || self.bytes() > NAMES_BYTES_MAX {
            return;
        }
        let so = |name: &str| Soname { abi: file.abi, name: name.to_owned() };
        // A name with a slash is a path and is not looked for.
        for needed in file.needed.iter().filter(|needed| !needed.contains('/')) {
            self.needs.entry(so(needed)).or_default();
        }
        for (library, version) in &file.versions {
            if let Some(versions) = self.needs.get_mut(&so(library)) {
                versions.insert(version.clone());
            }
        }
        let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
        // Without a soname it is found by its file's name.
        let own = file.soname.as_deref().or_else(|| base.contains(".so").then_some(base));
        if let Some(own) = own {
            self.gives.entry(so(own)).or_default().extend(file.defined.iter().cloned());
        }
        for written in &file.paths {
            let whole = written.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", &format!("/{folder}"));
            if self.paths.len() < PATHS_MAX && whole.starts_with('/') && !whole.contains('$') {
                self.paths.insert(plain(&whole));
            }
        }
    }

    /// Bytes of all names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |versions: &Versions| -> usize {
            versions.iter().map(|(so, of)| so.name.len() + of.iter().map(String::len).sum::<usize>()).sum()
        };
        of(&self.needs) + of(&self.gives) + self.paths.iter().map(String::len).sum::<usize>()
    }
}

/// A path without `.`, `..` and doubled slashes, as if it had no links.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: Abi = Abi { bits: 64, machine: 62 };

    fn file(soname: Option<&str>, needed: &[&str], versions: &[(&str, &str)]) -> ElfFile {
        let text = |text: &&str| (*text).to_owned();
        ElfFile {
            abi: X86_64,
            soname: soname.map(str::to_owned),
            needed: needed.iter().map(text).collect(),
            paths: Vec::new(),
            versions: versions.iter().map(|(library, version)| (text(library), text(version))).collect(),
            defined: BTreeSet::new(),
        }
    }

    fn so(name: &str) -> Soname {
        Soname { abi: X86_64, name: name.to_owned() }
    }

    #[test]
    fn the_program_of_this_test_needs_the_c_library_and_its_versions() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let read = ElfFile::read(own.as_slice()).expect("tests are linked dynamically");
        assert!(read.needed.iter().any(|needed| needed.starts_with("libc.")), "{read:?}");
        assert_eq!(ElfFile::open(std::fs::File::open("/proc/self/exe").unwrap()), Some(read.clone()), "both ways");
        if read.needed.iter().any(|needed| needed == "libc.so.6") {
            assert!(read.versions.iter().any(|(of, version)| of == "libc.so.6" && version.starts_with("GLIBC_2.")));
        }
        for length in [0, 3, 4, 16, 63, 64, 1000, own.len() / 2, own.len() - 1] {
            // Whatever is cut off: no panic, and nothing that was not there.
            let cut = ElfFile::read(own.get(..length).unwrap());
            assert!(cut.is_none_or(|cut| cut.needed.iter().all(|needed| read.needed.contains(needed))), "{length}");
        }
    }

    #[test]
    fn what_is_no_program_says_nothing() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0x7f; 4096]] {
            assert_eq!(ElfFile::read(bytes), None);
        }
    }

    #[test]
    fn a_packages_links_are_those_of_its_files() {
        let mut links = Links::default();
        let versions = [("libc.so.6", "GLIBC_2.34"), ("libz.so.1", "ZLIB_1.2"), ("stray.so", "X")];
        let mut program = file(None, &["libc.so.6", "libz.so.1", "/opt/lib/x.so"], &versions);
        program.paths = vec!["$ORIGIN/../lib/app".into(), "${ORIGIN}".into(), "$LIB/x".into(), "relative".into()];
        links.add("usr/bin/app", &program);
        let mut library = file(Some("libapp.so.1"), &["libc.so.6"], &[("libc.so.6", "GLIBC_2.4")]);
        library.defined = BTreeSet::from(["APP_1".to_owned()]);
        links.add("usr/lib64/app/libapp.so.1.0", &library);
        links.add("usr/lib64/app/plugin.so", &file(None, &[], &[]));
        links.add("usr/lib/debug/usr/bin/app.debug", &file(None, &["libnone.so"], &[]));
        let needs: Vec<(&str, Vec<&str>)> =
            links.needs.iter().map(|(so, of)| (so.name.as_str(), of.iter().map(String::as_str).collect())).collect();
        assert_eq!(needs, [("libc.so.6", vec!["GLIBC_2.34", "GLIBC_2.4"]), ("libz.so.1", vec!["ZLIB_1.2"])]);
        assert_eq!(links.gives.keys().collect::<Vec<_>>(), [&so("libapp.so.1"), &so("plugin.so")]);
        assert_eq!(links.gives[&so("libapp.so.1")].len(), 1);
        assert_eq!(links.paths.iter().collect::<Vec<_>>(), ["/usr/bin", "/usr/lib/app"]);
    }
}
