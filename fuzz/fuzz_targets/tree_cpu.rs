//! Options of compilers: what a text needs, the machine that has all of that can run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::cpu::{CpuFeatures, Needed};

fuzz_target!(|text: &str| {
    let chost = "x86_64-pc-linux-gnu";
    if let Needed::Features(features) = Needed::of(chost, [text], text.split_whitespace()) {
        assert_eq!(features.missing_in(&features), Vec::<&str>::new());
        assert_eq!(Needed::of(chost, [text, text], text.split_whitespace()), Needed::Features(features));
    }
    let machine = CpuFeatures::from_cpuinfo(text);
    assert!(machine.level().is_none_or(|level| (1..=4).contains(&level)));
});
