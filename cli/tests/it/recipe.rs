//! Fingerprints as the real daemon makes them with the real Portage: what changes one, and what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, portage};
use crate::gentoo::checkout;
use crate::peer::{TestPeer, both};
use crate::wait;

const ONE: &str = "app-misc/one-1.0";
const ONE_ATOM: &str = "app-misc/one";
const MAKE_CONF: &str = "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2 -pipe\"\nCXXFLAGS=\"${CFLAGS}\"\n";

/// The fingerprints of a plan, by package.
fn fingerprints(peer: &TestPeer, atom: &str) -> BTreeMap<String, String> {
    let said = peer.does(&["build", "--pretend", "--json", atom]);
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let packages = lines.filter_map(|line| line["packages"].as_array().cloned()).flatten();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    packages.map(|package| (word(&package["cpv"]), word(&package["fingerprint"]))).collect()
}

fn fingerprint(peer: &TestPeer) -> String {
    fingerprints(peer, ONE_ATOM).remove(ONE).unwrap()
}

/// A machine whose `app-misc/one` has of everything that a recipe is made of.
fn machine(dir: &Path) -> Builder {
    let machine = Builder::new(dir);
    machine.repo.write("eclass/greet.eclass", "greet() { :; }\n");
    machine.repo.write("app-misc/one/files/fix.patch", "a patch\n");
    machine.repo.write("profiles/other/parent", "../base\n");
    machine.repo.write("profiles/other/eapi", "8\n");
    let defaults = fs::read_to_string(machine.repo.dir.join("profiles/base/make.defaults")).unwrap();
    let expanded = format!("{defaults}\nUSE_EXPAND=\"VIDEO_CARDS L10N\"\n");
    machine.repo.write("profiles/base/make.defaults", &expanded);
    machine.etc("make.conf", MAKE_CONF);
    two(&machine, "");
    one(&machine, "int main(void) { return 0; }\n", "");
    machine
}

fn one(machine: &Builder, source: &str, more: &str) {
    let sources = [machine.source("one-1.0", &[("one.c", source)]), machine.source("data-1.0", &[("data", "x")])];
    let body = format!("inherit greet\nSLOT=\"0\"\nIUSE=\"+color debug\"\nDEPEND=\"dev-libs/two:=\"\n{more}");
    machine.ebuild(ONE, &body, &[&sources[0], &sources[1]]);
}

fn two(machine: &Builder, more: &str) {
    let source = machine.source("two-1.0", &[("two.c", "int two;\n")]);
    machine.ebuild("dev-libs/two-1.0", &format!("SLOT=\"0/1\"\nIUSE=\"nls\"\n{more}"), &[&source]);
}

