//! Bytes by HTTP: Gentoo mirrors and upstream hosts, with health and patience.
//!
//! In reading order: [`layout`] says where a mirror keeps a file, [`plan`] turns "this distfile, under these
//! restrictions" into an ordered list of candidates, [`http`] makes one GET of one candidate, [`health`] remembers how it
//! went, [`rounds`] goes through the plan, [`pass`] hands through the two trees that no Manifest names (`/snapshots/`,
//! `/releases/`), [`pace`] says when a body is too slow.
//!
//! **How a caller goes round** ([`rounds::Rounds`] gives exactly this order):
//! 1. every candidate of [`Mirrors::plan`] once with [`Patience::Normal`]: a source that is silent for
//!    [`Options::stall`] is dropped and the next one resumes at the byte reached;
//! 2. if none brought the file, every candidate once more with [`Patience::Long`]: no switch unless a source is silent
//!    for 45 s. When the line to the Internet is what is slow, all sources look stalled; changing between them would
//!    only throw away connections. The second round therefore waits instead of switching.
//!
//! After each attempt the caller says how it went with [`Mirrors::report`] and [`Rounds::failed`]. Only the time to the
//! first byte is noted without it, and [`Mirrors::open_path`], which chooses by itself, reports by itself.
//!
//! **Invariants.** Nothing here touches the store, the disk or the swarm, starts a task, or leaves http and https. No
//! body is longer than the size the Manifest gives. Every wait has a deadline. Credentials in a mirror's URL are sent to
//! that host only and are printed nowhere. No proxy stands between us and this machine's own addresses, and no redirect leads further in than where it came from, by
//! the address that is connected to. What a body
//! contains is *not* checked here: its digest is the store's work.

pub mod error;
pub mod health;
pub mod http;
pub mod layout;
pub mod list;
pub mod pace;
pub mod pass;
pub mod plan;
pub mod rounds;

mod asked;
mod clients;
mod learned_layouts;
mod reach;
mod redirect;
mod reply;

pub use error::{Blame, FetchError};
pub use health::{HostHealth, Report};
pub use http::{Body, Patience};
pub use list::{Mirrors, NewMirrorsError, Options};
pub use pace::{Floor, Pace, TooSlow};
pub use pass::{Conditional, OpenPathError, PassBody};
pub use plan::{Candidate, Exempt, Origin, Source, Uri};
pub use reach::Reach;
pub use rounds::Rounds;
