//! Groups between real daemons: joining, what members give each other, and what ends when a machine is taken off.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, built_here, came, of_cpv, package, planned};
use crate::peer::{Start, TestPeer, both};
use crate::wait;

const TWO: &str = "dev-libs/two-1.0";

fn invite(founder: &TestPeer, words: &[&str]) -> String {
    founder.does(&[&["invite"], words].concat()).trim().to_owned()
}

/// Joins, and answers what it may do.
fn join(node: &TestPeer, founder: &TestPeer, words: &[&str]) -> Value {
    let ticket = invite(founder, words);
    node.json(&["join", &ticket])["role"].clone()
}

fn members(node: &TestPeer) -> Vec<(String, String)> {
    let list = node.json(&["trust", "list"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |member: &Value| (text(&member["name"]), text(&member["role"]));
    let mut rows: Vec<_> = list["members"].as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

fn until_members(node: &TestPeer, names: &[&str]) {
    wait::until("the roster has come", || {
        let found: Vec<String> = members(node).into_iter().map(|(name, _)| name).collect();
        (found == names).then_some(())
    });
}

fn refused(node: &TestPeer, ticket: &str, why: &str) {
    let output = node.verb(&["join", ticket]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(both(&output).contains(why), "{}", both(&output));
}

fn node(dir: &Path, name: &str) -> TestPeer {
    Start::new(&dir.join(name)).config(&format!("[node]\nname = {name:?}\n")).start()
}

#[test]
fn a_ticket_is_good_once_and_a_machine_taken_off_is_a_stranger_to_all_even_if_it_was_off() {
    let dir = tempdir().unwrap();
    let [strong, weak, other] = ["strong", "weak", "other"].map(|name| node(dir.path(), name));
    let ticket = invite(&strong, &["--role", "build"]);
    assert_eq!(weak.does(&["join", &ticket]), format!("joined {} as build\n", strong.peer_id()));
    assert_eq!(weak.json(&["join", &ticket])["role"], "build", "the same machine hears the same");
    refused(&other, &ticket, "the ticket is used");
    let (taken_back, id) = {
        let made = strong.json(&["invite"]);
        (made["ticket"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    };
    strong.does(&["invite", "--revoke", &id]);
    refused(&other, &taken_back, "the ticket is revoked");
    refused(&strong, &invite(&strong, &[]), "ticket of this very machine");
    let short = invite(&strong, &["--expires", "1s"]);
    wait::until("its time is over", || {
        let all = strong.json(&["invite", "--list"]);
        all.as_array().unwrap().iter().any(|ticket| ticket["state"] == "expired").then_some(())
    });
    refused(&other, &short, "the ticket is expired");
    assert_eq!(other.verb(&["join", &short[..40]]).status.code(), Some(2), "a slip is noticed here already");

    assert_eq!(join(&other, &strong, &["--role", "sign"]), "sign");
    until_members(&weak, &["other", "strong"]);
    assert_eq!(weak.json(&["trust", "explain", "other"])["verdict"], "counts");
    assert_eq!(strong.json(&["trust", "explain", "weak"])["verdict"], "does-not-count");
    // Those two never heard of each other's address but from the founder.
    let named = |peers: &Value| {
        let all = peers["peers"].as_array().unwrap();
        all.iter().any(|peer| peer["name"] == "other" && peer["role"] == "sign")
    };
    wait::until("members are connected", || named(&weak.json(&["peers"])).then_some(()));
    assert!(!weak.get("/api/v1/peers").text().contains("\"other\""), "names are not on TCP");

    // Off while it is taken off: all others know at once, and it learns it when it is back.
    let (_status, weak) = weak.terminate();
    strong.does(&["trust", "remove", "weak"]);
    until_members(&other, &["strong"]);
    let weak = weak.start();
    until_members(&weak, &[]);
    refused(&weak, &ticket, "the ticket is revoked");

    let (_status, strong) = strong.terminate();
    let output = weak.verb(&["join", &taken_back]);
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains("cannot be reached at /ip4/127.0.0.1/tcp/"), "{}", both(&output));
    let strong = strong.start();
    assert_eq!(members(&strong), [("other".to_owned(), "sign".to_owned())]);
    other.does(&["trust", "remove", "--leave", "strong"]);
    assert!(members(&other).is_empty());
}

#[test]
fn a_package_of_a_member_is_fetched_by_its_digest_alone() {
    let dir = tempdir().unwrap();
    let machine = |name: &str| Builder::new(&dir.path().join(name));
    let (at_a, at_b, at_c) = (machine("a"), machine("b"), machine("c"));
    let a = at_a.start();
    a.does(&["build", "dev-libs/two"]);
    let (digest, content) = package(&a, TWO);
    let b = at_b.start_with("").start();
    let c = at_c.start_with("").knows(&a).start();
    c.wait_for_peers(1);
    assert!(!b.verb(&["fetch", &digest]).status.success(), "no member yet");
    assert_eq!(join(&b, &a, &["--role", "fetch"]), "fetch");
    let out = dir.path().join("out");
    let said = wait::until("A to be connected", || {
        let output = b.verb(&["fetch", &digest, "-o", out.to_str().unwrap()]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(said.starts_with("peer ") && said.trim_end().ends_with(&digest), "{said}");
    let written: Vec<_> = fs::read_dir(&out).unwrap().flatten().map(|entry| fs::read(entry.path()).unwrap()).collect();
    assert_eq!(written, [content]);
    assert!(!c.verb(&["fetch", &digest]).status.success(), "a stranger is given nothing");
}

#[test]
fn members_give_each_other_packages_that_nobody_else_hears_of() {
    let dir = tempdir().unwrap();
    let machine = |name: &str| Builder::new(&dir.path().join(name));
    let (at_a, at_b, at_c) = (machine("a"), machine("b"), machine("c"));
    let a = at_a.start();
    a.does(&["build", "dev-libs/two"]);
    let b = at_b.start_with("").start();
    // A stranger that trusts A, is beside it, and is given nothing.
    let c = at_c.start_with("").knows(&a).start();
    c.wait_for_peers(1);
    at_c.import(&c);
    c.does(&["trust", "add", &a.peer_id(), "--packages", "*/*"]);
    // Both imported the same sources, so what A holds beside them would be seen.
    wait::until("A has told what it holds", || {
        (c.json(&["peers"])["peers"][0]["holdings"] == c.status()["blobs"]).then_some(())
    });
    assert_eq!(of_cpv(&planned(&c, &["dev-libs/two"]), TWO)["fate"], "build");

    assert_eq!(join(&b, &a, &["--role", "fetch"]), "fetch");
    assert_eq!(of_cpv(&planned(&b, &["dev-libs/two"]), TWO)["fate"], "substitute");
    b.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&b, TWO), ("substitute".into(), a.peer_id().into()));
    // A member may not build for others by that: what B has from A counts as A's, and B's word as nobody's.
    assert_eq!(a.json(&["trust", "explain", &b.peer_id()])["verdict"], "does-not-count");
    c.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&c, TWO), built_here());
    // A key that A itself trusts is given packages, too.
    let at_d = machine("d");
    let d = at_d.start_with("").knows(&a).start();
    d.wait_for_peers(1);
    a.does(&["trust", "add", &d.peer_id(), "--packages", "app-misc/none"]);
    d.does(&["trust", "add", &a.peer_id(), "--packages", "*/*"]);
    assert_eq!(of_cpv(&planned(&d, &["dev-libs/two"]), TWO)["fate"], "substitute");
}
