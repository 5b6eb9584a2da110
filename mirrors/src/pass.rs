//! Handing through what no Manifest names: `/snapshots/` (emerge-webrsync) and `/releases/` (stages, Gentoo's binhost).
//!
//! These bytes are *not* verified here: Portage checks their signatures itself. So nothing but these two trees is passed.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Response;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::error::{Blame, FetchError};
use crate::health::{Report, Standing};
use crate::http::Patience;
use crate::list::Mirrors;
use crate::pace::{Pace, TooSlow};
use crate::plan::Candidate;
use crate::reply;

/// A longer path is refused.
const PATH_MAX: usize = 1024;
/// Directory levels below the root.
const DEPTH_MAX: usize = 16;
/// Mirrors asked for one path.
const TRIES_MAX: usize = 4;
/// No stage or snapshot is near this; a body that goes on past it is cut.
const BODY_MAX: u64 = 32 << 30;
/// Longer conditions and answer headers are dropped.
const HEADER_VALUE_MAX: usize = 512;
/// The size by which mirrors are compared when none is known.
const SIZE_ASSUMED: u64 = 8 << 20;
/// What of an answer is passed on. Not what a mirror calls the content: that is for a browser, and nothing here is.
const PASSED: [&str; 5] = ["content-length", "content-range", "etag", "last-modified", "accept-ranges"];
/// What a path component may hold besides letters and digits, all of it as it stands: a path must not grow in print.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b'+')
    .remove(b'@')
    .remove(b':')
    .remove(b'=')
    .remove(b',');

/// A path below `/snapshots/` or `/releases/` that cannot climb. `Display` is percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassPath(Vec<String>);

/// Why a path is not passed through.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParsePassPathError {
    /// More bytes or levels than any real path has.
    #[error("the path is too long")]
    TooLong,
    /// Not one of the two trees.
    #[error("only /snapshots/ and /releases/ are passed through")]
    OtherTree,
    /// An empty component, one that begins with a dot, or one with a character no such file has.
    #[error("{0:?} is not a component of a path that is passed through")]
    Component(String),
}

impl FromStr for PassPath {
    type Err = ParsePassPathError;

    /// Reads the path as it stands in a request line, still percent-encoded.
    fn from_str(path: &str) -> Result<Self, Self::Err> {
        if path.len() > PATH_MAX {
            return Err(ParsePassPathError::TooLong);
        }
        let inner = path.strip_prefix('/').ok_or(ParsePassPathError::OtherTree)?;
        if !["snapshots/", "releases/"].iter().any(|tree| inner.starts_with(tree)) {
            return Err(ParsePassPathError::OtherTree);
        }
        let mut components = Vec::new();
        for component in inner.split('/') {
            let refused = || ParsePassPathError::Component(component.to_owned());
            let decoded = percent_decode_str(component).decode_utf8().map_err(|_| refused())?;
            let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-~+@:=,".contains(&byte);
            if decoded.is_empty() || decoded.starts_with('.') || !decoded.bytes().all(sound) {
                return Err(refused());
            }
            if components.len() == DEPTH_MAX {
                return Err(ParsePassPathError::TooLong);
            }
            components.push(decoded.into_owned());
        }
        Ok(Self(components))
    }
}

impl fmt::Display for PassPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|component| write!(f, "/{}", utf8_percent_encode(component, PLAIN)))
    }
}

/// What the client knows already; passed on as it is. What is not fit for a header is dropped, which only costs bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditional {
    /// If-None-Match.
    pub if_none_match: Option<String>,
    /// If-Modified-Since.
    pub if_modified_since: Option<String>,
    /// Range.
    pub range: Option<String>,
}

impl Conditional {
    fn headers(&self) -> HeaderMap {
        let all: [(HeaderName, &Option<String>); 3] =
            [(IF_NONE_MATCH, &self.if_none_match), (IF_MODIFIED_SINCE, &self.if_modified_since), (RANGE, &self.range)];
        let fit = all.into_iter().filter_map(|(name, text)| {
            let text = text.as_ref().filter(|text| text.len() <= HEADER_VALUE_MAX)?;
            Some((name, HeaderValue::try_from(text).ok()?))
        });
        fit.collect()
    }
}

