//! `peer gc`: lets go what nobody needs.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use clap::Args;
use daemon::api::{GcAnswer, GcRequest};
use daemon::config::Size;

/// Let go what nobody needs, and say what and why.
#[derive(Debug, Args)]
#[command(long_about = "Let go what nobody needs, and print `SIZE DIGEST NAME REASON` for each blob that goes.\n\n\
    Pinned blobs and those in use stay; of the others the least recently used go first, until the budget fits.")]
pub(crate) struct GcArgs {
    /// Only say what would go
    #[arg(long, short)]
    pretend: bool,
    /// Shrink to this size, such as "40 GiB", instead of the configured budget
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
}

pub(crate) async fn run(args: &GcArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = GcRequest { pretend: args.pretend, size_max_bytes: args.size.map(|size| size.0) };
    let answer: GcAnswer = client.post("collect garbage", "/v1/gc", &request).await?;
    if out.json() {
        out.object(&answer)?;
    } else {
        for item in &answer.removed {
            let name = item.names.first().map_or("?", String::as_str);
            out.fact(&format!("{} {} {name} {}", item.size, item.digest, item.reason))?;
        }
    }
    let (freed, pinned) = (human(answer.freed_bytes), human(answer.pinned_bytes));
    let verb = if answer.pretended { "would go" } else { "gone" };
    out.say(&format!("{} blobs {verb} ({freed}); {pinned} pinned", answer.removed.len()));
    Ok(Exit::Done)
}
