//! Where a mirror keeps a file (GLEP 75 `layout.conf`): used to ask others, and to be asked.
//!
//! The three layouts and the way the first usable one is chosen are Portage's (`MirrorLayoutConfig` in
//! `lib/portage/package/ebuild/fetch.py`), as is the percent-encoding of the path.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tree::digest::{Digest, Sha512};
use tree::distfile::Distfile;

pub use crate::asked::{Asked, ParseRequestPathError, parse_request_path};

/// A `layout.conf` longer than this is not one; Gentoo's own has 43 bytes.
pub const LAYOUT_CONF_MAX: usize = 16 * 1024;
/// More entries than this are not read; three are known.
const ENTRIES_MAX: usize = 16;
/// More directory levels than this make no sense for a hash of 128 digits.
const CUTOFFS_MAX: usize = 8;
/// Bits in either digest.
const DIGEST_BITS: u16 = 512;
/// What Python's `urllib.parse.quote` leaves as it is, which is what Portage sends.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// A digest algorithm a layout may name. Portage knows more; an entry with any other is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algo {
    /// BLAKE2b with 512 bits.
    Blake2b,
    /// SHA-512.
    Sha512,
}

impl Algo {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "BLAKE2B" => Some(Self::Blake2b),
            "SHA512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for Algo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blake2b => "BLAKE2B",
            Self::Sha512 => "SHA512",
        })
    }
}

/// How many bits of the digest each directory level takes: each a multiple of 4 above 0, 512 together at most.
///
/// Portage would take 0 as well and make an empty directory of it; no mirror can serve that, so it is not read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutoffs(Vec<u16>);

impl Cutoffs {
    fn parse(word: &str) -> Option<Self> {
        let mut bits = Vec::new();
        for part in word.split(':') {
            if bits.len() == CUTOFFS_MAX || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let cutoff: u16 = part.parse().ok()?;
            if cutoff == 0 || !cutoff.is_multiple_of(4) {
                return None;
            }
            bits.push(cutoff);
        }
        (bits.iter().copied().fold(0, u16::saturating_add) <= DIGEST_BITS).then_some(Self(bits))
    }

    /// The directories of a digest of 128 hex digits, each with its slash.
    fn directories(&self, hex: &str) -> Option<String> {
        let mut path = String::with_capacity(16);
        let mut rest = hex;
        for bits in &self.0 {
            let (directory, remaining) = rest.split_at_checked(usize::from(bits / 4))?;
            path.push_str(directory);
            path.push('/');
            rest = remaining;
        }
        Some(path)
    }
}

impl fmt::Display for Cutoffs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, bits) in self.0.iter().enumerate() {
            if level > 0 {
                f.write_str(":")?;
            }
            write!(f, "{bits}")?;
        }
        Ok(())
    }
}

/// One way to spell a distfile's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Directories and name are the content's digest.
    ContentHash {
        /// Which digest of the content.
        algo: Algo,
        /// How it is cut into directories.
        cutoffs: Cutoffs,
    },
    /// Directories are the digest of the *name*, then the name.
    FilenameHash {
        /// Which digest of the name.
        algo: Algo,
        /// How it is cut into directories.
        cutoffs: Cutoffs,
    },
    /// All names in one directory.
    Flat,
}

impl Layout {
    /// Reads the words of one entry; `None` if it is one to pass over.
    fn parse(entry: &str) -> Option<Self> {
        let mut words = entry.split_ascii_whitespace();
        let kind = words.next()?;
        let arguments = (words.next(), words.next(), words.next());
        match (kind, arguments) {
            ("flat", (None, ..)) => Some(Self::Flat),
            ("filename-hash", (Some(algo), Some(cutoffs), None)) => {
                Some(Self::FilenameHash { algo: Algo::parse(algo)?, cutoffs: Cutoffs::parse(cutoffs)? })
            }
            ("content-hash", (Some(algo), Some(cutoffs), None)) => {
                Some(Self::ContentHash { algo: Algo::parse(algo)?, cutoffs: Cutoffs::parse(cutoffs)? })
            }
            _ => None,
        }
    }

    /// The path below `distfiles/`, percent-encoded as Portage does; `None` if the Manifest lacks the digest this layout
    /// goes by. Never begins with a slash and never climbs.
    #[must_use]
    pub fn path(&self, distfile: &Distfile) -> Option<String> {
        match self {
            Self::Flat => Some(quote(distfile.name.as_ref())),
            Self::FilenameHash { algo, cutoffs } => {
                let name: &str = distfile.name.as_ref();
                let directories = cutoffs.directories(&name_hex(*algo, name))?;
                Some(directories + &quote(name))
            }
            Self::ContentHash { algo, cutoffs } => {
                let hex = content_hex(*algo, distfile)?;
                Some(cutoffs.directories(&hex)? + &hex)
            }
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentHash { algo, cutoffs } => write!(f, "content-hash {algo} {cutoffs}"),
            Self::FilenameHash { algo, cutoffs } => write!(f, "filename-hash {algo} {cutoffs}"),
            Self::Flat => f.write_str("flat"),
        }
    }
}

