//! What is served over HTTP: reads on TCP loopback ([`public`]), verbs on the unix socket ([`control`]).
//!
//! Any web page open in a browser on this machine can reach a loopback port. So nothing that changes anything is served
//! there, pages forbid being framed, and what tells of this machine is given only to requests that name it by address
//! (a page whose name was rebound to 127.0.0.1 names itself).

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
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::net::IpAddr;
use std::sync::Arc;

/// The reads: mirror, status page, API, metrics.
pub fn public(domain: Arc<Domain>) -> Router {
    let about_this_machine = Router::new()
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
        .layer(middleware::from_fn(only_by_address));
    Router::new()
        .route("/distfiles/layout.conf", get(distfiles::layout_conf))
        .route("/distfiles/{*path}", get(distfiles::distfile))
        .route("/binpkgs/{id}/{*path}", get(binpkgs::file))
        .route("/snapshots/{*path}", get(pass::snapshots))
        .route("/releases/{*path}", get(pass::releases))
        .route("/healthz", get(status::alive))
        .route("/readyz", get(status::ready))
        .merge(about_this_machine)
        .fallback(|| async { distfiles::plain(StatusCode::NOT_FOUND, "nothing is served here") })
        .layer(middleware::from_fn(guard))
        .with_state(domain)
}

/// Headers every answer carries.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Refuses requests whose `Host` is a name other than localhost: a web page that had its own name resolved to this
/// machine (DNS rebinding) must not read what this machine does.
async fn only_by_address(request: Request, next: Next) -> Response {
    if names_this_machine(request.headers()) {
        next.run(request).await
    } else {
        distfiles::plain(StatusCode::MISDIRECTED_REQUEST, "ask for this page by address or as localhost")
            .into_response()
    }
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    // HTTP/1.0 clients send no Host, and no browser is one.
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _port)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebound_name_is_not_this_machine() {
        for (host, ours) in [
            ("127.0.0.1:8420", true),
            ("127.0.0.1", true),
            ("[::1]:8420", true),
            ("[::1]", true),
            ("localhost:8420", true),
            ("LOCALHOST", true),
            ("evil.example:8420", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(names_this_machine(&headers), ours, "{host}");
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }
}
