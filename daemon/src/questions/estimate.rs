//! How long builds take: as long as they took the last time.

use crate::api_builds::{Job, JobState};
use std::collections::BTreeMap;
use tree::cpv::{Cp, Cpv};
use tree::version::Version;

/// Seconds of builds that ended well, by package; of each the newest version, and of that the latest build.
#[derive(Debug, Default)]
pub struct BuildTimes(BTreeMap<Cp, (Version, u64, u64)>);

impl BuildTimes {
    /// What these jobs tell.
    #[must_use]
    pub fn of(jobs: &[Job]) -> Self {
        let mut known: BTreeMap<Cp, (Version, u64, u64)> = BTreeMap::new();
        for job in jobs.iter().filter(|job| job.state == JobState::Done && job.source.as_deref() == Some("build")) {
            let (Some(started), Some(ended)) = (job.started_at, job.ended_at) else { continue };
            let Ok(cpv) = job.cpv.parse::<Cpv>() else { continue };
            let this = (cpv.version, ended, ended.saturating_sub(started));
            match known.get(&cpv.cp) {
                Some(other) if *other >= this => {}
                _ => drop(known.insert(cpv.cp, this)),
            }
        }
        Self(known)
    }

    /// Seconds that a build of this package took here; none where none was made.
    #[must_use]
    pub fn seconds(&self, cp: &Cp) -> Option<u64> {
        self.0.get(cp).map(|(_, _, seconds)| *seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(cpv: &str, state: JobState, source: &str, times: (u64, u64)) -> Job {
        Job {
            id: 1,
            cpv: cpv.to_owned(),
            repo: "gentoo".to_owned(),
            fingerprint: String::new(),
            state,
            phase: String::new(),
            reason: None,
            source: Some(source.to_owned()),
            builder: None,
            builder_name: None,
            on: None,
            client: None,
            client_name: None,
            tried: Vec::new(),
            attempt: 1,
            created_at: 0,
            started_at: Some(times.0),
            ended_at: Some(times.1),
            digest: None,
            image: None,
            size: None,
            cpu_ms: None,
            memory_peak_bytes: None,
            log_bytes: 0,
            log_path: String::new(),
            log_tail: Vec::new(),
            told: Vec::new(),
        }
    }

    #[test]
    fn the_newest_version_that_was_built_here_counts_and_of_it_the_latest_build() {
        let times = BuildTimes::of(&[
            job("a/b-2", JobState::Done, "build", (200, 260)),
            job("a/b-2", JobState::Done, "build", (100, 190)),
            job("a/b-1", JobState::Done, "build", (300, 301)),
            job("a/b-3", JobState::Failed, "build", (300, 302)),
            job("a/b-4", JobState::Done, "substitute", (300, 303)),
        ]);
        assert_eq!(times.seconds(&"a/b".parse().unwrap()), Some(60));
        assert_eq!(times.seconds(&"a/c".parse().unwrap()), None);
    }
}
