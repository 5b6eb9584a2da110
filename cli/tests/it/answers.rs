//! What tests of usable packages and of questions share: the index as Portage gets it, the reasons a node gives, and
//! machines enrolled in one group.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::builder::{Builder, binpkgs};
use crate::peer::{TestPeer, both};
use crate::wait;

/// An entry of `Packages`.
pub(crate) type Entry = BTreeMap<String, String>;

/// An ebuild that installs a note of its name and needs no sources.
pub(crate) const NOTE: &str = "SLOT=\"0\"\nsrc_install() { echo ${PN} > note; insinto /opt/${PN}; doins note; }\n";

/// The entries of the index as it is served now.
pub(crate) fn index(peer: &TestPeer) -> Vec<Entry> {
    let binhost = peer.status()["binhost"].as_str().expect("status names the binhost").to_owned();
    let reply = peer.get(&format!("{}/Packages", binhost.trim_start_matches(&peer.url())));
    assert_eq!(reply.status, 200, "{binhost}/Packages");
    let text = String::from_utf8(reply.body).expect("an index is UTF-8");
    text.split("\n\n").map(entry).filter(|entry| entry.contains_key("CPV")).collect()
}

fn entry(text: &str) -> Entry {
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The entries of one package.
pub(crate) fn listed(peer: &TestPeer, cpv: &str) -> Vec<Entry> {
    index(peer).into_iter().filter(|entry| entry["CPV"] == cpv).collect()
}

/// Which of these are in the index.
pub(crate) fn listed_of<'a>(peer: &TestPeer, cpvs: &[&'a str]) -> Vec<&'a str> {
    let all = index(peer);
    cpvs.iter().copied().filter(|cpv| all.iter().any(|entry| entry["CPV"] == *cpv)).collect()
}

/// Until exactly these of `cpvs` are in the index. The node is asked for a plan first, so that it looks at its configuration.
pub(crate) fn until_listed(peer: &TestPeer, cpvs: &[&str], wanted: &[&str]) {
    let _looked = peer.verb(&["build", "--pretend", &format!("={}", cpvs[0])]);
    let mut last = Vec::new();
    let found = wait::within_deadline(|| {
        last = listed_of(peer, cpvs);
        last == wanted
    });
    assert!(found, "listed are {last:?}, not {wanted:?}; {}", told(peer, cpvs));
}

/// What `peer show` says of these, for a failed test's message.
fn told(peer: &TestPeer, cpvs: &[&str]) -> String {
    let of = |cpv: &&str| both(&peer.verb(&["show", &format!("={cpv}")]));
    cpvs.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// Why an instance is not usable: kinds and texts.
pub(crate) fn rejects(instance: &Value) -> Vec<(String, String)> {
    let all = instance["rejects"].as_array().unwrap_or_else(|| panic!("an instance has rejects: {instance}"));
    let word = |value: &Value| value.as_str().unwrap_or_else(|| panic!("kind and text: {instance}")).to_owned();
    let found: Vec<_> = all.iter().map(|reject| (word(&reject["kind"]), word(&reject["text"]))).collect();
    assert_eq!(instance["usable"], found.is_empty(), "usable is: without a reason against it: {instance}");
    found
}

/// The reasons against the only instance of a package.
pub(crate) fn only(peer: &TestPeer, cpv: &str) -> Vec<(String, String)> {
    let all = binpkgs(peer, &format!("={cpv}"));
    assert_eq!(all.len(), 1, "one instance of {cpv}: {all:?}");
    rejects(&all[0])
}

/// The package is held and not listed for one reason of this kind, whose text has these words, and `peer show` tells
/// people so.
pub(crate) fn is_rejected(peer: &TestPeer, cpv: &str, kind: &str, words: &[&str]) {
    let why = only(peer, cpv);
    let of_kind: Vec<_> = why.iter().filter(|(found, _)| found == kind).collect();
    assert!(!of_kind.is_empty() && why.iter().all(|(found, _)| found == kind), "{cpv} is rejected for {kind}: {why:?}");
    let texts: Vec<&str> = of_kind.iter().map(|(_, text)| text.as_str()).collect();
    let texts = texts.join("; ");
    let told = peer.does(&["show", &format!("={cpv}")]);
    for word in words {
        assert!(texts.contains(word), "{cpv}: {word:?} in {texts:?}");
        assert!(told.contains(word), "{cpv}: {word:?} in what people read: {told}");
    }
    assert_eq!(listed(peer, cpv), [], "what cannot be used is not listed");
}

/// The package of a `peer weather --json` with this name and version.
pub(crate) fn of_weather<'a>(weather: &'a Value, cpv: &str) -> &'a Value {
    let all = weather["packages"].as_array().unwrap_or_else(|| panic!("weather has packages: {weather}"));
    all.iter().find(|one| one["cpv"] == cpv).unwrap_or_else(|| panic!("{cpv} is in the weather: {weather}"))
}

