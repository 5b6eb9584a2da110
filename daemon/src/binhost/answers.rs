//! What this machine's Portage said of the packages of the binhost, and of itself; kept across restarts.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use store::{IndexError, RowChange, RowError, RowTable, Store};
use tree::digest::Digest;
use tree::packages::PackageEntry;

/// The version of what is kept.
const VERSION: u8 = 1;
/// Key of the row with what Portage said of the packages. What does not fit goes on in rows whose keys have a number behind.
pub(super) const KEY: &[u8] = b"answers";
/// Bytes of one such row.
const ROW_BYTES: usize = 512 * 1024;
/// Rows of answers: enough for [`super::PACKAGES_MAX`] packages with some differing flags each.
const ROWS_MAX: usize = 64;
/// Rows written in one step, which the store bounds.
const ROWS_AT_ONCE: usize = 4;
/// Flags that are named of one package.
const FLAGS_MAX: usize = 100;

/// This machine, as its Portage is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnPortage {
    /// `CHOST`.
    pub chost: String,
    /// `ARCH`.
    pub arch: String,
    /// `CFLAGS`, `CXXFLAGS` and the like, one after the other, as make.conf says them.
    pub flags: String,
}

/// What Portage would make of one package now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WouldBuild {
    /// Its IUSE; None where there is no ebuild any more, and the package's own counts.
    pub(super) iuse: Option<BTreeSet<String>>,
    /// The flags that would be on.
    pub(super) r#use: BTreeSet<String>,
    /// The flags that nobody can choose.
    pub(super) forced: BTreeSet<String>,
}

/// Everything that was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// The state of the configuration for which it holds; empty when nobody was asked.
    pub(super) config: String,
    pub(super) machine: Option<OwnPortage>,
    /// Of each package the state of its ebuild (0: it came by a plan, and nobody looked), and the flags that differ.
    pub(super) packages: BTreeMap<Digest, (u64, Vec<String>)>,
}

type Form = (u8, String, (String, String, String), Vec<(String, u64, Vec<String>)>);

impl Answers {
    pub(super) fn note(&mut self, package: Digest, ebuild: u64, differing: Vec<String>) {
        self.packages.insert(package, (ebuild, differing));
    }

    /// A package that came by a plan of this machine has the flags that its configuration gives.
    pub(super) fn note_planned(&mut self, package: Digest) {
        self.packages.insert(package, (0, Vec::new()));
    }

    pub(super) fn forget(&mut self, package: &Digest) {
        self.packages.remove(package);
    }

    /// The flags that differ, if any do.
    pub(super) fn differing(&self, package: &Digest) -> Option<&[String]> {
        self.packages.get(package).map(|(_, flags)| flags.as_slice()).filter(|flags| !flags.is_empty())
    }

    /// Whether Portage should be asked again, as the configuration and the ebuilds are now. A package that nobody looked
    /// at gets the state that its ebuild has.
    pub(super) fn are_stale(&mut self, config: &str, ebuilds: &BTreeMap<Digest, u64>) -> bool {
        let mut stale = self.config != config || self.machine.is_none();
        for (digest, now) in ebuilds {
            match self.packages.get_mut(digest) {
                Some((known, _)) if *known == 0 => *known = *now,
                Some((known, _)) => stale |= known != now,
                None => stale = true,
            }
        }
        stale
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let machine = self.machine.clone().unwrap_or_default();
        let packages =
            self.packages.iter().map(|(digest, (ebuild, flags))| (digest.to_string(), *ebuild, flags.clone()));
        let form: Form =
            (VERSION, self.config.clone(), (machine.chost, machine.arch, machine.flags), packages.collect());
        serde_ipld_dagcbor::to_vec(&form).expect("texts and numbers always have a DAG-CBOR form")
    }

    /// None for what is not of this version: then Portage is asked again.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, config, (chost, arch, flags), packages): Form = serde_ipld_dagcbor::from_slice(bytes).ok()?;
        let own = OwnPortage { chost, arch, flags };
        let packages =
            packages.into_iter().map(|(digest, ebuild, flags)| Some((digest.parse().ok()?, (ebuild, flags))));
        let answers = Self {
            config,
            machine: (own != OwnPortage::default()).then_some(own),
            packages: packages.collect::<Option<_>>()?,
        };
        (version == VERSION).then_some(answers)
    }
}

/// The key of the n-th row of answers.
fn key_of(number: usize) -> Vec<u8> {
    match number {
        0 => KEY.to_vec(),
        number => [KEY, format!(".{number}").as_bytes()].concat(),
    }
}

