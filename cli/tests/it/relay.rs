//! Serving while fetching: clients follow an incoming file, and none gets a full-length wrong one.

use std::sync::Arc;

use tempfile::tempdir;

use crate::fault_server::{Answer, FaultServer, Gate};
use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};

const LENGTH: usize = 6_000_000;
const HALF: usize = 3_000_000;

struct Stage {
    _dir: tempfile::TempDir,
    source: Source,
    mirror: FaultServer,
    gate: Arc<Gate>,
    node: TestPeer,
}

/// A node whose mirror sends half of a file, and what `content` makes of it when the gate opens.
fn stage(content: impl Fn(Vec<u8>) -> Vec<u8>) -> Stage {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "gated-1.0.bin", &noise(1, LENGTH));
    let gate = Arc::new(Gate::default());
    let (sent, opened) = (content(source.content()), Arc::clone(&gate));
    let mirror =
        FaultServer::for_file("gated-1.0.bin", move |_| Answer::Gated(sent.clone(), HALF, Arc::clone(&opened)));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &mirror.url());
    Stage { _dir: dir, source, mirror, gate, node }
}

/// Reads so many bytes, which must come while the rest is still missing upstream.
fn follow(opened: &mut http::Opened, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while got.len() < bytes {
        let piece = opened.piece(&mut buffer).expect("the node goes on").expect("there is more to come");
        got.extend_from_slice(piece);
    }
    got
}

#[test]
fn clients_get_bytes_before_upstream_has_sent_the_last_and_a_late_one_gets_those_so_far() {
    let stage = stage(|content| content);
    let path = stage.source.sums.path();
    let mut first = http::open(&stage.node.http(), "GET", &path, &[]).unwrap();
    assert_eq!(first.status, 200);
    assert_eq!(first.header("content-length"), Some("6000000"));
    let mut one = follow(&mut first, HALF / 2);
    let mut late = http::open(&stage.node.http(), "GET", &path, &[]).unwrap();
    let mut two = follow(&mut late, HALF / 2);
    let mut resumed = http::open(&stage.node.http(), "GET", &path, &[("Range", "bytes=1000000-")]).unwrap();
    assert_eq!(resumed.status, 206, "a range of what is still coming");
    assert_eq!(resumed.header("content-range"), Some("bytes 1000000-5999999/6000000"));
    let mut three = follow(&mut resumed, HALF / 4);

    stage.gate.open();
    for (opened, got, from) in [(first, &mut one, 0), (late, &mut two, 0), (resumed, &mut three, 1_000_000)] {
        let rest = opened.rest();
        got.extend_from_slice(&rest.body);
        assert!(rest.complete);
        assert!(got.as_slice() == &stage.source.content()[from..], "all bytes are right from {from}");
    }
    assert_eq!(stage.mirror.gets("/gated-1.0.bin"), 1);
    stage.node.holds_only(1);
}

#[test]
fn a_wrong_last_byte_ends_the_connection_before_the_last_byte() {
    let stage = stage(|mut content| {
        *content.last_mut().unwrap() ^= 1;
        content
    });
    let opened = http::open(&stage.node.http(), "GET", &stage.source.sums.path(), &[]).unwrap();
    stage.gate.open();
    let reply = opened.rest();
    assert!(!reply.complete, "no clean end for wrong bytes");
    assert!(reply.body.len() < LENGTH, "never the full length of wrong bytes");
    stage.node.holds_only(0);
}

#[test]
fn what_was_fetched_of_a_file_survives_the_node_and_only_the_rest_is_asked_for() {
    let Stage { _dir, source, mirror, gate, node } = stage(|content| content);
    let mut opened = http::open(&node.http(), "GET", &source.sums.path(), &[]).unwrap();
    follow(&mut opened, HALF / 2);
    let (status, again) = node.terminate();
    assert!(status.is_some_and(|status| status.success()), "SIGTERM in the middle of a fetch ends cleanly");
    drop(opened);
    gate.open();
    let node = Start::start(again);
    let reply = node.get(&source.sums.path());
    assert!(reply.is(&source.content()), "{}", reply.status);
    let froms: Vec<u64> =
        mirror.all().iter().filter(|asked| asked.path.ends_with("/gated-1.0.bin")).map(|asked| asked.from).collect();
    assert_eq!(froms.len(), 2, "{froms:?}");
    assert!(froms[1] > 0, "the second GET asks for the rest only: {froms:?}");
    node.holds_only(1);
}
