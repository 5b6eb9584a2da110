//! Deadlines and signals: how a test waits for another process, and how it ends one.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything on a busy machine; only a hang reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again until `answer` has one; for what announces itself in no other way, such as the size of another process's
/// file. `what` names it when the deadline passes.
pub(crate) fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Asks again until `holds` does; whether it did before the deadline, so that the one who asks can say more.
pub(crate) fn within_deadline(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > DEADLINE {
            return false;
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    true
}

/// What `work` returns, or `None` when it takes longer than `limit`.
pub(crate) fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).ok()
}

/// Sends a signal, such as `TERM`, to one process, or to a group when `id` is negative.
pub(crate) fn signal(name: &str, id: i64) {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, &id.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("sh is on every machine");
    // A process that has ended in the meantime is no failure of the one who signals it.
    let _ended = status;
}

/// Waits for a child, and ends it when it takes longer than `limit`.
pub(crate) fn exit_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a command to its end, which must come before the deadline.
pub(crate) fn run(command: &mut Command) -> Output {
    let told = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {told}: {error}"));
    let id = i64::from(child.id());
    let (ended, end) = mpsc::sync_channel::<()>(1);
    let watchdog = thread::spawn(move || {
        if end.recv_timeout(2 * DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal("KILL", id);
        }
    });
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = child.wait().expect("the child is ours");
    drop(ended);
    watchdog.join().expect("the watchdog does not panic");
    Output {
        status,
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    }
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before a broken pipe is still worth showing.
            let _read = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
