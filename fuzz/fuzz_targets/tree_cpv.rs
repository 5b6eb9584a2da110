//! Names, cpvs and slots: what is read prints as it was, and no distfile's name can leave its directory.
#![no_main]

use std::fmt::{Debug, Display};
use std::path::{Component, Path};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use tree::cpv::{Cp, Cpv, Slot};
use tree::name::{Category, DistfileName, NAME_BYTES_MAX, PackageName, RepoName, SlotName, UseFlag};

fn prints_as_read<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string(), text);
    Some(value)
}

fuzz_target!(|text: &str| {
    prints_as_read::<Category>(text);
    prints_as_read::<PackageName>(text);
    prints_as_read::<RepoName>(text);
    prints_as_read::<UseFlag>(text);
    prints_as_read::<SlotName>(text);
    prints_as_read::<Slot>(text);
    prints_as_read::<Cp>(text);
    if let Some(cpv) = prints_as_read::<Cpv>(text) {
        let from_pf = Cpv::from_pf(&cpv.cp.category, &cpv.pf()).expect("the PF of a cpv is one");
        assert_eq!(from_pf, cpv);
    }
    if let Some(name) = prints_as_read::<DistfileName>(text) {
        assert!(name.as_str().len() <= NAME_BYTES_MAX);
        let components: Vec<Component<'_>> = Path::new(name.as_str()).components().collect();
        assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{text:?}");
    }
});
