//! `/distfiles/`: the mirror that Portage asks (GLEP 75).
//!
//! Portage sends GET only. HEAD comes from people and their tools, which want to know whether a GET is worth while, so it
//! begins no transfer: what is held is answered from the store, what a Manifest names and somebody may be asked for with 200
//! and the Manifest's size, as a GET would be if all goes well, but without `X-Peer-Source`, as nobody was asked; 404 where
//! there is nobody to ask.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::range::{self, Span};
use super::{body, date};
use crate::api::Look;
use crate::blocking;
use crate::domain::{Domain, Target, held};
use crate::flight::{End, Follower, ObtainError, Progress};
use crate::stats::{Miss, Source, now_s};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use mirrors::layout::{Asked, LayoutConf, parse_request_path};
use std::sync::Arc;
use std::time::Duration;
use store::Blob;
use tree::moment::Moment;

/// The header that says where the bytes came from.
const SOURCE: &str = "x-peer-source";
/// Until then there is an answer, whatever it is: Portage's wget leaves a silent server after 60 s and asks it twice more.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// When to ask again while nothing is known of how long the look takes.
const RETRY_DEFAULT_S: u64 = 10;
/// No client is sent away for longer.
const RETRY_MAX_S: u64 = 300;

/// `layout.conf`: content-hash first, so that the URL is the store's key.
pub(super) async fn layout_conf() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], LayoutConf::ours().to_string()).into_response()
}

/// A distfile by content hash, by name hash, or flat.
pub(super) async fn distfile(
    State(domain): State<Arc<Domain>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // axum has decoded the percent signs; a name that still is none ends here.
    let Ok(asked) = parse_request_path(&path) else {
        domain.stats.missed(Miss::Unknown);
        return plain(StatusCode::NOT_FOUND, "this is no distfile path; see layout.conf");
    };
    // A hit by digest is one look into the index and one open file, mostly from memory: a trip to the blocking pool would
    // cost several times as much, and threads without end when many small files are asked for at once.
    if let Asked::ByDigest(digest) = &asked
        && let Some(here) = held(&domain.store, digest).and_then(|blob| begin_cached(blob, &headers))
    {
        return of_blob(&domain, &method, &headers, here, Source::Store);
    }
    let found = {
        let (domain, headers) = (Arc::clone(&domain), headers.clone());
        blocking::run(move || look(&domain, &asked, &headers)).await
    };
    match found {
        Found::Held(held) => of_blob(&domain, &method, &headers, *held, Source::Store),
        Found::Elsewhere(target) if method == Method::HEAD => foretell(&domain, &headers, &target),
        Found::Elsewhere(target) => elsewhere(&domain, &headers, &target).await,
        Found::NotYet => {
            domain.stats.missed(Miss::NotYet);
            not_yet(&domain)
        }
        Found::Unknown => {
            domain.stats.missed(Miss::Unknown);
            plain(StatusCode::NOT_FOUND, "no Manifest names this file")
        }
    }
}

/// A blob of the store with the first step of its answer.
pub(super) struct Here {
    blob: Blob,
    span: Span,
    first_step: Bytes,
    /// When its bytes came to be.
    pub(super) modified: Option<Moment>,
    /// True when the path names these bytes and no others for ever.
    pub(super) lasting: bool,
}

enum Found {
    Held(Box<Here>),
    Elsewhere(Box<Target>),
    /// No Manifest that was read so far names it, and not all are read.
    NotYet,
    Unknown,
}

/// Looks into store and catalog, and reads the first step in the same breath: small files then cost one trip to the
/// blocking pool. Blocking.
fn look(domain: &Arc<Domain>, asked: &Asked, headers: &HeaderMap) -> Found {
    // The catalog is not asked for a digest that is here.
    if let Asked::ByDigest(digest) = asked
        && let Some(blob) = held(&domain.store, digest)
        && let Some(here) = begin(blob, headers)
    {
        return Found::Held(Box::new(here));
    }
    let is_unknown = |target: &Option<Target>| target.as_ref().is_none_or(|target| target.over_http.is_none());
    let mut target = domain.resolve(asked);
    if is_unknown(&target) {
        domain.refresh_eagerly();
        target = domain.resolve(asked);
        // Nobody waits for a look that takes long: wget goes on to the next mirror at once. A peer that holds the digest
        // may have said so already.
        let offered = target.as_ref().is_some_and(|target| !domain.swarm.holders(&target.wanted.digest).is_empty());
        if is_unknown(&target) && !domain.repositories.are_read() && !offered {
            return Found::NotYet;
        }
    }
    let Some(target) = target else { return Found::Unknown };
    let digest = &target.wanted.digest;
    match held(&domain.store, digest).and_then(|blob| begin(blob, headers)) {
        Some(here) => Found::Held(Box::new(here)),
        None => Found::Elsewhere(Box::new(target)),
    }
}

