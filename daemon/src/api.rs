//! The words of the control socket, of `/api/v1` and of the status page: the only `Serialize` outside the configuration.
//!
//! Long work answers with newline-delimited JSON: any number of progress lines and exactly one last line.
//! Sizes are bytes, times are seconds since the Unix epoch unless a name says otherwise, digests are 128 hex digits of BLAKE2B-512.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// The line a daemon prints to standard output when it serves.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Always `ready`.
    pub event: String,
    /// `ADDR:PORT` of each HTTP listener.
    pub http: Vec<String>,
    /// Path of the control socket.
    pub control: String,
    /// Multiaddrs peers can dial, each with `/p2p/ID`.
    pub p2p: Vec<String>,
    /// URL for `binrepos.conf`.
    pub binhost: String,
    /// libp2p peer id.
    pub peer_id: String,
    /// True when the repositories are read; false when that takes longer than a start should: then what the last index
    /// knows is served, and 503 answers what nobody knows yet.
    #[serde(default)]
    pub indexed: bool,
}

/// What a daemon is and does now: `peer status`, `/api/v1/status` and the status page show this one struct.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the daemon began to serve.
    pub uptime_s: u64,
    /// libp2p peer id.
    pub peer_id: String,
    /// `ADDR:PORT` of each HTTP listener.
    pub http: Vec<String>,
    /// Multiaddrs peers can dial.
    pub p2p: Vec<String>,
    /// URL for `binrepos.conf`.
    pub binhost: String,
    /// Number of connected peers.
    pub peers: usize,
    /// Verified blobs in the store.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// DIST lines known from the Manifests of all repositories.
    pub distfiles_indexed: u64,
    /// Answers for distfiles by source: `store`, `peer`, `mirror`, `upstream`.
    pub served: BTreeMap<String, Served>,
    /// Answers that were not found, by reason: `unknown` (no Manifest names it), `unavailable` (nobody has it),
    /// `not_yet` (the Manifests were still being read).
    pub misses: BTreeMap<String, u64>,
    /// Bytes given to other peers since start.
    pub given_bytes: u64,
    /// The ebuild repositories, in priority order.
    pub repositories: Vec<Repository>,
    /// The look at them that is under way, if one is.
    #[serde(default)]
    pub look: Option<Look>,
    /// What is being fetched now.
    pub transfers: Vec<Transfer>,
    /// The most recent transfers that ended, newest first.
    pub recent: Vec<Ended>,
    /// HTTP hosts asked so far and how they did.
    pub mirrors: Vec<MirrorHealth>,
    /// Connected peers.
    pub connected: Vec<Peer>,
    /// Number of pins.
    pub pins: usize,
    /// The first of them.
    #[serde(default)]
    pub pinned: Vec<Pin>,
    /// Blobs that rotted and were set aside.
    pub quarantined: u64,
    /// Unfinished downloads kept for resuming, in bytes.
    pub partial_bytes: u64,
    /// Free bytes on the store's filesystem.
    pub disk_free_bytes: u64,
    /// The budget of the store, if there is one.
    pub size_max_bytes: Option<u64>,
    /// Tasks that ended in a panic since the daemon began: each is a fault of the program.
    #[serde(default)]
    pub panics: u64,
    /// What a user should know and mend, one sentence each.
    pub warnings: Vec<String>,
}

/// Answers given from one source.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Served {
    /// Number of answers.
    pub answers: u64,
    /// Body bytes sent.
    pub bytes: u64,
}

/// One ebuild repository.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// `repo_name`.
    pub name: String,
    /// Where it lies.
    pub path: String,
    /// Packages with a Manifest.
    pub packages: usize,
    /// When it was last compared with the index.
    pub refreshed: u64,
    /// Why it could not be read, if it could not.
    pub problem: Option<String>,
}

