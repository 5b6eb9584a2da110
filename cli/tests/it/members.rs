//! Groups of daemons: inviting, joining, and who a daemon says belongs to it.

use serde_json::Value;

use crate::peer::{Start, TestPeer, both};
use crate::wait;

/// A ticket of this daemon for a member of this role.
pub(crate) fn invite(founder: &TestPeer, role: &str) -> String {
    let said = founder.does(&["invite", "--role", role]);
    let ticket = said.trim_end();
    assert!(ticket.starts_with("peer1") && !ticket.contains(char::is_whitespace), "a ticket is one word: {said}");
    ticket.to_owned()
}

/// Makes `node` a member of the group of `founder`.
pub(crate) fn enrol(founder: &TestPeer, node: &TestPeer, role: &str) {
    let ticket = invite(founder, role);
    let said = node.does(&["join", &ticket]);
    assert!(said.starts_with("joined ") && said.trim_end().ends_with(&format!(" as {role}")), "{said}");
    sees(founder, node, role);
    sees(node, founder, "sign");
}

/// Who belongs to a group of this daemon, as it says itself: by peer id.
pub(crate) fn member(node: &TestPeer, id: &str) -> Option<Value> {
    let trust = node.json(&["trust", "list"]);
    let members = trust["members"].as_array().unwrap_or_else(|| panic!("a list of members: {trust}"));
    members.iter().find(|member| member["peer"] == id).cloned()
}

/// The groups that a daemon is in.
pub(crate) fn groups(node: &TestPeer) -> Vec<Value> {
    node.json(&["trust", "list"])["groups"].as_array().expect("a list of groups").clone()
}

/// Until `node` knows `other` as a member of this role that it is connected to.
pub(crate) fn sees(node: &TestPeer, other: &TestPeer, role: &str) {
    let id = other.peer_id();
    wait::until(&format!("{role} {id} to be known and connected"), || {
        let member = member(node, &id)?;
        (member["role"] == role && member["connected"] == true).then_some(())
    });
}

/// Until `node` has heard that `id` is no member.
pub(crate) fn forgets(node: &TestPeer, id: &str) {
    wait::until(&format!("{id} to be forgotten"), || member(node, id).is_none().then_some(()));
}

/// What a verb says that ends with "no".
pub(crate) fn refused(node: &TestPeer, words: &[&str]) -> String {
    let output = node.verb(words);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(1), "peer {words:?} must be refused: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The line of `peer invite --list` about a ticket.
pub(crate) fn listed(founder: &TestPeer, id: &str) -> String {
    let all = founder.does(&["invite", "--list"]);
    all.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} is not in {all}")).to_owned()
}

/// A daemon's name, for its configuration.
pub(crate) fn named(start: Start, name: &str) -> Start {
    start.config(&format!("[node]\nname = \"{name}\"\n"))
}
