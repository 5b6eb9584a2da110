//! binrepos.conf in the forms that people write, read by this crate and by Portage itself.
//!
//! `PEERAGE_PYTHON` names a Python that has Portage; without it nothing is compared, which only CI takes as a failure.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tree::binrepos::{BinRepos, LoadBinReposError};

/// A form: its name, the files below `etc/portage`, and PORTAGE_BINHOST.
type Form = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const FORMS: &[Form] = &[
    ("none", &[], ""),
    ("empty", &[("binrepos.conf", "")], ""),
    ("file", &[("binrepos.conf", "[gentoo]\npriority = 1\nsync-uri = https://g.example/x86-64\n")], ""),
    ("slashes", &[("binrepos.conf", "[a]\nsync-uri = https://g.example/a///\n")], ""),
    ("key in capitals", &[("binrepos.conf", "[a]\nSync-URI = https://g.example/a\nVERIFY-signature = true\n")], ""),
    ("section in capitals", &[("binrepos.conf", "[A]\nsync-uri = u:1\n[a]\nsync-uri = u:2\n")], ""),
    ("colon", &[("binrepos.conf", "[a]\nsync-uri: https://g.example/a\npriority:5\n")], ""),
    ("verify true", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = true\n")], ""),
    ("verify True", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = True\n")], ""),
    ("verify YES", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = YES\n")], ""),
    ("verify on", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = on\n")], ""),
    ("verify 1", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = 1\n")], ""),
    ("verify false", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = false\n")], ""),
    ("verify nothing", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature =\n")], ""),
    ("verify commented", &[("binrepos.conf", "[a]\nsync-uri = u\n# verify-signature = false\n")], ""),
    ("verify with a word behind", &[("binrepos.conf", "[a]\nsync-uri = u\nverify-signature = true # yes\n")], ""),
    ("DEFAULT verify", &[("binrepos.conf", "[DEFAULT]\nverify-signature = true\n[a]\nsync-uri = u\n")], ""),
    (
        "DEFAULT overridden",
        &[(
            "binrepos.conf",
            "[DEFAULT]\nverify-signature = true\npriority = 7\n[a]\nsync-uri = u\nverify-signature = no\n[b]\nsync-uri = v\n",
        )],
        "",
    ),
    ("DEFAULT at the end", &[("binrepos.conf", "[a]\nsync-uri = u\n[DEFAULT]\nverify-signature = yes\n")], ""),
    (
        "DEFAULT in a file of its own",
        &[
            ("binrepos.conf/zz.conf", "[DEFAULT]\nverify-signature = true\n"),
            ("binrepos.conf/a.conf", "[a]\nsync-uri = u\n"),
        ],
        "",
    ),
    ("DEFAULT has the address", &[("binrepos.conf", "[DEFAULT]\nsync-uri = u\n[a]\n[b]\npriority = 2\n")], ""),
    ("default in small letters", &[("binrepos.conf", "[default]\nsync-uri = u\n[a]\nsync-uri = v\n")], ""),
    (
        "directory",
        &[
            ("binrepos.conf/gentoobinhost.conf", "[gentoo]\nsync-uri = https://g.example/\npriority = 1\n"),
            ("binrepos.conf/peerage.conf", "[peerage]\nsync-uri = http://127.0.0.1:8420/binpkgs/x\npriority = 10000\n"),
            ("binrepos.conf/.hidden", "[h]\nsync-uri = h\n"),
            ("binrepos.conf/backup~", "[k]\nsync-uri = k\n"),
            ("binrepos.conf/._cfg0000_x", "[c]\nsync-uri = c\n"),
            ("binrepos.conf/without-conf", "[w]\nsync-uri = w\n"),
            ("binrepos.conf/CVS/x", "[v]\nsync-uri = v\n"),
            ("binrepos.conf/sub/s.conf", "[s]\nsync-uri = s\n"),
        ],
        "",
    ),
    (
        "a section in two files",
        &[
            ("binrepos.conf/1.conf", "[a]\nsync-uri = u\nverify-signature = true\n"),
            ("binrepos.conf/2.conf", "[a]\nsync-uri = v\npriority = 3\n"),
        ],
        "",
    ),
    (
        "verify taken back by a later file",
        &[
            ("binrepos.conf/peerage.conf", "[peerage]\nsync-uri = u\nverify-signature = true\n"),
            ("binrepos.conf/zz.conf", "[peerage]\nverify-signature = false\n"),
        ],
        "",
    ),
    ("a section twice", &[("binrepos.conf", "[a]\nsync-uri = u\n[a]\npriority = 2\n")], ""),
    ("an option twice", &[("binrepos.conf", "[a]\nsync-uri = u\nSYNC-URI = v\n")], ""),
    ("no section", &[("binrepos.conf", "sync-uri = u\n")], ""),
    ("a line that is nothing", &[("binrepos.conf", "[a]\nsync-uri = u\nwhat is this\n")], ""),
    ("no address", &[("binrepos.conf", "[a]\npriority = 1\n[b]\nsync-uri = u\n")], ""),
    ("empty address", &[("binrepos.conf", "[a]\nsync-uri =\n")], ""),
    ("interpolation", &[("binrepos.conf", "[DEFAULT]\nhost = https://g.example\n[a]\nsync-uri = %(host)s/a\n")], ""),
    (
        "interpolation of a root",
        &[("binrepos.conf", "[a]\nsync-uri = file://%(EROOT)svar/binhost\nfetchcommand = x %(ROOT)s\n")],
        "",
    ),
    ("interpolation of nothing", &[("binrepos.conf", "[a]\nsync-uri = %(none)s/a\n")], ""),
    ("a percent sign", &[("binrepos.conf", "[a]\nsync-uri = https://g.example/a%20b\n")], ""),
    ("two percent signs", &[("binrepos.conf", "[a]\nsync-uri = https://g.example/a%%20b\n")], ""),
    ("a value in two lines", &[("binrepos.conf", "[a]\nsync-uri = u\n  v\npriority = 1\n")], ""),
    ("indented", &[("binrepos.conf", "[a]\n  sync-uri = u\n  priority = 4\n")], ""),
    ("no priority", &[("binrepos.conf", "[b]\nsync-uri = u\n[a]\nsync-uri = v\n")], ""),
    (
        "odd priorities",
        &[("binrepos.conf", "[a]\nsync-uri = u\npriority = high\n[b]\nsync-uri = v\npriority = -5\n")],
        "",
    ),
    (
        "a priority with a sign",
        &[("binrepos.conf", "[a]\nsync-uri = u\npriority = +1_0\n[b]\nsync-uri = v\npriority = 9\n")],
        "",
    ),
    (
        "a fraction as a priority",
        &[("binrepos.conf", "[a]\nsync-uri = u\npriority = 1.5\n[b]\nsync-uri = v\npriority=1\n")],
        "",
    ),
    ("frozen", &[("binrepos.conf", "[a]\nsync-uri = u\nfrozen = yes\n[b]\nsync-uri = v\nfrozen = 1\n")], ""),
    (
        "a fetchcommand",
        &[("binrepos.conf", "[a]\nsync-uri = u\nfetchcommand = wget -O \"${DISTDIR}/${FILE}\" \"${URI}\"\n")],
        "",
    ),
    ("a comment behind a value", &[("binrepos.conf", "[a]\nsync-uri = u ; mine\n")], ""),
    ("comments", &[("binrepos.conf", "# a\n; b\n[a]\n# c\nsync-uri = u\n\n; d\npriority = 3\n")], ""),
    ("carriage returns", &[("binrepos.conf", "[a]\r\nsync-uri = u\r\nverify-signature = true\r\n")], ""),
    ("a tab", &[("binrepos.conf", "[a]\nsync-uri\t=\tu\npriority\t=\t3\n")], ""),
    ("PORTAGE_BINHOST alone", &[], "https://one.example/ https://two.example"),
    (
        "PORTAGE_BINHOST too",
        &[("binrepos.conf", "[a]\nsync-uri = https://one.example\npriority = 5\n")],
        "https://one.example/ u",
    ),
    ("PORTAGE_BINHOST twice the same", &[], "u u/ v"),
    ("PORTAGE_BINHOST where the file is wrong", &[("binrepos.conf", "sync-uri = u\n")], "v"),
    (
        "the distribution's file below",
        &[
            ("../../usr/share/portage/config/binrepos.conf", "[DEFAULT]\nverify-signature = true\n[g]\nsync-uri = u\n"),
            ("binrepos.conf", "[g]\npriority = 4\n[m]\nsync-uri = v\n"),
        ],
        "",
    ),
];

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join("etc/portage").join(path);
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a test can write");
    #[expect(clippy::disallowed_methods, reason = "a test makes its files")]
    fs::write(path, text).expect("a test can write");
}

/// As Python prints it.
fn told(repos: &BinRepos) -> String {
    let python = |value: bool| if value { "True" } else { "False" };
    let line = |repo: &tree::binrepos::BinRepo| {
        format!(
            "{} {} {} {} {} {}",
            repo.name.as_deref().unwrap_or("-"),
            repo.priority,
            repo.sync_uri,
            repo.verify_signature.map_or("None", python),
            python(repo.frozen),
            repo.fetchcommand.as_deref().unwrap_or("None")
        )
    };
    repos.repos.iter().map(line).collect::<Vec<_>>().join("\t").replace('\n', "|")
}

#[test]
fn binrepos_conf_is_read_as_portage_reads_it() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let mut questions = String::new();
    let mut ours = Vec::new();
    for (index, (_, files, binhost)) in FORMS.iter().enumerate() {
        let root = directory.path().join(index.to_string());
        put(&root, "make.conf", "");
        for (path, text) in *files {
            put(&root, path, text);
        }
        questions.push_str(&format!("{}\t{binhost}\n", root.display()));
        ours.push(match BinRepos::load(&root, binhost) {
            Ok(repos) => told(&repos),
            // Portage says so and goes on with none of its sections.
            Err(LoadBinReposError::Parse { .. }) => {
                told(&BinRepos::load(&directory.path().join("nowhere"), binhost).expect("nothing is wrong there"))
            }
            Err(_) => "ERROR".to_owned(),
        });
    }
    assert_eq!(ours[2], "gentoo 1 https://g.example/x86-64 None False None");
    let Some(theirs) = portage(&questions) else {
        println!("skipped: PEERAGE_PYTHON does not name a Python that has Portage");
        return;
    };
    assert_eq!(theirs.len(), FORMS.len(), "Portage answers every question");
    let differing: Vec<String> = FORMS
        .iter()
        .zip(ours.iter().zip(&theirs))
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|((form, ..), (ours, theirs))| format!("{form}\n  ours:    {ours}\n  Portage: {theirs}"))
        .collect();
    println!("{} forms, {} differ", FORMS.len(), differing.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "tests may read the environment and start processes")]
fn portage(questions: &str) -> Option<Vec<String>> {
    let python = std::env::var_os("PEERAGE_PYTHON").filter(|python| !python.is_empty());
    assert!(
        python.is_some() || std::env::var_os("CI").is_none(),
        "PEERAGE_PYTHON names no Python with Portage, and this is CI"
    );
    let mut child = Command::new(python?)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binrepos_answers.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python of PEERAGE_PYTHON starts");
    child.stdin.take().expect("it is a pipe").write_all(questions.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    Some(String::from_utf8(output.stdout).expect("answers in UTF-8").lines().map(str::to_owned).collect())
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_line() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    put(directory.path(), "binrepos.conf/a.conf", "[a]\nsync-uri = u\n\nwhat is this\n");
    let error = BinRepos::load(directory.path(), "").expect_err("it is wrong").to_string();
    assert!(error.contains("binrepos.conf/a.conf: line 4"), "{error}");
}
