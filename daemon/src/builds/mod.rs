//! Builds: a request becomes a plan, a plan jobs, a job a package: had already, taken from a trusted peer, or made here.
//!
//! In reading order: [`plan`] asks Portage's resolver; [`recipe`] makes its answer one canonical text, whose digest names
//! the package among nodes; [`jobs`] keeps what is to be done across restarts; [`work`] carries one job through;
//! [`substitute`] takes a package that a peer built, if [`trust`] says that its [`claim`] counts; [`local`] builds it
//! inside the walls that [`inside`] describes, with all that the configuration leads to ([`reach`]); [`publish`] signs, keeps and lists what came of either; [`challenge`]
//! compares two builds of one recipe.
//!
//! **Invariants.** A fingerprint has at most one job for this machine and one for others that is not ended. A package is listed only after its bytes are in
//! the store and its row is written. No key is ever inside the sandbox, and nothing a peer says chooses what runs there.

mod capture;
pub mod challenge;
pub mod claim;
mod domain_file;
mod domain_names;
mod foreign;
pub mod inside;
pub mod jobs;
mod kept_plans;
mod left_over;
pub mod local;
pub mod offload;
pub mod plan;
pub mod publish;
pub mod reach;
pub mod recipe;
mod record;
mod resume;
mod settle;
mod stop;
pub mod substitute;
mod trial;
pub mod trust;
mod work;

use crate::api_builds::{BuildRequest, Fate, PlanOption, PlannedPackage};
use crate::binhost::BinpkgRow;
use crate::blocking;
pub(crate) use crate::causes::with_causes;
use crate::config::Config;
use crate::config_build::OnMiss;
use crate::domain::Domain;
use crate::portage;
use crate::swarm::{Identity, PeerId};
use futures::StreamExt as _;
use inside::Inside;
use jobs::{Entry, JobError, Jobs};
use kept_plans::KeptPlans;
use offload::{Grounded, Offload, On};
use plan::{Plan, PlanError, Planned};
use reach::{Reach, ReachError};
pub use record::exercise as exercise_domain;
use sandbox::{MissingProgram, Sandbox};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use store::{IndexError, Store};
use substitute::Caught;
use tokio::sync::Semaphore;
use tree::digest::Digest;
use tree::size::total;
use trust::Trust;

/// Folders of the data directory in which builds work, here and for other machines. What is in them belongs to the user numbers
/// of builds, and nobody but the node enters them: builds are shown what is in them by mounts of their own.
pub(crate) const PRIVATE_FOLDERS: [&str; 2] = ["jobs", "domains"];

/// Packages whose claims are looked for side by side.
const LOOK_WIDTH: usize = 8;

/// Everything builds are made of.
#[derive(Debug)]
pub struct Builds {
    /// What is to be made.
    pub jobs: Jobs,
    /// Whose claims count.
    pub trust: Arc<Trust>,
    caught: Caught,
    offload: Offload,
    identity: Identity,
    path: OsString,
    sandbox: OnceLock<Sandbox>,
    plans: KeptPlans,
    slots: Semaphore,
    trying: tokio::sync::Mutex<()>,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There can be no sandbox on this machine.
    #[error("{0}")]
    Sandbox(#[from] MissingProgram),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The configuration cannot be shown to builds.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// There is no job.
    #[error(transparent)]
    Job(#[from] JobError),
}

/// A request that was taken.
#[derive(Debug)]
pub struct Request {
    /// What becomes of each package.
    pub planned: Vec<PlannedPackage>,
    /// The jobs that were begun or joined.
    pub jobs: Vec<Arc<Entry>>,
}

/// What becomes of one package of a plan.
struct Decision {
    index: usize,
    fate: Fate,
    size: u64,
    reason: String,
    from: Option<PeerId>,
}

/// What will become of one package of a plan.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// Its place in the plan.
    pub index: usize,
    /// In words.
    pub package: PlannedPackage,
    /// Who built it, if another node did.
    pub from: Option<PeerId>,
}

/// The repositories that are there now: one that is synchronised aside may have gone since it was read.
pub(crate) fn repositories_of(domain: &Domain) -> Vec<PathBuf> {
    let list = domain.repositories.list();
    list.iter().map(|repo| PathBuf::from(&repo.path)).filter(|path| path.is_dir()).collect()
}

impl Builds {
    /// Reads the jobs; begins nothing. `path` is the daemon's `PATH`, where Portage and bwrap are looked for. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(
        config: &Config,
        store: &Store,
        identity: Identity,
        trust: Arc<Trust>,
        path: OsString,
    ) -> Result<Self, IndexError> {
        let sandbox = OnceLock::new();
        // Now, while this process has started no other: then its control group can be divided.
        if let Ok(opened) = Sandbox::open(&path) {
            sandbox.get_or_init(|| opened);
        }
        Ok(Self {
            jobs: Jobs::open(store, &inside::absolute(&config.data_dir).join("jobs"))?,
            trust,
            caught: Caught::default(),
            offload: Offload::new(config),
            identity,
            path,
            sandbox,
            plans: KeptPlans::default(),
            slots: Semaphore::new(config.build.jobs_max),
            trying: tokio::sync::Mutex::new(()),
        })
    }

