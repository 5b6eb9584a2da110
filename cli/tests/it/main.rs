//! Tests of the real binary: what only the wiring of processes can break, with the real Portage, nginx, curl-like
//! clients and `kill -9` around it.
//!
//! Rooms that set the stage: `peer` (a real daemon), `builder` (a machine that builds), `gentoo` (ebuild repositories), `portage` (a client machine),
//! `upstream` (nginx), `fault_server` (a mirror that misbehaves), `http` (a plain HTTP client), `network` (machines
//! with addresses of their own), `members` (groups of daemons), `workshop`
//! (machines that build for each other), `terminal` (somebody at a terminal), `selection` (what atoms and sets choose from), `canaries` (bytes that must be nowhere), `noise` (contents),
//! `wait` (deadlines and signals). The others are tests, one subject a room.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "the rules of the product's rooms; a test writes files and starts processes, and says so when it cannot"
)]

mod answers;
mod builder;
mod canaries;
mod cbor;
mod fault_server;
mod gentoo;
mod http;
mod members;
mod network;
mod noise;
mod offload;
mod peer;
mod portage;
mod selection;
mod terminal;
mod upstream;
mod wait;
mod workshop;

mod bad_input;
mod build;
mod build_crash;
mod build_jobs;
mod build_liars;
mod build_words;
mod crash;
mod crowd;
mod doctor;
mod emerge_asked;
mod emerge_wrapper;
mod examples;
mod fall_backs;
mod first_look;
mod full_disk;
mod group_packages;
mod groups;
mod groups_gone;
mod groups_roles;
mod hostile_build;
mod http_semantics;
mod jobs_again;
mod lan;
mod layouts;
mod leases;
mod liar;
mod links;
mod match_portage;
mod mirror_faults;
mod no_open_proxy;
mod offload_dag;
mod offload_faults;
mod offload_guests;
mod offload_lan;
mod offload_liars;
mod offload_refused;
mod offload_secrets;
mod offload_stranger;
mod offload_versions;
mod pages;
mod peer_faults;
mod questions;
mod questions_hostile;
mod real_ebuild;
mod recipe;
mod redirects_inside;
mod relay;
mod repositories;
mod restrict;
mod search;
mod shutdown;
mod signed;
mod stage;
mod status_page;
mod substitutes;
mod swarm;
mod targets;
mod tidy;
mod usable;
mod usable_guests;
mod usable_table;
mod verbs;
mod weather;
mod why;
mod wrapper;
