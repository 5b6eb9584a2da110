//! Builders that are killed or cut off in the middle, and clients that are: the package is made once, soon, and by
//! somebody whose word counts.

use std::fs;
use std::time::{Duration, Instant};

use crate::builder::{Builder, jobs};
use crate::members::{enrol, sees};
use crate::network::Network;
use crate::peer::TestPeer;
use crate::wait;
use crate::workshop::{
    Request, SLOW, Workshop, came_from, held, held_at, held_packages, is_quiet, job, job_if, processes_of,
    was_built_here,
};

/// By when a build goes on elsewhere after its builder was lost.
const LOSS_MAX: Duration = Duration::from_secs(60);

/// Which of two nodes holds the build, and the other one.
fn holder(nodes: [TestPeer; 2]) -> (TestPeer, TestPeer) {
    let [one, two] = nodes;
    let first = wait::until("one of both to build", || match (held(&one, SLOW), held(&two, SLOW)) {
        (Some(_), _) => Some(true),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    });
    if first { (one, two) } else { (two, one) }
}

fn tried(node: &TestPeer, other: &TestPeer) -> bool {
    let job = job(node, SLOW);
    let tried = job["tried"].as_array().unwrap_or_else(|| panic!("whom it tried: {job}"));
    tried
        .iter()
        .any(|one| one["peer"] == other.peer_id().as_str() && one["reason"].as_str().is_some_and(|r| !r.is_empty()))
}

#[test]
fn when_a_builder_is_killed_another_one_builds_and_the_package_is_published_once() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong), (_c, other)] = workshop.three();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "any"]);
    let (lost, left) = holder([strong, other]);
    let (lost_id, killed) = (lost.peer_id(), Instant::now());
    let lost = lost.kill();
    held_at(&left);
    assert!(killed.elapsed() < LOSS_MAX);
    assert_eq!(held(&weak, SLOW), None, "it is not built here too");
    workshop.go_on();
    let said = request.does();
    assert!(said.contains(&format!("offloaded {SLOW} ")), "{said}");
    came_from(&weak, SLOW, &left);
    let lost = lost.start();
    assert_eq!(lost.peer_id(), lost_id);
    assert!(tried(&weak, &lost), "{}", job(&weak, SLOW));
    // The lost one comes back and ends its own attempt, which changes nothing.
    wait::until("the lost builder to have no work", || {
        jobs(&lost).iter().all(|job| !matches!(job["state"].as_str(), Some("queued" | "running"))).then_some(())
    });
    assert_eq!((held_packages(&weak, SLOW), held_packages(&lost, SLOW), held_packages(&left, SLOW)), (1, 0, 0));
    assert_eq!(jobs(&weak).len(), 1);
    weak.must_verify();
}

#[test]
fn when_the_only_builder_is_killed_the_package_is_built_here() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "any"]);
    held_at(&strong);
    let killed = Instant::now();
    let strong = strong.kill();
    held_at(&weak);
    assert!(killed.elapsed() < LOSS_MAX);
    let strong = strong.start();
    workshop.go_on();
    let said = request.does();
    assert!(said.contains(&format!("built {SLOW} ")), "{said}");
    was_built_here(&weak, SLOW);
    assert!(tried(&weak, &strong));
    assert_eq!(held_packages(&strong, SLOW), 0);
}

/// Three machines on a network: a weak one and two that build for it.
fn on_network(workshop: &Workshop, lan: &Network) -> [(Builder, TestPeer); 3] {
    let mut machines = 0..;
    let nodes = ["weak", "strong", "other"].map(|name| {
        let machine = workshop.machine(name);
        let node = lan.quiet(machines.next().unwrap(), workshop.start(&machine, "")).start();
        machine.import(&node);
        (machine, node)
    });
    enrol(&nodes[1].1, &nodes[0].1, "build");
    enrol(&nodes[1].1, &nodes[2].1, "sign");
    sees(&nodes[0].1, &nodes[2].1, "sign");
    nodes
}

#[test]
fn when_the_cable_of_a_builder_is_cut_another_one_builds_and_when_it_is_mended_nothing_is_done_twice() {
    let Some(lan) = Network::of(3) else { return };
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong), (_c, other)] = on_network(&workshop, &lan);
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "any"]);
    let (lost, left) = holder([strong, other]);
    let machine = if lost.dir().ends_with("strong") { 1 } else { 2 };
    lan.cut(machine);
    let cut = Instant::now();
    held_at(&left);
    assert!(cut.elapsed() < LOSS_MAX);
    lan.mend(machine);
    assert!(held(&lost, SLOW).is_some(), "a builder goes on when its client is silent");
    workshop.go_on();
    request.does();
    came_from(&weak, SLOW, &left);
    wait::until("the other build to end", || (job(&lost, SLOW)["state"] == "done").then_some(()));
    sees(&weak, &lost, "sign");
    assert_eq!((jobs(&weak).len(), held_packages(&weak, SLOW)), (1, 1));
    assert_eq!((held_packages(&lost, SLOW), held_packages(&left, SLOW)), (0, 0));
    weak.must_verify();
}

