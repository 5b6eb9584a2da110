//! Programs and libraries: whatever the bytes, reading ends, both ways agree, and names stay within their bounds.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tree::elf::{ElfFile, Links};

fuzz_target!(|bytes: &[u8]| {
    let read = ElfFile::read(bytes);
    assert_eq!(read, ElfFile::open(Cursor::new(bytes)), "from memory and from a file");
    let Some(file) = read else { return };
    assert!(file.needed.iter().chain(&file.soname).all(|name| (1..=255).contains(&name.len())));
    let mut links = Links::default();
    links.add("usr/bin/program", &file);
    assert!(links.needs.len() <= file.needed.len() && links.gives.len() <= 1);
    assert!(links.paths.iter().all(|path| path.starts_with('/') && path.split('/').all(|part| part != "..")), "{:?}", links.paths);
});
