//! What building some atoms takes, as Portage's own resolver says: `plan.py`, run inside the sandbox, and its answer.
//!
//! The resolver reads the configuration and sources what has no md5-cache, which is code of an ebuild: so it runs with
//! the same walls as a build, without anything it could write to.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::capture::Captured;
use super::domain_names::script;
use super::foreign::Foreign;
use super::inside::Inside;
use super::recipe::Recipe;
use crate::api_builds::PlanOption;
use crate::binhost::Owner;
use crate::sizes::SaidSize;
use sandbox::{Cancel, End, Sandbox, SandboxError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;
use tree::cpv::{Cpv, ParseCpvError};
use tree::digest::Digest;
use tree::license::{License, LicenseGroups};
use tree::manifest::DISTFILE_BYTES_MAX;
use tree::name::DistfileName;

/// Resolving @world of a large machine takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(600);
/// A package is some 10 KB, and nobody builds more than a few thousand.
const ANSWER_MAX_BYTES: u64 = 128 * 1024 * 1024;
/// Packages of one plan.
const PACKAGES_MAX: usize = 10_000;
/// Longest atom or set name.
const ATOM_BYTES_MAX: usize = 1024;
/// Words of Portage that are handed on to the user, in bytes.
const SAID_MAX_BYTES: usize = 16 * 1024;
/// Files looked at to see whether an input of a plan has changed.
const INPUTS_MAX: usize = 200_000;
const SCRIPT: &str = script!("plan.py");

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Portage finds no way, or does not know the atom.
    #[error("Portage cannot plan this: {why}")]
    Refused {
        /// What the resolver says in one line.
        why: String,
        /// Everything Portage printed, cut.
        said: String,
    },
    /// The resolver did not run.
    #[error("Portage cannot be asked")]
    Sandbox(#[from] SandboxError),
    /// There is no Portage.
    #[error("there is no python3 in the daemon's PATH to run Portage with")]
    NoPython,
    /// The script broke: another version of Portage, or a broken configuration.
    #[error("Portage did not answer: {said}")]
    Broke {
        /// The end of what it printed.
        said: String,
    },
    /// The answer is not one this program understands.
    #[error("the resolver's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    /// A package of the answer cannot be built from what is known of it.
    #[error("{cpv}: {why}")]
    Package {
        /// Which.
        cpv: String,
        /// Why.
        why: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Error { error: String },
    Plan(Resolved),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolved {
    portage: String,
    eula: Vec<String>,
    inputs: Vec<PathBuf>,
    header: BTreeMap<String, String>,
    packages: Vec<Ebuild>,
}

/// One package as the resolver describes it; every field that can change the image goes into its [`Recipe`].
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ebuild {
    pub(super) cpv: String,
    pub(super) slot: String,
    pub(super) repo: String,
    pub(super) eapi: String,
    pub(super) license: String,
    pub(super) properties: Vec<String>,
    pub(super) restrict: Vec<String>,
    pub(super) r#use: Vec<String>,
    pub(super) iuse: Vec<String>,
    pub(super) ebuild: String,
    pub(super) eclasses: BTreeMap<String, String>,
    pub(super) files: Option<String>,
    pub(super) patches: BTreeMap<String, String>,
    /// The user's configuration of this package, where it asks for one.
    pub(super) savedconfig: Option<String>,
    pub(super) bashrc: Vec<String>,
    pub(super) profile: String,
    pub(super) toolchain: BTreeMap<String, String>,
    pub(super) features: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) distfiles: Vec<EbuildDistfile>,
    pub(super) dependencies: Vec<String>,
    pub(super) layer: Vec<String>,
    pub(super) runtime: Vec<String>,
    pub(super) asked: bool,
    pub(super) inputs: Vec<PathBuf>,
    /// Scripts below `/etc/portage` that the build runs.
    pub(super) private: Vec<String>,
    /// Why its recipe cannot be told.
    pub(super) trouble: Option<String>,
}

/// A distfile as the Manifest names it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EbuildDistfile {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    pub(super) blake2b: Option<String>,
}

/// A distfile a build needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededDistfile {
    /// Under this name.
    pub name: DistfileName,
    /// Bytes.
    pub size: u64,
    /// These bytes.
    pub digest: Digest,
}

