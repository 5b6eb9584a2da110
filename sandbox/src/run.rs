//! One command in one sandbox, from its start until nothing of it is left.

use crate::accounts::Accounts;
use crate::argv::{self, Descriptors};
use crate::cgroup::{Cgroup, CgroupBase, put};
use crate::limits::Limit;
use crate::outcome::{End, Usage};
use crate::output::{Finished, Output, Pipes, Reader};
use crate::policy::{Identity, Policy};
use crate::programs::Programs;
use crate::spawn::{Command, Group, Wiring};
use crate::usage::Meter;
use crate::view::{Entry, PolicyError, Text, View};
use crate::{ids, proc, seccomp, stage, watch};
use command_fds::FdMapping;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsString;
use std::io::{PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch as channel;

/// Why a command in a sandbox was not started, or cannot be told about. It never ran with less isolation than asked for.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The policy cannot be carried out.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A process cannot be started.
    #[error(transparent)]
    Start(#[from] crate::spawn::RunError),
    /// The sandbox could not be made.
    #[error("cannot make the sandbox: {said}")]
    Setup {
        /// What the program that failed said.
        said: String,
    },
    /// The sandbox cannot have a `/proc` of its own.
    #[error("the sandbox cannot have a /proc of its own: {}; {}", proc::in_words(covered), proc::MEND)]
    Proc {
        /// What lies over parts of `/proc` here.
        covered: Vec<PathBuf>,
    },
    /// There is no system call filter for this kind of machine.
    #[error("there is no system call filter for this kind of machine")]
    Machine,
    /// The kernel refused something.
    #[error("cannot make the sandbox: {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A user of this machine has numbers of the range that the command would have: that user could change what it writes.
    #[error(
        "the user numbers {first} to {last} of builds are somebody else's too: {whose}; restart the node, it takes others then"
    )]
    Numbers {
        /// The first of the range.
        first: u32,
        /// The last.
        last: u32,
        /// What of it somebody has, and who.
        whose: String,
    },
    /// It was cancelled before the command started.
    #[error("cancelled before it started")]
    Cancelled,
    /// Killed processes did not end, because the kernel waits for something, a disk perhaps.
    #[error("killed processes have not ended after {} s", GONE_WITHIN.as_secs())]
    StillThere,
}

/// Making a sandbox takes less; after it something hangs.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What was killed is gone after this.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// To cancel a command.
#[derive(Clone, Debug)]
pub struct Cancel(channel::Receiver<bool>);

