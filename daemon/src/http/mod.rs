//! What is served over HTTP: reads on TCP loopback ([`public`]), verbs on the unix socket ([`control`]).
//!
//! Any web page open in a browser on this machine can reach a loopback port. So nothing that changes anything is served
//! there, pages of other sites are not answered ([`asker`]), and what others wrote (a mirror's file, a package, a build's
//! log) can never run or be shown as a part of this node's own page.

mod asker;
mod binpkgs;
mod body;
pub mod control;
mod control_builds;
mod control_doctor;
mod control_group;
mod control_key;
mod control_questions;
pub(crate) mod date;
mod distfiles;
mod events;
pub(crate) mod jobs;
mod metrics;
mod openapi;
mod pass;
pub mod range;
mod serve;
mod status;

pub use serve::{serve_tcp, serve_unix};

use crate::domain::Domain;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;

/// The policy of answers that are no page.
const SHUT: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// The reads: mirror, status page, API, metrics.
pub fn public(domain: Arc<Domain>) -> Router {
    Router::new()
        .route("/", get(status::page))
        .route("/events", get(events::feed))
        .route("/api/v1/status", get(status::json))
        .route("/api/v1/peers", get(status::peers))
        .route("/api/v1/pins", get(status::pins))
        .route("/api/v1/jobs", get(jobs::all))
        .route("/api/v1/jobs/{id}", get(jobs::one))
        .route("/api/v1/jobs/{id}/log", get(jobs::log))
        .route("/api/v1/binpkgs", get(jobs::binpkgs_list))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/metrics", get(metrics::text))
        .route("/distfiles/layout.conf", get(distfiles::layout_conf))
        .route("/distfiles/{*path}", get(distfiles::distfile))
        .route("/binpkgs/{id}/{*path}", get(binpkgs::file))
        .route("/snapshots/{*path}", get(pass::snapshots))
        .route("/releases/{*path}", get(pass::releases))
        .route("/healthz", get(status::alive))
        .route("/readyz", get(status::ready))
        .fallback(|| async { distfiles::plain(StatusCode::NOT_FOUND, "nothing is served here") })
        .layer(middleware::from_fn_with_state(Arc::clone(&domain), asker::only_ours))
        .layer(middleware::from_fn(guard))
        .with_state(domain)
}

/// Headers every answer carries. All but the page itself is shut into a sandbox of its own: no script, no form, no window,
/// and an origin that is nobody's.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(SHUT));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // What others wrote is always called so, and is for no browser to show.
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream") {
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
