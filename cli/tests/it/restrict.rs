//! `RESTRICT`: what the user may have is served to the user's own Portage, and what others may not have is not offered.

use tempfile::tempdir;

use crate::gentoo::{Ebuild, Repo, Source};
use crate::members::{enrol, forgets, named};
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;
use crate::upstream::{Nginx, gets};
use crate::wait;

const DOWN: &str = "http://127.0.0.1:1";

#[test]
fn a_fetch_restricted_file_imported_once_is_for_this_machine_and_not_for_the_swarm() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let licensed = Source::new(&sources, "licensed-1.0.bin", &noise(1, 80_000));
    let fetchable = Source::new(&sources, "fetchable-1.0.bin", &noise(2, 80_000));
    let mirrorable = Source::new(&sources, "mirrorable-1.0.bin", &noise(3, 80_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add(&Ebuild {
        name: "licensed",
        src_uri: &format!("{DOWN}/licensed-1.0.bin fetch+{DOWN}/fetchable-1.0.bin mirror+{DOWN}/mirrorable-1.0.bin"),
        restrict: "fetch",
        sources: &[&licensed, &fetchable, &mirrorable],
    });
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, DOWN);
    a.import(&sources);

    let client = Client::new(&dir.path().join("client"), &[&repo], "").local_mirror(&a.url()).with_upstream();
    client.fetches(&["app-misc/licensed"]);
    for source in [&licensed, &fetchable, &mirrorable] {
        assert_eq!(client.content(&source.name), source.content(), "{}", source.name);
    }

    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    assert!(b.get(&mirrorable.sums.path()).is(&mirrorable.content()), "mirror+ lifts both restrictions of one file");
    // fetch+ lets the file be fetched, and leaves the restriction to mirror it that RESTRICT="fetch" implies.
    for source in [&licensed, &fetchable] {
        for path in [source.sums.path(), source.name_path(), format!("/distfiles/{}", source.name)] {
            assert_eq!(b.get(&path).status, 404, "{path}");
        }
    }
    b.holds_only(1);
}

#[test]
fn a_fetch_restricted_file_imported_at_one_machine_of_a_group_serves_the_others_and_nobody_else() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let fetch = Source::new(&sources, "fetch-1.0.bin", &noise(1, 80_000));
    let mirror = Source::new(&sources, "mirror-1.0.bin", &noise(2, 80_000));
    let repo = Repo::new(dir.path(), "main");
    for (name, restrict, source) in [("fetch", "fetch", &fetch), ("mirror", "mirror", &mirror)] {
        let src_uri = format!("{DOWN}/{}", source.name);
        repo.add(&Ebuild { name, src_uri: &src_uri, restrict, sources: &[source] });
    }
    let free = Source::new(&sources, "free-1.0.bin", &noise(4, 80_000));
    repo.add_plain("free", DOWN, &free);
    let stray = Source::new(&dir.path().join("stray"), "stray-1.0.bin", &noise(3, 80_000));
    let founder = named(Start::new(&dir.path().join("founder")).repo(&repo).mirror(DOWN), "founder").start();
    founder.import(&sources);
    let start =
        |name: &str| named(Start::new(&dir.path().join(name)).repo(&repo).mirror(DOWN).knows(&founder), name).start();
    let [member, stranger] = ["member", "stranger"].map(start);
    enrol(&founder, &member, "fetch");
    stranger.wait_for_peers(1);

    for source in [&fetch, &mirror] {
        assert_eq!(stranger.get(&source.sums.path()).status, 404, "{}", source.name);
        assert!(!stranger.verb(&["fetch", &source.name]).status.success(), "{}", source.name);
        assert!(!stranger.verb(&["fetch", &source.sums.blake2b]).status.success(), "{}", source.name);
    }
    let reply = member.get(&fetch.sums.path());
    assert!(reply.is(&fetch.content()), "its Portage asks a local mirror: {}", reply.status);
    assert_eq!(reply.header("x-peer-source"), Some("peer"));
    let said = member.does(&["fetch", "app-misc/mirror"]);
    assert!(said.starts_with("peer mirror-1.0.bin "), "{said}");
    // What the user of the one machine has besides is not for the other.
    assert_eq!(member.get(&stray.sums.path()).status, 404);
    assert!(stranger.get(&free.sums.path()).is(&free.content()));
    // It is told of the free file alone; the member, which it may have met, has none such.
    let told = || -> u64 {
        let peers = stranger.json(&["peers"]);
        peers["peers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|peer| peer["holdings"].as_u64())
            .fold(0, u64::saturating_add)
    };
    wait::until("the founder to tell what it holds", || (told() > 0).then_some(()));
    assert_eq!(told(), 1);
    // Neither does the member hand it on, nor does the founder once it has taken the member off the group.
    assert_eq!(stranger.get(&fetch.sums.path()).status, 404);
    stranger.holds_only(1);
    member.does(&["gc", "--size", "1 B"]);
    founder.does(&["trust", "remove", &member.peer_id()]);
    forgets(&founder, &member.peer_id());
    assert_eq!(member.get(&fetch.sums.path()).status, 404);
    founder.holds_only(3);
}

#[test]
fn a_mirror_restricted_file_goes_to_no_peer_but_mirror_plus_does() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let own = Source::new(&nginx.www(), "own-1.0.bin", &noise(1, 80_000));
    let exempt = Source::new(&nginx.www(), "exempt-1.0.bin", &noise(2, 80_000));
    let repo = Repo::new(dir.path(), "main");
    let url = nginx.url();
    repo.add(&Ebuild {
        name: "unmirrored",
        src_uri: &format!("{url}/own-1.0.bin mirror+{url}/exempt-1.0.bin"),
        restrict: "mirror",
        sources: &[&own, &exempt],
    });
    let a = TestPeer::mirror_of(&dir.path().join("a"), &repo, &url);
    assert!(a.get(&own.sums.path()).is(&own.content()), "from upstream for the user");
    assert!(a.get(&exempt.sums.path()).is(&exempt.content()));
    let asked = nginx.finish();
    assert_eq!(gets(&asked, "/distfiles/own-1.0.bin"), 0, "mirrors are not asked for it: {asked:?}");

    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror(DOWN).knows(&a).start();
    b.wait_for_peers(1);
    assert!(b.get(&exempt.sums.path()).is(&exempt.content()));
    assert_eq!(b.get(&own.sums.path()).status, 404);
}

#[test]
fn a_fetch_restricted_file_is_never_asked_of_mirrors_or_upstream() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "restricted-1.0.bin", &noise(1, 80_000));
    let repo = Repo::new(dir.path(), "main");
    let src_uri = format!("{}/distfiles/restricted-1.0.bin", nginx.url());
    repo.add(&Ebuild { name: "restricted", src_uri: &src_uri, restrict: "fetch", sources: &[&source] });
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());
    for path in [source.sums.path(), source.name_path(), "/distfiles/restricted-1.0.bin".to_owned()] {
        assert_eq!(node.get(&path).status, 404, "{path}");
    }
    assert_eq!(gets(&nginx.finish(), "restricted-1.0.bin"), 0);
}
