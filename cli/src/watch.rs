//! Jobs as they go on, told to people: what `peer build` and `peer challenge` show, and how `peer jobs` spells it.

use crate::exit::Failure;
use crate::output::{Output, human};
use crate::terminal::plain;
use daemon::api_builds::{Fate, Job, JobState};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Lines of a failed job's log that are shown; the daemon sends about as many.
const TAIL_MAX: usize = 60;

/// The jobs of one request and what was said of them so far.
pub(crate) struct Watch<'a> {
    out: &'a Output,
    seen: BTreeMap<u64, (JobState, String)>,
    /// Lines of each job that were told.
    told: BTreeMap<u64, usize>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(out: &'a Output) -> Self {
        Self { out, seen: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// Tells what changed: a running job has a line on a terminal, or else a line for each phase; an ended one is told once.
    pub(crate) fn hear(&mut self, job: &Job) -> Result<(), Failure> {
        let now = (job.state, job.phase.clone());
        let before = self.seen.insert(job.id, now.clone());
        let told = self.told.insert(job.id, job.told.len()).unwrap_or(0);
        if !self.out.json() {
            // What is done otherwise than it was foreseen is no progress: it is said at once, also to the quiet.
            job.told.iter().skip(told).for_each(|line| self.out.complain(&format!("peer: {}: {line}", job.cpv)));
        }
        if job.state.is_final() {
            self.out.progress_ends(&key(job));
            let told = before.is_some_and(|(state, _)| state.is_final());
            return if told || self.out.json() { Ok(()) } else { self.ended(job) };
        }
        if job.state == JobState::Running {
            let since = job.started_at.unwrap_or(job.created_at);
            let elapsed = Duration::from_secs(now_s().saturating_sub(since));
            self.out.activity(&key(job), &job.cpv, &doing(job), elapsed);
        }
        if !self.out.draws() && !self.out.json() && before.as_ref() != Some(&now) {
            self.out.say(&format!("{} (job {}): {}", job.cpv, job.id, step(job)));
        }
        Ok(())
    }

    /// Numbers of the jobs that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<u64> {
        self.seen.iter().filter(|(_, (state, _))| !state.is_final()).map(|(id, _)| *id).collect()
    }

    /// What a user who leaves should know.
    pub(crate) fn left(&self) -> String {
        let ids: Vec<String> = self.unfinished().iter().map(ToString::to_string).collect();
        if ids.is_empty() {
            "what was begun goes on; `peer jobs` lists it and `peer cancel JOB` ends it".to_owned()
        } else {
            format!("the jobs go on: `peer jobs` lists them; `peer cancel {}` ends them", ids.join(" "))
        }
    }

    fn ended(&self, job: &Job) -> Result<(), Failure> {
        match job.state {
            JobState::Done => self.out.fact(&made(job)),
            JobState::Cancelled => {
                self.out.complain(&format!("peer: {} was cancelled (job {})", job.cpv, job.id));
                Ok(())
            }
            JobState::Failed | JobState::Queued | JobState::Running => {
                failed(job).iter().for_each(|line| self.out.complain(line));
                Ok(())
            }
        }
    }
}

fn key(job: &Job) -> String {
    format!("job {}", job.id)
}

/// `compile, log 12.00 KiB`.
fn doing(job: &Job) -> String {
    if job.log_bytes == 0 { job.phase.clone() } else { format!("{}, log {}", job.phase, human(job.log_bytes)) }
}

/// A change as a line of its own.
fn step(job: &Job) -> String {
    match (job.state, &job.reason) {
        (JobState::Queued, Some(reason)) => format!("queued: {reason}"),
        (JobState::Queued, None) => "queued".to_owned(),
        _ => job.phase.clone(),
    }
}

/// `built app-misc/one-1.0 12.00 KiB in 3 s`.
fn made(job: &Job) -> String {
    let size = job.size.map(|size| format!(" {}", human(size))).unwrap_or_default();
    let took = ran_s(job, now_s()).map(|seconds| format!(" in {}", time(seconds))).unwrap_or_default();
    match (job.source.as_deref(), &job.builder) {
        (Some("substitute"), Some(builder)) => format!("substituted {}{size}{took} from {builder}", job.cpv),
        (Some("substitute"), None) => format!("substituted {}{size}{took}", job.cpv),
        (Some("offload"), builder) => {
            let by = job.builder_name.as_ref().or(builder.as_ref());
            let by = by.map(|builder| format!(" on {builder}")).unwrap_or_default();
            format!("offloaded {}{size}{took}{by}", job.cpv)
        }
        (Some(_), _) => format!("built {}{size}{took}", job.cpv),
        // It was made by another request while this one waited.
        (None, _) => format!("have {}", job.cpv),
    }
}

