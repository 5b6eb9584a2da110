//! Manifest files (GLEP 74): the DIST lines, which name distfiles by size and digest.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::collections::BTreeMap;

use thiserror::Error;

use crate::digest::ParseDigestError;
use crate::distfile::Distfile;
use crate::name::ParseNameError;
use crate::size::{SIZE_MAX, believed};

/// Bytes of a Manifest that are read; the largest in ::gentoo has about 2 MB.
pub const MANIFEST_BYTES_MAX: usize = 32 << 20;
/// Bytes of one line: a name, a number and a few digests.
pub const LINE_BYTES_MAX: usize = 4096;
/// DIST lines of one Manifest.
pub const DISTFILES_MAX: usize = 65_536;
/// Skipped lines that are told of; further ones are dropped silently.
pub const SKIPPED_MAX: usize = 64;
/// The largest distfile believed in: 1 TiB.
pub const DISTFILE_BYTES_MAX: u64 = SIZE_MAX;

/// Why a DIST line is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkipReason {
    /// The rest of the file is beyond a limit.
    #[error("the Manifest has more than {limit} {unit}")]
    TooMuch {
        /// The limit.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The line is too long.
    #[error("a line of {found} bytes")]
    LineTooLong {
        /// Bytes of the line.
        found: usize,
    },
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Words are missing after `DIST`, or a digest has a name and no value.
    #[error("expected DIST NAME SIZE and pairs of a digest's name and value")]
    Incomplete,
    /// The name could leave the directory, or has other faults.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// The size is not a number up to [`DISTFILE_BYTES_MAX`].
    #[error("{text:?} is not a size in bytes")]
    Size {
        /// The text.
        text: String,
    },
    /// A BLAKE2B or SHA512 value is wrong.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// The line has no BLAKE2B sum, so the content has no name for us.
    #[error("no BLAKE2B digest")]
    NoBlake2b,
    /// A later line names the same file differently; Portage takes the later one.
    #[error("line {line} names the same file differently")]
    Replaced {
        /// The line that is used, from 1.
        line: usize,
    },
}

/// A DIST line that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedLine {
    /// The line, from 1.
    pub line: usize,
    /// Why it is not used.
    pub reason: SkipReason,
}

/// The DIST lines of a Manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The distfiles in the order of their lines, each name once.
    pub distfiles: Vec<Distfile>,
    /// The first [`SKIPPED_MAX`] lines that are not used.
    pub skipped: Vec<SkippedLine>,
}

impl Manifest {
    /// Reads a Manifest, with or without the clear-text signature of PGP around it. The signature is not checked: whoever
    /// synchronised the repository has. Lines of other kinds than DIST are passed over, and a broken line does not void others.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut reading = Reading::default();
        let body = bytes.get(..MANIFEST_BYTES_MAX).unwrap_or(bytes);
        let armoured = armour_lines(body);
        let mut last = 0;
        for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
            last = index.saturating_add(1);
            let signed = armoured.is_none_or(|(first, end)| index > first && index < end);
            if signed && !reading.take(last, line.strip_suffix(b"\r").unwrap_or(line)) {
                break;
            }
        }
        if body.len() < bytes.len() {
            reading.skip(last, SkipReason::TooMuch { limit: MANIFEST_BYTES_MAX, unit: "bytes" });
        }
        reading.finish()
    }
}

/// The first and last line, from 0, of the armour around a clear-text signed body (RFC 9580, section 7).
fn armour_lines(body: &[u8]) -> Option<(usize, usize)> {
    let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = lines().position(|line| line == b"-----BEGIN PGP SIGNED MESSAGE-----")?;
    let length = lines().skip(first).position(|line| line == b"-----BEGIN PGP SIGNATURE-----").unwrap_or(usize::MAX);
    Some((first, first.saturating_add(length)))
}

#[derive(Default)]
struct Reading {
    distfiles: Vec<(usize, Distfile)>,
    places: BTreeMap<String, usize>,
    skipped: Vec<SkippedLine>,
}

