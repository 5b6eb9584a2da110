//! `peer trust list|add|remove`: whose binary packages count here.

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::watch::{now_s, short_time};
use clap::{Args, Subcommand};
use daemon::api_builds::TrustedKey;

const PATH: &str = "/v1/trust";

/// Say whose binary packages may be installed here, and which.
#[derive(Debug, Args)]
#[command(long_about = "Say whose binary packages may be installed here, and which.\n\n\
    Prints `KEY AGE ATOM…` for each key, AGE being how long it has been trusted. Sources need no trust: a Manifest names \
    their bytes. A binary package is what its builder made of them, so only those of trusted builders are taken instead \
    of building, within the packages named for each. What was taken before stays when a key is removed.")]
pub(crate) struct TrustArgs {
    #[command(subcommand)]
    what: TrustVerb,
}

#[derive(Debug, Subcommand)]
enum TrustVerb {
    /// Show the trusted keys
    List,
    /// Trust a key for some packages; for a key that is trusted already, these take the place of those named before
    Add {
        /// Peer id of the node that builds, as its `peer status` prints it
        #[arg(value_name = "KEY")]
        key: String,
        /// What it may build for this machine, such as dev-libs/foo or dev-qt/*; '*/*' means anything
        #[arg(long, required = true, num_args = 1.., value_name = "ATOM")]
        packages: Vec<String>,
    },
    /// Trust a key no longer
    Remove {
        /// Peer id of the node
        #[arg(value_name = "KEY")]
        key: String,
    },
}

pub(crate) async fn run(args: &TrustArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let keys: Vec<TrustedKey> = match &args.what {
        TrustVerb::List => client.get("list the trusted keys", PATH).await?,
        TrustVerb::Add { key, packages } => {
            let trusted = TrustedKey { key: key.clone(), packages: packages.clone(), since: 0 };
            client.post(&format!("trust {key}"), PATH, &trusted).await?
        }
        TrustVerb::Remove { key } => {
            client.delete(&format!("remove {key}"), &format!("{PATH}/{}", encoded(key))).await?
        }
    };
    if out.json() {
        out.object(&keys)?;
        return Ok(Exit::Done);
    }
    keys.iter().try_for_each(|key| out.fact(&line(key, now_s())))?;
    if keys.is_empty() {
        out.say("nobody is trusted: binary packages are built here");
    }
    Ok(Exit::Done)
}

fn line(trusted: &TrustedKey, now_s: u64) -> String {
    let age = short_time(now_s.saturating_sub(trusted.since));
    format!("{} {age} {}", trusted.key, trusted.packages.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn a_key_is_told_with_all_it_may_build() {
        let mut trusted = TrustedKey {
            key: "12D3KooWx".to_owned(),
            packages: vec!["dev-libs/foo".into(), "dev-qt/*".into()],
            since: 100,
        };
        assert_eq!(line(&trusted, 160), "12D3KooWx 1min0s dev-libs/foo dev-qt/*");
        trusted.packages.clear();
        assert_eq!(line(&trusted, 100), "12D3KooWx 0s");
    }

    #[test]
    fn trust_without_limits_must_be_said() {
        let parse = |words: &[&str]| crate::args::Peer::try_parse_from(words);
        let error = parse(&["peer", "trust", "add", "12D3KooWx"]).unwrap_err();
        assert!(error.to_string().contains("--packages"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(parse(&["peer", "trust", "add", "12D3KooWx", "--packages"]).is_err());
        assert!(parse(&["peer", "trust", "add", "12D3KooWx", "--packages", "*/*"]).is_ok());
        assert!(parse(&["peer", "trust", "add", "--packages", "a/b", "c/d", "--", "12D3KooWx"]).is_ok());
    }
}
