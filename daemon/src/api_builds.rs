//! The words of builds, on the control socket, in `/api/v1` and on the status page.
//!
//! A **job** makes one binary package of one recipe; two requests for the same recipe are the same job. A job's number
//! never means another job.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/build`: answers with [`BuildLine`]s. The jobs go on when the client leaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// What to build, as `emerge` takes it: atoms and `@set`s.
    pub atoms: Vec<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub pretend: bool,
    /// Build here even if the package is held or a trusted peer has it; the new one takes its place.
    #[serde(default)]
    pub rebuild: bool,
    /// Where what nobody has is built: `local`, `any` member that builds for others, or one by name or peer id. None
    /// leaves it to `[offload] builds`.
    #[serde(default)]
    pub on: Option<String>,
    /// How the plan is made.
    #[serde(default)]
    pub options: Vec<PlanOption>,
    /// Make only what `peer emerge` may make before emerge: what others have, and what the configuration says of the rest.
    #[serde(default)]
    pub policy: bool,
    /// The plan that the weather was told of: that one is carried out, as long as it is kept.
    #[serde(default)]
    pub plan: Option<u64>,
    /// Of the plan only these, `category/name-version`, and what they need to be built; empty means all.
    #[serde(default)]
    pub only: Vec<String>,
}

/// How a plan is made otherwise than of what is named alone: options of `emerge`, so that nobody hands free words on to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlanOption {
    /// Newer versions of what is installed.
    Update,
    /// Of dependencies too.
    Deep,
    /// What is installed with other USE flags than it would be now.
    Newuse,
    /// The same, without flags that came or went and are off.
    ChangedUse,
    /// As if nothing were installed.
    Emptytree,
}

impl PlanOption {
    /// What brings a machine to the state of its repositories, as `emerge --update --deep --newuse` does.
    pub const UPDATE: [Self; 3] = [Self::Update, Self::Deep, Self::Newuse];

    /// As `emerge` spells it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Update => "--update",
            Self::Deep => "--deep",
            Self::Newuse => "--newuse",
            Self::ChangedUse => "--changed-use",
            Self::Emptytree => "--emptytree",
        }
    }
}

/// What becomes of one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is in the store already.
    Have,
    /// A trusted peer built it: its bytes are fetched.
    Substitute,
    /// A member of the group is asked to build it.
    Offload,
    /// It is built here, in the sandbox.
    Build,
}

/// One package of a plan, dependencies before what needs them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlannedPackage {
    /// `category/name-version`.
    pub cpv: String,
    /// The ebuild repository it comes from.
    pub repo: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Bytes to fetch: of the package for a substitute, of its distfiles for a build, 0 when it is here.
    pub size: u64,
    /// Why this and nothing else, for people.
    pub reason: String,
    /// USE flags that are on.
    pub use_flags: Vec<String>,
    /// Fingerprint of the recipe, 128 hex digits.
    pub fingerprint: String,
    /// The job that makes it, when there is one.
    pub job: Option<u64>,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its dependencies or for its turn.
    Queued,
    /// Runs; the phase says what.
    Running,
    /// Its package is in the store and in the binhost.
    Done,
    /// It could not be made; the reason says why.
    Failed,
    /// The user stopped it.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will change.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A builder that did not build a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// Its peer id.
    pub peer: String,
    /// What people call it.
    pub name: String,
    /// Why not, for people.
    pub reason: String,
}

/// A job as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// `category/name-version`.
    pub cpv: String,
    /// The ebuild repository.
    pub repo: String,
    /// Fingerprint of the recipe, 128 hex digits.
    pub fingerprint: String,
    /// Where it is.
    pub state: JobState,
    /// What it does, or did last: `wait`, `substitute`, `fetch`, `dependencies`, `setup`, `unpack`, `prepare`, `configure`,
    /// `compile`, `test`, `install`, `package`, `sign`, `publish`.
    pub phase: String,
    /// Why it failed, or what a queued one waits for; for people.
    pub reason: Option<String>,
    /// `build`, `substitute` or `offload`, once it is known.
    pub source: Option<String>,
    /// Peer id of the builder, when another node built it or builds it now.
    pub builder: Option<String>,
    /// What people call that builder, when it is of a group.
    #[serde(default)]
    pub builder_name: Option<String>,
    /// Where it was asked to be built: `local`, `any`, or a peer id; none leaves it to the configuration.
    #[serde(default)]
    pub on: Option<String>,
    /// Peer id of the machine it is built for, when that is not this one.
    #[serde(default)]
    pub client: Option<String>,
    /// What people call that machine, when it is of a group.
    #[serde(default)]
    pub client_name: Option<String>,
    /// The builders that did not build it, and why.
    #[serde(default)]
    pub tried: Vec<Tried>,
    /// How often it was begun: more than 1 when the daemon was stopped in the middle.
    pub attempt: u32,
    /// When it was asked for, seconds since the epoch.
    pub created_at: u64,
    /// When it began to run.
    pub started_at: Option<u64>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// Digest of the signed package.
    pub digest: Option<String>,
    /// Digest of what it installs ([`tree::image`]).
    pub image: Option<String>,
    /// Bytes of the package.
    pub size: Option<u64>,
    /// Milliseconds of processor time of a build that ended, where they could be counted.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// The most memory a build had at one time, in bytes, where it could be counted.
    #[serde(default)]
    pub memory_peak_bytes: Option<u64>,
    /// Bytes of its log so far.
    pub log_bytes: u64,
    /// Where the whole log is.
    pub log_path: String,
    /// The last lines of the log of a failed job.
    #[serde(default)]
    pub log_tail: Vec<String>,
    /// What was done otherwise than it was foreseen, and why: one line each, for people.
    #[serde(default)]
    pub told: Vec<String>,
}

