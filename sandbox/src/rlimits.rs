//! The bounds that the kernel holds for each process and each user: set by `prlimit` as the first thing inside.

use crate::limits::Limits;
use rustix::process::{Resource, getrlimit};
use std::ffi::OsString;

/// Open files of a process, unless it asks for more.
const OPEN_FILES: u64 = 1024;

/// The words before a command, so that it runs within its bounds. The processes of a user are counted for the sandbox
/// alone (each user namespace has its own count since Linux 5.14); memory is that of each process, the sum is watched.
pub(crate) fn wrap(limits: &Limits) -> Vec<OsString> {
    let bounds = [
        ("nproc", Resource::Nproc, u64::from(limits.pids)),
        ("fsize", Resource::Fsize, limits.file_bytes),
        ("data", Resource::Data, limits.memory_bytes),
        ("core", Resource::Core, 0),
    ];
    let mut words: Vec<OsString> = vec!["/usr/bin/prlimit".into()];
    for (name, resource, value) in bounds {
        // Nobody may raise a bound: where this process has a lower one, that is what there is.
        let value = getrlimit(resource).maximum.map_or(value, |maximum| value.min(maximum));
        words.push(format!("--{name}={value}:{value}").into());
    }
    // As a login has it: the daemon's own number is for its transfers, and some programs try every descriptor there may be.
    let most = getrlimit(Resource::Nofile).maximum;
    let few = most.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    let most = most.map_or("unlimited".to_owned(), |most| most.to_string());
    words.push(format!("--nofile={few}:{most}").into());
    words.push("--".into());
    words
}
