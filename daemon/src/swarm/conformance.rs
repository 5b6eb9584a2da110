//! One suite of scenarios over both networks: libp2p on 127.0.0.1, and the in-memory twin.

mod claims;
mod group;

use super::{
    BodyError, Config, Held, Holdings, Identity, Network, Offence, OpenError, PeerId, ReadAt, StartSwarmError, Swarm,
    Topic,
};
use crate::tasks::Tasks;
use claims::{
    a_banned_peer_is_not_asked_for_claims, a_fingerprint_is_announced_and_found_like_a_blob_and_is_none,
    a_ninth_stream_for_claims_is_told_to_wait_while_blobs_still_come,
    a_peer_that_looks_up_claims_for_ever_costs_no_more_than_the_deadline,
    claims_come_as_they_are_and_to_have_none_is_an_answer, garbage_on_a_stream_for_claims_ends_only_that_stream,
    more_and_longer_claims_than_may_go_out_stay_here,
};
use futures::future::BoxFuture;
use group::{
    questions_are_answered_one_after_another_and_side_by_side, what_is_not_answered_is_refused,
    who_answers_late_costs_no_more_than_the_deadline,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tree::digest::Digest;

/// Far beyond what anything here takes; reached only when a scenario hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where one step of a body ends and the next begins, and its neighbours.
const STEP: usize = crate::buffers::STEP_BYTES;
const INTERESTING_SIZES: [usize; 7] = [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP + 17, 5_000_003];

/// Opens when the test says so, or ends.
#[derive(Default)]
struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let guard = self.open.lock().unwrap();
        drop(self.opened.wait_while(guard, |open| !*open).unwrap());
    }
}

struct Content {
    bytes: Vec<u8>,
    /// Reads from here on wait for the latch.
    waits_at: Option<usize>,
    latch: Arc<Latch>,
}

impl ReadAt for Content {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap();
        if self.waits_at.is_some_and(|at| offset >= at) {
            self.latch.wait();
        }
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// What a node of a test holds.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<BTreeMap<Digest, Entry>>,
    latch: Arc<Latch>,
    /// Whether looking a blob or claims up waits for the latch.
    opens_late: AtomicBool,
    claims: Mutex<BTreeMap<Digest, Vec<Vec<u8>>>>,
    members: Mutex<BTreeSet<PeerId>>,
}

#[derive(Clone)]
struct Entry {
    bytes: Vec<u8>,
    claimed_size: u64,
    waits_at: Option<usize>,
}

impl Shelf {
    fn put(&self, bytes: Vec<u8>) -> Digest {
        let claimed_size = bytes.len() as u64;
        self.put_as(Entry { bytes, claimed_size, waits_at: None })
    }

    fn put_as(&self, entry: Entry) -> Digest {
        let digest = Digest::of(&entry.bytes);
        self.blobs.lock().unwrap().insert(digest, entry);
        digest
    }
}

impl Holdings for Shelf {
    fn open(&self, digest: &Digest, _: &PeerId) -> Option<Held> {
        if self.opens_late.load(Ordering::Relaxed) {
            self.latch.wait();
        }
        let Entry { bytes, claimed_size: size, waits_at } = self.blobs.lock().unwrap().get(digest)?.clone();
        let reader = Box::new(Content { bytes, waits_at, latch: Arc::clone(&self.latch) });
        Some(Held { size, reader })
    }

    fn claims(&self, fingerprint: &Digest, _: &PeerId) -> Vec<Vec<u8>> {
        if self.opens_late.load(Ordering::Relaxed) {
            self.latch.wait();
        }
        self.claims.lock().unwrap().get(fingerprint).cloned().unwrap_or_default()
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.members.lock().unwrap().contains(peer)
    }

    /// The question backwards; `never` has no answer, `long N` has so many bytes.
    fn answer(&self, _: PeerId, topic: Topic, question: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        let text = String::from_utf8_lossy(&question).into_owned();
        Box::pin(async move {
            if text == "never" {
                std::future::pending::<()>().await;
            }
            let long = text.strip_prefix("long ").map(|length| vec![7; length.parse().unwrap()]);
            (topic == Topic::Group).then(|| long.unwrap_or_else(|| question.into_iter().rev().collect()))
        })
    }

