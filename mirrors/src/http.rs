//! One GET of one candidate: where to, from which byte, how long to wait, and no byte more than the Manifest says.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use tokio::time::{Instant, timeout_at};
use tree::distfile::Distfile;
use url::Url;

use crate::error::{Blame, FetchError};
use crate::layout::{LAYOUT_CONF_MAX, LayoutConf};
use crate::learned_layouts::Learned;
use crate::list::{Mirrors, Options};
use crate::pace::{Floor, Pace, TooSlow};
use crate::plan::{Candidate, Source};
use crate::reply::{self, Span};

/// How long a silent source is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The first round: [`Options::first_byte`] and [`Options::stall`], and at least about 500 bytes a second.
    Normal,
    /// The second round: [`Options::long`] for either, and at least about 250 bytes a second: a transfer that never ends
    /// holds a place that others wait for.
    Long,
}

impl Patience {
    pub(crate) fn first_byte(self, options: &Options) -> Duration {
        match self {
            Self::Normal => options.first_byte,
            Self::Long => options.long,
        }
    }

    pub(crate) fn pace(self, options: &Options) -> Pace {
        let (silence, span, least) = match self {
            Self::Normal => (options.stall, Duration::from_secs(30), 15_000),
            Self::Long => (options.long, Duration::from_secs(120), 30_000),
        };
        Pace::new(Floor { silence, span, least })
    }
}

impl Mirrors {
    /// One GET of `source`'s distfile from `candidate`, from byte `from` on.
    ///
    /// Asks the mirror's `layout.conf` first if it is not known. The answer may begin at 0 instead of `from` (see
    /// [`Body::offset`]). With `from` at the file's end nothing is asked and the body is empty.
    ///
    /// Cancel safe: yes; the connection is dropped.
    ///
    /// # Errors
    /// Before any byte: when the host asked to be left alone, there is no answer in time, the answer is not the file, its
    /// whole length is not the distfile's, it is encoded, or it begins elsewhere.
    pub async fn open(
        &self,
        candidate: &Candidate,
        source: &Source,
        from: u64,
        patience: Patience,
    ) -> Result<Body, FetchError> {
        let size = source.distfile.size;
        if from > size {
            return Err(FetchError::PastEnd { from, size });
        }
        let at = candidate.blame();
        let mut body = Body {
            response: None,
            at: at.clone(),
            source: candidate.to_string(),
            span: Span { offset: from, end: size },
            position: from,
            size,
            length_known: true,
            pace: patience.pace(&self.inner.options),
            failed: None,
        };
        if from == size {
            return Ok(body);
        }
        // Plans are made before others learn that a host wants peace.
        if let Some(span) = self.ledger().left_alone(candidate.host(), Instant::now()) {
            return Err(FetchError::LeftAlone { at, span });
        }
        let url = self.place(candidate, &source.distfile, patience).await?;
        let mut headers = HeaderMap::new();
        if from > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={from}-"))
        {
            headers.insert(RANGE, range);
        }
        let asked = Instant::now();
        let first_byte = patience.first_byte(&self.inner.options);
        let response = self.inner.clients.get(&url, &headers, &at, first_byte).await?;
        let now = Instant::now();
        self.ledger().answered(candidate.host(), now.duration_since(asked), now);
        body.span = reply::check(response.status().as_u16(), response.headers(), from, size, &at, SystemTime::now())?;
        body.position = body.span.offset;
        body.length_known = reply::content_length(response.headers()).is_some();
        body.response = Some(response);
        Ok(body)
    }

    /// The URL of the file there.
    async fn place(&self, candidate: &Candidate, distfile: &Distfile, patience: Patience) -> Result<Url, FetchError> {
        if !candidate.is_mirror() {
            return Ok(candidate.url().clone());
        }
        let base = candidate.url();
        let layout = self.inner.layouts.of(base, || self.ask_layout(candidate, patience)).await?;
        Ok(below(base, &layout.path(distfile)))
    }

