//! Whether this machine can make sandboxes: tried, not guessed, and with the mend where it cannot.

use crate::ids;
use crate::policy::Identity;
use crate::programs::{Programs, SYSTEM_PATH, look};
use crate::spawn::{Job, run};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// What it means for builds.
    pub standing: Standing,
    /// What was found; where it is not good, with the cause.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub mend: String,
}

/// What a finding means for builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As it should be.
    Good,
    /// Builds run, with something less, never with less isolation.
    Less,
    /// No build runs.
    Blocks,
}

impl Finding {
    pub(crate) fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, standing: Standing::Good, found: found.into(), mend: String::new() }
    }

    pub(crate) fn bad(
        subject: &'static str,
        standing: Standing,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { subject, standing, found: found.into(), mend: mend.into() }
    }
}

pub(crate) async fn preflight(programs: &Programs, has_cgroups: bool, identity: Identity) -> Vec<Finding> {
    let is_root = rustix::process::geteuid().is_root();
    let mut findings = vec![bwrap(programs).await];
    findings.push(namespaces(programs, identity, is_root).await);
    findings.push(overlay(programs, is_root).await);
    findings.push(numbers(identity, is_root));
    if matches!(identity, Identity::Single { .. }) {
        findings.push(match look("fakeroot", OsStr::new("/usr/bin")) {
            Some(_) => Finding::good("fakeroot", "it is there"),
            None => Finding::bad(
                "fakeroot",
                Standing::Blocks,
                "without fakeroot the files of a package built by an ordinary user would belong to that user",
                "install sys-apps/fakeroot (Debian: fakeroot), or run the node as root",
            ),
        });
    }
    findings.push(cgroups(has_cgroups));
    findings
}

/// Whose numbers builds have.
pub(crate) fn numbers(identity: Identity, is_root: bool) -> Finding {
    match identity {
        Identity::Mapped { outer_first, count } if is_root => {
            let last = outer_first.saturating_add(count).saturating_sub(1);
            apart(&format!("builds have the numbers {outer_first} to {last}"), ids::met(outer_first, count))
        }
        Identity::Mapped { .. } => Finding::bad(
            "user numbers",
            Standing::Blocks,
            "a range of user numbers can only be given by root, and the node is not",
            "run the node as root, or let it build as a single user",
        ),
        Identity::Single { .. } => Finding::good("user numbers", "builds have one number, owners are kept by fakeroot"),
    }
}

/// Whether the numbers of builds are nobody else's: who has one of them can change what is built and signed here.
fn apart(have: &str, met: Option<ids::Range>) -> Finding {
    match met {
        None => Finding::good("user numbers", format!("{have}, which nobody else has")),
        Some(range) => Finding::bad(
            "user numbers",
            if range.is_given() { Standing::Blocks } else { Standing::Less },
            format!("{have}, and somebody else has or may get some of them: {range}"),
            "take that range out of there, or restart the node, which takes another one then if there is one",
        ),
    }
}

/// Whether builds have control groups.
pub(crate) fn cgroups(has_cgroups: bool) -> Finding {
    if has_cgroups {
        return Finding::good("cgroups", "every build gets its own cgroup");
    }
    let why = match crate::cgroup::CgroupBase::of_this_process() {
        Ok(_) => "they were not there when the node started".to_owned(),
        Err(error) => error.to_string(),
    };
    Finding::bad(
        "cgroups",
        Standing::Less,
        format!("{why}; memory and processes are bounded by rlimits and by looking, processor shares are not"),
        "use cgroup v2 alone (cgroup_no_v1=all) and delegate a group to the node, as the start files do: systemd Delegate=, OpenRC rc_cgroup_mode=unified",
    )
}

pub(crate) async fn bwrap(programs: &Programs) -> Finding {
    let said = probe(&programs.bwrap, &["--version"]).await;
    match said.as_deref().ok().and_then(version) {
        Some(version) if version >= (0, 8) => Finding::good("bubblewrap", said.unwrap_or_default()),
        Some(_) => Finding::bad(
            "bubblewrap",
            Standing::Blocks,
            format!("{} is too old: 0.8.0 is the first that bounds a directory in memory", said.unwrap_or_default()),
            "upgrade sys-apps/bubblewrap (Debian: bubblewrap)",
        ),
        None => Finding::bad(
            "bubblewrap",
            Standing::Blocks,
            format!("it does not say its version: {}", said.unwrap_or_else(|error| error)),
            "install sys-apps/bubblewrap (Debian: bubblewrap) anew",
        ),
    }
}

fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("bubblewrap ")?.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

async fn namespaces(programs: &Programs, identity: Identity, is_root: bool) -> Finding {
    let mut words = vec!["--user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts"];
    if matches!(identity, Identity::Single { .. }) {
        words.push("--map-root-user");
    }
    words.extend(["--", "true"]);
    match probe(&programs.unshare, &words).await {
        Ok(_) => Finding::good("namespaces", "user, mount, process and network namespaces can be made"),
        Err(error) => {
            let (cause, mend) = namespace_cause(Path::new("/proc/sys"), is_root);
            Finding::bad("namespaces", Standing::Blocks, format!("{error}: {cause}"), mend)
        }
    }
}

