//! Nodes feed each other: what only one of them has reaches the others' Portage, with every mirror down.

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;

const DOWN: &str = "http://127.0.0.1:1";

#[test]
fn portage_at_b_gets_what_only_a_imported_and_b_serves_it_with_a_gone() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let small = Source::new(&sources, "small-1.0.bin", &noise(1, 1));
    let large = Source::new(&sources, "large-1.0.bin", &noise(2, 3_000_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("small", DOWN, &small);
    repo.add_plain("large", DOWN, &large);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    a.import(&sources);
    assert_eq!(a.number("blobs"), 2);
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    let reply = b.get(&small.sums.path());
    assert!(reply.is(&small.content()), "{}", reply.status);
    assert_eq!(reply.header("x-peer-source"), Some("peer"));
    let client = Client::new(&dir.path().join("client"), &[&repo], &b.url());
    client.fetches(&["app-misc/small", "app-misc/large"]);
    assert_eq!(client.content("large-1.0.bin"), large.content());
    assert_eq!(b.status()["served"]["peer"]["answers"].as_u64(), Some(2), "{}", b.status());

    a.kill();
    for source in [&small, &large] {
        let reply = b.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{}", reply.status);
        assert_eq!(reply.header("x-peer-source"), Some("store"));
    }
    client.forget_files();
    client.fetches(&["app-misc/large"]);
    b.holds_only(2);
}

#[test]
fn a_node_just_started_does_not_say_404_before_it_has_asked_the_peers_it_was_told_of() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "early-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    a.import(&source.path);
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    let reply = b.get(&source.sums.path());
    assert!(reply.is(&source.content()), "{}", reply.status);
}

#[test]
fn a_file_imported_after_the_connection_was_made_is_found_too() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "later-1.0.bin", &noise(1, 200_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    assert_eq!(b.get(&source.sums.path()).status, 404, "nobody has it yet");
    a.import(&source.path);
    let reply = crate::wait::until("B to hear that A has the file", || {
        let reply = b.get(&source.sums.path());
        (reply.status == 200).then_some(reply)
    });
    assert!(reply.is(&source.content()));
    assert_eq!(reply.header("x-peer-source"), Some("peer"));
}

#[test]
fn a_third_node_that_knows_only_the_second_finds_what_the_first_has() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "far-1.0.bin", &noise(1, 200_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    a.import(&source.path);
    let c = Start::new(&dir.path().join("c")).repo(&repo).mirror(DOWN).knows(&b).start();
    c.wait_for_peers(1);
    let reply = crate::wait::until("C to find A by way of B", || {
        let reply = c.get(&source.sums.path());
        (reply.status == 200).then_some(reply)
    });
    assert!(reply.is(&source.content()));
    assert_eq!(reply.header("x-peer-source"), Some("peer"));
}

#[test]
fn a_digest_in_no_manifest_is_had_from_a_peer_but_not_announced() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let strange = Source::new(&sources, "strange-1.0.bin", &noise(1, 50_000));
    let known = Source::new(&sources, "known-1.0.bin", &noise(2, 50_000));
    let all = Repo::new(&dir.path().join("all"), "main");
    let less = Repo::new(&dir.path().join("less"), "main");
    all.add_plain("known", DOWN, &known);
    all.add_plain("strange", DOWN, &strange);
    less.add_plain("known", DOWN, &known);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &all, DOWN);
    a.import(&sources);
    let b = Start::new(&dir.path().join("b")).repo(&less).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    for source in [&known, &strange] {
        let reply = b.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{}: {}", source.name, reply.status);
        assert_eq!(reply.header("x-peer-source"), Some("peer"));
    }
    a.kill();
    let c = Start::new(&dir.path().join("c")).repo(&all).mirror(DOWN).knows(&b).start();
    c.wait_for_peers(1);
    assert!(c.get(&known.sums.path()).is(&known.content()), "what B's Manifests know goes on from B");
    assert_eq!(c.get(&strange.sums.path()).status, 404, "what they do not know stays with B");
}

#[test]
fn peers_are_listed_by_id_and_a_wrong_id_in_the_address_is_not_accepted() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    let b = Start::new(&dir.path().join("b")).repo(&repo).knows(&a).start();
    b.wait_for_peers(1);
    assert!(b.does(&["peers"]).contains(&a.peer_id()));
    assert!(b.json(&["peers"]).to_string().contains(&a.peer_id()));
    let port = a.p2p_port().split(':').nth(1).unwrap().to_owned();

    // The identity survives a restart of the node, and an address without one is enough on a LAN.
    let without_id = format!("/ip4/127.0.0.1/tcp/{port}");
    let c = Start::new(&dir.path().join("c")).repo(&repo).flag("--peer", &without_id).start();
    c.wait_for_peers(1);
    let id = c.peer_id();
    let c = c.terminate().1.start();
    assert_eq!(c.peer_id(), id);
    let liar = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}");
    let d = Start::new(&dir.path().join("d")).repo(&repo).flag("--peer", &liar).start();
    assert_eq!(http::get(&d.http(), "/healthz").status, 200);
    assert_eq!(d.number("peers"), 0);
}
