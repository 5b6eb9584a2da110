//! `/api/v1/openapi.json`: what the reads answer, made from the same structs that answer them.

use crate::{api, api_builds};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Peerage", description = "Reads of a Peerage node. Verbs are on its unix socket.", version = "1"),
    paths(status, peers, pins, jobs, job, job_log, binpkgs),
    components(schemas(api::Status, api::Peers, api::Pins, api_builds::JobsAnswer, api_builds::Binpkg))
)]
struct Document;

/// What the node is and does now.
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = api::Status)))]
#[expect(dead_code, reason = "only its description is used")]
fn status() {}

/// The connected peers.
#[utoipa::path(get, path = "/api/v1/peers", responses((status = 200, body = api::Peers)))]
#[expect(dead_code, reason = "only its description is used")]
fn peers() {}

/// The pins.
#[utoipa::path(get, path = "/api/v1/pins", responses((status = 200, body = api::Pins)))]
#[expect(dead_code, reason = "only its description is used")]
fn pins() {}

/// The builds, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = 200, body = api_builds::JobsAnswer)))]
#[expect(dead_code, reason = "only its description is used")]
fn jobs() {}

/// One build.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    params(("id" = u64, Path)),
    responses((status = 200, body = api_builds::Job), (status = 404, description = "there is no such job"))
)]
#[expect(dead_code, reason = "only its description is used")]
fn job() {}

/// The log of a build from a byte on; with `follow` it goes on while the build runs.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/log",
    params(("id" = u64, Path), ("from" = Option<u64>, Query), ("follow" = Option<bool>, Query)),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 404, description = "there is no such job")
    )
)]
#[expect(dead_code, reason = "only its description is used")]
fn job_log() {}

/// The binary packages of the binhost, newest first.
#[utoipa::path(get, path = "/api/v1/binpkgs", responses((status = 200, body = Vec<api_builds::Binpkg>)))]
#[expect(dead_code, reason = "only its description is used")]
fn binpkgs() {}

/// The document.
pub(super) async fn document() -> Response {
    Json(Document::openapi()).into_response()
}
