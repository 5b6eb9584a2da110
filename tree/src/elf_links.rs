//! What the programs and libraries of a binary package need and give.
//!
//! The image is gone through a second time for it: who compares an image with what somebody claims of it does so before
//! anything in it is looked into.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::budget::Budget;
use crate::elf::{self, ElfFile, Links};
use crate::gpkg::{Gpkg, ReadGpkgError};
use crate::gpkg_tar::{TarKind, TarMember, TarStream};
use crate::image::{self, PART};

/// Bytes of a program that is held in memory; a larger one is put aside.
const HELD_BYTES_MAX: u64 = 8 << 20;
/// Bytes of all names; more are left out.
const NAMES_BYTES_MAX: usize = 4 << 20;

/// Reads what the programs of a package need and give. `file` is what the package was read from and has not changed since;
/// `aside` opens an empty file for a program that is too large to be held, and is done with it before it is asked again.
///
/// A broken program says nothing, and so does one that costs more to read than [`Budget::of_program`].
///
/// # Errors
/// When the archive is broken, or its programs together cost more than [`Budget::of_package`].
pub fn read_links<S: Read + Write + Seek>(
    file: impl Read + Seek,
    gpkg: &Gpkg,
    aside: impl FnMut() -> io::Result<S>,
) -> Result<Links, ReadGpkgError> {
    read_links_within(file, gpkg, aside, &Budget::of_package())
}

/// As [`read_links`], within another budget.
///
/// # Errors
/// As [`read_links`].
pub fn read_links_within<S: Read + Write + Seek>(
    file: impl Read + Seek,
    gpkg: &Gpkg,
    mut aside: impl FnMut() -> io::Result<S>,
    budget: &Budget,
) -> Result<Links, ReadGpkgError> {
    let mut links = Links::default();
    let mut names = 0_usize;
    let mut archive = TarStream::new(image::archive(file, gpkg)?);
    while let Some(member) = archive.advance().map_err(|source| ReadGpkgError::Tar { part: PART, source })? {
        let Some(path) = image::below_image(&member.path) else { continue };
        let own = Budget::of_program();
        let program = read_program(&member, &mut archive, &mut aside, &own);
        let program = program.map_err(|source| ReadGpkgError::Read { source })?;
        budget.step().and_then(|()| budget.pay_for(&own)).map_err(|_spent| ReadGpkgError::Costly)?;
        if let Some(program) = program
            && names <= NAMES_BYTES_MAX
        {
            names = names.saturating_add(links.add(&String::from_utf8_lossy(&path), &program));
        }
    }
    Ok(links)
}

fn read_program<R: Read, S: Read + Write + Seek>(
    member: &TarMember,
    content: &mut TarStream<R>,
    aside: &mut impl FnMut() -> io::Result<S>,
    budget: &Budget,
) -> io::Result<Option<ElfFile>> {
    if member.kind != TarKind::File || !(elf::FILE_BYTES_MIN..=elf::FILE_BYTES_MAX).contains(&member.size) {
        return Ok(None);
    }
    let mut magic = [0; elf::MAGIC.len()];
    content.read_exact(&mut magic)?;
    if magic != elf::MAGIC {
        return Ok(None);
    }
    if member.size > HELD_BYTES_MAX {
        let mut file = aside()?;
        file.write_all(&magic)?;
        io::copy(content, &mut file)?;
        file.seek(SeekFrom::Start(0))?;
        return Ok(ElfFile::open_within(file, budget));
    }
    let mut bytes = magic.to_vec();
    content.read_to_end(&mut bytes)?;
    Ok(ElfFile::read_within(bytes.as_slice(), budget))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tar::EntryType;

    use super::*;
    use crate::elf_made;
    use crate::gpkg_made::{Made, header};

    /// A package with these files.
    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = header(path, EntryType::Regular, bytes.len());
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        Made { image: archive.into_inner().unwrap(), ..Made::default() }.bytes()
    }

    fn read(package: &[u8], budget: &Budget) -> Result<(Links, usize), ReadGpkgError> {
        let gpkg = Gpkg::read(Cursor::new(package)).unwrap();
        let mut put_aside = 0;
        let aside = || {
            put_aside += 1;
            Ok(Cursor::new(Vec::new()))
        };
        read_links_within(Cursor::new(package), &gpkg, aside, budget).map(|links| (links, put_aside))
    }

    #[test]
    fn programs_are_looked_into_and_nothing_else_is() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let files: [(&str, &[u8]); 3] =
            [("image/usr/bin/test", &own), ("image/usr/share/text", b"\x7fELF no program"), ("image/short", b"\x7f")];
        let (links, put_aside) = read(&package(&files), &Budget::of_package()).unwrap();
        assert!(links.needs.keys().any(|so| so.name.starts_with("libc.")), "{links:?}");
        assert_eq!(put_aside, usize::from(own.len() as u64 > HELD_BYTES_MAX), "{} bytes", own.len());
        assert_eq!(read(&package(&files[1..]), &Budget::of_package()).unwrap(), (Links::default(), 0));
    }

    #[test]
    fn a_large_program_is_put_aside_and_says_the_same() {
        let mut library = elf_made::library("libbig.so.1", &["libc.so.6"]);
        let small = read(&package(&[("image/usr/lib64/libbig.so", &library)]), &Budget::of_package()).unwrap();
        library.resize(usize::try_from(HELD_BYTES_MAX).unwrap() + 1, 0);
        let large = read(&package(&[("image/usr/lib64/libbig.so", &library)]), &Budget::of_package()).unwrap();
        assert_eq!((small.1, large.1), (0, 1));
        assert_eq!((small.0.gives.len(), small.0), (1, large.0));
    }

    #[test]
    fn many_costly_programs_are_refused_together() {
        let costly = elf_made::needed_versions(1 << 10);
        let paths: Vec<String> = (0..40).map(|number| format!("image/usr/lib64/lib{number}.so")).collect();
        let files: Vec<(&str, &[u8])> = paths.iter().map(|path| (path.as_str(), costly.as_slice())).collect();
        let one = Budget::of_package();
        read(&package(&files[..1]), &one).unwrap();
        let (steps, bytes) = one.used();
        let little = Budget::new(steps * 20, bytes * 100);
        assert!(matches!(read(&package(&files), &little), Err(ReadGpkgError::Costly)), "forty for the price of twenty");
        assert!(little.used().0 <= steps * 20);
        assert!(read(&package(&files[..10]), &Budget::new(steps * 20, bytes * 100)).is_ok());
    }
}
