//! Real Portage fetches through a node: by content, by name, flat, and again after it was killed in the middle.

use std::fs;
use std::sync::Arc;

use tempfile::tempdir;

use crate::fault_server::{Answer, FaultServer, Gate};
use crate::gentoo::{Repo, Source};
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;
use crate::upstream::{Nginx, gets};
use crate::wait;

/// Portage throws away a partial file smaller than this instead of resuming it.
const RESUMED_BYTES_MIN: usize = 350 * 1024;

#[test]
fn portage_fetches_by_content_hash_and_the_mirror_is_asked_once() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "plain-1.0.bin", &noise(1, 700_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());

    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url());
    let said = client.fetches(&["app-misc/plain"]);
    assert!(said.contains(&source.sums.path()), "Portage asked by content: {said}");
    assert_eq!(client.content("plain-1.0.bin"), source.content());

    let second = Client::new(&dir.path().join("second"), &[&repo], &node.url());
    second.fetches(&["app-misc/plain"]);
    assert_eq!(second.content("plain-1.0.bin"), source.content());
    node.holds_only(1);
    let asked = nginx.finish();
    assert_eq!(gets(&asked, "/plain-1.0.bin"), 1, "{asked:?}");
}

#[test]
fn a_portage_that_knows_only_filename_hash_is_served_too() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "old+client-1.0.bin", &noise(2, 5_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());

    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url()).without_content_hash();
    let said = client.fetches(&["app-misc/plain"]);
    assert!(!said.contains(&source.sums.path()), "this Portage cannot ask by content: {said}");
    assert_eq!(client.content("old+client-1.0.bin"), source.content());
    let flat = node.get("/distfiles/old%2Bclient-1.0.bin");
    assert!(flat.is(&source.content()), "the flat layout, percent-encoded: {}", flat.status);
}

#[test]
fn every_layout_of_a_mirror_above_is_understood() {
    let dir = tempdir().unwrap();
    for (number, structure) in [
        "0=filename-hash BLAKE2B 8",
        "0=content-hash SHA512 8:8:8",
        "0=content-hash BLAKE2B 8",
        "0=flat",
        "0=unheard-of 7\n1=flat",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("above{number}-1.0.bin");
        let source = Source::new(&dir.path().join("sources"), &name, &noise(number as u64, 4_000));
        let sha = &source.sums.sha512;
        let path = match number {
            0 => source.name_path(),
            1 => format!("/distfiles/{}/{}/{}/{sha}", &sha[..2], &sha[2..4], &sha[4..6]),
            2 => source.sums.path(),
            _ => format!("/distfiles/{name}"),
        };
        let content = source.content();
        let layout = format!("[structure]\n{structure}\n");
        let mirror = FaultServer::start(move |asked| match asked.path.as_str() {
            "/distfiles/layout.conf" => Answer::Whole(layout.clone().into_bytes()),
            asked if asked == path => Answer::Whole(content.clone()),
            _ => crate::fault_server::not_found(),
        });
        let repo = Repo::new(&dir.path().join(format!("repos{number}")), "main");
        repo.add_plain("plain", "https://example.invalid", &source);
        let node = TestPeer::mirror_of(&dir.path().join(format!("node{number}")), &repo, &mirror.url());
        let reply = node.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{structure}: {} after {:?}", reply.status, mirror.all());
        assert_eq!(reply.header("x-peer-source"), Some("mirror"), "{structure}");
    }
}

#[test]
fn a_killed_portage_resumes_where_it_was_and_upstream_is_not_asked_again() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "resumed-1.0.bin", &noise(3, 8_000_000));
    let gate = Arc::new(Gate::default());
    let (content, opened) = (source.content(), Arc::clone(&gate));
    let mirror = FaultServer::for_file("resumed-1.0.bin", move |_| {
        Answer::Gated(content.clone(), 3 * 1024 * 1024, Arc::clone(&opened))
    });
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &mirror.url());
    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url());

    let mut emerge = client.begin_fetch(&["app-misc/plain"]);
    let partial = client.distfile("resumed-1.0.bin.__download__");
    wait::until("Portage to have a good part of the file", || {
        let length = fs::metadata(&partial).ok()?.len();
        (length > RESUMED_BYTES_MIN as u64).then_some(())
    });
    wait::signal("KILL", -i64::from(emerge.id()));
    emerge.wait().unwrap();
    gate.open();

    let said = client.fetches(&["app-misc/plain"]);
    assert!(said.contains("206 Partial Content"), "Portage's wget resumed: {said}");
    assert_eq!(client.content("resumed-1.0.bin"), source.content());
    assert_eq!(mirror.gets("/resumed-1.0.bin"), 1, "the node went on when its client was gone: {:?}", mirror.all());
    node.holds_only(1);
}

#[test]
fn an_arrow_a_mirror_uri_and_a_use_conditional_are_fetched_from_upstream_by_the_node() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let renamed = Source::at(&Source::new(&nginx.www(), "1.0.bin", &noise(4, 3_000)).path, "uris-renamed.bin");
    let third = Source::new(&nginx.www().join("third"), "third-1.0.bin", &noise(5, 3_000));
    let conditional = Source::new(&nginx.www(), "conditional-1.0.bin", &noise(6, 3_000));
    let repo = Repo::new(dir.path(), "main");
    repo.write("profiles/thirdpartymirrors", &format!("shelf\thttp://127.0.0.1:1/gone {}/third\n", nginx.url()));
    let url = nginx.url();
    repo.add(&crate::gentoo::Ebuild {
        name: "uris",
        src_uri: &format!(
            "{url}/1.0.bin -> uris-renamed.bin mirror://shelf/third-1.0.bin amd64? ( {url}/conditional-1.0.bin )"
        ),
        restrict: "",
        sources: &[&renamed, &third, &conditional],
    });
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    for source in [&renamed, &third, &conditional] {
        let reply = node.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{}: {}", source.name, reply.status);
        assert_eq!(reply.header("x-peer-source"), Some("upstream"), "{}", source.name);
    }
    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url());
    client.fetches(&["app-misc/uris"]);
    assert_eq!(client.content("uris-renamed.bin"), renamed.content());
    let asked = nginx.finish();
    for name in ["/1.0.bin", "/third-1.0.bin", "/conditional-1.0.bin"] {
        assert_eq!(gets(&asked, name), 1, "{asked:?}");
    }
}
