//! Questions on the control socket: the weather.

use super::control::{TARGETS_MAX, lines, refusal};
use super::control_builds::{is_word, what_went_wrong};
use crate::api_questions::{QuestionLine, WeatherRequest};
use crate::builds::RequestError;
use crate::domain::Domain;
use crate::questions::weather;
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
    Router::new().route("/v1/weather", post(foresee))
}

async fn foresee(State(domain): State<Arc<Domain>>, Json(request): Json<WeatherRequest>) -> Response {
    if let Some(refusal) = no_atoms(&request.atoms) {
        return refusal;
    }
    let asking = Arc::clone(&domain);
    answered(&domain, "weather", async move { weather::weather(&asking, &request.atoms, &request.options).await })
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
