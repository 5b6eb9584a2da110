//! A build that touches nothing: the real bwrap behind a typed policy.
//!
//! [`Sandbox`] runs a command under a [`policy::Policy`]: its own user, process, network, mount, IPC, host name and
//! cgroup namespaces, a read-only root, a system call filter, and bounds on time, memory, processes and disk. What it
//! promises and what it does not is in `docs/SANDBOX.md`. [`spawn`] is the only place of the workspace that starts
//! processes.

mod accounts;
mod argv;
mod cgroup;
mod ids;
pub mod limits;
pub mod log;
pub mod outcome;
mod output;
pub mod phase;
pub mod policy;
mod preflight;
mod proc;
mod programs;
mod remove;
mod rlimits;
mod run;
mod seccomp;
pub mod spawn;
mod stage;
mod trial;
mod usage;
mod view;
mod watch;

pub use limits::{Limit, Limits};
pub use log::{LogFile, LogLine, LogSink, LogSummary};
pub use outcome::{End, Outcome, Usage};
pub use phase::Phase;
pub use policy::{Bind, Identity, Link, Policy, Root, Scratch};
pub use preflight::{Finding, Standing};
pub use programs::MissingProgram;
pub use remove::{give, prepare_layer, remove_tree};
pub use run::{Cancel, SandboxError};
pub use view::PolicyError;

use std::ffi::{OsStr, OsString};

/// The programs that sandboxes are made with, and the cgroup they are made in.
#[derive(Clone, Debug)]
pub struct Sandbox {
    programs: programs::Programs,
    cgroups: Option<cgroup::CgroupBase>,
}

/// What a command that was captured said.
#[derive(Clone, Debug)]
pub struct Captured {
    /// How it ended. Its log is empty.
    pub outcome: Outcome,
    /// Its standard output.
    pub output: Vec<u8>,
    /// The beginning of its standard error.
    pub errors: String,
}

impl Sandbox {
    /// Finds the programs in the directories of `path` (the value of `PATH`) and of the system. Where this process is
    /// in a cgroup of its own with the needed controllers it moves into a group below it, so that sandboxes get theirs.
    ///
    /// # Errors
    /// Which program is missing, and the package it comes with.
    pub fn open(path: &OsStr) -> Result<Self, MissingProgram> {
        let cgroups = cgroup::CgroupBase::of_this_process();
        if let Err(error) = &cgroups {
            tracing::debug!(%error, "no cgroups: memory and processes are bounded by rlimits and by looking");
        }
        Ok(Self { programs: programs::Programs::find(path)?, cgroups: cgroups.ok() })
    }

    /// Whether sandboxes get cgroups.
    #[must_use]
    pub fn has_cgroups(&self) -> bool {
        self.cgroups.is_some()
    }

    /// Runs a command to its end; standard output and error go to the log as one stream. When this returns, none of its
    /// processes is left.
    ///
    /// It must be called on a thread that lives as long as the program (a runtime's worker, not a blocking thread): the
    /// kernel ends the sandbox with the thread that started it. Cancel safe: dropping the future kills everything.
    ///
    /// # Errors
    /// When the sandbox cannot be made; the command has not run then.
    pub async fn run(
        &self,
        policy: &Policy,
        command: &[OsString],
        log: LogSink,
        cancel: Cancel,
    ) -> Result<Outcome, SandboxError> {
        let output = output::Output::Log(log);
        let finished = run::run(&self.programs, self.cgroups.as_ref(), policy, command, &[], output, cancel).await?;
        Ok(finished.outcome)
    }

    /// Runs a command under the same isolation and gives what it says. More than `output_max_bytes` of standard output
    /// ends it with [`Limit::Output`]. For threads and cancelling see [`Self::run`].
    ///
    /// # Errors
    /// When the sandbox cannot be made; the command has not run then.
    pub async fn capture(
        &self,
        policy: &Policy,
        command: &[OsString],
        input: &[u8],
        output_max_bytes: u64,
        cancel: Cancel,
    ) -> Result<Captured, SandboxError> {
        let output = output::Output::Capture { max_bytes: output_max_bytes };
        let finished = run::run(&self.programs, self.cgroups.as_ref(), policy, command, input, output, cancel).await?;
        let errors = String::from_utf8_lossy(&finished.errors).into_owned();
        Ok(Captured { outcome: finished.outcome, output: finished.output, errors })
    }

    /// What of this machine sandboxes need, whether it is there, and what to do where it is not.
    pub async fn preflight(&self, identity: Identity) -> Vec<Finding> {
        preflight::preflight(&self.programs, self.has_cgroups(), identity).await
    }
}