    fn announced(&self) -> Vec<Digest> {
        self.blobs.lock().unwrap().keys().copied().collect()
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n.wrapping_mul(2_654_435_761) >> 7) & 0xff).unwrap()).collect()
}

enum Kind {
    Libp2p,
    Memory(Network),
}

struct Node {
    swarm: Swarm,
    shelf: Arc<Shelf>,
    tasks: Tasks,
}

impl Drop for Node {
    /// The runtime waits for reads that wait.
    fn drop(&mut self) {
        self.shelf.latch.open();
    }
}

fn config() -> Config {
    Config { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], first_answer: PATIENCE, ..Config::default() }
}

impl Kind {
    async fn start(&self, config: Config, shelf: Shelf) -> Node {
        let (tasks, shelf) = (Tasks::new(), Arc::new(shelf));
        let holdings: Arc<dyn Holdings> = Arc::<Shelf>::clone(&shelf);
        let swarm = match self {
            Self::Libp2p => Swarm::start(Identity::generate(), config, holdings, &tasks).await.unwrap(),
            Self::Memory(network) => network.join(&Identity::generate(), config, holdings, &tasks).await,
        };
        Node { swarm, shelf, tasks }
    }

    async fn node(&self) -> Node {
        self.start(config(), Shelf::default()).await
    }

    /// A node that listed the other as its peer, once both know it.
    async fn beside(&self, other: &Node, shelf: Shelf, config: Config) -> Node {
        let peers = other.swarm.listen_addrs();
        let node = self.start(Config { peers, ..config }, shelf).await;
        connected(&node, other).await;
        node
    }

    /// A client and a server with this on its shelf.
    async fn pair(&self, shelf: Shelf) -> (Node, Node) {
        let server = self.start(config(), shelf).await;
        let client = self.beside(&server, Shelf::default(), config()).await;
        (client, server)
    }
}

