//! Every budget with a house full of strangers, and every wait with a peer that drips: whom the user named, who did well, and who comes
//! from elsewhere still get theirs. The clock of these tests stands still until everybody waits.

use super::body::{self, BodyError};
use super::gate::Gate;
use super::peers::Joined;
use super::state::{Command, Protocol, State};
use super::streams::Pipe;
use super::wire::{BlobAnswer, BlobRequest, GroupAnswer, GroupRequest, Message as _, Topic, read_frame, write_frame};
use super::{Config, Held, Holdings, Offence, ReadAt};
use crate::tasks::Tasks;
use futures::future::BoxFuture;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _, ToSwarm};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use tree::digest::Digest;

/// Longer than any of these takes by the clock that stands still.
const PATIENCE: Duration = Duration::from_secs(3600);
/// A file of several steps.
const SIZE: u64 = 4 << 20;

struct Zeros;

impl ReadAt for Zeros {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(SIZE.saturating_sub(offset)).unwrap().min(into.len());
        into[..length].fill(0);
        Ok(length)
    }
}

/// Has every blob; answers only who is enrolled, and lets strangers wait for ever.
#[derive(Default)]
struct House {
    members: Mutex<HashSet<PeerId>>,
}

impl Holdings for House {
    fn open(&self, _: &Digest, _: &PeerId) -> Option<Held> {
        Some(Held { size: SIZE, reader: Box::new(Zeros) })
    }

    fn announced(&self) -> Vec<Digest> {
        Vec::new()
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.members.lock().unwrap().contains(peer)
    }

    fn answer(&self, _: PeerId, _: Topic, question: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        Box::pin(async move {
            if question == b"for ever" {
                std::future::pending::<()>().await;
            }
            Some(question)
        })
    }
}

type Stream = Compat<tokio::io::DuplexStream>;

struct Here {
    state: Arc<State>,
    house: Arc<House>,
    commands: mpsc::Receiver<Command>,
}

fn here() -> Here {
    let house = Arc::new(House::default());
    let holdings: Arc<dyn Holdings> = Arc::<House>::clone(&house);
    let config = Config { exchange: false, ..Config::default() };
    let (state, commands) = State::new(PeerId::random(), config, holdings, &Tasks::new());
    Here { state, house, commands }
}

/// Who comes to the full house, and is to get what it wants.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Member,
    Listed,
    /// Brought right bytes before.
    Good,
    /// A stranger from an address where none of the others are.
    Elsewhere,
}

const GUESTS: [Guest; 4] = [Guest::Member, Guest::Listed, Guest::Good, Guest::Elsewhere];

impl Here {
    fn joined(&self, address: &str, listed: bool) -> PeerId {
        let (peer, address) = (PeerId::random(), address.parse().unwrap());
        self.state.joined(peer, Joined { address, agent: String::new(), lan: true, listed, listens: Vec::new() });
        peer
    }

    fn stranger(&self, n: usize, addresses: usize) -> PeerId {
        self.joined(&format!("/ip4/10.0.0.{}/tcp/{n}", n % addresses), false)
    }

    /// All but the last come from an address of the crowd.
    fn guest(&self, guest: Guest) -> PeerId {
        let crowded = "/ip4/10.0.0.0/tcp/9";
        match guest {
            Guest::Member => {
                let peer = self.joined(crowded, false);
                self.house.members.lock().unwrap().insert(peer);
                peer
            }
            Guest::Listed => self.joined(crowded, true),
            Guest::Good => {
                let peer = self.joined(crowded, false);
                self.state.praise(peer);
                peer
            }
            Guest::Elsewhere => self.joined("/ip4/10.9.9.9/tcp/9", false),
        }
    }

    fn open(&self, peer: PeerId, protocol: Protocol) -> Stream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.state.inbound(peer, protocol, Pipe::new(far.compat()));
        near.compat()
    }

    /// Asks for the blob and answers what was said; the body is not read.
    async fn ask(&self, peer: PeerId) -> (Stream, Option<BlobAnswer>) {
        let mut stream = self.open(peer, Protocol::Blob);
        let request = BlobRequest { digest: Digest::of(b""), offset: 0, length: u64::MAX };
        let said = match write_frame(&mut stream, &request).await {
            Ok(()) => read_frame::<BlobAnswer>(&mut stream).await.ok(),
            Err(_cut) => None,
        };
        (stream, said)
    }

    async fn group(&self, peer: PeerId, question: &[u8]) -> Option<GroupAnswer> {
        let mut stream = self.open(peer, Protocol::Group);
        let request = GroupRequest { topic: Topic::Group, question: question.to_vec() };
        write_frame(&mut stream, &request).await.ok()?;
        read_frame(&mut stream).await.ok()
    }
}

