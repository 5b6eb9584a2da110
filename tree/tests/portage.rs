//! The same questions to this crate and to Portage itself.

mod asked;
mod sample;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use asked::{compare, put};
use tree::atom::Atom;
use tree::conf::MakeConf;
use tree::cpv::Cpv;
use tree::manifest::Manifest;
use tree::mdcache::MdEntry;
use tree::repo::EbuildRepo;
use tree::restrict::Restrict;
use tree::sources::Sources;
use tree::uri::SrcUri;
use tree::version::Version;

fn lines(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Every version that the sample and the table have, and variations of them.
fn versions() -> Vec<String> {
    let mut versions: Vec<String> = lines(include_str!("versions.txt"))
        .filter(|line| !line.starts_with("bad"))
        .flat_map(|line| line.split(' ').step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for base in
        ["0", "00", "1", "01", "010", "10", "1.0", "1.00", "1.01", "1.010", "1.1", "1.10", "1.a".trim_end_matches(".a")]
    {
        for rest in
            ["", "a", "z", "_alpha", "_alpha0", "_pre1", "_p", "_p01", "_rc2_p3", "_p_p", "-r0", "-r1", "b_beta3-r10"]
        {
            versions.push(format!("{base}{rest}"));
        }
    }
    versions.sort();
    versions.dedup();
    versions
}

#[test]
fn versions_are_ordered_as_portage_orders_them() {
    let versions = versions();
    let mut cases = Vec::new();
    for left in &versions {
        for right in &versions {
            let parsed = (left.parse::<Version>().expect("a version"), right.parse::<Version>().expect("a version"));
            cases.push((format!("version\t{left}\t{right}"), (parsed.0.cmp(&parsed.1) as i8).to_string()));
        }
    }
    for bad in lines(include_str!("versions.txt")).filter_map(|line| line.strip_prefix("bad ")) {
        // Portage's own expression takes any script's digits here, against PMS.
        if bad.is_ascii() {
            cases.push((format!("version\t{bad}\t1"), "ERROR".to_owned()));
        }
    }
    compare(&cases);
}

#[test]
fn atoms_match_as_portage_matches_them() {
    let mut cases = Vec::new();
    let mut atoms = Vec::new();
    let mut cpvs = Vec::new();
    for line in lines(include_str!("atoms.txt")) {
        let fields: Vec<&str> = line.split(" | ").collect();
        if let [atom, cpv, slot, _] = fields[..] {
            atoms.push(atom.to_owned());
            cpvs.push((cpv.to_owned(), slot.to_owned()));
        } else if let Some(bad) = line.strip_prefix("bad ") {
            cases.push((format!("match\t{bad}\ta/b-1\t?"), "ERROR".to_owned()));
        }
    }
    for version in versions() {
        cpvs.push((format!("a/b-{version}"), "0".to_owned()));
        atoms.push(format!("=a/b-{version}*"));
        if !version.contains('-') {
            atoms.push(format!("~a/b-{version}"));
        }
    }
    cpvs.sort();
    cpvs.dedup();
    for text in &atoms {
        let atom: Atom = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        for (cpv, slot) in &cpvs {
            let known = (slot != "?").then_some(slot.as_str());
            let matches = atom.matches(&cpv.parse::<Cpv>().expect("a cpv"), known);
            cases.push((format!("match\t{text}\t{cpv}\t{slot}"), if matches { "yes" } else { "no" }.to_owned()));
        }
    }
    compare(&cases);
}

/// A SRC_URI as Portage's map prints: each name once, with its URIs each once.
fn src_uri_map(text: &str) -> String {
    let Ok(src_uri) = SrcUri::parse(text) else { return "ERROR".to_owned() };
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for entry in src_uri.iter() {
        let prefix = match entry.exempt {
            tree::uri::Exempt::None => "",
            tree::uri::Exempt::Fetch => "fetch+",
            tree::uri::Exempt::Mirror => "mirror+",
        };
        if !names.iter().any(|(name, _)| *name == entry.name.as_ref()) {
            names.push((entry.name.to_string(), Vec::new()));
        }
        let uris = names.iter_mut().filter(|(name, _)| *name == entry.name.as_ref()).map(|(_, uris)| uris);
        for uris in uris {
            let uri = entry.uri.as_ref().map(|uri| format!("{prefix}{uri}"));
            uris.extend(uri.filter(|uri| !uris.contains(uri)));
        }
    }
    let printed = |(name, uris): (String, Vec<String>)| [vec![name], uris].concat().join(" ");
    names.into_iter().map(printed).collect::<Vec<_>>().join("\t")
}

#[test]
fn src_uris_of_the_table_are_read_as_portage_reads_them() {
    let cases: Vec<(String, String)> = lines(include_str!("src_uri.txt"))
        .filter_map(|line| line.split_once("=>"))
        .filter(|(_, expected)| expected.trim() != "error!")
        .map(|(text, _)| (format!("src_uri\t8\t{}", text.trim()), src_uri_map(text)))
        .collect();
    compare(&cases);
}

#[test]
fn a_real_overlay_is_read_as_portage_reads_it() {
    let Some(directory) = sample::unpacked() else { return };
    let repo = EbuildRepo::open(directory.path()).expect("the sample is a repository");
    let mut cases = Vec::new();
    for (cp, _) in repo.scan().expect("a scan") {
        let package = directory.path().join(cp.to_string());
        let manifest = Manifest::parse(&fs::read(package.join("Manifest")).expect("a Manifest"));
        let printed = |distfile: &tree::distfile::Distfile| {
            let sha512 = distfile.sha512.map_or("-".to_owned(), |sha512| sha512.to_string());
            format!("{} {} {} {sha512}", distfile.name, distfile.size, distfile.blake2b)
        };
        let distfiles: Vec<String> = manifest.distfiles.iter().map(printed).collect();
        cases.push((format!("manifest\t{}", package.display()), distfiles.join("\t")));
        for pf in repo.ebuilds(&cp) {
            let path = directory.path().join("metadata/md5-cache").join(cp.category.as_ref()).join(&pf);
            let entry = MdEntry::parse(&fs::read(path).expect("an entry")).expect("an entry");
            cases.push((format!("src_uri\t{}\t{}", entry.eapi, entry.src_uri), src_uri_map(&entry.src_uri)));
            let restrict = Restrict::parse(&entry.restrict);
            let set = [("fetch", restrict.fetch), ("mirror", restrict.mirror), ("bindist", restrict.bindist)];
            let words: Vec<&str> = set.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect();
            cases.push((format!("restrict\t{}", entry.restrict), words.join(" ")));
        }
    }
    compare(&cases);
}

#[test]
fn words_are_split_as_portage_splits_them() {
    let texts = [
        "",
        " ",
        "a b",
        "a\tb\nc",
        "'a b' c",
        "\"a b\" c",
        "a\\ b",
        "\"a\\\"b\" c",
        "\"a\\b\"",
        "'a\\b'",
        "a'b'c\"d\"",
        "''",
        "\"\" x",
        "a 'b",
        "a \"b",
        "a\\",
        "\"a\\",
        "# a",
        "a #b",
        "é ü",
        "a\u{a0}b",
        "a=b;c|d&e",
        "$(x) `y` *",
    ];
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ours = |text: &str| match tree::shell_words::split(text) {
        Ok(words) => Some(words.join("\t")).filter(|words| !words.is_empty()).unwrap_or("-".to_owned()),
        Err(_) => "ERROR".to_owned(),
    };
    compare(&texts.map(|text| (format!("words\t{}", hex(text)), ours(text))));
}

#[test]
fn make_conf_is_read_as_portage_reads_it() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let mut cases = Vec::new();
    for case in include_str!("make_conf.txt").split("\n== ").skip(1) {
        let (name, text) = case.split_once('\n').expect("a name and a text");
        let root = directory.path().join(name);
        let text = text
            .replace("PORTAGE_CONFIGROOT}/../", "PORTAGE_CONFIGROOT}")
            .replace("${PORTAGE_CONFIGROOT}$F", &format!("{}/etc/portage/$F", root.display()));
        put(&root, "etc/portage/make.conf", &text);
        put(&root, "etc/portage/sourced.conf", "S=\"sourced $A\"");
        put(&root, "etc/portage/sub/inner.conf", "source other.conf\nI=\"inner $O\"\n");
        put(&root, "etc/portage/sub/other.conf", "O=other\n");
        let ours = MakeConf::load(&root).map_or("ERROR".to_owned(), |conf| {
            let hex = |value: &str| value.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
            let given = ["EPREFIX", "PORTAGE_CONFIGROOT"];
            let values = conf.iter().filter(|(key, _)| !given.contains(key));
            values.map(|(key, value)| format!("{key}={}", hex(value))).collect::<Vec<_>>().join("\t")
        });
        cases.push((format!("config\t{}", root.join("etc/portage/make.conf").display()), ours));
    }
    assert!(cases.len() > 30, "the table has its cases");
    compare(&cases);
}

/// Links in the repositories `main` and `cross`: where each lies, and what it says; `@` is the directory of both.
const LINKED_PACKAGES: &[(&str, &str)] = &[
    ("cross/cross-a/gcc", "@/main/sys-devel/gcc"),
    ("cross/cross-a/binutils", "../../main/sys-devel/binutils"),
    ("cross/cross-b", "../main/sys-devel"),
    ("cross/cross-c", "cross-a"),
    ("cross/cross-d/gcc", "../../cross/cross-b/gcc"),
    ("cross/cross-e/gcc", "@/way/main/sys-devel/gcc"),
    ("cross/app-a/file/file-1.ebuild", "@/main/app-a/file/file-1.ebuild"),
    ("cross/app-a/file/file-2.ebuild", "file-1.ebuild"),
    ("main/app-b", "app-a"),
    ("main/app-a/round", "../app-a/round"),
    ("main/app-a/nothing", "../../nothing"),
    ("way", "."),
];

#[test]
fn packages_that_are_links_within_and_between_repositories_are_packages() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    let categories = "app-a\napp-b\nsys-devel\ncross-a\ncross-b\ncross-c\ncross-d\ncross-e\n";
    let mut repos_conf = "[DEFAULT]\nmain-repo = main\n".to_owned();
    for name in ["main", "cross"] {
        put(&base, &format!("{name}/profiles/repo_name"), name);
        put(&base, &format!("{name}/profiles/categories"), categories);
        put(&base, &format!("{name}/metadata/layout.conf"), "masters =\nthin-manifests = true\n");
        writeln!(repos_conf, "[{name}]\nlocation = {}/{name}", base.display()).expect("a string grows");
    }
    for file in ["sys-devel/gcc/gcc-1", "sys-devel/gcc/gcc-2", "sys-devel/binutils/binutils-1", "app-a/file/file-1"] {
        put(&base, &format!("main/{file}.ebuild"), "EAPI=8\nSLOT=0\n");
    }
    put(&base, "out/gcc/gcc-1.ebuild", "EAPI=8\nSLOT=0\n");
    put(&base, "root/etc/portage/repos.conf", &repos_conf);
    for (at, to) in LINKED_PACKAGES {
        let at = base.join(at);
        fs::create_dir_all(at.parent().expect("a parent")).expect("a directory");
        std::os::unix::fs::symlink(to.replace('@', &base.display().to_string()), at).expect("a link");
    }
    let roots = ["main", "cross"].map(|name| base.join(name));
    let ebuilds = || {
        let mut found = Vec::new();
        for root in &roots {
            let repo = EbuildRepo::open(root).expect("a repository").beside(roots.clone());
            for (cp, _) in repo.scan_all().expect("a scan") {
                found.extend(repo.ebuilds(&cp).iter().map(|pf| format!("{} {}/{pf}", repo.name(), cp.category)));
            }
        }
        found.sort();
        found.join("\t")
    };
    let ours = ebuilds();
    for of_links in ["cross cross-a/gcc-2", "cross cross-c/gcc-1", "cross cross-e/gcc-1", "cross app-a/file-2"] {
        assert!(ours.contains(of_links), "{of_links} is not among {ours}");
    }
    compare(&[(format!("packages\t{}/root", base.display()), ours.clone())]);
    // What leads out of them is the one difference: a repository says nothing of the rest of the machine.
    for (at, to) in [("cross/cross-a/out", "@/out"), ("cross/sys-devel", "@/out"), ("cross/cross-b/x", "/")] {
        let at = base.join(at);
        if at.parent().is_some_and(Path::is_dir) {
            std::os::unix::fs::symlink(to.replace('@', &base.display().to_string()), at).expect("a link");
        }
    }
    assert_eq!(ebuilds(), ours);
}

