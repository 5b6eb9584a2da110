//! One dialogue with one builder: the package is offered, the builder is heard to its last word, and what it made is fetched and
//! looked at as every substitute is.

use super::client::Giving;
use super::log::Log;
use super::transfer::{Lent, fetch_package};
use super::wire::{Code, Offer, Said as _, ToBuilder, ToClient, VERSION};
use super::{HEARTBEAT, REACH_MAX, SILENCE_MAX, word_counts};
use crate::blocking;
use crate::builds::claim::SignedClaim;
use crate::builds::substitute::{self, Substitute};
use crate::builds::with_causes;
use crate::flight::ROOM_HINT;
use crate::swarm::{Dialogue, OpenError, PeerId};
use rand::RngCore as _;
use rand::rngs::OsRng;
use serde_bytes::ByteBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// A builder hears of a cancel within this, or notices that nobody waits.
const PARTING_MAX: Duration = Duration::from_secs(1);

/// What one dialogue came to.
pub(super) enum Outcome {
    Made(Box<SignedClaim>),
    Refused {
        code: Code,
        reason: String,
        lines: Vec<String>,
    },
    Failed {
        phase: String,
        reason: String,
        tail: Vec<String>,
        ebuild: bool,
    },
    Lost(String),
    /// It cannot be reached, which says nothing of how it builds.
    Away(String),
    Liar(String),
    /// There is no room for it on this machine.
    NoRoom(String),
    Cancelled,
}