/// As [`begin`], from the page cache alone: none when the disk would have to be waited for.
fn begin_cached(blob: Blob, headers: &HeaderMap) -> Option<Here> {
    begin_with(blob, headers, body::read_cached)
}

/// None when the blob cannot be read: then it is obtained again.
pub(super) fn begin(blob: Blob, headers: &HeaderMap) -> Option<Here> {
    begin_with(blob, headers, |blob, first, wanted| body::read_blob(blob, first, wanted).ok())
}

fn begin_with(blob: Blob, headers: &HeaderMap, read: impl FnOnce(&Blob, u64, u64) -> Option<Bytes>) -> Option<Here> {
    let span = Span::of(headers, blob.size(), &etag(&blob.digest()));
    let (first, last) = bounds(span, blob.size());
    let first_step = if last < first { Bytes::new() } else { read(&blob, first, length(first, last))? };
    let modified = blob.modified();
    Some(Here { blob, span, first_step, modified, lasting: true })
}

/// First and last byte; last below first for an empty body.
fn bounds(span: Span, size: u64) -> (u64, u64) {
    match span {
        Span::Part { first, last } => (first, last),
        Span::Whole if size > 0 => (0, size.saturating_sub(1)),
        Span::Whole | Span::Unsatisfiable => (1, 0),
    }
}

/// Bytes of `first..=last`.
fn length(first: u64, last: u64) -> u64 {
    last.saturating_sub(first).saturating_add(1)
}

fn etag(digest: &tree::digest::Digest) -> String {
    format!("\"{digest}\"")
}

/// Answers with a blob, or the part of it that is asked for.
pub(super) fn of_blob(
    domain: &Arc<Domain>,
    method: &Method,
    headers: &HeaderMap,
    here: Here,
    source: Source,
) -> Response {
    let (size, tag) = (here.blob.size(), etag(&here.blob.digest()));
    let head = |status, length| head(status, length, &tag, here.modified, here.lasting, Some(source));
    domain.stats.answered(source);
    if range::is_not_modified(headers, &tag, here.modified) {
        return head(StatusCode::NOT_MODIFIED, None).body(Body::empty()).unwrap_or_default();
    }
    let (first, last) = bounds(here.span, size);
    let answer = match here.span {
        Span::Unsatisfiable => return unsatisfiable(size),
        Span::Whole => head(StatusCode::OK, Some(size)),
        Span::Part { .. } => head(StatusCode::PARTIAL_CONTENT, Some(length(first, last)))
            .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")),
    };
    let body = if method == Method::HEAD || last < first {
        Body::empty()
    } else if here.first_step.len() as u64 >= length(first, last) {
        // One step is the whole answer: head and body leave in one write.
        domain.stats.sent(source, here.first_step.len() as u64);
        Body::from(here.first_step)
    } else {
        let counting = Arc::clone(domain);
        body::of_blob(here.blob, here.first_step, first, last, move |bytes| counting.stats.sent(source, bytes))
    };
    answer.body(body).unwrap_or_default()
}

fn head(
    status: StatusCode,
    length: Option<u64>,
    etag: &str,
    modified: Option<Moment>,
    lasting: bool,
    source: Option<Source>,
) -> axum::http::response::Builder {
    let mut head = Response::builder()
        .status(status)
        .header(header::ETAG, etag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, if lasting { "public, max-age=31536000, immutable" } else { "no-cache" });
    if let Some(source) = source {
        head = head.header(SOURCE, source.as_str());
    }
    if let Some(length) = length {
        head = head.header(header::CONTENT_LENGTH, length).header(header::CONTENT_TYPE, "application/octet-stream");
    }
    if let Some(modified) = modified {
        head = head.header(header::LAST_MODIFIED, date::say(modified));
    }
    head
}

/// The head of a file that is not here, from what is known of it; nobody is asked.
fn foretell(domain: &Domain, headers: &HeaderMap, target: &Target) -> Response {
    let digest = &target.wanted.digest;
    let may_ask = target.over_http.as_ref().is_some_and(|source| !domain.mirrors.plan(source).is_empty());
    let Some(size) = target.wanted.size.filter(|_| may_ask || !domain.swarm.holders(digest).is_empty()) else {
        domain.stats.missed(Miss::Unavailable);
        return plain(StatusCode::NOT_FOUND, "it is not here, and nobody is known who may be asked for it");
    };
    let etag = etag(digest);
    if range::is_not_modified(headers, &etag, None) {
        return head(StatusCode::NOT_MODIFIED, None, &etag, None, false, None).body(Body::empty()).unwrap_or_default();
    }
    match head_of_span(Span::of(headers, size, &etag), size, &etag, false, None) {
        Some(head) => head.body(Body::empty()).unwrap_or_default(),
        None => unsatisfiable(size),
    }
}

