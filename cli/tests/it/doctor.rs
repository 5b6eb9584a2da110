//! `peer doctor` against a daemon that has other rights and limits than the caller, and with the ways to fetch that people
//! configure, which the real Portage tries.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::builder::Builder;
use crate::gentoo::Repo;
use crate::peer::{Start, TestPeer, peer};

/// A machine whose Portage is configured below `machine`, and its daemon.
struct Machine {
    dir: TempDir,
    _node: TestPeer,
}

impl Machine {
    fn new(wrapper: &[&str]) -> Self {
        let dir = tempdir().expect("a test can write");
        // Portage fetches as another user where it may.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let repo = Repo::new(dir.path(), "main");
        let etc = dir.path().join("machine/etc/portage");
        fs::create_dir_all(&etc).expect("a test can write");
        fs::write(etc.join("make.conf"), "").expect("a test can write");
        std::os::unix::fs::symlink(repo.dir.join("profiles/base"), etc.join("make.profile")).expect("a test can write");
        let node = Start::new(&dir.path().join("node")).repo(&repo).through(wrapper).start();
        Self { dir, _node: node }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("machine")
    }

    /// What is found of this name, with this make.conf.
    fn finds(&self, name: &str, make_conf: &str) -> Value {
        fs::write(self.root().join("etc/portage/make.conf"), make_conf).expect("a test can write");
        let root = self.root();
        let control = self.dir.path().join("node/control.sock");
        let words = ["doctor", "--json", "--config-root", text(&root), "--control", text(&control)];
        let output = peer(self.dir.path(), &words);
        let told: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        found(&told, name).unwrap_or_else(|| panic!("nothing is said of {name}: {told}"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn found(told: &Value, name: &str) -> Option<Value> {
    told["checks"].as_array()?.iter().find(|check| check["name"] == name).cloned()
}

/// What a make.conf says, the state of `fetching`, and words of the finding or the mend.
const WAYS: &[(&str, &str, &[&str])] = &[
    ("", "ok", &[]),
    ("FETCHCOMMAND=\"wget -t 1 -T 5 -O \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n", "ok", &[]),
    ("FETCHCOMMAND=\"wget --limit-rate=1m -q -O \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n", "ok", &[]),
    (
        "FETCHCOMMAND=\"curl -fsS -o \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n\
         RESUMECOMMAND=\"curl -fsS -C - -o \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n",
        "ok",
        &[],
    ),
    (
        "FETCHCOMMAND=\"curl -sS -o \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n",
        "warn",
        &["--fail", "FETCHCOMMAND"],
    ),
    (
        "http_proxy=\"http://127.0.0.1:9\"\n",
        "fail",
        &["http_proxy is http://127.0.0.1:9", "no_proxy=\"127.0.0.1,localhost\""],
    ),
    (
        "http_proxy=\"http://me:secret@127.0.0.1:9\"\nno_proxy=\"example.org\"\n",
        "fail",
        &["no_proxy=\"example.org,127.0.0.1"],
    ),
    ("http_proxy=\"http://127.0.0.1:9\"\nno_proxy=\"localhost,127.0.0.1\"\n", "ok", &[]),
    (
        "FETCHCOMMAND=\"wget -t 1 -e http_proxy=127.0.0.1:9 -O \\\"\\${DISTDIR}/\\${FILE}\\\" \\\"\\${URI}\\\"\"\n",
        "fail",
        &["FETCHCOMMAND"],
    ),
    (
        "FETCHCOMMAND=\"/usr/local/bin/there-is-no-wrapper \\${URI} \\${FILE}\"\n",
        "fail",
        &["FETCHCOMMAND", "there-is-no-wrapper"],
    ),
    ("RESUMECOMMAND=\"false \\${URI} \\${FILE}\"\n", "fail", &["RESUMECOMMAND"]),
    ("FETCHCOMMAND_HTTP=\"false \\${URI} \\${FILE}\"\n", "fail", &["FETCHCOMMAND"]),
    ("FETCHCOMMAND=\"true \\${URI} \\${FILE}\"\n", "fail", &["FETCHCOMMAND"]),
];

#[test]
fn a_way_to_fetch_that_keeps_portage_from_the_node_is_found_by_portage_itself() {
    let machine = Machine::new(&[]);
    for (make_conf, state, words) in WAYS {
        let told = machine.finds("fetching", make_conf);
        assert_eq!(told["state"], *state, "{make_conf}: {told}");
        for word in *words {
            let said = format!("{} {} {}", told["object"], told["finding"], told["mend"]).replace("\\\"", "\"");
            assert!(said.contains(word), "{make_conf}: {word}: {said}");
        }
        assert!(!told.to_string().contains("secret"), "{told}");
    }
}

#[test]
fn what_a_daemon_may_do_is_told_by_the_daemon_and_not_by_who_asks() {
    let machine = Machine::new(&["prlimit", "--nofile=1000:1000", "--"]);
    let files = machine.finds("open files", "");
    assert!(files["state"] == "warn" && files["finding"].as_str().unwrap().contains("1000 files"), "{files}");
    let whom = machine.finds("daemon user", "");
    assert!(whom["finding"].as_str().unwrap().contains("1000 open files"), "{whom}");
}

#[test]
fn what_is_wrong_in_make_conf_is_told_with_its_line() {
    let machine = Machine::new(&[]);
    let told = machine.finds("make.conf", "CFLAGS=\"-O2\"\n\nUSE=\"a\n");
    let object = told["object"].as_str().unwrap();
    assert!(object.contains("etc/portage/make.conf:"), "{told}");
    assert!(told["finding"].as_str().unwrap().contains("make.conf line "), "{told}");
    assert_eq!(told["state"], "fail");
}

/// The sandbox of a trial is that of a build: a bind that a build cannot have is found, whoever asks.
#[test]
fn a_sandbox_that_a_build_would_not_get_is_found() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let node = machine.start_with("").start();
    let root = dir.path().join("root");
    let words = ["doctor", "--config-root", text(&root)];
    let told = node.json(&words);
    let trial = |told: &Value| -> Vec<String> {
        let all = told["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "sandbox");
        all.map(|check| format!("{} {}", check["state"], check["finding"])).collect()
    };
    for subject in ["a trial", "layers", "set-id bits", "programs"] {
        let good = trial(&told).iter().any(|line| line.starts_with("\"ok\"") && line.contains(&format!("{subject}:")));
        assert!(good, "{subject}: {told}");
    }
    let portage = found(&told, "builds").unwrap();
    assert!(portage["state"] == "ok" && portage["finding"].as_str().unwrap().contains("Portage 3."), "{portage}");
    // Something that every build is given goes away.
    fs::rename(machine.repo.dir.join("profiles"), dir.path().join("away")).unwrap();
    fs::remove_dir_all(dir.path().join("root/etc/portage")).unwrap();
    let told = node.json(&words);
    let bad = trial(&told).into_iter().find(|line| line.starts_with("\"warn\"")).unwrap_or_else(|| panic!("{told}"));
    assert!(bad.contains("a trial") && bad.contains("root/etc/portage"), "{bad}");
}
