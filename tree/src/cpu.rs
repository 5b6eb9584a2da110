//! What a package needs of a processor, as the options that it was compiled with say, and what a processor has.
//!
//! The names of instruction sets are those of GCC's `-m` options. What an option adds includes what it builds on, and what
//! it takes away what builds on that, as in GCC. Options that choose no instructions (`-mtune`, `-mcmodel`) need nothing.
//! An option or a processor that is not known here needs [`Needed::Unknown`]: nobody should run that on trust.

use std::collections::BTreeSet;
use std::fmt;

use crate::cpu_table::{FEATURES, Feature, HARMLESS, MARCHES, UNSEEN};

/// Bytes of the options of one variable that are read; more are not believed in.
pub const FLAGS_BYTES_MAX: usize = 64 << 10;

/// A set of instruction sets.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuFeatures(BTreeSet<&'static str>);

/// What options need of a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// A processor that has these.
    Features(CpuFeatures),
    /// It cannot be said: this option is not known here, or means whatever the builder's processor was.
    Unknown {
        /// The option as it is written, shortened.
        option: String,
    },
}

impl CpuFeatures {
    /// What Linux says of the first processor of `/proc/cpuinfo`: what it leaves out there, no program may use.
    #[must_use]
    pub fn from_cpuinfo(text: &str) -> Self {
        let flags = text.lines().filter_map(|line| line.split_once(':'));
        let flags = flags.filter(|(key, _)| key.trim() == "flags").map(|(_, flags)| flags).next().unwrap_or_default();
        let known = |flag| FEATURES.iter().find(|feature| feature.linux == flag).map(|feature| feature.name);
        Self(flags.split_ascii_whitespace().filter_map(known).collect())
    }

    /// What every processor of this CHOST has.
    #[must_use]
    pub fn baseline(chost: &str) -> Self {
        if chost.starts_with("x86_64") { Self::of_march("x86-64").unwrap_or_default() } else { Self::default() }
    }

    /// What the processor of a `-march` has, as GCC and clang agree on it; None where the name is not known.
    #[must_use]
    pub fn of_march(name: &str) -> Option<Self> {
        let march = MARCHES.iter().find(|march| march.names.contains(&name))?;
        let mut features = march.of.map_or_else(Self::default, |base| Self::of_march(base).unwrap_or_default());
        march.more.split_ascii_whitespace().filter_map(feature).for_each(|more| features.add(more));
        Some(features)
    }

    /// Those of `self` that `machine` lacks, in the order of their names.
    #[must_use]
    pub fn missing_in(&self, machine: &Self) -> Vec<&'static str> {
        self.0.difference(&machine.0).copied().collect()
    }

    /// Whether it has the instruction set of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }

    /// The highest of x86-64-v1 to v4 (by its number) that it has as a whole; None below the first.
    #[must_use]
    pub fn level(&self) -> Option<u8> {
        (1..=4).rev().find(|level| {
            let name = if *level == 1 { "x86-64".to_owned() } else { format!("x86-64-v{level}") };
            Self::of_march(&name).is_some_and(|needed| needed.0.is_subset(&self.0))
        })
    }

    fn add(&mut self, feature: &Feature) {
        if self.0.insert(feature.name) {
            feature.implies.split_ascii_whitespace().filter_map(self::feature).for_each(|implied| self.add(implied));
        }
    }

    fn remove(&mut self, name: &'static str) {
        if self.0.remove(name) {
            let above = FEATURES.iter().filter(|other| other.implies.split_ascii_whitespace().any(|by| by == name));
            above.for_each(|other| self.remove(other.name));
        }
    }

    fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl fmt::Debug for CpuFeatures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for CpuFeatures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(out, "{}{name}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Needed {
    /// What a package needs that was made for `chost` with these options (one text a variable: `CFLAGS`, `RUSTFLAGS`…;
    /// each is read by itself, and all that they need is needed) and with these USE flags, of which only `cpu_flags_x86_*`
    /// count.
    #[must_use]
    pub fn of<'a>(
        chost: &str,
        variables: impl IntoIterator<Item = &'a str>,
        use_flags: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut all = CpuFeatures::baseline(chost);
        for flags in variables {
            match Reading::read(chost, flags) {
                Ok(features) => all.join(features),
                Err(option) => return Self::Unknown { option },
            }
        }
        for name in use_flags.into_iter().filter_map(|flag| flag.strip_prefix("cpu_flags_x86_")) {
            // A flag that is none of these is no instruction set of a processor of today (padlock).
            FEATURES.iter().filter(|feature| feature.flag == name).for_each(|feature| all.add(feature));
        }
        Self::Features(all)
    }

    /// What `machine` lacks of it: names of instruction sets, or the option of [`Needed::Unknown`]. None: it runs there.
    #[must_use]
    pub fn missing_in(&self, machine: &CpuFeatures) -> Option<String> {
        match self {
            Self::Features(needed) if needed.is_subset(machine) => None,
            Self::Features(needed) => Some(needed.missing_in(machine).join(" ")),
            Self::Unknown { option } => Some(option.clone()),
        }
    }
}

