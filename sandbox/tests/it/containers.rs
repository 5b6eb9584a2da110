//! In a container: there is no process 2 where only the processes of the container are seen, and parts of /proc are
//! covered.

use crate::mode::{modes, shell};
use sandbox::{Cancel, Identity, SandboxError};
use std::process::Output;

const INSIDE: &str = "PEER_SANDBOX_TEST_CONTAINER";

/// Started by this binary itself it says what a command in a sandbox says, or why there is none; otherwise it is like
/// any other command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_looks_at_its_processes() {
    let wanted = std::env::var(INSIDE).unwrap_or_default();
    for mode in modes().into_iter().filter(|mode| wanted.is_empty() || wanted == mode.name) {
        let command = shell("cd /proc && echo processes $(ls -d [0-9]* | wc -l) of $$ >&2; test -r /proc/self/status");
        let captured = mode.sandbox.capture(&mode.policy, &command, b"", 100, Cancel::never()).await;
        match captured {
            Ok(captured) => println!("{}{:?}", captured.errors, captured.outcome.end),
            Err(error @ SandboxError::Proc { .. }) if !wanted.is_empty() => println!("no proc: {error}"),
            Err(error) => println!("refused: {error}"),
        }
    }
}

/// Runs [`a_command_that_looks_at_its_processes`] as the first process of a container, whose other first processes are
/// gone, after `covering` was done there.
async fn contained(mode: &str, covering: &str) -> Output {
    let script = format!("(:) & wait; {covering}\nexec \"$0\" \"$@\"");
    let mut container = tokio::process::Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc"]);
    if !matches!(Identity::of_this_process(), Identity::Mapped { .. }) {
        container.args(["--user", "--map-root-user"]);
    }
    let this = std::env::current_exe().expect("this test");
    container.args(["sh", "-ec", &script]).arg(this);
    container.args(["--exact", "containers::a_command_that_looks_at_its_processes", "--nocapture"]);
    container.env(INSIDE, mode).output().await.expect("unshare")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn there_is_a_sandbox_where_process_2_is_not() {
    for mode in modes() {
        let said = said(&contained(mode.name, "test ! -e /proc/2").await);
        assert!(said.contains("Ended { code: 0 }"), "{}: {said}", mode.name);
    }
}

/// As Docker, Podman and Kubernetes do it.
const COVER: &str = "for masked in kcore keys timer_list; do
    test ! -e /proc/$masked || mount --bind /dev/null /proc/$masked
done
mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";

#[tokio::test]
async fn where_parts_of_proc_are_covered_root_has_a_sandbox_and_a_user_is_told() {
    if !matches!(Identity::of_this_process(), Identity::Mapped { .. }) {
        return; // Covering takes root's rights outside; an ordinary user's container is covered by nobody.
    }
    let single = said(&contained("single", COVER).await);
    assert!(single.contains("no proc: "), "{single}");
    for word in ["/proc/", " covered", "systempaths=unconfined"] {
        assert!(single.contains(word), "{word}: {single}");
    }
    let mapped = said(&contained("mapped", COVER).await);
    assert!(mapped.contains("Ended { code: 0 }"), "{mapped}");
}
