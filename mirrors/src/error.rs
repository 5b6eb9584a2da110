//! Why bytes did not come, whose fault that is, and whether asking again can help.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// Who is answerable for a failure.
///
/// Displayed as it reads in a message: `mirror distfiles.example`, `upstream github.com`, `this node`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Blame {
    /// A Gentoo mirror, by host and (if not the usual one) port.
    Mirror(String),
    /// A host of SRC_URI or of a `mirror://` expansion, by host and (if not the usual one) port.
    Upstream(String),
    /// Nobody else: the request was impossible before it left.
    Ours,
}

impl Blame {
    /// The host answerable, if it is not this node.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Mirror(host) | Self::Upstream(host) => Some(host),
            Self::Ours => None,
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror(host) => write!(f, "mirror {host}"),
            Self::Upstream(host) => write!(f, "upstream {host}"),
            Self::Ours => f.write_str("this node"),
        }
    }
}

/// Why one GET of one candidate did not bring the bytes.
///
/// Cheap to clone, so that all who wait on one flight can be told the same. Texts read after
/// "cannot fetch foo.tar.xz: …" and never hold a URL's credentials.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// No connection: name not found, refused, unreachable, or TLS failed.
    #[error("{at} cannot be reached")]
    Connect {
        /// Who was called.
        at: Blame,
        /// What the connection attempt said.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// Connected, but no answer in time.
    #[error("{at} did not answer within {waited:?}")]
    Timeout {
        /// Who was asked.
        at: Blame,
        /// How long was waited.
        waited: Duration,
    },
    /// The body stopped, or ran slower than any use.
    #[error("{at} stalled: {bytes} bytes in the last {waited:?}")]
    Stalled {
        /// Who stalled.
        at: Blame,
        /// The span looked at.
        waited: Duration,
        /// What came in that span.
        bytes: u64,
    },
    /// An answer other than the file.
    #[error("{at} answered with status {code}")]
    Status {
        /// Who answered.
        at: Blame,
        /// The HTTP status.
        code: u16,
        /// How long it asks to be left alone (RFC 9110 10.2.3), at most an hour.
        retry_after: Option<Duration>,
    },
    /// It asked to be left alone for a while, and the while is not over; it was not asked.
    #[error("{at} asked to be left alone for {span:?} more")]
    LeftAlone {
        /// Who asked for it.
        at: Blame,
        /// How long still.
        span: Duration,
    },
    /// The whole file there has another size than the Manifest says: another file, or a page of excuses.
    #[error("{at} has {actual} bytes where the Manifest says {expected}")]
    WrongLength {
        /// Who answered.
        at: Blame,
        /// The size in the Manifest, in bytes.
        expected: u64,
        /// What was announced, or how much had come when it was too much.
        actual: u64,
    },
    /// The body ended early.
    #[error("{at} ended at byte {actual} of {expected}")]
    Truncated {
        /// Who ended early.
        at: Blame,
        /// The size in the Manifest, in bytes.
        expected: u64,
        /// The byte reached, from the start of the file.
        actual: u64,
        /// What the connection said, if it broke.
        #[source]
        source: Option<Arc<reqwest::Error>>,
    },
    /// A part was asked for and something else was offered.
    #[error("{at} offers {offered:?} where the bytes from {from} were asked for")]
    WrongRange {
        /// Who answered.
        at: Blame,
        /// The first byte asked for.
        from: u64,
        /// The Content-Range received, shortened.
        offered: String,
    },
    /// The body is encoded although identity was asked for, so its length says nothing.
    #[error("{at} encodes the body as {encoding:?}")]
    Encoding {
        /// Who answered.
        at: Blame,
        /// The Content-Encoding, shortened.
        encoding: String,
    },
    /// More redirects than allowed.
    #[error("{at} redirects more than {limit} times")]
    Redirects {
        /// Where the chain began.
        at: Blame,
        /// How many are followed.
        limit: usize,
    },
    /// A redirect to a place that is never followed: not http(s), nonsense, or from outside into this machine.
    #[error("{at} redirects to {location:?}, which is not followed")]
    RedirectRefused {
        /// Where the chain began.
        at: Blame,
        /// The Location received, shortened.
        location: String,
    },
    /// The answer is not HTTP, its header is over the limits, or the connection broke before it was whole.
    #[error("{at} gave no valid HTTP answer")]
    Garbled {
        /// Who answered.
        at: Blame,
        /// What the HTTP client said.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// Not an http or https URL.
    #[error("{uri:?} is not an http or https URL")]
    NotHttp {
        /// The offending text, shortened.
        uri: String,
    },
    /// More bytes are asked for than the file has.
    #[error("byte {from} is past the end of a file of {size} bytes")]
    PastEnd {
        /// The first byte asked for.
        from: u64,
        /// The size in the Manifest, in bytes.
        size: u64,
    },
}

impl FetchError {
    /// Who is answerable.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Connect { at, .. }
            | Self::Timeout { at, .. }
            | Self::Stalled { at, .. }
            | Self::Status { at, .. }
            | Self::LeftAlone { at, .. }
            | Self::WrongLength { at, .. }
            | Self::Truncated { at, .. }
            | Self::WrongRange { at, .. }
            | Self::Encoding { at, .. }
            | Self::Redirects { at, .. }
            | Self::RedirectRefused { at, .. }
            | Self::Garbled { at, .. } => at.clone(),
            Self::NotHttp { .. } | Self::PastEnd { .. } => Blame::Ours,
        }
    }

    /// Whether the same candidate may bring the bytes at another time: true for trouble on the way or of the moment, false
    /// for an answer that will not change by asking.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::LeftAlone { .. }
            | Self::Garbled { .. } => true,
            Self::Status { code, .. } => matches!(code, 408 | 425 | 429 | 500..=599),
            Self::WrongLength { .. }
            | Self::WrongRange { .. }
            | Self::Encoding { .. }
            | Self::Redirects { .. }
            | Self::RedirectRefused { .. }
            | Self::NotHttp { .. }
            | Self::PastEnd { .. } => false,
        }
    }
}

/// At most this many characters of a remote's text are repeated in an error.
const QUOTED_MAX: usize = 120;

/// A remote's text made fit to be repeated: shortened, and without control characters.
pub(crate) fn quoted(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(QUOTED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_answered_and_who_is_to_blame() {
        let error = FetchError::Status { at: Blame::Mirror("m.example:8080".into()), code: 503, retry_after: None };
        assert_eq!(error.to_string(), "mirror m.example:8080 answered with status 503");
        assert_eq!(error.blame(), Blame::Mirror("m.example:8080".into()));
        assert!(error.is_retryable());
    }

    #[test]
    fn what_will_not_change_by_asking_is_not_retryable() {
        let at = Blame::Upstream("u.example".into());
        assert!(!FetchError::Status { at: at.clone(), code: 404, retry_after: None }.is_retryable());
        assert!(!FetchError::WrongLength { at: at.clone(), expected: 1, actual: 2 }.is_retryable());
        assert!(FetchError::Truncated { at, expected: 2, actual: 1, source: None }.is_retryable());
        assert_eq!(FetchError::PastEnd { from: 2, size: 1 }.blame(), Blame::Ours);
    }

    #[test]
    fn a_quoted_text_is_short_and_has_no_control_characters() {
        let long = format!("a\r\n\u{1b}[31m{}", "ä".repeat(500));
        let quoted = quoted(long.as_bytes());
        assert_eq!(quoted.chars().count(), QUOTED_MAX);
        assert!(quoted.starts_with("a[31mä"));
    }
}