/// What keeps namespaces from being made, by the kernel's own settings below `settings` (`/proc/sys`).
pub(crate) fn namespace_cause(settings: &Path, is_root: bool) -> (&'static str, &'static str) {
    let is =
        |file: &str, value: &str| std::fs::read_to_string(settings.join(file)).is_ok_and(|text| text.trim() == value);
    if !settings.join("user/max_user_namespaces").exists() {
        return (
            "this kernel has no user namespaces",
            "build a kernel with CONFIG_USER_NS=y, CONFIG_PID_NS=y and CONFIG_NET_NS=y",
        );
    }
    if is("user/max_user_namespaces", "0") {
        return (
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=10000, and write it to /etc/sysctl.d",
        );
    }
    if !is_root && is("kernel/unprivileged_userns_clone", "0") {
        return (
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1, and write it to /etc/sysctl.d; or run the node as root",
        );
    }
    if !is_root && is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return (
            "AppArmor keeps ordinary users from user namespaces",
            "add an AppArmor profile with `userns,` for the node, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; or run the node as root",
        );
    }
    (
        "something around the node forbids it: a container, the unit of a service manager, a seccomp filter, or a security module",
        "let the container make namespaces and mounts, or run the node outside of it; under systemd, take RestrictNamespaces and SystemCallFilter out of the unit (systemctl cat peer)",
    )
}

async fn overlay(programs: &Programs, is_root: bool) -> Finding {
    let Some(place) = ["/mnt", "/media", "/srv", "/home", "/boot"].into_iter().find(|place| Path::new(place).is_dir())
    else {
        return Finding::bad(
            "overlay",
            Standing::Blocks,
            "there is none of /mnt, /media, /srv, /home and /boot",
            "make the directory /mnt; nothing is put there",
        );
    };
    let script =
        "set -e; mount -t tmpfs tmpfs \"$1\"; cd \"$1\"; mkdir a b c; mount -t overlay -o ro,lowerdir=a:b overlay c";
    let mut words = vec!["--mount", "--propagation", "private"];
    if !is_root {
        words.extend(["--user", "--map-root-user"]);
    }
    words.extend(["--", "/bin/sh", "-c", script, "sh", place]);
    match probe(&programs.unshare, &words).await {
        Ok(_) => Finding::good("overlay", "build dependencies can be laid over the root"),
        Err(error) => Finding::bad(
            "overlay",
            Standing::Less,
            format!("{error}; packages whose build dependencies are not installed on the root cannot be built"),
            if is_root {
                "load the module overlay, or build a kernel with CONFIG_OVERLAY_FS"
            } else {
                "load the module overlay, or build a kernel (5.11 or newer) with CONFIG_OVERLAY_FS; or run the node as root"
            },
        ),
    }
}

/// What a program says, or what it complains of.
async fn probe(program: &Path, words: &[&str]) -> Result<String, String> {
    let job = Job {
        program: program.into(),
        arguments: words.iter().map(OsString::from).collect(),
        environment: vec![("PATH".into(), SYSTEM_PATH.into()), ("LC_ALL".into(), "C".into())],
        input: Vec::new(),
        output_max_bytes: 4096,
        deadline: Duration::from_secs(20),
    };
    match run(job).await {
        Ok(ended) if ended.code == Some(0) => Ok(String::from_utf8_lossy(&ended.output).trim().to_owned()),
        Ok(ended) => Err(ended.errors.trim().replace('\n', "; ")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;

    #[test]
    fn numbers_that_somebody_else_has_are_refused() {
        let found = |is_given| apart("builds have some", Some(ids::Range::of("ada", is_given)));
        assert_eq!((found(true).standing, found(false).standing), (Standing::Blocks, Standing::Less));
        assert!(found(true).found.contains("ada") && !found(true).mend.is_empty());
        assert_eq!(apart("builds have some", None).standing, Standing::Good);
    }

    #[test]
    fn a_version_is_two_numbers_at_least() {
        assert_eq!(version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert_eq!(version("bubblewrap 0.11"), Some((0, 11)));
        assert_eq!(version("bwrap"), None);
    }

    #[test]
    fn each_setting_of_the_kernel_has_its_own_mend() {
        let directory = tempfile::tempdir().unwrap();
        let set = |file: &str, value: &str| {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        };
        let cause = |is_root| namespace_cause(directory.path(), is_root).0;
        assert!(cause(false).contains("no user namespaces"));
        set("user/max_user_namespaces", "0\n");
        assert!(cause(true).contains("max_user_namespaces"));
        set("user/max_user_namespaces", "9999\n");
        set("kernel/unprivileged_userns_clone", "0\n");
        assert!(cause(false).contains("unprivileged_userns_clone"));
        assert!(cause(true).contains("something around"));
        set("kernel/unprivileged_userns_clone", "1\n");
        set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        assert!(cause(false).contains("AppArmor"));
    }

    #[tokio::test]
    async fn every_finding_that_is_not_good_has_a_mend() {
        let programs = Programs::find(OsStr::new("/usr/bin:/bin")).unwrap();
        for identity in [Identity::of_this_process(), Identity::Single { uid: 250, gid: 250 }] {
            for finding in preflight(&programs, false, identity).await {
                assert_eq!(finding.standing == Standing::Good, finding.mend.is_empty(), "{finding:?}");
            }
        }
    }
}
