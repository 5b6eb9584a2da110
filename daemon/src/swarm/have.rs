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
use tokio::time::Instant;

/// How often telling is begun anew on a connection that stays.
const TELL_ATTEMPTS: u32 = 5;
/// The pause before the next attempt.
const TELL_PAUSE: Duration = Duration::from_secs(2);
/// One frame must go out in this time.
const TELL_FRAME_MAX: Duration = Duration::from_secs(60);

/// Work that a peer may cause at once by telling what it holds, in changes of one prefix: a list of a million, or what a large
/// import brings.
const WORK_AT_ONCE: u64 = 160_000;
/// And in a second from then on: a tenth of a percent of a core.
const WORK_PER_SECOND: u64 = 4096;
/// No message costs less.
const WORK_MIN: u64 = 64;

/// What a message costs: a part of a list is appended, a change is looked up.
fn cost(have: &Have) -> u64 {
    let count = u64::try_from(have.len()).unwrap_or(u64::MAX);
    WORK_MIN.max(match have {
        Have::Snapshot { .. } => count / 8,
        Have::Delta { .. } => count,
    })
}

/// How much work a peer may still cause. Pure.
struct Allowance {
    left: u64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: WORK_AT_ONCE, at: now }
    }

    /// Spends so much, and answers how long to wait before the work is done.
    fn spend(&mut self, work: u64, now: Instant) -> Duration {
        let passed_ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let earned = passed_ms.saturating_mul(WORK_PER_SECOND) / 1000;
        let have = self.left.saturating_add(earned).min(WORK_AT_ONCE);
        let missing = work.saturating_sub(have);
        let pause = Duration::from_millis(missing.saturating_mul(1000).div_ceil(WORK_PER_SECOND));
        (self.left, self.at) = (have.saturating_sub(work), now + pause);
        pause
    }
}

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
    let mut allowance = Allowance::new(Instant::now());
    loop {
        match read_frame::<Have>(&mut pipe).await {
            Ok(have) => {
                tokio::time::sleep(allowance.spend(cost(&have), Instant::now())).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_at_once_and_a_flood_of_changes_at_its_pace() {
        let (start, delta) = (Instant::now(), |n: u32| Have::Delta { added: (0..n).collect(), removed: Vec::new() });
        let part = Have::Snapshot { first: true, prefixes: (0..65_536).collect() };
        let mut allowance = Allowance::new(start);
        assert!((0..16).all(|_| allowance.spend(cost(&part), start).is_zero()), "a million prefixes");
        let mut allowance = Allowance::new(start);
        assert!((0..2).all(|_| allowance.spend(cost(&delta(65_000)), start).is_zero()), "a large import");
        for message in [delta(65_000), delta(1), delta(0), part] {
            let (mut allowance, mut now, mut sent) = (Allowance::new(start), start, 0);
            while now < start + Duration::from_secs(600) {
                now += allowance.spend(cost(&message), now);
                sent += cost(&message);
            }
            let seconds = (now - start).as_secs() + 1;
            assert!(sent <= WORK_AT_ONCE + seconds * WORK_PER_SECOND, "{sent} in {seconds} s");
        }
    }
}
