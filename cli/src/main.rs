//! `peer`: words in, words out, exit code.
//!
//! The only place that reads the environment (clap reads the `PEER_*` variables that [`args`] declares).

mod args;
mod client;
mod commands;
mod deliver;
mod emerge_options;
mod emerge_words;
mod exit;
mod merge_list;
mod output;
mod question;
mod table;
mod terminal;
mod watch;

use args::{Peer, Verb};
use clap::Parser as _;
use daemon::config::Surroundings;
use daemon::surroundings::RepoVariables;
use exit::{Exit, Failure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the process finds around it and no flag says.
pub(crate) struct Around {
    /// What the configuration's defaults depend on.
    pub(crate) surroundings: Surroundings,
    /// `PATH`: where programs are looked for.
    pub(crate) path: OsString,
    /// `PORTAGE_CONFIGROOT`: where Portage itself looks for its configuration.
    pub(crate) portage_configroot: Option<PathBuf>,
    /// What Portage and the programs it fetches with read of the environment.
    pub(crate) fetching: Vec<(OsString, OsString)>,
    /// `EMERGE_DEFAULT_OPTS`, also when it is set to nothing: it takes the place of that of make.conf.
    pub(crate) emerge_default_opts: Option<OsString>,
    /// True when `NO_COLOR` is set and not empty (no-color.org).
    pub(crate) no_color: bool,
}

/// What is still on the blocking pool when a verb has ended gets this long.
const END_MAX: Duration = Duration::from_millis(500);

fn main() -> std::process::ExitCode {
    let around = look_around();
    let peer = Peer::parse_from(emerge_words::set_apart(std::env::args_os()));
    match peer.verb {
        // It outlives them, and tells of them.
        Verb::Daemon(_) => daemon::panics::note(),
        _ => abort_on_panic(),
    }
    let out = output::Output::new(peer.globals.json, peer.globals.quiet);
    let exit = runtime(&peer.verb)
        .and_then(|runtime| {
            let exit = runtime.block_on(commands::run(&peer, &around, &out));
            // Work that nobody waits for any more must not hold up the end.
            runtime.shutdown_timeout(END_MAX);
            exit
        })
        .unwrap_or_else(|failure| {
            out.failure(&failure);
            failure.exit()
        });
    exit.into()
}

/// A panic is a bug: a verb ends with it at once.
#[expect(clippy::disallowed_methods, reason = "the hook of all other verbs")]
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// The variables by which curl, wget and the HTTP client of this program know a proxy.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

fn look_around() -> Around {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Around {
        surroundings: Surroundings {
            is_root: rustix::process::geteuid().is_root(),
            home: path("HOME"),
            xdg_data_home: path("XDG_DATA_HOME"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            repo_variables: RepoVariables {
                repositories: text("PORTAGE_REPOSITORIES"),
                portdir: text("PORTDIR"),
                portdir_overlay: text("PORTDIR_OVERLAY"),
            },
            has_proxy: PROXIES.into_iter().any(|name| variable(name).is_some()),
        },
        path: variable("PATH").unwrap_or_default(),
        portage_configroot: path("PORTAGE_CONFIGROOT"),
        fetching: daemon::doctor::VARIABLES
            .into_iter()
            .filter_map(|name| variable(name).map(|value| (name.into(), value)))
            .collect(),
        emerge_default_opts: any_variable("EMERGE_DEFAULT_OPTS"),
        no_color: variable("NO_COLOR").is_some(),
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    any_variable(name).filter(|value| !value.is_empty())
}

/// A variable that is set.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn any_variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Only the daemon has work for more than one thread.
fn runtime(verb: &Verb) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match verb {
        Verb::Daemon(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build().map_err(|error| Failure::local("cannot start the runtime", error))
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
