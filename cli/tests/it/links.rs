//! A configuration that lies elsewhere, up to what stock emerge installs: make.conf, package.use and a patch are links, a
//! repository is one, and what cannot be shown is said.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, binpkgs, jobs, of_cpv, planned};
use crate::peer::{TestPeer, both};

/// Says what it was built with.
const TOLD: &str = "SLOT=\"0\"\nIUSE=\"alpha beta\"\nsrc_install() {\n\tprintf '%s\\n' \"alpha=$(usex alpha) beta=$(usex beta) \
                    ${CFLAGS} $(<told)\" > made || die\n\tinsinto /opt\n\tdoins made\n}\n";
const PATCH: &str = "--- a/told\n+++ b/told\n@@ -1 +1 @@\n-as it came\n+as it was patched\n";

/// Moves a file of the configuration into a directory of the user's own, and leaves a link.
fn moved(machine: &Builder, name: &str) -> PathBuf {
    let (at, to) = (machine.dir.join("root/etc/portage").join(name), machine.dir.join("home/dots").join(name));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(&at, &to).unwrap();
    symlink(&to, at).unwrap();
    to
}

fn machine(dir: &Path) -> Builder {
    let machine = Builder::new(dir);
    let source = machine.source("told-1.0", &[("told", "as it came\n")]);
    machine.ebuild("app-misc/told-1.0", TOLD, &[&source]);
    machine
}

fn made(machine: &Builder, peer: &TestPeer, client: &str) -> String {
    let binhost = peer.status()["binhost"].as_str().unwrap().to_owned();
    let installing =
        machine.emerge(client, &binhost, &["--getbinpkgonly", "--binpkg-respect-user-patches=n", "app-misc/told"]);
    assert!(installing.status.success(), "{}", both(&installing));
    fs::read_to_string(machine.dir.join(client).join("root/opt/made")).unwrap()
}

#[test]
fn what_is_linked_is_built_and_installed_and_a_change_of_it_is_seen() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    machine.etc("package.use", "app-misc/told alpha\n");
    machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O3 -DLINKED\"\nUSE=\"beta\"\n");
    machine.etc("patches/app-misc/told/a.patch", PATCH);
    let flags = moved(&machine, "package.use");
    let make_conf = moved(&machine, "make.conf");
    moved(&machine, "patches");
    let peer = machine.start();
    peer.json(&["key", "init", "--keyring", machine.keyring().to_str().unwrap()]);

    let plan = planned(&peer, &["app-misc/told"]);
    assert_eq!(plan[0]["use_flags"], serde_json::json!(["alpha", "beta"]));
    peer.does(&["build", "app-misc/told"]);
    assert_eq!(made(&machine, &peer, "client"), "alpha=yes beta=yes -O3 -DLINKED as it was patched\n");
    let is_had = |peer: &TestPeer| planned(peer, &["app-misc/told"])[0]["fate"] == "have";
    assert!(is_had(&peer));

    // Changed where it lies, it is another recipe, and what fitted before is listed no more.
    fs::write(&flags, "app-misc/told -alpha\n").unwrap();
    assert!(!is_had(&peer));
    peer.does(&["build", "app-misc/told"]);
    assert_eq!(made(&machine, &peer, "after"), "alpha=no beta=yes -O3 -DLINKED as it was patched\n");
    let listed: Vec<Value> = binpkgs(&peer, "app-misc/told");
    let usable = listed.iter().filter(|package| package["usable"] == true).count();
    assert_eq!((listed.len(), usable), (2, 1), "{listed:?}");
    fs::write(&make_conf, "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O1\"\n").unwrap();
    assert!(!is_had(&peer));
}

#[test]
fn what_cannot_be_shown_is_said_and_nothing_else_is_built_in_its_place() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let home = dir.path().join("ada");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join("flags"), "app-misc/told alpha\n").unwrap();
    symlink(&home, dir.path().join("root/etc/portage/package.use")).unwrap();
    let peer = machine.start();
    for words in
        [&["build", "app-misc/told"][..], &["weather", "app-misc/told"], &["build", "--pretend", "app-misc/told"]]
    {
        let output = peer.verb(words);
        let said = both(&output);
        assert!(!output.status.success(), "{words:?}: {said}");
        assert!(said.contains("etc/portage/package.use leads to") && said.contains("ada"), "{words:?}: {said}");
    }
    assert!(jobs(&peer).is_empty());
}

/// The user's own place for work is none of a build's, also where emerge has a second configuration, of `/`.
#[test]
fn a_place_for_work_that_builds_do_not_see_fails_no_build_on_build_dependencies() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.etc(
        "make.conf",
        "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2\"\nPORTAGE_TMPDIR=\"/nowhere/tmp\"\nPORTAGE_LOGDIR=\"/nowhere/log\"\n",
    );
    machine.etc("env/big", "PORTAGE_TMPDIR=\"/nowhere/big\"\n");
    machine.etc("package.env", "*/* big\n");
    let peer = machine.start();
    peer.does(&["build", "app-misc/one"]);
    assert_eq!(of_cpv(&jobs(&peer), "app-misc/one-1.0")["state"], "done");
}

#[test]
fn a_compiler_that_is_not_installed_is_the_trouble_of_who_names_it() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    machine.ebuild("app-misc/other-1.0", "SLOT=\"0\"\n", &[]);
    for (name, compiler) in [("absent", "/nowhere/clang-99"), ("odd", "clang \\\"never closed")] {
        machine.etc("env/own", &format!("CC=\"{compiler}\"\nCFLAGS=\"-O2 -march=native\"\n"));
        machine.etc("package.env", "app-misc/told own\n");
        let peer = machine.start();
        let plan = planned(&peer, &["app-misc/told", "app-misc/other"]);
        assert_eq!(plan.len(), 2, "{name}: {plan:?}");
        peer.does(&["build", "app-misc/other"]);
        let output = peer.verb(&["build", "app-misc/told"]);
        let said = both(&output);
        assert!(!output.status.success() && said.contains("clang"), "{name}: {said}");
        drop(peer);
    }
}
