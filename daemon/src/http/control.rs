//! The verbs, on the unix socket: who may open the socket may use them.
//!
//! Long work answers with newline-delimited JSON and goes on when the client leaves: a transfer is kept, an import ends
//! after the file it is at.

use super::distfiles::plain;
use crate::api::{
    DialRequest, FetchLine, FetchRequest, GcAnswer, GcItem, GcRequest, ImportRequest, LookLine, PinRequest, Refusal,
    VerifyLine,
};
use crate::domain::{Domain, Target};
use crate::stats::Source;
use crate::{blocking, import, pins, snapshot, targets};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use store::GcTarget;
use tokio::sync::mpsc;

/// Lines waiting for a client that reads slowly.
const LINES_MAX: usize = 64;
/// Targets or paths of one request.
pub(super) const TARGETS_MAX: usize = 100_000;
/// Bytes of one request.
const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Time between two progress lines.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// Time between two lines about a look.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Silence after which a client is told that there is still something to wait for; it leaves after 60 s.
const STILL_AT_IT: Duration = Duration::from_secs(15);
/// Files of one fetch that are obtained side by side.
const FETCH_WIDTH: usize = 4;

/// The routes of the control socket.
pub fn router(domain: Arc<Domain>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/fetch", post(fetch))
        .route("/v1/blob/{digest}", get(blob))
        .route("/v1/import", post(take_in))
        .route("/v1/pins", get(list_pins).post(change_pins))
        .route("/v1/gc", post(gc))
        .route("/v1/verify", post(verify))
        .route("/v1/peers", get(peers))
        .route("/v1/peers/dial", post(dial))
        .route("/v1/refresh", post(refresh))
        .route("/v1/look", post(look))
        .merge(super::control_key::routes())
        .merge(super::control_doctor::routes())
        .merge(super::control_builds::router())
        .merge(super::control_questions::router())
        .merge(super::control_group::routes())
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "the daemon knows no such verb", None) })
        .layer(DefaultBodyLimit::max(REQUEST_MAX_BYTES))
        .with_state(domain)
}

pub(super) fn refusal(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Response {
    (status, Json(Refusal { error: error.into(), hint: hint.map(str::to_owned) })).into_response()
}

async fn status(State(domain): State<Arc<Domain>>) -> Response {
    Json(snapshot::status(&domain).await).into_response()
}

/// A stream of lines; the receiver's end is the body.
pub(super) fn lines<T: Serialize + Send + 'static>(receiver: mpsc::Receiver<T>) -> Response {
    let body = futures::stream::unfold(receiver, |mut receiver| async move {
        // An empty line now and then says that the work goes on: a large file may take a while.
        let Ok(line) = tokio::time::timeout(STILL_AT_IT, receiver.recv()).await else {
            return Some((Ok(Bytes::from_static(b"\n")), receiver));
        };
        let mut json = serde_json::to_vec(&line?).unwrap_or_default();
        json.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(json)), receiver))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

async fn fetch(State(domain): State<Arc<Domain>>, Json(request): Json<FetchRequest>) -> Response {
    if request.targets.is_empty() || request.targets.len() > TARGETS_MAX {
        return refusal(StatusCode::BAD_REQUEST, format!("a fetch names 1 to {TARGETS_MAX} targets"), None);
    }
    let (tell, receiver) = mpsc::channel(LINES_MAX);
    let tasks = domain.tasks.clone();
    tasks.spawn("fetch", async move {
        domain.repositories.first_look().await;
        let (mut wanted, mut missing) = (Vec::new(), 0);
        let Some(named) = unless_gone(&tell, targets::resolve(&domain, &request.targets)).await else { return };
        let notes = named.notes.into_iter().map(|text| FetchLine::Note { text });
        for line in notes.chain(named.left_out.into_iter().map(FetchLine::LeftOut)) {
            if tell.send(line).await.is_err() {
                return;
            }
        }
        for (name, found) in named.each {
            match found {
                Ok(found) => wanted.extend(found),
                Err(error) => {
                    missing += 1;
                    let hint = error.hint().map(str::to_owned);
                    if tell.send(FetchLine::Missing { name, error: error.to_string(), hint }).await.is_err() {
                        return;
                    }
                }
            }
        }
        wanted.sort_by_key(|target| target.wanted.digest);
        wanted.dedup_by_key(|target| target.wanted.digest);
        let total = wanted.len() as u64;
        // A client that left wants nothing more begun.
        let wanted = futures::stream::iter(wanted).take_while(|_| futures::future::ready(!tell.is_closed()));
        let results = wanted.map(|target| fetch_one(&domain, target, &tell));
        let have =
            results.buffer_unordered(FETCH_WIDTH).filter(|had| futures::future::ready(*had)).count().await as u64;
        // A client that left does not want the sum.
        let _gone = tell.send(FetchLine::Done { have, missing: missing + total - have }).await;
    });
    lines(receiver)
}

