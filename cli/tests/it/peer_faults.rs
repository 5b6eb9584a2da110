//! Peers that lie, stall, die or talk nonsense: the file comes from the next source, and nothing wrong is kept.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::{BLOCK, Large, noise};
use crate::peer::{Start, TestPeer};
use crate::upstream::{Nginx, gets};
use crate::wait;

const DOWN: &str = "http://127.0.0.1:1";

/// Large enough that a transfer is still in its middle when its first bytes have been seen.
const BLOCKS: u64 = 256;

/// The file under `dir` with this content.
fn blob_with(dir: &Path, content: &[u8]) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.map_while(Result::ok) {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).ok()?;
        let found = if metadata.is_dir() {
            blob_with(&path, content)
        } else {
            (metadata.len() == content.len() as u64 && fs::read(&path).ok()? == content).then_some(path)
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Changes a byte of the blob in the node's store, under its feet.
fn tamper(node: &TestPeer, content: &[u8]) {
    let path = blob_with(&node.store_dir(), content).expect("the store keeps blobs as files");
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&path, permissions).unwrap();
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let middle = content.len() as u64 / 2;
    file.seek(SeekFrom::Start(middle)).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_peer_whose_bytes_are_wrong_is_passed_over_for_the_mirror_and_believed_by_nobody() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "lie-1.0.bin", &noise(1, 3_000_000));
    let copy = Source::new(&dir.path().join("copy"), "lie-1.0.bin", &source.content());
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let liar = TestPeer::mirror_of(&dir.path().join("liar"), &repo, DOWN);
    liar.import(&copy.path);
    tamper(&liar, &source.content());

    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(&nginx.url()).knows(&liar).start();
    b.wait_for_peers(1);
    // The first answer may break off where the lie was found out; Portage asks again.
    let right = (0..2).any(|_| b.get(&source.sums.path()).is(&source.content()));
    assert!(right, "the mirror has the right file");
    b.holds_only(1);
    assert_eq!(gets(&nginx.finish(), "/lie-1.0.bin"), 1);

    // A node that has only the liar to ask fails honestly.
    let c = Start::new(&dir.path().join("c")).repo(&repo).mirror(DOWN).knows(&liar).start();
    let reply = c.get(&source.sums.path());
    assert!(reply.status == 404 || (!reply.complete && reply.body.len() < 3_000_000), "{}", reply.status);
    c.holds_only(0);

    // The liar finds its rotten blob itself when it looks.
    let found = liar.verb(&["verify"]);
    assert!(matches!(found.status.code(), Some(0 | 5)), "{:?}", found.status);
    liar.must_verify();
    // Whom a user listed is not banned for what it did: it may have the right bytes of B, which is still connected.
    let again = liar.get(&source.sums.path());
    assert!(again.status == 404 || again.is(&source.content()), "what rotted is not served: {}", again.status);
}

/// A file that only one peer has (and a mirror, if the test wants one), asked for at B.
struct Transfer {
    dir: tempfile::TempDir,
    large: Large,
    source: Source,
    repo: Repo,
    a: TestPeer,
}

fn transfer() -> Transfer {
    let dir = tempdir().unwrap();
    let large = Large::new(7, BLOCKS);
    let path = dir.path().join("long-1.0.bin");
    large.write(&path);
    let source = Source::at(&path, "long-1.0.bin");
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    a.import(&source.path);
    Transfer { dir, large, source, repo, a }
}