/// The head of an answer with the bytes of a span; None where there are none such.
fn head_of_span(
    span: Span,
    size: u64,
    etag: &str,
    lasting: bool,
    source: Option<Source>,
) -> Option<axum::http::response::Builder> {
    let (first, last) = bounds(span, size);
    match span {
        Span::Unsatisfiable => None,
        Span::Whole => Some(head(StatusCode::OK, Some(size), etag, None, lasting, source)),
        Span::Part { .. } => Some(
            head(StatusCode::PARTIAL_CONTENT, Some(length(first, last)), etag, None, lasting, source)
                .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")),
        ),
    }
}

/// Not here: joins or begins a transfer and answers as soon as it is known how.
async fn elsewhere(domain: &Arc<Domain>, headers: &HeaderMap, target: &Target) -> Response {
    let mut follower = match domain.follow(target) {
        Ok(follower) => follower,
        Err(error) => return refusal(domain, &error),
    };
    let etag = etag(&target.wanted.digest);
    let deciding = follower.wait_until(|progress| answerable(progress, headers, &etag));
    let Ok(progress) = tokio::time::timeout(ANSWER_MAX, deciding).await else {
        domain.stats.missed(Miss::Unavailable);
        return plain(StatusCode::GATEWAY_TIMEOUT, "no source has sent anything yet; the transfer goes on");
    };
    match progress.end {
        Some(End::Have(blob, source)) => {
            let reading = headers.clone();
            match blocking::run(move || begin(blob, &reading)).await {
                Some(here) => of_blob(domain, &Method::GET, headers, here, source),
                None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read"),
            }
        }
        Some(End::Failed(error)) => refusal(domain, &error),
        None => relay(domain, headers, follower, &progress, &etag),
    }
}

/// True when the first byte that is wanted may be relayed now.
fn answerable(progress: &Progress, headers: &HeaderMap, etag: &str) -> bool {
    let Some(size) = progress.size else { return false };
    match Span::of(headers, size, etag) {
        Span::Unsatisfiable => true,
        span => {
            let (first, last) = bounds(span, size);
            progress.readable(last.saturating_add(1)) > first && progress.source.is_some()
        }
    }
}

fn relay(domain: &Arc<Domain>, headers: &HeaderMap, follower: Follower, progress: &Progress, etag: &str) -> Response {
    let (size, source) = (progress.size.unwrap_or(0), progress.source.unwrap_or(Source::Mirror));
    let span = Span::of(headers, size, etag);
    let (first, last) = bounds(span, size);
    let Some(answer) = head_of_span(span, size, etag, true, Some(source)) else { return unsatisfiable(size) };
    domain.stats.answered(source);
    let body = body::of_flight(Arc::clone(domain), follower, progress.restarts, first, last, source);
    answer.body(body).unwrap_or_default()
}

fn unsatisfiable(size: u64) -> Response {
    (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
}

/// Exhaustive, so that a new error must be given its status here. What went wrong inside stays in the log.
fn refusal(domain: &Domain, error: &ObtainError) -> Response {
    domain.stats.missed(Miss::Unavailable);
    match error {
        ObtainError::Nobody { .. } => plain(StatusCode::NOT_FOUND, "no source that may be asked has this file now"),
        ObtainError::DiskFull { .. } => plain(StatusCode::INSUFFICIENT_STORAGE, "the disk of the store is full"),
        ObtainError::Fault(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the node failed; see the log"),
        ObtainError::Store { .. } => plain(StatusCode::INTERNAL_SERVER_ERROR, "the store failed; see the log"),
        ObtainError::Busy | ObtainError::Stopping => plain(StatusCode::SERVICE_UNAVAILABLE, "not now"),
    }
}

/// While the repositories are read for the first time.
fn not_yet(domain: &Domain) -> Response {
    let left = domain.repositories.looking().borrow().as_ref().map_or(RETRY_DEFAULT_S, seconds_left);
    let mut answer =
        plain(StatusCode::SERVICE_UNAVAILABLE, "the repositories are being read; peer status says how far");
    answer.headers_mut().insert(header::RETRY_AFTER, left.into());
    answer
}

/// How long the rest takes at the pace so far.
fn seconds_left(look: &Look) -> u64 {
    let (read, of) = (look.read as u64, look.of as u64);
    let passed = now_s().saturating_sub(look.since);
    let left = passed.saturating_mul(of.saturating_sub(read)).checked_div(read).unwrap_or(RETRY_DEFAULT_S);
    left.clamp(1, RETRY_MAX_S)
}

/// A short text answer that is never kept by a client.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}
