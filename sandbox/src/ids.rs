//! Which user numbers of this machine builds have: ones that no user of it has, or may be given.
//!
//! What runs with a number may change what a build with the same number writes. The ranges of `/etc/subuid` are for users
//! to run things with, and begin at 100000 on most machines, for the first user. Source: subuid(5), login.defs(5), and
//! the table of UIDs of systemd.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::policy::MAPPED_COUNT;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

/// Numbers that somebody has, or may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: u64,
    count: u64,
    whose: String,
    /// Somebody has it now; else it is only set apart.
    is_given: bool,
}

/// Longer files are not read to their end; a line of one has some thirty bytes.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// Whole ranges of 65,536 numbers are looked at from this one on downwards: below 2147352576, where systemd has one of its
/// own, and above those that directory services give to people.
const BEST: u32 = 0x7F00;
/// Where shadow gives ranges to users when login.defs does not say otherwise.
const SUB_MIN: u64 = 100_000;
const SUB_MAX: u64 = 600_100_000;
/// What systemd gives to containers.
const CONTAINERS: (u64, u64) = (524_288, 1_879_048_191);

impl fmt::Display for Range {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.first.saturating_add(self.count).saturating_sub(1);
        write!(to, "{} to {last}, {}", self.first, self.whose)
    }
}

impl Range {
    /// Whether somebody has it now.
    pub(crate) fn is_given(&self) -> bool {
        self.is_given
    }

    #[cfg(test)]
    pub(crate) fn of(whose: &str, is_given: bool) -> Self {
        Self { first: 7, count: 1, whose: whose.to_owned(), is_given }
    }

    fn meets(&self, first: u32, count: u32) -> bool {
        let (first, count) = (u64::from(first), u64::from(count));
        self.first < first.saturating_add(count) && first < self.first.saturating_add(self.count)
    }
}

/// The first range that one of builds meets: one that somebody has, else one that is set apart.
pub(crate) fn met(first: u32, count: u32) -> Option<Range> {
    let mut taken = taken(Path::new("/etc"));
    taken.sort_by_key(|range| !range.is_given);
    taken.into_iter().find(|range| range.meets(first, count))
}

/// As [`met`], of those that somebody has.
pub(crate) fn given(first: u32, count: u32) -> Option<Range> {
    met(first, count).filter(|range| range.is_given)
}

/// The first number of a range that meets no other and that this process may give; where all are set apart, one that
/// nobody has; where there is none, that which is looked at first.
pub(crate) fn first_of_builds() -> u32 {
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(|map| mapped(&read(Path::new(map))));
    choose(&taken(Path::new("/etc")), &maps).unwrap_or(BEST << 16)
}

fn choose(taken: &[Range], maps: &[Vec<(u64, u64)>]) -> Option<u32> {
    let is_mapped = |first: u32| {
        let (first, end) = (u64::from(first), u64::from(first).saturating_add(u64::from(MAPPED_COUNT)));
        maps.iter().all(|map| map.iter().any(|(low, count)| *low <= first && end <= low.saturating_add(*count)))
    };
    let candidates = || (1..=BEST).rev().map(|high| high << 16).filter(|first| is_mapped(*first));
    let free = |first: &u32, all: bool| {
        !taken.iter().filter(|range| all || range.is_given).any(|range| range.meets(*first, MAPPED_COUNT))
    };
    candidates().find(|first| free(first, true)).or_else(|| candidates().find(|first| free(first, false)))
}