/// 64 uploads were held by 8 identities that read slowly.
#[tokio::test(start_paused = true)]
async fn uploads() {
    for addresses in [1, 4] {
        let here = here();
        let mut crowd = Vec::new();
        for n in 0..64 {
            let peer = here.stranger(n, addresses);
            for _ in 0..8 {
                crowd.push(here.ask(peer).await);
            }
        }
        for guest in GUESTS {
            let (mut stream, said) = here.ask(here.guest(guest)).await;
            assert_eq!(said, Some(BlobAnswer::Body { size: SIZE }), "{guest:?} beside {addresses} addresses");
            let mut all = vec![1; usize::try_from(SIZE).unwrap()];
            stream.read_exact(&mut all).await.unwrap();
            assert!(all.iter().all(|byte| *byte == 0));
        }
    }
}

/// One identity with few streams keeps its share beside one with many, wherever it comes from.
#[tokio::test(start_paused = true)]
async fn uploads_of_eight_identities_of_one_address_and_a_ninth() {
    let here = here();
    let mut crowd = Vec::new();
    for n in 0..8 {
        let peer = here.stranger(n, 1);
        for _ in 0..8 {
            crowd.push(here.ask(peer).await);
        }
    }
    let (_stream, said) = here.ask(here.stranger(8, 1)).await;
    assert_eq!(said, Some(BlobAnswer::Body { size: SIZE }));
}

/// Every way of reading that would hold an upload for ever.
#[tokio::test(start_paused = true)]
async fn readers_that_drip_give_their_places_back() {
    for (every_s, bytes, cut) in
        [(1, 0, true), (4, 1, true), (14, 1024, true), (10, 64 * 1024, true), (1, 16 * 1024, false)]
    {
        let here = here();
        let (mut stream, said) = here.ask(here.stranger(1, 1)).await;
        assert!(matches!(said, Some(BlobAnswer::Body { .. })));
        let mut some = vec![0; bytes];
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            tokio::time::sleep(Duration::from_secs(every_s)).await;
            if bytes > 0 && stream.read_exact(&mut some).await.is_err() {
                break;
            }
        }
        assert_eq!(here.state.uploads().is_empty(), cut, "{bytes} bytes every {every_s} s");
    }
}

/// A body of a peer that drips: each is left within two spans of ten seconds, and what follows for the peer.
#[tokio::test(start_paused = true)]
async fn bodies_that_drip_are_left() {
    let table = [
        (Duration::from_secs(4), 1, Offence::Stalled),
        (Duration::from_millis(100), 1, Offence::Stalled),
        (Duration::from_secs(6), 1 << 16, Offence::Stalled),
        (Duration::from_secs(1), 1000, Offence::Slow),
        (Duration::from_secs(3), 16_000, Offence::Slow),
    ];
    for (every, bytes, offence) in table {
        let start = Instant::now();
        let error = dripped(every, bytes, false).await.unwrap_err();
        assert_eq!(error.offence(), offence, "{bytes} bytes every {every:?}: {error}");
        assert!(start.elapsed() <= Duration::from_secs(20), "{:?}", start.elapsed());
    }
    assert!(dripped(Duration::from_millis(100), 1000, false).await.is_ok(), "10 KB/s");
    assert!(dripped(Duration::from_secs(1), 1000, true).await.is_ok(), "the last hope may be slow");
    assert!(dripped(Duration::from_secs(4), 1, true).await.is_err(), "but not drip");
}

