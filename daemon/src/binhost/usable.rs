//! Which packages this machine can use: those its Portage would build just so, its processor runs, and whose libraries are
//! there. The rest stays here and is not listed, with the reason.

use super::answers::Answers;
use super::row::{BinpkgRow, Demands};
use crate::machine::{Libraries, Machine};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tree::cpu::Needed;
use tree::digest::Digest;
use tree::elf::{Abi, Soname};

/// Names of libraries and symbol versions that one reason lists.
const NAMED_MAX: usize = 8;

/// Why a package is of no use on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectKind {
    /// Built for another machine.
    Guest,
    /// For another kind of machine.
    Chost,
    /// With other USE flags than this machine's configuration gives.
    Use,
    /// With instructions that this processor does not have.
    Cpu,
    /// Linked with a library that is not here.
    Soname,
    /// Linked with a newer library than the one that is here.
    Symbol,
}

impl RejectKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Chost => "chost",
            Self::Use => "use",
            Self::Cpu => "cpu",
            Self::Soname => "soname",
            Self::Symbol => "symbol",
        }
    }
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Of what kind.
    pub kind: RejectKind,
    /// In words.
    pub text: String,
}

/// A package of the binhost, and why this machine cannot use it; it can when there is no reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What is known of it.
    pub row: BinpkgRow,
    /// Why not.
    pub rejects: Vec<Reject>,
}

/// The packages that cannot be used, with the reasons; the others can. Looks at libraries: blocking.
pub(super) fn judge(
    rows: &BTreeMap<Digest, Arc<BinpkgRow>>,
    machine: &Machine,
    answers: &Answers,
) -> BTreeMap<Digest, Vec<Reject>> {
    let mut rejected: BTreeMap<Digest, Vec<Reject>> = BTreeMap::new();
    let mut processor = Processor { machine, answers, known: BTreeMap::new() };
    for (digest, row) in rows {
        let rejects = by_itself(row, &mut processor);
        if !rejects.is_empty() {
            rejected.insert(*digest, rejects);
        }
    }
    // What one package lacks another may give, if it can be used itself: who gives nothing any more is a reason to look again
    // at those that need it, and at no others.
    let mut linking = Linking::new(rows, machine);
    for (digest, row) in rows.iter().filter(|(digest, _)| !rejected.contains_key(digest)) {
        linking.offer(*digest, row);
    }
    let mut ahead: BTreeSet<Digest> = rows.keys().filter(|digest| !rejected.contains_key(*digest)).copied().collect();
    while let Some(digest) = ahead.pop_first() {
        let Some(row) = rows.get(&digest).filter(|_| !rejected.contains_key(&digest)) else { continue };
        let lacking = linking.lacks(row);
        if !lacking.is_empty() {
            rejected.insert(digest, lacking);
            linking.take_back(&digest, row, &mut ahead);
        }
    }
    rejected
}

/// What needs no look at other packages.
fn by_itself<'a>(row: &'a BinpkgRow, processor: &mut Processor<'a>) -> Vec<Reject> {
    let answers = processor.answers;
    let mut rejects = Vec::new();
    let mut add = |kind, text| rejects.push(Reject { kind, text });
    if row.is_guest() {
        add(RejectKind::Guest, "built for another machine, with its configuration".to_owned());
        return rejects;
    }
    let chost = row.entry.get("CHOST").unwrap_or_default();
    let own = answers.machine.as_ref();
    if let Some(own) = own.filter(|own| !own.chost.is_empty() && !chost.is_empty() && own.chost != chost) {
        add(RejectKind::Chost, format!("built for {chost}, this machine is {}", own.chost));
    }
    if let Some(flags) = answers.differing(&row.digest) {
        add(
            RejectKind::Use,
            format!("its USE flags are not those of this machine's configuration: {}", flags.join(", ")),
        );
    }
    if let Some(missing) = processor.lacks(row, chost) {
        add(RejectKind::Cpu, format!("this processor does not have {missing}"));
    }
    rejects
}

/// The processor, and what was found about options: most packages of a machine have the same.
struct Processor<'a> {
    machine: &'a Machine,
    answers: &'a Answers,
    known: BTreeMap<Compiled<'a>, Option<String>>,
}

