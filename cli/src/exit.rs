//! How `peer` ends: every failure, its exit code and what to do next.

use daemon::RunError;
use daemon::api::Refusal;
use daemon::config::LoadConfigError;
use std::fmt;
use std::path::PathBuf;

/// The exit codes scripts hold on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done,
    /// The answer is no: not found, not all of it.
    No,
    /// The words or the configuration are wrong.
    Usage,
    /// The daemon cannot be reached.
    Unreachable,
    /// Something that should not happen.
    Internal,
    /// Bytes are not what their name says.
    Unverified,
    /// The user interrupted it, as shells say it (128 + SIGINT).
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Internal => 4,
            Self::Unverified => 5,
            Self::Interrupted => 130,
        }
    }
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody listens at the socket.
    Unreachable { socket: PathBuf, source: std::io::Error },
    /// The daemon went away or fell silent in the middle.
    BrokenOff { doing: String, why: String },
    /// The daemon said no.
    Refused { doing: String, status: u16, refusal: Refusal },
    /// The daemon's answer makes no sense to this program.
    Garbled { doing: String, why: String },
    /// The words make no sense.
    Usage { what: String, hint: String },
    /// The configuration makes no sense.
    Config(LoadConfigError),
    /// The daemon could not run.
    Run(RunError),
    /// Portage's configuration could not be planned or written.
    Setup(daemon::setup::SetupError),
    /// Portage's keyring could not be read or changed.
    Keyring(daemon::keyring::KeyringError),
    /// Bytes are not what their name says.
    Unverified { what: String },
    /// Something on this machine does not work.
    Local { doing: String, cause: anyhow::Error },
    /// The user interrupted it.
    Interrupted { kept: String },
    /// Whoever read our standard output has heard enough.
    Closed,
}

impl Failure {
    /// `doing` reads "cannot …".
    pub(crate) fn local(doing: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self::Local { doing: doing.into(), cause: cause.into() }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::BrokenOff { .. } => Exit::Unreachable,
            Self::Refused { status: 404, .. } => Exit::No,
            Self::Refused { status: 400..=499, .. } => Exit::Usage,
            Self::Run(error) => exit_of_run(error),
            Self::Refused { .. } | Self::Garbled { .. } | Self::Local { .. } => Exit::Internal,
            Self::Usage { .. } | Self::Config(_) | Self::Setup(_) | Self::Keyring(_) => Exit::Usage,
            Self::Unverified { .. } => Exit::Unverified,
            Self::Interrupted { .. } => Exit::Interrupted,
            Self::Closed => Exit::Done,
        }
    }

    /// What the user may do next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("the socket is for root and the group portage: `gpasswd -a USER portage`".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("start it with `rc-service peer start` or `systemctl start peer`, or run `peer daemon`".to_owned())
            }
            Self::BrokenOff { .. } => Some("see the daemon's log; what has arrived is kept, so try again".to_owned()),
            Self::Refused { refusal, .. } => refusal.hint.clone(),
            Self::Garbled { .. } => {
                Some("are daemon and `peer` of the same version? restart the daemon after an update".to_owned())
            }
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::Config(_) => Some("every key with its default is in the example peer.toml".to_owned()),
            Self::Unverified { .. } => Some("`peer verify` hashes the whole store again".to_owned()),
            Self::Interrupted { kept } => Some(kept.clone()),
            Self::Run(error) => hint_of_run(error),
            Self::Keyring(error) => error.hint(),
            Self::Setup(_) | Self::Local { .. } | Self::Closed => None,
        }
    }
}

/// An address that cannot be had is the configuration's fault, a store that cannot be opened is not.
fn exit_of_run(error: &RunError) -> Exit {
    match error {
        RunError::Listen { .. } | RunError::Running { .. } | RunError::Multiaddr { .. } | RunError::Swarm(_) => {
            Exit::Usage
        }
        RunError::Path { .. }
        | RunError::Store(_)
        | RunError::Binhost(_)
        | RunError::Builds(_)
        | RunError::Key { .. }
        | RunError::Private(_)
        | RunError::Mirrors(_)
        | RunError::Fault { .. } => Exit::Internal,
    }
}

fn hint_of_run(error: &RunError) -> Option<String> {
    let hint = match error {
        RunError::Listen { .. } => "say --http ADDR:PORT, or end what listens there",
        RunError::Running { .. } => "`peer status` shows it; a second one needs --control and --data-dir of its own",
        RunError::Multiaddr { .. } => "it looks like /ip4/192.0.2.7/tcp/8421 or /ip6/::/udp/8421/quic-v1",
        RunError::Swarm(_) => "say --p2p MULTIADDR, or end what listens there",
        RunError::Path { .. } => "the daemon's user must own it: say --data-dir and --control, or change the owner",
        RunError::Store(_)
        | RunError::Binhost(_)
        | RunError::Builds(_)
        | RunError::Key { .. }
        | RunError::Private(_)
        | RunError::Mirrors(_)
        | RunError::Fault { .. } => return None,
    };
    Some(hint.to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { socket, source } => {
                write!(f, "cannot reach the daemon at {}: {source}", socket.display())
            }
            Self::BrokenOff { doing, why } | Self::Garbled { doing, why } => write!(f, "cannot {doing}: {why}"),
            Self::Refused { doing, refusal, .. } => write!(f, "cannot {doing}: {}", refusal.error),
            Self::Usage { what, .. } | Self::Unverified { what } => f.write_str(what),
            Self::Config(error) => chain(f, error),
            Self::Run(error) => chain(f, error),
            Self::Setup(error) => chain(f, error),
            Self::Keyring(error) => chain(f, error),
            Self::Local { doing, cause } => write!(f, "{doing}: {cause:#}"),
            Self::Interrupted { .. } => f.write_str("interrupted"),
            Self::Closed => f.write_str("standard output is closed"),
        }
    }
}

/// The error and its causes, unless an error already tells its cause.
fn chain(f: &mut fmt::Formatter<'_>, error: &dyn std::error::Error) -> fmt::Result {
    let mut told = error.to_string();
    f.write_str(&told)?;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            write!(f, ": {text}")?;
            told = text;
        }
        cause = error.source();
    }
    Ok(())
}
