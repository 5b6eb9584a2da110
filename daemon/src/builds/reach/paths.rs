//! A path as the kernel follows it, with every link on the way.

use sandbox::Link;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Links on one way: the kernel's own bound.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The links on the way, in order: where each lies, without links, and what it says.
    pub(super) links: Vec<Link>,
    /// What is there.
    pub(super) end: End,
}

/// What is at the end of a path.
#[derive(Debug)]
pub(super) enum End {
    /// This, at a path without links.
    There(PathBuf, Metadata),
    /// Nothing: the first that is not there. Links that lead round lead to nothing, too.
    Missing(PathBuf),
    /// Nobody knows: this cannot be looked at.
    Denied(PathBuf, io::Error),
}

/// Follows an absolute path.
pub(super) fn resolve(path: &Path) -> Resolved {
    let mut links = Vec::new();
    let mut ahead = reversed(path);
    let mut here = PathBuf::from("/");
    let mut about = std::fs::symlink_metadata(&here);
    while let Some(name) = ahead.pop() {
        if name == ".." {
            here.pop();
            about = std::fs::symlink_metadata(&here);
            continue;
        }
        let next = here.join(&name);
        match std::fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                let to = match std::fs::read_link(&next) {
                    Ok(to) => to,
                    Err(error) => return Resolved { links, end: End::Denied(next, error) },
                };
                if to.is_absolute() {
                    here = PathBuf::from("/");
                }
                ahead.extend(reversed(&to));
                links.push(Link { at: next.clone(), to });
                about = std::fs::symlink_metadata(&here);
                if links.len() > LINKS_MAX {
                    return Resolved { links: Vec::new(), end: End::Missing(next) };
                }
            }
            Ok(found) => (here, about) = (next, Ok(found)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Resolved { links, end: End::Missing(next) };
            }
            // A name that is too long is no name of anything.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                return Resolved { links, end: End::Missing(next) };
            }
            Err(error) => return Resolved { links, end: End::Denied(next, error) },
        }
    }
    match about {
        Ok(about) => Resolved { links, end: End::There(here, about) },
        Err(error) => Resolved { links, end: End::Denied(here, error) },
    }
}

/// The steps of a path, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;
    use std::os::unix::fs::symlink;

    /// Where the kernel says that a path leads must be where it is said to lead here, and each link must be one.
    #[test]
    fn a_path_leads_where_the_kernel_says() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for made in ["a/b/c", "d/e"] {
            std::fs::create_dir_all(top.join(made)).unwrap();
        }
        std::fs::write(top.join("a/b/c/file"), "").unwrap();
        let links: [(&str, PathBuf); 10] = [
            ("relative", "a/b".into()),
            ("absolute", top.join("a/b/c")),
            ("chain", "relative/c".into()),
            ("d/up", "../a/./b/../b/c/file".into()),
            ("d/e/through", "../up".into()),
            ("round", "round2".into()),
            ("round2", "round".into()),
            ("nothing", "a/x/y".into()),
            ("below-file", "a/b/c/file/x".into()),
            ("root", "/".into()),
        ];
        for (at, to) in &links {
            symlink(to, top.join(at)).unwrap();
        }
        for (at, _) in &links {
            for path in [top.join(at), top.join(at).join("file"), top.join(at).join("c"), top.join(at).join("../d/up")]
            {
                let resolved = resolve(&path);
                match (path.canonicalize(), &resolved.end) {
                    (Ok(real), End::There(found, _)) => assert_eq!(*found, real, "{path:?}"),
                    (Err(_), End::Missing(_)) => {}
                    (kernel, ours) => panic!("{path:?}: {kernel:?}, here {ours:?}"),
                }
                for link in &resolved.links {
                    assert_eq!(std::fs::read_link(&link.at).unwrap(), link.to, "{path:?}");
                    let parent = link.at.parent().unwrap();
                    assert_eq!(parent.canonicalize().unwrap(), parent, "{path:?}");
                }
            }
        }
    }
}
