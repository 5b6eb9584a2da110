//! Reads about builds, the same on the control socket and on loopback: jobs, their logs, the binary packages.

use super::control::refusal;
use crate::api_builds::{Binpkg, BinpkgReject, JobsAnswer};
use crate::binhost::{Instance, Reject};
use crate::blocking;
use crate::builds::jobs::Entry;
use crate::domain::Domain;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Deserialize;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Jobs of one answer.
const JOBS_MAX: usize = 1000;
/// Jobs the live feed tells of.
pub(super) const NEWEST: usize = 50;
/// Bytes of a log that are read in one step.
const STEP_BYTES: u64 = 64 * 1024;
/// How long a follower waits for a change before it looks by itself.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn all(State(domain): State<Arc<Domain>>) -> Json<JobsAnswer> {
    Json(JobsAnswer { jobs: domain.builds.jobs.list(JOBS_MAX) })
}

pub(super) async fn one(State(domain): State<Arc<Domain>>, Path(id): Path<u64>) -> Response {
    match domain.builds.jobs.get(id) {
        Some(entry) => Json(entry.now()).into_response(),
        None => unknown(id),
    }
}

fn unknown(id: u64) -> Response {
    refusal(StatusCode::NOT_FOUND, format!("there is no job {id}"), Some("peer jobs lists them"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    #[serde(default)]
    from: u64,
    #[serde(default)]
    follow: bool,
}

/// The log as it is in its file, from a byte on; with `follow` as long as the job runs.
pub(super) async fn log(
    State(domain): State<Arc<Domain>>,
    Path(id): Path<u64>,
    Query(query): Query<LogQuery>,
) -> Response {
    let Some(entry) = domain.builds.jobs.get(id) else { return unknown(id) };
    let reading = Reading { at: query.from, follow: query.follow, entry };
    let stopping = domain.tasks.stopping().clone();
    let body = futures::stream::unfold(reading, move |reading| {
        let stopping = stopping.clone();
        async move { stopping.run_until_cancelled(reading.next()).await.flatten() }
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response()
}

struct Reading {
    at: u64,
    follow: bool,
    entry: Arc<Entry>,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        let mut watched = self.entry.watch();
        loop {
            // Whether it had ended is known before the read: what was written until then is read.
            let ended = !self.follow || watched.borrow_and_update().state.is_final();
            // Where it failed before the build began, that is another log.
            let (path, at) = (PathBuf::from(self.entry.now().log_path), self.at);
            match blocking::run(move || step(&path, at)).await {
                Ok(bytes) if !bytes.is_empty() => {
                    self.at += bytes.len() as u64;
                    return Some((Ok(Bytes::from(bytes)), self));
                }
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Some((Err(error), self)),
                Ok(_) | Err(_) if ended => return None,
                Ok(_) | Err(_) => {
                    // The file may also grow without a change that is told.
                    let _changed_or_not = tokio::time::timeout(LOOK_PERIOD, watched.changed()).await;
                }
            }
        }
    }
}

fn step(path: &std::path::Path, at: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(STEP_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) async fn binpkgs_list(State(domain): State<Arc<Domain>>) -> Json<Vec<Binpkg>> {
    Json(blocking::run(move || binpkgs(&domain)).await)
}

/// The binary packages of the binhost, newest first. Blocking.
pub(crate) fn binpkgs(domain: &Domain) -> Vec<Binpkg> {
    domain.binhost.all_instances().iter().map(shown).collect()
}

/// One of them.
pub(crate) fn shown(instance: &Instance) -> Binpkg {
    let row = &instance.row;
    let text = |key: &str| row.entry.get(key).unwrap_or_default().to_owned();
    Binpkg {
        cpv: row.entry.cpv().to_string(),
        repo: text("REPO"),
        slot: row.entry.get("SLOT").unwrap_or("0").to_owned(),
        build_id: row.entry.get("BUILD_ID").and_then(|id| id.parse().ok()),
        use_flags: on(&text("USE"), &text("IUSE")),
        size: row.size,
        digest: row.digest.to_string(),
        fingerprint: row.fingerprint.to_string(),
        image: row.image.to_string(),
        builder: row.builder().map(|peer| peer.to_string()),
        added_at: row.added_at,
        usable: instance.rejects.is_empty(),
        rejects: instance.rejects.iter().map(reject).collect(),
    }
}

fn reject(reject: &Reject) -> BinpkgReject {
    BinpkgReject { kind: reject.kind.word().to_owned(), text: reject.text.clone() }
}

/// The flags of IUSE that are on.
fn on(used: &str, iuse: &str) -> Vec<String> {
    let known = |flag: &&str| iuse.split_ascii_whitespace().any(|own| own.trim_start_matches(['+', '-']) == *flag);
    used.split_ascii_whitespace().filter(known).map(str::to_owned).collect()
}