/// How far a look at the repositories is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Look {
    /// The repository that is read now.
    pub repository: String,
    /// Packages of it that are read.
    pub read: usize,
    /// Packages of it that are new or changed, or that Portage is asked about.
    pub of: usize,
    /// True while Portage is asked, ebuild by ebuild, for metadata that no md5-cache has.
    pub asking: bool,
    /// True until they have been read once since the daemon began: what is not known yet is answered with 503.
    pub first: bool,
    /// When it began.
    pub since: u64,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, read, of, asking, .. } = self;
        let doing = if *asking { "asking Portage about" } else { "reading" };
        write!(f, "{doing} repository {repository}: {read} of {of} packages")
    }
}

/// A line of the answer to who waits for the first look.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum LookLine {
    /// How far it is.
    Looking(Look),
    /// The repositories are read.
    Done,
}

/// A transfer under way.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// Distfile name, or the short digest when no Manifest names it.
    pub name: String,
    /// Content digest.
    pub digest: String,
    /// Verified size, when known.
    pub size: Option<u64>,
    /// Bytes so far.
    pub received: u64,
    /// `peer`, `mirror` or `upstream`, once a source answers.
    pub source: Option<String>,
    /// Clients waiting for it.
    pub followers: usize,
}

/// A transfer that ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ended {
    /// Distfile name, or the short digest.
    pub name: String,
    /// Its size, when known.
    pub size: Option<u64>,
    /// Where the last byte came from; none when it failed.
    pub source: Option<String>,
    /// Why it failed; none when it did not.
    pub error: Option<String>,
    /// When it ended.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How one HTTP host does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MirrorHealth {
    /// Host and port.
    pub host: String,
    /// Requests that brought what was asked.
    pub ok: u64,
    /// Requests that did not.
    pub failed: u64,
    /// Body bytes received.
    pub bytes: u64,
    /// Smoothed time to the first byte.
    pub latency_ms: u64,
    /// Smoothed throughput.
    pub bytes_per_second: u64,
    /// Seconds until it is asked again; 0 when it may be asked now.
    pub cooling_s: u64,
    /// The newest failure.
    pub last_failure: Option<String>,
}

/// A connected peer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// libp2p peer id.
    pub peer_id: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// What it says it runs.
    pub agent: String,
    /// True on a private, link-local or loopback address.
    pub lan: bool,
    /// Blobs it says it holds.
    pub holdings: usize,
    /// Round trip in milliseconds, when measured.
    pub rtt_ms: Option<u64>,
    /// Bytes it got from us.
    pub given_bytes: u64,
    /// Bytes we got from it.
    pub received_bytes: u64,
    /// Times it lied, stalled or broke off.
    pub blamed: u32,
    /// What it is called, of a member of a group; told on the control socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What a member may do: `fetch`, `build` or `sign`; told on the control socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Seconds for which no builds are given to it, after failures of its own; told on the control socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounded_s: Option<u64>,
}

/// What to fetch: distfile names, digests, CIDs, atoms or sets.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FetchRequest {
    /// As typed.
    pub targets: Vec<String>,
}

/// A line of the answer to a fetch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FetchLine {
    /// How far one distfile is.
    Progress {
        /// Distfile name or short digest.
        name: String,
        /// Bytes so far.
        received: u64,
        /// Size, when known.
        size: Option<u64>,
        /// `peer`, `mirror`, `upstream`, once known.
        source: Option<String>,
    },
    /// One distfile is here and verified.
    Have {
        /// Distfile name or short digest.
        name: String,
        /// Content digest.
        digest: String,
        /// Size.
        size: u64,
        /// `store`, `peer`, `mirror` or `upstream`.
        source: String,
    },
    /// A line of a set that was left out, as Portage leaves it out.
    LeftOut(LeftOut),
    /// What is to be known of the answer.
    Note {
        /// In words.
        text: String,
    },
    /// One target could not be had.
    Missing {
        /// Target or distfile name.
        name: String,
        /// Why.
        error: String,
        /// What to do next, when there is something.
        hint: Option<String>,
    },
    /// The last line.
    Done {
        /// How many are here.
        have: u64,
        /// How many are not.
        missing: u64,
    },
}

/// Something of a set that means nothing, and is left out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// The target, as typed, that led there.
    pub target: String,
    /// The file it stands in, where it stands in one.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u64>,
    /// What stands there: the first word.
    pub text: String,
    /// Why it means nothing.
    pub why: String,
}

