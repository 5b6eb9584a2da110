//! Leaving a group, by the founder's word or by one's own, and finding the others again.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::gentoo::Repo;
use crate::members::{enrol, forgets, groups, member, named, sees};
use crate::network::Network;
use crate::peer::{Start, TestPeer, both};
use crate::terminal::on_terminal;
use crate::wait;

/// Daemons of these names, of which the first is the founder of a group of all, each with this role.
fn group<const N: usize>(dir: &Path, names: [&str; N], role: &str) -> [TestPeer; N] {
    let repo = Repo::new(dir, "main");
    let nodes = names.map(|name| named(Start::new(&dir.join(name)).repo(&repo), name).start());
    for node in &nodes[1..] {
        enrol(&nodes[0], node, role);
    }
    nodes
}

fn knows(node: &TestPeer, id: &str) {
    wait::until("a member to be heard of", || member(node, id).map(drop));
}

fn leaves(node: &TestPeer) {
    wait::until("the group to be left", || groups(node).is_empty().then_some(()));
    assert_eq!(node.json(&["trust", "list"])["members"], Value::Array(Vec::new()));
}

#[test]
fn a_revoked_member_is_forgotten_by_the_founder_by_the_third_one_and_by_itself() {
    let dir = tempdir().unwrap();
    let [founder, third, gone] = group(dir.path(), ["founder", "third", "gone"], "sign");
    let (id, third_id) = (gone.peer_id(), third.peer_id());
    knows(&third, &id);
    knows(&gone, &third_id);
    founder.does(&["trust", "remove", &id]);
    assert!(member(&founder, &id).is_none(), "at once where it is said");
    forgets(&third, &id);
    leaves(&gone);
    sees(&founder, &third, "sign");
    assert!(founder.does(&["trust", "explain", &id]).lines().count() >= 1);

    // It stays so when all of them begin anew.
    let [founder, third, gone] = [founder, third, gone].map(|node| node.kill_to_return().start());
    sees(&founder, &third, "sign");
    assert!(member(&founder, &id).is_none() && member(&third, &id).is_none() && groups(&gone).is_empty());
    // And it may come again with a new ticket.
    enrol(&founder, &gone, "fetch");
    knows(&third, &id);
    assert_eq!(member(&third, &id).unwrap()["role"], "fetch");
}

#[test]
fn a_member_that_was_away_when_it_was_revoked_hears_it_when_it_comes_back_and_so_does_the_third_one() {
    let dir = tempdir().unwrap();
    let [founder, third, gone] = group(dir.path(), ["founder", "third", "gone"], "build");
    let id = gone.peer_id();
    knows(&third, &id);
    let (third, gone) = (third.kill_to_return(), gone.kill_to_return());
    founder.does(&["trust", "remove", "gone"]);
    let third = third.start();
    forgets(&third, &id);
    sees(&third, &founder, "sign");
    let gone = gone.start();
    leaves(&gone);
    assert!(member(&founder, &id).is_none());
}

