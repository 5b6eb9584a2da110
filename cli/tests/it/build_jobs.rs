//! Jobs of builds: joined, cancelled with all they started, read after a restart.

use std::fs;
use std::path::Path;
use std::thread;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, jobs, of_cpv, planned};
use crate::peer::{TestPeer, both};
use crate::wait;

/// Processes of this machine that have `mark` among their arguments.
fn marked(mark: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let line = |process: fs::DirEntry| fs::read(process.path().join("cmdline")).ok();
    let lines = processes.filter_map(line).map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(mark)).collect()
}

/// A word that no other process of this machine has.
fn mark(dir: &Path) -> String {
    format!("mark-of-{}", dir.file_name().unwrap().to_string_lossy().trim_start_matches('.'))
}

/// A package whose compiling never ends, in processes of every kind: of the ebuild, in the background, in a session of
/// its own, and deaf to SIGTERM.
fn endless(machine: &Builder, mark: &str) {
    let body = format!(
        "SLOT=\"0\"\nsrc_compile() {{\n\techo 'the wait begins'\n\tbash -c 'sleep 100000; : {mark} background' &\n\
         \tsetsid bash -c 'sleep 100000; : {mark} session' &\n\
         \tsetsid bash -c 'trap \"\" TERM INT HUP; while :; do sleep 100000; done; : {mark} deaf' &\n\
         \tbash -c 'sleep 100000; : {mark} front'\n}}\n"
    );
    machine.ebuild("app-misc/endless-1.0", &body, &[]);
}

fn wait_for_job(peer: &TestPeer, cpv: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait::until(&format!("the job of {cpv}"), || jobs(peer).into_iter().find(|job| job["cpv"] == cpv && wanted(job)))
}

#[test]
fn a_cancelled_build_leaves_no_process_and_no_tree_and_who_waited_in_the_queue_can_be_cancelled_too() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let mark = mark(dir.path());
    endless(&machine, &mark);
    let peer = machine.start_with("jobs_max = 1").start();
    machine.import(&peer);
    thread::scope(|scope| {
        let first = scope.spawn(|| peer.verb(&["build", "app-misc/endless"]));
        let job = wait_for_job(&peer, "app-misc/endless-1.0", |job| job["phase"] == "compile");
        wait::until("all its processes", || (marked(&mark).len() >= 4).then_some(()));
        assert_eq!(job["state"], "running");
        let id = job["id"].to_string();
        let log = wait::until("its first words", || {
            let log = peer.does(&["logs", &id]);
            log.contains("the wait begins").then_some(log)
        });
        assert!(log.contains("Compiling source"), "{log}");

        // The same recipe asked for meanwhile is the same job; another one waits for its turn.
        let (planned, joined) = peer.begins(&["--json", "build", "app-misc/endless"]);
        let planned: Value = serde_json::from_str(&planned).unwrap();
        assert_eq!(planned["packages"][0]["job"], job["id"], "two requests for one recipe are one job");
        let second = scope.spawn(|| peer.verb(&["build", "dev-libs/two"]));
        let waiting = wait_for_job(&peer, "dev-libs/two-1.0", |job| job["state"] == "queued");
        let waiting = waiting["id"].to_string();
        assert_eq!(peer.does(&["cancel", &waiting]), format!("cancelled {waiting} dev-libs/two-1.0\n"));
        let output = second.join().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        assert_eq!(marked(&mark).len(), 4, "the other job goes on");

        let said = peer.does(&["cancel", &id]);
        assert_eq!(said, format!("cancelled {id} app-misc/endless-1.0\n"));
        let (first, joined) = (first.join().unwrap(), joined());
        assert_eq!(marked(&mark), Vec::<String>::new(), "what the build started is gone when its end is told");
        assert_eq!((first.status.code(), joined.code()), (Some(1), Some(1)), "{}", both(&first));
        assert!(both(&first).contains(&format!("app-misc/endless-1.0 was cancelled (job {id})")), "{}", both(&first));
        assert_eq!(jobs(&peer).len(), 2);

        let again = peer.verb(&["cancel", &id, "4711"]);
        assert_eq!(again.status.code(), Some(1), "it has ended, and the other never was: {}", both(&again));
        let left = fs::read_dir(peer.store_dir().join("jobs").join(&id)).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap()).collect();
        assert!(left.iter().all(|entry| entry.file_type().unwrap().is_file()), "{left:?}");
    });
    assert!(peer.does(&["build", "dev-libs/two"]).starts_with("built dev-libs/two-1.0 "), "the place is free again");
}

