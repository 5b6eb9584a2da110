//! The only process start in the workspace: cleared environment, own process group, deadline, bounded output.

use command_fds::{CommandFdExt as _, FdMapping};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

/// What to start, and its bounds.
#[derive(Clone, Debug)]
pub struct Job {
    /// Program, looked up in the `PATH` of `environment`'s caller when it has no slash.
    pub program: PathBuf,
    /// Arguments.
    pub arguments: Vec<OsString>,
    /// The whole environment: nothing is inherited, so that no secret of the daemon's is.
    pub environment: Vec<(OsString, OsString)>,
    /// What it reads.
    pub input: Vec<u8>,
    /// Bytes of standard output that are kept; more is a failure. Of standard error the first [`ERRORS_MAX_BYTES`] are kept.
    pub output_max_bytes: u64,
    /// It is killed, with its group, after this long.
    pub deadline: Duration,
}

/// How long a program's output is waited for that it left to others when it ended.
const LAST_WORDS_MAX: Duration = Duration::from_millis(200);
/// Bytes of standard error that are kept for the log.
pub const ERRORS_MAX_BYTES: u64 = 64 * 1024;

/// What a process that ended by itself left.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: Vec<u8>,
    /// The beginning of standard error.
    pub errors: String,
}

/// Why there is no answer of a process.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was killed at its deadline.
    #[error("{program} was killed after {seconds} s")]
    Deadline {
        /// The program.
        program: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// It wrote more than it may.
    #[error("{program} wrote more than {max} bytes")]
    TooMuch {
        /// The program.
        program: PathBuf,
        /// The bound.
        max: u64,
    },
    /// Its pipes failed.
    #[error("cannot speak with {program}")]
    Pipe {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs a job to its end.
///
/// Cancel safe: yes; the process group is killed.
///
/// # Errors
/// When it cannot be started, does not end in time, or writes too much.
pub async fn run(job: Job) -> Result<Ended, RunError> {
    let program = job.program.clone();
    let command = Command { program: job.program, arguments: job.arguments, environment: job.environment };
    let (stdin, stdout, stderr) = (Stdio::piped(), Stdio::piped(), Stdio::piped());
    let mut group = Group::start(&command, Wiring { stdin, stdout, stderr, descriptors: Vec::new() })?;
    let talk = talk(&mut group.child, job.input, job.output_max_bytes);
    match tokio::time::timeout(job.deadline, talk).await {
        Err(_elapsed) => Err(RunError::Deadline { program, seconds: job.deadline.as_secs() }),
        Ok(Err(source)) => Err(RunError::Pipe { program, source }),
        Ok(Ok(ended)) if ended.output.len() as u64 > job.output_max_bytes => {
            Err(RunError::TooMuch { program, max: job.output_max_bytes })
        }
        Ok(Ok(ended)) => Ok(ended),
    }
}

/// Puts a program in the place of this process, which it inherits everything from: environment, descriptors, terminal.
/// Comes back only where that failed, with the reason.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "beside the one lawful process start")]
pub fn replace(program: &std::path::Path, arguments: &[OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    std::process::Command::new(program).args(arguments).exec()
}

/// Where a program's standard output goes while this one reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To the user, through this program: where that is a terminal, it is one for the program too.
    Seen,
    /// To nobody else, and its standard error neither.
    Unseen,
}

/// Runs a program to its end that inherits everything from this one but its standard output, which is heard as it comes. It
/// stays in this process's group, so that an interrupt at the terminal reaches it. The answer is its exit code.
///
/// Cancel safe: yes; it is killed.
///
/// # Errors
/// When it cannot be started, or its output cannot be read.
pub async fn overhear(
    program: &std::path::Path,
    arguments: &[OsString],
    stage: Stage,
    mut hear: impl FnMut(&[u8]),
) -> std::io::Result<Option<i32>> {
    let (mut reads, mut child) = {
        let mut command = inheriting(program, arguments);
        let (reads, writes) = ear(stage)?;
        command.stdout(writes);
        if stage == Stage::Unseen {
            command.stdin(Stdio::null()).stderr(Stdio::null());
        }
        // What is written to goes with the command, so that its end is seen.
        (reads, command.spawn()?)
    };
    let mut bytes = vec![0; 8192];
    let mut status = None;
    loop {
        let read = async {
            match status {
                None => reads.read(&mut bytes).await,
                // What was written before the end is there already; who was left behind by it is not waited for.
                Some(_) => tokio::time::timeout(LAST_WORDS_MAX, reads.read(&mut bytes)).await.unwrap_or(Ok(0)),
            }
        };
        tokio::select! {
            biased;
            read = read => match read {
                Ok(0) => break,
                Ok(count) => hear(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A terminal whose other end is closed.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
                Err(error) => return Err(error),
            },
            ended = child.wait(), if status.is_none() => status = Some(ended?),
        }
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await?,
    };
    Ok(status.code())
}

#[expect(clippy::disallowed_methods, reason = "beside the one lawful process start")]
fn inheriting(program: &std::path::Path, arguments: &[OsString]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command
}

/// What is read, and what a program writes to.
fn ear(stage: Stage) -> std::io::Result<(Receiver, Stdio)> {
    let stdout = std::io::stdout();
    if stage == Stage::Unseen || !rustix::termios::isatty(&stdout) {
        let (reads, writes) = std::io::pipe()?;
        return Ok((waited_for(reads.into())?, writes.into()));
    }
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let name = ptsname(&near, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let far = rustix::fs::open(name, flags, rustix::fs::Mode::empty())?;
    // As large as what the user sees, where that is known.
    if let Ok(size) = rustix::termios::tcgetwinsize(&stdout) {
        rustix::termios::tcsetwinsize(&far, size)?;
    }
    // The user's own terminal turns line ends into what it needs.
    let mut modes = rustix::termios::tcgetattr(&far)?;
    modes.output_modes.remove(rustix::termios::OutputModes::OPOST);
    rustix::termios::tcsetattr(&far, rustix::termios::OptionalActions::Now, &modes)?;
    Ok((waited_for(near)?, Stdio::from(far)))
}

/// The end that is read, without a thread that would wait in it: one would outlive who asked for it as long as anybody holds
/// the other end. A terminal is read as a pipe is.
fn waited_for(end: OwnedFd) -> std::io::Result<Receiver> {
    let flags = rustix::fs::fcntl_getfl(&end)?;
    rustix::fs::fcntl_setfl(&end, flags | rustix::fs::OFlags::NONBLOCK)?;
    Receiver::from_owned_fd_unchecked(end)
}

/// What a group is started with.
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// What a group reads, writes and has open besides.
pub(crate) struct Wiring {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
    pub(crate) descriptors: Vec<FdMapping>,
}

/// A child in a process group of its own, killed as a whole when dropped.
pub(crate) struct Group {
    pub(crate) child: Child,
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[expect(clippy::disallowed_methods, reason = "the one lawful process start")]
    pub(crate) fn start(what: &Command, wiring: Wiring) -> Result<Self, RunError> {
        let mut command = tokio::process::Command::new(&what.program);
        command
            .args(&what.arguments)
            .env_clear()
            .envs(what.environment.iter().map(|(name, value)| (name, value)))
            .stdin(wiring.stdin)
            .stdout(wiring.stdout)
            .stderr(wiring.stderr)
            .process_group(0)
            .kill_on_drop(true);
        let failed = |source| RunError::Start { program: what.program.clone(), source };
        let descriptors = hide_inherited(wiring.descriptors).map_err(failed)?;
        command.fd_mappings(descriptors).map_err(|error| failed(std::io::Error::other(error)))?;
        let child = command.spawn().map_err(failed)?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        Ok(Self { child, leader })
    }

    /// The process that was started.
    pub(crate) fn leader(&self) -> Option<rustix::process::Pid> {
        self.leader
    }

    /// Kills the leader and all that has not left its group.
    pub(crate) fn kill(&self) {
        // A group whose leader was waited for may be another's by now.
        if let (Some(leader), Some(_not_waited_for)) = (self.leader, self.child.id()) {
            let _gone = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// Puts `/dev/null` in the place of every descriptor that would go on to the child although nobody gave it to it: what
/// this process opened itself is closed there by the kernel, but what it was started with is not.
fn hide_inherited(mut descriptors: Vec<FdMapping>) -> std::io::Result<Vec<FdMapping>> {
    let close_on_exec = u64::from(rustix::fs::OFlags::CLOEXEC.bits());
    let mut null = None;
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let about = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = about.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        let goes_on = flags.is_some_and(|flags| flags & close_on_exec == 0);
        if number > 2 && goes_on && !descriptors.iter().any(|mapping| mapping.child_fd == number) {
            let null: &std::fs::File = match &null {
                Some(null) => null,
                None => null.insert(std::fs::File::open("/dev/null")?),
            };
            descriptors.push(FdMapping { parent_fd: null.try_clone()?.into(), child_fd: number });
        }
    }
    Ok(descriptors)
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // What it started and left behind goes with it; a group that is gone already is what is wanted.
            let _gone = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, input: Vec<u8>, output_max: u64) -> std::io::Result<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A child that does not read its input to the end still has an answer.
            let _closed_early = stdin.write_all(&input).await;
        }
    };
    let ((), output, errors) = tokio::join!(write, read(stdout, output_max + 1), read(stderr, ERRORS_MAX_BYTES));
    let (output, errors) = (output?, errors?);
    if output.len() as u64 > output_max {
        return Ok(Ended { code: None, output, errors: String::new() });
    }
    let status = child.wait().await?;
    Ok(Ended { code: status.code(), output, errors: String::from_utf8_lossy(&errors).into_owned() })
}

/// Reads up to `max` bytes; for standard error the rest is left to a full pipe no longer than the deadline.
async fn read(from: Option<impl AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut bounded = from.take(max);
        bounded.read_to_end(&mut bytes).await?;
        // Past the bound the pipe is drained, so that the child does not stop for a reader that has gone.
        if bytes.len() as u64 == max && max == ERRORS_MAX_BYTES {
            tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Job {
        Job {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            input: b"in".to_vec(),
            output_max_bytes: 1000,
            deadline: Duration::from_secs(20),
        }
    }

    #[tokio::test]
    async fn output_errors_and_code_come_back() {
        let ended = run(shell("cat; echo err >&2; exit 3")).await.unwrap();
        assert_eq!((ended.code, ended.output.as_slice(), ended.errors.as_str()), (Some(3), &b"in"[..], "err\n"));
    }

    #[tokio::test]
    async fn nothing_of_the_environment_is_inherited() {
        let ended = run(shell("env | grep -v -e ^PATH= -e ^PWD= -e ^SHLVL= -e ^_= || true")).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.output), "");
    }

    #[tokio::test]
    async fn too_much_output_is_a_failure() {
        let error = run(shell("yes | head -c 100000")).await.unwrap_err();
        assert!(matches!(error, RunError::TooMuch { max: 1000, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_does_not_end_is_killed_with_its_children() {
        let job = Job { deadline: Duration::from_millis(200), ..shell("sleep 1000 & echo $!; wait") };
        let error = run(job).await.unwrap_err();
        assert!(matches!(error, RunError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_a_program_says_is_heard_as_it_comes_and_its_code_comes_back() {
        let script = |text: &str| [OsString::from("-c"), text.into()];
        let mut heard = Vec::new();
        let said = script("echo one; sleep 60 & echo two; exit 3");
        let code = overhear("/bin/sh".as_ref(), &said, Stage::Unseen, |bytes| heard.extend_from_slice(bytes)).await;
        assert_eq!(
            (code.unwrap(), heard.as_slice()),
            (Some(3), &b"one\ntwo\n"[..]),
            "who is left behind is not waited for"
        );
        let killed = overhear("/bin/sh".as_ref(), &script("kill -9 $$"), Stage::Unseen, |_| {}).await;
        assert_eq!(killed.unwrap(), None);
        let stdin = overhear("/bin/sh".as_ref(), &script("cat"), Stage::Unseen, |_| {}).await;
        assert_eq!(stdin.unwrap(), Some(0), "nobody is asked");
        assert!(overhear("/nonexistent/program".as_ref(), &[], Stage::Unseen, |_| {}).await.is_err());
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let job = Job { program: "/nonexistent/program".into(), ..shell("") };
        assert!(run(job).await.unwrap_err().to_string().contains("/nonexistent/program"));
    }
}
