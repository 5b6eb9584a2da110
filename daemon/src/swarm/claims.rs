//! Claims on a recipe (`/peerage/claims/1`), both ends: a fingerprint is asked, and answered with what is claimed of its outcome.
//!
//! Whether a claim is signed, and by whom, is not for this room: here they are bytes, few and short.

use super::asking::{Question, ask, say};
use super::body::OpenError;
use super::state::{Protocol, State};
use super::streams::Pipe;
use super::wire::{CLAIM_BYTES_MAX, CLAIMS_MAX, ClaimsAnswer, ClaimsRequest, Key};
use libp2p::PeerId;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tree::digest::Digest;

impl Question for ClaimsRequest {
    type Answer = ClaimsAnswer;
    const PROTOCOL: Protocol = Protocol::Claims;

    fn busy() -> ClaimsAnswer {
        ClaimsAnswer::Busy
    }

    async fn answer(&self, state: &Arc<State>, peer: PeerId, pipe: &mut Pipe) -> io::Result<()> {
        if !state.serves(&peer) {
            return say(pipe, &ClaimsAnswer::Refused).await;
        }
        let Some(answering) = state.claim_answers().enter_or_push(state.who(&peer)) else {
            return say(pipe, &ClaimsAnswer::Busy).await;
        };
        let mut claims = tokio::select! {
            () = answering.ended() => return say(pipe, &ClaimsAnswer::Busy).await,
            claims = state.claims(self.fingerprint, peer) => claims,
        };
        // More would be taken for a lie by who asked.
        claims.retain(|claim| claim.len() <= CLAIM_BYTES_MAX);
        claims.truncate(CLAIMS_MAX);
        if let Some(pause) = state.upload_pause(claims.iter().map(Vec::len).fold(0, usize::saturating_add)) {
            tokio::time::sleep(pause).await;
        }
        say(pipe, &ClaimsAnswer::Claims(claims)).await
    }
}

/// Asks a peer; see [`super::Swarm::claims`].
pub(super) async fn of_peer(
    state: &State,
    peer: PeerId,
    fingerprint: &Digest,
    deadline: Duration,
) -> Result<Vec<Vec<u8>>, OpenError> {
    let (pipe, answer) = ask(state, peer, &ClaimsRequest { fingerprint: *fingerprint }, deadline).await?;
    match answer {
        ClaimsAnswer::Claims(claims) => {
            if claims.is_empty() {
                state.not_held(&peer, &Key::from(fingerprint));
            }
            state.keep_pipe(&peer, Protocol::Claims, pipe);
            Ok(claims)
        }
        ClaimsAnswer::Busy => Err(OpenError::Busy { peer }),
        ClaimsAnswer::Refused => Err(OpenError::Refused { peer }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::state::Command;
    use crate::swarm::wire::{DecodeError, FrameError, Message as _};
    use crate::swarm::{Config, Held, Holdings, Offence};
    use crate::tasks::Tasks;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    struct Nothing;

    impl Holdings for Nothing {
        fn open(&self, _: &Digest, _: &PeerId) -> Option<Held> {
            None
        }

        fn announced(&self) -> Vec<Digest> {
            Vec::new()
        }
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    /// What comes of asking a peer that reads the question, says these bytes, and hangs up.
    async fn asked_of_one_that_says(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, OpenError> {
        let (state, mut commands) = State::new(PeerId::random(), Config::default(), Arc::new(Nothing), &Tasks::new());
        let (peer, fingerprint) = (PeerId::random(), Digest::of(b"recipe"));
        let liar = async move {
            let Some(Command::Open { protocol: Protocol::Claims, answer, .. }) = commands.recv().await else {
                panic!("another command")
            };
            let (near, far) = tokio::io::duplex(1 << 20);
            answer.send(Ok(Pipe::new(near.compat()))).unwrap();
            let mut far = far.compat();
            let mut question = vec![0; 4 + ClaimsRequest { fingerprint }.encode().len()];
            far.read_exact(&mut question).await.unwrap();
            far.write_all(&bytes).await.unwrap();
        };
        futures::join!(of_peer(&state, peer, &fingerprint, Duration::from_secs(30)), liar).0
    }

    #[tokio::test]
    async fn lies_of_every_kind_are_told_apart_from_claims_and_blamed() {
        let claims = |claims| framed(&ClaimsAnswer::Claims(claims).encode());
        let honest = asked_of_one_that_says(claims(vec![vec![1], vec![2; 4096]])).await;
        assert_eq!(honest.unwrap(), [vec![1], vec![2; 4096]]);
        let many = asked_of_one_that_says(claims(vec![vec![1]; 17])).await.unwrap_err();
        let decoded = |error: &OpenError| match error {
            OpenError::Broken { source: FrameError::Decode(error), .. } => format!("{error:?}"),
            other => panic!("{other}"),
        };
        assert_eq!(decoded(&many), format!("{:?}", DecodeError::TooMany { count: 17, max: 16 }));
        let long = asked_of_one_that_says(claims(vec![vec![1; 4097]])).await.unwrap_err();
        assert_eq!(decoded(&long), format!("{:?}", DecodeError::EntryLength { length: 4097, max: 4096 }));
        let garbage = asked_of_one_that_says(framed(b"garbage")).await.unwrap_err();
        assert!(decoded(&garbage).starts_with("Shape"));
        let endless = asked_of_one_that_says(vec![0xff; 100]).await.unwrap_err();
        assert!(matches!(endless, OpenError::Broken { source: FrameError::TooLong { .. }, .. }), "{endless}");
        let half = asked_of_one_that_says(claims(vec![vec![1; 100]])[..50].to_vec()).await.unwrap_err();
        assert!(matches!(half, OpenError::Broken { source: FrameError::Stream(_), .. }), "{half}");
        for lie in [many, long, garbage, endless] {
            assert_eq!(lie.offence(), Some(Offence::Broken));
        }
        assert_eq!(half.offence(), Some(Offence::Failing), "who cut it cannot be known");
    }

    #[tokio::test]
    async fn a_peer_of_a_version_without_claims_is_not_blamed() {
        let (state, mut commands) = State::new(PeerId::random(), Config::default(), Arc::new(Nothing), &Tasks::new());
        let old = async move {
            let Some(Command::Open { answer, .. }) = commands.recv().await else { panic!("another command") };
            answer.send(Err(io::ErrorKind::Unsupported.into())).unwrap();
        };
        let fingerprint = Digest::of(b"recipe");
        let asked = of_peer(&state, PeerId::random(), &fingerprint, Duration::from_secs(30));
        let error = futures::join!(asked, old).0.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { .. }) && error.offence().is_none(), "{error}");
    }
}