/// One package that is to be made.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What.
    pub cpv: Cpv,
    /// From which ebuild repository.
    pub repo: String,
    /// `SLOT/SUBSLOT`.
    pub slot: String,
    /// USE flags that are on.
    pub use_flags: Vec<String>,
    /// Everything that may change the result.
    pub recipe: Recipe,
    /// Its sources.
    pub distfiles: Vec<NeededDistfile>,
    /// Fingerprints of those packages of the same plan that must be there when this one is built.
    pub layer: Vec<Digest>,
    /// Those packages of the same plan that it needs when it is installed.
    pub runtime: Vec<String>,
    /// Whether it was asked for itself, not only needed.
    pub asked: bool,
    /// Whether the binary package may be given to others: no RESTRICT=bindist, and a licence that permits it.
    pub may_share: bool,
    /// Why it cannot be built in a sandbox at all, if so.
    pub hopeless: Option<String>,
    /// Scripts below `/etc/portage` that its build runs: they are given to nobody, so that it is built here only.
    pub private: Vec<String>,
    /// Files and directories the recipe was read from.
    pub inputs: Vec<PathBuf>,
}

/// Packages to make, dependencies before what needs them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In this order.
    pub packages: Vec<Planned>,
    /// What a `Packages` index of this machine says in its header.
    pub header: BTreeMap<String, String>,
    /// Before anything was read.
    pub begun: SystemTime,
    /// The machine whose plan it is, when it is not this one's.
    pub(super) foreign: Option<Arc<Foreign>>,
    /// This machine's domain, captured when somebody first needs it.
    pub(super) captured: OnceCell<Arc<Captured>>,
}

impl Plan {
    /// Whose the packages are that are made of it.
    pub(super) fn owner(&self) -> Owner {
        Owner::of(self.foreign.as_ref().map(|foreign| foreign.client))
    }
}

/// As `emerge` takes it, but never an option: what is handed to Portage stands behind `--`, and is refused before already.
#[must_use]
pub fn is_word(atom: &str) -> bool {
    !atom.is_empty() && atom.len() <= ATOM_BYTES_MAX && !atom.starts_with('-') && !atom.contains(['\0', '\n'])
}

/// Asks the resolver. `atoms` are as `emerge` takes them; they cannot be options, which are `options` only.
///
/// Cancel safe: yes; the resolver is killed.
///
/// # Errors
/// When Portage finds no way, cannot be run, or what it says cannot be built from.
pub async fn plan(
    sandbox: &Sandbox,
    inside: &Inside,
    atoms: &[String],
    options: &[PlanOption],
) -> Result<Plan, PlanError> {
    let begun = SystemTime::now();
    let python = inside.program("python3").ok_or(PlanError::NoPython)?;
    let mut command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), SCRIPT.into()];
    command.extend(options.iter().map(|option| option.flag().into()));
    command.push("--".into());
    command.extend(atoms.iter().map(Into::into));
    let mut policy = inside.resolver();
    policy.limits.time = DEADLINE;
    let captured = sandbox.capture(&policy, &command, b"", ANSWER_MAX_BYTES, Cancel::never()).await?;
    let said = cut(&captured.errors);
    match captured.outcome.end {
        End::Ended { code: 0 } if !captured.output.is_empty() => {}
        End::Limit(limit) => return Err(PlanError::Broke { said: format!("{limit}\n{said}") }),
        End::Ended { .. } | End::Cancelled => return Err(PlanError::Broke { said }),
    }
    match serde_json::from_slice(&captured.output)? {
        Answer::Error { error } => Err(PlanError::Refused { why: error, said }),
        Answer::Plan(mut resolved) => {
            resolved.inputs.extend(inside.watched().iter().cloned());
            read(resolved, begun)
        }
    }
}

/// The plan of another machine's domain, in which packages of this machine's root with other USE flags are made anew.
///
/// Cancel safe: yes; the resolver is killed.
pub(super) async fn plan_foreign(
    sandbox: &Sandbox,
    inside: &Inside,
    foreign: Arc<Foreign>,
    atoms: &[String],
) -> Result<Plan, PlanError> {
    let plan = plan(sandbox, inside, atoms, &[PlanOption::Newuse]).await?;
    Ok(Plan { foreign: Some(foreign), ..plan })
}

/// The end of a text, where the reason is.
pub(super) fn cut(text: &str) -> String {
    let start = text.len().saturating_sub(SAID_MAX_BYTES);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(start..).unwrap_or_default().to_owned()
}

fn read(resolved: Resolved, begun: SystemTime) -> Result<Plan, PlanError> {
    let Resolved { portage, eula, inputs, header, packages } = resolved;
    if packages.len() > PACKAGES_MAX {
        let why = format!("a plan of {} packages, expected at most {PACKAGES_MAX}", packages.len());
        return Err(PlanError::Refused { why, said: String::new() });
    }
    let eula = LicenseGroups::parse(&format!("EULA {}", eula.join(" ")));
    let mut fingerprints: BTreeMap<String, Digest> = BTreeMap::new();
    let mut planned = Vec::with_capacity(packages.len());
    for ebuild in packages {
        let recipe = Recipe::new(&ebuild, &portage);
        fingerprints.insert(ebuild.cpv.clone(), recipe.fingerprint());
        planned.push(one(ebuild, recipe, &fingerprints, &eula, &inputs)?);
    }
    Ok(Plan { packages: planned, header, begun, foreign: None, captured: OnceCell::new() })
}

