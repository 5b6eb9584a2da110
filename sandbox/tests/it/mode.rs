//! The ways to make a sandbox that this user has, and a place to work in.

use sandbox::{Bind, Cancel, Identity, LogFile, LogSink, Outcome, Policy, Root, Sandbox};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory that only this user may enter, as a node's data directory is, and a sandbox of one kind.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    pub(crate) sandbox: Sandbox,
    pub(crate) policy: Policy,
    directory: tempfile::TempDir,
}

/// As root a mapped range and a single number, else only the latter.
pub(crate) fn modes() -> Vec<Mode> {
    let single = Identity::Single { uid: 250, gid: 250 };
    let mut modes = vec![Mode::new("single", single)];
    if Identity::of_this_process() != single {
        modes.push(Mode::new("mapped", Identity::of_this_process()));
    }
    modes
}

impl Mode {
    fn new(name: &'static str, identity: Identity) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).expect("permissions");
        let mut policy = Policy::new(Root::host(), identity);
        policy.limits.time = Duration::from_secs(60);
        policy.limits.disk_reserve_bytes = 0;
        policy.limits.nice = 0;
        let sandbox = Sandbox::open(OsStr::new("")).expect("bwrap and util-linux");
        let mut mode = Self { name, sandbox, policy, directory };
        let work = mode.path("work");
        std::fs::create_dir(&work).expect("a directory");
        let (uid, gid) = identity.start();
        sandbox::give(&work, identity, uid, gid).expect("an owner");
        mode.policy.binds.push(Bind::writable(work).at("/job"));
        mode
    }

    /// A path of this machine, in the private directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs a shell script and gives the outcome and its log.
    pub(crate) async fn shell(&self, script: &str) -> (Outcome, String) {
        let log = self.path("log");
        let sink = LogSink { file: Some(LogFile::create(&log, 1 << 20).expect("a log")), lines: None };
        let command = shell(script);
        let outcome = self.sandbox.run(&self.policy, &command, sink, Cancel::never()).await;
        (outcome.unwrap_or_else(|error| panic!("{}: {error:?}", self.name)), self.read("log"))
    }

    /// The log of a script that must succeed.
    pub(crate) async fn says(&self, script: &str) -> String {
        let (outcome, log) = self.shell(script).await;
        assert!(outcome.is_success(), "{}: {outcome:?}\n{log}", self.name);
        log
    }
}

pub(crate) fn shell(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script].map(OsString::from).to_vec()
}

/// Processes of this machine that have `marker` in their arguments.
pub(crate) fn survivors(marker: &str) -> Vec<PathBuf> {
    let has_marker = |process: &Path| {
        std::fs::read(process.join("cmdline")).is_ok_and(|words| String::from_utf8_lossy(&words).contains(marker))
    };
    let processes = std::fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    processes.filter(|process| !process.ends_with(std::process::id().to_string()) && has_marker(process)).collect()
}
