//! What the programs and libraries of a package need of other libraries, and what its libraries give: sonames and symbol
//! versions, as the dynamic linker compares them.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::{fmt, io};

use object::read::elf::{Dyn as _, FileHeader, SectionTable};
use object::{Endianness, FileKind, ReadCache, ReadRef, elf};

use crate::budget::Budget;

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
/// Bytes of the smallest header.
pub(crate) const FILE_BYTES_MIN: u64 = 52;
/// Libraries that are taken from one file.
const WORDS_MAX: usize = 4096;
/// Versions that a program needs, or defines, with the libraries that they are of: a program with more says nothing.
const VERSIONS_MAX: u64 = 4096;
/// Directories of a program, and of a package, in which libraries are looked for.
const PATHS_MAX: usize = 64;
/// Bytes of one name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a directory: Linux' `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes in which a string's end is looked for.
const STRING_BYTES_MAX: u64 = 4096;
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
    /// files without a table of sections, broken ones, and those that cost more to read than [`Budget::of_program`].
    pub fn read<'data, R: ReadRef<'data>>(data: R) -> Option<Self> {
        Self::read_within(data, &Budget::of_program())
    }

    /// As [`ElfFile::read`], from a file, of which only what is needed is read. Blocking.
    pub fn open(file: impl io::Read + io::Seek) -> Option<Self> {
        Self::read(&ReadCache::new(file))
    }

    /// As [`ElfFile::open`], within what is left of a budget. Blocking.
    pub fn open_within(file: impl io::Read + io::Seek, budget: &Budget) -> Option<Self> {
        Self::read_within(&ReadCache::new(file), budget)
    }

    /// As [`ElfFile::read`], within what is left of a budget.
    pub fn read_within<'data, R: ReadRef<'data>>(data: R, budget: &Budget) -> Option<Self> {
        let data = Metered { data, budget };
        match FileKind::parse(data).ok()? {
            FileKind::Elf32 => Self::of::<elf::FileHeader32<Endianness>, _>(data),
            FileKind::Elf64 => Self::of::<elf::FileHeader64<Endianness>, _>(data),
            _ => None,
        }
    }

    fn of<'data, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: Metered<'_, R>) -> Option<Self> {
        let header = E::parse(data).ok()?;
        let endian = header.endian().ok()?;
        if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
            return None;
        }
        let sections = header.sections(endian, data).ok()?;
        // They are gone through for each of the three tables.
        let looked_at = u64::try_from(sections.len()).ok()?.saturating_mul(3);
        data.budget.steps(looked_at).ok()?;
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
            data.budget.step().ok()?;
            let text = || name(entry.string(endian, strings).ok()?);
            match entry.tag(endian) {
                elf::DT_SONAME => found.soname = text(),
                elf::DT_NEEDED if found.needed.len() < WORDS_MAX => found.needed.extend(text()),
                elf::DT_RPATH | elf::DT_RUNPATH if found.paths.len() < PATHS_MAX => {
                    let path = entry.string(endian, strings).ok().and_then(|path| str::from_utf8(path).ok());
                    let dirs = path.unwrap_or_default().split(':').filter(|dir| !dir.is_empty());
                    let room = PATHS_MAX.saturating_sub(found.paths.len());
                    found.paths.extend(dirs.take(room).map(str::to_owned));
                }
                _ => {}
            }
        }
        found.needed_versions::<E, R>(endian, data, &sections)?;
        found.defined_versions::<E, R>(endian, data, &sections)?;
        // What was refused on the way was not looked at: what is known then may be less than what is there.
        (!data.budget.is_spent()).then_some(found)
    }

    /// What is broken ends the list. None when the budget is spent.
    fn needed_versions<'data, 'b, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        &mut self,
        endian: Endianness,
        data: Metered<'b, R>,
        sections: &SectionTable<'data, E, Metered<'b, R>>,
    ) -> Option<()> {
        let Ok(Some((mut files, link))) = sections.gnu_verneed(endian, data) else { return Some(()) };
        let Ok(strings) = sections.strings(endian, data, link) else { return Some(()) };
        // Records may lie over each other, and a version says nothing by which it could be told from a record: so all are
        // counted, those that can be done without too.
        let most = Budget::new(VERSIONS_MAX, 0);
        while let Ok(Some((file, mut versions))) = files.next() {
            most.step().and_then(|()| data.budget.step()).ok()?;
            let Some(library) = file.file(endian, strings).ok().and_then(name) else { return Some(()) };
            while let Ok(Some(version)) = versions.next() {
                most.step().and_then(|()| data.budget.step()).ok()?;
                let weak = version.vna_flags.get(endian).contains(elf::VER_FLG_WEAK);
                let text = version.name(endian, strings).ok().and_then(name);
                self.versions.extend(text.filter(|_| !weak).map(|version| (library.clone(), version)));
            }
        }
        Some(())
    }

    /// As [`Self::needed_versions`].
    fn defined_versions<'data, 'b, E: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
        &mut self,
        endian: Endianness,
        data: Metered<'b, R>,
        sections: &SectionTable<'data, E, Metered<'b, R>>,
    ) -> Option<()> {
        let Ok(Some((mut all, link))) = sections.gnu_verdef(endian, data) else { return Some(()) };
        let Ok(strings) = sections.strings(endian, data, link) else { return Some(()) };
        let most = Budget::new(VERSIONS_MAX, 0);
        while let Ok(Some((definition, mut names))) = all.next() {
            most.step().and_then(|()| data.budget.step()).ok()?;
            let own = definition.vd_flags.get(endian).contains(elf::VER_FLG_BASE);
            // The first is the version's name, the others are those it follows.
            let Ok(Some(first)) = names.next() else { continue };
            self.defined.extend(first.name(endian, strings).ok().and_then(name).filter(|_| !own));
        }
        Some(())
    }
}

