//! What the node does not do: fetch what no Manifest names, or keep anyone waiting for what nobody has.

use std::time::Duration;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source, Sums, name_path};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;
use crate::upstream::Nginx;
use crate::wait;

#[test]
fn a_name_or_digest_that_no_manifest_knows_is_not_asked_of_any_mirror() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let known = Source::new(&nginx.distfiles(), "known-1.0.bin", &noise(1, 1_000));
    let unknown = Source::new(&nginx.distfiles(), "unknown-1.0.bin", &noise(2, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &known);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());

    let host = nginx.address().to_owned();
    for path in [
        "/distfiles/unknown-1.0.bin".to_owned(),
        unknown.name_path(),
        unknown.sums.path(),
        "/distfiles/known-1.0.bin?from=elsewhere/unknown-1.0.bin".to_owned(),
        format!("http://{host}/distfiles/unknown-1.0.bin"),
    ] {
        let reply = node.get(&path);
        assert!(!reply.is(&unknown.content()), "{path} was fetched for a stranger");
    }
    assert_eq!(node.get("/distfiles/unknown-1.0.bin").status, 404);
    assert_eq!(node.get(&unknown.sums.path()).status, 404);
    let connect = http::request(&node.http(), "CONNECT", &host, &[]);
    assert!((400..500).contains(&connect.status), "{}", connect.status);
    drop(node);
    let asked = nginx.finish();
    let strange: Vec<_> =
        asked.iter().filter(|one| one.path.contains("unknown") || one.path.contains(&unknown.sums.blake2b)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn a_known_file_that_nobody_has_is_404_at_once_and_portage_goes_on_to_upstream() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.www(), "lost-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "main");
    // The node reads its own copy of the repository, in which the address is dead: it cannot have the file.
    let dead = Repo::new(&dir.path().join("dead"), "main");
    repo.add_plain("plain", &nginx.url(), &source);
    dead.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&dead).mirror("http://127.0.0.1:1").start();

    for path in [source.sums.path(), source.name_path(), "/distfiles/lost-1.0.bin".to_owned(), name_path("nobody.bin")]
    {
        let address = node.http();
        let asked = path.clone();
        let reply = wait::within(Duration::from_secs(20), move || http::get(&address, &asked))
            .unwrap_or_else(|| panic!("{path}: no answer while Portage waits"));
        assert_eq!(reply.status, 404, "{path}");
    }
    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url()).with_upstream();
    client.fetches(&["app-misc/plain"]);
    assert_eq!(client.content("lost-1.0.bin"), source.content());
}

#[test]
fn snapshots_and_releases_pass_through_are_kept_and_nothing_else_of_a_mirror_is() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let snapshot = Source::new(&nginx.www().join("snapshots"), "portage-20260101.tar.xz", &noise(1, 300_000));
    let stage = Source::new(&nginx.www().join("releases/amd64"), "stage3.tar.xz", &noise(2, 300_000));
    let secret = Source::new(&nginx.www().join("private"), "secret", b"not for everyone");
    let repo = Repo::new(dir.path(), "main");
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());
    for (path, source) in [("/snapshots/portage-20260101.tar.xz", &snapshot), ("/releases/amd64/stage3.tar.xz", &stage)]
    {
        let reply = node.get(path);
        assert!(reply.is(&source.content()), "{path}: {}", reply.status);
    }
    assert_eq!(node.get("/snapshots/portage-19990101.tar.xz").status, 404);
    for path in ["/private/secret", "/snapshots/../private/secret", "/snapshots/%2e%2e/private/secret"] {
        let reply = node.get(path);
        assert!(reply.status >= 400 && reply.body != secret.content(), "{path}: {}", reply.status);
    }
    drop(nginx);
    let kept = node.get("/snapshots/portage-20260101.tar.xz");
    assert!(kept.is(&snapshot.content()), "with the mirror gone: {}", kept.status);
}

#[test]
fn a_file_whose_digest_only_the_client_knows_needs_no_manifest_when_it_is_in_the_store() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "later-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    drop(node);
    let bare = Repo::new(&dir.path().join("bare"), "main");
    let node = Start::new(&dir.path().join("node")).repo(&bare).start();
    assert!(node.get(&source.sums.path()).is(&source.content()), "the digest is its own proof");
    assert_eq!(node.get("/distfiles/later-1.0.bin").status, 404, "the name is known to nobody any more");
    let other = Sums { blake2b: "ab".repeat(64), ..source.sums };
    assert_eq!(node.get(&other.path()).status, 404);
}