#[test]
fn when_the_cable_is_cut_while_the_package_comes_it_is_built_here_and_nothing_half_is_kept() {
    const LARGE: &str = "app-misc/large-1.0";
    let Some(lan) = Network::of(2) else { return };
    let workshop = Workshop::new();
    let [at_weak, at_strong] = ["weak", "strong"].map(|name| workshop.machine(name));
    let weak = lan.quiet(0, workshop.start(&at_weak, "")).start();
    let strong = lan.quiet(1, workshop.start(&at_strong, "")).start();
    enrol(&strong, &weak, "build");
    // More than a minute for the package, so that the cut comes in its middle.
    assert!(lan.slow(0, 4), "iproute2 brings tc");
    let request = Request::new(&weak, &["app-misc/large", "--on", "any"]);
    wait::until("the builder's end of it", || (job_if(&strong, LARGE)?["state"] == "done").then_some(()));
    let store = weak.store_dir();
    wait::until("a part of the package", || (on_disk(&store) > 1 << 20).then_some(()));
    assert_eq!(job(&weak, LARGE)["state"], "running");
    lan.cut(1);
    let cut = Instant::now();
    request.does();
    assert!(cut.elapsed() < LOSS_MAX);
    was_built_here(&weak, LARGE);
    lan.mend(1);
    weak.must_verify();
    assert_eq!(jobs(&weak).len(), 1);
}

/// Bytes of what is being received by a store: its files that are not yet blobs, in whatever directory.
fn on_disk(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| {
        let path = entry.path();
        // The index and the work of builds are no packages.
        let other = ["index", "jobs", "domains"].iter().any(|name| path.file_name().is_some_and(|own| own == *name));
        match entry.metadata() {
            Ok(data) if data.is_dir() && !other => on_disk(&path),
            Ok(data) if data.is_file() => data.len(),
            _ => 0,
        }
    };
    entries.map(size).fold(0, u64::saturating_add)
}

#[test]
fn a_client_that_dies_comes_back_and_collects_without_a_second_build() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (_b, strong)] = workshop.pair();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    let at_builder = held_at(&strong);
    let weak = weak.kill();
    drop(request);
    is_quiet(&at_weak);
    assert_eq!(held(&strong, SLOW), Some(at_builder), "the builder goes on");
    let weak = weak.start();
    wait::until("the client to ask again", || (job(&weak, SLOW)["state"] == "running").then_some(()));
    assert_eq!(held(&weak, SLOW), None);
    workshop.go_on();
    let ended = wait::until("the job to end", || (job(&weak, SLOW)["state"] == "done").then(|| job(&weak, SLOW)));
    assert_eq!(ended["attempt"], 2, "{ended}");
    came_from(&weak, SLOW, &strong);
    assert_eq!(jobs(&strong).len(), 1);
    assert_eq!((&job(&strong, SLOW)["attempt"], &job(&strong, SLOW)["id"]), (&1.into(), &at_builder.into()));
}

#[test]
fn what_ended_while_the_client_was_away_is_there_when_it_comes_back() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    held_at(&strong);
    let weak = weak.kill();
    drop(request);
    workshop.go_on();
    wait::until("the builder to end", || (job(&strong, SLOW)["state"] == "done").then_some(()));
    let strong = strong.kill_to_return().start();
    let weak = weak.start();
    sees(&weak, &strong, "sign");
    wait::until("the job to end", || (job(&weak, SLOW)["state"] == "done").then_some(()));
    let (here, there) = (job(&weak, SLOW), jobs(&strong));
    assert_eq!((&here["builder"], there.len()), (&strong.peer_id().into(), 1), "{here}");
    assert_eq!(held_packages(&weak, SLOW), 1);
}

#[test]
fn a_command_that_is_killed_takes_nothing_along_and_a_cancel_ends_the_build_at_the_builder() {
    let workshop = Workshop::new();
    let [(_a, weak), (at_strong, strong)] = workshop.pair();
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    held_at(&strong);
    request.kill();
    let waiting = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    wait::until("the second command to join", || waiting.said().contains("(job 1)").then_some(()));
    assert!(!processes_of(at_strong.dir.to_str().unwrap()).is_empty(), "a build has processes");
    weak.does(&["cancel", &job(&weak, SLOW)["id"].to_string()]);
    let said = waiting.fails();
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(job(&weak, SLOW)["state"], "cancelled");
    is_quiet(&at_strong);
    wait::until("the builder's job to end", || (job(&strong, SLOW)["state"] == "cancelled").then_some(()));
    assert_eq!((held_packages(&weak, SLOW), held_packages(&strong, SLOW)), (0, 0));
    // The place is free, and the same may be asked for again.
    workshop.go_on();
    weak.does(&["build", "app-misc/slow", "--on", "strong"]);
    came_from(&weak, SLOW, &strong);
}

#[test]
fn a_cancel_of_one_of_two_clients_does_not_end_the_build_of_the_other() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    let (_c, second) = workshop.node("second");
    enrol(&strong, &second, "build");
    workshop.hold();
    let first = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    let of_first = held_at(&strong);
    let other = Request::new(&second, &["app-misc/slow", "--on", "strong"]);
    wait::until("the second client's offer", || (jobs(&strong).len() == 2).then_some(()));
    let whose: std::collections::BTreeSet<String> = jobs(&strong).iter().map(|job| job["client"].to_string()).collect();
    assert_eq!(whose.len(), 2, "each has a build of its own");
    weak.does(&["cancel", &job(&weak, SLOW)["id"].to_string()]);
    first.fails();
    let of_second = held_at(&strong);
    assert_ne!(of_second, of_first);
    workshop.go_on();
    other.does();
    came_from(&second, SLOW, &strong);
}
