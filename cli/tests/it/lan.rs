//! Two machines on one local network, with all defaults: they find each other by multicast DNS and feed each other, and
//! nobody named anybody. The machines are network namespaces of this test's own.

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::network::Network;
use crate::noise::noise;
use crate::peer::Start;
use crate::wait;

#[test]
fn two_machines_with_all_defaults_find_each_other_and_one_gets_what_the_other_has() {
    let Some(lan) = Network::of(2) else { return };
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let source = Source::new(&dir.path().join("sources"), "near-1.0.bin", &noise(1, 300_000));
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let [one, two] = [0, 1].map(|machine| {
        let start = Start::new(&dir.path().join(format!("node{machine}"))).repo(&repo);
        start.through(&lan.inside(machine)).with_default_swarm().start()
    });
    one.wait_for_peers(1);
    two.wait_for_peers(1);
    one.import(&source.path);
    wait::until("the news of what the other one has", || {
        (two.json(&["peers"])["peers"][0]["holdings"] == 1).then_some(())
    });
    let said = two.does(&["fetch", "near-1.0.bin"]);
    assert!(said.starts_with("peer near-1.0.bin "), "{said}");
    let peers = two.json(&["peers"]);
    assert_eq!(peers["peers"][0]["lan"], true, "{peers}");
    two.must_verify();
}

#[test]
fn a_cable_that_is_cut_separates_one_machine_only_and_two_daemons_of_one_machine_are_two_peers() {
    let Some(lan) = Network::of(3) else { return };
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let start = |name: &str| Start::new(&dir.path().join(name)).repo(&repo);
    let one = lan.quiet(0, start("one")).start();
    let two = lan.quiet(1, start("two")).knows(&one).start();
    let same = lan.second(1, start("same")).knows(&one).start();
    let three = lan.quiet(2, start("three")).knows(&one).start();
    one.wait_for_peers(3);
    assert_eq!(two.p2p_port().split(':').next(), same.p2p_port().split(':').next());
    assert_ne!(two.peer_id(), same.peer_id());
    let answers = |from: usize, node: &crate::peer::TestPeer| {
        let (address, port) = node.p2p_port().split_once(':').map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
        let connects = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
        lan.run(from, &["bash", "-c", &connects]).status.success()
    };
    assert!(answers(0, &two) && answers(0, &same) && answers(0, &three));
    lan.cut(1);
    assert!(!answers(0, &two) && !answers(0, &same) && answers(0, &three));
    lan.mend(1);
    assert!(answers(0, &two) && answers(1, &three));
}
