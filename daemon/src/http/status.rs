//! The status page at `/`, its JSON, and the two probes.

use super::jobs;
use crate::api::Status;
use crate::api_builds::{Binpkg, Job, JobState};
use crate::domain::Domain;
use crate::{blocking, pins, snapshot};
use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// Nothing from elsewhere, one inline style and one inline script named by their digests in the build would change with
/// every edit; the page has no user text that is not escaped by the template.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Binary packages listed; `/api/v1/binpkgs` has all.
const BINPKGS_MAX: usize = 20;

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    status: &'a Status,
    /// Newest first.
    jobs: &'a [Job],
    /// Newest first.
    binpkgs: &'a [Binpkg],
    /// Seconds since the epoch.
    now: u64,
}

impl Page<'_> {
    /// Percent of a transfer.
    fn percent(received: &u64, size: &Option<u64>) -> u64 {
        size.filter(|size| *size > 0).map_or(0, |size| received.saturating_mul(100) / size)
    }

    /// As the API spells it.
    fn state(state: &JobState) -> &'static str {
        match state {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The class of a state.
    fn look(state: &JobState) -> &'static str {
        match state {
            JobState::Done => "good",
            JobState::Failed => "bad",
            JobState::Queued | JobState::Running | JobState::Cancelled => "",
        }
    }

    /// Seconds a job has run or ran; none before it begins.
    fn ran(job: &Job, now: &u64) -> Option<u64> {
        let end = if job.state.is_final() { job.ended_at? } else { *now };
        Some(end.saturating_sub(job.started_at?))
    }

    /// Seconds from one moment to another.
    fn since(then: &u64, now: &u64) -> u64 {
        now.saturating_sub(*then)
    }

    /// From when the time of a job counts.
    fn begin(job: &Job) -> u64 {
        job.started_at.unwrap_or(job.created_at)
    }

    /// Bytes of all.
    fn bytes(binpkgs: &[Binpkg]) -> u64 {
        binpkgs.iter().fold(0, |sum, binpkg| sum.saturating_add(binpkg.size))
    }

    /// Those that are listed.
    fn newest<'b>(binpkgs: &&'b [Binpkg]) -> &'b [Binpkg] {
        binpkgs.get(..BINPKGS_MAX).unwrap_or(binpkgs)
    }
}

#[expect(unreachable_pub, reason = "the macro makes public structs of them")]
mod filters {
    //! How numbers look on the page.

    /// Bytes in the largest unit below them, one decimal.
    #[askama::filter_fn]
    pub fn size(bytes: &u64, _env: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::human_size(*bytes))
    }

    /// A time of the day is told by the browser; here are the seconds passed, in words.
    #[askama::filter_fn]
    pub fn duration(seconds: &u64, _env: &dyn askama::Values) -> askama::Result<String> {
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
        Ok(match (days, hours, minutes) {
            (0, 0, 0) => format!("{seconds} s"),
            (0, 0, minutes) => format!("{minutes} min"),
            (0, hours, minutes) => format!("{hours} h {minutes} min"),
            (days, hours, _) => format!("{days} d {hours} h"),
        })
    }

    /// Time since a moment.
    #[askama::filter_fn]
    pub fn ago(at: &u64, env: &dyn askama::Values) -> askama::Result<String> {
        duration::default().execute(&crate::stats::now_s().saturating_sub(*at), env).map(|text| format!("{text} ago"))
    }
}

/// `1.5 GiB`.
#[must_use]
fn human_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >> shift > 0 {
            // Tenths in integers: nothing is lost to floating point.
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// The page.
pub(super) async fn page(State(domain): State<Arc<Domain>>) -> Response {
    let status = snapshot::status(&domain).await;
    let (jobs, listing) = (domain.builds.jobs.list(jobs::NEWEST), Arc::clone(&domain));
    let binpkgs = blocking::run(move || jobs::binpkgs(&listing)).await;
    match (Page { status: &status, jobs: &jobs, binpkgs: &binpkgs, now: crate::stats::now_s() }).render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the status page cannot be written");
            super::distfiles::plain(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written; see the log")
        }
    }
}

/// The status as JSON.
pub(super) async fn json(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(snapshot::status(&domain).await))
}

