//! Questions: what is ready as a binary package, why something is not, and what there is.
//!
//! In reading order: [`weather`] foresees what becomes of each package of a plan; [`cause`] says in one line why one is not
//! had, looking at each [`instance`] there is; [`estimate`] knows from ended jobs how long builds take; [`why`] says all that
//! is known of one package; [`search`] finds packages by words.
//!
//! **Invariants.** A question changes nothing: no job is begun, nothing is fetched but words. The plan is the one that
//! `peer build` would make; what it decides is not decided a second time here.

pub mod cause;
pub mod estimate;
pub mod instance;
pub mod search;
pub mod weather;
pub mod why;

use crate::domain::Domain;
use crate::swarm::PeerId;

/// What a node is called.
#[must_use]
pub fn name_of(domain: &Domain, peer: &PeerId) -> String {
    domain.groups.name(peer)
}
