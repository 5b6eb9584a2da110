//! `/api/v1/openapi.json`: what the reads answer, made from the same structs that answer them.

use crate::api;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Peerage", description = "Reads of a Peerage node. Verbs are on its unix socket.", version = "1"),
    paths(status, peers, pins),
    components(schemas(api::Status, api::Peers, api::Pins))
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

/// The document.
pub(super) async fn document() -> Response {
    Json(Document::openapi()).into_response()
}
