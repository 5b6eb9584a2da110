//! Which repositories there are, and which of their metadata counts: asked of Portage case by case.

mod asked;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use asked::{compare, put};
use tempfile::TempDir;
use tree::conf::{CustomMirrors, ReposConf};
use tree::cpv::Cpv;
use tree::md5::Md5;
use tree::repo::EbuildRepo;
use tree::thirdparty::ThirdPartyMirrors;

/// Repositories that the cases name.
fn repositories(base: &Path) {
    for (directory, name, layout) in [
        ("gentoo", Some("gentoo"), "masters =\n"),
        ("alpha", Some("alpha"), "masters =\n"),
        ("beta", Some("beta"), "masters =\n"),
        ("plain", Some("plain"), "masters =\n"),
        ("unnamed", None, "masters =\n"),
        ("laidout", None, "repo-name = renamed\nmasters =\n"),
        ("copy", Some("gentoo"), "masters =\nrepo-name = gentoo-copy\n"),
        ("copy2", Some("gentoo"), "masters =\n"),
        ("aliased", Some("aliased"), "masters = gentoo\naliases = nick other\n"),
        ("nomasters", Some("nomasters"), "thin-manifests = true\n"),
        ("two", Some("two"), "masters = alpha gentoo\n"),
        ("byalias", Some("byalias"), "# masters = x\nmasters = nick\n"),
        ("nowhere", Some("nowhere"), "masters = nobody alpha\n"),
        ("odd", Some("-odd!name x\nsecond"), "masters =\n"),
        ("blank", Some(" \n"), "masters =\n"),
        ("with space", Some("spaced"), "masters =\n"),
    ] {
        put(base, &format!("{directory}/metadata/layout.conf"), layout);
        if let Some(name) = name {
            put(base, &format!("{directory}/profiles/repo_name"), name);
        }
    }
    fs::create_dir(base.join("bare")).expect("a directory is made");
    symlink("alpha", base.join("link")).expect("a link is made");
}

/// A name and its files: `== NAME`, then `-- PATH` and the lines of it.
fn cases(table: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut cases: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push((name, Vec::new()));
        } else if let Some((_, files)) = cases.last_mut() {
            match (line.strip_prefix("-- "), files.last_mut()) {
                (Some(path), _) => files.push((path, String::new())),
                (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
                (None, None) => assert_eq!(line, "", "a line of no file"),
            }
        }
    }
    cases
}

#[test]
fn repositories_are_those_that_portage_finds() {
    let directory = TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    repositories(&base);
    let (mut asked, mut loaded) = (Vec::new(), BTreeMap::new());
    for (case, files) in cases(include_str!("repos_conf.txt")) {
        let root = base.join("cases").join(case);
        put(&root, "etc/portage/x", "");
        for (path, text) in files {
            let text =
                text.replace('@', &base.display().to_string()).replace("^M\n", "\r\n").replace("<BOM>", "\u{feff}");
            let bytes: Vec<u8> =
                text.replace("<FF>", "\u{1}").bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
            put(&root.join("etc/portage"), path, bytes);
        }
        let conf = ReposConf::load(&root).expect("files that can be read");
        let mut words = vec![conf.main_repo.as_ref().map_or("-".to_owned(), ToString::to_string)];
        words.extend(conf.repos.iter().map(|repo| {
            let masters: Vec<&str> = repo.masters.iter().map(AsRef::as_ref).collect();
            let eclasses: Vec<String> = repo.eclasses_of.iter().map(|place| place.display().to_string()).collect();
            let (name, location, priority) = (&repo.name, repo.location.display(), repo.priority);
            format!("{name} {location} {priority} {} {}", masters.join(","), eclasses.join(","))
        }));
        asked.push((format!("repos\t{}", root.display()), words.join("\t")));
        loaded.insert(case, conf);
    }
    // What is compared is not empty, also where there is no Portage to compare with.
    let names = |case: &str| -> Vec<String> { loaded[case].repos.iter().map(|repo| repo.name.to_string()).collect() };
    assert_eq!(names("directory"), ["alpha", "gentoo", "plain", "beta"]);
    assert_eq!(names("overlays"), ["gentoo", "beta", "alpha", "spaced"]);
    assert!(loaded.len() > 60, "the table has its cases");
    compare(&asked);
}

