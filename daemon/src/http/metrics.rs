//! `/metrics`: the status in the Prometheus text format. Names end in their unit; labels have few values.

use crate::api::Status;
use crate::domain::Domain;
use crate::snapshot;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    source: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// The metrics now.
pub(super) async fn text(State(domain): State<Arc<Domain>>) -> Response {
    let status = snapshot::status(&domain).await;
    let mut text = String::new();
    if encode(&mut text, &registry(&status)).is_err() {
        tracing::error!("metrics cannot be written");
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn registry(status: &Status) -> Registry {
    let mut registry = Registry::with_prefix("peerage");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let metric: Gauge = Gauge::default();
        metric.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, metric);
    };
    gauge("uptime_seconds", "Seconds since the daemon began to serve", status.uptime_s);
    gauge("peers", "Connected peers", status.peers as u64);
    gauge("store_blobs", "Verified blobs in the store", status.blobs);
    gauge("store_bytes", "Bytes of verified blobs", status.bytes);
    gauge("store_partial_bytes", "Bytes of unfinished downloads", status.partial_bytes);
    gauge("store_quarantined_blobs", "Blobs set aside because they rotted", status.quarantined);
    gauge("store_free_bytes", "Free bytes on the filesystem of the store", status.disk_free_bytes);
    gauge("distfiles_indexed", "DIST lines known from all Manifests", status.distfiles_indexed);
    gauge("transfers", "Transfers under way", status.transfers.len() as u64);
    gauge("pins", "Pins", status.pins as u64);
    registry.register("given_bytes", "Bytes given to peers", ConstCounter::new(status.given_bytes));
    registry.register("panics", "Tasks that ended in a panic", ConstCounter::new(status.panics));
    let answers = Family::<Label, Gauge>::default();
    let bytes = Family::<Label, Gauge>::default();
    for (source, served) in &status.served {
        let label = Label { source: source.clone() };
        answers.get_or_create(&label).set(i64::try_from(served.answers).unwrap_or(i64::MAX));
        bytes.get_or_create(&label).set(i64::try_from(served.bytes).unwrap_or(i64::MAX));
    }
    registry.register("answers_since_start", "Answers for distfiles by source", answers);
    registry.register("answered_bytes_since_start", "Body bytes of answers by source", bytes);
    let misses = Family::<Reason, Gauge>::default();
    for (reason, count) in &status.misses {
        misses.get_or_create(&Reason { reason: reason.clone() }).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    registry.register("misses_since_start", "Answers that were not found, by reason", misses);
    registry
}
