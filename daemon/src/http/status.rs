//! The status page at `/`, its JSON, and the two probes.

use crate::api::Status;
use crate::domain::Domain;
use crate::{blocking, pins, snapshot};
use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// Nothing from elsewhere, one inline style and one inline script named by their digests in the build would change with
/// every edit; the page has no user text that is not escaped by the template.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    status: &'a Status,
}

impl Page<'_> {
    /// Percent of a transfer.
    fn percent(received: &u64, size: &Option<u64>) -> u64 {
        size.filter(|size| *size > 0).map_or(0, |size| received.saturating_mul(100) / size)
    }
}

#[expect(unreachable_pub, reason = "the macro makes public structs of them")]
mod filters {
    //! How numbers look on the page.

    /// Bytes in the largest unit below them, one decimal.
    #[askama::filter_fn]
    pub fn size(bytes: &u64, _env: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::human_size(*bytes))
    }

    /// A time of the day is told by the browser; here are the seconds passed, in words.
    #[askama::filter_fn]
    pub fn duration(seconds: &u64, _env: &dyn askama::Values) -> askama::Result<String> {
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
        Ok(match (days, hours, minutes) {
            (0, 0, 0) => format!("{seconds} s"),
            (0, 0, minutes) => format!("{minutes} min"),
            (0, hours, minutes) => format!("{hours} h {minutes} min"),
            (days, hours, _) => format!("{days} d {hours} h"),
        })
    }

    /// Time since a moment.
    #[askama::filter_fn]
    pub fn ago(at: &u64, env: &dyn askama::Values) -> askama::Result<String> {
        duration::default().execute(&crate::stats::now_s().saturating_sub(*at), env).map(|text| format!("{text} ago"))
    }
}

/// `1.5 GiB`.
#[must_use]
fn human_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >> shift > 0 {
            // Tenths in integers: nothing is lost to floating point.
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// The page.
pub(super) async fn page(State(domain): State<Arc<Domain>>) -> Response {
    let status = snapshot::status(&domain).await;
    match (Page { status: &status }).render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the status page cannot be written");
            super::distfiles::plain(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written; see the log")
        }
    }
}

/// The status as JSON.
pub(super) async fn json(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(snapshot::status(&domain).await))
}

/// The peers as JSON.
pub(super) async fn peers(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(snapshot::peers(&domain)))
}

/// The pins as JSON.
pub(super) async fn pins(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(blocking::run(move || pins::list(&domain)).await))
}

fn fresh(answer: impl axum::response::IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

/// The process answers.
pub(super) async fn alive() -> Response {
    super::distfiles::plain(StatusCode::OK, "alive")
}

/// The first index is there.
pub(super) async fn ready(State(domain): State<Arc<Domain>>) -> Response {
    if domain.repositories.are_read() {
        super::distfiles::plain(StatusCode::OK, "ready")
    } else {
        super::distfiles::plain(StatusCode::SERVICE_UNAVAILABLE, "the repositories are being read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn what_peers_and_mirrors_say_is_escaped() {
        let evil = "<script>alert(1)</script>".to_owned();
        let mut status = Status { warnings: vec![evil.clone()], ..Status::default() };
        status.connected.push(crate::api::Peer {
            peer_id: evil.clone(),
            addresses: vec![evil.clone()],
            agent: evil,
            lan: true,
            holdings: 0,
            rtt_ms: None,
            given_bytes: 0,
            received_bytes: 0,
            blamed: 0,
        });
        let html = Page { status: &status }.render().unwrap();
        assert!(!html.contains("<script>alert"), "{html}");
    }
}
