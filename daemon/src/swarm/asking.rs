//! Questions and answers one after another on a stream, both ends of it: what blobs and claims have in common.
//!
//! The asking end keeps a stream that stands at the next question's place. The answering end gives each peer few places for
//! streams of a protocol, and a stream neither waits nor sends for long.

use super::body::OpenError;
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{FrameError, Message, read_frame, write_frame};
use futures::AsyncWriteExt as _;
use libp2p::{Multiaddr, PeerId};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A stream beyond the peer's places waits so long for one: those it has just given up may not have been noticed yet.
const PLACE_WAIT_MAX: Duration = Duration::from_millis(250);
/// A stream without a question for so long is closed; longer than a client keeps it idle.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(60);
/// One step must leave in this time: 256 KiB in 30 s is 9 KB/s.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// A message that asks for another, and how it is answered here.
pub(super) trait Question: Message + Send + Sync + 'static {
    /// What it is answered with. More may follow on the stream, as the answer says.
    type Answer: Message + Send + Sync;
    /// The streams it goes over; only such questions are on them.
    const PROTOCOL: Protocol;

    /// The answer to a peer that asks too much.
    fn busy() -> Self::Answer;

    /// Says the answer, and what follows it. An error ends the stream. Cancel safe: no (the stream is cut then).
    fn answer(&self, state: &Arc<State>, peer: PeerId, pipe: &mut Pipe) -> impl Future<Output = io::Result<()>> + Send;
}

/// Answers one stream to its end. Cancel safe: yes (the stream is cut).
pub(super) async fn serve<Q: Question>(state: Arc<State>, peer: PeerId, mut pipe: Pipe) {
    let Some(places) = state.places(&peer, Q::PROTOCOL) else { return };
    let Ok(Ok(place)) = tokio::time::timeout(PLACE_WAIT_MAX, places.acquire_owned()).await else {
        let refused = refuse::<Q>(&mut pipe).await;
        tracing::debug!(%peer, protocol = ?Q::PROTOCOL, ?refused, "too many streams");
        return;
    };
    loop {
        let Ok(asked) = tokio::time::timeout(QUESTION_WAIT_MAX, read_frame::<Q>(&mut pipe)).await else {
            break;
        };
        let answered = match asked {
            Ok(question) => {
                state.moved(peer);
                question.answer(&state, peer, &mut pipe).await
            }
            Err(error) => {
                tracing::trace!(%peer, %error, protocol = ?Q::PROTOCOL, "a stream ended");
                break;
            }
        };
        if let Err(error) = answered {
            tracing::debug!(%peer, %error, protocol = ?Q::PROTOCOL, "an answer was not sent to its end");
            break;
        }
    }
    drop(place);
}

/// Reads the question before refusing it, so that the answer is not lost to a reset.
async fn refuse<Q: Question>(pipe: &mut Pipe) -> io::Result<()> {
    let asked = tokio::time::timeout(STEP_TIME_MAX, read_frame::<Q>(pipe)).await;
    if !matches!(asked, Ok(Ok(_))) {
        return Ok(());
    }
    say(pipe, &Q::busy()).await?;
    pipe.close().await
}

pub(super) async fn say(pipe: &mut Pipe, answer: &impl Message) -> io::Result<()> {
    in_time(write_frame(pipe, answer)).await
}

pub(super) async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STEP_TIME_MAX, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks a peer, unless it is banned, and waits so long for its answer, dialling included. Cancel safe: yes.
pub(super) async fn ask<Q: Question>(
    state: &State,
    peer: PeerId,
    question: &Q,
    deadline: Duration,
) -> Result<(Pipe, Q::Answer), OpenError> {
    ask_at(state, peer, Vec::new(), question, deadline).await
}

/// As [`ask`], of a peer that may be dialled at these addresses too. Cancel safe: yes.
pub(super) async fn ask_at<Q: Question>(
    state: &State,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    question: &Q,
    deadline: Duration,
) -> Result<(Pipe, Q::Answer), OpenError> {
    if state.is_banned(&peer) {
        return Err(OpenError::Banned { peer });
    }
    let asked = tokio::time::timeout(deadline, ask_at_leisure(state, peer, addresses, question)).await;
    asked.unwrap_or(Err(OpenError::NoAnswer { peer, after: deadline }))
}

/// Asks over an idle stream when there is one, which may have died meanwhile; then over a new one.
async fn ask_at_leisure<Q: Question>(
    state: &State,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    question: &Q,
) -> Result<(Pipe, Q::Answer), OpenError> {
    if let Some(pipe) = state.idle_pipe(&peer, Q::PROTOCOL)
        && let Ok(answered) = ask_over(pipe, question).await
    {
        return Ok(answered);
    }
    let pipe = state.open_pipe(peer, addresses, Q::PROTOCOL).await;
    let pipe = pipe.map_err(|source| OpenError::Unreachable { peer, source })?;
    ask_over(pipe, question).await.map_err(|source| OpenError::Broken { peer, source })
}

async fn ask_over<Q: Question>(mut pipe: Pipe, question: &Q) -> Result<(Pipe, Q::Answer), FrameError> {
    write_frame(&mut pipe, question).await.map_err(FrameError::Stream)?;
    let answer = read_frame(&mut pipe).await?;
    Ok((pipe, answer))
}
