//! `peer doctor` asks the daemon, which looks at what only it can see: what it may do, as whom, and where.

use crate::api_doctor::{CheckLine, DoctorAnswer};
use crate::doctor::of_daemon;
use crate::domain::Domain;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

/// `/v1/doctor`.
pub(super) fn routes() -> Router<Arc<Domain>> {
    Router::new().route("/v1/doctor", get(examine))
}

async fn examine(State(domain): State<Arc<Domain>>) -> Json<DoctorAnswer> {
    let checks = of_daemon(&domain).await.into_iter().map(CheckLine::from).collect();
    Json(DoctorAnswer { checks })
}
