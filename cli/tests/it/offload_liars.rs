//! Builders that answer an offer with what is not so, and strangers that make offers: swarms of the test's own that speak
//! `/peerage/build/1` as they like.

use std::fs::File;
use std::time::{Duration, Instant};

use daemon::builds::claim::{Claim, SignedClaim};
use daemon::swarm::{Identity, PeerId, Topic};
use tree::digest::Digest;
use tree::gpkg::Gpkg;
use tree::image::Image;

use crate::builder::{Builder, jobs, of_cpv, package, planned};
use crate::cbor::Value::{Bytes, Flag, List, Map, Number, Text};
use crate::cbor::encode;
use crate::liar::Liar;
use crate::members::refused;
use crate::peer::TestPeer;
use crate::workshop::{MINE, Workshop, job, was_built_here};

/// "This recipe of `cpv` was built to `package`."
fn claimed(liar: &Liar, fingerprint: Digest, cpv: &str, package: &[u8]) -> SignedClaim {
    claim_of(&liar.identity, fingerprint, cpv, package)
}

fn claim_of(by: &Identity, fingerprint: Digest, cpv: &str, package: &[u8]) -> SignedClaim {
    let (digest, size, image) = (Digest::of(package), package.len() as u64, image_of(package));
    let (cpv, repo, slot) = (cpv.parse().unwrap(), "main".to_owned(), "0/0".to_owned());
    Claim { fingerprint, cpv, repo, slot, digest, size, image, made_at: 1_700_000_000 }.sign(by)
}

fn image_of(package: &[u8]) -> Digest {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), package).unwrap();
    let gpkg = Gpkg::read(File::open(file.path()).unwrap()).unwrap();
    Image::read(File::open(file.path()).unwrap(), &gpkg).unwrap().digest()
}

fn done(claim: &SignedClaim) -> Vec<u8> {
    let claim = Bytes(claim.as_bytes().to_vec());
    encode(&Map(vec![("done", Map(vec![("claim", claim)]))]))
}

fn accepted() -> Vec<u8> {
    encode(&Map(vec![("accepted", Map(vec![("job", Number(1))]))]))
}

fn failed(reason: &str) -> Vec<u8> {
    let text = |text: &str| Text(text.to_owned());
    let fields = vec![
        ("tail", List(Vec::new())),
        ("phase", text("dependencies")),
        ("ebuild", Flag(false)),
        ("reason", text(reason)),
    ];
    encode(&Map(vec![("failed", Map(fields))]))
}

fn fingerprint(node: &TestPeer, cpv: &str) -> Digest {
    of_cpv(&planned(node, &[&format!("={cpv}")]), cpv)["fingerprint"].as_str().unwrap().parse().unwrap()
}

/// A machine with small packages `app-misc/n0` and so on besides the workshop's.
fn machine(workshop: &Workshop, name: &str) -> Builder {
    let machine = workshop.machine(name);
    for number in 0..8 {
        let body = "SLOT=\"0\"\nsrc_install() { echo x > x; insinto /opt/${PN}; doins x; }\n";
        machine.ebuild(&format!("app-misc/n{number}-1.0"), body, &[]);
    }
    machine
}