/// State and kind of a package in the weather.
pub(crate) fn state_of(weather: &Value, cpv: &str) -> (String, String) {
    let one = of_weather(weather, cpv);
    let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    (word("state"), word("kind"))
}

/// What the totals of a weather say is what its packages add up to.
pub(crate) fn adds_up(weather: &Value) {
    let all = weather["packages"].as_array().expect("weather has packages");
    let totals = &weather["totals"];
    for state in ["have", "substitute", "offload", "build"] {
        let count = all.iter().filter(|one| one["state"] == state).count();
        assert_eq!(totals[state], count, "{state}: {weather}");
    }
    let sum = |key: &str| all.iter().filter_map(|one| one[key].as_u64()).fold(0, u64::saturating_add);
    assert_eq!(totals["bytes"], sum("bytes"), "{weather}");
    assert_eq!(totals["build_s"], sum("build_s"), "{weather}");
    let to_build = |one: &&Value| one["state"] == "build" || one["state"] == "offload";
    let unknown = all.iter().filter(to_build).filter(|one| one["build_s"].is_null()).count();
    assert_eq!(totals["unknown_times"], unknown, "{weather}");
    for one in all {
        let state = one["state"].as_str().expect("a state");
        assert!(["have", "substitute", "offload", "build", "impossible"].contains(&state), "{one}");
        let missed = state == "build" || state == "offload" || state == "impossible";
        assert!(!missed || one["kind"].is_string() && one["cause"].is_string(), "each miss has its cause: {one}");
        let cause = one["cause"].as_str().unwrap_or_default();
        assert!(!cause.contains('\n'), "a cause is a line: {one}");
    }
}

/// Lines of the configuration that name a node; they end the section of builds.
pub(crate) const STRONG: &str = "[node]\nname = \"strong\"";

/// Invites `joiner` into the group of `founder` with this name and role, and waits until both know each other as members.
pub(crate) fn enrol(founder: &TestPeer, joiner: &TestPeer, name: &str, role: &str) {
    let ticket = founder.does(&["invite", "--role", role]);
    let joined = joiner.does(&["join", ticket.trim(), "--name", name]);
    assert!(joined.contains(role), "{joined}");
    let knows = |peer: &TestPeer, other: &str| {
        let trust = peer.json(&["trust", "list"]);
        let members = trust["members"].as_array().cloned().unwrap_or_default();
        members.iter().any(|member| member["peer"] == other && member["connected"] == true)
    };
    let (one, other) = (founder.peer_id(), joiner.peer_id());
    wait::until("members to know each other", || (knows(joiner, &one) && knows(founder, &other)).then_some(()));
}

/// No byte that a terminal would take for a command.
pub(crate) fn is_plain(text: &str) {
    let bad = text.chars().find(|&c| c.is_control() && c != '\n' && c != '\t');
    assert!(bad.is_none(), "{bad:?} in {text:?}");
}

/// Variables that one package alone is built with.
pub(crate) fn package_env(machine: &Builder, packages: &[(&str, &str)]) {
    let mut lines = String::new();
    for (package, variables) in packages {
        let name = package.replace('/', "-");
        machine.etc(&format!("env/{name}"), variables);
        lines += &format!("{package} {name}\n");
    }
    machine.etc("package.env", &lines);
}
