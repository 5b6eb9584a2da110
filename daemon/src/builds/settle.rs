//! How a job ended, as its row says it.

use super::local::BuildError;
use super::offload::client::OffloadError;
use super::work::{Made, WorkError};
use crate::api_builds::{Job, JobState};
use crate::causes::with_causes;
use crate::stats::now_s;
use std::path::Path;

/// Writes into a job what it came to; `tail` is the end of its log, `because` why it was cancelled if not by its user.
pub(super) fn settle(job: &mut Job, made: Result<Made, WorkError>, tail: Vec<String>, because: Option<String>) {
    job.ended_at = Some(now_s());
    let (row, source) = match made {
        Ok(Made::Here(row)) => (row, None),
        Ok(Made::Substituted(row)) => (row, Some("substitute")),
        Ok(Made::Offloaded(row)) => (row, Some("offload")),
        Ok(Made::Built(row)) => (row, Some("build")),
        Err(WorkError::Build(BuildError::Cancelled) | WorkError::Offload(OffloadError::Cancelled)) => {
            job.state = JobState::Cancelled;
            job.reason = because;
            return;
        }
        Err(error) => {
            if let WorkError::Build(BuildError::Failed { phase, log, .. }) = &error {
                job.phase.clone_from(phase);
                job.log_path = Path::new(&job.log_path).with_file_name(log).display().to_string();
            }
            if let WorkError::Offload(OffloadError::Ebuild { phase, .. }) = &error {
                job.phase.clone_from(phase);
            }
            tracing::info!(job = job.id, cpv = job.cpv, phase = job.phase, %error, "a build failed");
            job.state = JobState::Failed;
            job.reason = Some(with_causes(&error));
            job.log_tail = tail;
            return;
        }
    };
    job.state = JobState::Done;
    "publish".clone_into(&mut job.phase);
    job.reason = None;
    job.source = source.map(str::to_owned).or(job.source.take());
    job.builder = row.builder().map(|peer| peer.to_string());
    job.digest = Some(row.digest.to_string());
    job.image = Some(row.image.to_string());
    job.size = Some(row.size);
}
