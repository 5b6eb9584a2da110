//! The status: read once from everything, shown everywhere.

use crate::api::{MirrorHealth, Peer, Peers, Status, Transfer};
use crate::blocking;
use crate::domain::Domain;
use crate::flight::Flight;
use crate::panics;
use crate::swarm::PeerInfo;
use std::sync::Arc;

/// Faults of the configuration that are shown; `peer doctor` shows all.
const LEFT_OUT_MAX: usize = 100;
/// Pins shown in full; `peer pin list` shows all.
const PINNED_MAX: usize = 100;

/// What is true now.
pub async fn status(domain: &Arc<Domain>) -> Status {
    let reading = Arc::clone(domain);
    let (stored, indexed, mut pinned) =
        blocking::run(move || (reading.store.stats(), reading.store.catalog().len(), crate::pins::list(&reading).pins))
            .await;
    let pins = pinned.len();
    pinned.truncate(PINNED_MAX);
    let repositories = domain.repositories.list().as_ref().clone();
    let connected: Vec<Peer> = domain.swarm.peers().into_iter().map(peer).collect();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: domain.started.elapsed().as_secs(),
        peer_id: domain.swarm.peer_id().to_string(),
        http: domain.addresses.http.iter().map(ToString::to_string).collect(),
        p2p: p2p_addresses(domain),
        binhost: domain.addresses.binhost.clone(),
        peers: connected.len(),
        blobs: stored.blobs,
        bytes: stored.bytes,
        distfiles_indexed: indexed,
        served: domain.stats.served(),
        misses: domain.stats.misses(),
        given_bytes: domain.announcer.shared().given_bytes(),
        repositories,
        look: domain.repositories.looking().borrow().clone(),
        transfers: domain.flights.list().iter().map(transfer).collect(),
        recent: domain.stats.recent(),
        mirrors: mirrors(domain),
        connected,
        pins,
        pinned,
        quarantined: stored.quarantined,
        partial_bytes: stored.partial_bytes,
        disk_free_bytes: stored.disk_free_bytes,
        size_max_bytes: domain.config.store_size_max.map(|size| size.0),
        panics: 0,
        warnings: Vec::new(),
    };
    let (panics, last) = panics::noted();
    status.panics = panics;
    status.warnings = warnings(&status, &domain.repositories.left_out());
    status.warnings.extend(last.map(|last| fault(panics, &last)));
    status
}

/// The connected peers.
#[must_use]
pub fn peers(domain: &Domain) -> Peers {
    Peers {
        peer_id: domain.swarm.peer_id().to_string(),
        addresses: p2p_addresses(domain),
        peers: domain.swarm.peers().into_iter().map(peer).collect(),
    }
}

/// As [`peers`], with the names and roles of members: these are not for everybody who can read the status page.
#[must_use]
pub fn named_peers(domain: &Domain) -> Peers {
    let mut all = peers(domain);
    for peer in &mut all.peers {
        let Ok(id) = peer.peer_id.parse() else { continue };
        if let Some(role) = domain.groups.role(&id) {
            (peer.name, peer.role) = (Some(domain.groups.name(&id)), Some(role.to_string()));
        }
        peer.grounded_s = domain.builds.grounded(&id).map(|grounded| grounded.for_s);
    }
    all
}

/// Where peers can connect.
#[must_use]
pub fn p2p_addresses(domain: &Domain) -> Vec<String> {
    domain.swarm.listen_addrs().iter().map(ToString::to_string).collect()
}

fn transfer(flight: &Arc<Flight>) -> Transfer {
    let progress = flight.progress();
    Transfer {
        name: flight.name.clone(),
        digest: flight.wanted.digest.to_string(),
        size: progress.size,
        received: progress.received,
        source: progress.source.map(|source| source.as_str().to_owned()),
        followers: flight.followers(),
    }
}

fn peer(info: PeerInfo) -> Peer {
    Peer {
        peer_id: info.peer_id.to_string(),
        addresses: info.addrs.iter().map(ToString::to_string).collect(),
        agent: info.agent,
        lan: info.lan,
        holdings: info.holdings,
        rtt_ms: info.rtt_ms,
        given_bytes: info.served_bytes,
        received_bytes: info.received_bytes,
        blamed: info.blamed,
        name: None,
        role: None,
        grounded_s: None,
    }
}

fn mirrors(domain: &Domain) -> Vec<MirrorHealth> {
    let row = |health: mirrors::HostHealth| MirrorHealth {
        host: health.host,
        ok: health.ok,
        failed: health.failed,
        bytes: health.bytes,
        latency_ms: health.latency_ms.unwrap_or(0),
        bytes_per_second: health.bytes_per_second.unwrap_or(0),
        cooling_s: health.cooling_until_s.unwrap_or(0),
        last_failure: health.last_error,
    };
    domain.mirrors.health().into_iter().map(row).collect()
}

/// Its log tells more of it than is shown to everybody who may read the status.
fn fault(panics: u64, last: &str) -> String {
    format!("the node has a fault: {panics} of its tasks ended in a panic, the last was {last}; report it with the log")
}

/// What a user should mend.
fn warnings(status: &Status, left_out: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    if status.repositories.is_empty() {
        warnings.push("no ebuild repository is known, so nothing can be fetched: see peer doctor".to_owned());
    }
    for repo in &status.repositories {
        if let Some(problem) = &repo.problem {
            warnings.push(format!("repository {}: {problem}", repo.name));
        }
    }
    warnings.extend(left_out.iter().take(LEFT_OUT_MAX).cloned());
    if status.quarantined > 0 {
        warnings.push(format!("{} blobs rotted on disk and were set aside: check the disk", status.quarantined));
    }
    warnings
}
