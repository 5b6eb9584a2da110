//! The words of the command line and the `PEER_*` variables, all declared here; no logic.

use crate::commands::{
    build, cancel, challenge, check_config, completions, doctor, emerge, fetch, gc, import, invite, jobs, join, key,
    logs, man, peers, pin, search, setup, show, status, trust, verify, weather, why,
};
use clap::{Args, Parser, Subcommand};
use daemon::config::Overrides;
use std::net::SocketAddr;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 no (not found, build failed, differs), 2 usage or configuration, 3 daemon not reachable, 4 internal error, 5 verification failed.
Standard output is data, standard error is talk.";

/// Peer-to-peer Gentoo: a local mirror that knows every distfile by its Manifest digest and gets it from peers first.
#[derive(Debug, Parser)]
#[command(name = "peer", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Peer {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// The daemon's control socket [default: where a daemon of this user or of root listens]
    #[arg(long, value_name = "PATH", env = "PEER_CONTROL", hide_env_values = true, global = true)]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON: one object, or one a line while work goes on
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing on standard error but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

// What each verb says of itself stands at its own arguments: words here would hide them.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Daemon(crate::commands::daemon::DaemonArgs),
    Status(status::StatusArgs),
    Fetch(fetch::FetchArgs),
    Import(import::ImportArgs),
    Pin(pin::PinArgs),
    Gc(gc::GcArgs),
    Verify(verify::VerifyArgs),
    Peers(peers::PeersArgs),
    Build(build::BuildArgs),
    Emerge(emerge::EmergeArgs),
    Jobs(jobs::JobsArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Show(show::ShowArgs),
    Weather(weather::WeatherArgs),
    Why(why::WhyArgs),
    Search(search::SearchArgs),
    Challenge(challenge::ChallengeArgs),
    Invite(invite::InviteArgs),
    Join(join::JoinArgs),
    Trust(trust::TrustArgs),
    Key(key::KeyArgs),
    Setup(setup::SetupArgs),
    Doctor(doctor::DoctorArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// What a node is told by flags or variables instead of its configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct NodeFlags {
    /// Configuration file [default: /etc/peer/peer.toml if it is there]
    #[arg(long, value_name = "FILE", env = "PEER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Store, index and keys [default: /var/lib/peer as root, else $XDG_DATA_HOME/peer]
    #[arg(long, value_name = "DIR", env = "PEER_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// Address of the mirror and the status page; repeatable, commas in the variable [default: 127.0.0.1:8420]
    #[arg(long, value_name = "ADDR:PORT", env = "PEER_HTTP", hide_env_values = true, value_delimiter = ',')]
    http: Vec<SocketAddr>,
    /// Address where peers connect; repeatable, commas in the variable [default: TCP and QUIC on port 8421]
    #[arg(long, value_name = "MULTIADDR", env = "PEER_P2P", hide_env_values = true, value_delimiter = ',')]
    p2p: Vec<String>,
    /// A peer to dial; repeatable, commas in the variable
    #[arg(long = "peer", value_name = "MULTIADDR", env = "PEER_PEER", hide_env_values = true, value_delimiter = ',')]
    peers: Vec<String>,
    /// Do not look for peers on the LAN
    #[arg(long, env = "PEER_NO_MDNS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    no_mdns: bool,
    /// An ebuild repository; repeatable, colons in the variable [default: those of Portage's repos.conf]
    #[arg(long = "repo", value_name = "DIR", env = "PEER_REPO", hide_env_values = true, value_delimiter = ':')]
    repos: Vec<PathBuf>,
    /// A Gentoo mirror above this node; repeatable, spaces in the variable [default: GENTOO_MIRRORS of make.conf]
    #[arg(long = "mirror", value_name = "URL", env = "PEER_MIRROR", hide_env_values = true)]
    mirrors: Vec<String>,
    /// Where Portage's configuration is, DIR/etc/portage [default: /]
    #[arg(long, value_name = "DIR", env = "PEER_CONFIG_ROOT", hide_env_values = true)]
    config_root: Option<PathBuf>,
}

impl NodeFlags {
    /// The same for the daemon's ears.
    pub(crate) fn overrides(&self, globals: &Globals) -> Overrides {
        Overrides {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            http: self.http.clone(),
            control: globals.control.clone(),
            p2p: self.p2p.clone(),
            peers: self.peers.clone(),
            no_mdns: self.no_mdns,
            repos: self.repos.clone(),
            mirrors: self.mirrors.iter().flat_map(|urls| urls.split_whitespace()).map(str::to_owned).collect(),
            config_root: self.config_root.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Peer::command().debug_assert();
    }

    #[test]
    fn help_reads_like_this() {
        let mut peer = Peer::command().term_width(110);
        peer.build();
        let mut text = peer.render_long_help().to_string();
        for verb in peer.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let help = verb.render_long_help();
            text.push_str(&format!("\n==== {} ====\n{help}", verb.get_name()));
        }
        insta::assert_snapshot!(text);
    }
}
