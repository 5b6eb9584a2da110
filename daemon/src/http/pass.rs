//! `/snapshots/` and `/releases/`: handed through from the mirrors, which sign what lies there, and kept.
//!
//! What is kept is bounded, and what goes for its sake is removed. It is served again once a mirror says that it did not change, or when no mirror answers.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::date;
use super::distfiles::{begin, of_blob, plain};
use crate::blocking;
use crate::domain::Domain;
use crate::kept::{FILE_MAX_BYTES, Kept};
use crate::stats::{Source, now_s};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use mirrors::{Conditional, PassBody};
use std::sync::Arc;
use store::{Blob, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tree::digest::Digest;

/// Chunks between the mirror and the disk.
const QUEUE_MAX: usize = 64;
/// Files handed through at the same time. Every emerge on the machine takes a few; more would be somebody who fills the line.
const PASSING_MAX: usize = 32;
/// Places of [`PASSING_MAX`].
static PASSING: Semaphore = Semaphore::const_new(PASSING_MAX);
/// When to ask again where all places are taken.
const RETRY_S: u64 = 5;

/// A file below `/snapshots/` (emerge-webrsync).
pub(super) async fn snapshots(
    State(domain): State<Arc<Domain>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    pass(domain, format!("/snapshots/{path}"), method, headers).await
}

/// A file below `/releases/` (stages, the official binhost).
pub(super) async fn releases(
    State(domain): State<Arc<Domain>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    pass(domain, format!("/releases/{path}"), method, headers).await
}

async fn pass(domain: Arc<Domain>, path: String, method: Method, headers: HeaderMap) -> Response {
    let Ok(place) = PASSING.try_acquire() else {
        let mut busy = plain(StatusCode::SERVICE_UNAVAILABLE, "too many files are being handed through");
        busy.headers_mut().insert(header::RETRY_AFTER, RETRY_S.into());
        return busy;
    };
    let here = here(&domain, &path).await;
    let conditional = match &here {
        Some((kept, _)) => {
            Conditional { if_none_match: kept.etag.clone(), if_modified_since: kept.last_modified.clone(), range: None }
        }
        None => asked(&headers),
    };
    match (domain.mirrors.open_path(&path, &conditional).await, here) {
        (Ok(body), Some((kept, blob))) if body.status() == 304 => {
            from_store(&domain, &method, headers, kept, blob).await
        }
        (Ok(body), _) => from_mirror(domain, path, body, &method, place).await,
        (Err(error), Some((kept, blob))) => {
            tracing::info!(path, %error, "no mirror answers; what was kept is served");
            from_store(&domain, &method, headers, kept, blob).await
        }
        (Err(error), None) => {
            tracing::info!(path, %error, "no mirror gives it");
            plain(StatusCode::NOT_FOUND, "no mirror gives this now")
        }
    }
}

async fn here(domain: &Domain, path: &str) -> Option<(Kept, Blob)> {
    let (table, key) = (Arc::clone(&domain.kept), path.to_owned());
    let kept = blocking::run(move || table.get(&key, now_s())).await?;
    let blob = domain.get(kept.digest.parse().ok()?).await?;
    Some((kept, blob))
}

fn asked(headers: &HeaderMap) -> Conditional {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Conditional {
        if_none_match: text(header::IF_NONE_MATCH),
        if_modified_since: text(header::IF_MODIFIED_SINCE),
        // The condition of a range is not passed on, so the range is not either.
        range: text(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE)),
    }
}

async fn from_store(domain: &Arc<Domain>, method: &Method, headers: HeaderMap, kept: Kept, blob: Blob) -> Response {
    let modified = kept.last_modified.as_deref().and_then(date::read);
    let reading = headers.clone();
    match blocking::run(move || begin(blob, &reading)).await {
        Some(mut here) => {
            (here.modified, here.lasting) = (modified, false);
            of_blob(domain, method, &headers, here, Source::Store)
        }
        None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read"),
    }
}

async fn from_mirror(
    domain: Arc<Domain>,
    path: String,
    body: PassBody,
    method: &Method,
    place: SemaphorePermit<'static>,
) -> Response {
    domain.stats.answered(Source::Mirror);
    // Whatever the mirror calls it: nothing of it is for a browser to show on this origin.
    let mut response = Response::builder()
        .status(body.status())
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("x-peer-source", Source::Mirror.as_str())
        .header(header::CACHE_CONTROL, "no-cache");
    for (name, value) in body.headers() {
        response = response.header(*name, value);
    }
    if *method == Method::HEAD {
        return response.body(Body::empty()).unwrap_or_default();
    }
    let keeper = if body.status() == 200 { Keeper::start(&domain, &path, &body).await } else { None };
    let passing = Passing { domain, body, keeper, passed: 0, _place: place };
    let content = stream::try_unfold(passing, |mut passing| async move {
        let chunk = passing.next().await?;
        Ok::<_, mirrors::FetchError>(chunk.map(|bytes| (bytes, passing)))
    });
    response.body(Body::from_stream(content)).unwrap_or_default()
}