/// Reads two minutes of a body of which so many bytes come at a time.
async fn dripped(every: Duration, bytes: usize, patient: bool) -> Result<(), BodyError> {
    let Here { state, mut commands, .. } = here();
    let peer = PeerId::random();
    let giver = async move {
        let Some(Command::Open { answer, .. }) = commands.recv().await else { panic!("another command") };
        let (near, far) = tokio::io::duplex(1 << 20);
        answer.send(Ok(Pipe::new(near.compat()))).unwrap();
        let mut far = far.compat();
        read_frame::<BlobRequest>(&mut far).await.unwrap();
        write_frame(&mut far, &BlobAnswer::Body { size: 1 << 40 }).await.unwrap();
        loop {
            tokio::time::sleep(every).await;
            if far.write_all(&vec![0; bytes]).await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    let reader = async {
        let mut body = body::open(&state, peer, &Digest::of(b""), 0, PATIENCE).await.unwrap();
        if patient {
            body.be_patient();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            body.chunk().await?;
        }
        Ok(())
    };
    tokio::select! {
        read = reader => read,
        () = giver => panic!("the giver ended"),
    }
}

/// Streams that are opened and left.
#[tokio::test(start_paused = true)]
async fn streams_and_answers() {
    let here = here();
    let mut crowd = Vec::new();
    for n in 0..200 {
        let peer = here.stranger(n, 4);
        for protocol in [Protocol::Have, Protocol::Advert, Protocol::Group, Protocol::Blob, Protocol::Claims] {
            for _ in 0..4 {
                let mut stream = here.open(peer, protocol);
                // Half a frame, or a question that is never answered.
                let mut asked = Vec::new();
                write_frame(
                    &mut futures::io::Cursor::new(&mut asked),
                    &GroupRequest { topic: Topic::Group, question: b"for ever".to_vec() },
                )
                .await
                .unwrap();
                let half = if protocol == Protocol::Group { &asked[..] } else { &[0, 0, 0][..] };
                let _cut = stream.write_all(half).await;
                crowd.push(stream);
            }
        }
    }
    assert!(here.state.streams().len() <= 512, "{}", here.state.streams().len());
    tokio::time::sleep(Duration::from_millis(500)).await;
    for guest in GUESTS {
        let answer = here.group(here.guest(guest), b"may I join?").await;
        assert_eq!(answer, Some(GroupAnswer::Said(b"may I join?".to_vec())), "{guest:?}");
    }
}

/// A frame that is announced takes no memory before it comes, and no more time than it may.
#[tokio::test(start_paused = true)]
async fn half_a_frame_ends_in_time() {
    let (mut near, far) = tokio::io::duplex(1 << 10);
    let start = Instant::now();
    let reading = async { read_frame::<super::wire::Have>(&mut far.compat()).await };
    let dripping = async {
        use tokio::io::AsyncWriteExt as _;
        near.write_all(&u32::try_from(super::wire::Have::LENGTH_MAX).unwrap().to_be_bytes()).await.unwrap();
        while near.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (read, ()) = futures::join!(reading, dripping);
    assert!(read.is_err() && start.elapsed() <= Duration::from_secs(32), "{:?}", start.elapsed());
}

struct Door {
    gate: Gate,
    next: usize,
}

impl Door {
    /// Whether the connection is let in, and how many others are closed for it.
    fn connect(&mut self, peer: PeerId, from: &str) -> (bool, usize) {
        let (local, from): (Multiaddr, Multiaddr) = ("/ip4/10.0.0.100/tcp/1".parse().unwrap(), from.parse().unwrap());
        let id = ConnectionId::new_unchecked(self.next);
        self.next += 1;
        let pending = self.gate.handle_pending_inbound_connection(id, &local, &from);
        let let_in =
            pending.is_ok() && self.gate.handle_established_inbound_connection(id, peer, &local, &from).is_ok();
        let mut closed = 0;
        while let Poll::Ready(ToSwarm::CloseConnection { .. }) =
            self.gate.poll(&mut Context::from_waker(std::task::Waker::noop()))
        {
            closed += 1;
        }
        (let_in, closed)
    }
}

/// 266 idle connections shut out listed peers and those that came with a ticket.
#[tokio::test(start_paused = true)]
async fn connections() {
    for addresses in [1, 4] {
        let here = here();
        let mut door = Door { gate: Gate::new(&here.state), next: 0 };
        let mut let_in = 0;
        for n in 0..1000 {
            let (entered, closed) = door.connect(PeerId::random(), &format!("/ip4/10.0.0.{}/tcp/{n}", n % addresses));
            let_in += usize::from(entered);
            let_in -= closed;
        }
        assert!(let_in <= 266, "{let_in}");
        for guest in GUESTS {
            let peer = here.guest(guest);
            let at = if matches!(guest, Guest::Elsewhere) { "/ip4/10.9.9.9/tcp/9" } else { "/ip4/10.0.0.0/tcp/9" };
            assert!(door.connect(peer, at).0, "{guest:?} beside {addresses} addresses");
        }
        // Who comes with a ticket from an address of the crowd is one of them, until they have been idle.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(door.connect(PeerId::random(), "/ip4/10.0.0.0/tcp/10"), (true, 1));
    }
}

/// Connections that never shake hands.
#[tokio::test(start_paused = true)]
async fn handshakes() {
    let here = here();
    let mut gate = Gate::new(&here.state);
    let (local, crowd): (Multiaddr, Multiaddr) =
        ("/ip4/10.0.0.100/tcp/1".parse().unwrap(), "/ip4/10.0.0.1/tcp/9".parse().unwrap());
    let mut ids = (0..).map(ConnectionId::new_unchecked);
    let mut knock =
        |from: &Multiaddr| gate.handle_pending_inbound_connection(ids.next().unwrap(), &local, from).is_ok();
    assert_eq!((0..200).filter(|_| knock(&crowd)).count(), 64);
    assert!(knock(&"/ip4/10.0.0.2/tcp/9".parse().unwrap()));
}
