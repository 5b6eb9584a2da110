//! Programs and libraries: whatever the bytes, reading costs no more than its budget, both ways agree, and names stay within
//! their bounds.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tree::budget::Budget;
use tree::elf::{ElfFile, Links};

fuzz_target!(|bytes: &[u8]| {
    let budget = Budget::new(1 << 12, 1 << 16);
    let little = ElfFile::read_within(bytes, &budget);
    assert!(budget.used().0 <= 1 << 12 && budget.used().1 <= 1 << 16);
    let read = ElfFile::read(bytes);
    assert!(little.is_none() || little == read, "what is said for less is the same");
    assert_eq!(read, ElfFile::open(Cursor::new(bytes)), "from memory and from a file");
    let Some(file) = read else { return };
    assert!(file.needed.iter().chain(&file.soname).all(|name| (1..=255).contains(&name.len())));
    let mut links = Links::default();
    links.add("usr/bin/program", &file);
    assert!(links.needs.len() <= file.needed.len() && links.gives.len() <= 1);
    assert!(links.paths.iter().all(|path| path.starts_with('/') && path.split('/').all(|part| part != "..")), "{:?}", links.paths);
});
