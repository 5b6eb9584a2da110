//! A build that touches nothing: the real bwrap behind a typed policy.
//!
//! The policy, its bwrap arguments and the phases of a build come with `peer build`. What is here already is the only
//! place of the workspace that starts processes, [`spawn`]: bounded in time and in output, with an environment of its
//! own and nothing left behind.

pub mod spawn;
