//! What is remembered of each host: how fast, how often it failed, and until when it is better left alone.
//!
//! Pure: every function is given the time. Bounded: [`HOSTS_MAX`] hosts and [`PAIRS_MAX`] pairs of place and file, the
//! least recently used goes first. Nothing is kept over a restart; a mirror deserves a fresh chance then.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tree::digest::Digest;

use crate::error::{Blame, FetchError};

/// Hosts remembered. A machine knows a handful of mirrors and some hundred upstream hosts.
pub const HOSTS_MAX: usize = 1024;
/// Pairs (place, file) remembered as not worth asking.
pub const PAIRS_MAX: usize = 4096;

/// The first cool-off after a failure; it doubles with each further one.
const COOL_FIRST: Duration = Duration::from_secs(5);
/// The longest cool-off after failures of the moment.
const COOL_MAX: Duration = Duration::from_secs(10 * 60);
/// The first cool-off after wrong bytes; it doubles too.
const WRONG_FIRST: Duration = Duration::from_secs(60);
/// The longest that any host is left alone, whatever it asks for.
pub(crate) const LEFT_ALONE_MAX: Duration = Duration::from_secs(60 * 60);
/// When 429 or 503 comes without Retry-After.
const BUSY_FIRST: Duration = Duration::from_secs(30);
/// How long "not there" (404, 410) holds for a place and file; mirrors take new files about hourly.
const MISSING: Duration = Duration::from_secs(5 * 60);
/// How long any other refusal of one file holds (403, another length, a strange range).
const UNFIT: Duration = Duration::from_secs(15 * 60);
/// How long wrong bytes hold for a place and file.
const WRONG: Duration = Duration::from_secs(60 * 60);
/// A measurement older than this says nothing.
const STALE: Duration = Duration::from_secs(6 * 60 * 60);
/// What is assumed of a host never measured: so that a good one keeps its place and a poor one lets others have a try.
const LATENCY_ASSUMED: Duration = Duration::from_millis(150);
/// Bytes per second assumed of a host never measured.
const SPEED_ASSUMED: u64 = 2 * 1024 * 1024;
/// Transfers smaller than this say more about latency than about speed.
const MEASURED_MIN: u64 = 16 * 1024;

/// What a caller tells of an attempt, through [`crate::Mirrors::report`].
#[derive(Debug, Clone, Copy)]
pub enum Report<'a> {
    /// Bytes came, and in the end they were right.
    Served {
        /// How many came from this candidate.
        bytes: u64,
        /// Since the body began.
        elapsed: Duration,
    },
    /// All the bytes came from this candidate and the digest is another.
    WrongBytes,
    /// [`crate::Mirrors::open`] or [`crate::Body::chunk`] failed.
    Failed(&'a FetchError),
}

/// One host as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHealth {
    /// Host, and port if not the usual one.
    pub host: String,
    /// Transfers that brought right bytes.
    pub ok: u64,
    /// Attempts that failed, wrong bytes included; "not there" is not a failure.
    pub failed: u64,
    /// Right bytes received.
    pub bytes: u64,
    /// Moving average of the time to the first byte, if ever measured.
    pub latency_ms: Option<u64>,
    /// Moving average of the speed, if ever measured.
    pub bytes_per_second: Option<u64>,
    /// Seconds from now until it is asked first again; `None` when it is not cooling.
    pub cooling_until_s: Option<u64>,
    /// The last failure, in words.
    pub last_error: Option<String>,
}

/// Whether a host is to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// As well as any.
    Good,
    /// It failed of late: after all the others.
    Cooling,
    /// It asked to be left alone: not at all.
    LeftAlone,
}

#[derive(Debug, Clone, Default)]
struct Host {
    touched: u64,
    ok: u64,
    failed: u64,
    bytes: u64,
    /// Failures since the last success.
    in_a_row: u32,
    wrong_in_a_row: u32,
    latency_micros: Option<u64>,
    bytes_per_second: Option<u64>,
    measured: Option<Instant>,
    cooling_until: Option<Instant>,
    left_alone_until: Option<Instant>,
    last_error: Option<String>,
}

impl Host {
    fn cool(&mut self, now: Instant, first: Duration, times: u32, longest: Duration) {
        let until = now + doubled(first, times, longest);
        self.cooling_until = self.cooling_until.max(Some(until));
    }

