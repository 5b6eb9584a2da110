//! The words of groups and trust on the control socket. Nothing of them is on TCP: names and rosters are for members.

use crate::api_builds::TrustedKey;
use serde::{Deserialize, Serialize};

/// `POST /v1/group/invite`: answers with an [`Invited`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// `fetch`, `build` or `sign`.
    pub role: String,
    /// Seconds the ticket is good for.
    pub expires_s: u64,
    /// What the machine that joins is to be called.
    #[serde(default)]
    pub name: Option<String>,
}

/// A ticket that was made. Its text is never told again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The whole ticket.
    pub ticket: String,
    /// By which it is listed and revoked.
    pub id: String,
    /// What who joins may do.
    pub role: String,
    /// Seconds since the epoch.
    pub expires_at: u64,
    /// Peer id of the group's founder, this node.
    pub group: String,
}

/// `GET /v1/group/tickets` answers a list of these, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketRow {
    /// Eight hex digits.
    pub id: String,
    /// What who joins may do.
    pub role: String,
    /// `open`, `used`, `expired` or `revoked`.
    pub state: String,
    /// Peer id of who joined with it.
    pub used_by: Option<String>,
    /// Seconds since the epoch.
    pub expires_at: u64,
}

/// `POST /v1/group/tickets/revoke`: answers with the list of tickets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A ticket's id, or its whole text.
    pub ticket: String,
}

/// `POST /v1/group/join`: answers with a [`JoinAnswer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The whole ticket.
    pub ticket: String,
    /// What this machine is to be called; the founder may have chosen another name.
    #[serde(default)]
    pub name: Option<String>,
}

/// A group that was joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Peer id of its founder.
    pub group: String,
    /// What this node may do in it.
    pub role: String,
    /// What this node is called in it.
    pub name: String,
    /// The other machines in it.
    pub members: Vec<MemberRow>,
}

/// Another machine of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberRow {
    /// Peer id.
    pub peer: String,
    /// What people call it.
    pub name: String,
    /// `fetch`, `build` or `sign`.
    pub role: String,
    /// Peer id of the group's founder.
    pub group: String,
    /// Whether it is that founder.
    pub founder: bool,
    /// Whether it is connected now.
    pub connected: bool,
    /// Whether this machine's user blocked it: then it has no role here.
    pub blocked: bool,
}

/// A group this node is in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRow {
    /// Peer id of its founder.
    pub group: String,
    /// Whether this node founded it.
    pub mine: bool,
    /// Rises with every change of the roster.
    pub serial: u64,
    /// This node's own role in it.
    pub role: String,
}

/// `GET /v1/trust`: whose word counts, and who may do what here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrustList {
    /// Keys the user listed.
    pub keys: Vec<TrustedKey>,
    /// The other machines of all groups, once for each group.
    pub members: Vec<MemberRow>,
    /// The groups.
    pub groups: Vec<GroupRow>,
    /// Peer ids that are blocked here and in no roster now.
    pub blocked: Vec<String>,
}

/// `POST /v1/trust` and `DELETE /v1/trust/{key}`: what was done, and what holds now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrustChanged {
    /// For people, a sentence for each thing that was done.
    pub said: Vec<String>,
    /// What holds now.
    #[serde(flatten)]
    pub now: TrustList,
}

/// `GET /v1/trust/explain?what=…`: why a package or a machine counts, or does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about: an atom, or a peer id.
    pub subject: String,
    /// Of a machine: `counts`, `counts-for-some`, `does-not-count`, `blocked`, `caught` or `self`; of a package: `counts` when somebody's
    /// claim is known and counts, `may` when somebody's would, else `nobody`.
    pub verdict: String,
    /// Sentences for people.
    pub lines: Vec<String>,
}
