//! `SIGTERM` and `SIGINT` end the daemon cleanly and soon, whatever it is doing.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::fault_server::{Answer, FaultServer};
use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};

/// What the interface promises, and as much again for a machine that is busy with other tests.
const END_MAX: Duration = Duration::from_secs(10);

#[test]
fn sigterm_ends_a_daemon_with_a_fetch_a_page_and_an_idle_connection_open() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "slow-1.0.bin", &noise(1, 8_000_000));
    let content = source.content();
    let mirror = FaultServer::for_file("slow-1.0.bin", move |_| Answer::Stall(content.clone(), 4_000_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &mirror.url());
    let _idle = TcpStream::connect(node.http()).unwrap();
    let _events = http::open(&node.http(), "GET", "/events", &[]).unwrap();
    let mut opened = http::open(&node.http(), "GET", &source.sums.path(), &[]).unwrap();
    let mut buffer = [0; 4096];
    opened.piece(&mut buffer).unwrap();

    let start = Instant::now();
    let (status, again) = node.terminate();
    assert!(status.is_some_and(|status| status.success()), "a clean end: {status:?}");
    assert!(start.elapsed() < END_MAX, "it took {:?}", start.elapsed());
    assert!(!opened.rest().complete, "half a file has no clean end");
    again.start().must_verify();
}

#[test]
fn the_control_socket_of_a_dead_daemon_is_no_obstacle_and_a_live_one_is_not_pushed_aside() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    let node = node.kill().start();
    let (status, log) =
        Start::new(&dir.path().join("node")).repo(&repo).try_start().err().expect("the store is in use");
    assert!(!status.success());
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(node.status()["peer_id"], node.ready["peer_id"], "the first one still answers");
}