impl Transfer {
    /// Asks for the file at B and lets `fault` happen to A while it comes; whether all of it came, with a clean end.
    ///
    /// B may keep a peer's bytes to itself until they are verified, so what B says of its transfers is the event.
    fn interrupted(&self, b: &TestPeer, fault: impl FnOnce(&TestPeer)) -> bool {
        b.wait_for_peers(1);
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut opened = http::open(&b.http(), "GET", &self.source.sums.path(), &[]).unwrap();
                let mut check = self.large.check();
                let mut buffer = vec![0; 256 * 1024];
                let is_file = opened.status == 200;
                while is_file && let Ok(Some(piece)) = opened.piece(&mut buffer) {
                    check.take(piece);
                }
                check.offset() == self.large.len()
            });
            let received = wait::until("the transfer from the peer to be under way", || {
                let status: Value = serde_json::from_slice(&b.get("/api/v1/status").body).ok()?;
                assert_eq!(status["recent"].as_array().map(Vec::len), Some(0), "it ended before it could be disturbed");
                let transfer = status["transfers"].get(0)?;
                assert_ne!(transfer["source"], "mirror", "the peer is asked first");
                transfer["received"].as_u64().filter(|&received| received > BLOCK as u64)
            });
            fault(&self.a);
            assert!(received < self.large.len(), "the fault came too late");
            client.join().unwrap()
        })
    }
}

#[test]
fn a_peer_that_falls_silent_in_mid_transfer_is_left_for_the_mirror_which_gives_the_rest() {
    let transfer = transfer();
    let nginx = Nginx::start(&transfer.dir.path().join("nginx"));
    fs::hard_link(&transfer.source.path, nginx.distfiles().join("long-1.0.bin")).unwrap();
    let start = Start::new(&transfer.dir.path().join("b")).repo(&transfer.repo).mirror(&nginx.url());
    let b = start.knows(&transfer.a).start();
    assert!(transfer.interrupted(&b, |a| a.signal("STOP")), "the client sees no seam");
    b.holds_only(1);
    assert_eq!(gets(&nginx.finish(), "/long-1.0.bin"), 1, "the peer was really left");
}

#[test]
fn a_peer_that_dies_in_mid_transfer_is_left_for_the_mirror_which_gives_the_rest() {
    let transfer = transfer();
    let nginx = Nginx::start(&transfer.dir.path().join("nginx"));
    fs::hard_link(&transfer.source.path, nginx.distfiles().join("long-1.0.bin")).unwrap();
    let start = Start::new(&transfer.dir.path().join("b")).repo(&transfer.repo).mirror(&nginx.url());
    let b = start.knows(&transfer.a).start();
    assert!(transfer.interrupted(&b, |a| a.signal("KILL")), "the client sees no seam");
    b.holds_only(1);
    assert_eq!(gets(&nginx.finish(), "/long-1.0.bin"), 1, "the peer was really left");
}

#[test]
fn when_the_only_source_dies_in_mid_transfer_the_answer_breaks_off_and_nothing_is_kept() {
    let transfer = transfer();
    let b = Start::new(&transfer.dir.path().join("b")).repo(&transfer.repo).mirror(DOWN).knows(&transfer.a).start();
    assert!(!transfer.interrupted(&b, |a| a.signal("KILL")), "no clean end for half a file");
    b.holds_only(0);
    assert_eq!(b.get(&transfer.source.sums.path()).status, 404, "nobody has it any more");
}

#[test]
fn an_address_where_no_peer_speaks_does_not_keep_the_file_away() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "apart-1.0.bin", &noise(1, 50_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", DOWN, &source);
    let babbler = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (talks, says_nothing) = (address(&babbler), address(&silent));
    thread::spawn(move || {
        for mut stream in babbler.incoming().map_while(Result::ok) {
            // It hangs up when it likes.
            let _sent = stream.write_all(&noise(3, 1_000_000));
        }
    });
    let mut node = Start::new(&dir.path().join("node"))
        .repo(&repo)
        .mirror(&nginx.url())
        .flag("--peer", &talks)
        .flag("--peer", &says_nothing)
        .flag("--peer", "/ip4/127.0.0.1/tcp/1")
        .start();
    assert!(node.get(&source.sums.path()).is(&source.content()));
    assert!(node.is_healthy());
    assert_eq!(node.number("peers"), 0);
}