#[test]
fn what_is_left_out_says_where_and_why() {
    let directory = TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    repositories(&base);
    let all: BTreeMap<_, _> = cases(include_str!("repos_conf.txt")).into_iter().collect();
    for (case, told) in [
        ("one-file", &[][..]),
        (
            "missing-directory",
            &["repos.conf line 4: [gone]: @/gone is not a directory", "repos.conf line 5: [empty]: it has no location"],
        ),
        (
            "other-name",
            &["repos.conf line 2: [gentoo]: the repository at @/alpha is named alpha, so the section must be [alpha]"],
        ),
        (
            "section-twice-in-a-file",
            &["repos.conf line 3: line 3: \"gentoo\" is there twice; Portage then uses no repos.conf at all"],
        ),
        (
            "a-broken-file-among-good-ones",
            &["repos.conf/b line 2: line 2: expected [SECTION] or KEY = VALUE; Portage then uses no repos.conf at all"],
        ),
        (
            "reference-to-nothing",
            &[
                "repos.conf line 2: [alpha] location: a wrong reference after \"%\"; Portage then uses no repos.conf at all",
            ],
        ),
        ("unknown-main", &["repos.conf line 2: main-repo \"none\" is not configured"]),
        (
            "masters-of-repos-conf",
            &[
                "repos.conf line 6: [alpha]: its master \"nowhere\" is not configured, so eclasses and licence groups of that are not known",
            ],
        ),
        ("overlays", &["PORTDIR_OVERLAY: @/gone is not a directory"]),
        ("overlays-in-odd-quotes", &["PORTDIR_OVERLAY: no closing quotation"]),
        ("portdir-elsewhere", &["repos.conf line 4: [gentoo]: PORTDIR replaces its location @/gentoo"]),
    ] {
        let root = base.join("cases").join(case);
        for (path, text) in &all[case] {
            put(&root.join("etc/portage"), path, text.replace('@', &base.display().to_string()));
        }
        let conf = ReposConf::load(&root).expect("files that can be read");
        let etc = format!("{}/", root.join("etc/portage").display());
        let found: Vec<String> = conf
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&etc, "").replace(&base.display().to_string(), "@"))
            .collect();
        assert_eq!(found, told, "{case}");
    }
}

#[test]
fn a_text_for_another_portage_means_the_same_repositories() {
    let directory = TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    repositories(&base);
    let root = base.join("root");
    let text = format!("PORTDIR_OVERLAY=\"{0}/two '{0}/with space'\"\nPORTDIR=\"{0}/gentoo\"\n", base.display());
    put(&root, "etc/portage/make.conf", text);
    put(&root, "etc/portage/repos.conf", format!("[nick]\nlocation = {}/aliased\n", base.display()));
    let conf = ReposConf::load(&root).expect("files that can be read");
    let again = ReposConf::parse(&conf.to_text());
    let shown = |conf: &ReposConf| -> Vec<String> {
        let repos = conf
            .repos
            .iter()
            .map(|repo| format!("{} {:?} {} {:?}", repo.name, repo.location, repo.priority, repo.masters));
        repos.chain([format!("{:?}", conf.main_repo)]).collect()
    };
    assert_eq!(conf.repos.len(), 4);
    assert_eq!(shown(&again), shown(&conf));
}

const ECLASS: &str = "# an eclass\n";
const OTHER: &str = "# another\n";

/// A repository with the eclasses `one` and `two`, and an overlay that has a `two` of its own.
fn with_eclasses(base: &Path) {
    repositories(base);
    put(base, "gentoo/eclass/one.eclass", ECLASS);
    put(base, "gentoo/eclass/two.eclass", ECLASS);
    put(base, "aliased/eclass/two.eclass", OTHER);
    put(base, "aliased/eclass/three.eclass", OTHER);
    put(base, "beta/metadata/layout.conf", "masters = gentoo\ncache-formats = pms md5-dict\n");
    put(base, "plain/metadata/layout.conf", "masters = gentoo\ncache-formats = sqlite\n");
    let conf =
        ["gentoo", "aliased", "beta", "plain"].map(|name| format!("[{name}]\nlocation = {}/{name}\n", base.display()));
    put(base, "root/etc/portage/repos.conf", format!("[DEFAULT]\nmain-repo = gentoo\n{}", conf.concat()));
}

