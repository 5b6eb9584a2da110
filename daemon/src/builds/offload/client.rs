//! The client's end: one package is offered to one builder after another, until one made it, the ebuild failed, or nobody
//! is left; then it is built here, unless its user named the one builder.

use super::log::Log;
use super::transfer::{Lent, TransferError, fetch_package};
use super::wire::{Code, Offer, Said as _, ToBuilder, ToClient, VERSION};
use super::{HEARTBEAT, On, REACH_MAX, SILENCE_MAX, builders, word_counts};
use crate::api_builds::Tried;
use crate::blocking;
use crate::builds::capture::{self, CaptureError, Captured};
use crate::builds::claim::SignedClaim;
use crate::builds::jobs::Entry;
use crate::builds::plan::{Plan, Planned};
use crate::builds::substitute::{self, Substitute};
use crate::builds::{RequestError, with_causes};
use crate::domain::Domain;
use crate::swarm::{Dialogue, PeerId};
use rand::RngCore as _;
use rand::rngs::OsRng;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Pause before a builder that was busy is asked again, where no other may be.
const BUSY_PAUSE: Duration = Duration::from_secs(3);
/// A builder that was lost is asked once more: it may have gone on, or be here again.
const LOST_MAX: u32 = 1;
/// The one builder that the user named may be gone for so long in all.
const COMES_BACK_MAX: Duration = Duration::from_secs(40);
/// Lines of a refusal that are told with its reason; all of them are in the log.
const LINES_TOLD_MAX: usize = 6;
/// Builders that did not build a package are told of, up to so many.
const TRIED_MAX: usize = 32;

/// Why a package was not made elsewhere, and will not be made here instead.
#[derive(Debug, thiserror::Error)]
pub(in crate::builds) enum OffloadError {
    /// The ebuild itself failed.
    #[error("on {name}: {reason}")]
    Ebuild {
        /// The builder's name.
        name: String,
        /// In which phase.
        phase: String,
        /// Why.
        reason: String,
        /// The end of the log.
        tail: Vec<String>,
    },
    /// The builder that the user named did not build it.
    #[error("{name} does not build it: {reason}; `--on any` asks the others and builds here if nobody does")]
    Named {
        /// The builder's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The configuration is not given away, or cannot be told.
    #[error("it cannot be built elsewhere: {0}")]
    Capture(Arc<CaptureError>),
    /// A script of the user's takes part.
    #[error("it cannot be built elsewhere: /etc/portage/{0} takes part in its build, and scripts are given to nobody")]
    Private(String),
    /// No sandbox.
    #[error("{0}")]
    Sandbox(String),
    /// The user no longer wants it.
    #[error("cancelled")]
    Cancelled,
}

/// What one dialogue came to.
enum Outcome {
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
    Cancelled,
}

/// Everything one package needs to be given away.
struct Giving<'a> {
    domain: &'a Arc<Domain>,
    planned: &'a Planned,
    entry: &'a Arc<Entry>,
    captured: Arc<Captured>,
    on: On,
}

/// Has a package made by another machine; None when nobody who may be asked makes it, so that it is built here.
///
/// Cancel safe: no (a builder that was asked goes on); `entry` is looked at for the user's word.
pub(in crate::builds) async fn offload(
    domain: &Arc<Domain>,
    plan: &Plan,
    planned: &Planned,
    entry: &Arc<Entry>,
    on: On,
) -> Result<Option<Substitute>, OffloadError> {
    let named = matches!(on, On::Peer(_));
    let captured = match capturable(domain, plan, planned).await {
        Ok(captured) => captured,
        Err(error) if named => return Err(error),
        Err(error) => {
            tracing::info!(cpv = %planned.cpv, %error, "built here");
            return Ok(None);
        }
    };
    Giving { domain, planned, entry, captured, on }.run().await
}