fn one(
    ebuild: Ebuild,
    recipe: Recipe,
    fingerprints: &BTreeMap<String, Digest>,
    eula: &LicenseGroups,
    inputs: &[PathBuf],
) -> Result<Planned, PlanError> {
    let wrong = |why: String| PlanError::Package { cpv: ebuild.cpv.clone(), why };
    let cpv: Cpv = ebuild.cpv.parse().map_err(|error: ParseCpvError| wrong(error.to_string()))?;
    let distfiles = ebuild.distfiles.iter().map(distfile).collect::<Result<_, _>>().map_err(wrong)?;
    let layer = ebuild.layer.iter().filter(|other| **other != ebuild.cpv);
    let layer = layer.map(|other| fingerprints.get(other).copied().ok_or_else(|| circular(other)));
    let layer = layer.collect::<Result<_, _>>().map_err(wrong)?;
    let has = |words: &[String], word: &str| words.iter().any(|other| other == word);
    let hopeless = has(&ebuild.properties, "live")
        .then(|| "a live ebuild fetches while it is built, and there is no network in the sandbox".to_owned())
        .or_else(|| has(&ebuild.properties, "interactive").then(|| "it asks questions while it is built".to_owned()))
        .or_else(|| ebuild.trouble.clone());
    let licensed = License::new(&ebuild.license).may_redistribute(eula);
    Ok(Planned {
        cpv,
        slot: ebuild.slot,
        use_flags: ebuild.r#use,
        recipe,
        distfiles,
        layer,
        runtime: ebuild.runtime,
        asked: ebuild.asked,
        may_share: licensed && !has(&ebuild.restrict, "bindist"),
        hopeless,
        private: ebuild.private,
        inputs: ebuild.inputs.into_iter().chain(inputs.iter().cloned()).collect(),
        repo: ebuild.repo,
    })
}

fn circular(other: &str) -> String {
    format!("it and {other} need each other to be built: build one of them with less USE flags first")
}

fn distfile(wanted: &EbuildDistfile) -> Result<NeededDistfile, String> {
    let name = &wanted.name;
    let (Some(size), Some(digest)) = (wanted.size, &wanted.blake2b) else {
        return Err(format!("the Manifest has no size and BLAKE2B of {name}"));
    };
    let size = SaidSize::<DISTFILE_BYTES_MAX>::try_from(size);
    let size = size.map_err(|error| format!("the Manifest has no right size of {name}: {error}"))?;
    let parsed = digest.parse().map_err(|_| format!("the Manifest has no right BLAKE2B of {name}"))?;
    let name = name.parse().map_err(|_| format!("{name:?} is no name of a distfile"))?;
    Ok(NeededDistfile { name, size: size.get(), digest: parsed })
}

/// Whether something a recipe was read from has changed since: then what was built is not what the recipe says.
/// Looks at the change times of files (which nobody can set back); blocking.
#[must_use]
pub fn changed_since(inputs: &[PathBuf], begun: SystemTime) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut ahead: Vec<PathBuf> = inputs.to_vec();
    let mut looked = 0;
    while let Some(path) = ahead.pop() {
        looked = usize::saturating_add(looked, 1);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { return Some(path) };
        // Seconds: what changed in the very second of the plan counts as changed before, as nothing finer is sure.
        if u64::try_from(metadata.ctime()).is_ok_and(|changed| changed > begun) || looked > INPUTS_MAX {
            return Some(path);
        }
        if metadata.is_dir() {
            ahead.extend(children(&path));
        }
    }
    None
}

fn children(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sizes of 2^63 in a Manifest ended the daemon when they were added up, at a member's question too.
    #[test]
    fn a_manifest_that_says_a_size_that_no_file_has_is_an_error_that_names_the_file() {
        let digest = Digest::of(b"x").to_string();
        for (size, fits) in [
            (0, true),
            (1 << 31, true),
            (DISTFILE_BYTES_MAX, true),
            (DISTFILE_BYTES_MAX + 1, false),
            (1 << 63, false),
            (u64::MAX, false),
        ] {
            let wanted = EbuildDistfile { name: "a.tar".to_owned(), size: Some(size), blake2b: Some(digest.clone()) };
            match distfile(&wanted) {
                Ok(needed) => assert!(fits && needed.size == size, "{size}"),
                Err(why) => assert!(!fits && why.contains("a.tar") && why.contains(&size.to_string()), "{why}"),
            }
        }
    }
}
