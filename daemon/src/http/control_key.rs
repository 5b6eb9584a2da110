//! The signing key, on the control socket: shown, and made when it is asked for. The secret never leaves its file.

use super::control::refusal;
use crate::api_key::KeyAnswer;
use crate::blocking;
use crate::domain::Domain;
use crate::openpgp::{OpenPgpError, OpenPgpKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

/// `/v1/key`.
pub(super) fn routes() -> Router<Arc<Domain>> {
    Router::new().route("/v1/key", get(show).post(make))
}

async fn show(State(domain): State<Arc<Domain>>) -> Response {
    let asked = Arc::clone(&domain);
    match blocking::run(move || asked.signing.get()).await {
        Ok(Some(key)) => answer(&domain, &key, false),
        Ok(None) => refusal(StatusCode::NOT_FOUND, "this node has no signing key yet", Some("peer key init")),
        Err(error) => failed(&error),
    }
}

async fn make(State(domain): State<Arc<Domain>>) -> Response {
    let asked = Arc::clone(&domain);
    match blocking::run(move || asked.signing.obtain()).await {
        Ok((key, made)) => answer(&domain, &key, made),
        Err(error) => failed(&error),
    }
}

fn answer(domain: &Domain, key: &OpenPgpKey, made: bool) -> Response {
    Json(KeyAnswer {
        user_id: key.user_id().to_owned(),
        fingerprint: key.fingerprint(),
        public: key.public_armored(),
        path: domain.signing.path().display().to_string(),
        made,
    })
    .into_response()
}

fn failed(error: &OpenPgpError) -> Response {
    let why = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}{why}"), None)
}