async fn capturable(domain: &Arc<Domain>, plan: &Plan, planned: &Planned) -> Result<Arc<Captured>, OffloadError> {
    if let Some(script) = planned.private.first() {
        return Err(OffloadError::Private(script.clone()));
    }
    let sandbox =
        domain.builds.sandbox().map_err(|error| OffloadError::Sandbox(RequestError::from(error).to_string()))?;
    let inside = domain.builds.inside(domain).await;
    let inside = inside.map_err(|error| OffloadError::Sandbox(error.to_string()))?;
    let captured = plan.captured.get_or_try_init(|| async { capture::capture(&sandbox, &inside).await.map(Arc::new) });
    captured.await.cloned().map_err(|error| OffloadError::Capture(Arc::new(error)))
}

/// How the builders that were asked so far did.
#[derive(Default)]
struct Course {
    left_out: BTreeSet<PeerId>,
    lost: u32,
    lost_since: Option<Instant>,
    /// The one that was lost and is asked again, if it is still there: its name, and how it was lost.
    again: Option<(PeerId, String, String)>,
}

/// What follows from an outcome.
enum Step {
    /// The same builder again, after a pause if there is a reason to wait.
    Again(Option<&'static str>),
    /// Another one.
    Leave(String),
}

impl Giving<'_> {
    async fn run(self) -> Result<Option<Substitute>, OffloadError> {
        let offload = &self.domain.builds.offload;
        let mut course = Course::default();
        loop {
            let next = self.next(&course.left_out);
            if let Some((lost, name, reason)) = course.again.take().filter(|(lost, ..)| next != Some(*lost)) {
                self.failed_at(lost, &name, &reason);
                course.left_out.insert(lost);
            }
            let Some(peer) = next else { return Ok(None) };
            let name = self.domain.groups.name(&peer);
            self.entry.show(|job| {
                "offload".clone_into(&mut job.phase);
                (job.builder, job.builder_name) = (Some(peer.to_string()), Some(name.clone()));
                job.reason = Some(format!("offered to {name}"));
            });
            let begun = Instant::now();
            let given = offload.give(peer);
            let outcome = match self.attempt(peer).await {
                Outcome::Made(claim) => match self.collect(*claim).await {
                    Ok(found) => {
                        offload.praise(&peer);
                        return Ok(Some(found));
                    }
                    Err(outcome) => outcome,
                },
                outcome => outcome,
            };
            drop(given);
            match self.step(peer, &name, outcome, begun, &mut course)? {
                Step::Again(None) => {}
                Step::Again(Some(why)) => self.pause(why).await?,
                Step::Leave(reason) => {
                    course = Course { left_out: course.left_out, ..Course::default() };
                    course.left_out.insert(peer);
                    self.failed_at(peer, &name, &reason);
                    if matches!(self.on, On::Peer(_)) {
                        return Err(OffloadError::Named { name, reason });
                    }
                }
            }
        }
    }

    /// What to do after an attempt that brought nothing.
    fn step(
        &self,
        peer: PeerId,
        name: &str,
        outcome: Outcome,
        begun: Instant,
        course: &mut Course,
    ) -> Result<Step, OffloadError> {
        let offload = &self.domain.builds.offload;
        let (cpv, named) = (&self.planned.cpv, matches!(self.on, On::Peer(_)));
        let reached = !matches!(outcome, Outcome::Away(_));
        Ok(match outcome {
            Outcome::Made(_) | Outcome::Cancelled => return Err(OffloadError::Cancelled),
            Outcome::Failed { phase, reason, tail, ebuild: true } => {
                offload.praise(&peer);
                return Err(OffloadError::Ebuild { name: name.to_owned(), phase, reason, tail });
            }
            Outcome::Failed { phase, reason, .. } => {
                offload.note_failure(peer, begun.elapsed(), &reason);
                Step::Leave(format!("{phase}: {reason}"))
            }
            Outcome::Refused { code: Code::Busy, .. } if named => {
                Step::Again(Some("waits: the builder has enough to do"))
            }
            Outcome::Refused { code, reason, lines } => {
                tracing::info!(%cpv, builder = name, %code, reason, ?lines, "a builder refused");
                let lines: Vec<String> = lines.into_iter().take(LINES_TOLD_MAX).collect();
                Step::Leave(if lines.is_empty() { reason } else { format!("{reason} ({})", lines.join("; ")) })
            }
            Outcome::Liar(reason) => {
                tracing::warn!(%cpv, builder = name, reason, "a builder is believed no more");
                self.domain.builds.caught.add(peer);
                Step::Leave(reason)
            }
            Outcome::Lost(reason) | Outcome::Away(reason) => {
                if reached {
                    offload.note_failure(peer, begun.elapsed(), &reason);
                }
                let gone_for = course.lost_since.get_or_insert(begun).elapsed();
                // The only one that may build it may be starting again.
                let patient = named && gone_for < COMES_BACK_MAX;
                if (course.lost >= LOST_MAX && !patient) || offload.grounded(&peer).is_some() {
                    return Ok(Step::Leave(reason));
                }
                course.lost += 1;
                tracing::info!(%cpv, builder = name, reason, "a builder was lost and is asked again");
                course.again = Some((peer, name.to_owned(), reason));
                Step::Again(patient.then_some("waits: the builder was lost"))
            }
        })
    }

