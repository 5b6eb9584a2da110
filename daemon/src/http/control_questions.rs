//! Questions on the control socket: weather, why, search.

use super::control::{TARGETS_MAX, lines, refusal};
use super::control_builds::{ON_HINT, what_went_wrong};
use crate::api_questions::{QuestionLine, SearchRequest, WeatherRequest, WhyRequest};
use crate::builds::offload::On;
use crate::builds::plan::is_word;
use crate::domain::Domain;
use crate::questions::search::{WORD_BYTES_MAX, WORDS_MAX};
use crate::questions::{QuestionError, members, search, weather, why};
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
    answered(&domain, "weather", async move {
        let WeatherRequest { atoms, options, domain, on } = &request;
        match domain {
            None => {
                let on = On::find(&asking, on.as_deref()).map_err(QuestionError::On)?;
                Ok(weather::to_begin(&asking, atoms, options, on).await?)
            }
            Some(member) => Ok(members::weather_of(&asking, member, atoms, options).await?),
        }
    })
}

async fn explain(State(domain): State<Arc<Domain>>, Json(request): Json<WhyRequest>) -> Response {
    if let Some(refusal) = no_atoms(std::slice::from_ref(&request.atom)) {
        return refusal;
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "why", async move { Ok(why::why(&asking, &request.atom).await?) })
}

async fn find(State(domain): State<Arc<Domain>>, Json(request): Json<SearchRequest>) -> Response {
    if !search::are_words(&request.words) {
        let expected = format!("a search has 1 to {WORDS_MAX} words of at most {WORD_BYTES_MAX} bytes");
        return refusal(StatusCode::BAD_REQUEST, expected, None);
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "search", async move {
        match &request.domain {
            None => Ok(search::everywhere(&asking, &request.words).await),
            Some(member) => Ok(search::of_member(&asking, member, &request.words).await?),
        }
    })
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
    question: impl Future<Output = Result<T, QuestionError>> + Send + 'static,
) -> Response {
    let (tell, receiver) = mpsc::channel(1);
    let asked = Arc::clone(domain);
    domain.tasks.spawn(name, async move {
        let answer = async {
            asked.repositories.first_look().await;
            question.await
        };
        let line = tokio::select! {
            biased;
            () = tell.closed() => return,
            answer = answer => match answer {
                Ok(answer) => QuestionLine::Answer(answer),
                Err(QuestionError::Member(error)) => QuestionLine::Refused {
                    error: crate::builds::with_causes(&error),
                    hint: Some("`peer peers` shows who is connected".to_owned()),
                    said: String::new(),
                    no: true,
                },
                Err(QuestionError::On(error)) => QuestionLine::Refused {
                    error: error.to_string(),
                    hint: Some(ON_HINT.to_owned()),
                    said: String::new(),
                    no: false,
                },
                Err(QuestionError::Request(error)) => {
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
