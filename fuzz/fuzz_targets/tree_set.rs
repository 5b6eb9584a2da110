//! Files of package sets: nothing makes the parser panic, what it keeps is bounded, and what it takes reads again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::set::{Items, LEFT_OUT_MAX, SetFile};

fuzz_target!(|bytes: &[u8]| {
    for items in [Items::Atoms, Items::Sets, Items::Both] {
        let file = SetFile::parse(bytes, items);
        assert!(file.left_out.len() <= LEFT_OUT_MAX);
        let kept = file.atoms.iter().map(|item| &item.text).chain(file.sets.iter().map(|item| &item.text));
        let again = SetFile::parse(kept.map(|text| format!("{text}\n")).collect::<String>().as_bytes(), items);
        assert_eq!((again.atoms.len(), again.sets.len()), (file.atoms.len(), file.sets.len()));
        assert!(again.left_out.is_empty());
    }
});
