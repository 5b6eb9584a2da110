//! A daemon that is killed leaves nothing behind, at whatever point it is killed.

use crate::mode::{Mode, modes, shell, survivors};
use sandbox::{Cancel, LogSink};
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::{Child, Command};

const MARKER: &str = "PEER_SANDBOX_TEST_MARKER";
const MODE: &str = "PEER_SANDBOX_TEST_MODE";

/// Started by this binary itself with a marker it runs until it is killed, otherwise only for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_a_sandbox() {
    let marker = std::env::var(MARKER).unwrap_or_else(|_| "0".to_owned());
    let wanted = std::env::var(MODE).unwrap_or_default();
    for mode in modes().into_iter().filter(|mode| wanted.is_empty() || wanted == mode.name) {
        let command = shell(&format!("(setsid sleep {marker}) & sleep {marker}; wait"));
        // On a worker, as in the daemon: not on the thread of the test, which is another one's business.
        let Mode { sandbox, policy, .. } = &mode;
        let (sandbox, policy) = (sandbox.clone(), policy.clone());
        let run =
            tokio::spawn(async move { sandbox.run(&policy, &command, LogSink::default(), Cancel::never()).await });
        assert!(run.await.unwrap().unwrap().is_success());
    }
}

/// What it makes lies in a directory of the test, which removes it.
fn start(mode: &Mode, marker: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "killed::a_process_with_a_sandbox"])
        .envs([(MARKER, marker), (MODE, mode.name)])
        .env("TMPDIR", mode.path(""))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("this test starts again")
}

/// Lets others run: what another process does announces itself in no other way.
async fn pause(duration: Duration) {
    let _elapsed = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}

/// Waits until the system has ended what it was told to end.
async fn wait_until_none(marker: &str) -> Vec<PathBuf> {
    for _again in 0..1000 {
        if survivors(marker).is_empty() {
            return Vec::new();
        }
        pause(Duration::from_millis(10)).await;
    }
    survivors(marker)
}

#[tokio::test]
async fn nothing_is_left_when_the_daemon_is_killed_at_any_point() {
    for mode in modes() {
        let mut were_running = 0;
        for round in 0..40 {
            let marker = format!("9{round:03}.{}{}", std::process::id(), mode.name.len());
            let mut daemon = start(&mode, &marker);
            // Points spread over a start: before the namespaces, within them, within bwrap, in the command.
            pause(Duration::from_millis(3 * round)).await;
            daemon.start_kill().unwrap();
            daemon.wait().await.unwrap();
            were_running += usize::from(!survivors(&marker).is_empty());
            assert_eq!(wait_until_none(&marker).await, Vec::<PathBuf>::new(), "{} round {round}", mode.name);
        }
        println!("{}: {were_running} of 40 had something running when they were killed", mode.name);
        // And one that is surely within its command.
        let marker = format!("9999.{}{}", std::process::id(), mode.name.len());
        let mut daemon = start(&mode, &marker);
        while !survivors(&marker).iter().any(|process| is_command(process, &marker)) {
            pause(Duration::from_millis(5)).await;
            assert!(daemon.try_wait().unwrap().is_none(), "it ended");
        }
        daemon.start_kill().unwrap();
        daemon.wait().await.unwrap();
        assert_eq!(wait_until_none(&marker).await, Vec::<PathBuf>::new(), "{}", mode.name);
    }
}

fn is_command(process: &std::path::Path, marker: &str) -> bool {
    std::fs::read(process.join("cmdline")).is_ok_and(|words| words == format!("sleep\0{marker}\0").as_bytes())
}

#[tokio::test]
async fn nothing_is_left_when_the_future_is_dropped() {
    for mode in modes() {
        for milliseconds in [0, 2, 5, 10, 20, 50, 100] {
            let marker = format!("9{milliseconds:03}.1{}{}", std::process::id(), mode.name.len());
            let command = shell(&format!("sleep {marker} & setsid sleep {marker}"));
            let run = mode.sandbox.run(&mode.policy, &command, LogSink::default(), Cancel::never());
            let is_late = tokio::time::timeout(Duration::from_millis(milliseconds), run).await;
            assert!(is_late.is_err(), "{is_late:?}");
            assert_eq!(wait_until_none(&marker).await, Vec::<PathBuf>::new(), "{} {milliseconds}", mode.name);
        }
    }
}
