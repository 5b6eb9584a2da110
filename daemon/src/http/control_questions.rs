//! Questions on the control socket: weather, why, search.

use super::control::{TARGETS_MAX, lines, refusal};
use super::control_builds::{is_word, what_went_wrong};
use crate::api_questions::{QuestionLine, SearchRequest, WeatherRequest, WhyRequest};
use crate::builds::RequestError;
use crate::domain::Domain;
use crate::questions::search::{WORD_BYTES_MAX, WORDS_MAX};
use crate::questions::{search, weather, why};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The routes.
pub(super) fn router() -> Router<Arc<Domain>> {
    Router::new().route("/v1/weather", post(foresee)).route("/v1/why", post(explain)).route("/v1/search", post(find))
}

async fn foresee(State(domain): State<Arc<Domain>>, Json(request): Json<WeatherRequest>) -> Response {
    if let Some(refusal) = no_atoms(&request.atoms) {
        return refusal;
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "weather", async move { weather::weather(&asking, &request.atoms, &request.options).await })
}

async fn explain(State(domain): State<Arc<Domain>>, Json(request): Json<WhyRequest>) -> Response {
    if let Some(refusal) = no_atoms(std::slice::from_ref(&request.atom)) {
        return refusal;
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "why", async move { why::why(&asking, &request.atom).await })
}

async fn find(State(domain): State<Arc<Domain>>, Json(request): Json<SearchRequest>) -> Response {
    let good = |word: &String| !word.is_empty() && word.len() <= WORD_BYTES_MAX;
    if request.words.is_empty() || request.words.len() > WORDS_MAX || !request.words.iter().all(good) {
        let expected = format!("a search has 1 to {WORDS_MAX} words of at most {WORD_BYTES_MAX} bytes");
        return refusal(StatusCode::BAD_REQUEST, expected, None);
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "search", async move { Ok(search::local(&asking, &request.words).await) })
}

/// Refuses what is no list of atoms.
fn no_atoms(atoms: &[String]) -> Option<Response> {
    if atoms.is_empty() || atoms.len() > TARGETS_MAX {
        return Some(refusal(StatusCode::BAD_REQUEST, format!("a question names 1 to {TARGETS_MAX} atoms"), None));
    }
    let wrong = atoms.iter().find(|atom| !is_word(atom))?;
    Some(refusal(StatusCode::BAD_REQUEST, format!("{wrong:?} is no atom"), None))
}

/// One line, once there is an answer; the client hears until then that there will be one.
fn answered<T: Serialize + Send + 'static>(
    domain: &Arc<Domain>,
    name: &'static str,
    question: impl Future<Output = Result<T, RequestError>> + Send + 'static,
) -> Response {
    let (tell, receiver) = mpsc::channel(1);
    domain.tasks.spawn(name, async move {
        let line = tokio::select! {
            biased;
            () = tell.closed() => return,
            answer = question => match answer {
                Ok(answer) => QuestionLine::Answer(answer),
                Err(error) => {
                    let wrong = what_went_wrong(&error);
                    QuestionLine::Refused { error: wrong.error, hint: wrong.hint, said: wrong.said, no: wrong.no }
                }
            },
        };
        // Who left wants no answer.
        let _gone = tell.send(line).await;
    });
    lines(receiver)
}
