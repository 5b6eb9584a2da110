//! `peer cancel`: ends builds.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::watch::state_word;
use clap::Args;
use daemon::api_builds::Job;

/// End builds that wait or run.
#[derive(Debug, Args)]
#[command(long_about = "End builds that wait or run, and print `STATE ID CPV` for each.\n\n\
    What was built before stays. Ends with 1 when a job is not known or has ended already.")]
pub(crate) struct CancelArgs {
    /// Number of the job, as `peer jobs` prints it
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<u64>,
}

pub(crate) async fn run(args: &CancelArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for id in &args.jobs {
        let cancelled: Result<Job, Failure> =
            client.post(&format!("cancel job {id}"), &format!("/v1/jobs/{id}/cancel"), &()).await;
        match cancelled {
            Ok(job) if out.json() => out.object(&job)?,
            Ok(job) => out.fact(&format!("{} {id} {}", state_word(job.state), job.cpv))?,
            // The answer is no, for this one: the others are still to be ended.
            Err(failure @ Failure::Refused { status: 404 | 409, .. }) => {
                out.failure(&failure);
                exit = Exit::No;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(exit)
}
