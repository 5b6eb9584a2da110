//! `kill -9` at random moments of two hundred ingests: after each restart every blob verifies, and nothing half-written
//! is served.

use std::fs;
use std::thread;
use std::time::Duration;

use tempfile::tempdir;

use crate::gentoo::{Ebuild, Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::upstream::Nginx;
use crate::wait;

const ROUNDS: usize = 40;
const FILES_PER_ROUND: usize = 5;
const LENGTH: usize = 400_000;
/// A round's ingests take about as long as this, so a moment drawn from it may be before, amid or after them.
const MOMENT_MS_MAX: u64 = 120;

#[test]
fn killed_forty_times_amid_two_hundred_ingests_the_store_never_holds_or_serves_a_wrong_byte() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let repo = Repo::new(dir.path(), "main");
    let sources: Vec<Source> = (0..ROUNDS * FILES_PER_ROUND)
        .map(|number| {
            let round = number / FILES_PER_ROUND;
            // Every second round is imported from a directory, the others are fetched from the mirror.
            let place =
                if round.is_multiple_of(2) { dir.path().join(format!("round{round}")) } else { nginx.distfiles() };
            Source::new(&place, &format!("crash{number}.bin"), &noise(number as u64 + 1, LENGTH))
        })
        .collect();
    let all: Vec<&Source> = sources.iter().collect();
    let uris: Vec<String> = all.iter().map(|source| format!("http://127.0.0.1:1/{}", source.name)).collect();
    repo.add(&Ebuild { name: "crash", src_uri: &uris.join(" "), restrict: "", sources: &all });

    let moments = noise(2026, ROUNDS * 8);
    let mut start = Start::new(&dir.path().join("node")).repo(&repo).mirror(&nginx.url());
    let mut killed_amid = 0;
    for round in 0..ROUNDS {
        let node = start.start();
        node.must_verify();
        let word = u64::from_le_bytes(moments[round * 8..round * 8 + 8].try_into().unwrap());
        let moment = Duration::from_millis(word % MOMENT_MS_MAX);
        let mine = &sources[round * FILES_PER_ROUND..][..FILES_PER_ROUND];
        let done = if round.is_multiple_of(2) {
            import(&node, &dir.path().join(format!("round{round}")), moment)
        } else {
            fetch(&node, mine, moment)
        };
        killed_amid += usize::from(!done);
        start = node.kill();
    }
    assert!(killed_amid > 0, "no kill came in the middle of an ingest; the moments are too late");

    nginx.finish();
    let node = start.start();
    node.must_verify();
    let mut held = 0;
    for source in &sources {
        let reply = node.get(&source.sums.path());
        assert!(reply.status == 404 || reply.is(&source.content()), "{}: {}", source.name, reply.status);
        held += u64::from(reply.status == 200);
    }
    assert_eq!(node.number("blobs"), held, "what is counted is what is served");
    for round in (0..ROUNDS).step_by(2) {
        node.import(&dir.path().join(format!("round{round}")));
    }
    for source in sources.chunks(FILES_PER_ROUND).step_by(2).flatten() {
        assert!(node.get(&source.sums.path()).is(&source.content()), "{} was imported again", source.name);
    }
    node.must_verify();
}

/// Imports a directory, and whether that was done before the moment came.
fn import(node: &TestPeer, from: &std::path::Path, moment: Duration) -> bool {
    let home = node.dir().to_owned();
    let control = node.dir().join("control.sock").display().to_string();
    let from = from.display().to_string();
    wait::within(moment, move || crate::peer::peer(&home, &["import", &from, "--control", &control])).is_some()
}

/// Fetches files through the node all at once, and whether that was done before the moment came.
fn fetch(node: &TestPeer, sources: &[Source], moment: Duration) -> bool {
    let address = node.http();
    let paths: Vec<(String, Vec<u8>)> = sources.iter().map(|source| (source.sums.path(), source.content())).collect();
    wait::within(moment, move || {
        let clients: Vec<_> = paths
            .into_iter()
            .map(|(path, content)| {
                let address = address.clone();
                thread::spawn(move || {
                    // The node is killed under it: any error will do, but no wrong bytes with a clean end.
                    if let Ok(opened) = http::open(&address, "GET", &path, &[]) {
                        let reply = opened.rest();
                        assert!(!reply.complete || reply.status != 200 || reply.body == content, "wrong bytes");
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("no client saw wrong bytes"));
    })
    .is_some()
}

#[test]
fn a_store_killed_at_once_after_import_has_what_import_said_it_has() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "durable-1.0.bin", &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    fs::remove_file(&source.path).unwrap();
    let node = node.kill().start();
    let reply = node.get(&source.sums.path());
    assert_eq!((reply.status, reply.body.len()), (200, LENGTH));
    node.holds_only(1);
}
