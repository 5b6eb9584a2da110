//! The swarm: finds peers, asks who holds a digest, fetches blobs from them and serves ours.
//!
//! # Two levels of knowledge
//! Peers on the local network, and peers the user listed, tell each other what they hold when they connect (`have`, 4 bytes a
//! digest) and every change at once; [`Swarm::holders`] answers from that without asking anybody. Beyond them, [`Swarm::find`] asks the DHT
//! (Kademlia, `/peerage/kad/1`), to which `announce` brings all keys of a region in one message.
//!
//! A digest that is announced names a blob, or is the fingerprint of a recipe on which the announcer has claims. Which of both, an
//! announcement does not say: who looks for it knows what for, and asks with [`Swarm::open`] or [`Swarm::claims`].
//!
//! # What others learn about you
//! - Connected peers on the local network and listed peers: your peer id, addresses, agent, and 32 bits of every announced digest.
//!   Any machine that can reach the port learns your peer id, addresses and agent, and by asking the DHT for a key whether you
//!   provide it; the list, and your claims on a fingerprint, only if it would be given files ([`Config::serve_wan`], or a local or listed address).
//! - The DHT: that your peer id provides the announced keys, which names the versions of packages you have. With mDNS off and no peers
//!   given, the program speaks to nobody; the DHT reaches only peers of peers.
//! - Only what `Holdings::announced` lists is told. A blob is served only where `Holdings::open` answers, claims only as
//!   `Holdings::claims` gives them, and both without [`Config::serve_wan`] only to the local network and listed peers.
//! - Members of a group are served wherever they are, as listed peers are.
//! - Whom you ask for claims learns the fingerprint, which names what you are about to build and how to who can make the same recipe.
//!
//! # Bounds
//! Everything a peer sends has a length, a count and a deadline: frames (`wire`), holdings and records (`Config`), streams of one
//! peer (8 for blobs, 8 for claims, 8 for questions of a group, 64 in all), 32 adverts a minute, and a pace in bodies of both directions.
//! What all peers share (connections, streams, uploads, answers, holdings, records) is divided by class, origin and identity
//! ([`crate::budget`]): a house full of strangers keeps nobody out whom the user named.
//! BLAKE2B cannot be checked by pieces, so a liar costs at most the blob's size in bytes once; then it is banned, or asked last if
//! the user named it.
//!
//! **Invariant:** `event_loop` alone owns the libp2p swarm. No lock is held across an await.

mod announce;
mod asking;
mod behaviour;
mod blob;
mod body;
mod cipher;
mod claims;
mod config;
#[cfg(test)]
mod conformance;
mod dht;
mod dialogue;
mod event_loop;
#[cfg(test)]
mod full_house;
mod gate;
mod group;
mod have;
mod holdings;
mod identity;
mod known;
mod memory;
mod peers;
mod reach;
mod records;
mod scores;
mod standing;
mod state;
mod streams;
mod told;
mod transport;
pub mod wire;

pub use body::{Body, BodyError, OpenError};
pub use config::Config;
pub use dialogue::{Dialogue, FRAME_BYTES_MAX};
pub use event_loop::StartSwarmError;
pub use identity::{Identity, IdentityError};
pub use libp2p::{Multiaddr, PeerId};
pub use memory::Network;
pub use peers::PeerInfo;
pub use scores::Offence;
pub use wire::Topic;

use crate::budget::Who;
use crate::tasks::Tasks;
use futures::future::BoxFuture;
use state::{Command, State};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tree::digest::Digest;
use wire::Key;

/// Of the addresses that somebody at these places told, those that may be dialled.
#[must_use]
pub fn believable(told: &[Multiaddr], teller: &[Multiaddr]) -> Vec<Multiaddr> {
    told.iter().filter(|address| reach::may_tell(teller, address)).cloned().collect()
}

/// Bytes that can be read at any place. Called from the blocking pool.
pub trait ReadAt: Send + Sync + 'static {
    /// Reads from byte `offset` on; 0 is the end.
    ///
    /// # Errors
    /// When the disk does not give them.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// A blob that may be given to a peer.
pub struct Held {
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes; must stay readable as long as this lives.
    pub reader: Box<dyn ReadAt>,
}

