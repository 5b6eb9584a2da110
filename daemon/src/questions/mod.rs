//! Questions: what is ready as a binary package, why something is not, and what there is.
//!
//! In reading order: [`weather`] foresees what becomes of each package of a plan; [`cause`] says in one line why one is not
//! had, looking at each [`instance`] there is; [`estimate`] knows from ended jobs how long builds take; [`why`] says all that
//! is known of one package; [`search`] finds packages by words and [`show`] shows what there is of one; [`members`] asks others the same
//! and answers them.
//!
//! **Invariants.** A question changes nothing: no job is begun, nothing is fetched but words. The plan is the one that
//! `peer build` would make; what it decides is not decided a second time here.

pub mod cause;
pub mod estimate;
pub mod instance;
pub mod members;
pub mod search;
pub mod show;
pub mod weather;
pub mod why;

use crate::builds::RequestError;
use crate::domain::Domain;
use crate::group::FindMemberError;
use crate::swarm::PeerId;
use members::AskMemberError;
use search::Descriptions;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// Weathers that are made for members at the same time: each is a run of Portage's resolver.
const WEATHERS_MAX: usize = 1;
/// Runs of Portage at the same time that only say which ebuilds are meant.
const CHOOSING_MAX: usize = 2;

/// What questions keep between them.
#[derive(Debug)]
pub struct Questions {
    descriptions: Descriptions,
    weathers: Semaphore,
    /// Turns at asking Portage what atoms and sets mean.
    pub(crate) choosing: Semaphore,
    /// Whether it ever said so.
    pub(crate) portage_answers: AtomicBool,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            descriptions: Descriptions::default(),
            weathers: Semaphore::new(WEATHERS_MAX),
            choosing: Semaphore::new(CHOOSING_MAX),
            portage_answers: AtomicBool::default(),
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// There is no plan.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No machine is called so.
    #[error(transparent)]
    On(FindMemberError),
    /// The member that was asked gave none.
    #[error(transparent)]
    Member(#[from] AskMemberError),
}

/// What a node is called.
#[must_use]
pub fn name_of(domain: &Domain, peer: &PeerId) -> String {
    domain.groups.name(peer)
}