/// A body on its way from a mirror to a client, and into the store beside.
struct Passing {
    domain: Arc<Domain>,
    body: PassBody,
    keeper: Option<Keeper>,
    /// Bytes so far.
    passed: u64,
    _place: SemaphorePermit<'static>,
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, mirrors::FetchError> {
        let chunk = self.body.chunk().await?;
        self.passed = self.passed.saturating_add(chunk.as_ref().map_or(0, |bytes| bytes.len() as u64));
        match (&chunk, &self.keeper) {
            (Some(bytes), Some(keeper)) => {
                self.domain.stats.sent(Source::Mirror, bytes.len() as u64);
                if keeper.orders.send(Order::Append(bytes.clone())).await.is_err() {
                    // The disk does not take it; the client gets it all the same.
                    self.keeper = None;
                }
            }
            (Some(bytes), None) => self.domain.stats.sent(Source::Mirror, bytes.len() as u64),
            (None, _) => {}
        }
        // It is kept before the client sees the end, so that whoever asks next finds it.
        if (chunk.is_none() || self.body.length() == Some(self.passed))
            && let Some(keeper) = self.keeper.take()
        {
            keeper.finish().await;
        }
        Ok(chunk)
    }
}

enum Order {
    Append(Bytes),
    Finish(oneshot::Sender<()>),
}

/// Writes a passed body into the store. Dropped before the end, what came is thrown away: nothing says that the rest of
/// another answer would fit to it.
struct Keeper {
    orders: mpsc::Sender<Order>,
    _place: SemaphorePermit<'static>,
}

/// Bodies kept at the same time: each holds a thread for as long as its client reads.
static KEEPERS: Semaphore = Semaphore::const_new(16);

impl Keeper {
    async fn start(domain: &Arc<Domain>, path: &str, body: &PassBody) -> Option<Self> {
        let value = |name: &str| {
            body.headers().iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        let kept = Kept {
            digest: String::new(),
            etag: value("etag"),
            last_modified: value("last-modified"),
            content_type: None,
            size: body.length()?,
            used: now_s(),
        };
        // Without a length nothing says whether a body that ended is whole.
        let size = Some(kept.size).filter(|size| *size <= FILE_MAX_BYTES);
        size?;
        let place = KEEPERS.try_acquire().ok()?;
        let (store, key) = (domain.store.clone(), Digest::of(path.as_bytes()));
        // Somebody else is passing the same file: one copy is enough.
        let incoming = blocking::run(move || store.incoming_unnamed(&key, size).ok()).await?;
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let (domain, path) = (Arc::clone(domain), path.to_owned());
        blocking::start(move || keep(&domain, &path, kept, incoming, queue));
        Some(Self { orders, _place: place })
    }
}

impl Keeper {
    /// Waits until the file is kept, or is known not to be.
    async fn finish(self) {
        let (done, kept) = oneshot::channel();
        if self.orders.send(Order::Finish(done)).await.is_ok() {
            let _not_kept = kept.await;
        }
    }
}

fn keep(domain: &Domain, path: &str, kept: Kept, mut incoming: Incoming, mut queue: mpsc::Receiver<Order>) {
    while let Some(order) = queue.blocking_recv() {
        match order {
            Order::Append(bytes) => {
                if let Err(error) = incoming.append(&bytes) {
                    tracing::info!(path, %error, "a passed file is not kept");
                    return incoming.discard();
                }
            }
            Order::Finish(done) => {
                let result = incoming.finish().map_err(|error| error.to_string()).and_then(|blob| {
                    let kept = Kept { digest: blob.digest().to_string(), ..kept };
                    domain.kept.put(path, kept).map_err(|error| error.to_string())
                });
                match result {
                    Ok(gone) => gone.iter().for_each(|digest| let_go(domain, digest)),
                    Err(error) => tracing::warn!(path, error, "a passed file is not kept"),
                }
                // A client that left does not wait for it.
                let _gone = done.send(());
                return;
            }
        }
    }
    incoming.discard();
}

/// Removes what was kept for a path alone. What is pinned, or known by a name besides, stays.
fn let_go(domain: &Domain, digest: &str) {
    let Ok(digest) = digest.parse::<Digest>() else { return };
    if domain.names(&digest).is_empty()
        && !domain.store.is_pinned(&digest)
        && domain.binhost.row(&digest).is_none()
        && let Err(error) = domain.store.remove(&digest)
    {
        tracing::info!(%digest, %error, "a passed file is not let go");
    }
}
