//! RESTRICT, LICENSE and licence groups: the first line is a dependency string, the rest a license_groups file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::license::{License, LicenseGroups};
use tree::restrict::Restrict;

fuzz_target!(|text: &str| {
    let (depend, groups) = text.split_once('\n').unwrap_or((text, ""));
    // White space of any kind separates words, so a text with other white space means the same.
    let spaced: String = depend.split_ascii_whitespace().flat_map(|word| [word, "\t"]).collect();
    assert_eq!(Restrict::parse(depend), Restrict::parse(&spaced), "{depend:?}");
    // What is added can only restrict further.
    let more = Restrict::parse(&format!("{depend} fetch mirror bindist"));
    assert!(more.fetch && more.mirror && more.bindist);

    let groups = LicenseGroups::parse(groups);
    let free = License::new(depend).may_redistribute(&groups);
    assert_eq!(free, License::new(&spaced).may_redistribute(&groups), "{depend:?}");
    assert!(!License::new(&format!("{depend} all-rights-reserved")).may_redistribute(&groups));
    let mut twice = groups.clone();
    twice.merge(&groups);
    assert_eq!(twice, groups, "a table merged with itself is itself");
});
