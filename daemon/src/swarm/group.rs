//! Questions of a group (`/peerage/group/1`), both ends: bytes about a topic are asked, and answered with bytes.
//!
//! Whoever is connected may ask, near or far: who joins is a stranger until it has shown its ticket. Who is answered what is not for
//! this room; here both are bytes, bounded in length, number and time.

use super::asking::{Question, ask_at, say};
use super::body::OpenError;
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{ANSWER_BYTES_MAX, GroupAnswer, GroupRequest};
use libp2p::{Multiaddr, PeerId};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// No answer takes longer to be found: a little more than who asks waits.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(130);

impl Question for GroupRequest {
    type Answer = GroupAnswer;
    const PROTOCOL: Protocol = Protocol::Group;

    fn busy() -> GroupAnswer {
        GroupAnswer::Busy
    }

    async fn answer(&self, state: &Arc<State>, peer: PeerId, pipe: &mut Pipe) -> io::Result<()> {
        if state.is_banned(&peer) {
            return say(pipe, &GroupAnswer::Refused).await;
        }
        let Some(answering) = state.group_answers().enter_or_push(state.who(&peer)) else {
            return say(pipe, &GroupAnswer::Busy).await;
        };
        let found = state.holdings().answer(peer, self.topic, self.question.clone());
        let found = tokio::time::timeout(ANSWER_TIME_MAX, found);
        let found = tokio::select! {
            () = answering.ended() => return say(pipe, &GroupAnswer::Busy).await,
            found = found => found,
        };
        let said = match found {
            Ok(Some(said)) if said.len() <= ANSWER_BYTES_MAX => GroupAnswer::Said(said),
            Ok(Some(long)) => {
                tracing::warn!(%peer, topic = ?self.topic, bytes = long.len(), "an answer is too long to be sent");
                GroupAnswer::Refused
            }
            Ok(None) => GroupAnswer::Refused,
            Err(_elapsed) => GroupAnswer::Busy,
        };
        if let GroupAnswer::Said(said) = &said
            && let Some(pause) = state.upload_pause(said.len())
        {
            tokio::time::sleep(pause).await;
        }
        say(pipe, &said).await
    }
}

/// Asks a peer; see [`super::Swarm::ask_at`].
pub(super) async fn ask_peer(
    state: &State,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    request: &GroupRequest,
    deadline: Duration,
) -> Result<Vec<u8>, OpenError> {
    let (pipe, answer) = ask_at(state, peer, addresses, request, deadline).await?;
    match answer {
        GroupAnswer::Said(said) => {
            state.keep_pipe(&peer, Protocol::Group, pipe);
            Ok(said)
        }
        GroupAnswer::Busy => Err(OpenError::Busy { peer }),
        GroupAnswer::Refused => Err(OpenError::Refused { peer }),
    }
}