/// What came of some work, if anybody wants to know by then.
async fn unless_gone<T, L>(tell: &mpsc::Sender<L>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = tell.closed() => None,
        done = work => Some(done),
    }
}

/// Obtains one file and tells how it goes. True when it is here.
async fn fetch_one(domain: &Arc<Domain>, target: Target, tell: &mpsc::Sender<FetchLine>) -> bool {
    let obtaining = domain.obtain(&target);
    let name = target.name.clone();
    tokio::pin!(obtaining);
    let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut obtaining => break result,
            _tick = ticks.tick() => {
                let digest = target.wanted.digest;
                let Some(flight) = domain.flights.list().into_iter().find(|flight| flight.wanted.digest == digest) else { continue };
                let progress = flight.progress();
                let source = progress.source.map(|source| source.as_str().to_owned());
                let line = FetchLine::Progress { name: target.name.clone(), received: progress.received, size: progress.size, source };
                if tell.send(line).await.is_err() {
                    return false;
                }
            }
        }
    };
    let line = match &result {
        Ok((blob, source)) => FetchLine::Have {
            name,
            digest: blob.digest().to_string(),
            size: blob.size(),
            source: source.as_str().to_owned(),
        },
        Err(error) => FetchLine::Missing { name, error: error.to_string(), hint: None },
    };
    if let Ok((blob, source)) = &result {
        count(domain, *source, blob.size());
    }
    let told = tell.send(line).await.is_ok();
    told && result.is_ok()
}

fn count(domain: &Domain, source: Source, bytes: u64) {
    domain.stats.answered(source);
    domain.stats.sent(source, bytes);
}

async fn blob(State(domain): State<Arc<Domain>>, Path(digest): Path<String>) -> Response {
    let Ok(digest) = digest.parse() else { return plain(StatusCode::BAD_REQUEST, "that is no digest") };
    let Some(blob) = domain.get(digest).await else {
        return refusal(StatusCode::NOT_FOUND, "the store does not have it", Some("fetch it first"));
    };
    let size = blob.size();
    let body = match size.checked_sub(1) {
        None => Body::empty(),
        Some(last) => {
            let first = blob.clone();
            let Ok(step) = blocking::run(move || super::body::read_blob(&first, 0, size)).await else {
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read", Some("peer verify"));
            };
            super::body::of_blob(blob, step, 0, last, |_sent| {})
        }
    };
    ([(header::CONTENT_LENGTH, size)], body).into_response()
}

async fn take_in(State(domain): State<Arc<Domain>>, Json(request): Json<ImportRequest>) -> Response {
    if request.paths.is_empty() || request.paths.len() > TARGETS_MAX {
        return refusal(StatusCode::BAD_REQUEST, format!("an import names 1 to {TARGETS_MAX} paths"), None);
    }
    if let Some(path) = request.paths.iter().find(|path| !path.starts_with('/')) {
        return refusal(StatusCode::BAD_REQUEST, format!("{path:?} is not an absolute path"), None);
    }
    domain.repositories.first_look().await;
    let (tell, receiver) = mpsc::channel(LINES_MAX);
    let stopping = domain.tasks.stopping().clone();
    blocking::start(move || {
        import::run(&domain, &request, &stopping, &mut |line| tell.blocking_send(line).is_ok());
    });
    lines(receiver)
}

async fn list_pins(State(domain): State<Arc<Domain>>) -> Response {
    Json(blocking::run(move || pins::list(&domain)).await).into_response()
}