/// A name as text. Bytes that no library's name has are spelled out and not left out: nothing of this machine has such a
/// name, so that a program that needs it is not taken for one that runs here.
fn name(bytes: &[u8]) -> Option<String> {
    let mut spelled = String::new();
    for letter in String::from_utf8_lossy(bytes).chars().take(NAME_BYTES_MAX) {
        let before = spelled.len();
        if letter.is_control() {
            spelled.extend(letter.escape_default());
        } else {
            spelled.push(letter);
        }
        if spelled.len() > NAME_BYTES_MAX {
            spelled.truncate(before);
            break;
        }
    }
    (!spelled.is_empty()).then_some(spelled)
}

/// The bytes of a program, each look at them paid from a budget.
#[derive(Clone, Copy)]
struct Metered<'b, R> {
    data: R,
    budget: &'b Budget,
}

impl<'data, R: ReadRef<'data>> ReadRef<'data> for Metered<'_, R> {
    fn len(self) -> Result<u64, ()> {
        self.data.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        self.budget.step().map_err(drop)?;
        self.budget.bytes(size).map_err(drop)?;
        self.data.read_bytes_at(offset, size)
    }

    /// A string: where no end is within reach there is none.
    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.budget.step().map_err(drop)?;
        let within = range.start..range.end.min(range.start.saturating_add(STRING_BYTES_MAX));
        let found = self.data.read_bytes_at_until(within, delimiter);
        let looked_at = found.map_or(STRING_BYTES_MAX, |found| u64::try_from(found.len()).unwrap_or(u64::MAX));
        self.budget.bytes(looked_at).map_err(drop)?;
        found
    }
}

impl Links {
    /// Adds a file of an image, and answers how many bytes of names that are. `path` is where it is installed, without a
    /// slash in front; what is only there for debuggers is passed over.
    pub fn add(&mut self, path: &str, file: &ElfFile) -> usize {
        if path.starts_with("usr/lib/debug/") {
            return 0;
        }
        let mut added = 0_usize;
        let mut count = |name: &str| added = added.saturating_add(name.len());
        let so = |name: &str| Soname { abi: file.abi, name: name.to_owned() };
        // A name with a slash is a path and is not looked for.
        for needed in file.needed.iter().filter(|needed| !needed.contains('/')) {
            count(needed);
            self.needs.entry(so(needed)).or_default();
        }
        for (library, version) in &file.versions {
            if let Some(versions) = self.needs.get_mut(&so(library)) {
                count(version);
                versions.insert(version.clone());
            }
        }
        let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
        // Without a soname it is found by its file's name.
        let own = file.soname.as_deref().or_else(|| base.contains(".so").then_some(base));
        if let Some(own) = own {
            count(own);
            file.defined.iter().for_each(|version| count(version));
            self.gives.entry(so(own)).or_default().extend(file.defined.iter().cloned());
        }
        for written in file.paths.iter().take(PATHS_MAX.saturating_sub(self.paths.len())) {
            let whole = written.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", &format!("/{folder}"));
            if whole.starts_with('/') && whole.len() <= PATH_BYTES_MAX && !whole.contains('$') {
                count(&whole);
                self.paths.insert(plain(&whole));
            }
        }
        added
    }

