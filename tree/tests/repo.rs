//! A repository built for the purpose: what its ebuilds say together, and what a hostile one cannot do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use tree::atom::Atom;
use tree::conf::ReposConf;
use tree::cpv::Cp;
use tree::digest::Digest;
use tree::md5::Md5;
use tree::mdcache::MdEntry;
use tree::repo::{EbuildRepo, OpenRepoError, Package, Sharing};

#[expect(clippy::disallowed_methods, reason = "a test makes its repository")]
fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories are made");
    fs::write(path, text).expect("a file is written");
}

const EBUILD: &str = "EAPI=8\n";

fn dist(name: &str) -> String {
    format!("DIST {name} 1 BLAKE2B {}\n", Digest::of(name.as_bytes()))
}

fn ebuild(root: &Path, pf: &str, metadata: Option<&str>) {
    put(root, &format!("a/b/{pf}.ebuild"), EBUILD);
    if let Some(metadata) = metadata {
        let text = format!("{}\n_md5_={}\n", metadata.replace(';', "\n"), Md5::of(EBUILD.as_bytes()));
        put(root, &format!("metadata/md5-cache/a/{pf}"), &text);
    }
}

fn repository(manifest: &[&str]) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    put(directory.path(), "profiles/repo_name", "mine\n");
    put(directory.path(), "metadata/layout.conf", "# x\nmasters = gentoo  guru\n");
    put(directory.path(), "profiles/license_groups", "EULA NVIDIA\n");
    put(directory.path(), "metadata/md5-cache/x", "");
    put(directory.path(), "a/b/Manifest", &manifest.iter().map(|name| dist(name)).collect::<String>());
    directory
}

fn cp() -> Cp {
    "a/b".parse().expect("a cp")
}

fn open(directory: &TempDir) -> EbuildRepo {
    EbuildRepo::open(directory.path()).expect("a repository")
}

fn sharing(package: &Package, name: &str) -> (bool, bool, bool) {
    let entry = package.entries.iter().find(|entry| entry.distfile.name.as_str() == name).expect("the file is there");
    let Sharing { mirror, fetch, announce } = entry.sharing;
    (mirror, fetch, announce)
}

#[test]
fn what_one_ebuild_says_about_its_files() {
    // RESTRICT and LICENSE, then what follows for a plain entry, for fetch+ and for mirror+: (mirror, fetch, announce).
    let (yes, no) = (true, false);
    for (restrict, license, plain, fetch, mirror) in [
        ("", "MIT", (yes, yes, yes), (yes, yes, yes), (yes, yes, yes)),
        ("test strip", "|| ( MIT NVIDIA )", (yes, yes, yes), (yes, yes, yes), (yes, yes, yes)),
        ("mirror", "MIT", (no, yes, no), (no, yes, no), (yes, yes, yes)),
        ("fetch", "MIT", (no, no, no), (no, yes, no), (yes, yes, yes)),
        ("x? ( mirror )", "MIT", (no, yes, no), (no, yes, no), (yes, yes, yes)),
        ("bindist", "MIT", (yes, yes, yes), (yes, yes, yes), (yes, yes, yes)),
        ("", "NVIDIA", (yes, yes, no), (yes, yes, no), (yes, yes, no)),
        ("", "all-rights-reserved", (yes, yes, no), (yes, yes, no), (yes, yes, no)),
        ("mirror", "NVIDIA", (no, yes, no), (no, yes, no), (yes, yes, no)),
        ("", "", (yes, yes, no), (yes, yes, no), (yes, yes, no)),
    ] {
        let directory = repository(&["plain", "fetch", "mirror"]);
        let text = format!(
            "RESTRICT={restrict};LICENSE={license};SRC_URI=https://x/plain fetch+https://x/fetch mirror+https://x/mirror"
        );
        ebuild(directory.path(), "b-1", Some(&text));
        let package = open(&directory).package(&cp()).expect("a package");
        assert_eq!(sharing(&package, "plain"), plain, "plain under {restrict:?}, {license:?}");
        assert_eq!(sharing(&package, "fetch"), fetch, "fetch+ under {restrict:?}, {license:?}");
        assert_eq!(sharing(&package, "mirror"), mirror, "mirror+ under {restrict:?}, {license:?}");
        assert_eq!(package.entries[0].ebuilds, ["b-1"]);
    }
}

