//! What was not ended when the daemon stopped begins again, with one run of the resolver for all of it.
//!
//! Where Portage finds no way for all together (an ebuild is gone, two versions are in each other's way), each half is
//! planned by itself, and so on: the others do not wait for the one that is in the way. Until its plan is there nobody
//! carries a job, so that its cancel ends it at once.

use super::jobs::Entry;
use super::plan::{Plan, Planned};
use super::{left_over, work};
use crate::api_builds::JobState;
use crate::blocking;
use crate::domain::Domain;
use crate::stats::now_s;
use std::collections::VecDeque;
use std::sync::Arc;

/// A job that was begun so often and never came to an end is given up: it may be what stops the daemon.
const ATTEMPTS_MAX: u32 = 3;

/// Begins again what was not ended when the daemon stopped, and lets go of what it left lying.
pub(super) async fn resume(domain: &Arc<Domain>) {
    let cleaning = Arc::clone(domain);
    blocking::run(move || left_over::clean_all(&cleaning)).await;
    let mut left = Vec::new();
    for entry in domain.builds.jobs.open_ones() {
        let job = entry.now();
        if job.client.is_some() {
            give_up(entry, "the daemon was stopped; whom it is for asks again".to_owned()).await;
        } else if job.attempt >= ATTEMPTS_MAX {
            give_up(entry, format!("the daemon stopped {} times while it was made", job.attempt)).await;
        } else {
            left.push(entry);
        }
    }
    let mut ahead = VecDeque::from([left]);
    while let Some(mut entries) = ahead.pop_front() {
        entries.retain(|entry| !entry.now().state.is_final());
        if !entries.is_empty() {
            ahead.extend(begin_again(domain, entries).await);
        }
    }
}

/// Begins those of the jobs that one plan makes; the others are answered, in parts that are planned by themselves.
async fn begin_again(domain: &Arc<Domain>, entries: Vec<Arc<Entry>>) -> Vec<Vec<Arc<Entry>>> {
    let atoms: Vec<String> =
        entries.iter().map(|entry| entry.now()).map(|job| format!("={}::{}", job.cpv, job.repo)).collect();
    let alone = entries.len() == 1;
    let plan = match domain.builds.plan(domain, &atoms, &[]).await {
        Ok(plan) => Arc::new(plan),
        Err(error) if alone => {
            for entry in entries {
                give_up(entry, format!("the daemon was stopped, and now: {error}")).await;
            }
            return Vec::new();
        }
        Err(error) => {
            tracing::info!(%error, jobs = entries.len(), "jobs of before the restart are planned in parts");
            let mut first = entries;
            let second = first.split_off(first.len() / 2);
            return vec![first, second];
        }
    };
    let mut apart = Vec::new();
    for entry in entries {
        match place_of(&plan, &entry) {
            Some(index) => work::spawn(domain, &plan, index, entry),
            None if alone => {
                let why = "the repository, configuration or compiler changed while the daemon was stopped: ask again";
                give_up(entry, why.to_owned()).await;
            }
            // What the others need may have changed what it is made from.
            None => apart.push(vec![entry]),
        }
    }
    apart
}

fn place_of(plan: &Plan, entry: &Entry) -> Option<usize> {
    let fingerprint = entry.now().fingerprint;
    let same = |package: &Planned| package.recipe.fingerprint().to_string() == fingerprint;
    plan.packages.iter().position(same)
}

async fn give_up(entry: Arc<Entry>, reason: String) {
    blocking::run(move || {
        if entry.carry() {
            entry.keep(|job| {
                job.state = JobState::Failed;
                job.reason = Some(reason);
                job.ended_at = Some(now_s());
            });
        }
    })
    .await;
}