/// Has `cpv` built by anybody, of whom only this one is trusted: it must end with a build here, and the reason of the other.
fn ends_here(node: &TestPeer, liar: &Liar, cpv: &str) -> String {
    node.does(&["trust", "add", &liar.id(), "--packages", "*/*"]);
    let begun = Instant::now();
    let said = node.does(&["build", &format!("={cpv}"), "--on", "any"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{said}");
    assert!(said.contains(&format!("built {cpv} ")), "{said}");
    assert!(liar.offers() > 0, "it was asked");
    let job = was_built_here(node, cpv);
    let tried = job["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 1, "{job}");
    assert_eq!(tried[0]["peer"], liar.id(), "{job}");
    node.does(&["trust", "remove", &liar.id()]);
    node.must_verify();
    tried[0]["reason"].as_str().unwrap().to_owned()
}

fn is_believed_no_more(node: &TestPeer, liar: &Liar) {
    node.does(&["trust", "add", &liar.id(), "--packages", "*/*"]);
    let before = liar.offers();
    let said = refused(node, &["build", "app-misc/broken", "--on", &liar.id()]);
    assert_eq!(liar.offers(), before, "it is not asked again: {said}");
    node.does(&["trust", "remove", &liar.id()]);
}

#[test]
fn a_builder_that_returns_another_package_wrong_use_or_a_stale_one_is_believed_no_more_and_nothing_of_it_is_listed() {
    let workshop = Workshop::new();
    let at_maker = machine(&workshop, "maker");
    at_maker.etc("package.use", "app-misc/mine -color debug\n");
    let maker = workshop.start(&at_maker, "").start();
    at_maker.import(&maker);
    maker.does(&["build", "app-misc/n0", "app-misc/mine"]);
    let (_, other) = package(&maker, "app-misc/n0-1.0");
    let (_, wrong_use) = package(&maker, MINE);
    let old = fingerprint(&maker, "app-misc/n0-1.0");
    drop(maker);

    let liars: Vec<Liar> = (0..6).map(|_| Liar::start()).collect();
    let node = Liar::known_to(&workshop, &machine(&workshop, "node"), &liars.iter().collect::<Vec<_>>());
    let (n1, n2, n3, n4) = ("app-misc/n1-1.0", "app-misc/n2-1.0", "app-misc/n3-1.0", "app-misc/n4-1.0");
    // Of another package, by its claim and in truth.
    liars[0].says(vec![accepted(), done(&claimed(&liars[0], fingerprint(&node, n1), "app-misc/n0-1.0", &other))], true);
    let why = ends_here(&node, &liars[0], n1);
    assert!(why.contains("another package"), "{why}");
    // Of another package, as its claim does not say.
    liars[1].gives(&other);
    liars[1].says(vec![accepted(), done(&claimed(&liars[1], fingerprint(&node, n2), n2, &other))], true);
    let why = ends_here(&node, &liars[1], n2);
    assert!(why.contains("not what it says"), "{why}");
    // With other USE flags than were asked.
    liars[2].gives(&wrong_use);
    liars[2].says(vec![done(&claimed(&liars[2], fingerprint(&node, MINE), MINE, &wrong_use))], true);
    let why = ends_here(&node, &liars[2], MINE);
    assert!(why.contains("not what it says"), "{why}");
    // Of an older state of the ebuild.
    liars[3].gives(&other);
    liars[3].says(vec![done(&claimed(&liars[3], old, n3, &other))], true);
    let why = ends_here(&node, &liars[3], n3);
    assert!(why.contains("another recipe"), "{why}");
    // The word of a third key.
    let third = Identity::generate();
    liars[4].gives(&other);
    liars[4].says(vec![done(&claim_of(&third, fingerprint(&node, n4), n4, &other))], true);
    let why = ends_here(&node, &liars[4], n4);
    assert!(why.contains("another node"), "{why}");
    // Other bytes than the claim names.
    let n5 = "app-misc/n5-1.0";
    let mut bytes = other.clone();
    let claim = claimed(&liars[5], fingerprint(&node, n5), n5, &other);
    *bytes.last_mut().unwrap() ^= 1;
    liars[5].shelf.blobs.lock().unwrap().insert(Digest::of(&other), bytes);
    liars[5].says(vec![done(&claim)], true);
    ends_here(&node, &liars[5], n5);
    for liar in &liars {
        is_believed_no_more(&node, liar);
    }
}

#[test]
fn a_builder_that_talks_nonsense_hangs_up_or_falls_silent_costs_time_and_nothing_else() {
    let workshop = Workshop::new();
    let liars: Vec<Liar> = (0..5).map(|_| Liar::start()).collect();
    let node = Liar::known_to(&workshop, &machine(&workshop, "node"), &liars.iter().collect::<Vec<_>>());
    let scripts: [(Vec<Vec<u8>>, bool); 5] = [
        (vec![b"nonsense".to_vec()], true),
        (vec![accepted()], false),
        (vec![accepted()], true),
        (vec![done_bytes(b"no claim")], true),
        (vec![encode(&Map(vec![("done", Map(vec![("claim", Bytes(vec![7; 400_000]))]))]))], true),
    ];
    for (number, (liar, (frames, silent))) in liars.iter().zip(scripts).enumerate() {
        liar.says(frames, silent);
        let why = ends_here(&node, liar, &format!("app-misc/n{number}-1.0"));
        assert!(!why.is_empty());
    }
}

fn done_bytes(claim: &[u8]) -> Vec<u8> {
    encode(&Map(vec![("done", Map(vec![("claim", Bytes(claim.to_vec()))]))]))
}

#[test]
fn a_builder_that_fails_five_times_at_once_is_left_alone_and_that_is_said() {
    let workshop = Workshop::new();
    let liar = Liar::start();
    let node = Liar::known_to(&workshop, &machine(&workshop, "node"), &[&liar]);
    node.does(&["trust", "add", &liar.id(), "--packages", "*/*"]);
    liar.says(vec![accepted(), failed("its disk is full, says the test")], false);
    for number in 0..7 {
        let cpv = format!("app-misc/n{number}-1.0");
        node.does(&["build", &format!("={cpv}"), "--on", "any"]);
        let job = was_built_here(&node, &cpv);
        let tried = job["tried"].to_string();
        assert_eq!(tried.contains("its disk is full, says the test"), number < 5, "{number}: {job}");
    }
    assert_eq!(liar.offers(), 5);
    let said = refused(&node, &["build", "app-misc/n7", "--on", &liar.id()]);
    assert!(said.contains("its disk is full, says the test") || said.contains("left alone"), "{said}");
    let explained = node.does(&["trust", "explain", &liar.id()]);
    assert!(explained.contains("no builds are given to it") && explained.contains("five times"), "{explained}");
    let peers = node.does(&["peers"]);
    assert!(peers.contains("no builds") || peers.contains("grounded"), "{peers}");
    assert_eq!(liar.offers(), 5);
}

#[test]
fn a_stranger_that_speaks_the_protocol_of_builders_gives_no_build_and_asks_in_vain() {
    let workshop = Workshop::new();
    let stranger = Liar::start();
    let strong = Liar::known_to(&workshop, &machine(&workshop, "strong"), &[&stranger]);
    let strong_id: PeerId = strong.peer_id().parse().unwrap();
    let print = fingerprint(&strong, "app-misc/n0-1.0");
    let text = |text: &str| Text(text.to_owned());
    let offer = Map(vec![
        ("v", Number(1)),
        ("cpv", text("app-misc/n0-1.0")),
        ("arch", text("amd64")),
        ("repo", text("main")),
        ("chost", text("x86_64-pc-linux-gnu")),
        ("lease", Bytes(vec![1; 16])),
        ("domain", Bytes(vec![2; 64])),
        ("recipe", text("peerage recipe 1\n")),
        ("domain_size", Number(100)),
        ("fingerprint", Bytes(print.as_bytes().to_vec())),
    ]);
    let offers = [encode(&Map(vec![("offer", offer)])), b"nonsense".to_vec(), Vec::new(), vec![0xff; 500_000]];
    // What this machine built for itself is no stranger's either.
    strong.does(&["build", "app-misc/n0"]);
    let (_, bytes) = package(&strong, "app-misc/n0-1.0");
    for offer in &offers {
        let heard = stranger.offers_to(&strong, offer.clone());
        assert!(heard.iter().all(|frame| !frame.contains("accepted") && !frame.contains("done")), "{heard:?}");
    }
    for topic in [Topic::Query, Topic::Group] {
        for question in [b"".to_vec(), b"nonsense".to_vec(), vec![0xff; 100_000]] {
            let asked = stranger.swarm.ask(strong_id, topic, question, Duration::from_secs(10));
            assert!(stranger.runtime.block_on(asked).is_err(), "{topic:?}");
        }
    }
    let opened = stranger.runtime.block_on(stranger.swarm.open(strong_id, &Digest::of(&bytes), 0));
    assert!(opened.is_err(), "a package whose digest it knows is not given");
    assert_eq!(jobs(&strong).len(), 1);
    assert_eq!(job(&strong, "app-misc/n0-1.0")["client"], serde_json::Value::Null);
    let mut strong = strong;
    assert!(strong.is_healthy());
}