/// A line of the answer to a [`BuildRequest`]: one `planned`, then `job` whenever one changes, then one `done`; or `refused`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum BuildLine {
    /// What will be done, in this order.
    Planned {
        /// Dependencies before what needs them.
        packages: Vec<PlannedPackage>,
    },
    /// A job changed.
    Job(Box<Job>),
    /// Everything ended.
    Done {
        /// Packages that were here already.
        have: u64,
        /// Packages that came from trusted peers.
        substituted: u64,
        /// Packages that members of the group built.
        #[serde(default)]
        offloaded: u64,
        /// Packages built here.
        built: u64,
        /// Packages that could not be made or were cancelled.
        failed: u64,
    },
    /// Nothing was begun.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        hint: Option<String>,
        /// What Portage said, if it did.
        said: String,
        /// Whether the answer is "no" (nothing matches) rather than a fault of the setup.
        no: bool,
    },
}

/// `GET /v1/jobs`: newest first; and `/api/v1/jobs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct JobsAnswer {
    /// The jobs.
    pub jobs: Vec<Job>,
}

/// `GET /v1/trust` answers a list of these; `POST /v1/trust` takes one to add or change, `DELETE /v1/trust/{key}` removes one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedKey {
    /// Peer id of the node whose claims count.
    pub key: String,
    /// What it may build for this machine; empty means nothing, `*/*` anything.
    pub packages: Vec<String>,
    /// Since when, seconds since the epoch; filled in by the daemon.
    #[serde(default)]
    pub since: u64,
}

/// `POST /v1/challenge`: answers with [`ChallengeLine`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// One atom.
    pub atom: String,
}

/// A line of the answer to a challenge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ChallengeLine {
    /// The rebuild goes on.
    Job(Box<Job>),
    /// The verdict.
    Verdict(Verdict),
    /// There is nothing to compare, or the rebuild failed.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// What comparing independent builds of one recipe showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// `category/name-version`.
    pub cpv: String,
    /// Fingerprint of the recipe.
    pub fingerprint: String,
    /// Image digest of the package that was held.
    pub held: String,
    /// Image digest of the rebuild.
    pub rebuilt: String,
    /// Whether they are the same.
    pub same: bool,
    /// Per file, what differs; bounded.
    pub differences: Vec<FileDifference>,
    /// What other builders claim for the same recipe.
    pub claims: Vec<ClaimView>,
}

/// A path that differs between two builds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileDifference {
    /// Path in the image.
    pub path: String,
    /// What differs: `content`, `mode`, `owner`, `link`, `type`, `only in the held one`, `only in the rebuild`.
    pub what: String,
}

/// A claim, for people.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimView {
    /// Peer id of who says so.
    pub builder: String,
    /// Whether its claims count here for this package.
    pub trusted: bool,
    /// Digest of the package.
    pub digest: String,
    /// Digest of what it installs.
    pub image: String,
    /// When it was built, as the builder says.
    pub made_at: u64,
}

/// `GET /v1/show/{atom}`: the binary packages held, and what is known of the ebuild.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ShowAnswer {
    /// Binary packages of this node's binhost that match.
    pub binpkgs: Vec<Binpkg>,
    /// Distfiles of the ebuild that is meant.
    pub distfiles: Vec<ShownDistfile>,
    /// What is to be known of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A binary package in the binhost.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Binpkg {
    /// `category/name-version`.
    pub cpv: String,
    /// The ebuild repository.
    pub repo: String,
    /// `SLOT/SUBSLOT`.
    pub slot: String,
    /// Number among builds of the same version.
    pub build_id: Option<u64>,
    /// USE flags that were on.
    pub use_flags: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// Digest of the signed package.
    pub digest: String,
    /// Fingerprint of its recipe.
    pub fingerprint: String,
    /// Digest of what it installs.
    pub image: String,
    /// Peer id of the builder, when another node built it.
    pub builder: Option<String>,
    /// When it came into the binhost.
    pub added_at: u64,
    /// Whether this machine can use it: what it cannot use is not in the index.
    pub usable: bool,
    /// Why not.
    pub rejects: Vec<BinpkgReject>,
}

/// Why a machine cannot use a binary package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BinpkgReject {
    /// `guest` (built for another machine), `chost`, `use`, `cpu`, `soname` (a library is missing) or `symbol` (a library
    /// is too old).
    pub kind: String,
    /// In words.
    pub text: String,
}

/// A distfile of a package.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownDistfile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its digest.
    pub digest: String,
    /// Whether the store has it.
    pub held: bool,
}
