//! Whether the head of an answer fits what was asked, before a byte of the body is read. Pure.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RETRY_AFTER};

use crate::error::{Blame, FetchError, quoted};
use crate::health::LEFT_ALONE_MAX;

/// Where the body begins and must end, in bytes of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) end: u64,
}

/// Checks status, range and length of an answer to a GET of a file of `size` bytes from byte `from`.
///
/// Portage's wget takes every 2xx with a body, and the bytes as they come whatever Content-Encoding says of them; a mirror
/// may call a .tar.gz so encoded. The digest judges.
pub(crate) fn check(
    status: u16,
    headers: &HeaderMap,
    from: u64,
    size: u64,
    at: &Blame,
    wall: SystemTime,
) -> Result<Span, FetchError> {
    if !(200..=300).contains(&status) || status == 204 {
        return Err(FetchError::Status { at: at.clone(), code: status, retry_after: retry_after(headers, wall) });
    }
    let length = content_length(headers);
    let (span, total) = if status == 206 {
        let text = headers.get(CONTENT_RANGE).map(reqwest::header::HeaderValue::as_bytes).unwrap_or_default();
        let wrong = || FetchError::WrongRange { at: at.clone(), from, offered: quoted(text) };
        let range = ContentRange::parse(text).ok_or_else(wrong)?;
        if range.first != from {
            return Err(wrong());
        }
        let end = range.last.saturating_add(1);
        if length.is_some_and(|length| length != end.saturating_sub(range.first)) {
            return Err(wrong());
        }
        (Span { offset: from, end: end.min(size) }, range.total.unwrap_or_else(|| end.max(size)))
    } else {
        (Span { offset: 0, end: size }, length.unwrap_or(size))
    };
    if total == size {
        Ok(span)
    } else {
        Err(FetchError::WrongLength { at: at.clone(), expected: size, actual: total })
    }
}

/// Refuses a Content-Encoding, for what has no digest to judge it.
pub(crate) fn check_encoding(headers: &HeaderMap, at: &Blame) -> Result<(), FetchError> {
    match headers.get(CONTENT_ENCODING).map(reqwest::header::HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(()),
        Some(encoding) => Err(FetchError::Encoding { at: at.clone(), encoding: quoted(encoding) }),
    }
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| number(value.as_bytes()))
}

/// Retry-After as a span from `wall` on (RFC 9110 10.2.3: seconds or a date), at most an hour; a date in the past is 0.
pub(crate) fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than an hour.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(wall).unwrap_or_default()
    };
    Some(asked.min(LEFT_ALONE_MAX))
}

/// `bytes FIRST-LAST/TOTAL` or `bytes FIRST-LAST/*` (RFC 9110 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first.as_bytes())?, number(last.as_bytes())?);
        let total = if total == "*" { None } else { Some(number(total.as_bytes())?) };
        let sound = unit.eq_ignore_ascii_case("bytes") && first <= last && total.is_none_or(|total| last < total);
        sound.then_some(Self { first, last, total })
    }
}