async fn change_pins(State(domain): State<Arc<Domain>>, Json(request): Json<PinRequest>) -> Response {
    if request.targets.is_empty() || request.targets.len() > TARGETS_MAX {
        return refusal(StatusCode::BAD_REQUEST, format!("a change of pins names 1 to {TARGETS_MAX} targets"), None);
    }
    domain.repositories.first_look().await;
    match pins::change(&domain, &request).await {
        Ok(answer) => {
            domain.pins_changed.notify_one();
            Json(answer).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot keep the pins: {error}"), None),
    }
}

async fn gc(State(domain): State<Arc<Domain>>, Json(request): Json<GcRequest>) -> Response {
    let target = request.size_max_bytes.map_or(GcTarget::Budget, GcTarget::Bytes);
    let pretend = request.pretend;
    let answer = blocking::run(move || {
        let report = domain.store.gc(target, pretend)?;
        let row = |item: store::GcItem| GcItem {
            digest: item.digest.to_string(),
            names: domain.names(&item.digest),
            size: item.size,
            last_used: item.last_used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            reason: gc_reason(item.reason).to_owned(),
        };
        Ok::<_, store::GcError>(GcAnswer {
            freed_bytes: report.freed_bytes,
            pinned_bytes: report.kept_pinned_bytes,
            removed: report.removed.into_iter().map(row).collect(),
            pretended: pretend,
        })
    });
    match answer.await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("gc failed: {error}"), None),
    }
}

async fn verify(State(domain): State<Arc<Domain>>) -> Response {
    let (tell, receiver) = mpsc::channel(LINES_MAX);
    blocking::start(move || {
        let last = verify_store(&domain, &tell);
        // A client that left does not want the sum.
        let _gone = tell.blocking_send(last);
    });
    lines(receiver)
}

fn gc_reason(reason: store::GcReason) -> &'static str {
    match reason {
        store::GcReason::OverBudget => "the store is over its budget",
        store::GcReason::LowDisk => "the disk is low",
        store::GcReason::Asked => "asked for",
        store::GcReason::StalePartial => "a download nobody resumed",
    }
}

/// Ends early when the daemon stops or the client leaves.
fn verify_store(domain: &Domain, tell: &mpsc::Sender<VerifyLine>) -> VerifyLine {
    let stop = AtomicBool::new(false);
    let mut progress = |now: store::VerifyProgress| {
        // Progress may be lost to a slow client; the last line may not.
        let _full = tell.try_send(VerifyLine::Progress { bytes: now.bytes, total: now.bytes_total });
        if tell.is_closed() || domain.tasks.stopping().is_cancelled() {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let report = domain.store.verify(None, &mut progress, &stop);
    for digest in &report.rotten {
        let line = VerifyLine::Rotten { digest: digest.to_string(), names: domain.names(digest) };
        let _gone = tell.blocking_send(line);
    }
    VerifyLine::Done {
        good: report.checked,
        rotten: report.rotten.len() as u64,
        lost: report.missing.len() as u64,
        found: report.adopted.len() as u64,
        strays: report.strays.len() as u64,
        unreadable: report.unreadable.len() as u64,
        whole: report.failed.is_none() && !report.stopped,
        bytes: report.checked_bytes,
    }
}

async fn peers(State(domain): State<Arc<Domain>>) -> Response {
    Json(snapshot::named_peers(&domain)).into_response()
}

async fn dial(State(domain): State<Arc<Domain>>, Json(request): Json<DialRequest>) -> Response {
    match request.address.parse() {
        Ok(address) => {
            domain.swarm.dial(address);
            Json(snapshot::named_peers(&domain)).into_response()
        }
        Err(error) => refusal(
            StatusCode::BAD_REQUEST,
            format!("{:?} is no multiaddr: {error}", request.address),
            Some("it looks like /ip4/192.0.2.1/tcp/8421"),
        ),
    }
}

/// How far the first look at the repositories is, until it is done: verbs that need all that they say wait for it.
async fn look(State(domain): State<Arc<Domain>>) -> Response {
    let (tell, receiver) = mpsc::channel(1);
    let tasks = domain.tasks.clone();
    tasks.spawn("look", async move {
        let telling = async {
            let mut looking = domain.repositories.looking();
            loop {
                let look = looking.borrow_and_update().clone();
                if let Some(look) = look
                    && tell.send(LookLine::Looking(look)).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(LOOK_PERIOD).await;
                // The sender lives as long as the domain.
                if looking.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = domain.repositories.first_look() => {}
            () = telling => {}
        }
        // Who left does not wait any more.
        let _gone = tell.send(LookLine::Done).await;
    });
    lines(receiver)
}

async fn refresh(State(domain): State<Arc<Domain>>) -> Response {
    domain.refresh().await;
    Json(snapshot::status(&domain).await).into_response()
}