/// The peers as JSON.
pub(super) async fn peers(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(snapshot::peers(&domain)))
}

/// The pins as JSON.
pub(super) async fn pins(State(domain): State<Arc<Domain>>) -> Response {
    fresh(Json(blocking::run(move || pins::list(&domain)).await))
}

fn fresh(answer: impl axum::response::IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

/// The process answers.
pub(super) async fn alive() -> Response {
    super::distfiles::plain(StatusCode::OK, "alive")
}

/// The first index is there.
pub(super) async fn ready(State(domain): State<Arc<Domain>>) -> Response {
    if domain.repositories.are_read() {
        super::distfiles::plain(StatusCode::OK, "ready")
    } else {
        super::distfiles::plain(StatusCode::SERVICE_UNAVAILABLE, "the repositories are being read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn what_peers_mirrors_and_builds_say_is_escaped() {
        let evil = || "<script>alert(1)</script>".to_owned();
        let mut status = Status { warnings: vec![evil()], ..Status::default() };
        status.connected.push(crate::api::Peer {
            peer_id: evil(),
            addresses: vec![evil()],
            agent: evil(),
            lan: true,
            holdings: 0,
            rtt_ms: None,
            given_bytes: 0,
            received_bytes: 0,
            blamed: 0,
            name: Some(evil()),
            role: Some(evil()),
            grounded_s: None,
        });
        let lost = Job { reason: Some(evil()), builder: Some(evil()), phase: evil(), ..job(7, JobState::Failed) };
        let binpkgs = [Binpkg { cpv: evil(), use_flags: vec![evil()], builder: Some(evil()), ..binpkg(1) }];
        let html = render(&status, &[lost, Job { cpv: evil(), ..job(8, JobState::Running) }], &binpkgs);
        assert!(!html.contains("<script>alert"), "{html}");
    }

    #[test]
    fn a_job_links_its_log_only_when_it_has_one() {
        let quiet = Job { log_bytes: 0, started_at: None, ..job(8, JobState::Queued) };
        let html = render(&Status::default(), &[quiet, job(7, JobState::Failed)], &[]);
        assert!(html.contains("href=\"/api/v1/jobs/7/log?from=0&amp;follow=false\""), "{html}");
        assert!(!html.contains("/api/v1/jobs/8/log"), "{html}");
        assert_eq!(html.matches(" data-ended>").count(), 1, "only one has ended");
    }

    #[test]
    fn only_the_newest_binary_packages_are_listed_and_all_are_counted() {
        let binpkgs: Vec<Binpkg> = (0..30).rev().map(binpkg).collect();
        let html = render(&Status::default(), &[], &binpkgs);
        assert!(html.contains("app-misc/shown-29-") && html.contains("app-misc/shown-10-"), "{html}");
        assert!(!html.contains("app-misc/shown-9-"), "{html}");
        assert!(html.contains("30 in the binhost") && html.contains("the newest 20"), "{html}");
    }

    fn render(status: &Status, jobs: &[Job], binpkgs: &[Binpkg]) -> String {
        Page { status, jobs, binpkgs, now: 1_100 }.render().unwrap()
    }

    fn job(id: u64, state: JobState) -> Job {
        Job {
            id,
            cpv: "app-misc/one-1.0".to_owned(),
            repo: "main".to_owned(),
            fingerprint: "ab".repeat(64),
            state,
            phase: "compile".to_owned(),
            reason: None,
            source: None,
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
            size: None,
            log_bytes: 2_048,
            log_path: String::new(),
            cpu_ms: None,
            memory_peak_bytes: None,
            log_tail: Vec::new(),
            told: Vec::new(),
        }
    }

    fn binpkg(number: u64) -> Binpkg {
        Binpkg {
            cpv: format!("app-misc/shown-{number}"),
            repo: "main".to_owned(),
            slot: "0/0".to_owned(),
            build_id: Some(1),
            use_flags: Vec::new(),
            size: 1_024,
            digest: String::new(),
            fingerprint: String::new(),
            image: String::new(),
            builder: None,
            added_at: 1_000 + number,
            usable: true,
            rejects: Vec::new(),
        }
    }
}
