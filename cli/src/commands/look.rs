//! Waiting until the daemon has read the repositories: after a start it may have to ask Portage for minutes.

use crate::client::Client;
use crate::exit::Failure;
use crate::output::Output;
use daemon::api::LookLine;
use std::time::{Duration, Instant};

/// Time between two lines where nothing can be drawn.
const SAY_PERIOD: Duration = Duration::from_secs(10);
const NAME: &str = "repositories";

/// Returns at once when they are read, which is nearly always. What goes wrong is told by the verb that comes next.
pub(crate) async fn wait(client: &Client, out: &Output) {
    let begun = Instant::now();
    let mut said: Option<Instant> = None;
    let hear = |_: &str, line: LookLine| -> Result<(), Failure> {
        if let LookLine::Looking(look) = line {
            out.activity(NAME, "the repositories are being read", &look.to_string(), begun.elapsed());
            if !out.draws() && said.is_none_or(|at| at.elapsed() >= SAY_PERIOD) {
                said = Some(Instant::now());
                out.say(&format!("the daemon is still {look}; waiting for it"));
            }
        }
        Ok(())
    };
    let waited = client.lines("wait for the repositories", "/v1/look", &(), hear).await;
    out.progress_ends(NAME);
    waited.unwrap_or_default();
}
