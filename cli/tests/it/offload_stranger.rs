//! A stranger on the local network, at an address of its own and at the address of a member: it gets distfiles, and
//! nothing else of what members give each other.

use serde_json::Value;

use crate::builder::{Builder, binpkgs, jobs, of_cpv, planned};
use crate::members::{enrol, groups, member, sees};
use crate::network::Network;
use crate::peer::{Start, TestPeer, both};
use crate::wait;
use crate::workshop::{MINE, Workshop, held_packages};

const TWO: &str = "dev-libs/two-1.0";

fn fate(node: &TestPeer, cpv: &str) -> Value {
    of_cpv(&planned(node, &[&format!("={cpv}")]), cpv)["fate"].clone()
}

/// Until both are connected, as neighbours.
fn neighbours(node: &TestPeer, other: &TestPeer) {
    let id = other.peer_id();
    wait::until("the neighbour to be found", || {
        let peers = node.json(&["peers"]);
        let all = peers["peers"].as_array()?;
        all.iter().any(|peer| peer.to_string().contains(&id)).then_some(())
    });
}

/// What a stranger gets of the node that built `dev-libs/two`, whose word it trusts itself.
fn gets_only_distfiles(stranger: &TestPeer, strong: &TestPeer, digest: &str) {
    stranger.does(&["trust", "add", &strong.peer_id(), "--packages", "*/*"]);
    neighbours(stranger, strong);
    let said = wait::until("the source", || {
        let output = stranger.verb(&["fetch", "two-1.0.tar"]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(said.starts_with("peer two-1.0.tar "), "{said}");
    assert_eq!(fate(stranger, TWO), "build", "no claim is given to it");
    let output = stranger.verb(&["fetch", digest]);
    assert!(!output.status.success(), "nor a package whose digest it knows: {}", both(&output));
    for on in [strong.peer_id(), "strong".to_owned()] {
        let output = stranger.verb(&["build", "app-misc/mine", "--on", &on]);
        assert!(!output.status.success(), "{}", both(&output));
    }
    assert!(member(stranger, &strong.peer_id()).is_none() && groups(stranger).is_empty());
    // Its word counts nothing: it builds, and nobody follows.
    stranger.does(&["build", "app-misc/mine", "--on", "any"]);
    assert!(jobs(stranger).iter().all(|job| job["source"] != "offload" || job["state"] == "failed"));
}

fn on(
    lan: &Network,
    workshop: &Workshop,
    machine: usize,
    name: &str,
    how: fn(&Network, usize, Start) -> Start,
) -> (Builder, TestPeer) {
    let built = workshop.machine(name);
    let node = how(lan, machine, workshop.start(&built, "")).start();
    (built, node)
}

#[test]
fn a_stranger_gets_distfiles_and_no_package_no_claim_and_no_job_whatever_its_address() {
    let Some(lan) = Network::of(3) else { return };
    let workshop = Workshop::new();
    let (at_strong, strong) = on(&lan, &workshop, 0, "strong", Network::finding);
    let (_weak, weak) = on(&lan, &workshop, 1, "weak", Network::finding);
    at_strong.import(&strong);
    neighbours(&weak, &strong);
    assert!(groups(&weak).is_empty(), "to be found is not to be a member");
    enrol(&strong, &weak, "build");
    strong.does(&["build", "dev-libs/two"]);
    let digest = binpkgs(&strong, "dev-libs/two")[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(fate(&weak, TWO), "substitute", "a member gets it");

    let (_far, far) = on(&lan, &workshop, 2, "far", Network::finding);
    gets_only_distfiles(&far, &strong, &digest);
    // The same address as the member's does not make it one.
    let (_near, near) = on(&lan, &workshop, 1, "near", |lan, machine, start| {
        start.through(&lan.inside(machine)).with_default_swarm().flag("--p2p", "/ip4/0.0.0.0/tcp/0")
    });
    gets_only_distfiles(&near, &strong, &digest);

    for node in [&strong, &weak] {
        assert_eq!(fate(node, MINE), "build", "what strangers built is nothing here");
        assert_eq!(held_packages(node, MINE), 0);
        for stranger in [&far, &near] {
            assert!(member(node, &stranger.peer_id()).is_none());
        }
    }
    assert_eq!(jobs(&strong).len(), 1, "no job of a stranger: {:?}", jobs(&strong));
    // What is announced of the binhost to those who are no members is nothing.
    let seen = far.json(&["peers"]);
    let of_strong = seen["peers"].as_array().unwrap().iter().find(|peer| peer.to_string().contains(&strong.peer_id()));
    let distfiles = strong.number("blobs");
    assert!(of_strong.unwrap()["holdings"].as_u64().unwrap() < distfiles, "packages are not announced: {seen}");
    sees(&weak, &strong, "sign");
    weak.does(&["build", "dev-libs/two"]);
    assert_eq!(crate::builder::came(&weak, TWO), ("substitute".into(), strong.peer_id().into()));
}

#[test]
fn who_was_a_member_until_now_is_a_stranger_from_now_on() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    strong.does(&["build", "dev-libs/two"]);
    assert_eq!(fate(&weak, TWO), "substitute");
    let digest = binpkgs(&strong, "dev-libs/two")[0]["digest"].as_str().unwrap().to_owned();
    strong.does(&["trust", "remove", "weak"]);
    wait::until("the group to be left", || groups(&weak).is_empty().then_some(()));
    weak.does(&["trust", "add", &strong.peer_id(), "--packages", "*/*"]);
    assert_eq!(fate(&weak, TWO), "build");
    assert!(!weak.verb(&["fetch", &digest]).status.success());
    assert!(!weak.verb(&["build", "app-misc/mine", "--on", &strong.peer_id()]).status.success());
    assert_eq!(jobs(&strong).len(), 1);
}
