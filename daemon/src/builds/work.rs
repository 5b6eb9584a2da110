//! One job from its beginning to its end: substitute, else dependencies, turn, build; then what it left is put away.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::jobs::{Awaited, Entry, JobError, WantedJob};
use super::left_over::{put_away, remove, tail};
use super::local::{BuildError, LocalBuild};
use super::offload::client::OffloadError;
use super::offload::{self, On};
use super::plan::{Plan, Planned};
use super::publish::{self, PublishError};
use super::reach::ReachError;
use super::settle::settle;
use super::stop::Stop;
use super::substitute;
use crate::api_builds::{Job, JobState};
use crate::binhost::{BinpkgRow, Origin, Owner};
use crate::blocking;
use crate::domain::{Domain, held};
use crate::flight::ObtainError;
use crate::gives::What;
use crate::panics::{self, Panicked};
use crate::stats::now_s;
use crate::swarm::PeerId;
use std::sync::Arc;
use store::Blob;
use tokio::sync::SemaphorePermit;
use tree::digest::Digest;
use tree::image::Image;
use tree::packages::PackageEntry;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error("{0}")]
    Sandbox(#[from] sandbox::MissingProgram),
    #[error("{0}")]
    Reach(#[from] ReachError),
    #[error("{0}")]
    Build(#[from] BuildError),
    #[error("{0}")]
    Publish(#[from] PublishError),
    #[error("{0}")]
    Job(#[from] JobError),
    #[error("{cpv}, which it needs to be built, was not made (job {job}: {why})")]
    Dependency { cpv: String, job: u64, why: String },
    #[error("{0}")]
    Offload(#[from] OffloadError),
    #[error("its package is there and cannot be kept: {0}")]
    NoRoom(Arc<ObtainError>),
    #[error("the index of binary packages cannot list {cpv}: {why}")]
    Listed { cpv: String, why: String },
    #[error("{0}")]
    Fault(#[from] Panicked),
}

/// What a job came to.
pub(super) enum Made {
    Here(Box<BinpkgRow>),
    Substituted(Box<BinpkgRow>),
    Offloaded(Box<BinpkgRow>),
    Built(Box<BinpkgRow>),
}

/// Begins the job for one package of a plan, or joins the one that is under way. None when the plan has no such package.
pub(super) async fn begin(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    index: usize,
    rebuild: bool,
    on: On,
) -> Result<Option<Arc<Entry>>, JobError> {
    let Some(package) = plan.packages.get(index) else { return Ok(None) };
    let (joining, fingerprint) = (Arc::clone(domain), package.recipe.fingerprint());
    let (cpv, repo, on) = (package.cpv.to_string(), package.repo.clone(), on.word());
    let client = plan.foreign.as_ref().map(|foreign| foreign.client);
    let client_name = client.as_ref().map(|client| domain.groups.name(client));
    let plan = Arc::clone(plan);
    // In one step, which nobody drops in its middle: a job that is kept is carried.
    let begun = blocking::run(move || {
        let (fingerprint, on, client_name) = (&fingerprint, on.as_deref(), client_name.as_deref());
        let wanted = WantedJob { fingerprint, cpv: &cpv, repo: &repo, rebuild, on, client, client_name };
        let (entry, new) = joining.builds.jobs.join(&wanted)?;
        if new {
            spawn(&joining, &plan, index, Arc::clone(&entry));
        }
        Ok::<_, JobError>(entry)
    });
    Ok(Some(begun.await?))
}

/// Carries a job through in the background, unless it has ended by now. When the daemon stops, its row says so and the next
/// start begins it again.
pub(super) fn spawn(domain: &Arc<Domain>, plan: &Arc<Plan>, index: usize, entry: Arc<Entry>) {
    if !entry.carry() {
        return;
    }
    let (domain, plan) = (Arc::clone(domain), Arc::clone(plan));
    let tasks = domain.tasks.clone();
    tasks.spawn("build", async move {
        let Some(planned) = plan.packages.get(index) else { return };
        let made = panics::caught(make(&domain, &plan, planned, &entry)).await;
        let made = made.unwrap_or_else(|panicked| Err(panicked.into()));
        if let Err(panicked) = panics::caught(end(&domain, &entry, made)).await {
            // Its row goes on saying that it is not ended; the next start begins it again, and gives it up at the third.
            entry.show(|job| settle(job, Err(panicked.into()), Vec::new(), None));
        }
    });
}

/// Boxed by its caller's recursion: a dependency is begun the same way.
async fn make(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Made, WorkError> {
    let (fingerprint, owner) = (planned.recipe.fingerprint(), plan.owner());
    // Who asks this machine to build wants its own word, and no other builder's.
    let own_word = owner != Owner::This && planned.asked;
    if !entry.rebuild() {
        let rows = taken(domain, fingerprint, owner).await;
        if let Some(row) = rows.into_iter().find(|row| !own_word || row.origin == Origin::Built) {
            return Ok(Made::Here(Box::new(row)));
        }
        if !own_word && let Some(row) = unless_cancelled(entry, substituted(domain, plan, planned, entry)).await? {
            return Ok(Made::Substituted(Box::new(row)));
        }
    }
    if let Some(row) = offloaded(domain, plan, planned, entry).await? {
        return Ok(Made::Offloaded(Box::new(row)));
    }
    let (dependencies, _turn) = unless_cancelled(entry, turn(domain, plan, planned, entry)).await?;
    let path = build(domain, plan, planned, entry, dependencies).await?;
    entry.show(|job| "sign".clone_into(&mut job.phase));
    let (planned, header) = (planned.clone(), plan.header.clone());
    let row = published(domain, entry, move |publishing, stop| {
        if owner == Owner::This {
            publishing.binhost.set_header(header);
        }
        publish::built(publishing, &publishing.builds.identity, &planned, &path, owner, stop)
    });
    Ok(Made::Built(Box::new(row.await?)))
}

/// Reads, signs or lists a package on a thread of its own. It is told by itself when it is no longer wanted, so that nothing
/// is left half done.
async fn published<T: Send + 'static>(
    domain: &Arc<Domain>,
    entry: &Entry,
    work: impl FnOnce(&Domain, &Stop) -> Result<T, PublishError> + Send + 'static,
) -> Result<T, WorkError> {
    let (domain, stop) = (Arc::clone(domain), entry.stop(domain.tasks.stopping()));
    let asked = stop.clone();
    match blocking::run(move || work(&domain, &stop)).await {
        Err(_unwanted) if asked.is_set() => Err(BuildError::Cancelled.into()),
        made => Ok(made?),
    }
}

/// What is there of a recipe for a plan of this machine, which is its own; or for one of a client: what was made for that client,
/// and of this machine's own what its members are given.
async fn taken(domain: &Arc<Domain>, fingerprint: Digest, owner: Owner) -> Vec<BinpkgRow> {
    let client = match owner {
        Owner::This => return super::own(domain, &fingerprint).await,
        Owner::Client(client) => client,
        Owner::Forgotten => return Vec::new(),
    };
    let looking = Arc::clone(domain);
    blocking::run(move || {
        let gives = looking.announcer.shared().gives();
        let mut rows = looking.binhost.of_recipe(&fingerprint);
        rows.retain(|row| gives.may_give(What::Package(row), &client));
        rows
    })
    .await
}

/// A second build of what is held, for [`super::challenge`]: its image, nothing published.
pub(super) async fn rebuild_image(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Image, WorkError> {
    let (dependencies, _turn) = unless_cancelled(entry, turn(domain, plan, planned, entry)).await?;
    let path = build(domain, plan, planned, entry, dependencies).await?;
    let planned = planned.clone();
    published(domain, entry, move |_, stop| publish::image_of(&path, &planned, stop)).await
}

/// What does not run in the sandbox is dropped when the user no longer wants it; the sandbox is told by itself, and is
/// waited for.
async fn unless_cancelled<T>(entry: &Entry, work: impl Future<Output = Result<T, WorkError>>) -> Result<T, WorkError> {
    let mut cancelled = entry.cancelled();
    tokio::select! {
        biased;
        Ok(_true) = cancelled.wait_for(|cancelled| *cancelled) => Err(BuildError::Cancelled.into()),
        done = work => done,
    }
}

/// A place among the builds that run, and for another machine's build one among those too.
struct Turn<'a> {
    _turn: SemaphorePermit<'a>,
    _guest: Option<SemaphorePermit<'a>>,
}

/// Waits for dependencies, then for a place among the builds that run.
async fn turn<'a>(
    domain: &'a Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<(Vec<(PackageEntry, Blob)>, Turn<'a>), WorkError> {
    let dependencies = dependencies(domain, plan, planned, entry).await?;
    entry.show(|job| job.reason = Some("waits for its turn".to_owned()));
    let guest = match &plan.foreign {
        Some(_) => Some(domain.builds.offload.slots.acquire().await.map_err(|_closed| BuildError::Cancelled)?),
        None => None,
    };
    let turn = domain.builds.slots.acquire().await.map_err(|_closed| BuildError::Cancelled)?;
    started(entry, "build", "fetch").await;
    Ok((dependencies, Turn { _turn: turn, _guest: guest }))
}

async fn build(
    domain: &Arc<Domain>,
    plan: &Plan,
    planned: &Planned,
    entry: &Entry,
    dependencies: Vec<(PackageEntry, Blob)>,
) -> Result<std::path::PathBuf, WorkError> {
    let sandbox = domain.builds.sandbox()?;
    let inside = domain.builds.inside_of(domain, plan, planned).await?;
    let dir = domain.builds.jobs.dir_of(entry.id());
    let local =
        LocalBuild { domain, sandbox: &sandbox, inside: &inside, plan, planned, entry, dir: &dir, dependencies };
    Ok(local.run().await?)
}

async fn started(entry: &Arc<Entry>, source: &'static str, phase: &'static str) {
    let entry = Arc::clone(entry);
    blocking::run(move || {
        entry.keep(|job| {
            job.state = JobState::Running;
            job.source = Some(source.to_owned());
            phase.clone_into(&mut job.phase);
            job.reason = None;
            job.attempt = job.attempt.saturating_add(1);
            job.started_at = Some(now_s());
        });
    })
    .await;
}

/// To be made in another way is the same attempt, and until its turn comes it waits.
async fn waits_again(entry: &Arc<Entry>) {
    let entry = Arc::clone(entry);
    blocking::run(move || {
        entry.keep(|job| {
            (job.state, job.source, job.started_at) = (JobState::Queued, None, None);
            (job.builder, job.builder_name) = (None, None);
            "wait".clone_into(&mut job.phase);
            job.attempt = job.attempt.saturating_sub(1);
        });
    })
    .await;
}

/// Tries trusted peers. A package that does not come is built: that is no failure.
async fn substituted(
    domain: &Arc<Domain>,
    plan: &Plan,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Option<BinpkgRow>, WorkError> {
    let builds = &domain.builds;
    let claims = builds.counting_claims(domain, planned).await;
    if claims.is_empty() {
        return Ok(None);
    }
    started(entry, "substitute", "substitute").await;
    let found = substitute::obtain(domain, planned, claims, entry).await.map_err(WorkError::NoRoom)?;
    let Some(found) = found else {
        waits_again(entry).await;
        return Ok(None);
    };
    entry.show(|job| {
        job.builder = Some(found.claim.builder.to_string());
        "sign".clone_into(&mut job.phase);
    });
    let (planned, owner) = (planned.clone(), plan.owner());
    let row = published(domain, entry, move |publishing, stop| {
        publish::substituted(publishing, &planned, &found, owner, stop)
    });
    Ok(Some(row.await?))
}

/// Asks other machines to build it, where that is wanted; None when it is to be built here.
async fn offloaded(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Option<BinpkgRow>, WorkError> {
    let on = On::of_word(entry.now().on.as_deref());
    // What is built for others is not given on.
    if plan.foreign.is_some() || !on.asks_others(&domain.config) || (entry.rebuild() && on == On::Policy) {
        return Ok(None);
    }
    if matches!(on, On::Any | On::Policy) && offload::builders(domain, &planned.cpv, &planned.slot).is_empty() {
        entry.tell(format!("built here: {}", offload::why_nobody(domain, &planned.cpv, &planned.slot)));
        return Ok(None);
    }
    unless_cancelled(entry, made_first(domain, plan, planned, entry, on)).await?;
    started(entry, "offload", "offload").await;
    let Some(found) = offload::client::offload(domain, plan, planned, entry, on).await? else {
        waits_again(entry).await;
        return Ok(None);
    };
    entry.show(|job| "sign".clone_into(&mut job.phase));
    let planned = planned.clone();
    let row = published(domain, entry, move |publishing, stop| {
        publish::substituted(publishing, &planned, &found, Owner::This, stop)
    });
    Ok(Some(row.await?))
}

/// The packages of this plan that must be there, each made first if it is not.
async fn dependencies(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Vec<(PackageEntry, Blob)>, WorkError> {
    made_first(domain, plan, planned, entry, On::of_word(entry.now().on.as_deref())).await?;
    let mut there = Vec::new();
    for fingerprint in &planned.layer {
        let found = listed(domain, *fingerprint, plan.owner()).await?;
        there.push(found.ok_or_else(|| BuildError::Dependency { cpv: fingerprint.short() })?);
    }
    Ok(there)
}

/// Begins jobs for what it needs to be built and is not here, and waits for them.
async fn made_first(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
    on: On,
) -> Result<(), WorkError> {
    let mut waiting = Vec::new();
    for fingerprint in &planned.layer {
        let Some(index) = plan.packages.iter().position(|other| other.recipe.fingerprint() == *fingerprint) else {
            continue;
        };
        if listed(domain, *fingerprint, plan.owner()).await?.is_none() {
            // All are begun before one is waited for.
            let begun: futures::future::BoxFuture<'_, _> = Box::pin(begin(domain, plan, index, false, on));
            waiting.extend(begun.await?.map(|begun| Needed { domain, needed: begun.awaited() }));
        }
    }
    for other in &waiting {
        let other = other.needed.entry();
        let job = other.now();
        entry.show(|own| own.reason = Some(format!("waits for {} (job {})", job.cpv, job.id)));
        let Job { state, cpv, id, reason, .. } = other.end().await;
        if state != JobState::Done {
            let why = reason.unwrap_or_else(|| "cancelled".to_owned());
            return Err(WorkError::Dependency { cpv, job: id, why });
        }
    }
    Ok(())
}

/// What a job needs first. What was begun for another machine's job ends with that one, if nothing else needs it.
struct Needed<'a> {
    domain: &'a Domain,
    needed: Awaited,
}

impl Drop for Needed<'_> {
    fn drop(&mut self) {
        let job = self.needed.entry().now();
        let Some(client) = job.client.as_deref() else { return };
        let wanted: Option<(Digest, PeerId)> = job.fingerprint.parse().ok().zip(client.parse().ok());
        let asked_for =
            wanted.is_none_or(|(fingerprint, client)| self.domain.builds.offload.guests.has(&fingerprint, &client));
        if !job.state.is_final() && self.needed.is_last() && !asked_for {
            self.needed.entry().cancel_because("what it was needed for is not made any more".to_owned());
        }
    }
}

async fn listed(
    domain: &Arc<Domain>,
    fingerprint: Digest,
    owner: Owner,
) -> Result<Option<(PackageEntry, Blob)>, WorkError> {
    let (looking, rows) = (Arc::clone(domain), taken(domain, fingerprint, owner).await);
    blocking::run(move || {
        for row in rows {
            let entry = row
                .listed()
                .map_err(|error| WorkError::Listed { cpv: row.entry.cpv().to_string(), why: error.to_string() })?;
            if let Some(blob) = held(&looking.store, &row.digest) {
                return Ok(Some((entry, blob)));
            }
        }
        Ok(None)
    })
    .await
}

/// Writes how a job ended and puts away what it left. Its log stays.
async fn end(domain: &Arc<Domain>, entry: &Arc<Entry>, made: Result<Made, WorkError>) {
    let (cleaning, entry) = (Arc::clone(domain), Arc::clone(entry));
    blocking::run(move || {
        let jobs = &cleaning.builds.jobs;
        put_away(&jobs.dir_of(entry.id()));
        let tail = match &made {
            Ok(_) => Vec::new(),
            Err(WorkError::Offload(OffloadError::Ebuild { tail, .. })) => tail.clone(),
            Err(WorkError::Build(BuildError::Failed { log, .. })) => tail(&jobs.dir_of(entry.id()).join(log)),
            Err(_) => tail(&jobs.log_of(entry.id())),
        };
        let because = entry.cancelled_because();
        entry.keep(|job| settle(job, made, tail, because));
        for old in jobs.forget_old() {
            remove(&jobs.dir_of(old));
        }
    })
    .await;
}
