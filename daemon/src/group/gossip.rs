//! Keeps members connected and rosters the same everywhere: at every connection, at every change, and every minute.
//!
//! Who is a member no longer is disconnected, so that what it was being given ends; it is told the roster that says so first.

use super::{Member, talk};
use crate::domain::Domain;
use crate::swarm::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often rosters are compared with a member that stays connected.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// News come in crowds when peers tell what they hold: they are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// How long who was taken off the roster is waited for, before the connection ends.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What is known of members between two looks.
#[derive(Default)]
struct Rounds {
    /// Members at the last look.
    members: BTreeMap<PeerId, Member>,
    /// What the swarm was told of where each is.
    kept: HashMap<PeerId, Vec<Multiaddr>>,
    /// When rosters were last compared with a connected member, and which.
    compared: HashMap<PeerId, (Instant, u64)>,
}

/// Members being spoken with now, and who waits for them.
#[derive(Default)]
struct Talking {
    peers: Mutex<BTreeSet<PeerId>>,
    ended: Notify,
}

/// Runs until the daemon stops.
pub async fn follow(domain: Arc<Domain>) {
    let (mut peers, mut changes) = (domain.swarm.changes(), domain.groups.changes());
    let talking = Arc::new(Talking::default());
    let mut rounds = Rounds::default();
    loop {
        let version = *changes.borrow_and_update();
        peers.borrow_and_update();
        look(&domain, &mut rounds, version, &talking).await;
        tokio::select! {
            // A change of a group does not wait.
            changed = changes.changed() => if changed.is_err() { return },
            changed = peers.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
            () = talking.ended.notified() => {}
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
    }
}

async fn look(domain: &Arc<Domain>, rounds: &mut Rounds, version: u64, talking: &Arc<Talking>) {
    let members: BTreeMap<PeerId, Member> =
        domain.groups.members().into_iter().map(|member| (member.peer, member)).collect();
    let connected: BTreeSet<PeerId> = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    for (peer, member) in rounds.members.iter().filter(|(peer, _)| !members.contains_key(peer)) {
        rounds.kept.remove(peer);
        domain.tasks.spawn("group farewell", farewell(Arc::clone(domain), *peer, member.group));
    }
    rounds.compared.retain(|peer, _| connected.contains(peer) && members.contains_key(peer));
    for peer in members.keys() {
        let addresses = domain.groups.addresses(peer);
        if rounds.kept.get(peer) != Some(&addresses) {
            domain.swarm.keep(*peer, addresses.clone()).await;
            rounds.kept.insert(*peer, addresses);
        }
        let due = match rounds.compared.get(peer) {
            None => true,
            Some((when, compared)) => *compared != version || when.elapsed() >= COMPARE_EVERY,
        };
        if due && connected.contains(peer) && talking.begin(*peer) {
            rounds.compared.insert(*peer, (Instant::now(), version));
            let (domain, talking, peer) = (Arc::clone(domain), Arc::clone(talking), *peer);
            let tasks = domain.tasks.clone();
            tasks.spawn("group compare", async move {
                talk::compare(&domain, peer).await;
                talking.end(&peer);
            });
        }
    }
    rounds.members = members;
}

impl Talking {
    fn begin(&self, peer: PeerId) -> bool {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(peer)
    }

    fn end(&self, peer: &PeerId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
        self.ended.notify_one();
    }
}

/// Tells who was taken off this node's own roster, and ends the connection.
async fn farewell(domain: Arc<Domain>, peer: PeerId, group: PeerId) {
    if group == domain.groups.local()
        && let Some(signed) = domain.groups.roster_of(&group)
        && domain.swarm.peers().iter().any(|known| known.peer_id == peer)
    {
        let told = tokio::time::timeout(FAREWELL_MAX, talk::give(&domain, peer, &signed)).await;
        tracing::debug!(%peer, told = matches!(told, Ok(Ok(()))), "taken off the roster");
    }
    // It may have joined again meanwhile.
    if domain.groups.role(&peer).is_none() {
        domain.swarm.part(peer).await;
    }
}

/// What this node is called when nobody says: its host name. Blocking.
#[must_use]
pub fn host_name() -> String {
    // Linux says it there, without a C library's help.
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
