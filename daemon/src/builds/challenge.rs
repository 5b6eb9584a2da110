//! `peer challenge`: the same recipe built once more, and what it installs compared with what is held and with what
//! other builders claim. Nothing is published by it.

use super::jobs::{Entry, WantedJob};
use super::plan::{Plan, Planned};
use super::publish::seekable;
use super::substitute;
use super::{with_causes, work};
use crate::api_builds::{ChallengeLine, ClaimView, FileDifference, JobState, Verdict};
use crate::blocking;
use crate::domain::{Domain, held};
use crate::panics;
use crate::stats::now_s;
use std::sync::Arc;
use tokio::sync::mpsc;
use tree::digest::Digest;
use tree::gpkg::Gpkg;
use tree::image::Image;

/// Differences that are told of.
const DIFFERENCES_MAX: usize = 1000;

/// Rebuilds what `atom` names and says how it compares; the last line is the verdict, or why there is none.
///
/// Cancel safe: yes.
pub async fn challenge(domain: &Arc<Domain>, atom: &str, tell: &mpsc::Sender<ChallengeLine>) {
    let last = match run(domain, atom, tell).await {
        Ok(verdict) => ChallengeLine::Verdict(verdict),
        Err((error, hint)) => ChallengeLine::Refused { error, hint },
    };
    // A client that left does not want it.
    let _gone = tell.send(last).await;
}

type Refusal = (String, Option<String>);

async fn run(domain: &Arc<Domain>, atom: &str, tell: &mpsc::Sender<ChallengeLine>) -> Result<Verdict, Refusal> {
    let builds = &domain.builds;
    let plan = builds.plan(domain, &[atom.to_owned()], &[]).await.map_err(|error| (with_causes(&error), None))?;
    let plan = Arc::new(plan);
    let planned = plan.packages.iter().find(|package| package.asked).ok_or_else(|| {
        (format!("{atom} names no package that can be built"), Some("`peer show ATOM` says what is held".to_owned()))
    })?;
    let fingerprint = planned.recipe.fingerprint();
    let reading = Arc::clone(domain);
    let held = blocking::run(move || held_image(&reading, &fingerprint)).await.map_err(|error| (error, None))?;
    let trusted = builds.trust.builders(&planned.cpv, &planned.slot);
    let claims = substitute::claims(domain, &trusted, &fingerprint).await;
    if held.is_none() && claims.is_empty() {
        let hint = format!("build it first: peer build ={}", planned.cpv);
        return Err((format!("there is no package of the recipe of {} to compare with", planned.cpv), Some(hint)));
    }
    let rebuilt = rebuild(domain, &plan, planned, tell).await?;
    Ok(verdict(domain, planned, held.as_ref(), &rebuilt, &claims))
}

/// What the held package of a recipe installs.
fn held_image(domain: &Domain, fingerprint: &Digest) -> Result<Option<Image>, String> {
    for row in domain.binhost.of_recipe(fingerprint).into_iter().filter(|row| !row.is_guest()) {
        if let Some(blob) = held(&domain.store, &row.digest) {
            let gpkg = Gpkg::read(seekable(&blob)).map_err(|error| error.to_string())?;
            return Image::read(seekable(&blob), &gpkg).map(Some).map_err(|error| error.to_string());
        }
    }
    Ok(None)
}

/// As a job of its own, so that it is seen, logged and can be cancelled like any other.
async fn rebuild(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    planned: &Planned,
    tell: &mpsc::Sender<ChallengeLine>,
) -> Result<Image, Refusal> {
    let name = format!("challenge {} {}", planned.recipe.fingerprint(), now_s());
    let (joining, cpv, repo) = (Arc::clone(domain), planned.cpv.to_string(), planned.repo.clone());
    let joined = blocking::run(move || {
        let fingerprint = Digest::of(name.as_bytes());
        let (cpv, repo) = (cpv.as_str(), repo.as_str());
        let wanted = WantedJob {
            fingerprint: &fingerprint,
            cpv,
            repo,
            rebuild: true,
            on: None,
            client: None,
            client_name: None,
        };
        joining.builds.jobs.join(&wanted)
    });
    let joined = joined.await;
    let (entry, new) = joined.map_err(|error| (with_causes(&error), None))?;
    if !new || !entry.carry() {
        return Err(("it is being challenged already".to_owned(), Some(format!("peer logs -f {}", entry.id()))));
    }
    let mut watched = entry.watch();
    let telling = async {
        while watched.changed().await.is_ok() {
            let job = watched.borrow_and_update().clone();
            if tell.send(ChallengeLine::Job(Box::new(job))).await.is_err() {
                entry.cancel();
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let image = tokio::select! {
        biased;
        image = panics::caught(work::rebuild_image(domain, plan, planned, &entry)) => {
            image.unwrap_or_else(|panicked| Err(panicked.into()))
        }
        () = telling => return Err(("the client left".to_owned(), None)),
    };
    let job = entry.id();
    finish(domain, &entry, image.as_ref().err().map(|error| with_causes(error))).await;
    image.map_err(|error| (with_causes(&error), Some(format!("peer logs {job}"))))
}

async fn finish(domain: &Arc<Domain>, entry: &Arc<Entry>, failed: Option<String>) {
    let (domain, entry) = (Arc::clone(domain), Arc::clone(entry));
    blocking::run(move || {
        super::left_over::put_away(&domain.builds.jobs.dir_of(entry.id()));
        entry.keep(|job| {
            job.state = if failed.is_none() { JobState::Done } else { JobState::Failed };
            job.reason = failed.or_else(|| Some("built to be compared; not published".to_owned()));
            job.ended_at = Some(now_s());
        });
    })
    .await;
}

fn verdict(
    domain: &Domain,
    planned: &Planned,
    held: Option<&Image>,
    rebuilt: &Image,
    claims: &[super::claim::SignedClaim],
) -> Verdict {
    let (mine, own) = (rebuilt.digest(), domain.swarm.peer_id());
    let differences = held.map(|held| held.differences(rebuilt, DIFFERENCES_MAX)).unwrap_or_default();
    let claims: Vec<ClaimView> = claims
        .iter()
        .map(|signed| ClaimView {
            builder: signed.builder.to_string(),
            trusted: signed.builder == own || domain.builds.trust.counts(&signed.builder, &planned.cpv, &planned.slot),
            digest: signed.claim.digest.to_string(),
            image: signed.claim.image.to_string(),
            made_at: signed.claim.made_at,
        })
        .collect();
    let held_digest =
        held.map_or_else(|| claims.first().map(|claim| claim.image.clone()), |held| Some(held.digest().to_string()));
    let agree = claims.iter().all(|claim| claim.image == mine.to_string());
    Verdict {
        cpv: planned.cpv.to_string(),
        fingerprint: planned.recipe.fingerprint().to_string(),
        same: held.map_or(agree, |held| held.digest() == mine),
        held: held_digest.unwrap_or_default(),
        rebuilt: mine.to_string(),
        differences: differences
            .into_iter()
            .map(|difference| FileDifference {
                path: String::from_utf8_lossy(&difference.path).into_owned(),
                what: difference.kind.to_string(),
            })
            .collect(),
        claims,
    }
}