/// What is said of a failed job: the phase, the reason, the end of the log, and where the rest is.
fn failed(job: &Job) -> Vec<String> {
    let reason = job.reason.as_deref().unwrap_or("no reason is known");
    // A job that never began failed for what it waited for, and some reasons name the phase themselves.
    let told = job.started_at.is_none() || reason.contains(&job.phase);
    let phase = if told { String::new() } else { format!("{}: ", job.phase) };
    let mut lines = vec![format!("peer: cannot build {}: {phase}{reason}", job.cpv)];
    let unsaid = job.log_tail.len().saturating_sub(TAIL_MAX);
    lines.extend(job.log_tail.iter().skip(unsaid).map(|line| format!("  | {}", plain(line))));
    if job.log_bytes > 0 {
        lines.push(format!("the whole log ({}): {}", human(job.log_bytes), job.log_path));
        lines.push(format!("hint: `peer logs {}` prints it", job.id));
    }
    lines
}

/// How long it has run or ran, in seconds; none when it did not begin.
pub(crate) fn ran_s(job: &Job, now_s: u64) -> Option<u64> {
    let end = if job.state.is_final() { job.ended_at? } else { now_s };
    Some(end.saturating_sub(job.started_at?))
}

/// Seconds since the epoch.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time in its two largest units: `3 s`, `2 min 5 s`, `1 h 2 min`, `3 d 4 h`.
pub(crate) fn time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The same without spaces, for a column: `2min5s`.
pub(crate) fn short_time(seconds: u64) -> String {
    time(seconds).replace(' ', "")
}

/// As `--json` spells it.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// As `--json` spells it.
pub(crate) fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Have => "have",
        Fate::Substitute => "substitute",
        Fate::Offload => "offload",
        Fate::Build => "build",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job of the given number and state, for tests.
    pub(crate) fn job(id: u64, state: JobState) -> Job {
        Job {
            id,
            cpv: "app-misc/one-1.0".to_owned(),
            repo: "main".to_owned(),
            fingerprint: "ab".repeat(64),
            state,
            phase: "compile".to_owned(),
            reason: None,
            source: Some("build".to_owned()),
            builder: None,
            builder_name: None,
            on: None,
            client: None,
            client_name: None,
            tried: Vec::new(),
            attempt: 1,
            created_at: 1_000,
            started_at: Some(1_010),
            ended_at: state.is_final().then_some(1_013),
            digest: None,
            image: None,
            size: Some(12 * 1024),
            log_bytes: 2_048,
            log_path: "/data/jobs/7.log".to_owned(),
            cpu_ms: None,
            memory_peak_bytes: None,
            log_tail: Vec::new(),
            told: Vec::new(),
        }
    }

    #[test]
    fn an_ended_job_says_what_it_made_how_long_it_took_and_from_whom() {
        let mut ended = job(7, JobState::Done);
        assert_eq!(made(&ended), "built app-misc/one-1.0 12.00 KiB in 3 s");
        ended.source = Some("substitute".to_owned());
        ended.builder = Some("12D3KooWx".to_owned());
        assert_eq!(made(&ended), "substituted app-misc/one-1.0 12.00 KiB in 3 s from 12D3KooWx");
        ended.source = None;
        assert_eq!(made(&ended), "have app-misc/one-1.0");
    }

    #[test]
    fn a_failed_job_shows_phase_reason_the_end_of_its_log_and_where_the_rest_is() {
        let mut lost = job(7, JobState::Failed);
        lost.reason = Some("emerge ended with 1".to_owned());
        lost.log_tail = (0..100).map(|line| format!("line {line}")).collect();
        let lines = failed(&lost);
        assert_eq!(lines[0], "peer: cannot build app-misc/one-1.0: compile: emerge ended with 1");
        assert_eq!(lines[1], "  | line 40");
        assert_eq!(lines[60], "  | line 99");
        assert_eq!(lines[61], "the whole log (2.00 KiB): /data/jobs/7.log");
        assert_eq!(lines[62], "hint: `peer logs 7` prints it");
    }

    #[test]
    fn a_job_that_never_ran_points_at_no_log() {
        let mut lost = job(7, JobState::Failed);
        lost.reason = Some("app-misc/two-1.0 failed".to_owned());
        (lost.log_bytes, lost.started_at) = (0, None);
        lost.phase = "wait".to_owned();
        assert_eq!(failed(&lost), ["peer: cannot build app-misc/one-1.0: app-misc/two-1.0 failed"]);
    }

    #[test]
    fn who_leaves_is_told_which_jobs_go_on() {
        let out = Output::new(true, true);
        let mut watch = Watch::new(&out);
        for (id, state) in [(3, JobState::Running), (4, JobState::Queued), (5, JobState::Done)] {
            watch.hear(&job(id, state)).unwrap();
        }
        assert_eq!(watch.unfinished(), [3, 4]);
        assert!(watch.left().contains("`peer cancel 3 4`"), "{}", watch.left());
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_725, "1 h 2 min"),
            (90_000, "1 d 1 h"),
            (u64::MAX, "213503982334601 d 7 h"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(short_time(125), "2min5s");
    }

    #[test]
    fn the_time_of_a_job_ends_with_it() {
        assert_eq!(ran_s(&job(1, JobState::Done), 9_999), Some(3));
        assert_eq!(ran_s(&job(1, JobState::Running), 1_020), Some(10));
        let mut waiting = job(1, JobState::Queued);
        waiting.started_at = None;
        assert_eq!(ran_s(&waiting, 1_020), None);
    }
}
