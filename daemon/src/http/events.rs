//! `/events`: the status once a second, and the jobs when one changed, as server-sent events.

use super::jobs::NEWEST;
use crate::api_builds::JobsAnswer;
use crate::domain::Domain;
use crate::snapshot;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Feeds open at the same time: a page left open in many tabs must not cost much.
const FEEDS_MAX: usize = 32;
/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

static FEEDS: AtomicUsize = AtomicUsize::new(0);

struct Feed {
    domain: Arc<Domain>,
    jobs: watch::Receiver<u64>,
    first: bool,
}

impl Drop for Feed {
    fn drop(&mut self) {
        FEEDS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A `status` event at once and then every second.
pub(super) async fn feed(State(domain): State<Arc<Domain>>) -> Response {
    if FEEDS.fetch_add(1, Ordering::Relaxed) >= FEEDS_MAX {
        FEEDS.fetch_sub(1, Ordering::Relaxed);
        return super::distfiles::plain(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open");
    }
    let mut jobs = domain.builds.jobs.changes();
    jobs.mark_changed();
    let feed = Feed { domain, jobs, first: true };
    let events = stream::unfold(feed, |mut feed| async move {
        if !std::mem::take(&mut feed.first) {
            tokio::time::sleep(PERIOD).await;
        }
        let status = snapshot::status(&feed.domain).await;
        let json = serde_json::to_string(&status).unwrap_or_default();
        let mut event = format!("event: status\ndata: {json}\n\n");
        // The first look always counts as a change.
        if feed.jobs.has_changed().unwrap_or(false) {
            feed.jobs.mark_unchanged();
            let jobs = JobsAnswer { jobs: feed.domain.builds.jobs.list(NEWEST) };
            let json = serde_json::to_string(&jobs).unwrap_or_default();
            event.push_str(&format!("event: jobs\ndata: {json}\n\n"));
        }
        let event = Bytes::from(event);
        Some((Ok::<_, std::convert::Infallible>(event), feed))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    axum::response::IntoResponse::into_response((headers, Body::from_stream(events)))
}
