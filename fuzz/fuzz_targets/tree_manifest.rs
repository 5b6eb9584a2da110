//! A Manifest: what is read is written back as DIST lines that read the same, each name once, within the limits.
#![no_main]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use tree::manifest::{DISTFILE_BYTES_MAX, DISTFILES_MAX, Manifest, SKIPPED_MAX};

fuzz_target!(|bytes: &[u8]| {
    let manifest = Manifest::parse(bytes);
    assert!(manifest.distfiles.len() <= DISTFILES_MAX && manifest.skipped.len() <= SKIPPED_MAX);
    let names: BTreeSet<&str> = manifest.distfiles.iter().map(|distfile| distfile.name.as_str()).collect();
    assert_eq!(names.len(), manifest.distfiles.len(), "a name stands there twice");
    let mut text = String::new();
    for distfile in &manifest.distfiles {
        assert!(distfile.size <= DISTFILE_BYTES_MAX);
        writeln!(text, "{distfile}").expect("a String takes everything");
    }
    let again = Manifest::parse(text.as_bytes());
    assert_eq!(again.distfiles, manifest.distfiles);
    assert!(again.skipped.is_empty(), "{:?}", again.skipped);
});
