//! Every Manifest and every md5-cache entry of a real overlay.

mod sample;

use std::collections::BTreeMap;

use tree::repo::EbuildRepo;

#[test]
fn every_package_of_a_real_overlay_is_read_without_a_problem() {
    let Some(directory) = sample::unpacked() else { return };
    let repo = EbuildRepo::open(directory.path()).expect("the sample is a repository");
    assert_eq!(repo.name().as_str(), "guru");
    assert_eq!(repo.masters().iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["gentoo"]);
    assert!(repo.has_md5_cache());
    let before = std::time::Instant::now();
    let scanned = repo.scan().expect("the sample can be scanned");
    println!("scanned in {:?}", before.elapsed());
    assert_eq!(scanned, repo.scan().expect("and again, with the same stamps"));

    let (mut distfiles, mut named, mut announced, mut ebuilds) = (0, 0, 0, 0);
    let mut problems = BTreeMap::new();
    for (cp, _) in &scanned {
        let package = repo.package(cp).unwrap_or_else(|error| panic!("{cp}: {error}"));
        assert!(package.without_metadata.is_empty(), "{cp}: {:?}", package.without_metadata);
        if !package.problems.is_empty() {
            problems.insert(cp.to_string(), package.problems.clone());
        }
        ebuilds += repo.ebuilds(cp).len();
        distfiles += package.entries.len();
        named += package.entries.iter().filter(|entry| !entry.ebuilds.is_empty()).count();
        announced += package.entries.iter().filter(|entry| entry.sharing.announce).count();
        for entry in &package.entries {
            assert!(!entry.sharing.announce || (entry.sharing.mirror && !entry.ebuilds.is_empty()), "{cp}");
            assert_eq!(entry.ebuilds.is_empty(), entry.sources.is_empty(), "{cp} {}", entry.distfile.name);
        }
    }
    println!(
        "{} packages, {ebuilds} ebuilds, {distfiles} DIST lines, {named} named, {announced} announced",
        scanned.len()
    );
    assert_eq!(problems, BTreeMap::new());
    assert!(scanned.len() > 1700 && distfiles > 18_000, "{} packages, {distfiles} distfiles", scanned.len());
    // Stale lines are few, and few packages forbid handing on.
    assert!(named * 100 > distfiles * 95 && announced * 10 > distfiles * 7, "{named} and {announced} of {distfiles}");
}