/// The numbers of a user namespace: first and count of each line of `uid_map` (user_namespaces(7)).
fn mapped(text: &str) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// What is known of the numbers of a machine, from its `/etc`.
fn taken(etc: &Path) -> Vec<Range> {
    let mut ranges = vec![Range {
        first: CONTAINERS.0,
        count: CONTAINERS.1.saturating_sub(CONTAINERS.0).saturating_add(1),
        whose: "which systemd gives to containers".to_owned(),
        is_given: false,
    }];
    for name in ["subuid", "subgid"] {
        for line in read(&etc.join(name)).lines() {
            let fields: Vec<&str> = line.split(':').map(str::trim).collect();
            if let [user, first, count] = fields.as_slice()
                && let (Ok(first), Ok(count)) = (first.parse(), count.parse())
            {
                let whose = format!("which /etc/{name} gives to {user}");
                ranges.push(Range { first, count, whose, is_given: true });
            }
        }
    }
    for name in ["passwd", "group"] {
        for line in read(&etc.join(name)).lines() {
            let mut fields = line.split(':');
            if let (Some(who), Some(Ok(first))) = (fields.next(), fields.nth(1).map(str::parse)) {
                ranges.push(Range { first, count: 1, whose: format!("{who}'s in /etc/{name}"), is_given: true });
            }
        }
    }
    let defs = read(&etc.join("login.defs"));
    for kind in ["UID", "GID"] {
        let value = |key: &str, otherwise| {
            let line = defs.lines().find_map(|line| line.trim_start().strip_prefix(key)?.trim().parse().ok());
            line.unwrap_or(otherwise)
        };
        let (first, last) = (value(&format!("SUB_{kind}_MIN"), SUB_MIN), value(&format!("SUB_{kind}_MAX"), SUB_MAX));
        let count = last.saturating_sub(first).saturating_add(1);
        ranges.push(Range {
            first,
            count,
            whose: "which /etc/login.defs sets apart for users".into(),
            is_given: false,
        });
    }
    ranges
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path)
        && let Err(error) = file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)
    {
        tracing::debug!(path = %path.display(), %error, "user numbers that are taken are not known");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (u64, u64) = (0, 4_294_967_295);

    #[expect(clippy::disallowed_methods, reason = "a test makes its files")]
    fn etc(files: &[(&str, &str)]) -> Vec<Range> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        taken(dir.path())
    }

    fn chosen(files: &[(&str, &str)], map: (u64, u64)) -> Option<u32> {
        choose(&etc(files), &[vec![map], vec![map]])
    }

    #[test]
    fn builds_have_numbers_that_no_user_has_or_may_get() {
        assert_eq!(chosen(&[], ALL), Some(BEST << 16));
        // The usual file of a machine with users, on which builds had the first one's numbers.
        let usual = ("subuid", "ada:100000:65536\nbob:165536:65536\n");
        assert_eq!(chosen(&[usual], ALL), Some(BEST << 16));
        let ada = etc(&[usual]).into_iter().find(|range| range.meets(100_000, MAPPED_COUNT) && range.is_given);
        assert_eq!(ada.unwrap().to_string(), "100000 to 165535, which /etc/subuid gives to ada");
        for (file, text) in [
            ("subuid", "ada:2130706432:1\n"),
            ("subgid", "ada : 2130000000 : 1000000\n"),
            ("passwd", "ada:x:2130771967:100::/:/bin/sh\n"),
            ("group", "broken\nada:x:2130706500:\n"),
            ("login.defs", "# no\n SUB_GID_MAX\t2147483647\nSUB_GID_MIN 2130706433\n"),
        ] {
            let first = chosen(&[usual, (file, text)], ALL).unwrap();
            assert!(first < BEST << 16 && first.is_multiple_of(MAPPED_COUNT), "{file}: {first}");
            let overlap = etc(&[usual, (file, text)]).into_iter().find(|range| range.meets(first, MAPPED_COUNT));
            assert_eq!(overlap, None, "{file}");
        }
    }

    #[test]
    fn in_a_container_they_are_among_its_own() {
        let first = chosen(&[], (0, 1_000_000_000)).unwrap();
        assert!(u64::from(first) + u64::from(MAPPED_COUNT) <= 1_000_000_000, "{first}");
        assert_eq!(chosen(&[], (0, 65_536)), None, "there is no room");
        // Everything there is set apart, and some of it is given.
        let first = chosen(&[("subuid", "ada:131072:131072\n")], (0, 262_144)).unwrap();
        assert_eq!(first, 65_536);
        assert_eq!(mapped("         0          0 4294967295\n"), [ALL]);
        assert_eq!(mapped("0 100000 1000\n1000 5 1\nbroken\n"), [(0, 1000), (1000, 1)]);
    }

    #[test]
    fn numbers_as_large_as_can_be_written_meet_what_they_meet() {
        for number in ["0", "2147483648", "4294967296", "9223372036854775808", "18446744073709551615"] {
            let ranges = etc(&[("subuid", &format!("ada:{number}:{number}\nbob:1:{number}\n"))]);
            assert!(ranges.len() >= 4, "{number}");
            let met = ranges.iter().any(|range| range.is_given && range.meets(100_000, MAPPED_COUNT));
            assert_eq!(met, number != "0", "{number}: {ranges:?}");
        }
    }
}
