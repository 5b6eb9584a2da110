//! `/snapshots/` and `/releases/`: handed through from the mirrors, which sign what lies there.

use super::distfiles::plain;
use crate::domain::Domain;
use crate::stats::Source;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use futures::stream;
use mirrors::{Conditional, PassBody};
use std::sync::Arc;

/// A file below `/snapshots/` (emerge-webrsync).
pub(super) async fn snapshots(state: State<Arc<Domain>>, Path(path): Path<String>, method: Method, headers: HeaderMap) -> Response {
    pass(state, format!("/snapshots/{path}"), method, headers).await
}

/// A file below `/releases/` (stages, the official binhost).
pub(super) async fn releases(state: State<Arc<Domain>>, Path(path): Path<String>, method: Method, headers: HeaderMap) -> Response {
    pass(state, format!("/releases/{path}"), method, headers).await
}

async fn pass(State(domain): State<Arc<Domain>>, path: String, method: Method, headers: HeaderMap) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let conditional = Conditional {
        if_none_match: text(header::IF_NONE_MATCH),
        if_modified_since: text(header::IF_MODIFIED_SINCE),
        range: text(header::RANGE),
    };
    match domain.mirrors.open_path(&path, &conditional).await {
        Ok(body) => answer(domain, body, &method),
        Err(error) => {
            tracing::info!(path, %error, "no mirror gives it");
            plain(StatusCode::NOT_FOUND, "no mirror gives this now")
        }
    }
}

fn answer(domain: Arc<Domain>, body: PassBody, method: &Method) -> Response {
    domain.stats.answered(Source::Mirror);
    let mut response = Response::builder().status(body.status()).header("x-peer-source", Source::Mirror.as_str());
    for (name, value) in body.headers() {
        response = response.header(*name, value);
    }
    let content = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stream::try_unfold((domain, body), |(domain, mut body)| async move {
            let chunk = body.chunk().await?;
            Ok::<_, mirrors::FetchError>(chunk.map(|bytes| {
                domain.stats.sent(Source::Mirror, bytes.len() as u64);
                (bytes, (domain, body))
            }))
        }))
    };
    response.body(content).unwrap_or_default()
}
