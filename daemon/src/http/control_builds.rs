//! The verbs of builds on the control socket: build, jobs, cancel, challenge, show.

use super::control::{TARGETS_MAX, lines, refusal};
use super::jobs;
use crate::api_builds::{BuildLine, BuildRequest, ChallengeRequest, Fate, Job, JobState, JobsAnswer};
use crate::blocking;
use crate::builds::jobs::Entry;
use crate::builds::offload::On;
use crate::builds::plan::{PlanError, is_word};
use crate::builds::{RequestError, challenge};
use crate::domain::Domain;
use crate::questions::{members, show as showing};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt as _;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What is said of a word that names no machine.
pub(super) const ON_HINT: &str = "`--on` takes `local`, `any`, or a member's name or peer id";
/// Lines waiting for a client that reads slowly.
const LINES_MAX: usize = 64;
/// A build that runs ends within a moment of its cancel.
const CANCEL_WAIT: Duration = Duration::from_secs(3);

/// The routes.
pub(super) fn router() -> Router<Arc<Domain>> {
    Router::new()
        .route("/v1/build", post(build))
        .route("/v1/jobs", get(jobs::all))
        .route("/v1/jobs/{id}", get(jobs::one))
        .route("/v1/jobs/{id}/log", get(jobs::log))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/cancel", post(cancel_all))
        .route("/v1/challenge", post(challenge_one))
        .route("/v1/show", get(show))
}

async fn build(State(domain): State<Arc<Domain>>, Json(request): Json<BuildRequest>) -> Response {
    if request.atoms.is_empty() || request.atoms.len() > TARGETS_MAX {
        return refusal(StatusCode::BAD_REQUEST, format!("a build names 1 to {TARGETS_MAX} atoms"), None);
    }
    if let Some(wrong) = request.atoms.iter().find(|atom| !is_word(atom)) {
        return refusal(StatusCode::BAD_REQUEST, format!("{wrong:?} is no atom"), None);
    }
    let (tell, receiver) = mpsc::channel(LINES_MAX);
    let tasks = domain.tasks.clone();
    tasks.spawn("build request", async move {
        domain.repositories.first_look().await;
        // The client's end ends this; the jobs go on.
        let _gone = request_build(&domain, request, &tell).await;
    });
    lines(receiver)
}

async fn request_build(
    domain: &Arc<Domain>,
    request: BuildRequest,
    tell: &mpsc::Sender<BuildLine>,
) -> Result<(), mpsc::error::SendError<BuildLine>> {
    let on = match On::find(domain, request.on.as_deref()) {
        Ok(on) => on,
        Err(error) => {
            let hint = Some(ON_HINT.to_owned());
            return tell
                .send(BuildLine::Refused { error: error.to_string(), hint, said: String::new(), no: false })
                .await;
        }
    };
    if request.pretend {
        return match domain.builds.pretend(domain, &request, on).await {
            Ok(packages) => tell.send(BuildLine::Planned { packages }).await,
            Err(error) => tell.send(refused(&error)).await,
        };
    }
    let taken = match domain.builds.request(domain, &request, on).await {
        Ok(taken) => taken,
        Err(error) => return tell.send(refused(&error)).await,
    };
    let have = taken.planned.iter().filter(|package| package.fate == Fate::Have).count() as u64;
    tell.send(BuildLine::Planned { packages: taken.planned }).await?;
    let follow = taken.jobs.iter().map(|entry| follow(entry, tell)).collect::<futures::stream::FuturesUnordered<_>>();
    let ends: Vec<Result<Job, _>> = follow.collect().await;
    let (mut substituted, mut offloaded, mut built, mut failed, mut had) = (0, 0, 0, 0, have);
    for end in ends {
        let job = end?;
        match (job.state, job.source.as_deref()) {
            (JobState::Done, Some("substitute")) => substituted += 1,
            (JobState::Done, Some("offload")) => offloaded += 1,
            (JobState::Done, Some(_)) => built += 1,
            (JobState::Done, None) => had += 1,
            _ => failed += 1,
        }
    }
    tell.send(BuildLine::Done { have: had, substituted, offloaded, built, failed }).await
}