    async fn ask_layout(&self, candidate: &Candidate, patience: Patience) -> Learned {
        let at = candidate.blame();
        let url = below(candidate.url(), "layout.conf");
        let first_byte = patience.first_byte(&self.inner.options);
        let mut response = match self.inner.clients.get(&url, &HeaderMap::new(), &at, first_byte).await {
            Ok(response) => response,
            Err(error @ (FetchError::Connect { .. } | FetchError::Timeout { .. })) => return Learned::Unreached(error),
            Err(_) => return Learned::None,
        };
        let (status, headers) = (response.status().as_u16(), response.headers());
        if matches!(status, 429 | 503) {
            let retry_after = reply::retry_after(headers, SystemTime::now());
            return Learned::Unreached(FetchError::Status { at, code: status, retry_after });
        }
        if status != 200 || reply::check_encoding(headers, &at).is_err() {
            return Learned::None;
        }
        let deadline = Instant::now() + first_byte;
        let mut text = Vec::new();
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) if text.len() + chunk.len() <= LAYOUT_CONF_MAX => text.extend_from_slice(&chunk),
                Ok(Ok(None)) => break,
                // Too long, broken or too slow: whatever it is, it is not a layout.conf to rely on.
                Ok(_) | Err(_) => return Learned::None,
            }
        }
        match std::str::from_utf8(&text).ok().and_then(LayoutConf::parse_strict) {
            Some(conf) => Learned::Conf(conf),
            None => Learned::None,
        }
    }
}

/// `path` (percent-encoded) below the mirror's `distfiles/`.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let whole = format!("{}/distfiles/{path}", base.path().trim_end_matches('/'));
    url.set_path(&whole);
    url
}

/// The bytes of one answer, no more than the Manifest gives the file.
pub struct Body {
    response: Option<Response>,
    at: Blame,
    source: String,
    span: Span,
    position: u64,
    size: u64,
    length_known: bool,
    pace: Pace,
    failed: Option<FetchError>,
}

impl Body {
    /// The byte of the file at which the body begins: what was asked for, or 0 if the host sends the whole file anyway.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.span.offset
    }

    /// The byte of the file that comes next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where it comes from, for logs: no credentials.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The next bytes; `None` once the file is whole.
    ///
    /// Cancel safe: yes, no byte is lost; the wait goes on counting where it was. After an error every call gives the
    /// same error.
    ///
    /// # Errors
    /// When the body ends early, is silent or slower than the patience, or would go past the size.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.next().await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.response = None;
                Ok(None)
            }
            Err(error) => {
                self.response = None;
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let whole = self.position == self.size;
        if whole && self.length_known {
            return Ok(None);
        }
        loop {
            let deadline = self.pace.deadline(Instant::now());
            let truncated = |source| FetchError::Truncated {
                at: self.at.clone(),
                expected: self.size,
                actual: self.position,
                source,
            };
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    let reached = self.position.saturating_add(length);
                    if reached > self.span.end {
                        let at = self.at.clone();
                        return Err(FetchError::WrongLength { at, expected: self.size, actual: reached });
                    }
                    let pace = self.pace.took(length, Instant::now());
                    if length == 0 {
                        continue;
                    }
                    if let Err(TooSlow { waited, bytes }) = pace {
                        return Err(FetchError::Stalled { at: self.at.clone(), waited, bytes });
                    }
                    self.position = reached;
                    return Ok(Some(bytes));
                }
                // All bytes are here; how the connection ends does not matter, the digest decides.
                _ if whole => return Ok(None),
                Ok(Ok(None)) => return Err(truncated(None)),
                Ok(Err(source)) => return Err(truncated(Some(Arc::new(source.without_url())))),
                Err(_) => {
                    let TooSlow { waited, bytes } = self.pace.silent();
                    return Err(FetchError::Stalled { at: self.at.clone(), waited, bytes });
                }
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} at {} of {})", self.source, self.position, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_a_stall_at_first_and_bearable_in_the_second_round() {
        let drip = |patience: Patience| {
            let mut pace = patience.pace(&Options::default());
            let mut now = Instant::now();
            (0..600).find_map(|_| {
                pace.deadline(now);
                now += Duration::from_secs(1);
                pace.took(300, now).err()
            })
        };
        assert_eq!(drip(Patience::Normal), Some(TooSlow { waited: Duration::from_secs(30), bytes: 9000 }));
        assert_eq!(drip(Patience::Long), None);
    }

    #[test]
    fn a_file_is_below_the_distfiles_of_a_mirror_with_or_without_slash_and_prefix() {
        let place = |base: &str| below(&Url::parse(base).unwrap(), "a%2Bb").to_string();
        assert_eq!(place("http://m.example"), "http://m.example/distfiles/a%2Bb");
        assert_eq!(place("http://m.example/"), "http://m.example/distfiles/a%2Bb");
        assert_eq!(place("http://u:p@m.example/gentoo//"), "http://u:p@m.example/gentoo/distfiles/a%2Bb");
    }
}