impl Cancel {
    /// Becomes true when the command shall end; a sender that is gone never cancels.
    #[must_use]
    pub fn when(receiver: channel::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Never.
    #[must_use]
    pub fn never() -> Self {
        Self(channel::channel(false).1)
    }

    async fn cancelled(&mut self) {
        if self.0.wait_for(|is_cancelled| *is_cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs a command to its end. Cancel safe: dropping the future kills everything, without waiting until it is gone.
pub(crate) async fn run(
    programs: &Programs,
    cgroups: Option<&CgroupBase>,
    policy: &Policy,
    command: &[OsString],
    input: &[u8],
    output: Output,
    mut cancel: Cancel,
) -> Result<Finished, SandboxError> {
    let mut pipes = Pipes::open(&output).map_err(system("a pipe"))?;
    let mut sandbox = Sandboxed::start(programs, cgroups, policy, command, input, &mut pipes)?;
    let mut reader = Reader::new(output);
    let ready = tokio::select! {
        ready = sandbox.make_ready(policy) => ready,
        () = reader.read(&mut pipes.out, &mut pipes.err) => Err(sandbox.ended_early().await),
        () = cancel.cancelled() => Err(SandboxError::Cancelled),
        () = tokio::time::sleep(READY_WITHIN) => Err(SandboxError::Setup { said: "it takes too long".into() }),
    };
    if let Err(error) = ready {
        sandbox.kill();
        sandbox.gone().await?;
        reader.read(&mut pipes.out, &mut pipes.err).await;
        return Err(reader.explain(error));
    }
    let started = Instant::now();
    sandbox.let_go()?;
    let mut meter = Meter::new(policy, sandbox.first.as_ref().map(|first| first.pid), sandbox.cgroup.is_some());
    let end = {
        let deadline = tokio::time::sleep(policy.limits.time);
        tokio::select! {
            end = sandbox.end() => end,
            limit = meter.watch() => End::Limit(limit),
            () = reader.overflow(&mut pipes.out, &mut pipes.err) => End::Limit(Limit::Output),
            () = deadline => End::Limit(Limit::Time),
            () = cancel.cancelled() => End::Cancelled,
        }
    };
    if !matches!(end, End::Ended { .. }) {
        sandbox.kill();
    }
    // All writers are gone when the processes are, so that reading ends; it goes on meanwhile lest a full pipe hold one up.
    let (gone, ()) = tokio::join!(sandbox.gone(), reader.read(&mut pipes.out, &mut pipes.err));
    gone?;
    let (end, usage) = sandbox.account(end, Usage { wall: started.elapsed(), ..meter.usage() });
    Ok(reader.finish(end, usage))
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| SandboxError::System { what, source }
}

/// The first process of the sandbox's process namespace.
struct First {
    pid: i32,
    handle: AsyncFd<OwnedFd>,
}

/// What was started.
struct Sandboxed {
    group: Group,
    gate: PipeWriter,
    status: tokio::io::Lines<BufReader<pipe::Receiver>>,
    cgroup: Option<Cgroup>,
    first: Option<First>,
}

impl Sandboxed {
    fn start(
        programs: &Programs,
        cgroups: Option<&CgroupBase>,
        policy: &Policy,
        command: &[OsString],
        input: &[u8],
        pipes: &mut Pipes,
    ) -> Result<Self, SandboxError> {
        let view = View::compose(policy)?;
        let place =
            stage::place(&view).ok_or_else(|| SandboxError::Setup { said: "no staging place is free".into() })?;
        let mut bwrap = argv::arguments(&view, policy, place);
        bwrap.extend(crate::rlimits::wrap(&policy.limits));
        bwrap.extend_from_slice(command);
        let (program, arguments) = stage::chain(programs, policy.identity, policy.limits.nice, &view, place, bwrap);
        let environment =
            [("PATH", crate::programs::SYSTEM_PATH), ("LC_ALL", "C")].map(|(name, value)| (name.into(), value.into()));
        let (gate_read, gate) = std::io::pipe().map_err(system("a pipe"))?;
        let (status, status_write) = std::io::pipe().map_err(system("a pipe"))?;
        let mut descriptors = files(&view, policy)?;
        descriptors.push(FdMapping { parent_fd: gate_read.into(), child_fd: Descriptors::GATE });
        let started = status_write.try_clone().map_err(system("a pipe"))?;
        descriptors.push(FdMapping { parent_fd: status_write.into(), child_fd: Descriptors::STATUS });
        descriptors.push(FdMapping { parent_fd: started.into(), child_fd: Descriptors::STARTED });
        let stdin = memory_file("input", input).map_err(system("a file in memory"))?;
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        let (stdout, stderr) = (stdio(pipes.child_out.take()), stdio(pipes.child_err.take()));
        let status = pipe::Receiver::from_owned_fd(status.into()).map_err(system("a pipe"))?;
        let group = Group::start(
            &Command { program, arguments, environment: environment.to_vec() },
            Wiring { stdin: stdin.into(), stdout, stderr, descriptors },
        )?;
        let mut started = Self { group, gate, status: BufReader::new(status).lines(), cgroup: None, first: None };
        started.cgroup = started.join_cgroup(cgroups, policy)?;
        Ok(started)
    }

    fn leader(&self) -> i32 {
        self.group.leader().map_or(0, Pid::as_raw_pid)
    }

    fn join_cgroup(&self, cgroups: Option<&CgroupBase>, policy: &Policy) -> Result<Option<Cgroup>, SandboxError> {
        let Some(base) = cgroups else { return Ok(None) };
        let name = format!("build-{}", self.leader());
        let group = Cgroup::create(base, &name, &policy.limits).map_err(system("a cgroup"))?;
        group.add(self.leader()).map_err(system("a process in the cgroup"))?;
        Ok(Some(group))
    }

    /// Goes with the sandbox through its steps, until only the leave for the command is missing.
    async fn make_ready(&mut self, policy: &Policy) -> Result<(), SandboxError> {
        match self.status.next_line().await {
            Ok(Some(line)) if line == "ready" => {}
            _ => return Err(self.ended_early().await),
        }
        if let Identity::Mapped { outer_first, count } = policy.identity {
            if let Some(range) = ids::given(outer_first, count) {
                let last = outer_first.saturating_add(count).saturating_sub(1);
                return Err(SandboxError::Numbers { first: outer_first, last, whose: range.to_string() });
            }
            for map in ["uid_map", "gid_map"] {
                let path = format!("/proc/{}/{map}", self.leader());
                put(Path::new(&path), &format!("0 {outer_first} {count}\n"))
                    .map_err(system("a range of user numbers"))?;
            }
        }
        self.let_go()?;
        match self.status.next_line().await {
            Ok(Some(line)) if line.contains("\"child-pid\"") => {}
            Ok(Some(line)) if line == stage::NO_PROC => return Err(SandboxError::Proc { covered: proc::covered() }),
            _ => return Err(self.ended_early().await),
        }
        let pid = watch::children(self.leader()).first().copied();
        let Some((pid, typed)) = pid.and_then(|pid| Some((pid, Pid::from_raw(pid)?))) else {
            return Err(self.ended_early().await);
        };
        let handle = rustix::process::pidfd_open(typed, PidfdFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .and_then(follow)
            .map_err(system("a handle of the first process"))?;
        self.first = Some(First { pid, handle });
        match self.status.next_line().await {
            Ok(Some(line)) if line == "started" => Ok(()),
            _ => Err(self.ended_early().await),
        }
    }

    fn let_go(&mut self) -> Result<(), SandboxError> {
        self.gate.write_all(b"go\n").map_err(system("the leave to go on"))
    }

    /// What failed is told by the last words of the programs, which are read then.
    async fn ended_early(&mut self) -> SandboxError {
        let _status = tokio::time::timeout(Duration::from_secs(5), self.group.child.wait()).await;
        SandboxError::Setup { said: String::new() }
    }

    /// Its end by itself. The exit code is told before the last process is gone.
    async fn end(&mut self) -> End {
        let mut code = None;
        while let Ok(Some(line)) = self.status.next_line().await {
            code = exit_code(&line).or(code);
        }
        let status = self.group.child.wait().await.ok();
        let code = code.or_else(|| status.and_then(|status| status.code()));
        let by_signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
        End::Ended { code: code.unwrap_or_else(|| 128 + by_signal.unwrap_or(9)) }
    }

    fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            let _best_effort = cgroup.kill();
        }
        if let Some(first) = &self.first {
            let _gone = rustix::process::pidfd_send_signal(first.handle.get_ref(), Signal::KILL);
        }
        self.group.kill();
    }

    /// Waits until nothing of it is left: the first process of a namespace ends after all others of it.
    async fn gone(&mut self) -> Result<(), SandboxError> {
        let gone = async {
            if let Some(first) = &self.first {
                let _ended = first.handle.readable().await;
            }
            let _status = self.group.child.wait().await;
        };
        tokio::time::timeout(GONE_WITHIN, gone).await.map_err(|_elapsed| SandboxError::StillThere)
    }

    fn account(&self, end: End, mut usage: Usage) -> (End, Usage) {
        let Some(cgroup) = &self.cgroup else { return (end, usage) };
        let counted = cgroup.usage();
        usage.cpu = counted.cpu.or(usage.cpu);
        usage.memory_peak_bytes = counted.memory_peak_bytes.or(usage.memory_peak_bytes);
        let is_killed = counted.is_out_of_memory && matches!(end, End::Ended { code } if code != 0);
        (if is_killed { End::Limit(Limit::Memory) } else { end }, usage)
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(deprecated, reason = "the newer function is unsafe to call; an owned descriptor is what it asks for")]
fn follow(handle: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, tokio::io::Interest::READABLE)
}

fn exit_code(line: &str) -> Option<i32> {
    let (_, rest) = line.split_once("\"exit-code\":")?;
    rest.trim().trim_end_matches('}').trim().parse().ok()
}

/// The files that bwrap reads.
fn files(view: &View, policy: &Policy) -> Result<Vec<FdMapping>, SandboxError> {
    let accounts = Accounts::of(policy.root.path(), policy.identity);
    let hosts = format!("127.0.0.1 localhost {0}\n::1 localhost {0}\n", policy.hostname);
    let filter = seccomp::program().ok_or(SandboxError::Machine)?;
    let empty = view.entries.iter().filter(|entry| matches!(entry, Entry::Text { text: Text::Empty, .. })).count();
    let mut contents: Vec<(i32, &[u8])> = vec![
        (Descriptors::SECCOMP, &filter),
        (Descriptors::PASSWD, accounts.passwd.as_bytes()),
        (Descriptors::GROUP, accounts.group.as_bytes()),
        (Descriptors::HOSTS, hosts.as_bytes()),
    ];
    contents.extend((Descriptors::EMPTY..).take(empty).map(|descriptor| (descriptor, &b""[..])));
    let map = |(child_fd, content)| memory_file("file", content).map(|parent_fd| FdMapping { parent_fd, child_fd });
    contents.into_iter().map(map).collect::<std::io::Result<_>>().map_err(system("a file in memory"))
}

/// A file without a place, to be read from its beginning.
fn memory_file(name: &str, content: &[u8]) -> std::io::Result<OwnedFd> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = std::fs::File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}
