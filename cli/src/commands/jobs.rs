//! `peer jobs`: what is built, was built, and waits.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::aligned;
use crate::watch::{now_s, ran_s, short_time, state_word};
use clap::Args;
use daemon::api_builds::{Job, JobsAnswer};

/// Ended jobs that are shown unless all are wanted.
const ENDED_MAX: usize = 20;

/// Show the builds: those that wait and run, and the last that ended.
#[derive(Debug, Args)]
#[command(long_about = "Show the builds: those that wait and run, and the last 20 that ended, newest first.\n\n\
    Prints `ID STATE PHASE CPV AGE TIME REASON` for each. STATE is queued, running, done, failed or cancelled; PHASE what \
    it does or did last; AGE since it was asked for; TIME how long it has run, `-` before it begins; REASON begins with \
    `for NAME` where another machine asked for it and `on NAME` where another one builds it, and says why it waits or \
    failed, or what was done otherwise than foreseen.")]
pub(crate) struct JobsArgs {
    /// Show all that ended
    #[arg(long, short)]
    all: bool,
}

pub(crate) async fn run(args: &JobsArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let mut answer: JobsAnswer = client.get("list the jobs", "/v1/jobs").await?;
    if !args.all {
        answer.jobs = recent(answer.jobs);
    }
    if out.json() {
        out.object(&answer)?;
        return Ok(Exit::Done);
    }
    aligned(&rows(&answer.jobs, now_s())).iter().try_for_each(|line| out.fact(line))?;
    if answer.jobs.is_empty() {
        out.say("no jobs; `peer build ATOM` begins some");
    }
    Ok(Exit::Done)
}

/// All that have not ended, and the newest of the others, in the order they came.
fn recent(jobs: Vec<Job>) -> Vec<Job> {
    let mut ended = 0;
    let keep = |job: &Job| {
        ended += usize::from(job.state.is_final());
        !job.state.is_final() || ended <= ENDED_MAX
    };
    let mut jobs = jobs;
    jobs.retain(keep);
    jobs
}

/// For whom, where, and why.
fn about(job: &Job) -> String {
    let whom = job.client_name.as_ref().or(job.client.as_ref()).map(|name| format!("for {name}"));
    let going = (!job.state.is_final()).then_some(job.builder_name.as_ref().or(job.builder.as_ref())).flatten();
    let reason = job.reason.clone().or_else(|| job.told.last().cloned());
    let parts = [whom, going.map(|name| format!("on {name}")), reason];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn rows(jobs: &[Job], now_s: u64) -> Vec<[String; 7]> {
    let row = |job: &Job| {
        let age = short_time(now_s.saturating_sub(job.created_at));
        let ran = ran_s(job, now_s).map_or("-".to_owned(), short_time);
        let reason = about(job);
        [job.id.to_string(), state_word(job.state).to_owned(), job.phase.clone(), job.cpv.clone(), age, ran, reason]
    };
    jobs.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::job;
    use daemon::api_builds::JobState;

    #[test]
    fn all_that_go_on_are_shown_however_old_and_the_newest_that_ended() {
        let mut jobs: Vec<Job> = (0..30).rev().map(|id| job(id + 10, JobState::Done)).collect();
        jobs.push(job(1, JobState::Queued));
        let shown = recent(jobs);
        assert_eq!(shown.len(), 21);
        assert_eq!(shown[0].id, 39);
        assert_eq!(shown[20].id, 1);
    }

    #[test]
    fn a_job_says_for_whom_it_is_where_it_is_and_what_became_of_it() {
        let mut guest = job(1, JobState::Queued);
        (guest.client, guest.client_name) = (Some("12D3KooWx".to_owned()), Some("weak".to_owned()));
        guest.reason = Some("waits for its turn".to_owned());
        assert_eq!(about(&guest), "for weak: waits for its turn");
        guest.client_name = None;
        assert_eq!(about(&guest), "for 12D3KooWx: waits for its turn");
        let mut given = job(2, JobState::Running);
        given.builder_name = Some("strong".to_owned());
        given.told = vec!["not built on other: it is busy".to_owned()];
        assert_eq!(about(&given), "on strong: not built on other: it is busy");
        (given.state, given.builder_name) = (JobState::Done, None);
        given.told.push("built here: nobody else may be asked to build it".to_owned());
        assert_eq!(about(&given), "built here: nobody else may be asked to build it");
    }

    #[test]
    fn jobs_stand_in_columns() {
        let mut lost = job(7, JobState::Failed);
        lost.reason = Some("emerge ended with 1".to_owned());
        let mut waiting = job(12, JobState::Queued);
        waiting.phase = "wait".to_owned();
        waiting.started_at = None;
        assert_eq!(
            aligned(&rows(&[waiting, lost], 1_060)),
            [
                "12  queued  wait     app-misc/one-1.0  1min0s  -",
                "7   failed  compile  app-misc/one-1.0  1min0s  3s  emerge ended with 1",
            ]
        );
    }
}
