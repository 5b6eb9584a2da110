//! `/proc`: a sandbox has one of its own, and the kernel allows that to a user namespace only where the one that is there
//! already is seen whole (`mount_too_revealing` in the kernel's `fs/namespace.c`). Containers cover parts of it.

use std::path::PathBuf;

/// What lies over parts of this process' `/proc`. Empty where it is seen whole, or is not to be read at all.
pub(crate) fn covered() -> Vec<PathBuf> {
    std::fs::read_to_string("/proc/self/mountinfo").map(|mounts| below(&mounts)).unwrap_or_default()
}

/// The mounts below `/proc` that hide something: over a directory that is always empty there is nothing to hide.
fn below(mounts: &str) -> Vec<PathBuf> {
    const ALWAYS_EMPTY: &str = "/proc/sys/fs/binfmt_misc";
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut places: Vec<PathBuf> =
        places.filter(|place| place.starts_with("/proc/") && *place != ALWAYS_EMPTY).map(PathBuf::from).collect();
    places.sort();
    places.dedup();
    places
}

/// In words.
pub(crate) fn in_words(covered: &[PathBuf]) -> String {
    match covered {
        [] => "the kernel forbids it here".to_owned(),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            format!("{}{more} is covered, as containers do it, and builds would see what is below", first.display())
        }
    }
}

/// What to do about it.
pub(crate) const MEND: &str = "let the container see /proc whole (Docker, Podman: --security-opt systempaths=unconfined; \
    Kubernetes: procMount: Unmasked; systemd-nspawn: SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 in its environment; \
    LXC: lxc.mount.auto = proc:rw), or run the node as the container's root with CAP_SYS_ADMIN";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hides_something_of_proc_counts() {
        let own = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                   40 22 0:40 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
                   31 23 0:28 / /processes rw - tmpfs tmpfs rw\n";
        assert_eq!(below(own), Vec::<PathBuf>::new());
        let docker = "50 22 0:21 /sys /proc/sys ro - proc proc rw\n51 22 0:6 /null /proc/kcore rw - tmpfs tmpfs rw\n\
                      52 22 0:6 /null /proc/kcore rw - tmpfs tmpfs rw\n";
        let covered = below(&format!("{own}{docker}"));
        assert_eq!(covered, [PathBuf::from("/proc/kcore"), PathBuf::from("/proc/sys")]);
        assert!(in_words(&covered).starts_with("/proc/kcore and 1 more is covered"));
    }
}
