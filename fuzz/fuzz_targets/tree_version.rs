//! Versions, one a line: each prints as it was read, and their order is a total one.
#![no_main]

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use libfuzzer_sys::fuzz_target;
use tree::version::{Version, split_package_version};

fn hash(version: &Version) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

fuzz_target!(|text: &str| {
    let versions: Vec<Version> = text.lines().take(3).filter_map(|line| line.parse().ok()).collect();
    for version in &versions {
        assert_eq!(version.to_string().parse::<Version>().as_ref(), Ok(version));
        assert_eq!(version.cmp(version), Ordering::Equal);
        let whole = format!("package-{version}");
        assert_eq!(split_package_version(&whole), Some(("package", version.as_str())));
        let plain: Version = version.without_revision().parse().expect("a version without its revision is one");
        assert!(plain.revision().is_none());
        for other in &versions {
            assert_eq!(version.cmp(other), other.cmp(version).reverse());
            assert_eq!(version == other, version.cmp(other) == Ordering::Equal);
            assert!(version != other || hash(version) == hash(other), "equal, and not by their hash");
            for third in &versions {
                assert!(!(version <= other && other <= third) || version <= third, "{version} {other} {third}");
            }
        }
    }
    if let Some((name, version)) = split_package_version(text) {
        assert_eq!(format!("{name}-{version}"), text);
    }
});