async fn until(swarm: &Swarm, what: &str, holds: impl Fn(&Swarm) -> bool) {
    let mut changes = swarm.changes();
    let wait = async {
        while !holds(swarm) {
            changes.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

fn knows(swarm: &Swarm, peer: PeerId) -> bool {
    swarm.peers().iter().any(|info| info.peer_id == peer)
}

async fn connected(a: &Node, b: &Node) {
    until(&a.swarm, "the first knows the second", |swarm| knows(swarm, b.swarm.peer_id())).await;
    until(&b.swarm, "the second knows the first", |swarm| knows(swarm, a.swarm.peer_id())).await;
}

async fn read(body: &mut super::Body) -> Result<Vec<u8>, BodyError> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        assert!(!chunk.is_empty() && chunk.len() <= STEP);
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn blobs_of_every_size_arrive_whole_and_from_any_byte(kind: Kind) {
    let shelf = Shelf::default();
    let digests = INTERESTING_SIZES.map(|size| (size, shelf.put(bytes(size))));
    let (client, server) = kind.pair(shelf).await;
    for (size, digest) in digests {
        let content = bytes(size);
        for from in [0, size / 2, size.saturating_sub(1), size] {
            let mut body = client.swarm.open(server.swarm.peer_id(), &digest, from as u64).await.unwrap();
            assert_eq!((body.size(), body.position()), (size as u64, from as u64));
            assert_eq!(read(&mut body).await.unwrap(), content[from..], "{size} bytes from {from}");
            assert_eq!(body.chunk().await.unwrap(), None, "the end stays the end");
        }
    }
    let info = client.swarm.peers().into_iter().find(|info| info.peer_id == server.swarm.peer_id()).unwrap();
    assert!(
        info.received_bytes >= 5_000_003 && info.score == 0 && info.lan,
        "nobody has looked whether they were right"
    );
}

async fn who_holds_what_is_known_after_connecting_and_follows_every_change(kind: Kind) {
    let shelf = Shelf::default();
    let early = shelf.put(b"early".to_vec());
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    let holds = |digest| move |swarm: &Swarm| swarm.holders(&digest) == [peer];
    until(&client.swarm, "the list has come", holds(early)).await;
    let late = server.shelf.put(b"late".to_vec());
    assert!(client.swarm.holders(&late).is_empty());
    server.swarm.announce(&[late, late, early]);
    until(&client.swarm, "the news have come", holds(late)).await;
    assert_eq!(server.swarm.announced(), 2);
    server.swarm.withdraw(&[early]);
    until(&client.swarm, "the withdrawal has come", |swarm| swarm.holders(&early).is_empty()).await;
    assert_eq!(client.swarm.peers()[0].holdings, 1);
}

async fn a_peer_that_leaves_is_no_holder_any_more(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put(b"here today".to_vec());
    let (client, server) = kind.pair(shelf).await;
    until(&client.swarm, "it is a holder", |swarm| !swarm.holders(&digest).is_empty()).await;
    assert!(server.tasks.shutdown(PATIENCE).await);
    until(&client.swarm, "it is gone", |swarm| swarm.connected() == 0).await;
    assert!(client.swarm.holders(&digest).is_empty());
}

async fn what_is_not_held_is_answered_and_the_stream_serves_the_next(kind: Kind) {
    let shelf = Shelf::default();
    let held = shelf.put(b"held".to_vec());
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    until(&client.swarm, "it is a holder", |swarm| !swarm.holders(&held).is_empty()).await;
    server.shelf.blobs.lock().unwrap().clear();
    assert!(matches!(client.swarm.open(peer, &held, 0).await, Err(OpenError::NotHeld { .. })));
    assert!(client.swarm.holders(&held).is_empty(), "who said no is not asked again");
    let again = server.shelf.put(b"again".to_vec());
    assert_eq!(read(&mut client.swarm.open(peer, &again, 0).await.unwrap()).await.unwrap(), b"again");
}

async fn a_byte_beyond_the_end_is_out_of_range(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put(bytes(100));
    let (client, server) = kind.pair(shelf).await;
    let refused = client.swarm.open(server.swarm.peer_id(), &digest, 101).await;
    assert!(matches!(refused, Err(OpenError::OutOfRange { size: 100, from: 101, .. })));
}

async fn a_size_that_is_a_lie_ends_as_a_broken_body(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put_as(Entry { bytes: bytes(STEP * 2 + 5), claimed_size: 10_000_000, waits_at: None });
    let (client, server) = kind.pair(shelf).await;
    let mut body = client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap();
    assert_eq!(body.size(), 10_000_000);
    let error = read(&mut body).await.unwrap_err();
    assert!(matches!(error, BodyError::Broken { .. }) && error.at() <= (STEP * 2 + 5) as u64, "{error}");
    // How it ended shows whether the peer ended it: a stream that is reset may be the network's doing.
    assert!(matches!(error.offence(), Offence::Broken | Offence::Failing), "{error}");
    assert!(body.chunk().await.is_err(), "a broken body stays broken");
}

async fn a_peer_that_dies_in_the_middle_is_noticed(kind: Kind) {
    let shelf = Shelf::default();
    let content = bytes(STEP * 8);
    let digest =
        shelf.put_as(Entry { bytes: content.clone(), claimed_size: content.len() as u64, waits_at: Some(STEP * 2) });
    let server = kind.start(config(), shelf).await;
    // Silence would be an error too: here the end of the connection must come first.
    let patient = Config { silence_max: PATIENCE, ..config() };
    let client = kind.beside(&server, Shelf::default(), patient).await;
    let mut body = client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap();
    let mut got = body.chunk().await.unwrap().unwrap().len();
    assert!(server.tasks.shutdown(PATIENCE).await);
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => got += chunk.expect("it cannot end well").len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BodyError::Broken { .. }), "{error}");
    assert_eq!(error.at(), got as u64);
}

async fn a_peer_that_falls_silent_is_stalled_at_the_deadline(kind: Kind) {
    let shelf = Shelf::default();
    let content = bytes(STEP * 4);
    let digest =
        shelf.put_as(Entry { bytes: content.clone(), claimed_size: content.len() as u64, waits_at: Some(STEP) });
    let server = kind.start(config(), shelf).await;
    let hasty = Config { silence_max: Duration::from_millis(300), ..config() };
    let client = kind.beside(&server, Shelf::default(), hasty).await;
    let mut body = client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap();
    let error = read(&mut body).await.unwrap_err();
    assert!(matches!(error, BodyError::Stalled { at, .. } if at <= STEP as u64), "{error}");
}

async fn a_peer_that_does_not_answer_costs_no_more_than_the_deadline_given(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put(bytes(10));
    shelf.opens_late.store(true, Ordering::Relaxed);
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    let short = Duration::from_millis(50);
    let late = client.swarm.open_within(peer, &digest, 0, short).await.unwrap_err();
    assert!(matches!(late, OpenError::NoAnswer { after, .. } if after == short), "{late}");
    assert_eq!(late.offence(), Some(Offence::Failing), "which may be the network's doing");
    server.shelf.latch.open();
    let mut body = client.swarm.open_within(peer, &digest, 0, PATIENCE).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), bytes(10), "the late answer is not taken for the next one");
}

