//! `peer key init|show`: the key binary packages are signed with, and Portage's trust in it.
//!
//! The daemon has the secret and makes it; Portage's keyring is root's, so this process, run by root, changes that.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::{Args, Subcommand};
use daemon::api_key::KeyAnswer;
use daemon::config::Config;
use daemon::keyring::{KeyTrust, Keyring};
use std::path::PathBuf;

/// Make the key that signs binary packages, show it, and let Portage trust it.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    what: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    Init(InitArgs),
    Show(ShowArgs),
}

/// Make the key if there is none, and put its public half into Portage's keyring, trusted.
#[derive(Debug, Args)]
#[command(long_about = "Make the key if there is none, and put its public half into Portage's keyring, trusted.\n\n\
    Run it as root: the keyring (/etc/portage/gnupg, or what BINPKG_GPG_VERIFY_GPG_HOME in make.conf says) is root's. \
    Where there is no keyring yet and getuto is installed, getuto makes it first, with the keys of Gentoo's own binary \
    packages. Other keys in it stay as they are. Prints the same as `peer key show`.")]
struct InitArgs {
    /// Take the key out of the keyring again; the secret stays with the daemon
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    place: Place,
}

/// Show the key, and whether Portage's keyring trusts it.
#[derive(Debug, Args)]
#[command(long_about = "Show the key, and whether Portage's keyring trusts it.\n\n\
    Prints `user_id`, `fingerprint`, `path` (of the secret), `keyring` and `trusted`, one a line. \
    Ends with 1 when there is no key yet.")]
struct ShowArgs {
    /// Print the public key alone, armored, as `gpg --import` takes it
    #[arg(long)]
    armor: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// Portage's keyring [default: what make.conf says, else etc/portage/gnupg below the configuration root]
    #[arg(long, value_name = "DIR")]
    keyring: Option<PathBuf>,
    #[command(flatten)]
    node: NodeFlags,
}

impl Place {
    fn keyring(&self, globals: &Globals, around: &Around) -> Result<Keyring, Failure> {
        let path = around.path.clone();
        if let Some(dir) = &self.keyring {
            let dir = std::path::absolute(dir).map_err(|error| Failure::local("cannot find the keyring", error))?;
            return Ok(Keyring::at(dir, path));
        }
        let (config, _) = Config::load(&self.node.overrides(globals), &around.surroundings).map_err(Failure::Config)?;
        Ok(Keyring::of_portage(&config.config_root, path))
    }
}

pub(crate) async fn run(args: &KeyArgs, globals: &Globals, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let client = Client::new(globals, around);
    match &args.what {
        KeyVerb::Init(args) if args.undo => undo(&client, &args.place.keyring(globals, around)?, out).await,
        KeyVerb::Init(args) => init(&client, &args.place.keyring(globals, around)?, out).await,
        KeyVerb::Show(args) if args.armor => {
            let key = get(&client).await?;
            let printed = if out.json() { out.object(&key) } else { out.text(&key.public) };
            printed.map(|()| Exit::Done)
        }
        KeyVerb::Show(args) => {
            let (key, keyring) = (get(&client).await?, args.place.keyring(globals, around)?);
            // That this user may not read the keyring is no reason not to show the key.
            let trust = keyring.trust_of(&key.fingerprint).await;
            show(&key, &keyring, trust.map_err(|error| error.to_string()), out)?;
            Ok(Exit::Done)
        }
    }
}

async fn get(client: &Client) -> Result<KeyAnswer, Failure> {
    client.get("show the key", "/v1/key").await
}

async fn init(client: &Client, keyring: &Keyring, out: &Output) -> Result<Exit, Failure> {
    let key: KeyAnswer = client.post("make the key", "/v1/key", &()).await?;
    if key.made {
        out.say("made the key");
    }
    if let Some(getuto) = keyring.getuto() {
        out.say(&format!("{} makes the keyring first; it asks key servers and may take minutes", getuto.display()));
    }
    let changed = keyring.trust(&key.public, &key.fingerprint).await.map_err(Failure::Keyring)?;
    let dir = keyring.dir().display();
    out.say(&if changed { format!("put it into {dir}, trusted") } else { format!("{dir} trusts it already") });
    show(&key, keyring, Ok(KeyTrust::Trusted), out)?;
    Ok(Exit::Done)
}

async fn undo(client: &Client, keyring: &Keyring, out: &Output) -> Result<Exit, Failure> {
    let key = get(client).await?;
    let changed = keyring.distrust(&key.fingerprint).await.map_err(Failure::Keyring)?;
    let dir = keyring.dir().display();
    out.say(&if changed { format!("took it out of {dir}") } else { format!("{dir} does not have it") });
    let trust = keyring.trust_of(&key.fingerprint).await.map_err(Failure::Keyring)?;
    show(&key, keyring, Ok(trust), out)?;
    Ok(Exit::Done)
}

fn show(key: &KeyAnswer, keyring: &Keyring, trust: Result<KeyTrust, String>, out: &Output) -> Result<(), Failure> {
    let trusted = trust == Ok(KeyTrust::Trusted);
    let words = trust.map_or_else(|why| why, |trust| trust.words().to_owned());
    if out.json() {
        return out.object(&serde_json::json!({
            "user_id": key.user_id, "fingerprint": key.fingerprint, "path": key.path, "made": key.made,
            "keyring": keyring.dir(), "trusted": trusted, "trust": words,
        }));
    }
    for (name, value) in [
        ("user_id", key.user_id.as_str()),
        ("fingerprint", &key.fingerprint),
        ("path", &key.path),
        ("keyring", &keyring.dir().to_string_lossy()),
        ("trusted", if trusted { "yes" } else { "no" }),
    ] {
        out.fact(&format!("{name} {value}"))?;
    }
    if !trusted {
        out.say(&format!("{words}: `peer key init` as root mends it"));
    }
    Ok(())
}
