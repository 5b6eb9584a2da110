//! The arguments of bwrap, from what is seen and the policy. Pure: the same input gives the same words.

use crate::policy::{CAPABILITIES, Identity, Policy};
use crate::view::{Entry, Source, Text, View};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Descriptors that bwrap finds open. One digit each, as the shell of [`crate::stage`] names some of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors;

impl Descriptors {
    /// The daemon gives its leave here; it is at its end when the daemon is gone.
    pub(crate) const GATE: i32 = 3;
    /// bwrap tells here how far it is.
    pub(crate) const STATUS: i32 = 4;
    pub(crate) const SECCOMP: i32 = 5;
    pub(crate) const PASSWD: i32 = 6;
    pub(crate) const GROUP: i32 = 7;
    pub(crate) const HOSTS: i32 = 8;
    /// Another one of [`Self::STATUS`], which bwrap leaves open: here the last program before the command tells that
    /// it is there.
    pub(crate) const STARTED: i32 = 9;
    /// The first of as many empty files as the view has.
    pub(crate) const EMPTY: i32 = 10;
}

/// What a sandbox begins with: it waits for the daemon's leave and never starts the command without it. The command gets
/// none of the descriptors, and not the daemon's way to make files that others may not read.
pub(crate) const INNER: &str =
    r#"umask 022; echo started >&9; read -r go <&3 && [ "$go" = go ] || exit 125; exec 3<&- 9>&-; exec "$@""#;

