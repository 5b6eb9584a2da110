//! Times that others have written, within what everybody can say: whole seconds from 1970 to the end of the year 9999.
//!
//! File systems, archives and headers hold times from before 1970 and from beyond the year 9999; HTTP, `Packages` and most
//! libraries cannot say those, and some panic. So a time is made one of these where it comes in, or is none.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::time::{Duration, SystemTime};

/// Seconds from 1970 to the first that HTTP cannot say (RFC 9110 section 5.6.7: four digits of the year).
const END: u64 = 253_402_300_800;

/// Seconds since 1970, before the year 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// 1970 began.
    pub const EPOCH: Self = Self(0);

    /// So many seconds since 1970; None beyond the year 9999.
    #[must_use]
    pub const fn of_seconds(seconds: u64) -> Option<Self> {
        if seconds < END { Some(Self(seconds)) } else { None }
    }

    /// The second of a time; None before 1970 and beyond the year 9999.
    #[must_use]
    pub fn of(time: SystemTime) -> Option<Self> {
        Self::of_seconds(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// The same for the standard library.
    #[must_use]
    pub fn time(self) -> SystemTime {
        // Every system that this runs on counts far beyond.
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_say_is_no_moment() {
        let at = |seconds: i64| {
            let by = Duration::from_secs(seconds.unsigned_abs());
            let epoch = SystemTime::UNIX_EPOCH;
            if seconds < 0 { epoch.checked_sub(by) } else { epoch.checked_add(by) }
        };
        let last = i64::try_from(END).unwrap() - 1;
        for (seconds, told) in
            [(0, true), (1, true), (last, true), (last + 1, false), (-1, false), (i64::MAX, false), (i64::MIN, false)]
        {
            let moment = at(seconds).and_then(Moment::of);
            assert_eq!(moment.is_some(), told, "{seconds}");
            if let Some(moment) = moment {
                assert_eq!((Some(moment.time()), Moment::of_seconds(moment.seconds())), (at(seconds), Some(moment)));
            }
        }
        for seconds in [0, 1 << 31, 1 << 32, END - 1, END, 1 << 63, u64::MAX] {
            assert_eq!(Moment::of_seconds(seconds).is_some(), seconds < END, "{seconds}");
        }
        let half = Moment::of(at(5).unwrap() + Duration::from_millis(999)).unwrap();
        assert_eq!(half.seconds(), 5);
    }
}