/// A program below `/etc/portage`, where the sandbox sees it.
fn program(machine: &Builder, name: &str, script: &str) -> String {
    machine.etc(name, &format!("#!/bin/sh\n{script}\n"));
    let path = machine.dir.join("root/etc/portage").join(name);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn add_to_make_conf(machine: &Builder, lines: &str) {
    let old = fs::read_to_string(machine.dir.join("root/etc/portage/make.conf")).unwrap();
    machine.etc("make.conf", &(old + lines));
}

type Change = (&'static str, fn(&Builder));

/// Each is made on top of those before it.
const CHANGES: &[Change] = &[
    ("the ebuild", |m| one(m, "int main(void) { return 0; }\n", "src_configure() { :; }\n")),
    ("an eclass", |m| m.repo.write("eclass/greet.eclass", "greet() { true; }\n")),
    ("a file of files/", |m| m.repo.write("app-misc/one/files/fix.patch", "another patch\n")),
    ("a distfile's digest", |m| one(m, "int main(void) { return 1; }\n", "")),
    ("a user patch of the package", |m| m.etc("patches/app-misc/one/a.patch", "x\n")),
    ("a user patch of its version", |m| m.etc("patches/app-misc/one-1.0/a.patch", "x\n")),
    ("a user patch of its revision", |m| m.etc("patches/app-misc/one-1.0-r0/a.patch", "x\n")),
    ("a user patch of its slot", |m| m.etc("patches/app-misc/one:0/a.patch", "x\n")),
    ("a link to nothing, which takes a patch away", |m| {
        let place = m.dir.join("root/etc/portage/patches/app-misc/one-1.0:0");
        fs::create_dir_all(&place).unwrap();
        symlink("/dev/null", place.join("a.patch")).unwrap();
    }),
    ("the user's configuration of the package", |m| {
        m.etc("savedconfig/app-misc/one", "CONFIG_A=y\n");
        one(m, "int main(void) { return 1; }\n", "IUSE+=\" +savedconfig\"\n");
    }),
    ("that configuration", |m| m.etc("savedconfig/app-misc/one", "CONFIG_A=n\n")),
    ("bashrc", |m| m.etc("bashrc", "true\n")),
    ("the text of bashrc", |m| m.etc("bashrc", "false\n")),
    ("a script that is sourced for the package", |m| m.etc("env/app-misc/one", "pre_src_compile() { :; }\n")),
    ("package.bashrc of the profile", |m| {
        m.repo.write(
            "metadata/layout.conf",
            "masters =\nprofile-formats = portage-2 profile-bashrcs\nthin-manifests = true\n",
        );
        m.repo.write("profiles/base/package.bashrc", "app-misc/one one.sh\n");
        m.repo.write("profiles/base/bashrc/one.sh", "true\n");
    }),
    ("that script", |m| m.repo.write("profiles/base/bashrc/one.sh", "false\n")),
    ("a variable of package.env", |m| {
        m.etc("env/own", "EXTRA_ECONF=\"--disable-x\"\n");
        m.etc("package.env", "app-misc/one own\n");
    }),
    ("a variable in small letters", |m| m.etc("env/own", "EXTRA_ECONF=\"--disable-x\"\nac_cv_func_two=no\n")),
    ("FEATURES of package.env", |m| m.etc("env/own", "FEATURES=\"nostrip\"\n")),
    ("USE", |m| m.etc("package.use", "app-misc/one -color debug\n")),
    ("CFLAGS", |m| add_to_make_conf(m, "CFLAGS=\"-O3\"\n")),
    ("CXXFLAGS", |m| add_to_make_conf(m, "CXXFLAGS=\"-O1\"\n")),
    ("LDFLAGS", |m| add_to_make_conf(m, "LDFLAGS=\"-Wl,-O2\"\n")),
    ("RUSTFLAGS", |m| add_to_make_conf(m, "RUSTFLAGS=\"-Copt-level=3\"\n")),
    ("CHOST", |m| add_to_make_conf(m, "CHOST=\"i686-pc-linux-gnu\"\n")),
    ("FEATURES=splitdebug", |m| add_to_make_conf(m, "FEATURES=\"splitdebug\"\n")),
    ("how documents are compressed", |m| add_to_make_conf(m, "PORTAGE_COMPRESS=\"gzip\"\n")),
    ("a variable that the user lets through", |m| add_to_make_conf(m, "MY_KNOB=\"1\"\n")),
    ("whose files become root's", |m| add_to_make_conf(m, "PORTAGE_USERNAME=\"man\"\nPORTAGE_GRPNAME=\"man\"\n")),
    ("whose files they become", |m| add_to_make_conf(m, "PORTAGE_INST_UID=\"1\"\n")),
    ("what is left out of packages", |m| add_to_make_conf(m, "PKG_INSTALL_MASK=\"/usr/share/doc\"\n")),
    ("the profile", |m| {
        let profile = m.dir.join("root/etc/portage/make.profile");
        fs::remove_file(&profile).unwrap();
        symlink(m.repo.dir.join("profiles/other"), profile).unwrap();
    }),
    ("a build dependency's ebuild", |m| two(m, "src_configure() { :; }\n")),
    ("a build dependency's USE", |m| m.etc("package.use", "app-misc/one -color debug\ndev-libs/two nls\n")),
    ("a build dependency's CFLAGS", |m| {
        m.etc("env/two", "CFLAGS=\"-Os\"\n");
        m.etc("package.env", "app-misc/one own\ndev-libs/two two\n");
    }),
    ("the compiler's name", |m| {
        let path = program(m, "tools/cc", "echo cc 1.0");
        add_to_make_conf(m, &format!("CC=\"{path}\"\n"));
    }),
    ("the compiler's version", |m| drop(program(m, "tools/cc", "echo cc 2.0"))),
    ("the compiler of one package", |m| {
        let path = program(m, "tools/clang", "echo clang 1.0");
        m.etc("env/own", &format!("CC=\"{path}\"\n"));
    }),
    ("the version of that", |m| drop(program(m, "tools/clang", "echo clang 2.0"))),
];

#[test]
fn each_input_of_a_build_changes_its_fingerprint() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let peer = machine.start_with("variables = [\"MY_KNOB\", \"MY_TOKEN\"]").start();
    let mut seen = BTreeSet::from([fingerprint(&peer)]);
    for (what, change) in CHANGES {
        change(&machine);
        assert!(seen.insert(fingerprint(&peer)), "{what} does not change the fingerprint");
    }
}

const IRRELEVANT: &[Change] = &[
    ("nothing", |_| {}),
    ("comments", |m| add_to_make_conf(m, "# a comment\n\n")),
    ("the order of the Manifest", |m| {
        let path = m.repo.dir.join("app-misc/one/Manifest");
        let text = fs::read_to_string(&path).unwrap();
        let turned: Vec<&str> = text.lines().rev().collect();
        assert_ne!(turned.len(), 1, "there is an order");
        fs::write(path, turned.join("\n") + "\n").unwrap();
    }),
    ("the times of files", |m| {
        let ebuild = m.repo.dir.join("app-misc/one/one-1.0.ebuild");
        let touched = wait::run(Command::new("touch").args(["-d", "2001-01-01"]).arg(ebuild));
        assert!(touched.status.success());
    }),
    ("an unrelated package", |m| m.ebuild("app-misc/other-1.0", "SLOT=\"0\"\n", &[])),
    ("an unrelated eclass", |m| m.repo.write("eclass/other.eclass", "other() { :; }\n")),
    ("what is set for an unrelated package", |m| {
        m.etc("patches/app-misc/other/a.patch", "x\n");
        m.etc("env/app-misc/other", "true\n");
        m.etc("package.use", "app-misc/other debug\n");
    }),
    ("what the package does not ask of the machine", |m| add_to_make_conf(m, "VIDEO_CARDS=\"x\"\nL10N=\"de\"\n")),
    ("how the machine works", |m| {
        add_to_make_conf(
            m,
            "MAKEOPTS=\"-j7\"\nEMERGE_DEFAULT_OPTS=\"--jobs=3\"\nPORTAGE_NICENESS=\"9\"\nFEATURES=\"ccache\"\n",
        );
    }),
    ("where it fetches from", |m| {
        add_to_make_conf(
            m,
            "GENTOO_MIRRORS=\"http://m.invalid\"\nhttp_proxy=\"http://p.invalid\"\nCCACHE_DIR=\"/c\"\n",
        );
    }),
    ("who is the same everywhere", |m| add_to_make_conf(m, "PORTAGE_USERNAME=\"portage\"\nPORTAGE_INST_GID=\"0\"\n")),
    ("where things are", |m| add_to_make_conf(m, "DISTDIR=\"/d\"\nPKGDIR=\"/p\"\nPORTAGE_TMPDIR=\"/t\"\n")),
    ("what nobody knows, or is a secret", |m| {
        add_to_make_conf(
            m,
            "MY_FLAG=\"x\"\nNPM_TOKEN=\"canary\"\nCARGO_REGISTRIES_X_TOKEN=\"canary\"\nPYTHON_SECRET=\"canary\"\n",
        );
        m.etc("env/private", "GITHUB_TOKEN=\"canary\"\nMY_OWN=\"x\"\nPYTHON_PASSWORD=\"canary\"\n");
        m.etc("package.env", "app-misc/one private\n*/* private\n");
    }),
    ("what it accepts", |m| add_to_make_conf(m, "ACCEPT_LICENSE=\"*\"\nACCEPT_KEYWORDS=\"amd64 ~amd64\"\n")),
];

#[test]
fn two_places_and_what_cannot_reach_the_image_give_one_fingerprint() {
    let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
    let first = machine(here.path());
    let peer = first.start_with("").start();
    let all = fingerprints(&peer, ONE_ATOM);
    assert_eq!(all.len(), 2, "the package and what it needs: {all:?}");
    let second = machine(&there.path().join("deeper/place"));
    let other = second.start_with("").start();
    assert_eq!(fingerprints(&other, ONE_ATOM), all, "the place of the repository and the configuration");
    for (what, change) in IRRELEVANT {
        change(&second);
        assert_eq!(fingerprints(&other, ONE_ATOM), all, "{what}");
    }
}

/// What the compiler proper is told for `-march=native` on this processor.
fn native_meaning() -> String {
    let mut command = Command::new("gcc");
    let output = wait::run(command.args(["-march=native", "-E", "-v", "-x", "c", "/dev/null"]));
    let text = both(&output);
    let line = text.lines().find(|line| line.contains("/cc1 ")).unwrap();
    let mut words = line.split_whitespace();
    let mut meaning = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--param" => meaning.push(format!("--param={}", words.next().unwrap().replace('"', ""))),
            _ if word.starts_with("-m") => meaning.push(word.to_owned()),
            _ => {}
        }
    }
    meaning.join(" ")
}