impl Giving<'_> {
    /// One dialogue with one builder.
    pub(super) async fn attempt(&self, peer: PeerId) -> Outcome {
        if let Some(grounded) = self.domain.builds.offload.grounded(&peer) {
            let why =
                format!("it failed five times at once and is left alone for {} s: {}", grounded.for_s, grounded.why);
            return Outcome::Refused { code: Code::Role, reason: why, lines: Vec::new() };
        }
        if !word_counts(self.domain, &peer, &self.planned.cpv, &self.planned.slot) {
            let why = "its word does not count here: its role is less than `sign`, and `peer trust` names no such key";
            return Outcome::Refused { code: Code::Role, reason: why.to_owned(), lines: Vec::new() };
        }
        let (lending, captured) = (Arc::clone(self.domain), Arc::clone(&self.captured));
        let planned = self.planned.clone();
        let lent = blocking::run(move || Lent::new(&lending, &captured, &planned, peer)).await;
        // Until the dialogue ended it may ask for blocks of the domain.
        let _lent = match lent {
            Ok(lent) => lent,
            Err(error) => {
                // Of this machine: the builder has no part in it.
                return Outcome::Refused { code: Code::Domain, reason: with_causes(&error), lines: Vec::new() };
            }
        };
        let mut cancelled = self.entry.cancelled();
        let reached = tokio::select! {
            biased;
            () = until_cancelled(&mut cancelled) => return Outcome::Cancelled,
            reached = self.domain.swarm.converse(peer, REACH_MAX) => reached,
        };
        let mut dialogue = match reached {
            Ok(dialogue) => dialogue,
            Err(error) => {
                tracing::info!(builder = %peer, error = with_causes(&error), "a builder is not reached");
                return Outcome::Away(away(&error));
            }
        };
        if let Err(error) = dialogue.say(ToBuilder::Offer(Box::new(self.offer())).encode()).await {
            return Outcome::Lost(error.to_string());
        }
        self.listen(peer, dialogue).await
    }

    fn offer(&self) -> Offer {
        let mut lease = vec![0; 16];
        OsRng.fill_bytes(&mut lease);
        let recipe = &self.planned.recipe;
        let value = |name| recipe.value("environment", name).unwrap_or_default();
        Offer {
            v: VERSION,
            lease: ByteBuf::from(lease),
            cpv: self.planned.cpv.to_string(),
            repo: self.planned.repo.clone(),
            fingerprint: ByteBuf::from(recipe.fingerprint().as_bytes().as_slice()),
            recipe: recipe.text().to_owned(),
            domain: ByteBuf::from(self.captured.digest().as_bytes().as_slice()),
            // Within its bound, as it was captured.
            domain_size: (self.captured.record.len() as u64).try_into().unwrap_or_default(),
            arch: value("ARCH"),
            chost: value("CHOST"),
        }
    }

    /// Hears a builder to its last word.
    async fn listen(&self, peer: PeerId, mut dialogue: Dialogue) -> Outcome {
        let mut log = Log::new(self.domain, self.entry);
        let mut ticks = tokio::time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cancelled = self.entry.cancelled();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = until_cancelled(&mut cancelled) => {
                    let parting = async {
                        let _said = dialogue.say(ToBuilder::Cancel {}.encode()).await;
                        dialogue.end().await;
                    };
                    // One that does not hear it notices that nobody waits.
                    let _late = tokio::time::timeout(PARTING_MAX, parting).await;
                    return Outcome::Cancelled;
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Outcome::Lost(format!("nothing was heard of it for {} s", SILENCE_MAX.as_secs()));
                    }
                    if let Err(error) = dialogue.say(ToBuilder::Alive {}.encode()).await {
                        return Outcome::Lost(error.to_string());
                    }
                }
                frame = dialogue.hear() => {
                    let said = match frame {
                        Some(Ok(frame)) => ToClient::decode(&frame),
                        Some(Err(error)) => return Outcome::Lost(with_causes(&error)),
                        None => return Outcome::Lost("it hung up".to_owned()),
                    };
                    heard = Instant::now();
                    match said {
                        Ok(said) => if let Some(outcome) = self.heard(peer, said, &mut log) {
                            log.end();
                            return outcome;
                        },
                        Err(error) => return Outcome::Lost(error.to_string()),
                    }
                }
            }
        }
    }

    fn heard(&self, peer: PeerId, said: ToClient, log: &mut Log) -> Option<Outcome> {
        match said {
            ToClient::Alive {} => None,
            ToClient::Accepted { job } => {
                let name = self.domain.groups.name(&peer);
                tracing::debug!(cpv = %self.planned.cpv, builder = name, job, "accepted");
                self.entry.show(|own| own.reason = None);
                None
            }
            ToClient::Event { phase, reason, log: bytes } => {
                log.add(&bytes);
                let bytes = log.bytes;
                self.entry.show(|job| {
                    if let Some(phase) = phase {
                        job.phase = phase;
                    }
                    job.reason = reason;
                    job.log_bytes = bytes;
                });
                None
            }
            ToClient::Refused { code, reason, lines } => Some(Outcome::Refused { code, reason, lines }),
            ToClient::Failed { phase, reason, tail, ebuild } => Some(Outcome::Failed { phase, reason, tail, ebuild }),
            ToClient::Done { claim } => Some(match SignedClaim::of_receipt(&claim, &self.domain.swarm.peer_id()) {
                Ok(claim) => match self.wrong(peer, &claim) {
                    None => Outcome::Made(Box::new(claim)),
                    Some(why) => Outcome::Liar(why),
                },
                Err(error) => Outcome::Liar(error.to_string()),
            }),
        }
    }

    /// What is wrong with a claim as the answer to what was asked.
    fn wrong(&self, peer: PeerId, claim: &SignedClaim) -> Option<String> {
        let (said, planned) = (&claim.claim, self.planned);
        let why = if claim.builder != peer {
            "it gives the claim of another node"
        } else if said.fingerprint != planned.recipe.fingerprint() {
            "its claim is about another recipe"
        } else if said.cpv != planned.cpv || said.repo != planned.repo || said.slot != planned.slot {
            "its claim is about another package"
        } else {
            return None;
        };
        Some(why.to_owned())
    }

    /// The package of a right claim, looked at as every substitute is.
    pub(super) async fn collect(&self, claim: SignedClaim) -> Result<Substitute, Outcome> {
        let peer = claim.builder;
        self.entry.show(|job| {
            "substitute".clone_into(&mut job.phase);
            job.reason = None;
        });
        let mut cancelled = self.entry.cancelled();
        tokio::select! {
            biased;
            Ok(_true) = cancelled.wait_for(|cancelled| *cancelled) => return Err(Outcome::Cancelled),
            fetched = fetch_package(self.domain, &claim) => match fetched {
                Ok(_blob) => {}
                Err(error) if error.is_lie() => return Err(Outcome::Liar(with_causes(&error))),
                Err(error) if error.is_full() => {
                    return Err(Outcome::NoRoom(format!("{}; {ROOM_HINT}", with_causes(&error))));
                }
                Err(error) => return Err(Outcome::Lost(with_causes(&error))),
            },
        }
        let caught = &self.domain.builds.caught;
        match substitute::obtain(self.domain, self.planned, vec![claim], self.entry).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) if caught.has(&peer) => Err(Outcome::Liar("its package is not what it says".to_owned())),
            Ok(None) => Err(Outcome::Lost("its package did not come".to_owned())),
            Err(full) => Err(Outcome::NoRoom(full.to_string())),
        }
    }
}

/// Why a builder is not reached, for people; what the transport says is in the log.
fn away(error: &OpenError) -> String {
    match error {
        OpenError::Banned { .. } => "it is left alone for a while, for what it did before".to_owned(),
        _ => "it cannot be reached: is it on, and does its daemon run? `peer peers` shows who is connected".to_owned(),
    }
}

/// Until the user no longer wants a job; not `Send` is what `wait_for` answers.
pub(super) async fn until_cancelled(cancelled: &mut watch::Receiver<bool>) {
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        // The sender lives as long as the job.
        std::future::pending::<()>().await;
    }
}