/// One variable's options as they are read from left to right: the last `-march` counts wherever it stands, and what is
/// added and taken away counts after it.
struct Reading<'a> {
    chost: &'a str,
    march: Option<CpuFeatures>,
    changes: Vec<(&'static Feature, bool)>,
}

impl<'a> Reading<'a> {
    fn read(chost: &'a str, flags: &str) -> Result<CpuFeatures, String> {
        let mut reading = Self { chost, march: None, changes: Vec::new() };
        if flags.len() > FLAGS_BYTES_MAX {
            return Err("options without end".to_owned());
        }
        for word in flags.split_ascii_whitespace() {
            reading.word(word).map_err(|()| word.chars().take(80).collect::<String>())?;
        }
        let mut features = reading.march.unwrap_or_else(|| CpuFeatures::baseline(chost));
        for (feature, on) in reading.changes {
            if on { features.add(feature) } else { features.remove(feature.name) }
        }
        Ok(features)
    }

    fn is_x86(&self) -> bool {
        self.chost.starts_with("x86_64") || matches!(self.chost.as_bytes(), [b'i', b'3'..=b'7', b'8', b'6', ..])
    }

    fn word(&mut self, word: &str) -> Result<(), ()> {
        let rust = word.strip_prefix("-C").unwrap_or(word);
        if let Some(name) = word.strip_prefix("-march=").or_else(|| word.strip_prefix("-target-cpu=")) {
            self.march(name)
        } else if let Some(name) = rust.strip_prefix("target-cpu=") {
            if name.starts_with('-') { name.split(',').try_for_each(|word| self.word(word)) } else { self.march(name) }
        } else if let Some(named) =
            rust.strip_prefix("-target-feature=").or_else(|| rust.strip_prefix("target-feature="))
        {
            named.split(',').try_for_each(|named| self.signed(named))
        } else if let Some(level) = word.strip_prefix("GOAMD64=") {
            self.march(&if level == "v1" { "x86-64".to_owned() } else { format!("x86-64-{level}") })
        } else if let Some(name) = word.strip_prefix("-m") {
            self.option(name)
        } else {
            Ok(())
        }
    }

    fn march(&mut self, name: &str) -> Result<(), ()> {
        if !self.is_x86() {
            // The one that every processor of the kind has.
            return if self.chost.starts_with("aarch64") && name == "armv8-a" { Ok(()) } else { Err(()) };
        }
        self.march = Some(CpuFeatures::of_march(name).ok_or(())?);
        Ok(())
    }

    /// clang's and rustc's `+NAME` and `-NAME`.
    fn signed(&mut self, named: &str) -> Result<(), ()> {
        if named.is_empty() {
            return Ok(());
        }
        let (name, on) = match named.strip_prefix('+') {
            Some(name) => (name, true),
            None => (named.strip_prefix('-').unwrap_or(named), false),
        };
        self.change(name, on)
    }

    fn option(&mut self, name: &str) -> Result<(), ()> {
        if let Some((name, _value)) = name.split_once('=') {
            // -mcpu is -mtune on x86, and -march elsewhere.
            return if name == "cpu" && !self.is_x86() { Err(()) } else { Ok(()) };
        }
        if !self.is_x86() {
            return Ok(());
        }
        match name.strip_prefix("no-") {
            Some(name) => self.change(name, false),
            None => self.change(name, true),
        }
    }

