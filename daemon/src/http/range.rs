//! Conditional and ranged requests (RFC 9110 sections 13 and 14) for bodies that never change: their name is their digest.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::date;
use axum::http::{HeaderMap, header};
use tree::moment::Moment;

/// A header longer than this asks for no range we know; wget sends some twenty bytes.
const RANGE_MAX_BYTES: usize = 256;

/// What part of a body is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All of it: no `Range`, or one we may ignore (RFC 9110 section 14.2).
    Whole,
    /// Bytes `first..=last`.
    Part {
        /// First byte.
        first: u64,
        /// Last byte, below the size.
        last: u64,
    },
    /// Begins at or beyond the end.
    Unsatisfiable,
}

impl Span {
    /// The part of a body of `size` bytes that `headers` ask for, given its strong `etag`.
    ///
    /// Several ranges, other units and what cannot be parsed are ignored, so that the whole body is sent; a range that
    /// begins below the size is never unsatisfiable (wget takes 416 for "I have it all").
    #[must_use]
    pub fn of(headers: &HeaderMap, size: u64, etag: &str) -> Self {
        let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Self::Whole };
        if headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != etag.as_bytes()) {
            return Self::Whole;
        }
        Self::parse(range, size).unwrap_or(Self::Whole)
    }

    /// None for what may be ignored. A fuzz target calls this.
    #[must_use]
    pub fn parse(range: &str, size: u64) -> Option<Self> {
        if range.len() > RANGE_MAX_BYTES {
            return None;
        }
        let (unit, spec) = range.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        if first.is_empty() {
            let suffix = number(last)?;
            return Some(match (suffix.min(size), size.checked_sub(1)) {
                (0, _) | (_, None) => Self::Unsatisfiable,
                (length, Some(end)) => Self::Part { first: size.saturating_sub(length), last: end },
            });
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        match size.checked_sub(1) {
            Some(end) if first <= end => Some(Self::Part { first, last: last.min(end) }),
            _ => Some(Self::Unsatisfiable),
        }
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// True when the client has these very bytes: `If-None-Match`, or `If-Modified-Since` where that is absent.
#[must_use]
pub fn is_not_modified(headers: &HeaderMap, etag: &str, modified: Option<Moment>) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        return tags
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag);
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    matches!((since.and_then(date::read), modified), (Some(since), Some(modified)) if modified <= since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn ascii(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    fn part(first: u64, last: u64) -> Option<Span> {
        Some(Span::Part { first, last })
    }

    #[test]
    fn ranges_mean_what_rfc_9110_says() {
        let cases = [
            ("bytes=0-", part(0, 99)),
            ("bytes=0-0", part(0, 0)),
            ("bytes=10-19", part(10, 19)),
            ("bytes=90-1000", part(90, 99)),
            ("bytes=-5", part(95, 99)),
            ("bytes=-500", part(0, 99)),
            ("BYTES=99-", part(99, 99)),
            ("bytes=100-", Some(Span::Unsatisfiable)),
            ("bytes=-0", Some(Span::Unsatisfiable)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("bytes=", None),
            ("lines=1-2", None),
            ("bytes=99999999999999999999-", None),
        ];
        for (text, span) in cases {
            assert_eq!(Span::parse(text, 100), span, "{text}");
        }
        assert_eq!(Span::parse("bytes=0-", 0), Some(Span::Unsatisfiable));
    }

    #[test]
    fn a_changed_etag_in_if_range_means_the_whole_body() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=5-"));
        assert_eq!(Span::of(&headers, 10, "\"a\""), Span::Part { first: 5, last: 9 });
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(Span::of(&headers, 10, "\"a\""), Span::Part { first: 5, last: 9 });
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
        assert_eq!(Span::of(&headers, 10, "\"a\""), Span::Whole);
    }

    #[test]
    fn if_none_match_wins_over_if_modified_since() {
        let modified = Moment::of_seconds(1_000_000);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MODIFIED_SINCE, ascii(&date::say(modified.unwrap())));
        assert!(is_not_modified(&headers, "\"a\"", modified));
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\", \"c\""));
        assert!(!is_not_modified(&headers, "\"a\"", modified));
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\", W/\"a\""));
        assert!(is_not_modified(&headers, "\"a\"", modified));
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_body(text in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", size in 0_u64..1000) {
            if let Some(Span::Part { first, last }) = Span::parse(&text, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
