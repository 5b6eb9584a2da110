//! Paths below /snapshots/ and /releases/: none climbs, and each prints so that it reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrors::pass::PassPath;

fuzz_target!(|text: &str| {
    let Ok(path) = text.parse::<PassPath>() else { return };
    let printed = path.to_string();
    assert_eq!(printed.parse::<PassPath>().as_ref(), Ok(&path), "{printed:?}");
    assert!(printed.starts_with("/snapshots/") || printed.starts_with("/releases/"));
    assert!(printed.split('/').skip(1).all(|component| !component.is_empty() && !component.starts_with('.')));
});