#[test]
fn one_ebuild_that_forbids_is_enough_and_one_that_fetches_too() {
    let directory = repository(&["a", "other"]);
    ebuild(directory.path(), "b-1", Some("LICENSE=MIT;SRC_URI=https://x/a https://x/other"));
    ebuild(directory.path(), "b-2", Some("LICENSE=MIT;RESTRICT=fetch;SRC_URI=https://y/a"));
    let package = open(&directory).package(&cp()).expect("a package");
    assert_eq!(sharing(&package, "a"), (true, true, false));
    assert_eq!(sharing(&package, "other"), (true, true, true));
    assert_eq!(package.entries[0].ebuilds, ["b-1", "b-2"]);
    let uris: Vec<_> = package.entries[0].sources.iter().map(|source| source.uri.as_deref()).collect();
    assert_eq!(uris, [Some("https://x/a")], "the URI under RESTRICT=fetch may not be asked");
}

#[test]
fn a_file_that_no_ebuild_names_is_not_announced() {
    let directory = repository(&["a", "stale"]);
    ebuild(directory.path(), "b-1", Some("LICENSE=MIT;SRC_URI=https://x/a"));
    let package = open(&directory).package(&cp()).expect("a package");
    assert_eq!(sharing(&package, "stale"), (true, false, false));
}

#[test]
fn while_an_ebuild_is_unknown_nothing_is_announced_until_its_metadata_is_given() {
    let directory = repository(&["a"]);
    ebuild(directory.path(), "b-1", Some("LICENSE=MIT;SRC_URI=https://x/a"));
    ebuild(directory.path(), "b-9999-r1", None);
    let repo = open(&directory);
    let package = repo.package(&cp()).expect("a package");
    assert_eq!(
        (package.without_metadata.as_slice(), sharing(&package, "a")),
        (&["b-9999-r1".to_owned()][..], (true, true, false))
    );

    let given = BTreeMap::from([("b-9999-r1".to_owned(), MdEntry::default())]);
    let package = repo.package_with(&cp(), &given).expect("a package");
    assert_eq!((package.without_metadata.len(), sharing(&package, "a")), (0, (true, true, true)));
}

#[test]
fn an_entry_of_another_ebuild_or_eclass_is_worth_nothing_until_it_is_given_anew() {
    let directory = repository(&["a"]);
    let root = directory.path();
    put(root, "eclass/e.eclass", "one\n");
    let text = |eclass: &str| format!("LICENSE=MIT;SRC_URI=https://x/a;_eclasses_=e\t{}", Md5::of(eclass.as_bytes()));
    ebuild(root, "b-1", Some(&text("one\n")));
    ebuild(root, "b-2", Some("LICENSE=MIT;SRC_URI=https://x/a"));
    let conf = ReposConf::parse(&format!("[mine]\nlocation = {}\n", root.display()));
    let package = || conf.repos[0].open(&mut BTreeMap::new()).expect("a repository").package(&cp()).expect("a package");
    assert_eq!((package().stale, package().inherited.as_str(), sharing(&package(), "a")), (0, "e", (true, true, true)));

    put(root, "eclass/e.eclass", "two\n");
    assert_eq!(
        (package().without_metadata, package().stale, package().inherited.as_str()),
        (vec!["b-1".to_owned()], 1, "*")
    );
    assert_eq!(sharing(&package(), "a"), (true, true, false));
    ebuild(root, "b-1", Some(&text("two\n")));
    assert_eq!((package().stale, sharing(&package(), "a")), (0, (true, true, true)));

    put(root, "a/b/b-2.ebuild", "EAPI=8\nRESTRICT=fetch\n");
    assert_eq!((package().without_metadata, sharing(&package(), "a")), (vec!["b-2".to_owned()], (true, true, false)));
    let given = MdEntry::parse(b"RESTRICT=fetch\nSRC_URI=https://x/a\nINHERITED=e f\n").expect("an entry");
    let repo = conf.repos[0].open(&mut BTreeMap::new()).expect("a repository");
    let package = repo.package_with(&cp(), &BTreeMap::from([("b-2".to_owned(), given)])).expect("a package");
    assert_eq!((package.stale, package.inherited.as_str(), sharing(&package, "a")), (0, "e f", (true, true, false)));
}

