//! The only process start in the workspace: cleared environment, own process group, deadline, bounded output.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

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
    let mut group = Group::start(&job)?;
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

/// A child in a process group of its own, killed as a whole when dropped.
struct Group {
    child: Child,
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[expect(clippy::disallowed_methods, reason = "the one lawful process start")]
    fn start(job: &Job) -> Result<Self, RunError> {
        let child = Command::new(&job.program)
            .args(&job.arguments)
            .env_clear()
            .envs(job.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| RunError::Start { program: job.program.clone(), source })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        Ok(Self { child, leader })
    }
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
    async fn a_missing_program_is_named() {
        let job = Job { program: "/nonexistent/program".into(), ..shell("") };
        assert!(run(job).await.unwrap_err().to_string().contains("/nonexistent/program"));
    }
}