async fn nobody_there_is_an_error_at_once(kind: Kind) {
    let client = kind.node().await;
    let nobody = Identity::generate().peer_id();
    let opened = client.swarm.open(nobody, &Digest::of(b""), 0).await;
    assert!(matches!(opened, Err(OpenError::Unreachable { .. })));
    assert!(client.swarm.find(&Digest::of(b""), PATIENCE).await.is_empty(), "there is no one to ask");
}

async fn eight_blobs_come_side_by_side(kind: Kind) {
    let shelf = Shelf::default();
    let contents: Vec<Vec<u8>> = (0..8).map(|n| bytes(700_000 + n)).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| shelf.put(content.clone())).collect();
    let (client, server) = kind.pair(shelf).await;
    let peer = server.swarm.peer_id();
    for _ in 0..4 {
        let reads = digests.iter().map(|digest| async {
            let mut body = client.swarm.open(peer, digest, 0).await.unwrap();
            read(&mut body).await.unwrap()
        });
        assert_eq!(futures::future::join_all(reads).await, contents);
    }
}

async fn a_ninth_stream_is_told_to_wait(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put_as(Entry { bytes: bytes(STEP * 2), claimed_size: (STEP * 2) as u64, waits_at: Some(0) });
    let (client, server) = kind.pair(shelf).await;
    let mut bodies = Vec::new();
    for _ in 0..8 {
        bodies.push(client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap());
    }
    let ninth = client.swarm.open(server.swarm.peer_id(), &digest, 0).await;
    assert!(matches!(ninth, Err(OpenError::Busy { .. })), "{ninth:?}");
    server.shelf.latch.open();
    for body in &mut bodies {
        assert_eq!(read(body).await.unwrap().len(), STEP * 2);
    }
}

async fn a_liar_is_cut_off_and_neither_asked_nor_let_in(kind: Kind) {
    let shelf = Shelf::default();
    let digest = shelf.put(b"not what it seems".to_vec());
    let client = kind.node().await;
    // It came by itself: whom the user lists is not banned.
    let liar = kind.beside(&client, shelf, config()).await;
    let truth = client.shelf.put(b"the truth".to_vec());
    let peer = liar.swarm.peer_id();
    until(&client.swarm, "it is a holder", |swarm| !swarm.holders(&digest).is_empty()).await;
    client.swarm.blame(peer, Offence::WrongBytes);
    assert!(client.swarm.is_banned(&peer));
    assert!(client.swarm.holders(&digest).is_empty());
    until(&client.swarm, "it is cut off", |swarm| swarm.connected() == 0).await;
    assert!(matches!(client.swarm.open(peer, &digest, 0).await, Err(OpenError::Banned { .. })));
    until(&liar.swarm, "the liar notices", |swarm| swarm.connected() == 0).await;
    for address in client.swarm.listen_addrs() {
        liar.swarm.dial(address);
    }
    assert!(liar.swarm.open(client.swarm.peer_id(), &truth, 0).await.is_err());
    assert!(!knows(&client.swarm, peer));
}

