//! The client's end: one package is offered to one builder after another, until one made it, the ebuild failed, or nobody
//! is left; then it is built here, unless its user named the one builder.

use super::transfer::{Lent, TransferError, fetch_package};
use super::wire::{Code, Offer, Said as _, ToBuilder, ToClient, VERSION};
use super::{HEARTBEAT, On, REACH_MAX, SILENCE_MAX, builders, word_counts};
use crate::api_builds::Tried;
use crate::blocking;
use crate::builds::capture::{self, CaptureError, Captured};
use crate::builds::claim::SignedClaim;
use crate::builds::jobs::Entry;
use crate::builds::local::{LOG, LOG_BYTES_MAX};
use crate::builds::plan::{Plan, Planned};
use crate::builds::substitute::{self, Substitute};
use crate::builds::{RequestError, with_causes};
use crate::domain::Domain;
use crate::swarm::{Dialogue, PeerId};
use rand::RngCore as _;
use rand::rngs::OsRng;
use sandbox::LogFile;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Pause before a builder that was busy is asked again, where no other may be.
const BUSY_PAUSE: Duration = Duration::from_secs(3);
/// A builder that was lost is asked once more: it may have gone on, or be here again.
const LOST_MAX: u32 = 1;
/// Builders that did not build a package are told of, up to so many.
const TRIED_MAX: usize = 32;
const DIRECTORY_MODE: u32 = 0o755;
/// Bytes of a line of a log.
const LINE_MAX_BYTES: usize = 8 * 1024;

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
    Refused { code: Code, reason: String, lines: Vec<String> },
    Failed { phase: String, reason: String, tail: Vec<String>, ebuild: bool },
    Lost(String),
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
    let inside = domain.builds.inside(domain);
    let captured = plan.captured.get_or_try_init(|| async { capture::capture(&sandbox, &inside).await.map(Arc::new) });
    captured.await.cloned().map_err(|error| OffloadError::Capture(Arc::new(error)))
}

impl Giving<'_> {
    async fn run(self) -> Result<Option<Substitute>, OffloadError> {
        let offload = &self.domain.builds.offload;
        let (mut left_out, mut lost) = (BTreeSet::new(), 0);
        loop {
            let Some(peer) = self.next(&left_out) else { return Ok(None) };
            let name = self.domain.groups.name(&peer);
            self.entry.show(|job| {
                "offload".clone_into(&mut job.phase);
                job.builder = Some(peer.to_string());
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
            let reason = match outcome {
                Outcome::Made(_) | Outcome::Cancelled => return Err(OffloadError::Cancelled),
                Outcome::Failed { phase, reason, tail, ebuild: true } => {
                    offload.praise(&peer);
                    return Err(OffloadError::Ebuild { name, phase, reason, tail });
                }
                Outcome::Failed { phase, reason, .. } => {
                    offload.note_failure(peer, begun.elapsed(), &reason);
                    format!("{phase}: {reason}")
                }
                Outcome::Refused { code: Code::Busy, .. } if matches!(self.on, On::Peer(_)) => {
                    self.pause().await?;
                    continue;
                }
                Outcome::Refused { code, reason, lines } => {
                    tracing::info!(cpv = %self.planned.cpv, builder = name, %code, reason, ?lines, "a builder refused");
                    let lines: Vec<String> = lines.into_iter().take(6).collect();
                    if lines.is_empty() { reason } else { format!("{reason} ({})", lines.join("; ")) }
                }
                Outcome::Liar(reason) => {
                    tracing::warn!(cpv = %self.planned.cpv, builder = name, reason, "a builder is believed no more");
                    self.domain.builds.caught.add(peer);
                    reason
                }
                Outcome::Lost(reason) => {
                    offload.note_failure(peer, begun.elapsed(), &reason);
                    if lost < LOST_MAX && offload.grounded(&peer).is_none() {
                        lost += 1;
                        tracing::info!(cpv = %self.planned.cpv, builder = name, reason, "a builder was lost and is asked again");
                        continue;
                    }
                    reason
                }
            };
            lost = 0;
            left_out.insert(peer);
            self.failed_at(peer, &name, &reason);
            if matches!(self.on, On::Peer(_)) {
                return Err(OffloadError::Named { name, reason });
            }
        }
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
            job.builder = None;
            if job.tried.len() < TRIED_MAX {
                let (name, reason) = (name.to_owned(), reason.to_owned());
                job.tried.push(Tried { peer: peer.to_string(), name, reason });
            }
        });
    }

    async fn pause(&self) -> Result<(), OffloadError> {
        self.entry.show(|job| job.reason = Some("waits: the builder has enough to do".to_owned()));
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
            return Outcome::Refused { code: Code::Busy, reason: why, lines: Vec::new() };
        }
        if !word_counts(self.domain, &peer, &self.planned.cpv, &self.planned.slot) {
            let why = "its word does not count here: its role is less than `sign`, and `peer trust` names no such key";
            return Outcome::Refused { code: Code::Role, reason: why.to_owned(), lines: Vec::new() };
        }
        let (lending, captured) = (Arc::clone(self.domain), Arc::clone(&self.captured));
        let lent = blocking::run(move || Lent::new(&lending, &captured, peer)).await;
        // Until the dialogue ended it may ask for blocks of the domain.
        let _lent = match lent {
            Ok(lent) => lent,
            Err(error) => {
                return Outcome::Failed {
                    phase: "offload".to_owned(),
                    reason: with_causes(&error),
                    tail: Vec::new(),
                    ebuild: false,
                };
            }
        };
        let mut dialogue = match self.domain.swarm.converse(peer, REACH_MAX).await {
            Ok(dialogue) => dialogue,
            Err(error) => return Outcome::Lost(with_causes(&error)),
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
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Outcome::Lost(format!("nothing was heard of it for {} s", SILENCE_MAX.as_secs()));
                    }
                    if let Err(error) = dialogue.say(ToBuilder::Alive {}.encode()).await {
                        return Outcome::Lost(error.to_string());
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

/// The builder's log as this machine keeps it.
struct Log {
    file: Option<LogFile>,
    /// What came since the last end of a line.
    rest: Vec<u8>,
    bytes: u64,
}

impl Log {
    fn new(domain: &Domain, entry: &Entry) -> Self {
        let dir = domain.builds.jobs.dir_of(entry.id());
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&dir);
        let file = made.and_then(|()| LogFile::create(&dir.join(LOG), LOG_BYTES_MAX));
        if let Err(error) = &file {
            tracing::warn!(job = entry.id(), %error, "the log of a builder is not kept");
        }
        Self { file: file.ok(), rest: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n').or_else(|| {
            // A line without end is cut.
            (self.rest.len() >= LINE_MAX_BYTES).then_some(LINE_MAX_BYTES - 1)
        }) {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if let Some(file) = &mut self.file
            && let Err(error) = file.line(text.trim_end_matches('\n'))
        {
            tracing::warn!(%error, "the log of a builder is not kept to its end");
            self.file = None;
        }
    }

    fn end(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest);
        }
        if let Some(mut file) = self.file.take()
            && let Err(error) = file.finish()
        {
            tracing::warn!(%error, "the log of a builder is not kept to its end");
        }
    }
}