    /// Bytes of all names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |versions: &Versions| {
            let names = versions.iter().flat_map(|(so, of)| of.iter().map(String::len).chain([so.name.len()]));
            names.fold(0, usize::saturating_add)
        };
        let paths = self.paths.iter().map(String::len).fold(0, usize::saturating_add);
        of(&self.needs).saturating_add(of(&self.gives)).saturating_add(paths)
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
    use crate::elf_made;

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

    /// What it costs to read one, in steps and bytes, and whether it says anything.
    fn cost(file: &[u8], budget: &Budget) -> (u64, u64, bool) {
        let said = ElfFile::read_within(file, budget).is_some();
        assert_eq!(ElfFile::open(std::io::Cursor::new(file)).is_some(), ElfFile::read(file).is_some(), "both ways");
        (budget.used().0, budget.used().1, said)
    }

    /// A package of some KiB made its reader use 2.9 GiB, and another one kept it busy for hours: what was bounded was what
    /// is kept.
    #[test]
    fn what_a_program_costs_grows_no_faster_than_it_and_has_an_end() {
        type Make = fn(usize) -> Vec<u8>;
        let bombs: [(&str, Make); 6] = [
            ("run paths", elf_made::run_paths),
            ("names", |count| elf_made::long_names(count, 200)),
            ("long names", |count| elf_made::long_names(count, 1 << 20)),
            ("needed versions", elf_made::needed_versions),
            ("defined versions", elf_made::defined_versions),
            ("sections", |count| elf_made::sections(count.min(65_000))),
        ];
        let (steps_max, bytes_max) = (1 << 18, 4 << 20);
        for (name, make) in bombs {
            for count in [1, 1 << 8, 1 << 12, 1 << 16, 1 << 19] {
                let file = make(count);
                let (steps, bytes, _said) = cost(&file, &Budget::of_program());
                assert!(steps <= steps_max && bytes <= bytes_max, "{name} × {count}: {steps} steps, {bytes} bytes");
                // Each entry costs some steps. What the few that lie over each other cost has a bound of its own.
                let share = 8 * file.len() as u64;
                assert!(steps <= 100 + share, "{name} × {count}: {steps} steps for {} bytes", file.len());
            }
            assert!(cost(&make(1), &Budget::of_program()).2, "{name}: a single one is a program");
        }
        assert!(!cost(&elf_made::run_paths(1 << 19), &Budget::of_program()).2, "it says nothing rather than a part");
        // What is seen over and over is paid for each time, also where no end of a string is in reach.
        for bytes in [200, 1 << 20] {
            let seen = cost(&elf_made::long_names(500, bytes), &Budget::of_program()).1;
            assert!(seen >= 500 * bytes.min(4096) as u64, "{bytes}: {seen}");
        }
        assert!(!cost(&elf_made::needed_versions(1 << 19), &Budget::of_program()).2);
    }

    #[test]
    fn many_run_paths_are_no_more_than_are_kept() {
        let few = ElfFile::read(elf_made::run_paths(100).as_slice()).unwrap();
        assert_eq!(few.paths.len(), PATHS_MAX);
    }

    #[test]
    fn a_name_has_a_bound_in_bytes() {
        for text in ["\u{1}".repeat(255), "ü".repeat(255), "x".repeat(300)] {
            let name = name(text.as_bytes()).unwrap();
            assert!((200..=NAME_BYTES_MAX).contains(&name.len()), "{}", name.len());
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
