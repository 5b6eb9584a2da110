//! The bounds that the kernel holds for each process and each user: set by `prlimit` as the first thing inside.

use crate::limits::Limits;
use rustix::process::{Resource, getrlimit};
use std::ffi::OsString;

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
    words.push("--".into());
    words
}
