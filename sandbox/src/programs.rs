//! The system's programs that a sandbox is made with, found once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where each program is.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) bwrap: PathBuf,
    pub(crate) unshare: PathBuf,
    pub(crate) setpriv: PathBuf,
    pub(crate) nice: PathBuf,
    pub(crate) shell: PathBuf,
}

/// Where system programs are, also for a user whose `PATH` does not lead there.
pub(crate) const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin";

/// A program that is not on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{program} is not installed: install {package}")]
pub struct MissingProgram {
    /// Its name.
    pub program: &'static str,
    /// The packages it comes with.
    pub package: &'static str,
}

const UTIL_LINUX: &str = "sys-apps/util-linux (Debian: util-linux)";

impl Programs {
    pub(crate) fn find(path: &OsStr) -> Result<Self, MissingProgram> {
        let find = |program, package| look(program, path).ok_or(MissingProgram { program, package });
        Ok(Self {
            bwrap: find("bwrap", "sys-apps/bubblewrap (Debian: bubblewrap)")?,
            unshare: find("unshare", UTIL_LINUX)?,
            setpriv: find("setpriv", UTIL_LINUX)?,
            nice: find("nice", "sys-apps/coreutils (Debian: coreutils)")?,
            shell: find("sh", "app-shells/bash (Debian: dash)")?,
        })
    }
}

/// A program by name, in the directories of `path`, else in those of the system.
pub(crate) fn look(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(std::env::split_paths(SYSTEM_PATH))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_directory_of_the_path_is_not_looked_in() {
        assert_eq!(look("sh-that-is-nowhere", OsStr::new(".:/")), None);
        assert!(look("sh", OsStr::new("")).is_some_and(|file| file.is_absolute()));
    }
}
