//! What each role may do, and what a role is not: a word for somebody else.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, built_here, came, of_cpv, package, planned};
use crate::members::{enrol, forgets, refused};
use crate::peer::{TestPeer, both};

const TWO: &str = "dev-libs/two-1.0";
const NAMES: [&str; 3] = ["app-misc/n1-1.0", "app-misc/n2-1.0", "app-misc/n3-1.0"];

/// A machine with three packages that need nothing, and its daemon of this name.
fn node(dir: &Path, name: &str) -> (Builder, TestPeer) {
    let machine = Builder::new(&dir.join(name));
    for cpv in NAMES {
        machine.ebuild(cpv, "SLOT=\"0\"\nsrc_install() { echo x > x; insinto /opt/${PN}; doins x; }\n", &[]);
    }
    let peer = machine.start_with(&format!("[node]\nname = \"{name}\"\n")).start();
    machine.import(&peer);
    (machine, peer)
}

fn fate(node: &TestPeer, cpv: &str) -> Value {
    of_cpv(&planned(node, &[&format!("={cpv}")]), cpv)["fate"].clone()
}

/// Until a plan of this package says so: news of a group travel.
fn has_fate(node: &TestPeer, cpv: &str, wanted: &str) {
    crate::wait::until(&format!("{wanted} of {cpv}"), || (fate(node, cpv) == wanted).then_some(()));
}

#[test]
fn packages_of_the_founder_and_of_who_may_sign_count_for_all_and_those_of_the_others_for_nobody() {
    let dir = tempdir().unwrap();
    let [(_a, founder), (_b, fetch), (_c, build), (_d, sign)] =
        ["founder", "fetch", "build", "sign"].map(|name| node(dir.path(), name));
    for (node, role) in [(&fetch, "fetch"), (&build, "build"), (&sign, "sign")] {
        enrol(&founder, node, role);
    }
    for (node, cpv) in [(&founder, TWO), (&sign, NAMES[0]), (&build, NAMES[1]), (&fetch, NAMES[2])] {
        node.does(&["build", &format!("={cpv}")]);
        assert_eq!(came(node, cpv), built_here());
    }
    crate::members::sees(&fetch, &sign, "sign");
    for (node, cpv, builder) in [(&fetch, TWO, &founder), (&fetch, NAMES[0], &sign), (&founder, NAMES[0], &sign)] {
        assert_eq!(fate(node, cpv), "substitute", "{cpv}");
        node.does(&["build", &format!("={cpv}")]);
        assert_eq!(came(node, cpv), ("substitute".into(), builder.peer_id().into()));
    }
    for (node, cpv) in [(&founder, NAMES[1]), (&sign, NAMES[2]), (&fetch, NAMES[1]), (&build, NAMES[2])] {
        assert_eq!(fate(node, cpv), "build", "who may not sign is not believed: {cpv}");
    }
    let explained = fetch.does(&["trust", "explain", "sign"]);
    assert!(explained.contains("sign"), "{explained}");
    let explained = founder.does(&["trust", "explain", &format!("={}", NAMES[1])]);
    assert!(explained.contains("sign") && !explained.contains("build may sign"), "{explained}");

    // What was trusted by role is trusted no longer when the member is gone.
    founder.does(&["trust", "remove", "sign"]);
    forgets(&build, &sign.peer_id());
    assert_eq!(fate(&build, NAMES[0]), "build");
}

#[test]
fn a_word_of_the_users_own_counts_within_its_scope_whatever_the_role() {
    let dir = tempdir().unwrap();
    let [(_a, founder), (_b, build)] = ["founder", "build"].map(|name| node(dir.path(), name));
    enrol(&founder, &build, "build");
    build.does(&[&["build"], &NAMES.map(|cpv| cpv.trim_end_matches("-1.0"))[..2]].concat());
    founder.does(&["trust", "add", &build.peer_id(), "--packages", "app-misc/n1"]);
    has_fate(&founder, NAMES[0], "substitute");
    assert_eq!(fate(&founder, NAMES[1]), "build");
}

#[test]
fn who_may_only_fetch_gives_nobody_a_build_to_do() {
    let dir = tempdir().unwrap();
    let [(_a, founder), (_b, fetch)] = ["strong", "fetch"].map(|name| node(dir.path(), name));
    enrol(&founder, &fetch, "fetch");
    let said = refused(&fetch, &["build", "app-misc/n1", "--on", "strong"]);
    assert!(said.contains("role") || said.contains("fetch"), "{said}");
    assert!(crate::builder::jobs(&founder).is_empty());
    // With nobody named it is built here.
    fetch.does(&["build", "app-misc/n1", "--on", "any"]);
    assert_eq!(came(&fetch, NAMES[0]), built_here());
    assert!(crate::builder::jobs(&founder).is_empty());
}

#[test]
fn with_share_none_not_even_a_member_gets_anything_and_with_lan_everybody_does() {
    let dir = tempdir().unwrap();
    let (_a, founder) = node(dir.path(), "founder");
    let start = |name: &str, share: &str| {
        let machine = Builder::new(&dir.path().join(name));
        let peer = machine.start_with(&format!("share = \"{share}\"\n")).knows(&founder).start();
        machine.import(&peer);
        peer.does(&["build", "dev-libs/two"]);
        peer
    };
    let (none, lan) = (start("none", "none"), start("lan", "lan"));
    enrol(&founder, &none, "sign");
    assert_eq!(fate(&founder, TWO), "build");
    let (digest, _bytes) = package(&none, TWO);
    let output = founder.verb(&["fetch", &digest]);
    assert!(!output.status.success(), "{}", both(&output));
    founder.does(&["trust", "add", &lan.peer_id(), "--packages", "*/*"]);
    has_fate(&founder, TWO, "substitute");
    let machine = Builder::new(&dir.path().join("wrong"));
    for wrong in ["true", "false", "\"everybody\""] {
        let Err((status, log)) = machine.start_with(&format!("share = {wrong}\n")).try_start() else {
            panic!("share = {wrong} is no word")
        };
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("share") && log.contains("group"), "{log}");
    }
}