#[test]
fn make_conf_sources_what_portage_says_it_does() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    let dots = base.join("dots");
    for (file, text) in
        [("one", "source two\n"), ("two", "A=2"), ("sub/three", "source ../four # x\n"), ("four", ""), ("a b", "B=1\n")]
    {
        put(&dots, file, text);
    }
    let files: &[(&str, &str)] = &[
        ("etc/portage/make.conf", "source @/one\nsource @/sub/three"),
        ("etc/portage/make.conf", "DOTS=\"@\"\nsource ${DOTS}/one\n"),
        ("etc/portage/make.conf", "source \"@/a b\"\nsource '@/four'\n"),
        ("etc/portage/make.conf", "# source @/one\nA=\"\nsource @/one\n\"\nsource @/./sub/../two\n"),
        ("etc/portage/make.conf/10", "source ../../../../../dots/four\n"),
        ("etc/make.conf", "D=@\nsource $D/two\n"),
        ("etc/portage/make.conf/zz", "A=\u{e9}\nsource @/two\n"),
    ];
    let mut cases = Vec::new();
    for (number, (path, text)) in files.iter().enumerate() {
        let root = base.join(format!("cases/{number}"));
        put(&root, path, text.replace('@', &dots.display().to_string()));
        // Latin-1, as old comments have it.
        let bytes = fs::read(root.join(path)).expect("just written");
        #[expect(clippy::disallowed_methods, reason = "a test makes its files")]
        fs::write(root.join(path), [b"# caf\xe9 \xff\n", &*bytes].concat()).expect("a test can write");
        let normal = |path: &std::path::PathBuf| path.canonicalize().expect("it is there").display().to_string();
        let ours: Vec<String> = Sources::of_make_conf(&root).files().iter().map(normal).collect();
        cases.push((format!("sourced\t{}", root.display()), ours.join("\t")));
    }
    assert!(cases.iter().filter(|(_, ours)| !ours.is_empty()).count() >= 6, "{cases:?}");
    compare(&cases);
}