    fn change(&mut self, name: &str, on: bool) -> Result<(), ()> {
        let own: &[&str] = match name {
            "abm" => &["lzcnt", "popcnt"],
            "sse4" if on => &["sse4.2"],
            "sse4" => &["sse4.1"],
            "bmi1" => &["bmi"],
            "pclmulqdq" => &["pclmul"],
            "rdrand" => &["rdrnd"],
            "cmpxchg16b" => &["cx16"],
            "lahfsahf" => &["sahf"],
            _ => &[],
        };
        if own.is_empty() {
            return match feature(name) {
                Some(feature) => {
                    self.last_word(feature, on);
                    Ok(())
                }
                None if !on || HARMLESS.contains(&name) || UNSEEN.contains(&name) => Ok(()),
                None => Err(()),
            };
        }
        own.iter().filter_map(|name| feature(name)).for_each(|feature| self.last_word(feature, on));
        Ok(())
    }

    /// Of several words about one feature compilers see the last only, with what follows from it.
    fn last_word(&mut self, feature: &'static Feature, on: bool) {
        self.changes.retain(|(earlier, _)| earlier.name != feature.name);
        self.changes.push((feature, on));
    }
}

fn feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOST: &str = "x86_64-pc-linux-gnu";

    fn needs(flags: &str) -> CpuFeatures {
        match Needed::of(CHOST, [flags], []) {
            Needed::Features(features) => features,
            Needed::Unknown { option } => panic!("{flags}: {option} is unknown"),
        }
    }

    fn unknown(chost: &str, flags: &str) -> String {
        match Needed::of(chost, [flags], []) {
            Needed::Unknown { option } => option,
            Needed::Features(features) => panic!("{flags}: {features}"),
        }
    }

    #[test]
    fn every_name_of_the_tables_is_explained_by_them() {
        for feature in FEATURES {
            for implied in feature.implies.split_ascii_whitespace() {
                assert!(super::feature(implied).is_some(), "{} implies {implied}", feature.name);
            }
            assert!(!HARMLESS.contains(&feature.name) && !UNSEEN.contains(&feature.name), "{}", feature.name);
            assert_eq!(FEATURES.iter().filter(|other| other.name == feature.name).count(), 1, "{}", feature.name);
        }
        for march in MARCHES {
            assert!(march.of.is_none_or(|base| CpuFeatures::of_march(base).is_some()), "{:?}", march.names);
            for name in march.more.split_ascii_whitespace() {
                assert!(super::feature(name).is_some() || UNSEEN.contains(&name), "{:?} has {name}", march.names);
            }
            for name in march.names {
                assert_eq!(MARCHES.iter().filter(|other| other.names.contains(name)).count(), 1, "{name}");
            }
        }
    }

    #[test]
    fn levels_and_processors_are_ordered_as_they_are_sold() {
        for (march, level) in [
            ("x86-64", 1),
            ("k8", 1),
            ("core2", 1),
            ("x86-64-v2", 2),
            ("nehalem", 2),
            ("sandybridge", 2),
            ("bdver1", 2),
            ("x86-64-v3", 3),
            ("haswell", 3),
            ("skylake", 3),
            ("znver1", 3),
            ("znver3", 3),
            ("alderlake", 3),
            ("x86-64-v4", 4),
            ("skylake-avx512", 4),
            ("icelake-client", 4),
            ("znver4", 4),
            ("znver5", 4),
            ("sapphirerapids", 4),
        ] {
            assert_eq!(needs(&format!("-O2 -march={march} -pipe")).level(), Some(level), "{march}");
        }
        for (older, newer) in [
            ("x86-64", "x86-64-v2"),
            ("x86-64-v2", "x86-64-v3"),
            ("x86-64-v3", "x86-64-v4"),
            ("nehalem", "haswell"),
            ("haswell", "skylake"),
            ("skylake", "cascadelake"),
            ("znver2", "znver3"),
            ("znver4", "znver5"),
            ("tremont", "alderlake"),
        ] {
            let (older, newer) = (needs(&format!("-march={older}")), needs(&format!("-march={newer}")));
            assert_eq!(older.missing_in(&newer), Vec::<&str>::new());
            assert_ne!(newer.missing_in(&older), Vec::<&str>::new());
        }
    }

    #[test]
    fn the_last_march_counts_and_what_is_added_and_taken_away_after_it() {
        assert_eq!(needs("-march=haswell -march=x86-64"), needs(""));
        assert_eq!(needs("-mno-avx -march=haswell"), needs("-march=haswell -mno-avx"));
        assert!(!needs("-march=haswell -mno-avx").has("avx2"), "avx2 builds on avx");
        assert!(needs("-mavx2").has("sse4.2") && needs("-mavx2").has("ssse3"));
        // gcc -mxop -mno-xop -dM -E defines nothing, not even __AVX__.
        assert_eq!(needs("-mxop -mno-xop"), needs(""));
        assert!(needs("-mno-avx2 -mavx2").has("avx2") && !needs("-mavx2 -mno-avx2").has("avx2"));
        assert!(
            needs("-mabm").has("lzcnt") && needs("-msse4").has("sse4.2") && !needs("-msse4 -mno-sse4").has("sse4.1")
        );
        for nothing in [
            "-O2 -pipe -g",
            "-mtune=skylake",
            "-mcpu=skylake",
            "-mcmodel=large -m64 -mno-red-zone -mfpmath=sse -mstackrealign",
        ] {
            assert_eq!(needs(nothing), needs(""), "{nothing}");
        }
    }

    #[test]
    fn native_is_read_in_the_form_that_the_recipe_gives_it() {
        let gcc = "-O2 -march=skylake -mmmx -mpopcnt -msse -mavx2 -mno-sse4a -mno-fma4 -mno-avx512f -msgx -mno-hle -mrdseed \
                   --param=l1-cache-size=32 -mtune=skylake -mshstk";
        assert_eq!(needs(gcc), needs("-march=skylake"));
        let clang = "-target-cpu=skylake -target-feature=+avx2 -target-feature=-avx512f -target-feature=+cmov -tune-cpu=skylake";
        assert_eq!(needs(clang), needs("-march=skylake"));
        assert_eq!(needs("-C target-cpu=-march=skylake,-mavx2,-mtune=skylake -Copt-level=3"), needs("-march=skylake"));
        assert_eq!(
            needs("-Ctarget-cpu=x86-64-v3 -C target-feature=+crt-static,-fma"),
            needs("-march=x86-64-v3 -mno-fma")
        );
        assert_eq!(needs("GOAMD64=v3"), needs("-march=x86-64-v3"));
        assert_eq!(needs("GOAMD64=v1"), needs(""));
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_nothing() {
        assert_eq!(unknown(CHOST, "-O2 -march=native"), "-march=native");
        assert_eq!(unknown(CHOST, "-march=znver99"), "-march=znver99");
        assert_eq!(unknown(CHOST, "-mavx1024"), "-mavx1024");
        assert_eq!(unknown(CHOST, "-C target-cpu=native"), "target-cpu=native");
        assert_eq!(unknown("aarch64-unknown-linux-gnu", "-mcpu=cortex-a72"), "-mcpu=cortex-a72");
        assert_eq!(unknown("riscv64-unknown-linux-gnu", "-march=rv64gcv"), "-march=rv64gcv");
        assert!(unknown(CHOST, &"-O2 ".repeat(FLAGS_BYTES_MAX)).contains("without end"));
        assert!(matches!(
            Needed::of("aarch64-unknown-linux-gnu", ["-O2 -march=armv8-a -mtune=cortex-a72"], []),
            Needed::Features(_)
        ));
        assert_eq!(needs("-mno-avx1024"), needs(""), "what is unknown is not needed when it is off");
    }

    #[test]
    fn use_flags_of_the_processor_are_needed_and_others_are_not() {
        let flags =
            ["cpu_flags_x86_avx2", "cpu_flags_x86_sse4_2", "ssl", "cpu_flags_x86_padlock", "cpu_flags_x86_fma3"];
        let Needed::Features(features) = Needed::of(CHOST, ["-O2"], flags) else { panic!("they are known") };
        assert!(features.has("avx2") && features.has("fma") && !features.has("ssl"));
    }

    #[test]
    fn a_processor_is_what_linux_says_of_it() {
        let text = "processor\t: 0\nmodel name\t: X flags : avx512f\nflags\t\t: fpu mmx fxsr sse sse2 pni ssse3 cx16 sse4_1 \
                    sse4_2 popcnt lahf_lm strange\nbugs\t: avx2\n\nprocessor\t: 1\nflags\t: avx2\n";
        let machine = CpuFeatures::from_cpuinfo(text);
        assert_eq!(machine.level(), Some(2));
        assert_eq!(Needed::of(CHOST, ["-march=x86-64-v2"], []).missing_in(&machine), None);
        let v3 = Needed::of(CHOST, ["-march=x86-64-v3"], []);
        assert_eq!(v3.missing_in(&machine).as_deref(), Some("avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"));
        assert_eq!(Needed::of(CHOST, ["-march=native"], []).missing_in(&machine).as_deref(), Some("-march=native"));
        assert_eq!(CpuFeatures::from_cpuinfo("").level(), None);
    }
}