    /// Whom to ask next.
    fn next(&self, left_out: &BTreeSet<PeerId>) -> Option<PeerId> {
        match self.on {
            On::Peer(peer) => Some(peer),
            On::Local => None,
            On::Any | On::Policy => {
                let able = builders(self.domain, &self.planned.cpv, &self.planned.slot);
                able.into_iter().find(|peer| !left_out.contains(peer))
            }
        }
    }

    fn failed_at(&self, peer: PeerId, name: &str, reason: &str) {
        tracing::info!(cpv = %self.planned.cpv, builder = name, reason, "not built there");
        self.entry.show(|job| {
            (job.builder, job.builder_name) = (None, None);
            if job.tried.len() < TRIED_MAX {
                let (name, reason) = (name.to_owned(), reason.to_owned());
                job.tried.push(Tried { peer: peer.to_string(), name, reason });
            }
        });
    }

    async fn pause(&self, why: &str) -> Result<(), OffloadError> {
        self.entry.show(|job| job.reason = Some(why.to_owned()));
        let mut cancelled = self.entry.cancelled();
        tokio::select! {
            Ok(_true) = cancelled.wait_for(|cancelled| *cancelled) => Err(OffloadError::Cancelled),
            () = tokio::time::sleep(BUSY_PAUSE) => Ok(()),
        }
    }

    /// One dialogue with one builder.
    async fn attempt(&self, peer: PeerId) -> Outcome {
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
        let mut dialogue = match self.domain.swarm.converse(peer, REACH_MAX).await {
            Ok(dialogue) => dialogue,
            Err(error) => return Outcome::Away(with_causes(&error)),
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
            domain_size: self.captured.record.len() as u64,
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
                    // One that does not hear it notices that nobody waits.
                    let _said = dialogue.say(ToBuilder::Cancel {}.encode()).await;
                    dialogue.end().await;
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
            ToClient::Done { claim } => Some(match SignedClaim::try_from(claim.as_slice()) {
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
    async fn collect(&self, claim: SignedClaim) -> Result<Substitute, Outcome> {
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
                Err(error @ (TransferError::Bytes { .. } | TransferError::Size { .. } | TransferError::Finish(_))) => {
                    return Err(Outcome::Liar(with_causes(&error)));
                }
                Err(error) => return Err(Outcome::Lost(with_causes(&error))),
            },
        }
        let caught = &self.domain.builds.caught;
        match substitute::obtain(self.domain, self.planned, vec![claim], caught).await {
            Some(found) => Ok(found),
            None if caught.has(&peer) => Err(Outcome::Liar("its package is not what it says".to_owned())),
            None => Err(Outcome::Lost("its package did not come".to_owned())),
        }
    }
}

/// Until the user no longer wants a job; not `Send` is what `wait_for` answers.
async fn until_cancelled(cancelled: &mut watch::Receiver<bool>) {
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        // The sender lives as long as the job.
        std::future::pending::<()>().await;
    }
}
