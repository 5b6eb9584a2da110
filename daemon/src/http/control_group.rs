//! The verbs of groups and trust on the control socket: invite, join, and whose word counts.

use super::control::refusal;
use crate::api_builds::TrustedKey;
use crate::api_group::{
    GroupRow, InviteRequest, Invited, JoinAnswer, JoinRequest, MemberRow, RevokeRequest, TicketRow, TrustChanged,
    TrustList,
};
use crate::blocking;
use crate::builds::trust::TrustError;
use crate::builds::with_causes;
use crate::domain::Domain;
use crate::group::founder::{Invitation, TicketState};
use crate::group::ticket::{ADDRESSES_MAX, Ticket};
use crate::group::words::JoinRefusal;
use crate::group::{GroupError, Member, Role, explain, talk};
use crate::swarm::{Multiaddr, PeerId};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use libp2p::multiaddr::Protocol;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The routes.
pub(super) fn routes() -> Router<Arc<Domain>> {
    Router::new()
        .route("/v1/group/invite", post(invite))
        .route("/v1/group/tickets", get(tickets))
        .route("/v1/group/tickets/revoke", post(revoke))
        .route("/v1/group/join", post(join))
        .route("/v1/trust", get(list).post(trust))
        .route("/v1/trust/explain", get(explained))
        .route("/v1/trust/{key}", delete(distrust))
}

async fn invite(State(domain): State<Arc<Domain>>, Json(request): Json<InviteRequest>) -> Response {
    let role: Role = match request.role.parse() {
        Ok(role) => role,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("{error}"), None),
    };
    let addresses = reachable(domain.swarm.listen_addrs());
    let inviting = Arc::clone(&domain);
    let made = blocking::run(move || {
        let life = Duration::from_secs(request.expires_s);
        inviting.groups.invite(role, life, request.name.as_deref(), &addresses)
    });
    match made.await {
        Ok((ticket, invitation)) => Json(Invited {
            ticket: ticket.to_string(),
            id: invitation.id,
            role: role.to_string(),
            expires_at: invitation.expires_at,
            group: domain.swarm.peer_id().to_string(),
        })
        .into_response(),
        Err(error) => failed(&error),
    }
}

/// What goes into a ticket: without peer ids, and this machine's own loopback only when there is nothing else.
fn reachable(listens: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let bare = |address: Multiaddr| -> Multiaddr {
        address.into_iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
    };
    let mut all: Vec<Multiaddr> = listens.into_iter().map(bare).collect();
    let rank = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_loopback() => 3,
        Some(Protocol::Ip6(ip)) if ip.is_loopback() => 3,
        // Of no use without the name of an interface.
        Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local() => 2,
        Some(Protocol::Ip6(_)) => 1,
        _ => 0,
    };
    all.sort_by_key(rank);
    all.dedup();
    let best = all.first().map_or(0, rank);
    all.retain(|address| rank(address) <= best.max(1));
    all.truncate(ADDRESSES_MAX);
    all
}

async fn tickets(State(domain): State<Arc<Domain>>) -> Response {
    let reading = Arc::clone(&domain);
    match blocking::run(move || reading.groups.invitations()).await {
        Ok(all) => Json(all.into_iter().map(ticket_row).collect::<Vec<_>>()).into_response(),
        Err(error) => failed(&error),
    }
}

fn ticket_row(invitation: Invitation) -> TicketRow {
    let state = match invitation.state {
        TicketState::Open => "open",
        TicketState::Used => "used",
        TicketState::Expired => "expired",
        TicketState::Revoked => "revoked",
    };
    TicketRow {
        id: invitation.id,
        role: invitation.role.to_string(),
        state: state.to_owned(),
        used_by: invitation.used_by.map(|peer| peer.to_string()),
        expires_at: invitation.expires_at,
    }
}

async fn revoke(State(domain): State<Arc<Domain>>, Json(request): Json<RevokeRequest>) -> Response {
    let revoking = Arc::clone(&domain);
    match blocking::run(move || revoking.groups.revoke_ticket(&request.ticket)).await {
        Ok(()) => tickets(State(domain)).await,
        Err(error) => failed(&error),
    }
}

