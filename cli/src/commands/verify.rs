//! `peer verify`: hashes the store again.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use clap::Args;
use daemon::api::VerifyLine;

const DOING: &str = "verify the store";

/// Hash the whole store again and set aside what rotted.
#[derive(Debug, Args)]
#[command(
    long_about = "Hash the whole store again, set aside what rotted, and print `rotten DIGEST NAME…` for each.\n\n\
    Ends with 5 when something rotted, is lost or cannot be read; it is fetched again when somebody asks for it."
)]
pub(crate) struct VerifyArgs {}

pub(crate) async fn run(_: &VerifyArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let mut unsound = None;
    client.lines(DOING, "/v1/verify", &(), |raw, line| hear(raw, line, out, &mut unsound)).await?;
    match unsound {
        None => Err(no_last_line(DOING)),
        Some(0) => Ok(Exit::Done),
        Some(_) => Ok(Exit::Unverified),
    }
}

fn hear(raw: &str, line: VerifyLine, out: &Output, unsound: &mut Option<u64>) -> Result<(), Failure> {
    if out.json() {
        out.fact(raw)?;
    }
    match line {
        VerifyLine::Progress { bytes, total } => out.progress("store", bytes, Some(total), Some("hashing")),
        VerifyLine::Rotten { digest, names } => {
            if !out.json() {
                out.fact(&format!("rotten {digest} {}", names.join(" ")))?;
            }
        }
        VerifyLine::Done { good, rotten, lost, found, strays, unreadable, whole, bytes } => {
            out.progress_ends("store");
            let hashed = human(bytes);
            let wrong = rotten.saturating_add(strays);
            out.say(&format!(
                "{good} good ({hashed}), {wrong} set aside, {lost} lost, {found} found, {unreadable} unreadable"
            ));
            if !whole {
                out.say("it ended early, so the store is not known to be sound");
            }
            *unsound = Some(wrong.saturating_add(lost).saturating_add(unreadable).saturating_add(u64::from(!whole)));
        }
    }
    Ok(())
}
