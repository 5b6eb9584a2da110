//! The verbs, one a file: what each takes and what it does.

pub(crate) mod build;
pub(crate) mod cancel;
pub(crate) mod challenge;
pub(crate) mod check_config;
pub(crate) mod completions;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod emerge;
pub(crate) mod fetch;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod invite;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod logs;
mod look;
pub(crate) mod man;
pub(crate) mod peers;
pub(crate) mod pin;
pub(crate) mod search;
pub(crate) mod setup;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod trust;
pub(crate) mod verify;
pub(crate) mod weather;
pub(crate) mod why;

use crate::Around;
use crate::args::{Peer, Verb};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Does what the words say.
pub(crate) async fn run(peer: &Peer, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let globals = &peer.globals;
    let client = || Client::new(globals, around);
    if needs_repositories(&peer.verb) {
        look::wait(&client(), out).await;
    }
    match &peer.verb {
        Verb::Daemon(args) => daemon::run(args, globals, around, out).await,
        Verb::Status(args) => status::run(args, &client(), out).await,
        Verb::Fetch(args) => fetch::run(args, &client(), out).await,
        Verb::Import(args) => import::run(args, &client(), out).await,
        Verb::Pin(args) => pin::run(args, &client(), out).await,
        Verb::Gc(args) => gc::run(args, &client(), out).await,
        Verb::Verify(args) => verify::run(args, &client(), out).await,
        Verb::Peers(args) => peers::run(args, &client(), out).await,
        Verb::Build(args) => build::run(args, &client(), out).await,
        Verb::Emerge(args) => emerge::run(args, &client(), around, out).await,
        Verb::Jobs(args) => jobs::run(args, &client(), out).await,
        Verb::Logs(args) => logs::run(args, &client(), out).await,
        Verb::Cancel(args) => cancel::run(args, &client(), out).await,
        Verb::Show(args) => show::run(args, &client(), out).await,
        Verb::Weather(args) => weather::run(args, &client(), out).await,
        Verb::Why(args) => why::run(args, &client(), out).await,
        Verb::Search(args) => search::run(args, &client(), out).await,
        Verb::Challenge(args) => challenge::run(args, &client(), out).await,
        Verb::Invite(args) => invite::run(args, &client(), out).await,
        Verb::Join(args) => join::run(args, &client(), out).await,
        Verb::Trust(args) => trust::run(args, &client(), out).await,
        Verb::Key(args) => key::run(args, globals, around, out).await,
        Verb::Setup(args) => setup::run(args, globals, around, out).await,
        Verb::Doctor(args) => doctor::run(args, globals, around, out).await,
        Verb::CheckConfig(args) => check_config::run(args, globals, around, out),
        Verb::Completions(args) => completions::run(args, out),
        Verb::Man(args) => man::run(args, out),
    }
}

/// Whether a verb is about what the repositories say.
fn needs_repositories(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Fetch(_)
            | Verb::Import(_)
            | Verb::Pin(_)
            | Verb::Build(_)
            | Verb::Emerge(_)
            | Verb::Show(_)
            | Verb::Weather(_)
            | Verb::Why(_)
            | Verb::Search(_)
            | Verb::Challenge(_)
    )
}

/// The end of long work whose last line never came.
fn no_last_line(doing: &str) -> Failure {
    Failure::BrokenOff { doing: doing.to_owned(), why: "the daemon stopped before it was done".to_owned() }
}