/// What a `layout.conf` says, less what is not understood: layouts in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutConf {
    layouts: Vec<Layout>,
}

impl LayoutConf {
    /// Flat and nothing else: what a mirror without a (readable) `layout.conf` has.
    #[must_use]
    pub fn flat() -> Self {
        Self { layouts: vec![Layout::Flat] }
    }

    /// Our own: content-hash first, so that the URL is the store's key.
    #[must_use]
    pub fn ours() -> Self {
        let cutoffs = Cutoffs(vec![8]);
        Self {
            layouts: vec![
                Layout::ContentHash { algo: Algo::Blake2b, cutoffs: cutoffs.clone() },
                Layout::FilenameHash { algo: Algo::Blake2b, cutoffs },
                Layout::Flat,
            ],
        }
    }

    /// Reads a `layout.conf`; whatever is not one (too long, a web page, garbage) means flat.
    ///
    /// Entries count from 0 and end at the first number missing; an entry not understood is passed over, as Portage does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::parse_strict(text).unwrap_or_else(Self::flat)
    }

    /// The same, but `None` when there is no entry that is understood.
    pub(crate) fn parse_strict(text: &str) -> Option<Self> {
        let layouts: Vec<Layout> = entries(text)?.iter().filter_map(|entry| Layout::parse(entry)).collect();
        (!layouts.is_empty()).then_some(Self { layouts })
    }

    /// The layouts understood, best first; never empty.
    #[must_use]
    pub fn layouts(&self) -> &[Layout] {
        &self.layouts
    }

    /// Where this mirror keeps `distfile`, below `distfiles/`: the first layout the file has the digest for, else flat.
    #[must_use]
    pub fn path(&self, distfile: &Distfile) -> String {
        let first = self.layouts.iter().find_map(|layout| layout.path(distfile));
        first.unwrap_or_else(|| quote(distfile.name.as_ref()))
    }
}

impl fmt::Display for LayoutConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[structure]\n")?;
        for (number, layout) in self.layouts.iter().enumerate() {
            writeln!(f, "{number}={layout}")?;
        }
        Ok(())
    }
}

/// The entries of `[structure]` from 0 on; `None` if the text is not an INI file (Python's `configparser` would raise).
fn entries(text: &str) -> Option<Vec<String>> {
    if text.len() > LAYOUT_CONF_MAX {
        return None;
    }
    let mut found: Vec<Option<String>> = vec![None; ENTRIES_MAX];
    let mut section: Option<bool> = None;
    // The entry that an indented line goes on with; outer `None` means there is nothing to go on with.
    let mut open: Option<Option<usize>> = None;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let Some(slot) = open
        {
            if let Some(value) = slot.and_then(|number| found.get_mut(number)).and_then(Option::as_mut) {
                value.push(' ');
                value.push_str(bare);
            }
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            section = Some(name == "structure");
            open = None;
            continue;
        }
        let (key, value) = bare.split_once(['=', ':'])?;
        let ours = section?;
        let number = (0..ENTRIES_MAX).find(|number| ours && key.trim_end() == number.to_string());
        open = Some(number);
        if let Some(slot) = number.and_then(|number| found.get_mut(number)) {
            if slot.is_some() {
                return None;
            }
            *slot = Some(value.trim().to_owned());
        }
    }
    Some(found.into_iter().map_while(|entry| entry).collect())
}

/// The digest of a name, in hex.
pub(crate) fn name_hex(algo: Algo, name: &str) -> String {
    match algo {
        Algo::Blake2b => Digest::of(name.as_bytes()).to_string(),
        Algo::Sha512 => Sha512::of(name.as_bytes()).to_string(),
    }
}

/// The digest of the content, in hex, if the Manifest has it.
fn content_hex(algo: Algo, distfile: &Distfile) -> Option<String> {
    match algo {
        Algo::Blake2b => Some(distfile.blake2b.to_string()),
        Algo::Sha512 => distfile.sha512.map(|digest| digest.to_string()),
    }
}