#[test]
fn who_is_blocked_here_is_blocked_here_only_until_it_is_trusted_again() {
    let dir = tempdir().unwrap();
    let [founder, one, other] = group(dir.path(), ["founder", "one", "other"], "sign");
    let id = other.peer_id();
    knows(&one, &id);
    let said = both(&one.verb(&["trust", "remove", "other"]));
    assert!(said.contains("block"), "what it means is said: {said}");
    assert_eq!(member(&one, &id).unwrap()["blocked"], true);
    assert!(one.does(&["trust", "explain", "other"]).contains("block"));
    assert_eq!(member(&founder, &id).unwrap()["blocked"], false, "others think for themselves");
    let one = one.kill().start();
    assert_eq!(member(&one, &id).unwrap()["blocked"], true, "it is not forgotten");
    one.does(&["trust", "add", &id, "--packages", "*/*"]);
    assert_eq!(member(&one, &id).unwrap()["blocked"], false);
    let output = one.verb(&["trust", "remove", "nobody-of-this-name"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{}", both(&output));
}

#[test]
fn who_removes_the_founder_leaves_the_group_only_when_that_is_said() {
    let dir = tempdir().unwrap();
    let [founder, leaver] = group(dir.path(), ["founder", "leaver"], "build");
    // Trust that was added can be taken away again, and nothing else goes with it.
    let id = founder.peer_id();
    leaver.does(&["trust", "add", "founder", "--packages", "dev-libs/two"]);
    let said = both(&leaver.verb(&["trust", "remove", "founder"]));
    assert!(said.contains("listed no longer") && said.contains("--leave"), "what goes and what stays: {said}");
    assert_eq!(leaver.json(&["trust", "list"])["keys"], serde_json::json!([]));
    assert_eq!((groups(&leaver).len(), member(&leaver, &id).unwrap()["blocked"].clone()), (1, false.into()));
    // Nobody can be asked here.
    let output = leaver.verb(&["trust", "remove", "founder"]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("leave that group") && said.contains("--leave"), "{said}");
    assert_eq!((groups(&leaver).len(), member(&leaver, &id).unwrap()["blocked"].clone()), (1, false.into()));
    for (answer, code, left) in [("\n", 1, false), ("no\n", 1, false), ("y\n", 0, true)] {
        let words = ["trust", "remove", "founder"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(words).arg("--control").arg(leaver.dir().join("control.sock"));
        let seen = on_terminal(&command, &[("[y/N]", answer)]);
        assert_eq!(seen.code, Some(code), "{answer:?}: {}", seen.said);
        assert_eq!(groups(&leaver).is_empty(), left, "{answer:?}: {}", seen.said);
    }
    enrol(&founder, &leaver, "build");
    leaver.does(&["trust", "remove", "--leave", "founder"]);
    leaves(&leaver);
    let leaver = leaver.kill().start();
    assert!(groups(&leaver).is_empty());
    assert!(member(&leaver, &founder.peer_id()).is_none());
    enrol(&founder, &leaver, "build");
}

#[test]
fn members_find_each_other_again_after_a_cut_and_after_restarts_in_any_order() {
    let Some(lan) = Network::of(3) else { return };
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let names = ["founder", "one", "two"];
    let mut machines = 0..;
    let nodes = names.map(|name| {
        let start = named(Start::new(&dir.path().join(name)).repo(&repo), name);
        lan.quiet(machines.next().unwrap(), start).start()
    });
    let [founder, one, two] = nodes;
    enrol(&founder, &one, "build");
    enrol(&founder, &two, "sign");
    // Nobody told these two of each other but the founder.
    sees(&one, &two, "sign");
    sees(&two, &one, "build");
    let [founder, one, two] = [founder, one, two].map(TestPeer::kill);
    let (two, one) = (two.start(), one.start());
    sees(&one, &two, "sign");
    let founder = founder.start();
    for (node, other, role) in [(&founder, &one, "build"), (&founder, &two, "sign"), (&two, &founder, "sign")] {
        sees(node, other, role);
    }
    // The news of a revocation waits for the cable.
    lan.cut(2);
    founder.does(&["trust", "remove", "one"]);
    leaves(&one);
    assert!(member(&two, &one.peer_id()).is_some());
    lan.mend(2);
    forgets(&two, &one.peer_id());
}

#[test]
fn two_members_that_both_moved_while_they_were_away_find_each_other_by_way_of_the_founder() {
    let dir = tempdir().unwrap();
    let [founder, one, two] = group(dir.path(), ["founder", "one", "two"], "sign");
    sees(&one, &two, "sign");
    let before = [one.p2p(), two.p2p()];
    let (one, two) = (one.kill(), two.kill());
    let (one, two) = (one.start(), two.start());
    assert!(one.p2p() != before[0] && two.p2p() != before[1], "they listen elsewhere now");
    sees(&founder, &one, "sign");
    sees(&founder, &two, "sign");
    sees(&one, &two, "sign");
    sees(&two, &one, "sign");
}