/// Why a path could not be passed through.
#[derive(Debug, Clone, Error)]
pub enum OpenPathError {
    /// Not a path to pass through.
    #[error(transparent)]
    Path(#[from] ParsePassPathError),
    /// There is no mirror, or all have asked to be left alone.
    #[error("no mirror can be asked")]
    NoMirror,
    /// The last mirror asked failed; "not found" if any said so.
    #[error("no mirror has {path}")]
    Fetch {
        /// The path asked for.
        path: String,
        /// What the most telling mirror answered.
        #[source]
        source: FetchError,
    },
}

impl Mirrors {
    /// Opens a path below `/snapshots/` or `/releases/` (percent-encoded, as in the request line) at the healthiest
    /// mirror, or at the next when that fails. Health is kept by this function itself.
    ///
    /// Cancel safe: yes; the connection is dropped.
    ///
    /// # Errors
    /// When the path is not to be passed, there is no mirror, or none has it.
    pub async fn open_path(&self, path: &str, conditional: &Conditional) -> Result<PassBody, OpenPathError> {
        let path: PassPath = path.parse()?;
        let headers = conditional.headers();
        let mut worst: Option<FetchError> = None;
        for candidate in self.by_health() {
            match self.pass(&candidate, &path, &headers).await {
                Ok(body) => return Ok(body),
                Err(error) => {
                    self.report(&candidate, Report::Failed(&error));
                    // "Not there" tells the client more than "the other one is down".
                    if !worst.as_ref().is_some_and(|kept| matches!(kept, FetchError::Status { code: 404, .. })) {
                        worst = Some(error);
                    }
                }
            }
        }
        match worst {
            Some(source) => Err(OpenPathError::Fetch { path: path.to_string(), source }),
            None => Err(OpenPathError::NoMirror),
        }
    }

    fn by_health(&self) -> Vec<Candidate> {
        let now = Instant::now();
        let mirrors = self.mirrors();
        let mut candidates: Vec<Candidate> = mirrors.iter().filter_map(|url| Candidate::mirror(url).ok()).collect();
        let ledger = self.ledger();
        candidates.retain(|candidate| ledger.standing(candidate.host(), now) != Standing::LeftAlone);
        candidates.sort_by_cached_key(|candidate| {
            (ledger.standing(candidate.host(), now), ledger.cost(candidate.host(), SIZE_ASSUMED, now))
        });
        candidates.truncate(TRIES_MAX);
        candidates
    }

    async fn pass(&self, candidate: &Candidate, path: &PassPath, headers: &HeaderMap) -> Result<PassBody, FetchError> {
        let at = candidate.blame();
        let options = &self.inner.options;
        let asked = Instant::now();
        let first_byte = Patience::Normal.first_byte(options);
        let response = self.inner.clients.get(&below(candidate.url(), path), headers, &at, first_byte).await?;
        let now = Instant::now();
        self.ledger().answered(candidate.host(), now.duration_since(asked), now);
        let status = response.status().as_u16();
        if !matches!(status, 200 | 206 | 304 | 416) {
            let retry_after = reply::retry_after(response.headers(), SystemTime::now());
            return Err(FetchError::Status { at, code: status, retry_after });
        }
        reply::check_encoding(response.headers(), &at)?;
        let length = reply::content_length(response.headers()).filter(|_| status != 304);
        if let Some(length) = length.filter(|length| *length > BODY_MAX) {
            return Err(FetchError::WrongLength { at, expected: BODY_MAX, actual: length });
        }
        Ok(PassBody {
            status,
            headers: passed(response.headers(), status == 304),
            source: candidate.to_string(),
            at,
            length,
            position: 0,
            // A client that cannot change the mirror is better served by waiting.
            pace: Patience::Long.pace(options),
            response: Some(response),
            failed: None,
        })
    }
}

/// `path` below the mirror's base.
fn below(base: &Url, path: &PassPath) -> Url {
    let mut url = base.clone();
    let whole = format!("{}{path}", base.path().trim_end_matches('/'));
    url.set_path(&whole);
    url
}

/// The headers worth passing on, names in lower case, values short and visible ASCII; no length for an `empty` answer.
fn passed(headers: &HeaderMap, empty: bool) -> Vec<(&'static str, String)> {
    let fit = PASSED.iter().filter(|name| !(empty && **name == "content-length")).filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        (value.len() <= HEADER_VALUE_MAX).then(|| (*name, value.to_owned()))
    });
    fit.collect()
}