#[test]
fn the_native_processor_is_the_one_that_the_compiler_names() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let peer = machine.start_with("").start();
    let with = |flags: &str| {
        machine.etc("make.conf", &format!("CFLAGS=\"-O2 {flags}\"\nCXXFLAGS=\"${{CFLAGS}}\"\n"));
        fingerprint(&peer)
    };
    let native = with("-march=native");
    assert_eq!(with(&native_meaning()), native);
    assert_ne!(with("-march=x86-64"), native);
}

/// What `plan.py` says outside the sandbox, where a machine may have any root: the answer, and the one package.
fn resolved(machine: &Builder, name: &str) -> (String, Value) {
    let builds = checkout().join("daemon/src/builds");
    let read = |name: &str| fs::read_to_string(builds.join(name)).unwrap();
    let names = format!("NAMES = r'''{}'''\n", read("names.txt"));
    let text = [names, read("variables.py"), read("plan.py")].concat();
    let path = machine.dir.join("resolve.py");
    fs::write(&path, text).unwrap();
    // The program's name is taken below the private Portage: this leads out of there.
    let script = format!("{}{}", "../".repeat(64), path.display());
    let mut command = Command::new(checkout().join("examples/portage"));
    command.arg(machine.dir.join(name)).arg(script).arg(ONE_ATOM);
    command.env("PEERAGE_PORTAGE", portage()).env("REPOS", &machine.repo.dir).env("FEATURES", "");
    let output = wait::run(command.env_remove("PYTHONPATH"));
    assert!(output.status.success(), "{}", both(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    let packages = said["packages"].as_array().unwrap();
    let one = packages.iter().find(|package| package["cpv"] == ONE).unwrap().clone();
    (text, one)
}

#[test]
fn a_dependency_is_the_same_before_and_after_it_is_installed() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let etc = dir.path().join("alone/etc/portage");
    fs::create_dir_all(etc.join("env")).unwrap();
    fs::write(etc.join("package.env"), "dev-libs/two two\n").unwrap();
    fs::write(etc.join("env/two"), "CFLAGS=\"-O1   -pipe\"\nLDFLAGS=\"-s\"\nEXTRA_ECONF=\"--a\"\nFFLAGS=\"-O0\"\n")
        .unwrap();
    fs::write(etc.join("package.use"), "dev-libs/two nls\n").unwrap();
    let before = resolved(&machine, "alone").1;
    assert_eq!(before["layer"], serde_json::json!(["dev-libs/two-1.0"]));
    fs::create_dir_all(dir.path().join("alone/dist")).unwrap();
    fs::copy(dir.path().join("sources/two-1.0.tar"), dir.path().join("alone/dist/two-1.0.tar")).unwrap();
    let merged = machine.emerge("alone", "file:///nowhere", &["--nodeps", "dev-libs/two"]);
    assert!(merged.status.success(), "{}", both(&merged));
    let after = resolved(&machine, "alone").1;
    assert_eq!(after["layer"], serde_json::json!([]), "it is installed, so nobody builds it");
    assert_eq!(after["dependencies"], before["dependencies"]);
    // What is configured now says nothing of what was installed before.
    fs::write(etc.join("env/two"), "CFLAGS=\"-O3\"\n").unwrap();
    assert_eq!(resolved(&machine, "alone").1["dependencies"], before["dependencies"]);
    fs::remove_dir_all(dir.path().join("alone/root/var/db/pkg/dev-libs")).unwrap();
    assert_ne!(resolved(&machine, "alone").1["dependencies"], before["dependencies"]);
}

#[test]
fn native_is_in_no_recipe_whatever_compiler_and_variable_names_it() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let etc = dir.path().join("alone/etc/portage");
    fs::create_dir_all(etc.join("env")).unwrap();
    fs::write(etc.join("package.env"), "*/* native\n").unwrap();
    let flags = "COMMON_FLAGS=\"-O2 -march=native\"\nCFLAGS=\"-O2 -mtune=native -march=native\"\n\
                 RUSTFLAGS=\"-C target-cpu=native -Cdebuginfo=0\"\n";
    fs::write(etc.join("env/native"), flags).unwrap();
    let (text, one) = resolved(&machine, "alone");
    assert!(!text.contains("native\""), "{text}");
    assert!(!text.contains("=native"), "{text}");
    assert!(one["environment"]["RUSTFLAGS"].as_str().unwrap().contains("target-cpu=-march="), "{one}");
    let clang = program(
        &machine,
        "clang",
        "echo ' \"/usr/lib/llvm/clang-17\" \"-cc1\" \"-target-cpu\" \"znver3\" \"-target-feature\" \"+avx\" \"-mrelocation-model\"' >&2",
    );
    fs::write(etc.join("env/native"), format!("{flags}CC=\"{clang}\"\n")).unwrap();
    let (_, one) = resolved(&machine, "alone");
    assert_eq!(one["environment"]["COMMON_FLAGS"], "-O2 -target-cpu=znver3 -target-feature=+avx");
}
