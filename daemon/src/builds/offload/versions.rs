//! The versions a client has: a dependency that is installed there in another version than this machine's resolver takes is
//! taken in the client's version too, as far as the repositories here still have it.
//!
//! The recipe names what the package is built with. What was chosen here beside that is masked, and the plan made again; so
//! nothing is guessed about slots, and whether it is the client's build in the end its fingerprint says.

use crate::builds::plan::Planned;
use crate::builds::record::{DomainRecord, FileSize};
use std::collections::{BTreeMap, BTreeSet};
use tree::cpv::{Cp, Cpv};
use tree::digest::Digest;

/// Plans made for one offer: each may show a version that the one before hid.
pub(super) const ROUNDS_MAX: usize = 4;
/// Where masks of the user are, a file or a directory.
const MASK: &str = "package.mask";

/// Build dependencies of a recipe, by package.
fn dependencies(recipe: &str) -> BTreeMap<Cp, BTreeSet<Cpv>> {
    let mut found: BTreeMap<Cp, BTreeSet<Cpv>> = BTreeMap::new();
    let names = recipe.lines().filter_map(|line| line.strip_prefix("dependency ")?.split_once("\\s"));
    for cpv in names.filter_map(|(cpv, _identity)| cpv.parse::<Cpv>().ok()) {
        found.entry(cpv.cp.clone()).or_default().insert(cpv);
    }
    found
}

/// What was chosen here of packages that the client has in other versions only.
pub(super) fn not_the_clients(recipe: &str, planned: &Planned) -> BTreeSet<Cpv> {
    let theirs = dependencies(recipe);
    let ours = dependencies(planned.recipe.text()).into_values().flatten();
    ours.filter(|cpv| theirs.get(&cpv.cp).is_some_and(|versions| !versions.contains(cpv))).collect()
}

/// The domain with these versions masked besides: the record, and the content that it names anew.
pub(super) fn masking(
    mut record: DomainRecord,
    masked: &BTreeSet<Cpv>,
    content: impl Fn(&Digest) -> Option<Vec<u8>>,
) -> (DomainRecord, Option<(Digest, Vec<u8>)>) {
    if masked.is_empty() {
        return (record, None);
    }
    let own = record.files.get(MASK).and_then(|(digest, _)| content(digest));
    let place =
        if record.files.contains_key(MASK) { MASK.to_owned() } else { format!("{MASK}/versions-of-the-client") };
    let mut text = own.unwrap_or_default();
    masked.iter().for_each(|cpv| text.extend_from_slice(format!("={cpv}\n").as_bytes()));
    let digest = Digest::of(&text);
    // What this machine adds is its own affair, and some lines.
    record.files.insert(place, (digest, FileSize::default()));
    (record, Some((digest, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_recipe_by_package() {
        let recipe = "peerage recipe 1\ncpv a/b-1\ndependency dev-lang/python-3.12.1\\s00ff\ndependency \
                      dev-lang/python-3.13.0\\s00fe\ndependency dev-libs/two-1.0-r1\\sab\ndependency nonsense\n";
        let found = dependencies(recipe);
        let spelled: Vec<String> = found.values().flatten().map(ToString::to_string).collect();
        assert_eq!(spelled, ["dev-lang/python-3.12.1", "dev-lang/python-3.13.0", "dev-libs/two-1.0-r1"]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn masks_come_to_those_of_the_user_whether_in_a_file_or_a_directory() {
        let masked: BTreeSet<Cpv> = ["dev-libs/two-1.1".parse().unwrap()].into();
        let mine = b"<dev-libs/two-1\n".to_vec();
        let size = FileSize::try_from(16).unwrap();
        let file: BTreeMap<String, (Digest, FileSize)> = [(MASK.to_owned(), (Digest::of(&mine), size))].into();
        let record = DomainRecord { files: file, ..DomainRecord::default() };
        let (same, none) = masking(record.clone(), &BTreeSet::new(), |_| None);
        assert!(same == record && none.is_none());
        let (record, new) = masking(record, &masked, |digest| (*digest == Digest::of(&mine)).then(|| mine.clone()));
        let (digest, text) = new.unwrap();
        assert_eq!(text, b"<dev-libs/two-1\n=dev-libs/two-1.1\n");
        assert_eq!(record.files, [(MASK.to_owned(), (digest, FileSize::default()))].into());
        let folder: BTreeMap<String, (Digest, FileSize)> = [(format!("{MASK}/own"), (Digest::of(&mine), size))].into();
        let (record, _) = masking(DomainRecord { files: folder, ..DomainRecord::default() }, &masked, |_| None);
        assert_eq!(record.files.len(), 2);
    }
}