async fn small_offences_lower_the_score_and_the_order_of_holders(kind: Kind) {
    let server = kind.node().await;
    let digest = Digest::of(b"common");
    let mut others = Vec::new();
    for _ in 0..3 {
        let shelf = Shelf::default();
        shelf.put(b"common".to_vec());
        others.push(kind.beside(&server, shelf, config()).await);
    }
    until(&server.swarm, "all are holders", |swarm| swarm.holders(&digest).len() == 3).await;
    server.swarm.blame(others[1].swarm.peer_id(), Offence::Stalled);
    server.swarm.blame(others[2].swarm.peer_id(), Offence::Refused);
    let order = [0, 2, 1].map(|n: usize| others[n].swarm.peer_id());
    assert_eq!(server.swarm.holders(&digest), order);
    let blamed = server.swarm.peers().into_iter().find(|info| info.peer_id == order[2]).unwrap();
    assert_eq!((blamed.score, blamed.blamed), (-20, 1));
}

async fn a_key_is_found_through_others_when_its_holder_is_not_connected(kind: Kind) {
    // Without the exchange of holdings, only records lead to a holder.
    let alone = || Config { exchange: false, ..config() };
    let middle = kind.start(alone(), Shelf::default()).await;
    let shelf = Shelf::default();
    let digest = shelf.put(b"far away".to_vec());
    let holder = kind.beside(&middle, shelf, alone()).await;
    until(&middle.swarm, "the middle keeps the record", |swarm| swarm.records() == 1).await;
    until(&holder.swarm, "nothing waits", |swarm| swarm.adverts_waiting() == 0).await;
    let seeker = kind.start(Config { peers: middle.swarm.listen_addrs(), ..alone() }, Shelf::default()).await;
    until(&seeker.swarm, "the seeker knows the middle", |swarm| knows(swarm, middle.swarm.peer_id())).await;
    assert!(!knows(&seeker.swarm, holder.swarm.peer_id()), "the seeker has not met the holder");
    assert!(seeker.swarm.holders(&digest).is_empty());
    assert_eq!(seeker.swarm.find(&digest, PATIENCE).await, [holder.swarm.peer_id()]);
    let mut body = seeker.swarm.open(holder.swarm.peer_id(), &digest, 0).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), b"far away");
    holder.swarm.withdraw(&[digest]);
    until(&middle.swarm, "the record is gone", |swarm| swarm.records() == 0).await;
}

macro_rules! over_both_networks {
    ($($scenario:ident),* $(,)?) => {
        mod libp2p {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario(super::Kind::Libp2p).await;
            })*
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario(super::Kind::Memory(super::Network::new())).await;
            })*
        }
    };
}

over_both_networks!(
    blobs_of_every_size_arrive_whole_and_from_any_byte,
    who_holds_what_is_known_after_connecting_and_follows_every_change,
    a_peer_that_leaves_is_no_holder_any_more,
    what_is_not_held_is_answered_and_the_stream_serves_the_next,
    a_byte_beyond_the_end_is_out_of_range,
    a_size_that_is_a_lie_ends_as_a_broken_body,
    a_peer_that_dies_in_the_middle_is_noticed,
    a_peer_that_falls_silent_is_stalled_at_the_deadline,
    a_peer_that_does_not_answer_costs_no_more_than_the_deadline_given,
    nobody_there_is_an_error_at_once,
    eight_blobs_come_side_by_side,
    a_ninth_stream_is_told_to_wait,
    a_liar_is_cut_off_and_neither_asked_nor_let_in,
    small_offences_lower_the_score_and_the_order_of_holders,
    a_key_is_found_through_others_when_its_holder_is_not_connected,
    claims_come_as_they_are_and_to_have_none_is_an_answer,
    a_fingerprint_is_announced_and_found_like_a_blob_and_is_none,
    more_and_longer_claims_than_may_go_out_stay_here,
    a_peer_that_looks_up_claims_for_ever_costs_no_more_than_the_deadline,
    a_ninth_stream_for_claims_is_told_to_wait_while_blobs_still_come,
    garbage_on_a_stream_for_claims_ends_only_that_stream,
    a_banned_peer_is_not_asked_for_claims,
    questions_are_answered_one_after_another_and_side_by_side,
    what_is_not_answered_is_refused,
    who_answers_late_costs_no_more_than_the_deadline,
);

