//! Telling connected peers what we hold, and hearing what they hold: the whole list at connect, then every change.
//!
//! One stream each way for the life of the connection; only its opener speaks. The stream keeps the connection alive.

use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{Have, read_frame, write_frame};
use futures::AsyncReadExt as _;
use libp2p::PeerId;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often telling is begun anew on a connection that stays.
const TELL_ATTEMPTS: u32 = 5;
/// The pause before the next attempt.
const TELL_PAUSE: Duration = Duration::from_secs(2);
/// One frame must go out in this time.
const TELL_FRAME_MAX: Duration = Duration::from_secs(60);

/// Tells a peer what we hold until it is gone or another task tells it. Cancel safe: yes.
pub(super) async fn tell(state: Arc<State>, peer: PeerId, number: u64) {
    for _ in 0..TELL_ATTEMPTS {
        if !state.is_told_by(&peer, number) {
            break;
        }
        if let Err(error) = tell_once(&state, peer).await {
            tracing::debug!(%peer, %error, "telling holdings ended");
        }
        if !state.is_told_by(&peer, number) {
            break;
        }
        tokio::time::sleep(TELL_PAUSE).await;
    }
    state.untold(&peer, number);
}

async fn tell_once(state: &State, peer: PeerId) -> io::Result<()> {
    let mut pipe = state.open_pipe(peer, Vec::new(), Protocol::Have).await?;
    loop {
        let (mut changes, list) = state.subscribe();
        for frame in &list {
            send(&mut pipe, frame).await?;
        }
        loop {
            let mut nothing = [0];
            let change = tokio::select! {
                change = changes.recv() => change,
                // The other end says nothing on this stream: whatever comes is its end.
                ended = pipe.read(&mut nothing) => return ended.map(drop),
            };
            match change {
                Ok(frame) => send(&mut pipe, &frame).await?,
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}

async fn send(pipe: &mut Pipe, frame: &Have) -> io::Result<()> {
    let sent = tokio::time::timeout(TELL_FRAME_MAX, write_frame(pipe, frame)).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Hears what a peer holds until it ends the stream. Cancel safe: yes.
pub(super) async fn hear(state: Arc<State>, peer: PeerId, mut pipe: Pipe) {
    let Some(number) = state.have_stream(&peer) else { return };
    loop {
        match read_frame::<Have>(&mut pipe).await {
            Ok(have) => {
                if !state.heard(&peer, number, have) {
                    break;
                }
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "hearing holdings ended");
                break;
            }
        }
    }
    state.unheard(&peer, number);
}
