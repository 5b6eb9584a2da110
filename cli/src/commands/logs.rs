//! `peer logs`: the log of a build, while it runs or after.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::terminal::LogText;
use crate::watch::state_word;
use clap::Args;
use daemon::api_builds::Job;
use std::time::Duration;

/// Before the log is asked for again after a break.
const PAUSE: Duration = Duration::from_secs(1);
/// Breaks in a row after which the daemon is taken for gone: a restart takes less.
const BREAKS_MAX: u32 = 30;

/// Print the log of a build.
#[derive(Debug, Args)]
#[command(long_about = "Print the log of a build, whatever --json says.\n\n\
    On a terminal everything that is neither text nor colour is spelled out (`^[` for ESC): a log is written by the \
    sources that are built. Into a pipe or a file go the bytes as they are.")]
pub(crate) struct LogsArgs {
    /// Number of the job, as `peer jobs` prints it
    #[arg(value_name = "JOB")]
    job: u64,
    /// Go on while the job runs
    #[arg(long, short)]
    follow: bool,
}

/// How far the log is shown, and how.
struct Shown<'a> {
    out: &'a Output,
    /// None when the bytes go out as they are.
    text: Option<LogText>,
    bytes: u64,
}

impl Shown<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        match &mut self.text {
            Some(text) => self.out.raw(text.take(bytes).as_bytes()),
            None => self.out.raw(bytes),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match &mut self.text {
            Some(text) => self.out.raw(text.finish().as_bytes()),
            None => Ok(()),
        }
    }
}

pub(crate) async fn run(args: &LogsArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let mut shown = Shown { out, text: out.is_seen().then(LogText::default), bytes: 0 };
    let ended = tokio::select! {
        biased;
        ended = print(args, client, &mut shown) => ended,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    };
    shown.finish()?;
    ended
}

async fn print(args: &LogsArgs, client: &Client, shown: &mut Shown<'_>) -> Result<Exit, Failure> {
    let doing = format!("read the log of job {}", args.job);
    let first: Job = client.get(&doing, &format!("/v1/jobs/{}", args.job)).await?;
    first.told.iter().for_each(|line| shown.out.say(&format!("peer: {}: {line}", first.cpv)));
    if !args.follow {
        client.bytes(&doing, &path(args.job, 0, false), |bytes| shown.take(bytes)).await?;
        return Ok(Exit::Done);
    }
    let mut job = first;
    let mut breaks = 0;
    loop {
        let before = shown.bytes;
        let streamed = client.bytes(&doing, &path(args.job, before, true), |bytes| shown.take(bytes)).await;
        let asked = match streamed {
            // A silent build looks like a break; the job says which it is.
            Ok(()) | Err(Failure::BrokenOff { .. }) => client.get(&doing, &format!("/v1/jobs/{}", args.job)).await,
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(now) => {
                breaks = 0;
                if ended(&now, before, shown.bytes) {
                    job = now;
                    break;
                }
                began_again(&job, &now, shown);
                now.told
                    .iter()
                    .skip(job.told.len())
                    .for_each(|line| shown.out.say(&format!("peer: {}: {line}", now.cpv)));
                job = now;
            }
            Err(Failure::Unreachable { .. } | Failure::BrokenOff { .. }) if breaks < BREAKS_MAX => breaks += 1,
            Err(failure) => return Err(failure),
        }
        if shown.bytes == before {
            tokio::time::sleep(PAUSE).await;
        }
    }
    shown.out.say(&last_words(&job));
    Ok(Exit::Done)
}

fn path(job: u64, from: u64, follow: bool) -> String {
    format!("/v1/jobs/{job}/log?from={from}&follow={follow}")
}

/// Whether nothing more comes: the job ended and all of its log is shown, or the rest cannot be had.
fn ended(job: &Job, before: u64, shown: u64) -> bool {
    job.state.is_final() && (shown >= job.log_bytes || shown == before)
}

/// A job that was begun again after a restart of the daemon may have a new log.
fn began_again(before: &Job, now: &Job, shown: &mut Shown<'_>) {
    if now.attempt > before.attempt && now.log_bytes < shown.bytes {
        shown.out.say("the daemon was restarted, and the job begins again");
        shown.bytes = 0;
    }
}

fn last_words(job: &Job) -> String {
    let reason = job.reason.as_ref().map(|reason| format!(" in {}: {reason}", job.phase)).unwrap_or_default();
    format!("job {} ({}): {}{reason}", job.id, job.cpv, state_word(job.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::job;
    use daemon::api_builds::JobState;

    #[test]
    fn a_log_ends_with_its_job_and_not_before_all_of_it_is_shown() {
        let (running, done) = (job(7, JobState::Running), job(7, JobState::Done));
        assert_eq!(done.log_bytes, 2_048);
        for (job, before, shown, over) in [
            (&running, 2_048, 2_048, false),
            (&running, 0, 100, false),
            (&done, 0, 2_048, true),
            (&done, 0, 100, false),
            (&done, 100, 100, true),
        ] {
            assert_eq!(ended(job, before, shown), over, "{:?} {before} {shown}", job.state);
        }
    }

    #[test]
    fn a_job_that_begins_again_is_shown_from_its_beginning_when_its_log_is_new() {
        let out = Output::new(false, true);
        let (first, mut second) = (job(7, JobState::Running), job(7, JobState::Running));
        second.attempt = 2;
        let mut shown = Shown { out: &out, text: None, bytes: 9_000 };
        began_again(&first, &first, &mut shown);
        assert_eq!(shown.bytes, 9_000, "a log that is behind is no new log");
        began_again(&first, &second, &mut shown);
        assert_eq!(shown.bytes, 0);
    }

    #[test]
    fn the_last_words_say_why_it_failed() {
        let mut lost = job(7, JobState::Failed);
        lost.reason = Some("emerge ended with 1".to_owned());
        assert_eq!(last_words(&lost), "job 7 (app-misc/one-1.0): failed in compile: emerge ended with 1");
    }
}
