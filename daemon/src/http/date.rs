//! Times as HTTP says them (RFC 9110 section 5.6.7).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use tree::moment::Moment;

/// A time for a header.
pub(crate) fn say(moment: Moment) -> String {
    #[expect(clippy::disallowed_methods, reason = "the one lawful site: a moment is never one that cannot be said")]
    httpdate::fmt_http_date(moment.time())
}

/// A time of a header; None for what is none.
pub(crate) fn read(text: &str) -> Option<Moment> {
    httpdate::parse_http_date(text).ok().and_then(Moment::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some times of files ended the node: those of before 1970 and beyond the year 9999.
    #[test]
    fn every_moment_can_be_said_and_is_read_back() {
        let end = 253_402_300_800;
        for seconds in [0, 1, 1 << 31, (1 << 31) + 1, 1 << 32, 253_370_764_800, end - 1] {
            let moment = Moment::of_seconds(seconds).unwrap();
            assert_eq!(read(&say(moment)), Some(moment), "{seconds}");
        }
        assert_eq!(Moment::of_seconds(end), None);
        for text in ["", "yesterday", "Thu, 01 Jan 1900 00:00:00 GMT", "Fri, 31 Dec 99999 23:59:59 GMT"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
