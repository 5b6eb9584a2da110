//! One job from its beginning to its end: substitute, else dependencies, turn, build; then what it left is put away.

use super::jobs::{Entry, JobError, WantedJob};
use super::local::{BuildError, DEPENDENCIES_LOG, LOG, LocalBuild, RECIPE};
use super::offload::client::OffloadError;
use super::offload::{self, On};
use super::plan::{Plan, Planned};
use super::publish::{self, PublishError};
use super::reach::ReachError;
use super::substitute;
use crate::api_builds::{Job, JobState};
use crate::binhost::{BinpkgRow, Origin};
use crate::blocking;
use crate::domain::{Domain, held};
use crate::stats::now_s;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use store::Blob;
use tokio::sync::SemaphorePermit;
use tree::digest::Digest;
use tree::image::Image;
use tree::packages::PackageEntry;

/// Lines of a failed job's log that are shown with it, and bytes they may have.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 32 * 1024;
/// Lines of Portage's own report among them: what failed, and the words of `die`.
const REPORT_LINES: usize = 3;
/// What of a job's directory stays when it ended.
const KEPT: [&str; 3] = [LOG, RECIPE, DEPENDENCIES_LOG];

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
    #[error("the index of binary packages cannot list {cpv}: {why}")]
    Listed { cpv: String, why: String },
}

/// What a job came to.
enum Made {
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
    let joined = blocking::run(move || {
        let (fingerprint, on) = (&fingerprint, on.as_deref());
        let wanted = WantedJob { fingerprint, cpv: &cpv, repo: &repo, rebuild, on, client };
        joining.builds.jobs.join(&wanted)
    });
    let (entry, new) = joined.await?;
    if !new && client.is_none() && entry.now().client.is_some() {
        // It is this machine's own from now on, and listed here.
        entry.show(|job| job.client = None);
    }
    if new {
        spawn(domain, plan, index, Arc::clone(&entry));
    }
    Ok(Some(entry))
}

/// Carries a job through in the background. When the daemon stops, its row says so and the next start begins it again.
pub(super) fn spawn(domain: &Arc<Domain>, plan: &Arc<Plan>, index: usize, entry: Arc<Entry>) {
    let (domain, plan) = (Arc::clone(domain), Arc::clone(plan));
    let tasks = domain.tasks.clone();
    tasks.spawn("build", async move {
        let Some(planned) = plan.packages.get(index) else { return };
        let made = make(&domain, &plan, planned, &entry).await;
        end(&domain, &entry, made).await;
    });
}