fn failed(error: &GroupError) -> Response {
    let status = match error {
        GroupError::Name { .. } | GroupError::Life | GroupError::TooMany { .. } => StatusCode::BAD_REQUEST,
        GroupError::NoTicket | GroupError::TicketUsed { .. } => StatusCode::NOT_FOUND,
        GroupError::Key | GroupError::Read(_) | GroupError::Keep(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refusal(status, with_causes(error), None)
}

async fn join(State(domain): State<Arc<Domain>>, Json(request): Json<JoinRequest>) -> Response {
    let ticket: Ticket = match request.ticket.parse() {
        Ok(ticket) => ticket,
        Err(error) => {
            return refusal(
                StatusCode::BAD_REQUEST,
                format!("{error}"),
                Some("`peer invite` on the other machine makes one"),
            );
        }
    };
    match talk::join(&domain, &ticket, request.name.as_deref()).await {
        Ok(joined) => {
            let group = joined.group.to_string();
            let members = members(&domain).into_iter().filter(|member| member.group == group).collect();
            Json(JoinAnswer { group, role: joined.role.to_string(), name: joined.name, members }).into_response()
        }
        Err(error) => not_joined(&error),
    }
}

fn not_joined(error: &talk::JoinError) -> Response {
    let hint = match error {
        talk::JoinError::Group(error) => return failed(error),
        talk::JoinError::Own => None,
        talk::JoinError::Unreached { .. } => Some("is its daemon running, and does a firewall let its port through?"),
        talk::JoinError::Refused(JoinRefusal::Full) => Some("`peer trust remove` there makes room"),
        talk::JoinError::Refused(JoinRefusal::Broken) => Some("its log says more"),
        talk::JoinError::Refused(_) => Some("ask for a new one: `peer invite` on the founder's machine"),
        talk::JoinError::Garbled => Some("the other machine may run another version"),
    };
    // The answer is no, whatever the reason: 404 is what ends a verb with 1.
    refusal(StatusCode::NOT_FOUND, with_causes(error), hint)
}

async fn list(State(domain): State<Arc<Domain>>) -> Response {
    Json(trust_list(&domain)).into_response()
}

fn trust_list(domain: &Domain) -> TrustList {
    let members = members(domain);
    let groups = domain.groups.groups().into_iter().map(|group| GroupRow {
        group: group.founder.to_string(),
        mine: group.mine,
        serial: group.serial,
        role: group.role.to_string(),
    });
    let known: BTreeSet<&str> = members.iter().map(|member| member.peer.as_str()).collect();
    let blocked = domain.groups.blocked().into_iter().map(|peer| peer.to_string());
    let blocked = blocked.filter(|peer| !known.contains(peer.as_str())).collect();
    TrustList { keys: domain.builds.trust.list(), groups: groups.collect(), blocked, members }
}

fn members(domain: &Domain) -> Vec<MemberRow> {
    let connected: BTreeSet<PeerId> = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    let row = |(member, blocked): (Member, bool)| MemberRow {
        peer: member.peer.to_string(),
        name: member.name,
        role: member.role.to_string(),
        group: member.group.to_string(),
        founder: member.founder,
        connected: connected.contains(&member.peer),
        blocked,
    };
    domain.groups.everyone().into_iter().map(row).collect()
}

async fn trust(State(domain): State<Arc<Domain>>, Json(key): Json<TrustedKey>) -> Response {
    let keeping = Arc::clone(&domain);
    let done = blocking::run(move || {
        // A name is as good as a key here, for a member.
        let peer = keeping.groups.find_even_blocked(&key.key).ok();
        let named = peer.map_or_else(|| key.key.clone(), |peer| peer.to_string());
        keeping.builds.trust.set(&named, &key.packages)?;
        let mut said = vec![format!("{named} may build {} for this machine", key.packages.join(" "))];
        if let Ok(peer) = named.parse::<PeerId>()
            && keeping.groups.unblock(&peer)?
        {
            let role = keeping.groups.role(&peer).map(|role| format!(", and has the role {role} of its group again"));
            said.push(format!("{named} is not blocked any longer{}", role.unwrap_or_default()));
        }
        Ok::<_, ChangeError>(said)
    });
    changed(&domain, done.await)
}

/// Why trust was not changed.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(
        "{name} founded a group that this machine is in, and counts by it: to trust it no longer is to leave that group, whose {members} members are strangers then"
    )]
    Founder { name: String, members: usize },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Group(#[from] GroupError),
}