/// What this machine can give. Called from the blocking pool.
pub trait Holdings: Send + Sync + 'static {
    /// The blob, if it is held and may be given to this peer.
    fn open(&self, digest: &Digest, peer: &PeerId) -> Option<Held>;

    /// The claims on a recipe that may be given to this peer, each of them opaque here. At most [`wire::CLAIMS_MAX`] go out, the first ones, and none
    /// that is longer than [`wire::CLAIM_BYTES_MAX`]. None at all, unless somebody makes them.
    fn claims(&self, _fingerprint: &Digest, _peer: &PeerId) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// All that may be announced now, blobs and fingerprints; asked once, at the start. Changes come by [`Swarm::announce`] and [`Swarm::withdraw`].
    fn announced(&self) -> Vec<Digest>;

    /// A peer began a dialogue; nobody hears it unless somebody does here. The peer may be any that is connected.
    fn converse(&self, _peer: PeerId, _dialogue: Dialogue) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether the peer's user enrolled it: it is served as a listed peer is. Called from async code: looks at memory only.
    fn is_member(&self, _peer: &PeerId) -> bool {
        false
    }

    /// The answer to a question, at most [`wire::ANSWER_BYTES_MAX`] bytes; None refuses it. The peer may be any that is connected.
    /// Called from async code: what blocks belongs on the blocking pool.
    fn answer(&self, _peer: PeerId, _topic: Topic, _question: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        Box::pin(std::future::ready(None))
    }
}

/// The handle to the swarm. Clones speak to the same one; the swarm ends with the [`Tasks`] it was started in.
#[derive(Clone)]
pub struct Swarm {
    state: Arc<State>,
}

impl Swarm {
    /// Listens, then runs in the background until `tasks` are shut down. The listeners are bound when this returns.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When a transport cannot be made or an address cannot be listened on.
    pub async fn start(
        identity: Identity,
        config: Config,
        holdings: Arc<dyn Holdings>,
        tasks: &Tasks,
    ) -> Result<Self, StartSwarmError> {
        let state = event_loop::start(&identity, config, holdings, tasks).await?;
        Ok(Self { state })
    }

