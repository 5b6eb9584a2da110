//! A Packages index: what is read is written as an index that reads the same, and leads nowhere else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::packages::{ENTRIES_MAX, HEADER_KEYS_MAX, PackagesIndex};

fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = PackagesIndex::parse(bytes) else { return };
    assert!(index.header().len() <= HEADER_KEYS_MAX && index.entries().len() <= ENTRIES_MAX);
    for entry in index.entries() {
        let path = entry.get("PATH").unwrap_or_default();
        assert!(!path.starts_with('/') && !path.split('/').any(|name| name == ".."), "{path:?}");
        assert!(entry.get("BASE_URI").is_none() && entry.get("FETCHCOMMAND").is_none());
    }
    let made = PackagesIndex::new(index.header(), 7, index.entries().to_vec());
    let again = PackagesIndex::parse(made.to_string().as_bytes()).expect("it is not larger");
    assert_eq!(again, made);
});