/// Digits only: no sign, no space.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn ask(status: u16, list: &[(&'static str, &str)], from: u64, size: u64) -> Result<Span, FetchError> {
        check(status, &headers(list), from, size, &Blame::Mirror("m".into()), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_part_must_begin_where_it_was_asked_for_and_belong_to_a_file_of_the_size() {
        let good = ask(206, &[("content-range", "bytes 40-99/100"), ("content-length", "60")], 40, 100).unwrap();
        assert_eq!(good, Span { offset: 40, end: 100 });
        assert_eq!(ask(206, &[("content-range", "bytes 40-59/100")], 40, 100).unwrap().end, 60);
        assert_eq!(ask(206, &[("content-range", "bytes 40-99/*")], 40, 100).unwrap().end, 100);
        for wrong in ["bytes 0-99/100", "bytes 41-99/100", "bytes 40-100/100", "bytes 99-40/100", "lines 40-99/100", ""]
        {
            let error = ask(206, &[("content-range", wrong)], 40, 100).unwrap_err();
            assert!(matches!(error, FetchError::WrongRange { .. }), "{wrong}");
        }
        let longer = ask(206, &[("content-range", "bytes 40-100/101")], 40, 100).unwrap_err();
        assert!(matches!(longer, FetchError::WrongLength { actual: 101, .. }));
        let unsaid = ask(206, &[("content-range", "bytes 40-100/*")], 40, 100).unwrap_err();
        assert!(matches!(unsaid, FetchError::WrongLength { actual: 101, .. }));
        let torn = ask(206, &[("content-range", "bytes 40-99/100"), ("content-length", "10")], 40, 100);
        assert!(matches!(torn, Err(FetchError::WrongRange { .. })));
        assert!(ask(206, &[], 40, 100).is_err());
        let unasked = ask(206, &[("content-range", "bytes 0-99/100")], 0, 100).unwrap();
        assert_eq!(unasked, Span { offset: 0, end: 100 }, "all of it, as a part that nobody asked for");
    }

    #[test]
    fn a_whole_answer_to_a_part_begins_at_zero() {
        assert_eq!(ask(200, &[("content-length", "100")], 40, 100).unwrap(), Span { offset: 0, end: 100 });
        assert_eq!(ask(200, &[], 40, 100).unwrap(), Span { offset: 0, end: 100 });
    }

    #[test]
    fn other_answers_are_refused() {
        assert!(matches!(ask(204, &[], 0, 0), Err(FetchError::Status { code: 204, .. })));
        assert!(matches!(ask(416, &[], 9, 10), Err(FetchError::Status { code: 416, .. })));
        for status in [100, 199, 301, 302, 304, 404, 500, 503] {
            assert!(matches!(ask(status, &[], 0, 1), Err(FetchError::Status { .. })), "{status}");
        }
    }

    #[test]
    fn whatever_wget_takes_for_the_file_is_left_to_the_digest() {
        for status in [200, 201, 202, 203, 226, 299, 300] {
            assert_eq!(ask(status, &[], 0, 9).unwrap(), Span { offset: 0, end: 9 }, "{status}");
        }
        for encoding in ["gzip", "x-gzip", "none", "binary", "br", "identity"] {
            assert!(ask(200, &[("content-encoding", encoding)], 0, 1).is_ok(), "{encoding}");
            assert!(ask(200, &[("content-encoding", encoding), ("content-length", "2")], 0, 1).is_err(), "{encoding}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        let wall = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text: &str| retry_after(&headers(&[("retry-after", text)]), wall).map(|span| span.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("99999999999999999999999"), Some(3600));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 07:50:37 GMT"), Some(0));
        assert_eq!(read("Sat, 14 Nov 2026 22:27:01 GMT"), Some(3600));
        assert_eq!((read("soon"), read("-1"), read("1.5")), (None, None, None));
    }

    proptest! {
        #[test]
        fn no_content_range_makes_the_reader_fall(text in any::<Vec<u8>>(), from in any::<u64>(), size in any::<u64>()) {
            if let Some(range) = ContentRange::parse(&text) {
                assert!(range.first <= range.last);
            }
            if let Ok(value) = reqwest::header::HeaderValue::from_bytes(&text) {
                let mut map = HeaderMap::new();
                map.insert(CONTENT_RANGE, value);
                if let Ok(span) = check(206, &map, from, size, &Blame::Ours, SystemTime::UNIX_EPOCH) {
                    assert!(span.offset == from && span.end <= size);
                }
            }
        }

        #[test]
        fn every_content_range_of_numbers_is_taken_only_if_it_fits(first in 0u64..9, last in 0u64..9, total in 0u64..9) {
            let text = format!("bytes {first}-{last}/{total}");
            let sound = first <= last && last < total;
            assert_eq!(ContentRange::parse(text.as_bytes()).is_some(), sound);
        }
    }
}