    fn failed(&mut self, now: Instant, why: String) {
        self.failed = self.failed.saturating_add(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last_error = Some(why);
        self.cool(now, COOL_FIRST, self.in_a_row, COOL_MAX);
    }

    fn leave_alone(&mut self, now: Instant, asked: Option<Duration>) {
        let wait = asked.unwrap_or_else(|| doubled(BUSY_FIRST, self.in_a_row, LEFT_ALONE_MAX)).min(LEFT_ALONE_MAX);
        self.left_alone_until = self.left_alone_until.max(Some(now + wait));
    }
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    touched: u64,
    until: Instant,
}

/// The memory.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    hosts: HashMap<String, Host>,
    /// Key: the digest of place and file, so that a long URI costs no memory.
    pairs: HashMap<Digest, Pair>,
    clock: u64,
}

impl Ledger {
    /// Takes in how an attempt at `host` went; `pair` is the place and file it was about, `None` for what is no distfile.
    pub(crate) fn report(&mut self, host: &str, pair: Option<Digest>, report: Report<'_>, now: Instant) {
        match report {
            Report::Served { bytes, elapsed } => {
                let host = self.host(host);
                host.ok = host.ok.saturating_add(1);
                host.bytes = host.bytes.saturating_add(bytes);
                (host.in_a_row, host.wrong_in_a_row, host.cooling_until) = (0, 0, None);
                let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
                if bytes >= MEASURED_MIN && micros > 0 {
                    let speed = u128::from(bytes) * 1_000_000 / u128::from(micros);
                    let speed = u64::try_from(speed).unwrap_or(u64::MAX);
                    host.bytes_per_second = Some(averaged(host.bytes_per_second, speed));
                    host.measured = Some(now);
                }
            }
            Report::WrongBytes => {
                let host = self.host(host);
                host.wrong_in_a_row = host.wrong_in_a_row.saturating_add(1);
                host.failed(now, "wrong bytes".to_owned());
                host.cool(now, WRONG_FIRST, host.wrong_in_a_row, LEFT_ALONE_MAX);
                self.avoid(pair, WRONG, now);
            }
            Report::Failed(error) => self.failed(host, pair, error, now),
        }
    }

    fn failed(&mut self, host: &str, pair: Option<Digest>, error: &FetchError, now: Instant) {
        let (host_fails, avoid) = match error {
            FetchError::Connect { .. }
            | FetchError::Timeout { .. }
            | FetchError::Stalled { .. }
            | FetchError::Truncated { .. }
            | FetchError::Garbled { .. } => (true, None),
            FetchError::Status { code: 429 | 503, retry_after, .. } => {
                let host = self.host(host);
                host.failed(now, error.to_string());
                host.leave_alone(now, *retry_after);
                return;
            }
            FetchError::Status { code: 404 | 410, .. } => (false, Some(MISSING)),
            FetchError::Status { code: 408 | 425 | 500..=599, .. } => (true, None),
            FetchError::Status { .. } | FetchError::WrongRange { .. } => (false, Some(UNFIT)),
            // Upstream hosts hold thousands of unrelated places, and authors do re-roll tarballs; a mirror has no excuse.
            FetchError::WrongLength { at, .. }
            | FetchError::Encoding { at, .. }
            | FetchError::Redirects { at, .. }
            | FetchError::RedirectRefused { at, .. } => (matches!(at, Blame::Mirror(_)), Some(UNFIT)),
            FetchError::LeftAlone { .. } | FetchError::NotHttp { .. } | FetchError::PastEnd { .. } => (false, None),
        };
        if host_fails {
            self.host(host).failed(now, error.to_string());
        }
        if let Some(how_long) = avoid {
            self.avoid(pair, how_long, now);
        }
    }

    /// Takes in the time from asking to the head of the answer.
    pub(crate) fn answered(&mut self, host: &str, latency: Duration, now: Instant) {
        let host = self.host(host);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        host.latency_micros = Some(averaged(host.latency_micros, micros));
        host.measured = Some(now);
    }

    /// Whether the host is to be asked now.
    pub(crate) fn standing(&self, host: &str, now: Instant) -> Standing {
        let Some(host) = self.hosts.get(host) else { return Standing::Good };
        if host.left_alone_until.is_some_and(|until| until > now) {
            Standing::LeftAlone
        } else if host.cooling_until.is_some_and(|until| until > now) {
            Standing::Cooling
        } else {
            Standing::Good
        }
    }

    /// How long the host is still to be left alone, if it is.
    pub(crate) fn left_alone(&self, host: &str, now: Instant) -> Option<Duration> {
        let until = self.hosts.get(host)?.left_alone_until?;
        Some(until.saturating_duration_since(now)).filter(|span| !span.is_zero())
    }

    /// Whether this place is known not to have this file, or not the right one.
    pub(crate) fn is_avoided(&self, pair: &Digest, now: Instant) -> bool {
        self.pairs.get(pair).is_some_and(|pair| pair.until > now)
    }

