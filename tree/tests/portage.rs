//! The same questions to this crate and to Portage itself.
//!
//! `PEERAGE_PYTHON` names a Python that has Portage; without it nothing is compared, which only CI takes as a failure.

mod sample;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tree::atom::Atom;
use tree::conf::{MakeConf, ReposConf};
use tree::cpv::Cpv;
use tree::manifest::Manifest;
use tree::mdcache::MdEntry;
use tree::repo::EbuildRepo;
use tree::restrict::Restrict;
use tree::uri::SrcUri;
use tree::version::Version;

/// Portage's answers, one for each question; None where there is no Portage to ask.
#[expect(clippy::disallowed_methods, reason = "tests may read the environment and start processes")]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn ask(questions: &[String]) -> Option<Vec<String>> {
    let Some(python) = std::env::var_os("PEERAGE_PYTHON").filter(|python| !python.is_empty()) else {
        assert!(std::env::var_os("CI").is_none(), "PEERAGE_PYTHON names no Python with Portage, and this is CI");
        println!("skipped: PEERAGE_PYTHON does not name a Python that has Portage");
        return None;
    };
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/portage_answers.py"))
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the Python of PEERAGE_PYTHON starts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    let text: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::Builder::new().spawn(move || input.write_all(text.as_bytes())).expect("a thread starts");
    let output = child.wait_with_output().expect("Python ends");
    writer.join().expect("the writer ends").expect("Python reads all questions");
    let answers: Vec<String> =
        String::from_utf8(output.stdout).expect("answers in UTF-8").lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), questions.len(), "Portage answers every question");
    Some(answers)
}

/// Compares our answers with Portage's, and shows the first few that differ.
#[expect(clippy::print_stdout, reason = "how much was compared")]
fn compare(cases: &[(String, String)]) {
    let questions: Vec<String> = cases.iter().map(|(question, _)| question.clone()).collect();
    let Some(answers) = ask(&questions) else { return };
    let mut differing = String::new();
    let mut count = 0;
    for ((question, ours), theirs) in cases.iter().zip(&answers) {
        if ours != theirs {
            count += 1;
            if count <= 10 {
                writeln!(differing, "{question}\n  ours:    {ours}\n  Portage: {theirs}").expect("a string grows");
            }
        }
    }
    println!("{} questions, {count} answers differ", cases.len());
    assert!(count == 0, "{count} of {} answers differ\n{differing}", cases.len());
}

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

#[expect(clippy::disallowed_methods, reason = "a test makes its configuration")]
fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories are made");
    fs::write(path, text).expect("a file is written");
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

/// Repositories and repos.conf files: what each case adds to the four repositories below.
const REPOS_CONFS: [(&str, &[(&str, &str)]); 11] = [
    ("one-file", &[("repos.conf", "[DEFAULT]\nmain-repo = gentoo\n[gentoo]\nlocation = @/gentoo\n")]),
    ("no-main", &[("repos.conf", "[gentoo]\nlocation = @/gentoo\n[alpha]\nlocation = @/alpha\n")]),
    (
        "directory",
        &[
            ("repos.conf/gentoo.conf", "[DEFAULT]\nmain-repo = gentoo\n[gentoo]\nlocation = @/gentoo\n"),
            ("repos.conf/beta.conf", "[beta]\nlocation: @/beta\npriority = 5\n"),
            ("repos.conf/alpha.conf", "[alpha]\nlocation = @/alpha\npriority = -2000\n"),
            ("repos.conf/.hidden.conf", "[unnamed]\nlocation = @/unnamed\n"),
            ("repos.conf/backup.conf~", "[unnamed]\nlocation = @/unnamed\n"),
            ("repos.conf/sub/zeta.conf", "[beta]\npriority = 7\n"),
        ],
    ),
    (
        "missing-directory",
        &[("repos.conf", "[gentoo]\nlocation = @/gentoo\n[gone]\nlocation = @/gone\n[empty]\nsync-type = git\n")],
    ),
    ("other-name", &[("repos.conf", "[gentoo]\nlocation = @/alpha\n[beta]\nlocation = @/beta\n")]),
    ("alias", &[("repos.conf", "[old]\nlocation = @/alpha\naliases = old older\n[beta]\nlocation = @/beta\n")]),
    (
        "no-repo-name",
        &[("repos.conf", "[DEFAULT]\nmain-repo = unnamed\n[unnamed]\nlocation = @/unnamed\n[beta]\nlocation=@/beta\n")],
    ),
    (
        "reference",
        &[(
            "repos.conf",
            "[DEFAULT]\nbase = @\n[alpha]\nlocation = %(base)s/alpha\npriority = 1x\n[beta]\nlocation = %(BASE)s/beta\n",
        )],
    ),
    ("broken", &[("repos.conf", "[gentoo]\nlocation = @/gentoo\n[gentoo]\nlocation = @/gentoo\n")]),
    (
        "unknown-main",
        &[("repos.conf", "[DEFAULT]\nmain-repo = none\n[alpha]\nlocation = @/alpha\n[beta]\nlocation = @/beta\n")],
    ),
    (
        "base",
        &[
            (
                "../../usr/share/portage/config/repos.conf",
                "[DEFAULT]\nmain-repo = gentoo\n[gentoo]\nlocation = @/gone\n",
            ),
            (
                "repos.conf",
                "[gentoo]\nlocation = @/gentoo\n# x\n[beta]\n; y\nlocation = @/beta\npriority = 0\n[alpha]\nlocation = @/alpha\n",
            ),
        ],
    ),
];

#[test]
fn repos_conf_is_read_as_portage_reads_it() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let base = directory.path().canonicalize().expect("a path without links");
    for name in ["gentoo", "alpha", "beta"] {
        put(&base, &format!("{name}/profiles/repo_name"), name);
        put(&base, &format!("{name}/metadata/layout.conf"), "masters =\n");
    }
    put(&base, "unnamed/metadata/layout.conf", "masters =\n");
    let mut cases = Vec::new();
    let mut loaded = BTreeMap::new();
    for (case, files) in REPOS_CONFS {
        let root = base.join("cases").join(case);
        put(&root, "etc/portage/x", "");
        for (path, text) in files {
            put(&root.join("etc/portage"), path, &text.replace('@', &base.display().to_string()));
        }
        let conf = ReposConf::load(&root).unwrap_or_default();
        let mut words = vec![conf.main_repo.as_ref().map_or("-".to_owned(), ToString::to_string)];
        words.extend(
            conf.repos.iter().map(|repo| format!("{} {} {}", repo.name, repo.location.display(), repo.priority)),
        );
        cases.push((format!("repos\t{}", root.display()), words.join("\t")));
        loaded.insert(case, conf);
    }
    // What is compared is not empty, also where there is no Portage to compare with.
    let names = |case: &str| -> Vec<String> { loaded[case].repos.iter().map(|repo| repo.name.to_string()).collect() };
    assert_eq!(names("directory"), ["alpha", "gentoo", "beta"]);
    assert_eq!(names("base"), ["gentoo", "alpha", "beta"]);
    assert_eq!(
        (names("missing-directory"), loaded["missing-directory"].problems.len()),
        (vec!["gentoo".to_owned()], 2)
    );
    compare(&cases);
}