/// All arguments, up to and with the `--` before the command.
pub(crate) fn arguments(view: &View, policy: &Policy, staging: &Path) -> Vec<OsString> {
    let mut words = Words::default();
    match policy.identity {
        Identity::Mapped { .. } => {}
        Identity::Single { uid, gid } => {
            words.all(["--unshare-user", "--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
    }
    words.all(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
    words.all(["--hostname", &policy.hostname, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
    if matches!(policy.identity, Identity::Mapped { .. }) {
        for capability in CAPABILITIES {
            words.all(["--cap-add", capability]);
        }
    }
    words.all(["--proc", "/proc", "--dev", "/dev"]);
    let mut empty = Descriptors::EMPTY;
    for entry in &view.entries {
        words.entry(entry, staging, &mut empty);
    }
    words.parents(&policy.directory.join("x"));
    words.all(["--remount-ro", "/dev", "--remount-ro", "/"]);
    words.all(["--chdir"]).path(&policy.directory).all(["--clearenv"]);
    if matches!(policy.identity, Identity::Single { .. }) {
        // There is one number to give files to: fakeroot shall only remember owners, and not try.
        words.all(["--setenv", "FAKEROOTDONTTRYCHOWN", "1"]);
    }
    for (name, value) in &policy.environment {
        words.list.extend(["--setenv".into(), name.clone(), value.clone()]);
    }
    words.all(["--seccomp", &Descriptors::SECCOMP.to_string(), "--json-status-fd", &Descriptors::STATUS.to_string()]);
    words.all(["--", "/bin/sh", "-c", INNER, "sh"]);
    words.list
}

#[derive(Default)]
struct Words {
    list: Vec<OsString>,
    made: BTreeSet<PathBuf>,
}

impl Words {
    fn all<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.list.extend(words.into_iter().map(OsString::from));
        self
    }

    fn path(&mut self, path: &Path) -> &mut Self {
        self.list.push(path.into());
        self
    }

    /// Parents are made with mode 0755: bwrap alone would make them so that only their owner can go through. Those that
    /// are there, in a bind, are left as they are.
    fn parents(&mut self, at: &Path) {
        let mut parents: Vec<&Path> = at.ancestors().skip(1).filter(|parent| parent.parent().is_some()).collect();
        parents.reverse();
        for parent in parents {
            let is_kernels = parent.starts_with("/proc") || parent.starts_with("/dev");
            if !is_kernels && self.made.insert(parent.to_path_buf()) {
                self.all(["--perms", "0755", "--dir"]).path(parent);
            }
        }
    }

    /// What was made at or below a path is out of sight when something is mounted there.
    fn cover(&mut self, at: &Path) {
        self.made.retain(|made| made == at || !made.starts_with(at));
        self.made.insert(at.to_path_buf());
    }

    fn entry(&mut self, entry: &Entry, staging: &Path, empty: &mut i32) {
        match entry {
            Entry::Symlink { to, at } => {
                self.parents(at);
                self.all(["--symlink"]).path(to).path(at);
            }
            Entry::Bind { source, at, writable } => {
                self.parents(at);
                self.cover(at);
                self.all([if *writable { "--bind" } else { "--ro-bind" }]);
                match source {
                    Source::Outside(path) => self.path(path),
                    Source::Staged(below) => self.path(&staging.join(below)),
                };
                self.path(at);
            }
            Entry::Scratch { at, size_bytes, mode } => {
                self.parents(at);
                self.cover(at);
                self.all(["--perms", &format!("{mode:04o}"), "--size", &size_bytes.to_string(), "--tmpfs"]).path(at);
            }
            Entry::Hidden { at } => {
                self.all(["--perms", "0555", "--size", "4096", "--tmpfs"]).path(at).all(["--remount-ro"]).path(at);
            }
            Entry::Text { text, at } => {
                self.parents(at);
                let descriptor = match text {
                    Text::Passwd => Descriptors::PASSWD,
                    Text::Group => Descriptors::GROUP,
                    Text::Hosts => Descriptors::HOSTS,
                    Text::Empty => {
                        *empty += 1;
                        *empty - 1
                    }
                };
                self.all(["--perms", "0644", "--ro-bind-data", &descriptor.to_string()]).path(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Bind, Root, Scratch};

    fn view() -> View {
        let bind = |source, at: &str, writable| Entry::Bind { source, at: at.into(), writable };
        View {
            entries: vec![
                Entry::Symlink { to: "usr/bin".into(), at: "/bin".into() },
                bind(Source::Staged("2".into()), "/usr", false),
                bind(Source::Outside("/etc/env.d".into()), "/etc/env.d", false),
                Entry::Text { text: Text::Passwd, at: "/etc/passwd".into() },
                Entry::Scratch { at: "/var/tmp".into(), size_bytes: 4096, mode: 0o1777 },
                bind(Source::Outside("/data/jobs/1".into()), "/var/tmp/portage", true),
                bind(Source::Outside("/etc/portage".into()), "/etc/portage", false),
                Entry::Hidden { at: "/etc/portage/gnupg".into() },
                Entry::Text { text: Text::Empty, at: "/etc/portage/secret".into() },
                Entry::Text { text: Text::Empty, at: "/etc/portage/other".into() },
            ],
            staged: Vec::new(),
            ..View::default()
        }
    }

    fn policy(identity: Identity) -> Policy {
        let mut policy = Policy::new(Root::host(), identity);
        policy.binds = vec![Bind::writable("/data/jobs/1").at("/var/tmp/portage")];
        policy.scratch = vec![Scratch { target: "/var/tmp".into(), size_bytes: 4096, mode: 0o1777 }];
        policy.environment.push(("FEATURES".into(), "-sandbox \"quoted\" $HOME".into()));
        policy.directory = "/var/lib/here".into();
        policy
    }

    /// One option a line.
    fn told(policy: &Policy) -> String {
        let mut text = String::new();
        for word in arguments(&view(), policy, Path::new("/mnt")) {
            let word = word.to_string_lossy();
            text.push_str(if text.is_empty() {
                ""
            } else if word.starts_with("--") {
                "\n"
            } else {
                " "
            });
            text.push_str(&word);
        }
        text
    }

    #[test]
    fn the_words_of_a_mapped_identity() {
        insta::assert_snapshot!(told(&policy(Identity::Mapped { outer_first: 100_000, count: 65_536 })));
    }

    #[test]
    fn the_words_of_a_single_identity() {
        insta::assert_snapshot!(told(&policy(Identity::Single { uid: 250, gid: 250 })));
    }
}
