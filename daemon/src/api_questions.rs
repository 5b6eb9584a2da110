//! The words of questions: what is to be had as a binary package, why something is not, and what there is at all.

use crate::api_builds::PlanOption;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/weather`: answers with [`QuestionLine`]s.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeatherRequest {
    /// As `emerge` takes them: atoms and `@set`s.
    pub atoms: Vec<String>,
    /// How the plan is made.
    #[serde(default)]
    pub options: Vec<PlanOption>,
    /// Of another member's machine, by its name or key.
    #[serde(default)]
    pub domain: Option<String>,
    /// Where what nobody has would be built, as [`crate::api_builds::BuildRequest::on`] has it.
    #[serde(default)]
    pub on: Option<String>,
}

/// What becomes of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outlook {
    /// Its binary package is in the store.
    Have,
    /// A builder whose word counts has it.
    Substitute,
    /// A builder of the group would make it.
    Offload,
    /// It is to be built here.
    Build,
    /// It cannot be made at all, or this machine cannot use what is made.
    Impossible,
}

/// The kind of reason for which there is no binary package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MissKind {
    /// Nobody who is reached and whose word counts has any.
    Nobody,
    /// There are others of this package, of other versions.
    Version,
    /// This version is there with other USE flags.
    Use,
    /// This version is there for another CHOST.
    Chost,
    /// This version is there for a processor that can more.
    Cpu,
    /// This version is there and needs a library that is not here.
    Soname,
    /// This version is there and needs a newer version of a library.
    Symbol,
    /// This version is there with these USE flags, built from another recipe: compiler flags, ebuild or dependencies.
    Recipe,
    /// It was built here for another machine of the group, with its configuration.
    Guest,
    /// It was built by somebody whose word does not count here.
    Trust,
    /// What the package or the user says forbids it.
    Policy,
}

/// What is foreseen for one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeatherPackage {
    /// `category/name-version`.
    pub cpv: String,
    /// The ebuild repository.
    pub repo: String,
    /// What becomes of it.
    pub state: Outlook,
    /// Names of the nodes it comes from; empty where it is to be built here.
    pub from: Vec<String>,
    /// Bytes to fetch: of the binary package, or of those distfiles that are not here.
    pub bytes: u64,
    /// Seconds that building it may take, for one that is to be built; none where nobody knows.
    pub build_s: Option<u64>,
    /// Why there is no binary package, where there is none.
    pub kind: Option<MissKind>,
    /// The same for people, one line.
    pub cause: Option<String>,
}

/// All of a weather together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeatherTotals {
    /// Packages that are here.
    pub have: u64,
    /// Packages that come from others.
    pub substitute: u64,
    /// Packages that others would build.
    pub offload: u64,
    /// Packages to build here.
    pub build: u64,
    /// Packages that cannot be made.
    pub impossible: u64,
    /// Of all those, packages that `peer emerge` has made before emerge: those of others, and what the configuration says.
    pub ahead: u64,
    /// Bytes to fetch.
    pub bytes: u64,
    /// Seconds that the builds may take one after the other, as far as it is known.
    pub build_s: u64,
    /// Builds of which nobody knows how long they take.
    pub unknown_times: u64,
}

/// The answer to a [`WeatherRequest`]: dependencies before what needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeatherAnswer {
    /// One for each package of the plan that is needed.
    pub packages: Vec<WeatherPackage>,
    /// Their sums.
    pub totals: WeatherTotals,
    /// Whether there are more packages than are told, as an answer of another machine is bounded.
    #[serde(default)]
    pub more: bool,
    /// The number of this plan, by which a build carries out just this; none where it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<u64>,
}

/// `POST /v1/why`: answers with [`QuestionLine`]s.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// One atom.
    pub atom: String,
}

/// The answer to a [`WhyRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyAnswer {
    /// The package that is wanted, as this machine's configuration has it; where Portage takes none, what was asked.
    pub cpv: String,
    /// The ebuild repository.
    pub repo: String,
    /// What becomes of it; none where Portage takes none.
    pub state: Option<Outlook>,
    /// USE flags that are on.
    pub use_flags: Vec<String>,
    /// Why there is no binary package, where there is none.
    pub kind: Option<MissKind>,
    /// The same for people, one line.
    pub cause: Option<String>,
    /// What may be done about it.
    pub next: Option<String>,
    /// Binary packages of any version.
    pub instances: Vec<WhyInstance>,
    /// Who says to have built exactly what is wanted.
    pub claims: Vec<WhyClaim>,
    /// Whose word counts for it.
    pub builders: Vec<WhyBuilder>,
}

/// A binary package that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyInstance {
    /// `category/name-version`.
    pub cpv: String,
    /// The ebuild repository.
    pub repo: String,
    /// Number among builds of the same version.
    pub build_id: Option<u64>,
    /// Digest of the signed package.
    pub digest: String,
    /// Name of the node that has it; none for this one.
    pub at: Option<String>,
    /// Whether this machine's Portage may take it.
    pub usable: bool,
    /// Why not.
    pub rejects: Vec<WhyReject>,
}

/// Why a binary package is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyReject {
    /// The kind.
    pub kind: MissKind,
    /// For people.
    pub text: String,
}

/// Who says to have built it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyClaim {
    /// Peer id.
    pub builder: String,
    /// Its name.
    pub name: String,
    /// Whether that counts here.
    pub counts: bool,
    /// Why, or why not.
    pub why: String,
}

/// A builder whose word counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyBuilder {
    /// Peer id.
    pub peer: String,
    /// Its name.
    pub name: String,
    /// `connected`, `away`, or why it is not asked.
    pub state: String,
}

/// `POST /v1/search`: answers with [`QuestionLine`]s.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// All of them are in the name or the description, in any case of letters.
    pub words: Vec<String>,
    /// Only of this member's machine, by its name or key.
    #[serde(default)]
    pub domain: Option<String>,
}

/// A package that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchRow {
    /// Its newest version: `category/name-version`.
    pub cpv: String,
    /// The ebuild repository; empty where only a binary package is there.
    pub repo: String,
    /// What it is.
    pub description: String,
    /// Name of the node that says so; none for this one.
    pub domain: Option<String>,
    /// Whether that node has a binary package of any version.
    pub binary: bool,
}

/// The answer to a [`SearchRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchAnswer {
    /// The packages, those with the words in their names first.
    pub rows: Vec<SearchRow>,
    /// Whether there are more than are told.
    pub more: bool,
    /// Nodes that were asked and did not answer, each with the reason.
    pub silent: Vec<String>,
}

/// A line of the answer to a question that takes time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum QuestionLine<T> {
    /// What was asked.
    Answer(T),
    /// There is none.
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
