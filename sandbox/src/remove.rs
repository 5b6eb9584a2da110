//! Directories that a sandbox has written: given to it before, removed after, whatever it made of them.

use crate::policy::Identity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use std::ffi::{CStr, CString};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::Path;

/// Gives a directory or file, not what is in it, to a user and group of the sandbox.
///
/// # Errors
/// When the identity has no such number, or the owner cannot be changed.
pub fn give(path: &Path, identity: Identity, uid: u32, gid: u32) -> Result<()> {
    match identity {
        Identity::Single { .. } => Ok(()),
        Identity::Mapped { .. } => {
            let number = |inner| identity.outer(inner).ok_or_else(|| Error::from(ErrorKind::InvalidInput));
            chown(path, Some(number(uid)?), Some(number(gid)?))
        }
    }
}

/// Makes a new layer: a directory with the links that the root has at its top (`lib64` to `usr/lib64`, where it has
/// them), so that what is merged into it lands where it is seen.
///
/// # Errors
/// When the directory is there already or cannot be made.
pub fn prepare_layer(root: &crate::policy::Root, layer: &Path) -> Result<()> {
    std::fs::create_dir(layer)?;
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        match std::fs::read_link(root.path().join(name)) {
            Ok(to) => {
                if let Some(parent) = layer.join(name).parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::os::unix::fs::symlink(to, layer.join(name))?;
            }
            Err(_no_link) => {}
        }
    }
    Ok(())
}

/// Names read before they are removed: reading goes on anew afterwards.
const BATCH: usize = 1024;
/// So many directories are open at one time; what is deeper is moved up.
const DEPTH: usize = 64;

/// Removes a directory, or file, and all that is in it. No link is followed, directories that may not be entered are
/// entered, and depth costs neither stack nor descriptors: what is too deep is moved up first.
///
/// No process may be at work in it any more. Blocking, and as long as the tree is large.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    let about = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(about.st_mode) != FileType::Directory {
        return Ok(rustix::fs::unlinkat(CWD, path, AtFlags::empty())?);
    }
    let top = enter(CWD, &path_to_c(path)?)?;
    let mut moved = 0;
    // Directories that are being emptied, each in the one before it, with what is known to be in them.
    let mut open: Vec<Open> = Vec::new();
    let mut of_top = names(&top)?;
    loop {
        let is_deepest = open.len() >= DEPTH;
        let (directory, left) = open.last_mut().map_or((&top, &mut of_top), |open| (&open.directory, &mut open.left));
        if left.is_empty() {
            *left = names(directory)?;
        }
        match left.pop() {
            Some((name, false)) => rustix::fs::unlinkat(directory, &name, AtFlags::empty())?,
            Some((name, true)) if is_deepest => move_up(directory, &name, &top, &mut moved)?,
            Some((name, true)) => {
                let directory = enter(directory, &name)?;
                open.push(Open { directory, name, left: Vec::new() });
            }
            None => {
                let Some(emptied) = open.pop() else { break };
                let parent = open.last().map_or(&top, |open| &open.directory);
                rustix::fs::unlinkat(parent, &emptied.name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

struct Open {
    directory: OwnedFd,
    name: CString,
    left: Vec<(CString, bool)>,
}

/// Moves a directory to `top` under a name that nothing there has.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    use rustix::io::Errno;
    // A directory can only be moved by who may write it: its `..` changes.
    rustix::fs::chmodat(from, name, Mode::RWXU, AtFlags::empty())?;
    loop {
        *moved += 1;
        match rustix::fs::renameat(from, name, top, format!(".removed-{moved}")) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            other => return Ok(other?),
        }
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let about = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        names.push((name.to_owned(), FileType::from_raw_mode(about.st_mode) == FileType::Directory));
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

/// Opens a directory, whatever its permissions say; a link in its place is an error.
fn enter(at: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let about = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
    if is_directory && about.st_mode & 0o700 != 0o700 {
        rustix::fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn path_to_c(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Error::from(ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, gone) = (directory.path().join("kept"), directory.path().join("gone"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        std::fs::create_dir(&gone).unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        symlink(kept.join("file"), gone.join("file")).unwrap();
        remove_tree(&gone).unwrap();
        assert!(!gone.exists() && kept.join("file").exists());
        symlink(&kept, &gone).unwrap();
        remove_tree(&gone).unwrap();
        assert!(kept.join("file").exists());
    }

    #[test]
    fn directories_that_nobody_may_enter_go_too() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        std::fs::create_dir_all(top.join("a/b/c")).unwrap();
        std::fs::write(top.join("a/b/file"), "x").unwrap();
        for path in ["a/b/c", "a/b", "a", "."] {
            std::fs::set_permissions(top.join(path), std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn more_directories_in_each_other_than_a_path_can_name_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut at = rustix::fs::open(&top, OFlags::RDONLY, Mode::empty()).unwrap();
        for _level in 0..2_100 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        drop(at);
        // Names that moving up would like to use.
        std::fs::write(top.join(".removed-1"), "x").unwrap();
        std::fs::create_dir_all(top.join(".removed-2/x")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_layer_has_the_links_of_its_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("lib", root.join("usr/lib64")).unwrap();
        let layer = directory.path().join("layer");
        prepare_layer(&crate::policy::Root::stage(&root), &layer).unwrap();
        assert_eq!(std::fs::read_link(layer.join("lib")).unwrap(), Path::new("usr/lib"));
        assert_eq!(std::fs::read_link(layer.join("usr/lib64")).unwrap(), Path::new("lib"));
        assert!(!layer.join("bin").exists());
    }
}