/// Tells every change of one job until it ends.
async fn follow(entry: &Arc<Entry>, tell: &mpsc::Sender<BuildLine>) -> Result<Job, mpsc::error::SendError<BuildLine>> {
    let mut watched = entry.watch();
    loop {
        let job = watched.borrow_and_update().clone();
        tell.send(BuildLine::Job(Box::new(job.clone()))).await?;
        // The sender lives as long as the entry.
        if job.state.is_final() || watched.changed().await.is_err() {
            return Ok(job);
        }
    }
}

fn refused(error: &RequestError) -> BuildLine {
    let WentWrong { error, hint, said, no } = what_went_wrong(error);
    BuildLine::Refused { error, hint, said, no }
}

/// A request that was refused, for the user.
pub(super) struct WentWrong {
    pub(super) error: String,
    pub(super) hint: Option<String>,
    pub(super) said: String,
    pub(super) no: bool,
}

pub(super) fn what_went_wrong(error: &RequestError) -> WentWrong {
    let text = crate::builds::with_causes(error);
    let (said, hint, no) = match error {
        RequestError::Plan(PlanError::Refused { said, .. }) => {
            (said.clone(), "`emerge --pretend` with the same words says more".to_owned(), true)
        }
        RequestError::Plan(PlanError::Broke { said }) => {
            (said.clone(), "`peer doctor` looks at what builds need".to_owned(), false)
        }
        RequestError::Reach(_) => (
            String::new(),
            "builds see what Portage reads here; OPERATING.md tells what they are not shown".to_owned(),
            false,
        ),
        RequestError::Plan(PlanError::Package { .. }) => (String::new(), "mend the Manifest".to_owned(), false),
        _ => (String::new(), "`peer doctor` looks at what builds need".to_owned(), false),
    };
    WentWrong { error: text, hint: Some(hint), said, no }
}

async fn cancel(State(domain): State<Arc<Domain>>, Path(id): Path<u64>) -> Response {
    if domain.builds.jobs.get(id).is_none() {
        return refusal(StatusCode::NOT_FOUND, format!("there is no job {id}"), Some("peer jobs lists them"));
    }
    match cancelled(&domain, Some(vec![id])).await.pop() {
        Some(job) => Json(job).into_response(),
        None => refusal(StatusCode::CONFLICT, format!("job {id} has ended already"), None),
    }
}

async fn cancel_all(State(domain): State<Arc<Domain>>) -> Response {
    Json(JobsAnswer { jobs: cancelled(&domain, None).await }).into_response()
}

/// Cancels, and gives what runs a moment to end; each job is answered as it is then.
async fn cancelled(domain: &Arc<Domain>, ids: Option<Vec<u64>>) -> Vec<Job> {
    let cancelling = Arc::clone(domain);
    let entries = blocking::run(move || cancelling.builds.cancel(ids.as_deref())).await;
    let ends = futures::future::join_all(entries.iter().map(|entry| entry.end()));
    // One that takes longer is answered as it is.
    let _ended = tokio::time::timeout(CANCEL_WAIT, ends).await;
    entries.iter().map(|entry| entry.now()).collect()
}

async fn challenge_one(State(domain): State<Arc<Domain>>, Json(request): Json<ChallengeRequest>) -> Response {
    if !is_word(&request.atom) {
        return refusal(StatusCode::BAD_REQUEST, format!("{:?} is no atom", request.atom), None);
    }
    let (tell, receiver) = mpsc::channel(LINES_MAX);
    let tasks = domain.tasks.clone();
    tasks.spawn("challenge", async move { challenge::challenge(&domain, &request.atom, &tell).await });
    lines(receiver)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    atom: String,
    /// Another member.
    domain: Option<String>,
}

async fn show(State(domain): State<Arc<Domain>>, Query(query): Query<ShowQuery>) -> Response {
    domain.repositories.first_look().await;
    let answer = match &query.domain {
        None => showing::local(&domain, &query.atom, None).await,
        Some(member) => match members::show_of(&domain, member, &query.atom).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let text = crate::builds::with_causes(&error);
                return refusal(StatusCode::NOT_FOUND, text, Some("`peer peers` shows who is connected"));
            }
        },
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("{:?} is no atom: {error}", query.atom), None),
    };
    if answer.binpkgs.is_empty() && answer.distfiles.is_empty() {
        return refusal(
            StatusCode::NOT_FOUND,
            "there is nothing that matches that atom",
            Some("peer build makes binary packages"),
        );
    }
    Json(answer).into_response()
}
