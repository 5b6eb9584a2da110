//! A mirror's layout.conf: whatever it is, a path comes out that cannot climb, and it prints as it means.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrors::layout::LayoutConf;
use tree::digest::{Digest, Sha512};
use tree::distfile::Distfile;

fuzz_target!(|text: &str| {
    let conf = LayoutConf::parse(text);
    assert!(!conf.layouts().is_empty());
    let again = LayoutConf::parse(&conf.to_string());
    assert_eq!(again, conf);
    for sha512 in [None, Some(Sha512::of(b"x"))] {
        let name = "a b%2F-1.tar.xz".replace(' ', "_").parse().expect("a distfile name");
        let distfile = Distfile { name, size: 1, blake2b: Digest::of(b"x"), sha512 };
        let path = conf.path(&distfile);
        assert_eq!(again.path(&distfile), path);
        assert!(!path.starts_with('/') && path.split('/').all(|component| !matches!(component, "" | "." | "..")));
        assert!(path.is_ascii() && path.len() < 1024, "{path:?}");
    }
});
