//! The client's end: one package is offered to one builder after another, until one made it, the ebuild failed, or nobody
//! is left; then it is built here, unless its user named the one builder.

use super::attempt::Outcome;
use super::wire::Code;
use super::{On, builders};
use crate::api_builds::Tried;
use crate::builds::RequestError;
use crate::builds::capture::{self, CaptureError, Captured};
use crate::builds::jobs::Entry;
use crate::builds::plan::{Plan, Planned};
use crate::builds::substitute::Substitute;
use crate::domain::Domain;
use crate::swarm::PeerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before a builder that was busy is asked again, where no other may be.
const BUSY_PAUSE: Duration = Duration::from_secs(3);
/// A builder that was lost is asked once more: it may have gone on, or be here again.
const LOST_MAX: u32 = 1;
/// The one builder that the user named may be gone for so long in all, once it was there.
const COMES_BACK_MAX: Duration = Duration::from_secs(40);
/// One that was never there is waited for only as long as a start of its daemon takes.
const ANSWERS_MAX: Duration = Duration::from_secs(8);
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
    /// It was built, and there is no room for it here.
    #[error("it was built on {name} and cannot be kept here: {reason}")]
    NoRoom {
        /// The builder's name.
        name: String,
        /// What the store says.
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

/// Everything one package needs to be given away.
pub(super) struct Giving<'a> {
    pub(super) domain: &'a Arc<Domain>,
    pub(super) planned: &'a Planned,
    pub(super) entry: &'a Arc<Entry>,
    pub(super) captured: Arc<Captured>,
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
            entry.tell(format!("built here: {error}"));
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
    /// Whether it was there before.
    met: bool,
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
        // One that was asked before the daemon was restarted may be on its way back too.
        let met = self.entry.now().attempt > 1;
        let mut course = Course { met, ..Course::default() };
        loop {
            let next = self.next(&course.left_out);
            if let Some((lost, name, reason)) = course.again.take().filter(|(lost, ..)| next != Some(*lost)) {
                self.failed_at(lost, &name, &reason);
                course.left_out.insert(lost);
            }
            let Some(peer) = next else {
                self.entry.tell("built here: nobody else may be asked to build it".to_owned());
                return Ok(None);
            };
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
            Outcome::NoRoom(reason) => return Err(OffloadError::NoRoom { name: name.to_owned(), reason }),
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
                course.met |= reached;
                let gone_for = course.lost_since.get_or_insert(begun).elapsed();
                // The only one that may build it may be starting again.
                let bound = if course.met { COMES_BACK_MAX } else { ANSWERS_MAX };
                let patient = named && gone_for < bound;
                if (course.lost >= LOST_MAX && !patient) || offload.grounded(&peer).is_some() {
                    return Ok(Step::Leave(reason));
                }
                course.lost += 1;
                let what = if reached { format!("{name} was lost ({reason})") } else { format!("{name}: {reason}") };
                let until = if patient { format!(" for {} s", bound.as_secs()) } else { String::new() };
                self.entry.tell(format!("{what}: it is asked again{until}"));
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
        self.entry.tell(format!("not built on {name}: {reason}"));
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
}