fn changed(domain: &Domain, done: Result<Vec<String>, ChangeError>) -> Response {
    match done {
        Ok(said) => Json(TrustChanged { said, now: trust_list(domain) }).into_response(),
        Err(ChangeError::Trust(error)) => untrusted(&error),
        Err(ChangeError::Group(error)) => failed(&error),
        Err(error @ ChangeError::Founder { .. }) => refusal(
            StatusCode::CONFLICT,
            error.to_string(),
            Some("`peer trust remove --leave` with the same name leaves it"),
        ),
    }
}

fn untrusted(error: &TrustError) -> Response {
    let status = match error {
        TrustError::Key { .. } | TrustError::Packages { .. } | TrustError::Nothing | TrustError::TooMany { .. } => {
            StatusCode::BAD_REQUEST
        }
        TrustError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refusal(status, with_causes(error), None)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// Whether the group that it founded is left.
    #[serde(default)]
    leave: bool,
}

async fn distrust(
    State(domain): State<Arc<Domain>>,
    Path(key): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Response {
    let found = domain.groups.find_even_blocked(&key).ok().or_else(|| key.parse().ok());
    let Some(peer) = found else {
        let error = TrustError::Key { text: key.chars().take(100).collect() };
        return untrusted(&error);
    };
    match remove(&domain, peer, query.leave).await {
        Ok(said) if said.is_empty() => refusal(
            StatusCode::NOT_FOUND,
            format!("{key} is not trusted, and in no group of this machine"),
            Some("peer trust list"),
        ),
        done => changed(&domain, done),
    }
}

/// Takes away all that gives a peer a say here: its key's row, its place on this node's roster, or, in another's group, whatever role it
/// has there. A group that it founded is left only where that is said: this machine's own place is in it too.
async fn remove(domain: &Arc<Domain>, peer: PeerId, leave: bool) -> Result<Vec<String>, ChangeError> {
    let name = domain.groups.name(&peer);
    let mut said = Vec::new();
    let founded = domain.groups.groups().iter().any(|group| group.founder == peer && !group.mine);
    let stays = founded && !leave;
    if founded && leave && talk::leave(domain, peer).await? {
        said.push(format!("left the group of {name}: its members are strangers here now"));
    }
    let keeping = Arc::clone(domain);
    blocking::run(move || {
        if keeping.builds.trust.remove(&peer.to_string())? {
            said.push(format!("the key of {name} is listed no longer: what it builds from now on does not count by it"));
        }
        if keeping.groups.revoke(&peer)? {
            said.push(format!("{name} is off the roster of this machine's group; the other members learn it as they are reached"));
        }
        if stays {
            if said.is_empty() {
                let members = keeping.groups.everyone().iter().filter(|(member, _)| member.group == peer).count();
                return Err(ChangeError::Founder { name, members });
            }
            said.push(format!(
                "{name} founded the group of this machine, and still counts here by its role in it; `peer trust remove --leave \
                 {name}` leaves the group"
            ));
        } else if keeping.groups.everyone().iter().any(|(member, blocked)| member.peer == peer && !blocked) && keeping.groups.block(&peer)? {
            said.push(format!(
                "{name} is blocked on this machine only: another's roster has it, and only that group's founder takes it off"
            ));
        }
        Ok(said)
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    what: String,
}

async fn explained(State(domain): State<Arc<Domain>>, Query(query): Query<ExplainQuery>) -> Response {
    match blocking::run(move || explain::explain(&domain, &query.what)).await {
        Ok(explanation) => Json(explanation).into_response(),
        Err(error) => refusal(StatusCode::NOT_FOUND, error.to_string(), Some("peer trust list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_ticket_names_addresses_that_others_can_dial() {
        let id = crate::swarm::Identity::generate().peer_id();
        let all = ["/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip4/192.0.2.1/tcp/1"];
        let with_id = addresses(&all).into_iter().map(|address| address.with_p2p(id).unwrap()).collect();
        assert_eq!(reachable(with_id), addresses(&[all[3], all[2]]));
        assert_eq!(reachable(addresses(&all[..1])), addresses(&all[..1]));
        assert_eq!(reachable(Vec::new()), addresses(&[]));
        let many: Vec<String> = (0..20).map(|n| format!("/ip4/192.0.2.{n}/tcp/1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(reachable(addresses(&many)).len(), ADDRESSES_MAX);
    }
}