#[test]
fn a_client_that_is_gone_does_not_take_its_build_along_and_a_stopped_daemon_leaves_no_process() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let mark = mark(dir.path());
    endless(&machine, &mark);
    let peer = machine.start_with("jobs_max = 2").start();
    machine.import(&peer);
    let control = machine.dir.join("control.sock");
    let mut client = std::process::Command::new(env!("CARGO_BIN_EXE_peer"));
    client.args(["build", "app-misc/endless", "--control"]).arg(&control);
    client.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut client = client.spawn().unwrap();
    wait::until("all its processes", || (marked(&mark).len() >= 4).then_some(()));
    wait::signal("KILL", i64::from(client.id()));
    client.wait().unwrap();
    assert!(peer.does(&["build", "dev-libs/two"]).starts_with("built "), "others are built meanwhile");
    assert_eq!(marked(&mark).len(), 4, "nobody cancelled it");

    let (status, start) = peer.terminate();
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert_eq!(marked(&mark), Vec::<String>::new());
    // What was not ended is begun again, and can be cancelled.
    let peer = start.start();
    let job = wait_for_job(&peer, "app-misc/endless-1.0", |job| job["phase"] == "compile");
    assert_eq!(job["attempt"], 2, "{job}");
    peer.does(&["cancel", &job["id"].to_string()]);
    let ended = wait_for_job(&peer, "app-misc/endless-1.0", |job| job["state"] == "cancelled");
    assert_eq!(ended["id"], job["id"]);
    assert_eq!(marked(&mark), Vec::<String>::new());
}

#[test]
fn jobs_their_logs_and_what_they_made_are_there_after_a_restart() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/never-1.0", "SLOT=\"0\"\nsrc_install() { die 'never, says the ebuild'; }\n", &[]);
    let peer = machine.start();
    let output = peer.verb(&["build", "dev-libs/two", "app-misc/never"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let before = jobs(&peer);
    let log_of = |peer: &TestPeer, cpv: &str| peer.does(&["logs", &of_cpv(&jobs(peer), cpv)["id"].to_string()]);
    let logs = ["dev-libs/two-1.0", "app-misc/never-1.0"].map(|cpv| log_of(&peer, cpv));
    assert!(logs[0].contains("Compiling source") && logs[1].contains("never, says the ebuild"), "{logs:?}");

    let peer = peer.kill().start();
    let known = |jobs: &[Value]| {
        let facts = ["id", "cpv", "state", "phase", "reason", "digest", "image", "fingerprint", "ended_at", "attempt"];
        let of = |job: &Value| facts.map(|fact| job[fact].clone()).to_vec();
        jobs.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(known(&jobs(&peer)), known(&before), "an ended job is not begun again");
    assert_eq!(["dev-libs/two-1.0", "app-misc/never-1.0"].map(|cpv| log_of(&peer, cpv)), logs);
    let table = peer.does(&["jobs"]);
    assert!(table.lines().any(|line| line.contains("failed") && line.contains("app-misc/never-1.0")), "{table}");
    assert_eq!(of_cpv(&planned(&peer, &["dev-libs/two"]), "dev-libs/two-1.0")["fate"], "have");
    // A failed one is tried again when it is asked for again, as a job of its own.
    assert_eq!(peer.verb(&["build", "app-misc/never"]).status.code(), Some(1));
    let newest = jobs(&peer)[0].clone();
    assert_eq!(
        (&newest["cpv"], newest["id"].as_u64()),
        (&"app-misc/never-1.0".into(), before[0]["id"].as_u64().map(|id| id + 1))
    );
}
