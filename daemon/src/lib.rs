//! The whole, running: one node of Peerage.
//!
//! In reading order: [`config`] says how, [`domain`] puts the parts together, [`fetcher`] is the only way bytes come in,
//! [`http`] the way they go to Portage and [`announce`] the way they go to peers. [`run`] is the life of the process.

pub mod announce;
pub mod api;
pub mod api_builds;
pub mod api_doctor;
pub mod api_group;
pub mod api_key;
pub mod api_questions;
pub mod binhost;
pub mod blocking;
pub mod budget;
pub mod buffers;
pub mod builds;
mod causes;
pub mod config;
pub mod config_build;
pub mod config_offload;
pub mod doctor;
pub mod domain;
pub mod fetcher;
pub mod flight;
pub mod gives;
pub mod group;
pub mod http;
pub mod import;
pub mod ingest;
pub mod kept;
pub mod keyring;
pub mod machine;
pub mod openpgp;
pub mod panics;
pub mod pins;
pub mod portage;
mod private_files;
pub mod questions;
pub mod repositories;
pub mod setup;
pub mod sizes;
pub mod snapshot;
pub mod sources;
mod start;
pub mod statement;
pub mod stats;
pub mod surroundings;
pub mod swarm;
pub mod targets;
pub mod tasks;
mod upkeep;

pub use start::{RunError, peer_id_of, run};