#[test]
fn a_stamp_of_eclasses_changes_with_each_that_is_named_and_with_no_other() {
    let directory = repository(&["a"]);
    let root = directory.path();
    put(root, "eclass/e.eclass", "one\n");
    put(root, "eclass/f.eclass", "one\n");
    let conf = ReposConf::parse(&format!("[mine]\nlocation = {}\n", root.display()));
    let stamps = || {
        let repo = conf.repos[0].open(&mut BTreeMap::new()).expect("a repository");
        ["", "e", "f", "e f", "g", "*"].map(|names| repo.eclass_stamp(names))
    };
    let changed = |before: [[u8; 16]; 6]| {
        let both = before.into_iter().zip(stamps());
        both.map(|(before, now)| if before == now { '.' } else { 'x' }).collect::<String>()
    };
    let before = stamps();
    assert_eq!(changed(before), "......");
    put(root, "eclass/e.eclass", "longer\n");
    assert_eq!(changed(before), ".x.x.x");
    let before = stamps();
    put(root, "eclass/g.eclass", "new\n");
    assert_eq!(changed(before), "....xx");
    let before = stamps();
    fs::remove_file(root.join("eclass/f.eclass")).expect("removed");
    assert_eq!(changed(before), "..xx.x");
}

#[test]
fn an_ebuild_that_cannot_be_read_is_a_problem_and_stops_announcing() {
    for broken in ["SRC_URI=( https://x/a", "nothing", "SRC_URI=https://x/.."] {
        let directory = repository(&["a"]);
        ebuild(directory.path(), "b-1", Some("LICENSE=MIT;SRC_URI=https://x/a"));
        ebuild(directory.path(), "b-2", Some(broken));
        let package = open(&directory).package(&cp()).expect("a package");
        assert_eq!((package.problems.len(), sharing(&package, "a")), (1, (true, true, false)), "{broken}");
        assert!(package.problems[0].contains("b-2"), "{:?}", package.problems);
    }
}

#[test]
fn the_eula_group_of_a_master_counts() {
    let master = repository(&[]);
    put(master.path(), "profiles/license_groups", "EULA secret\n");
    put(master.path(), "profiles/thirdpartymirrors", "npm https://master.example\n");
    let directory = repository(&["a"]);
    ebuild(directory.path(), "b-1", Some("LICENSE=secret;SRC_URI=mirror://npm/a"));
    let mut repo = open(&directory);
    assert!(sharing(&repo.package(&cp()).expect("a package"), "a").2);
    repo.inherit(&open(&master));
    assert!(!sharing(&repo.package(&cp()).expect("a package"), "a").2);
    assert_eq!(repo.thirdparty().expand("mirror://npm/a"), ["https://master.example/a"]);
}

#[test]
fn a_link_out_of_the_repository_is_not_followed() {
    let outside = TempDir::new().expect("a temporary directory");
    put(outside.path(), "Manifest", &dist("secret"));
    put(outside.path(), "b-1", "LICENSE=MIT\nSRC_URI=https://x/a\n");
    let directory = repository(&["a"]);
    ebuild(directory.path(), "b-1", None);
    symlink(outside.path().join("b-1"), directory.path().join("a/b-1")).expect("a link is made");
    put(directory.path(), "metadata/md5-cache/a/x", "");
    symlink(outside.path().join("b-1"), directory.path().join("metadata/md5-cache/a/b-1")).expect("a link is made");
    let package = open(&directory).package(&cp()).expect("a package");
    assert!(package.problems[0].contains("out of the repositories"), "{:?}", package.problems);

    fs::remove_file(directory.path().join("a/b/Manifest")).expect("removed");
    symlink(outside.path().join("Manifest"), directory.path().join("a/b/Manifest")).expect("a link is made");
    let error = open(&directory).package(&cp()).expect_err("the Manifest is elsewhere");
    assert!(std::error::Error::source(&error).expect("a cause").to_string().contains("out of the repositories"));

    symlink(outside.path(), directory.path().join("a/linked")).expect("a link is made");
    let scanned: Vec<String> = open(&directory).scan().expect("a scan").iter().map(|(cp, _)| cp.to_string()).collect();
    assert_eq!(scanned, ["a/b"]);
}

#[test]
fn a_huge_manifest_and_one_that_is_a_directory_are_refused() {
    let directory = repository(&["a"]);
    let manifest = directory.path().join("a/b/Manifest");
    #[expect(clippy::disallowed_methods, reason = "a test makes its repository")]
    let file = fs::File::create(&manifest).expect("opens");
    file.set_len((32 << 20) + 1).expect("a sparse file");
    assert!(open(&directory).package(&cp()).is_err());
    fs::remove_file(&manifest).expect("removed");
    assert!(open(&directory).package(&cp()).is_err());
    fs::create_dir(&manifest).expect("made");
    assert!(open(&directory).package(&cp()).is_err());
    assert_eq!(open(&directory).scan().expect("a scan").len(), 0);
}