/// CHOST, options by their variables, USE flags of the processor that are on.
type Compiled<'a> = (&'a str, &'a BTreeMap<String, String>, Vec<&'a str>);

impl<'a> Processor<'a> {
    /// The instructions that a package needs and the processor does not have; None: it runs.
    fn lacks(&mut self, row: &'a BinpkgRow, chost: &'a str) -> Option<String> {
        let Demands { flags, .. } = row.demands.as_ref()?;
        let iuse: BTreeSet<&str> = words(row, "IUSE").map(|flag| flag.trim_start_matches(['+', '-'])).collect();
        let on = words(row, "USE").filter(|flag| flag.starts_with("cpu_flags_") && iuse.contains(flag)).collect();
        let compiled = (chost, flags, on);
        if let Some(known) = self.known.get(&compiled) {
            return known.clone();
        }
        let lacking = self.look(&compiled);
        self.known.insert(compiled, lacking.clone());
        lacking
    }

    fn look(&self, (chost, flags, on): &Compiled<'_>) -> Option<String> {
        let go = flags.get("GOAMD64").map(|level| format!("GOAMD64={level}"));
        let texts = flags.iter().filter(|(name, _)| *name != "GOAMD64").map(|(_, text)| text.as_str());
        let needed = Needed::of(chost, texts.chain(go.as_deref()), on.iter().copied());
        if let Needed::Unknown { option } = &needed {
            // A recipe of this machine: as long as its configuration still says the same, it means what it meant then.
            let own = self.answers.machine.as_ref()?;
            let same = own.flags.contains("=native") || own.flags.split_ascii_whitespace().any(|word| word == option);
            return (!same).then(|| format!("what {option} means, for all that is known here"));
        }
        needed.missing_in(self.machine.features())
    }
}

fn words<'a>(row: &'a BinpkgRow, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    row.entry.get(key).unwrap_or_default().split_ascii_whitespace()
}

/// Libraries of the machine and of the packages.
struct Linking<'a> {
    libraries: Libraries<'a>,
    /// Kinds of programs of which this machine has any library: of others nothing is compared.
    abis: BTreeSet<Abi>,
    /// Of each library the packages that give it, with its symbol versions.
    offered: BTreeMap<&'a Soname, BTreeMap<Digest, &'a BTreeSet<String>>>,
    /// Of each library the packages that need it.
    needed: BTreeMap<&'a Soname, Vec<Digest>>,
}

impl<'a> Linking<'a> {
    fn new(rows: &'a BTreeMap<Digest, Arc<BinpkgRow>>, machine: &'a Machine) -> Self {
        let mut libraries = machine.libraries();
        let mut abis = BTreeSet::new();
        for Demands { links, .. } in rows.values().filter_map(|row| row.demands.as_ref()) {
            for so in links.needs.keys() {
                if !abis.contains(&so.abi) && libraries.defined(so, &BTreeSet::new()).is_some() {
                    abis.insert(so.abi);
                }
            }
        }
        Self { libraries, abis, offered: BTreeMap::new(), needed: BTreeMap::new() }
    }

    fn offer(&mut self, digest: Digest, row: &'a BinpkgRow) {
        let Some(Demands { links, .. }) = &row.demands else { return };
        for (so, versions) in &links.gives {
            self.offered.entry(so).or_default().insert(digest, versions);
        }
        for so in links.needs.keys().filter(|so| !links.gives.contains_key(*so)) {
            self.needed.entry(so).or_default().push(digest);
        }
    }

    /// A package cannot be used: what it gives is gone, and those that may have counted on it are to be looked at again.
    fn take_back(&mut self, digest: &Digest, row: &'a BinpkgRow, again: &mut BTreeSet<Digest>) {
        let Some(Demands { links, .. }) = &row.demands else { return };
        for (so, versions) in &links.gives {
            let Some(givers) = self.offered.get_mut(so) else { continue };
            givers.remove(digest);
            // Others give the same, mostly: then nobody counted on this one.
            let replaced = |version: &String| givers.values().any(|of| of.contains(version));
            if givers.is_empty() || !versions.iter().all(replaced) {
                again.extend(self.needed.get(so).into_iter().flatten());
            }
        }
    }