    /// Opened at the start, else at the first build, and kept: a program that is missing may be installed while the daemon
    /// runs.
    pub(crate) fn sandbox(&self) -> Result<Sandbox, MissingProgram> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox.clone());
        }
        let opened = Sandbox::open(&self.path)?;
        Ok(self.sandbox.get_or_init(|| opened).clone())
    }

    /// What builds of this machine's configuration see now.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When Portage reads something here that they cannot be shown.
    pub(crate) async fn inside(&self, domain: &Domain) -> Result<Inside, ReachError> {
        let repos = repositories_of(domain);
        let asked = Inside::asked(&domain.config, &repos);
        let reach = blocking::run(move || Reach::of(&asked)).await?;
        Ok(self.inside_with(domain, &repos, reach))
    }

    /// The same without what lies elsewhere: enough to try out whether builds could run at all.
    fn inside_without_links(&self, domain: &Domain) -> Inside {
        let repos = repositories_of(domain);
        let reach = Reach::nowhere(&Inside::asked(&domain.config, &repos).config_root);
        self.inside_with(domain, &repos, reach)
    }

    fn inside_with(&self, domain: &Domain, repos: &[PathBuf], reach: Reach) -> Inside {
        let own = portage::given_repositories(&domain.config);
        Inside::new(&domain.config, repos, reach, own, self.path.clone())
    }

    /// What the build of a package of a plan sees.
    async fn inside_of(&self, domain: &Domain, plan: &Plan, planned: &Planned) -> Result<Inside, ReachError> {
        match &plan.foreign {
            Some(foreign) => {
                let named = planned.recipe.names("environment");
                Ok(Inside::of_foreign(&domain.config, foreign, named, self.path.clone()))
            }
            None => self.inside(domain).await,
        }
    }

    /// Why a builder is left alone now, if it is.
    #[must_use]
    pub fn grounded(&self, peer: &PeerId) -> Option<Grounded> {
        self.offload.grounded(peer)
    }

    /// What it takes to build these.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// When there can be no sandbox, or Portage finds no way.
    pub async fn plan(&self, domain: &Domain, atoms: &[String], options: &[PlanOption]) -> Result<Plan, RequestError> {
        let begun = Instant::now();
        let plan = plan::plan(&self.sandbox()?, &self.inside(domain).await?, atoms, options).await?;
        tracing::debug!(packages = plan.packages.len(), took = ?begun.elapsed(), "planned");
        // Who asks for a plan may have changed the configuration before.
        domain.binhost.look_again();
        Ok(plan)
    }

    /// What becomes of each package that is needed, without beginning anything.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// As [`Builds::plan`].
    pub async fn pretend(
        &self,
        domain: &Arc<Domain>,
        request: &BuildRequest,
        on: On,
    ) -> Result<Vec<PlannedPackage>, RequestError> {
        let plan = self.plan(domain, &request.atoms, &request.options).await?;
        let decisions = self.decide(domain, &plan, request.rebuild, on).await;
        Ok(decisions.iter().filter_map(|decision| planned_package(&plan, decision, None)).collect())
    }

    /// Keeps a plan that its user is told of; by the number of the answer just this one is begun.
    #[must_use]
    pub fn keep_plan(&self, atoms: &[String], options: &[PlanOption], plan: &Arc<Plan>) -> u64 {
        self.plans.keep(atoms, options, plan)
    }

    /// What becomes of those packages of a plan that are needed, without beginning anything.
    ///
    /// Cancel safe: yes.
    pub async fn foresee(&self, domain: &Arc<Domain>, plan: &Plan, rebuild: bool, on: On) -> Vec<Foreseen> {
        let decisions = self.decide(domain, plan, rebuild, on).await;
        let foreseen = |decision: &Decision| {
            let package = planned_package(plan, decision, None)?;
            Some(Foreseen { index: decision.index, package, from: decision.from })
        };
        decisions.iter().filter_map(foreseen).collect()
    }

    /// Begins (or joins) a job for each package that is not here. The jobs go on without the caller.
    ///
    /// Cancel safe: yes, until the jobs are begun.
    ///
    /// # Errors
    /// As [`Builds::plan`], or when a job cannot be kept.
    pub async fn request(&self, domain: &Arc<Domain>, request: &BuildRequest, on: On) -> Result<Request, RequestError> {
        let rebuild = request.rebuild;
        let kept = request.plan.and_then(|number| self.plans.take(number, &request.atoms, &request.options));
        let plan = match kept {
            Some(plan) => plan,
            None => Arc::new(self.plan(domain, &request.atoms, &request.options).await?),
        };
        let mut decisions = self.decide(domain, &plan, rebuild, on).await;
        if !request.only.is_empty() {
            let only: BTreeSet<&str> = request.only.iter().map(String::as_str).collect();
            let name = |decision: &Decision| plan.packages.get(decision.index).map(|package| package.cpv.to_string());
            decisions.retain(|decision| name(decision).is_some_and(|name| only.contains(name.as_str())));
        }
        let (mut planned, mut jobs) = (Vec::new(), Vec::new());
        for decision in decisions {
            let left = request.policy && decision.fate == Fate::Build && domain.config.build.on_miss == OnMiss::Emerge;
            let job = match decision.fate {
                Fate::Have => None,
                Fate::Build if left => None,
                Fate::Substitute | Fate::Offload | Fate::Build => {
                    let rebuild = rebuild && plan.packages.get(decision.index).is_some_and(|package| package.asked);
                    work::begin(domain, &plan, decision.index, rebuild, on).await?
                }
            };
            planned.extend(planned_package(&plan, &decision, job.as_ref().map(|entry| entry.id())));
            jobs.extend(job);
        }
        Ok(Request { planned, jobs })
    }

    /// Goes from what was asked to what that needs: a package that is had or substituted needs no build dependencies.
    async fn decide(&self, domain: &Arc<Domain>, plan: &Plan, rebuild: bool, on: On) -> Vec<Decision> {
        let begun = Instant::now();
        let by_name: BTreeMap<String, usize> =
            plan.packages.iter().enumerate().map(|(index, package)| (package.cpv.to_string(), index)).collect();
        let by_fingerprint: BTreeMap<Digest, usize> =
            plan.packages.iter().enumerate().map(|(index, package)| (package.recipe.fingerprint(), index)).collect();
        let mut decided: BTreeMap<usize, Decision> = BTreeMap::new();
        let mut ahead: BTreeSet<usize> =
            plan.packages.iter().enumerate().filter(|(_, package)| package.asked).map(|(index, _)| index).collect();
        while !ahead.is_empty() {
            let looking: Vec<_> = std::mem::take(&mut ahead)
                .into_iter()
                .filter_map(|index| Some((index, plan.packages.get(index)?)))
                .map(|(index, package)| self.decide_one(domain, index, package, rebuild && package.asked, on))
                .collect();
            let answers: Vec<Decision> = futures::stream::iter(looking).buffer_unordered(LOOK_WIDTH).collect().await;
            for decision in answers {
                if let Some(package) = plan.packages.get(decision.index) {
                    ahead.extend(package.runtime.iter().filter_map(|name| by_name.get(name)));
                    if matches!(decision.fate, Fate::Offload | Fate::Build) {
                        ahead.extend(package.layer.iter().filter_map(|digest| by_fingerprint.get(digest)));
                    }
                }
                decided.insert(decision.index, decision);
            }
            ahead.retain(|index| !decided.contains_key(index));
        }
        tracing::debug!(packages = decided.len(), took = ?begun.elapsed(), "looked up");
        decided.into_values().collect()
    }

    async fn decide_one(
        &self,
        domain: &Arc<Domain>,
        index: usize,
        package: &Planned,
        rebuild: bool,
        on: On,
    ) -> Decision {
        let fingerprint = package.recipe.fingerprint();
        if rebuild && matches!(on, On::Policy | On::Local) {
            let reason = "asked to build it again".to_owned();
            return Decision { index, fate: Fate::Build, size: sources_size(package), reason, from: None };
        }
        let held = if rebuild { Vec::new() } else { own(domain, &fingerprint).await };
        if let Some(row) = held.first() {
            let from = row.builder();
            let reason = from.map_or("this recipe was built to it".to_owned(), |peer| format!("built by {peer}"));
            return Decision { index, fate: Fate::Have, size: 0, reason, from };
        }
        let claims = if rebuild { Vec::new() } else { self.counting_claims(domain, package).await };
        if let Some(best) = claims.first() {
            let reason = format!("{} built it", best.builder);
            return Decision { index, fate: Fate::Substitute, size: best.claim.size, reason, from: Some(best.builder) };
        }
        if let Some((peer, reason)) = self.offload_reason(domain, package, on) {
            return Decision { index, fate: Fate::Offload, size: 0, reason, from: Some(peer) };
        }
        let reason = if self.trust.builders(&package.cpv, &package.slot).is_empty() {
            "no peer is trusted to build it"
        } else {
            "no trusted peer that can be reached has built this recipe"
        };
        Decision { index, fate: Fate::Build, size: sources_size(package), reason: reason.to_owned(), from: None }
    }

    /// Who would be asked to build it first, when it is to be built elsewhere.
    fn offload_reason(&self, domain: &Domain, package: &Planned, on: On) -> Option<(PeerId, String)> {
        if !on.asks_others(&domain.config) {
            return None;
        }
        match on {
            On::Peer(peer) => Some((peer, format!("to be built on {}", domain.groups.name(&peer)))),
            _ if !package.private.is_empty() => None,
            _ => {
                let first = offload::builders(domain, &package.cpv, &package.slot).into_iter().next()?;
                Some((first, format!("nobody has it; {} may build it", domain.groups.name(&first))))
            }
        }
    }

    /// Claims for a package that count here, the best first; nobody is asked when nobody is trusted for it.
    async fn counting_claims(&self, domain: &Arc<Domain>, package: &Planned) -> Vec<claim::SignedClaim> {
        let trusted = self.trust.builders(&package.cpv, &package.slot);
        if trusted.is_empty() {
            return Vec::new();
        }
        let all = substitute::claims(domain, &trusted, &package.recipe.fingerprint()).await;
        substitute::counting(&all, package, &self.trust, &self.caught)
    }

    /// Whether a builder was caught giving another package than it claimed; it is believed no more until the next start.
    #[must_use]
    pub fn is_caught(&self, peer: &PeerId) -> bool {
        self.caught.has(peer)
    }

    /// Stops these jobs, or all that go on; answers those of them that had not ended. Blocking.
    #[must_use]
    pub fn cancel(&self, ids: Option<&[u64]>) -> Vec<Arc<Entry>> {
        let mut open = self.jobs.open_ones();
        open.retain(|entry| ids.is_none_or(|ids| ids.contains(&entry.id())));
        // The oldest first: what waits for another job, which was begun for it, hears of its own cancel before of that one's end.
        open.iter().for_each(|entry| entry.cancel());
        open
    }

    /// Hears other machines that give builds, from now on.
    pub fn hear(domain: &Arc<Domain>) {
        let weak = Arc::downgrade(domain);
        domain.announcer.shared().hear_dialogues(Box::new(move |peer, dialogue| match weak.upgrade() {
            Some(domain) => Box::pin(offload::builder::serve(domain, peer, dialogue)),
            None => Box::pin(std::future::ready(())),
        }));
    }

    /// Begins again what was not ended when the daemon stopped, and lets go of what it left lying.
    pub async fn resume(domain: Arc<Domain>) {
        resume::resume(&domain).await;
    }
}

/// The packages of a recipe that are this machine's own. One that was made for another machine never becomes this one's: its
/// recipe is the same, and yet it came of that machine's configuration.
pub(crate) async fn own(domain: &Arc<Domain>, fingerprint: &Digest) -> Vec<BinpkgRow> {
    let (looking, fingerprint) = (Arc::clone(domain), *fingerprint);
    let rows = blocking::run(move || looking.binhost.of_recipe(&fingerprint)).await;
    rows.into_iter().filter(|row| !row.is_guest()).collect()
}

fn sources_size(package: &Planned) -> u64 {
    total(package.distfiles.iter().map(|file| file.size))
}

fn planned_package(plan: &Plan, decision: &Decision, job: Option<u64>) -> Option<PlannedPackage> {
    let package = plan.packages.get(decision.index)?;
    Some(PlannedPackage {
        cpv: package.cpv.to_string(),
        repo: package.repo.clone(),
        fate: decision.fate,
        size: decision.size,
        reason: decision.reason.clone(),
        use_flags: package.use_flags.clone(),
        fingerprint: package.recipe.fingerprint().to_string(),
        job,
    })
}