impl Reading {
    /// Takes a line; false when no more can be taken.
    fn take(&mut self, line: usize, text: &[u8]) -> bool {
        let Some(words) = text.strip_prefix(b"DIST").filter(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
        else {
            return true;
        };
        if self.distfiles.len() >= DISTFILES_MAX {
            self.skip(line, SkipReason::TooMuch { limit: DISTFILES_MAX, unit: "DIST lines" });
            return false;
        }
        match parse_dist(words) {
            Ok(distfile) => self.insert(line, distfile),
            Err(reason) => self.skip(line, reason),
        }
        true
    }

    fn insert(&mut self, line: usize, distfile: Distfile) {
        let place = self.places.get(distfile.name.as_str()).copied();
        match place.and_then(|place| self.distfiles.get_mut(place)) {
            None => {
                self.places.insert(distfile.name.to_string(), self.distfiles.len());
                self.distfiles.push((line, distfile));
            }
            Some((_, known)) if *known == distfile => {}
            Some(known) => {
                let (replaced, _) = std::mem::replace(known, (line, distfile));
                self.skip(replaced, SkipReason::Replaced { line });
            }
        }
    }

    fn skip(&mut self, line: usize, reason: SkipReason) {
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(SkippedLine { line, reason });
        }
    }

    fn finish(self) -> Manifest {
        Manifest {
            distfiles: self.distfiles.into_iter().map(|(_, distfile)| distfile).collect(),
            skipped: self.skipped,
        }
    }
}

fn parse_dist(words: &[u8]) -> Result<Distfile, SkipReason> {
    if words.len() > LINE_BYTES_MAX {
        return Err(SkipReason::LineTooLong { found: words.len() });
    }
    let mut words = std::str::from_utf8(words).map_err(|_| SkipReason::NotUtf8)?.split_ascii_whitespace();
    let name = words.next().ok_or(SkipReason::Incomplete)?.parse()?;
    let size = parse_size(words.next().ok_or(SkipReason::Incomplete)?)?;
    let (mut blake2b, mut sha512) = (None, None);
    while let Some(kind) = words.next() {
        let value = words.next().ok_or(SkipReason::Incomplete)?;
        match kind {
            "BLAKE2B" => blake2b = Some(value.parse()?),
            "SHA512" => sha512 = Some(value.parse()?),
            _ => {}
        }
    }
    Ok(Distfile { name, size, blake2b: blake2b.ok_or(SkipReason::NoBlake2b)?, sha512 })
}