/// What to import: absolute paths of files or directories.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportRequest {
    /// Absolute paths.
    pub paths: Vec<String>,
    /// Where blocks cannot be shared, give a file that the daemon owns a second name in the store instead of copying it.
    /// It becomes read-only under its old name too, and must not be changed there.
    #[serde(default)]
    pub link: bool,
}

/// A line of the answer to an import.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ImportLine {
    /// One file is in the store now.
    Imported {
        /// Its path.
        path: String,
        /// Content digest.
        digest: String,
        /// Size.
        size: u64,
        /// `present`, `reflinked`, `linked` or `copied`.
        how: String,
    },
    /// One file was not taken.
    Skipped {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
        /// True when it claims a known name but has other bytes.
        wrong: bool,
    },
    /// The last line.
    Done {
        /// Files taken or already present.
        imported: u64,
        /// Files not taken.
        skipped: u64,
        /// Of those, how many have other bytes than their Manifest line.
        wrong: u64,
        /// Bytes taken.
        bytes: u64,
    },
}

/// Pins to add or to remove.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PinRequest {
    /// Distfile names, digests, CIDs, atoms or sets.
    pub targets: Vec<String>,
    /// True to remove them.
    #[serde(default)]
    pub remove: bool,
}

/// One pin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// As typed.
    pub target: String,
    /// Distfiles it names now.
    pub distfiles: u64,
    /// Of those, how many are here.
    pub held: u64,
    /// Bytes here.
    pub held_bytes: u64,
}

/// The pins.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Pins {
    /// In order of name.
    pub pins: Vec<Pin>,
    /// For a change: targets that name nothing, or that were not pinned.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Of those, why and what to do, where there is more to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<TargetProblem>,
    /// For a change: lines of sets that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// For a change: what else is to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why a target names nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetProblem {
    /// As typed.
    pub target: String,
    /// Why.
    pub error: String,
    /// What to do next, when there is something.
    pub hint: Option<String>,
}

/// How gc shall go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GcRequest {
    /// Only say what would go.
    #[serde(default)]
    pub pretend: bool,
    /// Shrink to this many bytes instead of the configured budget.
    #[serde(default)]
    pub size_max_bytes: Option<u64>,
}

/// What went, or would go.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GcAnswer {
    /// Each blob with its reason.
    pub removed: Vec<GcItem>,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Bytes kept because they are pinned.
    pub pinned_bytes: u64,
    /// True when nothing was really removed.
    pub pretended: bool,
}

/// One blob that goes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GcItem {
    /// Content digest.
    pub digest: String,
    /// Distfile names, when a Manifest knows it.
    pub names: Vec<String>,
    /// Size.
    pub size: u64,
    /// When it was last used.
    pub last_used: u64,
    /// Why it goes.
    pub reason: String,
}

/// A line of the answer to a verify.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum VerifyLine {
    /// How far it is.
    Progress {
        /// Bytes hashed.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A blob had other bytes than its name says, and was set aside.
    Rotten {
        /// Content digest it should have had.
        digest: String,
        /// Distfile names, when a Manifest knows it.
        names: Vec<String>,
    },
    /// The last line.
    Done {
        /// Blobs that are whole.
        good: u64,
        /// Blobs set aside.
        rotten: u64,
        /// Index rows whose blob was gone.
        lost: u64,
        /// Whole blobs on disk that the index did not know; it knows them now.
        found: u64,
        /// Files among the blobs that are no blobs; set aside.
        strays: u64,
        /// Blobs the disk did not give.
        unreadable: u64,
        /// False when it ended early.
        whole: bool,
        /// Bytes hashed.
        bytes: u64,
    },
}

/// The connected peers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// This node.
    pub peer_id: String,
    /// Addresses to give to others.
    pub addresses: Vec<String>,
    /// The others.
    pub peers: Vec<Peer>,
}

/// An address to dial.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DialRequest {
    /// Multiaddr.
    pub address: String,
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// What and why, one sentence.
    pub error: String,
    /// What to do next, when there is something.
    pub hint: Option<String>,
}