    /// Its own libraries come first, then the machine's, then those of other packages.
    fn lacks(&mut self, row: &BinpkgRow) -> Vec<Reject> {
        let Some(Demands { links, .. }) = &row.demands else { return Vec::new() };
        let (mut sonames, mut symbols) = (Vec::new(), Vec::new());
        for (so, versions) in links.needs.iter().filter(|(so, _)| self.abis.contains(&so.abi)) {
            let missing = |defined: &dyn Fn(&str) -> bool| -> Vec<String> {
                let lacking = versions.iter().filter(|version| !defined(version));
                lacking.map(|version| format!("{version} of {}", so.name)).collect()
            };
            if let Some(own) = links.gives.get(so) {
                symbols.extend(missing(&|version| own.is_empty() || own.contains(version)));
            } else if let Some(here) = self.libraries.defined(so, &links.paths) {
                // A library without versions takes any, and the dynamic linker only says so.
                symbols.extend(missing(&|version| here.is_empty() || here.contains(version)));
            } else if let Some(offered) = self.offered.get(so).filter(|offered| !offered.is_empty()) {
                let any = offered.values().all(|of| of.is_empty());
                symbols.extend(missing(&|version| any || offered.values().any(|of| of.contains(version))));
            } else {
                sonames.push(so.name.clone());
            }
        }
        let mut rejects = Vec::new();
        if !sonames.is_empty() {
            let text = format!("neither this machine nor a listed package has {}", listed(&sonames));
            rejects.push(Reject { kind: RejectKind::Soname, text });
        }
        if !symbols.is_empty() {
            let text = format!("the libraries of this machine are older: they lack {}", listed(&symbols));
            rejects.push(Reject { kind: RejectKind::Symbol, text });
        }
        rejects
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::answers::OwnPortage;
    use super::super::owner::Owner;
    use super::super::row::tests::row;
    use super::*;
    use std::path::Path;
    use tree::cpu::CpuFeatures;
    use tree::elf::{ElfFile, Links, Versions};

    fn so(name: &str) -> Soname {
        let own = std::fs::read("/proc/self/exe").unwrap();
        Soname { abi: ElfFile::read(own.as_slice()).unwrap().abi, name: name.to_owned() }
    }

    fn versions(all: &[(&str, &[&str])]) -> Versions {
        all.iter().map(|(name, of)| (so(name), of.iter().map(|version| (*version).to_owned()).collect())).collect()
    }

    fn package(blob: &[u8], flags: &str, needs: &[(&str, &[&str])], gives: &[(&str, &[&str])]) -> BinpkgRow {
        let links = Links { needs: versions(needs), gives: versions(gives), ..Links::default() };
        let demands = Demands::new(|name| (name == "CFLAGS").then(|| flags.to_owned()), links);
        BinpkgRow { demands: Some(demands), ..row(blob, 1) }
    }

    /// A machine with an x86-64-v2 processor and the libraries of this one.
    fn v2() -> Machine {
        Machine::new(Path::new("/"), CpuFeatures::of_march("x86-64-v2").unwrap())
    }

    fn own(flags: &str) -> Answers {
        let machine = OwnPortage { chost: "x86_64-pc-linux-gnu".into(), arch: "amd64".into(), flags: flags.into() };
        Answers { machine: Some(machine), ..Answers::default() }
    }

    fn judged(rows: &[&BinpkgRow], answers: &Answers) -> Vec<Vec<(RejectKind, String)>> {
        let all: BTreeMap<Digest, Arc<BinpkgRow>> =
            rows.iter().map(|row| (row.digest, Arc::new((*row).clone()))).collect();
        let verdicts = judge(&all, &v2(), answers);
        let of = |row: &&BinpkgRow| verdicts.get(&row.digest).cloned().unwrap_or_default();
        rows.iter().map(|row| of(row).into_iter().map(|reject| (reject.kind, reject.text)).collect()).collect()
    }

    fn kinds(rows: &[&BinpkgRow], answers: &Answers) -> Vec<Vec<RejectKind>> {
        judged(rows, answers).into_iter().map(|of| of.into_iter().map(|(kind, _)| kind).collect()).collect()
    }

    #[test]
    fn a_package_that_this_processor_cannot_run_is_refused_with_what_it_lacks() {
        let (plain, new) = (package(b"1", "-O2", &[], &[]), package(b"2", "-O2 -march=x86-64-v3", &[], &[]));
        let all = judged(&[&plain, &new], &own("-O2"));
        assert_eq!(all[0], []);
        assert_eq!(all[1].len(), 1);
        assert!(all[1][0].0 == RejectKind::Cpu && all[1][0].1.contains("avx2"), "{all:?}");
    }

    #[test]
    fn what_cannot_be_said_of_a_processor_is_only_good_while_the_configuration_says_the_same() {
        let strange = package(b"1", "-march=znver99", &[], &[]);
        assert_eq!(kinds(&[&strange], &own("-march=znver99 -O2")), [vec![]]);
        assert_eq!(kinds(&[&strange], &own("-march=native")), [vec![]]);
        assert_eq!(kinds(&[&strange], &Answers::default()), [vec![]], "nobody was asked yet, and it came by a plan");
        assert_eq!(kinds(&[&strange], &own("-O2")), [[RejectKind::Cpu]]);
    }

    #[test]
    fn another_chost_other_use_flags_and_guests_are_refused_each_for_its_reason() {
        let plain = package(b"1", "-O2", &[], &[]);
        let mut answers = own("-O2");
        answers.note(plain.digest, 1, vec!["color is on in it".to_owned()]);
        answers.machine.as_mut().unwrap().chost = "i686-pc-linux-gnu".into();
        assert_eq!(kinds(&[&plain], &answers), [[RejectKind::Chost, RejectKind::Use]]);
        assert!(judged(&[&plain], &answers)[0][1].1.contains("color"));
        let guest = BinpkgRow { owner: Owner::Forgotten, ..plain };
        assert_eq!(kinds(&[&guest], &answers), [[RejectKind::Guest]]);
    }

    #[test]
    fn libraries_are_the_machines_or_those_of_a_package_that_can_be_used_itself() {
        let libc: (&str, &[&str]) = ("libc.so.6", &[]);
        let program = package(b"1", "", &[libc, ("libtwo.so.1", &["TWO_1"])], &[]);
        assert_eq!(kinds(&[&program], &own("")), [[RejectKind::Soname]]);
        let two = package(b"2", "", &[libc], &[("libtwo.so.1", &["TWO_1"])]);
        assert_eq!(kinds(&[&program, &two], &own("")), [vec![], vec![]]);
        let old = package(b"3", "", &[libc], &[("libtwo.so.1", &["TWO_0"])]);
        assert_eq!(kinds(&[&program, &old], &own("")), [vec![RejectKind::Symbol], vec![]]);
        let broken = package(b"4", "", &[libc, ("libthree.so", &[])], &[("libtwo.so.1", &["TWO_1"])]);
        assert_eq!(kinds(&[&program, &broken], &own("")), [[RejectKind::Soname], [RejectKind::Soname]]);
        let guest = BinpkgRow { owner: Owner::Forgotten, ..two };
        assert_eq!(kinds(&[&program, &guest], &own("")), [[RejectKind::Soname], [RejectKind::Guest]]);
        let itself = package(b"5", "", &[libc, ("libown.so", &["A"])], &[("libown.so", &["A"])]);
        assert_eq!(kinds(&[&itself], &own("")), [vec![]]);
    }

    #[test]
    fn a_newer_c_library_than_this_machines_is_missed_by_the_name_of_its_version() {
        let newer = package(b"1", "", &[("libc.so.6", &["GLIBC_2.2.5", "GLIBC_9.99"])], &[]);
        let all = judged(&[&newer], &own(""));
        assert_eq!(all[0][0].0, RejectKind::Symbol);
        assert!(all[0][0].1.ends_with("they lack GLIBC_9.99 of libc.so.6"), "{all:?}");
    }

    #[test]
    fn a_package_of_an_old_row_is_not_held_against_what_nobody_looked_at() {
        let old = BinpkgRow { demands: None, ..row(b"1", 1) };
        assert_eq!(kinds(&[&old], &own("-O2")), [vec![]]);
    }
}
