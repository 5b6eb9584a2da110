//! `Liar`: a node of the swarm of the test's own, which says to others whatever a test wants, and hears what they say.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::group::ticket::Ticket;
use daemon::swarm::{Config, Dialogue, Held, Holdings, Identity, PeerId, ReadAt, Swarm, Topic};
use daemon::tasks::Tasks;
use tokio::runtime::Runtime;
use tree::digest::Digest;

use crate::builder::Builder;
use crate::cbor::Value::{Bytes, Map, Text};
use crate::cbor::encode;
use crate::members::invite;
use crate::peer::TestPeer;
use crate::workshop::Workshop;

/// By when a node is reached and answers.
const ANSWERS_MAX: Duration = Duration::from_secs(10);

/// What a liar says to an offer, and whether it is silent then instead of hanging up.
#[derive(Clone, Default)]
struct Script {
    frames: Vec<Vec<u8>>,
    silent: bool,
}

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    script: Arc<Mutex<Script>>,
    offers: Arc<AtomicUsize>,
}

/// Bytes that a node of a test gives.
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl ReadAt for Blob {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl Holdings for Shelf {
    fn open(&self, digest: &Digest, _: &PeerId) -> Option<Held> {
        let bytes = self.blobs.lock().unwrap().get(digest)?.clone();
        Some(Held { size: bytes.len() as u64, reader: Box::new(Blob(bytes)) })
    }

    fn announced(&self) -> Vec<Digest> {
        Vec::new()
    }

    fn converse(&self, _: PeerId, mut dialogue: Dialogue) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (script, offers) = (Arc::clone(&self.script), Arc::clone(&self.offers));
        Box::pin(async move {
            let Some(Ok(_offer)) = dialogue.hear().await else { return };
            offers.fetch_add(1, Ordering::SeqCst);
            let script = script.lock().unwrap().clone();
            for frame in script.frames {
                if dialogue.say(frame).await.is_err() {
                    return;
                }
            }
            while script.silent && matches!(dialogue.hear().await, Some(Ok(_))) {}
            dialogue.end().await;
        })
    }
}

/// A node of the swarm that is no daemon.
pub(crate) struct Liar {
    pub(crate) runtime: Runtime,
    pub(crate) identity: Identity,
    pub(crate) swarm: Swarm,
    pub(crate) shelf: Arc<Shelf>,
    tasks: Tasks,
}

impl Liar {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (identity, shelf, tasks) = (Identity::generate(), Arc::new(Shelf::default()), Tasks::new());
        let own = Identity::from_bytes(&identity.to_bytes()).unwrap();
        let config = Config { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..Config::default() };
        let holdings: Arc<dyn Holdings> = Arc::<Shelf>::clone(&shelf);
        let swarm = runtime.block_on(Swarm::start(own, config, holdings, &tasks)).unwrap();
        Self { runtime, identity, swarm, shelf, tasks }
    }

    pub(crate) fn id(&self) -> String {
        self.identity.peer_id().to_string()
    }

    /// A daemon of a machine that knows nobody but these.
    pub(crate) fn known_to(workshop: &Workshop, machine: &Builder, liars: &[&Self]) -> TestPeer {
        let start = liars.iter().fold(workshop.start(machine, ""), |start, liar| {
            start.flag("--peer", &liar.swarm.listen_addrs()[0].to_string())
        });
        let node = start.start();
        machine.import(&node);
        node.wait_for_peers(liars.len() as u64);
        node
    }

    pub(crate) fn gives(&self, package: &[u8]) {
        self.shelf.blobs.lock().unwrap().insert(Digest::of(package), package.to_vec());
    }

    pub(crate) fn says(&self, frames: Vec<Vec<u8>>, silent: bool) {
        *self.shelf.script.lock().unwrap() = Script { frames, silent };
    }

    pub(crate) fn offers(&self) -> usize {
        self.shelf.offers.load(Ordering::SeqCst)
    }

    /// Becomes a member of a node's group, with this role.
    pub(crate) fn joins(&self, node: &TestPeer, role: &str) {
        let ticket: Ticket = invite(node, role).parse().unwrap();
        let name = Text("liar".to_owned());
        let join = Map(vec![("join", Map(vec![("name", name), ("secret", Bytes(ticket.secret.to_vec()))]))]);
        let asked = self.swarm.ask(node.peer_id().parse().unwrap(), Topic::Group, encode(&join), ANSWERS_MAX);
        let answer = self.runtime.block_on(asked).unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("roster"), "it is let in: {answer:?}");
    }

    /// Offers a build to a node, and hears it to its end.
    pub(crate) fn offers_to(&self, node: &TestPeer, offer: Vec<u8>) -> Vec<String> {
        let id: PeerId = node.peer_id().parse().unwrap();
        self.runtime.block_on(async {
            let mut dialogue = self.swarm.converse(id, ANSWERS_MAX).await.unwrap();
            dialogue.say(offer).await.unwrap();
            let mut heard = Vec::new();
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_secs(30), dialogue.hear()).await {
                heard.push(String::from_utf8_lossy(&frame).into_owned());
            }
            heard
        })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let ended = self.runtime.block_on(self.tasks.shutdown(Duration::from_secs(5)));
        assert!(ended || std::thread::panicking(), "the test's own node ends");
    }
}