/// An answer to hand on.
pub struct PassBody {
    status: u16,
    headers: Vec<(&'static str, String)>,
    source: String,
    at: Blame,
    length: Option<u64>,
    position: u64,
    pace: Pace,
    response: Option<Response>,
    failed: Option<FetchError>,
}

impl PassBody {
    /// 200, 206, 304 or 416.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What to hand on of the answer's headers: lower-case names (`content-length`, `content-range`, `etag`,
    /// `last-modified`, `accept-ranges`) and values of visible ASCII.
    #[must_use]
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// Bytes of the body, if the mirror said so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Where it comes from, for logs: no credentials.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The next bytes; `None` at the end.
    ///
    /// Cancel safe: yes, no byte is lost. After an error every call gives the same error.
    ///
    /// # Errors
    /// When the body ends early, is silent too long, or has no end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let answer = self.next().await;
        match &answer {
            Ok(Some(_)) => {}
            Ok(None) => self.response = None,
            Err(error) => (self.response, self.failed) = (None, Some(error.clone())),
        }
        answer
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let at = || self.at.clone();
        let bytes = loop {
            let deadline = self.pace.deadline(Instant::now());
            let Ok(read) = timeout_at(deadline, response.chunk()).await else {
                let TooSlow { waited, bytes } = self.pace.silent();
                return Err(FetchError::Stalled { at: at(), waited, bytes });
            };
            match read {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => break bytes,
                Ok(None) => return Ok(None),
                Err(source) => {
                    let (expected, actual) = (self.length.unwrap_or(self.position), self.position);
                    let source = Some(Arc::new(source.without_url()));
                    return Err(FetchError::Truncated { at: at(), expected, actual, source });
                }
            }
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(length);
        if self.position > BODY_MAX {
            return Err(FetchError::WrongLength { at: at(), expected: BODY_MAX, actual: self.position });
        }
        if let Err(TooSlow { waited, bytes }) = self.pace.took(length, Instant::now()) {
            return Err(FetchError::Stalled { at: at(), waited, bytes });
        }
        Ok(Some(bytes))
    }
}

impl fmt::Debug for PassBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassBody({} {} at {})", self.status, self.source, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::proptest;

    #[test]
    fn real_paths_are_passed_and_printed_as_they_came() {
        for path in [
            "/snapshots/gentoo-latest.tar.xz",
            "/snapshots/gentoo-20261120.tar.xz.gpgsig",
            "/releases/amd64/binpackages/23.0/x86-64/Packages.gz",
            "/releases/amd64/binpackages/23.0/x86-64/x11-libs/gtk+/gtk+-3.24.51-1.gpkg.tar",
            "/releases/amd64/autobuilds/20261115T164500Z/stage3-amd64-openrc-20261115T164500Z.tar.xz",
        ] {
            assert_eq!(path.parse::<PassPath>().unwrap().to_string(), path);
        }
        assert_eq!("/snapshots/a%2Bb".parse::<PassPath>().unwrap().to_string(), "/snapshots/a+b");
    }

    #[test]
    fn nothing_climbs_and_nothing_else_is_passed() {
        for path in [
            "",
            "/",
            "snapshots/x",
            "/distfiles/x",
            "/snapshots",
            "/snapshots/",
            "/snapshots//x",
            "/snapshots/../x",
            "/snapshots/%2e%2e/x",
            "/snapshots/..%2fx",
            "/snapshots/x?y",
            "/snapshots/x#y",
            "/snapshots/.x",
            "/snapshots/a b",
            "/snapshots/a%00",
            "/snapshots/a%ff",
            "/snapshots/a\\b",
            "/snapshots/%252e",
            "/snapshotsx/a",
        ] {
            assert!(path.parse::<PassPath>().is_err(), "{path}");
        }
        assert_eq!(format!("/releases/{}", "a".repeat(PATH_MAX)).parse::<PassPath>(), Err(ParsePassPathError::TooLong));
        assert_eq!(
            format!("/releases{}", "/a".repeat(DEPTH_MAX)).parse::<PassPath>(),
            Err(ParsePassPathError::TooLong)
        );
    }

    #[test]
    fn conditions_that_are_not_fit_for_a_header_are_dropped() {
        let conditional = Conditional {
            if_none_match: Some("\"x\"\r\nEvil: 1".into()),
            if_modified_since: Some("a".repeat(HEADER_VALUE_MAX + 1)),
            range: Some("bytes=5-".into()),
        };
        let headers = conditional.headers();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[RANGE], "bytes=5-");
    }

    proptest! {
        #[test]
        fn what_parses_prints_back_and_stays_below_the_mirror(path in "/(snapshots|releases)(/[a-z.%2eF+~ ]{1,6}){1,4}") {
            if let Ok(parsed) = path.parse::<PassPath>() {
                let printed = parsed.to_string();
                assert_eq!(printed.parse::<PassPath>().unwrap(), parsed);
                let url = below(&Url::parse("http://m.example/gentoo/").unwrap(), &parsed);
                assert_eq!(url.path(), format!("/gentoo{printed}"));
            }
        }

        #[test]
        fn no_text_makes_the_reader_fall(path in ".{0,60}") {
            drop(path.parse::<PassPath>());
        }
    }
}
