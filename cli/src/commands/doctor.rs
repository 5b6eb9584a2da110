//! `peer doctor`: what is wrong with this machine, and the mend.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::client::{Client, get_over_tcp};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api::Status;
use daemon::api_doctor::{CheckLine, DoctorAnswer};
use daemon::api_key::KeyAnswer;
use daemon::config::Config;
use daemon::doctor::{self, Building, Check, Evidence, Fetching, Signing, State};
use daemon::keyring::{KeyTrust, Keyring};
use std::net::SocketAddr;
use std::time::SystemTime;

/// Say what is wrong with this machine, and the mend.
#[derive(Debug, Args)]
#[command(long_about = "Say what is wrong with this machine, and the mend: one `STATE NAME: FINDING` a line.\n\n\
    STATE is ok, info, warn or fail. The daemon looks at what it may do itself, with its own rights, and builds nothing: it \
    makes one sandbox as builds have it. Ends with 1 when something is fail.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    node: NodeFlags,
}

pub(crate) async fn run(args: &DoctorArgs, globals: &Globals, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let told = |failure: &Failure| failure.to_string();
    let config = Config::load(&args.node.overrides(globals), &around.surroundings)
        .map(|(config, _)| config)
        .map_err(|error| told(&Failure::Config(error)));
    let client = match (&globals.control, &config) {
        (None, Ok(config)) if config.control.exists() => Client::at(config.control.clone()),
        _ => Client::new(globals, around),
    };
    let daemon: Result<Status, _> = client.get("ask the daemon", "/v1/status").await.map_err(|failure| told(&failure));
    let http = http_address(daemon.as_ref().ok(), config.as_ref().ok());
    let layout_conf = match http {
        Some(http) => {
            Some((http, get_over_tcp(http, "/distfiles/layout.conf").await.map_err(|failure| told(&failure))))
        }
        None => None,
    };
    let signing = match (&daemon, &config) {
        (Ok(_), Ok(config)) if config.config_root.join("etc/portage").is_dir() => {
            signing(&client, &Keyring::of_portage(&config.config_root, around.path.clone())).await
        }
        _ => None,
    };
    let of_daemon = client.get::<DoctorAnswer>("ask the daemon what it finds", "/v1/doctor").await;
    let of_daemon = of_daemon.ok().map(|answer| answer.checks.into_iter().map(Check::from).collect());
    let building = if of_daemon.is_none() { Some(Building::try_out(&around.path).await) } else { None };
    let fetching = match (&config, &layout_conf) {
        (Ok(config), Some((http, Ok(_)))) if config.config_root.join("etc/portage").is_dir() => {
            Some(Fetching::try_out(&around.path, &config.config_root, *http, &around.fetching).await)
        }
        _ => None,
    };
    let now = SystemTime::now();
    let evidence = Evidence { config, daemon, layout_conf, signing, of_daemon, building, fetching, now };
    let checks = doctor::examine(&evidence);
    show(&checks, out)?;
    Ok(if checks.iter().any(|check| check.state == State::Fail) { Exit::No } else { Exit::Done })
}

/// The daemon's key, and how it stands in Portage's keyring; none when the daemon cannot say.
async fn signing(client: &Client, keyring: &Keyring) -> Option<Signing> {
    let (fingerprint, trust) = match client.get::<KeyAnswer>("ask for the key", "/v1/key").await {
        Ok(key) => {
            let trust = keyring.trust_of(&key.fingerprint).await.map_err(|error| error.to_string());
            (Some(key.fingerprint), trust)
        }
        Err(Failure::Refused { status: 404, .. }) => (None, Ok(KeyTrust::Absent)),
        Err(_) => return None,
    };
    Some(Signing { fingerprint, keyring: keyring.dir().to_owned(), trust })
}

/// Where the mirror should answer: the daemon knows best.
fn http_address(status: Option<&Status>, config: Option<&Config>) -> Option<SocketAddr> {
    let running = status.and_then(|status| status.http.first()?.parse().ok());
    let configured = || config?.http.first().copied().filter(|address| address.port() != 0);
    running.or_else(configured).map(daemon::setup::reachable)
}

fn show(checks: &[Check], out: &Output) -> Result<(), Failure> {
    if out.json() {
        let checks: Vec<CheckLine> = checks.iter().cloned().map(CheckLine::from).collect();
        return out.object(&serde_json::json!({ "checks": checks }));
    }
    for check in checks {
        let mend = check.mend.as_ref().map(|mend| format!(" [mend: {mend}]")).unwrap_or_default();
        out.fact(&format!("{:4} {}: {}{mend}", check.state.word(), check.name, check.finding))?;
    }
    Ok(())
}
