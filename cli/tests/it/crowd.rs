//! A hundred clients and one file that nobody has: one GET upstream, and the right bytes for all.

use std::fs;
use std::thread;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::Large;
use crate::peer::TestPeer;
use crate::upstream::{Nginx, gets};

const CLIENTS: usize = 100;
const BLOCKS: u64 = 500;
const BUFFER: usize = 256 * 1024;

#[test]
fn a_hundred_clients_of_one_large_file_cost_one_get() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let large = Large::new(1, BLOCKS);
    let path = nginx.distfiles().join("crowd-1.0.bin");
    large.write(&path);
    let source = Source::at(&path, "crowd-1.0.bin");
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());

    let (address, request) = (node.http(), source.sums.path());
    let by_name = source.name_path();
    let finished = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                // Half of them know the layout by content, half the one by name: it is one file all the same.
                let path = if number % 2 == 0 { &request } else { &by_name };
                let (address, large) = (&address, &large);
                scope.spawn(move || download(address, path, large))
            })
            .collect();
        clients.into_iter().map(|client| client.join().is_ok_and(|whole| whole)).filter(|&whole| whole).count()
    });
    assert_eq!(finished, CLIENTS, "clients with the whole file");
    node.holds_only(1);
    drop(node);
    let asked = nginx.finish();
    assert_eq!(gets(&asked, "/crowd-1.0.bin"), 1, "{asked:?}");
    fs::remove_file(path).unwrap();
}

/// Whether all bytes came and were right.
fn download(address: &str, path: &str, large: &Large) -> bool {
    let mut opened = http::open(address, "GET", path, &[]).unwrap();
    assert_eq!(opened.status, 200);
    let mut check = large.check();
    let mut buffer = vec![0; BUFFER];
    while let Ok(Some(piece)) = opened.piece(&mut buffer) {
        check.take(piece);
    }
    check.offset() == large.len()
}