#[test]
fn a_stamp_changes_with_the_manifest_and_with_each_cache_entry() {
    let directory = repository(&["a"]);
    ebuild(directory.path(), "b-1", Some("SLOT=0"));
    ebuild(directory.path(), "b-bin-1", Some("SLOT=0"));
    let repo = open(&directory);
    let stamp = || repo.scan().expect("a scan")[0].1;
    let first = stamp();
    assert_eq!(first, stamp());
    put(directory.path(), "metadata/md5-cache/a/b-2", "SLOT=2\n");
    let second = stamp();
    assert_ne!(first, second);
    put(directory.path(), "metadata/md5-cache/a/b-bin-1", "SLOT=77\n");
    assert_eq!(second, stamp(), "an entry of another package does not matter");
    put(directory.path(), "a/b/Manifest", &dist("longer-name"));
    assert_ne!(second, stamp());
}

#[test]
fn the_ebuilds_are_in_the_stamp_with_and_without_md5_cache() {
    for without in [false, true] {
        let directory = repository(&["a"]);
        if without {
            fs::remove_dir_all(directory.path().join("metadata")).expect("removed");
        }
        ebuild(directory.path(), "b-1", None);
        let repo = open(&directory);
        assert_eq!((repo.has_md5_cache(), repo.says_masters()), (!without, !without));
        let first = repo.scan().expect("a scan")[0].1;
        put(directory.path(), "a/b/b-1.ebuild", "EAPI=8\nRESTRICT=mirror\n");
        let second = repo.scan().expect("a scan")[0].1;
        ebuild(directory.path(), "b-2", None);
        assert!(first != second && second != repo.scan().expect("a scan")[0].1, "{without}");
    }
}

#[test]
fn an_atom_finds_its_ebuilds_in_order() {
    let directory = repository(&["a"]);
    ebuild(directory.path(), "b-1.10", Some("SLOT=2/3;SRC_URI=https://x/a https://y/a u? ( https://x/c )"));
    ebuild(directory.path(), "b-1.9", Some("SLOT=0"));
    ebuild(directory.path(), "b-2", None);
    put(directory.path(), "a/b/c-1.ebuild", "");
    let repo = open(&directory);
    assert_eq!(repo.ebuilds(&cp()), ["b-1.9", "b-1.10", "b-2"]);
    let versions: Vec<(String, Option<String>)> = repo
        .versions(&cp())
        .expect("versions")
        .into_iter()
        .map(|(version, slot)| (version.to_string(), slot))
        .collect();
    assert_eq!(
        versions,
        [("1.9".to_owned(), Some("0".to_owned())), ("1.10".to_owned(), Some("2/3".to_owned())), ("2".to_owned(), None)]
    );
    let find = |atom: &str| -> Vec<String> {
        let atom: Atom = atom.parse().expect("an atom");
        repo.find(&atom).expect("an answer").iter().map(|found| found.cpv.to_string()).collect()
    };
    assert_eq!(find("=a/b-1*"), ["a/b-1.9", "a/b-1.10"]);
    assert_eq!(find("a/b:2"), ["a/b-1.10", "a/b-2"]);
    assert_eq!(find("a/b::mine").len(), 3);
    assert_eq!(find("a/b::other"), Vec::<String>::new());
    assert_eq!(find("a/missing"), Vec::<String>::new());
    let found = repo.find(&"=a/b-1.10".parse().expect("an atom")).expect("an answer");
    assert_eq!(found[0].distfiles.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a", "c"]);
}

#[test]
fn a_repository_without_a_name_is_called_after_its_directory() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("my overlay");
    fs::create_dir(&path).expect("made");
    assert_eq!(EbuildRepo::open(&path).expect("a repository").name().as_str(), "x-my-overlay");
    put(&path, "profiles/repo_name", "my.repo name!\n");
    assert_eq!(EbuildRepo::open(&path).expect("a repository").name().as_str(), "my-repo-name");
    assert!(matches!(EbuildRepo::open(&path.join("none")), Err(OpenRepoError::Directory { .. })));
    assert!(matches!(EbuildRepo::open(&path.join("profiles/repo_name")), Err(OpenRepoError::NotADirectory { .. })));
}
