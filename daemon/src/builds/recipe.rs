//! The recipe: a canonical text of everything that may change what a build makes; its BLAKE2B-512 is the fingerprint.
//!
//! One fact a line, in a fixed order, words escaped so that no value can look like another line. Two machines with the
//! same repositories, configuration and tools write the same text, whoever's home it lies in. What is not in it, because
//! it must not change the image: paths, times, MAKEOPTS, mirrors, who builds and with what privileges.

use super::plan::Ebuild;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tree::digest::Digest;

/// The first line; a new form gets a new number, hence other fingerprints.
const HEAD: &str = "peerage recipe 1";
/// Bytes of a recipe that is sent to another machine; a usual one has some ten thousand.
pub(super) const RECIPE_BYTES_MAX: usize = 256 * 1024;

/// The text of one recipe.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipe(String);

impl Recipe {
    /// What the resolver said of one ebuild, in canonical form.
    pub(super) fn new(ebuild: &Ebuild, portage: &str) -> Self {
        let mut lines = Lines(format!("{HEAD}\n"));
        lines.add(&["cpv", &ebuild.cpv]);
        lines.add(&["slot", &ebuild.slot]);
        lines.add(&["repository", &ebuild.repo]);
        lines.add(&["eapi", &ebuild.eapi]);
        lines.add(&["portage", portage]);
        lines.add(&["profile", &ebuild.profile]);
        lines.each("tool", &ebuild.toolchain);
        lines.set("use", &ebuild.r#use);
        lines.set("iuse", &ebuild.iuse);
        lines.set("feature", &ebuild.features);
        lines.each("environment", &ebuild.environment);
        lines.add(&["ebuild", &ebuild.ebuild]);
        lines.each("eclass", &ebuild.eclasses);
        if let Some(files) = &ebuild.files {
            lines.add(&["files", files]);
        }
        lines.each("patch", &ebuild.patches);
        if let Some(savedconfig) = &ebuild.savedconfig {
            lines.add(&["savedconfig", savedconfig]);
        }
        // In the order in which they are sourced.
        ebuild.bashrc.iter().for_each(|digest| lines.add(&["bashrc", digest]));
        for file in &ebuild.distfiles {
            let size = file.size.unwrap_or_default().to_string();
            lines.add(&["distfile", &file.name, &size, file.blake2b.as_deref().unwrap_or_default()]);
        }
        lines.set("dependency", &ebuild.dependencies);
        // What is not known is the same on no other machine.
        if let Some(trouble) = &ebuild.trouble {
            lines.add(&["trouble", trouble]);
        }
        Self(lines.0)
    }

    /// One that another node wrote, as it says.
    pub(super) fn of_text(text: String) -> Self {
        Self(text)
    }

    /// What the recipe is known by among nodes.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// The value of a fact of the form `KIND NAME VALUE` (`environment CFLAGS`).
    #[must_use]
    pub fn value(&self, kind: &str, name: &str) -> Option<String> {
        let of = |line: &str| {
            line.strip_prefix(kind)?.strip_prefix(' ')?.strip_prefix(name)?.strip_prefix(' ').map(unescape)
        };
        self.0.lines().find_map(of)
    }

    /// The names in facts of the form `KIND NAME VALUE`.
    pub(super) fn names(&self, kind: &str) -> Vec<String> {
        let of = |line: &str| line.strip_prefix(kind)?.strip_prefix(' ')?.split(' ').next().map(unescape);
        self.0.lines().filter_map(of).collect()
    }

    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipe({})", self.fingerprint().short())
    }
}

struct Lines(String);

impl Lines {
    /// A line of words. A space within a word is kept when the word is the last of its line.
    fn add(&mut self, words: &[&str]) {
        let escaped: Vec<String> = words.iter().map(|word| escape(word)).collect();
        let _infallible = writeln!(self.0, "{}", escaped.join(" "));
    }

    fn each(&mut self, kind: &str, values: &BTreeMap<String, String>) {
        values.iter().for_each(|(name, value)| self.add(&[kind, name, value]));
    }

    /// A line for each member, sorted.
    fn set(&mut self, kind: &str, members: &[String]) {
        let mut sorted: Vec<&String> = members.iter().collect();
        sorted.sort_unstable();
        sorted.iter().for_each(|member| self.add(&[kind, member]));
    }
}

/// Backslash, line feed and space cannot be mistaken for structure.
fn escape(word: &str) -> String {
    word.replace('\\', "\\\\").replace('\n', "\\n").replace(' ', "\\s")
}