mod only_libp2p {
    use super::{
        Config, Digest, Kind, OpenError, PATIENCE, Shelf, StartSwarmError, Swarm, Tasks, config, knows, read, until,
    };
    use crate::swarm::Identity;
    use libp2p::futures::StreamExt as _;
    use libp2p::swarm::SwarmEvent;
    use libp2p::{Multiaddr, identify, noise, tcp, yamux};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn port(address: &Multiaddr) -> u16 {
        let port = address.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        port.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn garbage_on_the_port_does_not_disturb_a_node() {
        let shelf = Shelf::default();
        let digest = shelf.put(b"undisturbed".to_vec());
        let (client, server) = Kind::Libp2p.pair(shelf).await;
        let port = port(&server.swarm.listen_addrs()[0]);
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"\x13/multistream/1.0.0\n\xff\xff\xff\xff", b""]
        {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            // Whatever it says and however it hangs up, it does hang up.
            let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok());
        }
        let mut body = client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap();
        assert_eq!(read(&mut body).await.unwrap(), b"undisturbed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_libp2p_node_of_another_kind_is_dropped_after_identify() {
        let server = Kind::Libp2p.node().await;
        let mut foreign = libp2p::SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| identify::Behaviour::new(identify::Config::new("/other/1".into(), key.public())))
            .unwrap()
            .build();
        foreign.dial(server.swarm.listen_addrs()[0].clone()).unwrap();
        let cut = async { while !matches!(foreign.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
        assert!(tokio::time::timeout(PATIENCE, cut).await.is_ok());
        assert!(!knows(&server.swarm, *foreign.local_peer_id()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_listed_peer_without_its_id_is_found_and_found_again_after_a_restart() {
        let identity = Identity::generate();
        let tasks = Tasks::new();
        let first = Swarm::start(identity.clone(), config(), Arc::new(Shelf::default()), &tasks).await.unwrap();
        let at = port(&first.listen_addrs()[0]);
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{at}").parse().unwrap();
        let client = Kind::Libp2p.start(Config { peers: vec![address.clone()], ..config() }, Shelf::default()).await;
        until(&client.swarm, "it is found", |swarm| knows(swarm, first.peer_id())).await;
        assert!(tasks.shutdown(PATIENCE).await);
        until(&client.swarm, "it is lost", |swarm| swarm.connected() == 0).await;
        let tasks = Tasks::new();
        let again = Config { listen: vec![address], ..config() };
        let second = Swarm::start(identity, again, Arc::new(Shelf::default()), &tasks).await.unwrap();
        until(&client.swarm, "it is found again", |swarm| knows(swarm, second.peer_id())).await;
        assert!(tasks.shutdown(PATIENCE).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_address_in_use_or_of_an_unknown_kind_is_named_at_the_start() {
        let occupant = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = format!("/ip4/127.0.0.1/tcp/{}", occupant.local_addr().unwrap().port());
        let taken: Multiaddr = taken.parse().unwrap();
        for address in [taken, "/ip4/127.0.0.1/tcp/0/ws".parse().unwrap()] {
            let config = Config { listen: vec![address.clone()], ..config() };
            let started = Swarm::start(Identity::generate(), config, Arc::new(Shelf::default()), &Tasks::new()).await;
            let (StartSwarmError::Bind { address: named, .. } | StartSwarmError::Listen { address: named, .. }) =
                started.unwrap_err()
            else {
                panic!("another error")
            };
            assert_eq!(named, address);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn quic_carries_blobs_too() {
        let shelf = Shelf::default();
        let content = super::bytes(1_000_000);
        let digest = shelf.put(content.clone());
        let quic = Config { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()], ..config() };
        let server = Kind::Libp2p.start(quic, shelf).await;
        let client = Kind::Libp2p.beside(&server, Shelf::default(), config()).await;
        let mut body = client.swarm.open(server.swarm.peer_id(), &digest, 0).await.unwrap();
        assert_eq!(read(&mut body).await.unwrap(), content);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_port_is_unreachable_at_once() {
        let (client, server) = Kind::Libp2p.pair(Shelf::default()).await;
        assert!(server.tasks.shutdown(PATIENCE).await);
        until(&client.swarm, "it is gone", |swarm| swarm.connected() == 0).await;
        // Its address is still known from identify; the kernel refuses.
        let opened = client.swarm.open(server.swarm.peer_id(), &Digest::of(b""), 0).await;
        assert!(matches!(opened, Err(OpenError::Unreachable { .. })), "{opened:?}");
    }
}