fn parse_size(text: &str) -> Result<u64, SkipReason> {
    let wrong = || SkipReason::Size { text: text.chars().take(40).collect() };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().ok().and_then(believed).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, Sha512};

    fn dist(name: &str, size: u64) -> String {
        format!("DIST {name} {size} BLAKE2B {} SHA512 {}", Digest::of(name.as_bytes()), Sha512::of(name.as_bytes()))
    }

    fn names(manifest: &Manifest) -> Vec<&str> {
        manifest.distfiles.iter().map(|distfile| distfile.name.as_str()).collect()
    }

    fn reason(line: &str) -> SkipReason {
        let manifest = Manifest::parse(line.as_bytes());
        assert_eq!((manifest.distfiles.len(), manifest.skipped.len()), (0, 1), "{line}");
        manifest.skipped[0].reason.clone()
    }

    #[test]
    fn other_kinds_of_lines_are_passed_over() {
        let text = format!(
            "TIMESTAMP 2026-01-01T00:00:00Z\nMANIFEST a/Manifest 1 BLAKE2B 00\nIGNORE distfiles\nEBUILD a-1.ebuild 3 SHA512 00\n\
             AUX x.patch 1\nMISC metadata.xml 1\nDATA x 1\nOPTIONAL y\nDISTX z\n\n# no comment\n{}\n",
            dist("a.tar", 7)
        );
        let manifest = Manifest::parse(text.as_bytes());
        assert_eq!((names(&manifest), manifest.skipped.len()), (vec!["a.tar"], 0));
        assert_eq!(manifest.distfiles[0].to_string(), dist("a.tar", 7));
    }

    #[test]
    fn a_broken_line_does_not_void_the_others() {
        let text = format!("{}\nDIST b\n{}", dist("a", 1), dist("c", 3));
        let manifest = Manifest::parse(text.as_bytes());
        assert_eq!(names(&manifest), ["a", "c"]);
        assert_eq!(manifest.skipped, [SkippedLine { line: 2, reason: SkipReason::Incomplete }]);
    }

    #[test]
    fn every_fault_has_its_reason() {
        let digest = Digest::of(b"");
        assert_eq!(reason("DIST"), SkipReason::Incomplete);
        assert_eq!(reason("DIST a"), SkipReason::Incomplete);
        assert_eq!(reason("DIST a 1"), SkipReason::NoBlake2b);
        assert_eq!(reason(&format!("DIST a 1 SHA512 {digest}")), SkipReason::NoBlake2b);
        assert_eq!(reason("DIST a 1 BLAKE2B"), SkipReason::Incomplete);
        assert!(matches!(reason("DIST a 1 BLAKE2B 00"), SkipReason::Digest(_)));
        assert!(matches!(reason(&format!("DIST a 1 BLAKE2B {digest} SHA512 0")), SkipReason::Digest(_)));
        assert!(matches!(reason(&format!("DIST ../a 1 BLAKE2B {digest}")), SkipReason::Name(_)));
        for size in ["-1", "+1", "0x1", "1.0", "BLAKE2B", "99999999999999999999", "1099511627777"] {
            let fault = reason(&format!("DIST a {size} BLAKE2B {digest}"));
            assert!(matches!(fault, SkipReason::Size { .. }), "{size}: {fault:?}");
        }
        assert_eq!(
            reason(&format!("DIST {} 1", "a".repeat(LINE_BYTES_MAX))),
            SkipReason::LineTooLong { found: LINE_BYTES_MAX + 3 }
        );
        let manifest = Manifest::parse(b"DIST \xff 1 BLAKE2B 00");
        assert_eq!(manifest.skipped[0].reason, SkipReason::NotUtf8);
    }

    #[test]
    fn of_two_lines_for_one_name_the_later_counts() {
        let (first, second) = (dist("a", 1), dist("a", 2));
        let manifest = Manifest::parse(format!("{first}\n{}\n{second}\n{second}", dist("b", 1)).as_bytes());
        assert_eq!(names(&manifest), ["a", "b"]);
        assert_eq!(manifest.distfiles[0].size, 2);
        assert_eq!(manifest.skipped, [SkippedLine { line: 1, reason: SkipReason::Replaced { line: 3 } }]);
    }

    #[test]
    fn of_a_signed_file_only_the_signed_lines_count() {
        let text = format!(
            "{}\n-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n{}\r\n-----BEGIN PGP SIGNATURE-----\n\n{}\n\
             -----END PGP SIGNATURE-----\n{}\n",
            dist("before", 1),
            dist("signed", 1),
            dist("armour", 1),
            dist("after", 1)
        );
        assert_eq!(names(&Manifest::parse(text.as_bytes())), ["signed"]);
        let cut = text.split("-----BEGIN PGP SIGNATURE").next().expect("a first part");
        assert_eq!(names(&Manifest::parse(cut.as_bytes())), ["signed"]);
    }

    #[test]
    fn what_is_told_of_broken_lines_is_bounded() {
        let manifest = Manifest::parse("DIST a\n".repeat(10_000).as_bytes());
        assert_eq!(manifest.skipped.len(), SKIPPED_MAX);
    }

    #[test]
    fn a_file_beyond_the_limit_is_read_up_to_it() {
        let mut text = dist("a", 1).into_bytes();
        text.push(b'\n');
        text.resize(MANIFEST_BYTES_MAX + 1, b' ');
        let manifest = Manifest::parse(&text);
        assert_eq!(names(&manifest), ["a"]);
        assert!(matches!(manifest.skipped[0].reason, SkipReason::TooMuch { unit: "bytes", .. }));
    }
}