/// What Portage said, as it was encoded.
pub(super) fn read(store: &Store) -> Result<Vec<u8>, IndexError> {
    let mut bytes = Vec::new();
    for number in 0..ROWS_MAX {
        let Some(more) = store.row(RowTable::Binpkgs, &key_of(number))? else { break };
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Writes it in as many rows as it takes, and deletes those of before. What is too long is not kept: the next start asks.
///
/// The first row goes first and comes last, so that a crash in between leaves nothing to be read.
pub(super) fn write(store: &Store, bytes: &[u8]) -> Result<(), RowError> {
    let pieces: Vec<&[u8]> = bytes.chunks(ROW_BYTES).collect();
    let pieces = if pieces.len() > ROWS_MAX { Vec::new() } else { pieces };
    let keys: Vec<Vec<u8>> = (0..ROWS_MAX).map(key_of).collect();
    let change = |(number, key)| RowChange { table: RowTable::Binpkgs, key, value: pieces.get(number).copied() };
    let changes: Vec<RowChange<'_>> = keys.iter().map(Vec::as_slice).enumerate().map(change).collect();
    store.delete_row(RowTable::Binpkgs, KEY)?;
    changes.rchunks(ROWS_AT_ONCE).try_for_each(|some| store.put_rows(some))
}

/// The flags for which Portage would not take a package under `--binpkg-respect-use`, with what they are on each side
/// (`_reinstall_for_flags` of its resolver).
pub(super) fn differing(entry: &PackageEntry, now: &WouldBuild) -> Vec<String> {
    let words = |key: &str| entry.get(key).unwrap_or_default().split_ascii_whitespace();
    let iuse: BTreeSet<&str> = words("IUSE").map(|flag| flag.trim_start_matches(['+', '-'])).collect();
    let on: BTreeSet<&str> = words("USE").filter(|flag| iuse.contains(flag)).collect();
    let now_iuse: BTreeSet<&str> =
        now.iuse.as_ref().map_or_else(|| iuse.clone(), |flags| flags.iter().map(String::as_str).collect());
    let now_on: BTreeSet<&str> = now.r#use.iter().map(String::as_str).filter(|flag| now_iuse.contains(flag)).collect();
    let added = iuse.symmetric_difference(&now_iuse).filter(|flag| !now.forced.contains(**flag));
    let differing: BTreeSet<&str> = added.chain(on.symmetric_difference(&now_on)).copied().collect();
    let state =
        |flag: &str, known: &BTreeSet<&str>, on: &BTreeSet<&str>| match (known.contains(flag), on.contains(flag)) {
            (_, true) => "on",
            (true, false) => "off",
            (false, false) => "not there",
        };
    let text = |flag: &&str| {
        format!("{flag} is {} in it and {} here", state(flag, &iuse, &on), state(flag, &now_iuse, &now_on))
    };
    differing.iter().map(text).take(FLAGS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(iuse: &str, on: &str) -> PackageEntry {
        let keys = [("CPV", "a/b-1"), ("IUSE", iuse), ("USE", on)].into_iter().filter(|(_, value)| !value.is_empty());
        PackageEntry::from_keys(keys.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()).unwrap()
    }

    fn flags(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn now(iuse: Option<&str>, on: &str, forced: &str) -> WouldBuild {
        WouldBuild { iuse: iuse.map(flags), r#use: flags(on), forced: flags(forced) }
    }

    #[test]
    fn flags_are_compared_as_portage_does() {
        for (iuse, on, would, expected) in [
            ("+a b", "amd64 a", now(Some("a b"), "a elibc_glibc", ""), &[][..]),
            ("+a b", "amd64 a", now(None, "a", ""), &[]),
            ("+a b", "a", now(Some("a b"), "", ""), &["a is on in it and off here"]),
            ("a b", "", now(Some("a b"), "b", ""), &["b is off in it and on here"]),
            ("a", "a", now(Some("a c"), "a", ""), &["c is not there in it and off here"]),
            ("a", "a", now(Some("a c"), "a", "c"), &[]),
            ("a", "a", now(Some("a c"), "a c", "c"), &["c is not there in it and on here"]),
            ("a old", "a", now(Some("a"), "a", ""), &["old is off in it and not there here"]),
            ("", "", now(None, "x", ""), &[]),
        ] {
            assert_eq!(differing(&entry(iuse, on), &would), expected, "{iuse} / {on} / {would:?}");
        }
    }

    #[test]
    fn answers_of_any_length_are_there_after_a_restart_and_those_of_before_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        for length in [0, 1, ROW_BYTES, ROW_BYTES + 1, 5 * ROW_BYTES, 7, ROW_BYTES * ROWS_MAX] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            write(&store, &bytes).unwrap();
            assert!(read(&store).unwrap() == bytes, "{length}");
        }
        write(&store, &vec![1; ROW_BYTES * ROWS_MAX + 1]).unwrap();
        assert_eq!(read(&store).unwrap(), b"", "too many are asked for again");
    }

    #[test]
    fn answers_are_kept_and_asked_for_again_when_something_changed() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut answers = Answers { config: "c".into(), ..Answers::default() };
        answers.note(one, 7, vec!["a is on in it and off here".into()]);
        answers.note_planned(two);
        let ebuilds = |of_one, of_two| BTreeMap::from([(one, of_one), (two, of_two)]);
        assert!(answers.are_stale("c", &ebuilds(7, 8)), "nobody knows the machine yet");
        answers.machine = Some(OwnPortage { chost: "x".into(), ..OwnPortage::default() });
        assert!(!answers.are_stale("c", &ebuilds(7, 8)));
        assert!(answers.are_stale("c", &ebuilds(7, 9)), "the ebuild of what came by a plan changed");
        assert!(answers.are_stale("d", &ebuilds(7, 8)) && answers.are_stale("c", &ebuilds(6, 8)));
        assert!(answers.are_stale("c", &BTreeMap::from([(Digest::of(b"3"), 1)])), "nobody asked about that one");
        assert_eq!((answers.differing(&one).map(<[String]>::len), answers.differing(&two)), (Some(1), None));
        assert_eq!(Answers::decode(&answers.encode()), Some(answers.clone()));
        let bytes = answers.encode();
        assert!((0..bytes.len()).all(|length| Answers::decode(&bytes[..length]).is_none()));
        answers.forget(&one);
        assert_eq!(answers.differing(&one), None);
    }
}