/// What [`escape`] was given.
fn unescape(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word.chars();
    while let Some(character) = rest.next() {
        text.push(match character {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('s') => ' ',
                other => other.unwrap_or('\\'),
            },
            other => other,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::plan::EbuildDistfile;
    use super::*;

    /// What is changed, and how.
    type Change = (&'static str, fn(&mut Ebuild));

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn ebuild() -> Ebuild {
        Ebuild {
            cpv: "app-misc/one-1.0".into(),
            slot: "0/0".into(),
            repo: "gentoo".into(),
            eapi: "8".into(),
            license: "MIT".into(),
            r#use: vec!["color".into()],
            iuse: vec!["color".into(), "debug".into()],
            ebuild: "e0".into(),
            eclasses: map(&[("cargo", "c0")]),
            files: Some("f0".into()),
            patches: map(&[("one", "p0")]),
            bashrc: vec!["b0".into()],
            profile: "gentoo:default/linux".into(),
            features: vec!["splitdebug".into()],
            toolchain: map(&[("cc", "gcc 12")]),
            environment: map(&[("CFLAGS", "-O2"), ("CHOST", "x86_64-pc-linux-gnu")]),
            distfiles: vec![EbuildDistfile { name: "one.tar".into(), size: Some(3), blake2b: Some("d0".into()) }],
            dependencies: vec!["dev-libs/two-1.0 i0".into()],
            ..Ebuild::default()
        }
    }

    fn fingerprint(ebuild: &Ebuild) -> Digest {
        Recipe::new(ebuild, "3.0.83").fingerprint()
    }

    #[test]
    fn each_input_changes_the_fingerprint() {
        let same = fingerprint(&ebuild());
        let changes: [Change; 20] = [
            ("cpv", |e| e.cpv = "app-misc/one-1.1".into()),
            ("slot", |e| e.slot = "0/1".into()),
            ("repository", |e| e.repo = "guru".into()),
            ("eapi", |e| e.eapi = "7".into()),
            ("use", |e| e.r#use.clear()),
            ("iuse", |e| e.iuse.truncate(1)),
            ("ebuild", |e| e.ebuild = "e1".into()),
            ("eclass", |e| e.eclasses = map(&[("cargo", "c1")])),
            ("files", |e| e.files = None),
            ("savedconfig", |e| e.savedconfig = Some("s0".into())),
            ("patch", |e| e.patches = map(&[("one", "p1")])),
            ("bashrc", |e| e.bashrc = vec!["b1".into()]),
            ("profile", |e| e.profile = "gentoo:other".into()),
            ("feature", |e| e.features.clear()),
            ("CFLAGS", |e| e.environment = map(&[("CFLAGS", "-O3"), ("CHOST", "x86_64-pc-linux-gnu")])),
            ("CHOST", |e| e.environment = map(&[("CFLAGS", "-O2"), ("CHOST", "i686-pc-linux-gnu")])),
            ("tool", |e| e.toolchain = map(&[("cc", "gcc 13")])),
            ("distfile", |e| e.distfiles[0].blake2b = Some("d1".into())),
            ("dependency", |e| e.dependencies = vec!["dev-libs/two-1.0 i1".into()]),
            ("trouble", |e| e.trouble = Some("no compiler".into())),
        ];
        for (what, change) in changes {
            let mut changed = ebuild();
            change(&mut changed);
            assert_ne!(fingerprint(&changed), same, "{what} does not change the fingerprint");
        }
        assert_ne!(Recipe::new(&ebuild(), "3.0.84").fingerprint(), same);
    }

    #[test]
    fn the_order_of_sets_and_the_place_of_the_repository_change_nothing() {
        let mut other = ebuild();
        other.iuse.reverse();
        other.inputs = vec!["/elsewhere".into()];
        other.asked = true;
        assert_eq!(fingerprint(&other), fingerprint(&ebuild()));
    }

    #[test]
    fn a_value_is_found_again_as_it_was() {
        let mut given = ebuild();
        let flags = "-O2 -DX=\"a\\ns\" \n -march=x86-64-v3";
        given.environment = map(&[("CFLAGS", flags), ("CXXFLAGS", "-O3")]);
        let recipe = Recipe::new(&given, "3");
        assert_eq!(recipe.value("environment", "CFLAGS").as_deref(), Some(flags));
        assert_eq!((recipe.value("environment", "CFLAG"), recipe.value("slot", "CFLAGS")), (None, None));
        assert_eq!(recipe.names("environment"), ["CFLAGS", "CXXFLAGS"]);
    }

    #[test]
    fn a_value_cannot_look_like_another_line() {
        let mut forged = ebuild();
        forged.environment = map(&[("CFLAGS", "-O2\nenvironment CHOST x86_64-pc-linux-gnu")]);
        assert!(!Recipe::new(&forged, "3").text().contains("\nenvironment CHOST"));
    }
}