/// Percent-encoded as Portage does.
pub(crate) fn quote(path: &str) -> String {
    utf8_percent_encode(path, QUOTED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert, proptest};

    fn distfile(name: &str) -> Distfile {
        let content = b"content";
        Distfile {
            name: name.parse().unwrap(),
            size: 7,
            blake2b: Digest::of(content),
            sha512: Some(Sha512::of(content)),
        }
    }

    fn path(conf: &str, name: &str) -> String {
        LayoutConf::parse(conf).path(&distfile(name))
    }

    #[test]
    fn our_own_layout_conf_is_what_the_interface_says_and_reads_back() {
        let text = "[structure]\n0=content-hash BLAKE2B 8\n1=filename-hash BLAKE2B 8\n2=flat\n";
        assert_eq!(LayoutConf::ours().to_string(), text);
        assert_eq!(LayoutConf::parse(text), LayoutConf::ours());
    }

    #[test]
    fn gentoos_mirrors_keep_a_file_by_the_hash_of_its_name() {
        // printf %s hello-c-1.0.tar.gz | b2sum begins with 1ca1743c.
        let gentoo = "[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n";
        assert_eq!(path(gentoo, "hello-c-1.0.tar.gz"), "1c/hello-c-1.0.tar.gz");
        let deep = "[structure]\n0=filename-hash BLAKE2B 8:12\n";
        assert_eq!(path(deep, "hello-c-1.0.tar.gz"), "1c/a17/hello-c-1.0.tar.gz");
    }

    #[test]
    fn content_hash_takes_the_digest_the_layout_names_and_passes_over_what_the_manifest_lacks() {
        let (blake2b, sha512) = (Digest::of(b"content").to_string(), Sha512::of(b"content").to_string());
        assert_eq!(path("[structure]\n0=content-hash BLAKE2B 8\n", "f"), format!("{}/{blake2b}", &blake2b[..2]));
        let conf = LayoutConf::parse("[structure]\n0=content-hash SHA512 8:8:8\n1=flat\n");
        let (first, second, third) = (&sha512[..2], &sha512[2..4], &sha512[4..6]);
        assert_eq!(conf.path(&distfile("f")), format!("{first}/{second}/{third}/{sha512}"));
        assert_eq!(conf.path(&Distfile { sha512: None, ..distfile("f") }), "f");
    }

    #[test]
    fn the_path_is_percent_encoded_as_portage_does() {
        assert_eq!(path("", "gtk+-3.0~rc1_x%2F@é.tar"), "gtk%2B-3.0~rc1_x%252F%40%C3%A9.tar");
    }

    #[test]
    fn an_entry_that_is_not_understood_is_passed_over() {
        for unknown in [
            "filename-hash MD5 8",
            "filename-hash blake2b 8",
            "filename-hash BLAKE2B 7",
            "filename-hash BLAKE2B 0",
            "filename-hash BLAKE2B -8",
            "filename-hash BLAKE2B 8:",
            "filename-hash BLAKE2B",
            "content-hash BLAKE2B 8 8",
            "content-hash BLAKE2B 512:4",
            "filename-hash BLAKE2B 4:4:4:4:4:4:4:4:4",
            "flat x",
            "",
            "tree",
            "filename-hash BLAKE2B 99999999999999999999",
        ] {
            let conf = format!("[structure]\n0={unknown}\n1=content-hash BLAKE2B 512\n");
            let hex = Digest::of(b"content").to_string();
            assert_eq!(path(&conf, "f"), format!("{hex}/{hex}"), "{unknown}");
        }
    }

    #[test]
    fn what_pythons_configparser_takes_is_taken() {
        let wanted = LayoutConf::ours();
        for text in [
            "# ours\n[structure]\n0 = content-hash BLAKE2B 8\n; x\n1: filename-hash\n   BLAKE2B 8\n2=flat\n4=flat\n",
            "[other]\n0=flat\n[structure]\r\n0=content-hash  BLAKE2B\t8\r\n1=filename-hash BLAKE2B 8\r\n2=flat\r\nx=1\r\n",
        ] {
            assert_eq!(LayoutConf::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_layout_conf_means_flat() {
        let long = format!("[structure]\n0=content-hash BLAKE2B 8\n#{}", "x".repeat(LAYOUT_CONF_MAX));
        for text in [
            "",
            "<html><body>404</body></html>",
            "0=content-hash BLAKE2B 8\n",
            "[structure]\ngarbage\n",
            "[structure]\n1=content-hash BLAKE2B 8\n",
            "[structure]\n0=content-hash BLAKE2B 8\n0=flat\n",
            &long,
            "[Structure]\n0=content-hash BLAKE2B 8\n",
        ] {
            assert_eq!(LayoutConf::parse(text), LayoutConf::flat(), "{text:.60}");
            assert!(LayoutConf::parse_strict(text).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_fall(text in ".{0,200}") {
            let conf = LayoutConf::parse(&text);
            prop_assert!(!conf.layouts().is_empty());
        }

        #[test]
        fn no_layout_leads_out_of_the_mirror(
            name in "[a-z.%/\\\\+]{1,20}", kind in "(content|filename)-hash (BLAKE2B|SHA512)",
            cutoffs in prop::collection::vec(-4i16..520, 1..10),
        ) {
            let cutoffs: Vec<String> = cutoffs.iter().map(|bits| (bits / 4 * 4).to_string()).collect();
            let conf = LayoutConf::parse(&format!("[structure]\n0={kind} {}\n", cutoffs.join(":")));
            if let Ok(name) = name.parse() {
                let path = conf.path(&Distfile { name, ..distfile("x") });
                prop_assert!(!path.starts_with('/') && !path.contains("//"), "{}", path);
                prop_assert!(path.split('/').all(|component| !component.starts_with('.') && !component.contains('\\')));
            }
        }
    }
}
