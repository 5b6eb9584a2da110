//! What is done otherwise than was foreseen is said at once, in one line; and what must not be done instead is an error.

use std::path::Path;

use tempfile::tempdir;

use crate::builder::{Builder, LAN, jobs, of_cpv};
use crate::members::refused;
use crate::peer::{TestPeer, both};
use crate::wait;
use crate::workshop::{MINE, Request, SLOW, Workshop, held_at, job, was_built_here};

/// More than any disk has.
const FULL: &str = "[store]\nfree_min = \"8000 TiB\"\n";

/// The lines about a job that are no progress.
fn told(node: &TestPeer, cpv: &str) -> Vec<String> {
    let lines = job(node, cpv)["told"].as_array().unwrap().clone();
    lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_named_builder_that_is_dead_is_an_error_that_says_what_to_do() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    let strong = strong.kill();
    let said = refused(&weak, &["build", "app-misc/mine", "--on", "strong"]);
    for words in ["strong", "cannot be reached", "peer peers", "--on any"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    for raw in ["Dial", "dial", "Transport", "Os {", "12D3Koo", "os error"] {
        assert!(!said.contains(raw), "{raw:?} is for the log: {said}");
    }
    assert!(told(&weak, MINE)[0].contains("it is asked again for"), "what is waited for is said: {said}");
    // Where any machine may build it, it is built here, and that is said.
    let said = both(&weak.verb(&["build", "app-misc/mine", "--on", "any"]));
    assert!(said.contains(&format!("peer: {MINE}: built here: strong is not connected")), "{said}");
    was_built_here(&weak, MINE);
    let table = weak.does(&["jobs"]);
    assert!(
        table.lines().any(|line| line.contains(MINE) && line.contains("built here: strong is not connected")),
        "{table}"
    );
    let id = job(&weak, MINE)["id"].to_string();
    assert!(both(&weak.verb(&["logs", &id])).contains("built here: strong is not connected"));
    drop(strong);
}

#[test]
fn a_builder_that_is_lost_and_a_build_that_goes_on_here_are_said_when_they_happen() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "any"]);
    held_at(&strong);
    drop(strong.kill());
    held_at(&weak);
    // It is not over yet.
    let said = request.said();
    assert!(said.contains(&format!("peer: {SLOW}: not built on strong: ")), "{said}");
    assert!(said.contains(&format!("peer: {SLOW}: built here: ")), "{said}");
    workshop.go_on();
    request.does();
    assert_eq!(job(&weak, SLOW)["attempt"], 1);
}

#[test]
fn scripts_that_are_given_to_nobody_are_the_reason_that_is_told() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (_b, _strong)] = workshop.pair();
    at_weak.etc("bashrc", "true\n");
    let said = both(&weak.verb(&["build", "app-misc/mine", "--on", "any"]));
    assert!(said.contains(&format!("peer: {MINE}: built here: ")) && said.contains("bashrc"), "{said}");
    was_built_here(&weak, MINE);
}

/// A machine with the packages of [`Builder`], and one that has built them.
fn two(dir: &Path) -> [(Builder, TestPeer); 2] {
    let at_strong = Builder::new(&dir.join("strong"));
    let strong = at_strong.start_for_everybody();
    strong.does(&["build", "dev-libs/two"]);
    let at_weak = Builder::new(&dir.join("weak"));
    let weak = at_weak.start_with(LAN).knows(&strong).start();
    at_weak.import(&weak);
    weak.wait_for_peers(1);
    weak.does(&["trust", "add", &strong.peer_id(), "--packages", "*/*"]);
    [(at_weak, weak), (at_strong, strong)]
}

#[test]
fn a_full_disk_is_said_before_a_build_and_a_substitute_that_cannot_be_kept_is_not_built_instead() {
    let dir = tempdir().unwrap();
    let [(at_weak, weak), (_b, strong)] = two(dir.path());
    // From now on there is no room; what is held is held.
    drop(weak.kill());
    let weak = at_weak.start_with(&format!("{LAN}\n{FULL}")).knows(&strong).start();
    weak.wait_for_peers(1);
    let output = weak.verb(&["build", "dev-libs/two"]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["cannot be kept", "8000.0 TiB", "free_min", "peer gc"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let ended = of_cpv(&jobs(&weak), "dev-libs/two-1.0").clone();
    assert_ne!(ended["source"], "build", "{ended}");
    assert_eq!(ended["log_bytes"], 0, "nothing was compiled: {ended}");
    // Nobody has the other one: it is not begun.
    let output = weak.verb(&["build", "app-misc/one", "--on", "local"]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    drop(strong);
    let alone = weak.verb(&["build", "dev-libs/two", "--rebuild", "--on", "local"]);
    let said = both(&alone);
    for words in ["no room to build it", "8000.0 TiB", "store.free_min", "peer gc", "are free at"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let ended = of_cpv(&jobs(&weak), "dev-libs/two-1.0").clone();
    assert_eq!((&ended["state"], &ended["log_bytes"]), (&"failed".into(), &0.into()), "{ended}");
    // With room it is what it was.
    drop(weak.kill());
    let weak = at_weak.start_with("").start();
    wait::until("the daemon", || weak.status()["peer_id"].is_string().then_some(()));
    assert!(weak.does(&["build", "dev-libs/two", "--on", "local"]).contains("built dev-libs/two-1.0"));
}