#[test]
fn md5_cache_counts_where_portage_takes_it() {
    let directory = TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    with_eclasses(&base);
    let ebuild = "EAPI=8\nSLOT=0\n";
    let (own, one, other) = (Md5::of(ebuild.as_bytes()), Md5::of(ECLASS.as_bytes()), Md5::of(OTHER.as_bytes()));
    let entries: Vec<Vec<u8>> = [
        format!("EAPI=8\nSLOT=0\n_md5_={own}\n"),
        format!("SLOT=0\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_md5_={one}\n"),
        format!("EAPI=8\nSLOT=0\n_md5_={}\n", own.to_string().to_uppercase()),
        format!("EAPI=8\nSLOT=0\n_md5_={own} \n"),
        format!("EAPI=8\nSLOT=0\n_md5_={one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_md5_={own}\n_md5_={one}\n"),
        "EAPI=8\nSLOT=0\n".to_owned(),
        "EAPI=8\nSLOT=0\n_mtime_=1\n".to_owned(),
        "EAPI=8\nSLOT=0\n_md5_=\n".to_owned(),
        String::new(),
        "\n".to_owned(),
        format!("EAPI=8\nnothing\n_md5_={own}\n"),
        format!("EAPI=77\nSLOT=0\n_md5_={own}\n"),
        format!("EAPI=9\nSLOT=0\n_md5_={own}\n"),
        format!("EAPI= 8 \nSLOT=0\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\t\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_= one\t{one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{other}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\ttwo\t{one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\ttwo\t{other}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\tgone\t{one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=three\t{other}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t/eclass\t{one}\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t1764236400\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{one}\n"),
        format!("EAPI=8\nINHERITED=gone\nSLOT=0\n_md5_={own}\n"),
        format!("EAPI=8\nSLOT=0\n_eclasses_=one\t{}\n_md5_={own}\n", one.to_string().to_uppercase()),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([[b"DESCRIPTION=\xff\nEAPI=8\n_md5_=".as_slice(), own.to_string().as_bytes(), b"\n"].concat()])
    .collect();
    let mut cases = Vec::new();
    let mut known = BTreeMap::new();
    for name in ["gentoo", "aliased", "beta", "plain"] {
        for (number, entry) in entries.iter().enumerate() {
            put(&base, &format!("{name}/app-misc/p{number}x/p{number}x-1.ebuild"), ebuild);
            put(&base, &format!("{name}/app-misc/p{number}x/Manifest"), "");
            put(&base, &format!("{name}/metadata/md5-cache/app-misc/p{number}x-1"), entry);
        }
        let conf = ReposConf::load(&base.join("root")).expect("files that can be read");
        let conf = conf.get(&name.parse().expect("a name")).expect("it is configured").clone();
        let repo = conf.open(&mut known).expect("a repository");
        for number in 0..entries.len() {
            let cpv: Cpv = format!("app-misc/p{number}x-1").parse().expect("a cpv");
            let belongs = repo.package(&cpv.cp).expect("a package").without_metadata.is_empty();
            let question = format!("belongs\t{}\t{name}\t{cpv}", base.join("root").display());
            cases.push((question, if belongs { "yes" } else { "no" }.to_owned()));
        }
    }
    assert!(cases.iter().any(|(_, belongs)| belongs == "yes"));
    compare(&cases);
}

#[test]
fn mirrors_of_the_user_mean_what_they_mean_to_portage() {
    let directory = TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    repositories(&base);
    put(
        &base,
        "gentoo/profiles/thirdpartymirrors",
        "gnu https://g1/gnu/ https://g2\nsf https://s1 # https://s2\nx https://x\n",
    );
    put(&base, "alpha/profiles/thirdpartymirrors", "gnu https://a1 -https://g2\nown\thttps://own\n");
    put(&base, "beta/profiles/thirdpartymirrors", "x -* \ngnu -https://a1\n");
    let conf = ["gentoo", "alpha", "beta"].map(|name| format!("[{name}]\nlocation = {}/{name}\n", base.display()));
    let mut cases = Vec::new();
    for (number, files) in [
        &[][..],
        &[("mirrors", "gnu https://mine/ http://mine2/x//\nlocal http://lan http://lan2/\n")],
        &[("mirrors", "# gnu https://no\ngnu https://1\n\ngnu\nsf https://2 #https://3\n gnu https://4\n")],
        &[
            ("mirrors/b", "gnu https://b\nlocal /dir http://b\n"),
            ("mirrors/a", "gnu https://a\n"),
            ("mirrors/c~", "gnu https://c\n"),
        ],
        &[("mirrors", "new https://new\nlocal\n#local http://no\n")],
    ]
    .into_iter()
    .enumerate()
    {
        let root = base.join(format!("root{number}"));
        put(&root, "etc/portage/repos.conf", format!("[DEFAULT]\nmain-repo = gentoo\n{}", conf.concat()));
        files.iter().for_each(|(path, text)| put(&root.join("etc/portage"), path, text));
        let custom = CustomMirrors::load(&root).expect("files that can be read");
        let mut thirdparty = ThirdPartyMirrors::default();
        let repos = ReposConf::load(&root).expect("files that can be read").repos;
        for repo in repos.iter().rev() {
            thirdparty.merge(EbuildRepo::open(&repo.location).expect("a repository").thirdparty());
        }
        for uri in [
            "mirror://gnu/a/b",
            "mirror://sf/c",
            "mirror://own/d",
            "mirror://new/e",
            "mirror://x/f",
            "mirror://nobody/g",
        ] {
            let uris = [custom.named().expand(uri), thirdparty.expand(uri)].concat();
            let ours = [custom.local().to_vec(), vec!["|".to_owned()], uris].concat().join(" ");
            cases.push((format!("mirrors\t{}\t{uri}\tlocal", root.display()), ours));
        }
    }
    compare(&cases);
}
