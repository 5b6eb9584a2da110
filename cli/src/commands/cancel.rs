//! `peer cancel`: ends builds.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::watch::state_word;
use clap::Args;
use daemon::api_builds::{Job, JobsAnswer};

/// End builds that wait or run.
#[derive(Debug, Args)]
#[command(long_about = "End builds that wait or run, and print `STATE ID CPV` for each.\n\n\
    STATE is cancelled, what else it came to in the same moment, or cancelling for a build whose processes take longer to end. \
    What was built before stays. Ends with 1 when a job is not known or has ended already.")]
pub(crate) struct CancelArgs {
    /// Number of the job, as `peer jobs` prints it
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "JOB")]
    jobs: Vec<u64>,
    /// All that wait or run, those for other machines too
    #[arg(long, short)]
    all: bool,
}

pub(crate) async fn run(args: &CancelArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    if args.all {
        let ended: JobsAnswer = client.post("cancel the jobs", "/v1/jobs/cancel", &()).await?;
        ended.jobs.iter().try_for_each(|job| told(job, out))?;
        if ended.jobs.is_empty() {
            out.say("no job waits or runs");
        }
        return Ok(Exit::Done);
    }
    let mut exit = Exit::Done;
    for id in &args.jobs {
        let cancelled: Result<Job, Failure> =
            client.post(&format!("cancel job {id}"), &format!("/v1/jobs/{id}/cancel"), &()).await;
        match cancelled {
            Ok(job) => told(&job, out)?,
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

fn told(job: &Job, out: &Output) -> Result<(), Failure> {
    if out.json() {
        return out.object(job);
    }
    let state = if job.state.is_final() { state_word(job.state) } else { "cancelling" };
    out.fact(&format!("{state} {} {}", job.id, job.cpv))
}
