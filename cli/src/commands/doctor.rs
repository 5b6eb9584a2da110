//! `peer doctor`: what is wrong with this machine, and the mend.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::client::{Client, get_over_tcp};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api::Status;
use daemon::api_key::KeyAnswer;
use daemon::config::Config;
use daemon::doctor::{self, Building, Check, Evidence, Signing, State};
use daemon::keyring::{KeyTrust, Keyring};
use std::net::SocketAddr;
use std::time::SystemTime;

/// Say what is wrong with this machine, and the mend.
#[derive(Debug, Args)]
#[command(long_about = "Say what is wrong with this machine, and the mend: one `STATE NAME: FINDING` a line.\n\n\
    STATE is ok, info, warn or fail. Ends with 1 when something is fail.")]
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
    let building = Some(Building::try_out(&around.path).await);
    let checks = doctor::examine(&Evidence { config, daemon, layout_conf, signing, building, now: SystemTime::now() });
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
        let checks: Vec<_> = checks
            .iter()
            .map(|check| {
                let (state, finding, mend) = (check.state.word(), &check.finding, &check.mend);
                serde_json::json!({ "name": check.name, "state": state, "finding": finding, "mend": mend })
            })
            .collect();
        return out.object(&serde_json::json!({ "checks": checks }));
    }
    for check in checks {
        let mend = check.mend.as_ref().map(|mend| format!(" [mend: {mend}]")).unwrap_or_default();
        out.fact(&format!("{:4} {}: {}{mend}", check.state.word(), check.name, check.finding))?;
    }
    Ok(())
}
