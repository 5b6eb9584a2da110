//! Atoms, one in the first line: what it prints reads back as the same, and it can be asked about any cpv in the second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::atom::Atom;
use tree::cpv::Cpv;

fuzz_target!(|text: &str| {
    let (atom, cpv) = text.split_once('\n').unwrap_or((text, "dev-libs/a-1.2_rc3-r4"));
    let Ok(atom) = atom.parse::<Atom>() else { return };
    let printed = atom.to_string();
    let again: Atom = printed.parse().unwrap_or_else(|error| panic!("{printed:?}: {error}"));
    assert_eq!(again, atom, "{printed:?}");
    assert_eq!(again.to_string(), printed);
    if let Ok(cpv) = cpv.parse::<Cpv>() {
        for slot in [None, Some("0"), Some("0/1")] {
            assert_eq!(atom.matches(&cpv, slot), again.matches(&cpv, slot));
        }
    }
});
