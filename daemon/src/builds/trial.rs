//! What builds would meet, tried by the daemon itself: a real sandbox with a build's own policy, and Portage in it.

use super::inside::Rooms;
use super::local::rooms;
use super::{Builds, with_causes};
use crate::blocking;
use crate::doctor::Building;
use crate::domain::Domain;
use sandbox::{Cancel, Sandbox, Standing, remove_tree};
use std::ffi::OsString;
use std::path::Path;

/// Says the version of the Portage that this Python has.
const IMPORT: &str = "import portage; print(portage.VERSION)";
/// A version is a few bytes.
const VERSION_MAX_BYTES: u64 = 1024;
/// Below the jobs; their directories are numbers.
const DIRECTORY: &str = "trial";

impl Builds {
    /// Tries out what a build needs, as a build would have it. One at a time.
    ///
    /// Cancel safe: yes; what is left of a trial is removed by the next one.
    pub async fn try_out(&self, domain: &Domain) -> Building {
        let _one_at_a_time = self.trying.lock().await;
        // What of the configuration cannot be shown is a finding of its own.
        let inside = match self.inside(domain).await {
            Ok(inside) => inside,
            Err(_told_elsewhere) => self.inside_without_links(domain),
        };
        let identity = inside.identity();
        let sandbox = match self.sandbox() {
            Ok(sandbox) => sandbox,
            Err(missing) => return Building::new(identity, Err(missing.to_string()), None),
        };
        let dir = super::inside::absolute(&domain.config.data_dir).join("jobs").join(DIRECTORY);
        let (making, within) = (dir.clone(), inside.clone());
        let made: Result<Rooms, String> = blocking::run(move || {
            remove_tree(&making).map_err(|error| format!("cannot remove {}: {error}", making.display()))?;
            rooms(&making, &within).map_err(|error| with_causes(&error))
        })
        .await;
        let tried = match made {
            Ok(rooms) => Ok(sandbox.try_out(&inside.build(&rooms, true)).await),
            Err(why) => Err(why),
        };
        blocking::run(move || {
            if let Err(error) = remove_tree(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "what a trial left stays until the next one");
            }
        })
        .await;
        let is_possible = tried.as_ref().is_ok_and(|found| found.iter().all(|one| one.standing < Standing::Blocks));
        let portage = match inside.program("python3") {
            // Without a sandbox there is nothing to say of what is in it.
            _ if !is_possible => None,
            Some(python) => Some(portage_inside(&sandbox, &inside.resolver(), &python).await),
            None => Some(Err("there is no python3 in the PATH".to_owned())),
        };
        Building::new(identity, tried, portage)
    }
}

/// The version of the Portage that builds have, or why they have none.
async fn portage_inside(sandbox: &Sandbox, policy: &sandbox::Policy, python: &Path) -> Result<String, String> {
    let command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), IMPORT.into()];
    let captured = sandbox.capture(policy, &command, b"", VERSION_MAX_BYTES, Cancel::never()).await;
    let captured = captured.map_err(|error| with_causes(&error))?;
    if captured.outcome.is_success() {
        return Ok(String::from_utf8_lossy(&captured.output).trim().to_owned());
    }
    let why = captured.errors.lines().last().unwrap_or("it said nothing").to_owned();
    Err(format!("{} has no Portage that builds see: {why}", python.display()))
}