    /// Who this machine is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.state.local()
    }

    /// Where it listens: resolved addresses, each with `/p2p/ID`.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.state.listen_addrs()
    }

    /// The connected peers that say they hold the digest, best score first. Asks nobody.
    #[must_use]
    pub fn holders(&self, digest: &Digest) -> Vec<PeerId> {
        self.state.holders(&Key::from(digest))
    }

    /// Providers the DHT knows; empty when there are none, at the deadline, or at once when no other peer is known.
    ///
    /// Cancel safe: yes.
    pub async fn find(&self, digest: &Digest, deadline: Duration) -> Vec<PeerId> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Find { key: Key::from(digest), answer };
        let asked = async {
            self.state.command(command).await;
            answered.await.unwrap_or_default()
        };
        let found = tokio::time::timeout(deadline, asked).await.unwrap_or_default();
        self.state.best_first(self.state.believable(found))
    }

    /// Tells connected peers at once and the DHT in the background that these are held: blobs, or claims on these fingerprints.
    pub fn announce(&self, digests: &[Digest]) {
        self.state.announce(digests);
    }

    /// Takes announcements back, as [`Swarm::announce`] made them.
    pub fn withdraw(&self, digests: &[Digest]) {
        self.state.withdraw(digests);
    }

    /// Asks a peer for a blob from byte `from` on, with the configured deadline for the first answer. Dials it when need be.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When the peer is not reached in time, or does not serve it.
    pub async fn open(&self, peer: PeerId, digest: &Digest, from: u64) -> Result<Body, OpenError> {
        self.open_within(peer, digest, from, self.state.config().first_answer).await
    }

    /// As [`Swarm::open`], with a deadline of one's own: short when other candidates wait.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When the peer is not reached in time, or does not serve it.
    pub async fn open_within(
        &self,
        peer: PeerId,
        digest: &Digest,
        from: u64,
        first_answer: Duration,
    ) -> Result<Body, OpenError> {
        body::open(&self.state, peer, digest, from, first_answer).await
    }

    /// Asks a peer for its claims on a recipe, and dials it when need be: at most [`wire::CLAIMS_MAX`], of at most
    /// [`wire::CLAIM_BYTES_MAX`] bytes each, and none when it has none. **Nothing of them is verified.**
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When the peer is not reached in time, does not serve this machine, or says something else.
    pub async fn claims(
        &self,
        peer: PeerId,
        fingerprint: &Digest,
        deadline: Duration,
    ) -> Result<Vec<Vec<u8>>, OpenError> {
        claims::of_peer(&self.state, peer, fingerprint, deadline).await
    }

    /// Asks a peer something about a topic, and dials it when need be: at most [`wire::QUESTION_BYTES_MAX`] bytes, and as an answer at
    /// most [`wire::ANSWER_BYTES_MAX`]. It may hear the question twice. **Nothing of the answer is verified.**
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When the peer is not reached in time, does not answer this machine, or the question is too long.
    pub async fn ask(
        &self,
        peer: PeerId,
        topic: Topic,
        question: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, OpenError> {
        self.ask_at(peer, Vec::new(), topic, question, deadline).await
    }

    /// As [`Swarm::ask`], of a peer that may be dialled at these addresses.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// As [`Swarm::ask`].
    pub async fn ask_at(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        topic: Topic,
        question: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, OpenError> {
        if question.len() > wire::QUESTION_BYTES_MAX {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the question is too long");
            return Err(OpenError::Unreachable { peer, source });
        }
        group::ask_peer(&self.state, peer, addresses, &wire::GroupRequest { topic, question }, deadline).await
    }

    /// Begins a dialogue with a peer, within the deadline, and dials it when need be.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When the peer is banned, not reached in time, or does not speak this protocol.
    pub async fn converse(&self, peer: PeerId, deadline: Duration) -> Result<Dialogue, OpenError> {
        dialogue::begin(&self.state, peer, deadline).await
    }

    /// Where a connected peer says it listens, as far as that makes sense from here.
    #[must_use]
    pub fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.state.listens_of(peer)
    }

    /// Stays connected to a member of a group: dials it again and again, ever more rarely, until [`Swarm::part`].
    ///
    /// Cancel safe: yes.
    pub async fn keep(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.state.command(Command::Keep { peer, addresses }).await;
    }

    /// Disconnects a peer that is no member any longer; its streams end. It may come again, as a stranger.
    ///
    /// Cancel safe: yes.
    pub async fn part(&self, peer: PeerId) {
        self.state.command(Command::Part(peer)).await;
    }

    /// Remembers bytes that were what the digest says, and came from this peer alone.
    pub fn praise(&self, peer: PeerId) {
        self.state.praise(peer);
    }

    /// Who a peer is to the budgets of this machine.
    #[must_use]
    pub fn who(&self, peer: &PeerId) -> Who {
        self.state.who(peer)
    }

    /// Whether a peer did so badly of late that others should be asked first.
    #[must_use]
    pub fn is_doubted(&self, peer: &PeerId) -> bool {
        self.state.is_doubted(peer)
    }

    /// Remembers an offence. A peer that is banned by it is disconnected, and neither asked nor let in for a while; whom the user
    /// named never is.
    pub fn blame(&self, peer: PeerId, offence: Offence) {
        self.state.blame(peer, offence);
    }

    /// Whether a peer is banned now.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId) -> bool {
        self.state.is_banned(peer)
    }

    /// The connected peers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.state.peers()
    }

    /// How many peers are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.state.connected()
    }

    /// How many digests are announced from here.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.state.announced_count()
    }

    /// How many keys still wait to be advertised in (or withdrawn from) the DHT.
    #[must_use]
    pub fn adverts_waiting(&self) -> usize {
        self.state.adverts_waiting()
    }

    /// How many provider records are kept here for the DHT.
    #[must_use]
    pub fn records(&self) -> usize {
        self.state.record_count()
    }

    /// Connects to an address in the background; without `/p2p/ID` to whoever answers there. One attempt.
    pub fn dial(&self, address: Multiaddr) {
        self.state.try_command(Command::Dial(address));
    }

    /// Changes whenever a peer comes or goes, or says what it holds: to be waited on instead of polling.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.state.changes()
    }
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Swarm({})", self.peer_id())
    }
}