/// Boxed by its caller's recursion: a dependency is begun the same way.
async fn make(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    entry: &Arc<Entry>,
) -> Result<Made, WorkError> {
    let (fingerprint, guest) = (planned.recipe.fingerprint(), plan.foreign.is_some());
    let foreign = guest;
    // Who asks this machine to build wants its own word, and no other builder's.
    let own_word = guest && planned.asked;
    if !entry.rebuild() {
        let looking = Arc::clone(domain);
        let rows = blocking::run(move || {
            if !guest {
                publish::adopt(&looking, &fingerprint);
            }
            looking.binhost.of_recipe(&fingerprint)
        });
        let rows = rows.await.into_iter();
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
    let (publishing, planned, header) = (Arc::clone(domain), planned.clone(), plan.header.clone());
    let guest = guest && entry.now().client.is_some();
    let row = blocking::run(move || {
        if !foreign && let Err(error) = publishing.binhost.set_header(header) {
            tracing::warn!(%error, "the binhost's index keeps its old header");
        }
        publish::built(&publishing, &publishing.builds.identity, &planned, &path, guest)
    });
    Ok(Made::Built(Box::new(row.await?)))
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
    Ok(blocking::run(move || publish::image_of(&path, &planned)).await?)
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
    started(entry, "build").await;
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
    let inside = domain.builds.inside_of(domain, plan).await?;
    let dir = domain.builds.jobs.dir_of(entry.id());
    let local =
        LocalBuild { domain, sandbox: &sandbox, inside: &inside, plan, planned, entry, dir: &dir, dependencies };
    Ok(local.run().await?)
}

async fn started(entry: &Arc<Entry>, source: &'static str) {
    let entry = Arc::clone(entry);
    blocking::run(move || {
        entry.keep(|job| {
            job.state = JobState::Running;
            job.source = Some(source.to_owned());
            job.reason = None;
            job.attempt += 1;
            job.started_at = Some(now_s());
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
    entry.show(|job| "substitute".clone_into(&mut job.phase));
    let Some(found) = substitute::obtain(domain, planned, claims, &builds.caught).await else { return Ok(None) };
    entry.show(|job| {
        job.builder = Some(found.claim.builder.to_string());
        "sign".clone_into(&mut job.phase);
    });
    let (publishing, planned, guest) = (Arc::clone(domain), planned.clone(), plan.foreign.is_some());
    Ok(Some(blocking::run(move || publish::substituted(&publishing, &planned, &found, guest)).await?))
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
        return Ok(None);
    }
    unless_cancelled(entry, made_first(domain, plan, planned, entry, on)).await?;
    started(entry, "offload").await;
    let Some(found) = offload::client::offload(domain, plan, planned, entry, on).await? else {
        // To be built here is the same attempt.
        entry.show(|job| (job.source, job.attempt) = (None, job.attempt.saturating_sub(1)));
        return Ok(None);
    };
    entry.show(|job| "sign".clone_into(&mut job.phase));
    let (publishing, planned) = (Arc::clone(domain), planned.clone());
    Ok(Some(blocking::run(move || publish::substituted(&publishing, &planned, &found, false)).await?))
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
        let found = listed(domain, *fingerprint).await?;
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
        if listed(domain, *fingerprint).await?.is_none() {
            // All are begun before one is waited for.
            let begun: futures::future::BoxFuture<'_, _> = Box::pin(begin(domain, plan, index, false, on));
            waiting.extend(begun.await?);
        }
    }
    for other in waiting {
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

async fn listed(domain: &Arc<Domain>, fingerprint: Digest) -> Result<Option<(PackageEntry, Blob)>, WorkError> {
    let looking = Arc::clone(domain);
    blocking::run(move || {
        for row in looking.binhost.of_recipe(&fingerprint) {
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
        entry.keep(|job| settle(job, made, tail));
        for old in jobs.forget_old() {
            remove(&jobs.dir_of(old));
        }
    })
    .await;
}

fn settle(job: &mut Job, made: Result<Made, WorkError>, tail: Vec<String>) {
    job.ended_at = Some(now_s());
    let (row, source) = match made {
        Ok(Made::Here(row)) => (row, None),
        Ok(Made::Substituted(row)) => (row, Some("substitute")),
        Ok(Made::Offloaded(row)) => (row, Some("offload")),
        Ok(Made::Built(row)) => (row, Some("build")),
        Err(WorkError::Build(BuildError::Cancelled) | WorkError::Offload(OffloadError::Cancelled)) => {
            job.state = JobState::Cancelled;
            job.reason = None;
            return;
        }
        Err(error) => {
            if let WorkError::Build(BuildError::Failed { phase, log, .. }) = &error {
                job.phase.clone_from(phase);
                job.log_path = Path::new(&job.log_path).with_file_name(log).display().to_string();
            }
            if let WorkError::Offload(OffloadError::Ebuild { phase, .. }) = &error {
                job.phase.clone_from(phase);
            }
            tracing::info!(job = job.id, cpv = job.cpv, phase = job.phase, %error, "a build failed");
            job.state = JobState::Failed;
            job.reason = Some(with_causes(&error));
            job.log_tail = tail;
            return;
        }
    };
    job.state = JobState::Done;
    "publish".clone_into(&mut job.phase);
    job.reason = None;
    job.source = source.map(str::to_owned).or(job.source.take());
    job.builder = row.builder().map(|peer| peer.to_string());
    job.digest = Some(row.digest.to_string());
    job.image = Some(row.image.to_string());
    job.size = Some(row.size);
}

/// An error with what is behind it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What of a log tells why it failed, for who asked: the lines before Portage's report, where the compiler's own words are,
/// and the beginning of that; without a report the last lines. Blocking.
fn tail(path: &Path) -> Vec<String> {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let report = lines.iter().position(|line| line.trim_start().starts_with("* ERROR:"));
    let end = report.map_or(lines.len(), |at| lines.len().min(at + REPORT_LINES));
    lines.iter().take(end).skip(end.saturating_sub(TAIL_LINES)).map(|line| (*line).to_owned()).collect()
}

/// What a job worked with goes; its logs stay. Blocking.
pub(super) fn put_away(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = sandbox::remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "what a job left cannot be removed");
    }
}

/// At the start: what jobs of an earlier run worked with goes, and the logs of jobs that are forgotten. Blocking.
pub(super) fn clean_all(domain: &Domain) {
    let jobs = &domain.builds.jobs;
    let Ok(entries) = std::fs::read_dir(jobs.dir()) else { return };
    for entry in entries.flatten() {
        let known = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(|id| jobs.get(id));
        match known {
            Some(_job) => put_away(&entry.path()),
            None => remove(&entry.path()),
        }
    }
}