    /// How long `size` bytes may take from there, as a power of two in milliseconds: so coarse that only a difference
    /// of about two changes the user's order.
    pub(crate) fn cost(&self, host: &str, size: u64, now: Instant) -> u32 {
        let host = self.hosts.get(host);
        let fresh = host.filter(|host| host.measured.is_some_and(|at| now.saturating_duration_since(at) < STALE));
        let latency =
            fresh.and_then(|host| host.latency_micros).map_or(LATENCY_ASSUMED, Duration::from_micros).as_millis();
        let speed = fresh.and_then(|host| host.bytes_per_second).unwrap_or(SPEED_ASSUMED).max(1);
        let transfer = u128::from(size) * 1000 / u128::from(speed);
        let failures = host.map_or(0, |host| host.in_a_row.min(16));
        ((latency + transfer) * u128::from(failures + 1)).max(1).ilog2()
    }

    /// All hosts by name, for the status page.
    pub(crate) fn health(&self, now: Instant) -> Vec<HostHealth> {
        let mut all: Vec<HostHealth> = self.hosts.iter().map(|(name, host)| shown(name, host, now)).collect();
        all.sort_by(|a, b| a.host.cmp(&b.host));
        all
    }

    fn host(&mut self, name: &str) -> &mut Host {
        self.clock += 1;
        if !self.hosts.contains_key(name)
            && self.hosts.len() >= HOSTS_MAX
            && let Some(oldest) = self.hosts.iter().min_by_key(|(_, host)| host.touched).map(|(name, _)| name.clone())
        {
            self.hosts.remove(&oldest);
        }
        let host = self.hosts.entry(name.to_owned()).or_default();
        host.touched = self.clock;
        host
    }

    fn avoid(&mut self, pair: Option<Digest>, how_long: Duration, now: Instant) {
        let Some(pair) = pair else { return };
        self.clock += 1;
        if !self.pairs.contains_key(&pair) && self.pairs.len() >= PAIRS_MAX {
            self.pairs.retain(|_, pair| pair.until > now);
            if self.pairs.len() >= PAIRS_MAX
                && let Some(oldest) = self.pairs.iter().min_by_key(|(_, pair)| pair.touched).map(|(key, _)| *key)
            {
                self.pairs.remove(&oldest);
            }
        }
        self.pairs.insert(pair, Pair { touched: self.clock, until: now + how_long });
    }
}

fn shown(name: &str, host: &Host, now: Instant) -> HostHealth {
    let until = host.cooling_until.max(host.left_alone_until).filter(|until| *until > now);
    HostHealth {
        host: name.to_owned(),
        ok: host.ok,
        failed: host.failed,
        bytes: host.bytes,
        latency_ms: host.latency_micros.map(|micros| micros / 1000),
        bytes_per_second: host.bytes_per_second,
        cooling_until_s: until.map(|until| until.duration_since(now).as_secs().max(1)),
        last_error: host.last_error.clone(),
    }
}

/// `first`, doubled for each time after the first, at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(longest)
}

