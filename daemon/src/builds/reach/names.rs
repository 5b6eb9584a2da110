//! The names below `/etc/portage` that Portage reads, and how.

use std::ffi::OsStr;
use std::path::Path;

/// What Portage reads under a name of `/etc/portage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files of lines.
    Lines,
    /// Patches below directories.
    Patches,
    /// Everything below.
    Tree,
    /// A profile: everything below, and its parents.
    Profile,
}

/// The names of `/etc/portage` that Portage reads (portage(5)); besides `package.*` and `use.*`.
const NAMES: [(&str, Kind); 18] = [
    ("arch.list", Kind::Lines),
    ("bashrc", Kind::Tree),
    ("bashrc.d", Kind::Tree),
    ("categories", Kind::Lines),
    ("color.map", Kind::Lines),
    ("env", Kind::Tree),
    ("license_groups", Kind::Lines),
    ("make.conf", Kind::Lines),
    ("make.profile", Kind::Profile),
    ("mirrors", Kind::Lines),
    ("modules", Kind::Lines),
    ("patches", Kind::Patches),
    ("profile", Kind::Profile),
    ("repos.conf", Kind::Lines),
    ("savedconfig", Kind::Tree),
    ("sets", Kind::Lines),
    ("sets.conf", Kind::Lines),
    ("virtuals", Kind::Lines),
];

/// What Portage reads under a name, if it reads anything.
pub(super) fn kind_of(name: &OsStr) -> Option<Kind> {
    let name = name.to_str()?;
    if name.starts_with("package.") || name.starts_with("use.") {
        return Some(Kind::Lines);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// Whether Portage looks at an entry of a directory: hidden ones, backups and what version control keeps are passed over.
pub(super) fn is_looked_at(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !name.ends_with('~') && !["CVS", "RCS", "SCCS"].contains(&name.as_ref())
}

/// Whether eapply_user takes it.
pub(super) fn is_patch(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "patch" || extension == "diff")
}