/// Exponentially weighted moving average with 3/10 for the newest.
fn averaged(old: Option<u64>, new: u64) -> u64 {
    old.map_or(new, |old| {
        let sum = u128::from(old) * 7 + u128::from(new) * 3;
        u64::try_from(sum / 10).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: fn() -> Instant = Instant::now;

    fn at(host: &str) -> Blame {
        Blame::Mirror(host.to_owned())
    }

    fn status(code: u16, retry_after: Option<u64>) -> FetchError {
        FetchError::Status { at: at("m"), code, retry_after: retry_after.map(Duration::from_secs) }
    }

    fn pair(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    #[test]
    fn a_host_that_says_retry_after_is_left_alone_until_then_and_no_longer() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.report("m", None, Report::Failed(&status(429, Some(120))), now);
        assert_eq!(ledger.standing("m", now + Duration::from_secs(119)), Standing::LeftAlone);
        assert_eq!(ledger.standing("m", now + Duration::from_secs(121)), Standing::Good);
        assert_eq!(ledger.standing("other", now), Standing::Good);
    }

    #[test]
    fn a_success_does_not_cut_a_retry_after_short() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.report("m", None, Report::Failed(&status(503, Some(60))), now);
        ledger.report("m", None, Report::Served { bytes: 1, elapsed: Duration::ZERO }, now);
        assert_eq!(ledger.standing("m", now), Standing::LeftAlone);
    }

    #[test]
    fn nobody_is_left_alone_for_more_than_an_hour() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.report("m", None, Report::Failed(&status(503, Some(u64::MAX / 4))), now);
        assert_eq!(ledger.standing("m", now + LEFT_ALONE_MAX), Standing::Good);
    }

    #[test]
    fn failures_in_a_row_cool_longer_each_time_up_to_a_cap_and_a_success_forgives() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        let stalled = FetchError::Stalled { at: at("m"), waited: COOL_FIRST, bytes: 0 };
        ledger.report("m", None, Report::Failed(&stalled), now);
        assert_eq!(ledger.standing("m", now + COOL_FIRST), Standing::Good);
        ledger.report("m", None, Report::Failed(&stalled), now);
        assert_eq!(ledger.standing("m", now + COOL_FIRST), Standing::Cooling);
        for _ in 0..100 {
            ledger.report("m", None, Report::Failed(&stalled), now);
        }
        assert_eq!(ledger.standing("m", now + COOL_MAX), Standing::Good);
        ledger.report("m", None, Report::Served { bytes: 9, elapsed: Duration::ZERO }, now);
        assert_eq!(ledger.standing("m", now), Standing::Good);
        assert_eq!(ledger.health(now)[0].failed, 102);
    }

    #[test]
    fn wrong_bytes_cool_harder_than_a_stall_and_the_pair_longest() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.report("m", Some(pair("f")), Report::WrongBytes, now);
        assert_eq!(ledger.standing("m", now + COOL_FIRST * 2), Standing::Cooling);
        assert_eq!(ledger.standing("m", now + WRONG_FIRST), Standing::Good);
        assert!(ledger.is_avoided(&pair("f"), now + WRONG_FIRST * 2));
        assert!(!ledger.is_avoided(&pair("f"), now + WRONG));
        assert!(!ledger.is_avoided(&pair("g"), now));
    }

    #[test]
    fn not_there_says_nothing_against_the_host() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.report("m", Some(pair("f")), Report::Failed(&status(404, None)), now);
        assert_eq!(ledger.standing("m", now), Standing::Good);
        assert!(ledger.is_avoided(&pair("f"), now));
        assert!(ledger.health(now).is_empty());
    }

    #[test]
    fn a_file_of_another_length_counts_against_a_mirror_but_not_against_an_upstream_host() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        let wrong = |at| FetchError::WrongLength { at, expected: 1, actual: 2 };
        ledger.report("m", Some(pair("f")), Report::Failed(&wrong(at("m"))), now);
        ledger.report("u", Some(pair("g")), Report::Failed(&wrong(Blame::Upstream("u".into()))), now);
        assert_eq!(ledger.standing("m", now), Standing::Cooling);
        assert_eq!(ledger.standing("u", now), Standing::Good);
        assert!(ledger.is_avoided(&pair("f"), now) && ledger.is_avoided(&pair("g"), now));
    }

    #[test]
    fn a_measured_fast_host_costs_less_than_an_unknown_and_a_slow_one_more() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        let second = Duration::from_secs(1);
        ledger.report("fast", None, Report::Served { bytes: 50 << 20, elapsed: second }, now);
        ledger.report("slow", None, Report::Served { bytes: 50 << 10, elapsed: second }, now);
        let size = 10 << 20;
        assert!(ledger.cost("fast", size, now) < ledger.cost("unknown", size, now));
        assert!(ledger.cost("unknown", size, now) < ledger.cost("slow", size, now));
        assert_eq!(ledger.cost("slow", size, now + STALE), ledger.cost("unknown", size, now));
        assert_eq!(ledger.cost("unknown", u64::MAX, now), ledger.cost("other", u64::MAX, now));
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_goes_first() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        for number in 0..HOSTS_MAX + 10 {
            ledger.answered(&format!("h{number}"), Duration::from_millis(5), now);
            ledger.answered("h0", Duration::from_millis(5), now);
        }
        assert_eq!(ledger.hosts.len(), HOSTS_MAX);
        assert!(ledger.hosts.contains_key("h0") && !ledger.hosts.contains_key("h1"));
        for number in 0..PAIRS_MAX + 10 {
            ledger.avoid(Some(pair(&number.to_string())), WRONG, now);
        }
        assert_eq!(ledger.pairs.len(), PAIRS_MAX);
        assert!(!ledger.is_avoided(&pair("0"), now));
    }

    #[test]
    fn the_status_page_is_told_averages_and_the_last_error() {
        let (mut ledger, now) = (Ledger::default(), NOW());
        ledger.answered("m", Duration::from_millis(100), now);
        ledger.answered("m", Duration::from_millis(200), now);
        ledger.report("m", None, Report::Failed(&status(500, None)), now);
        let health = ledger.health(now);
        assert_eq!(health[0].latency_ms, Some(130));
        assert_eq!(health[0].cooling_until_s, Some(5));
        assert_eq!(health[0].last_error.as_deref(), Some("mirror m answered with status 500"));
    }
}
