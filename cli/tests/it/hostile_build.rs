//! Ebuilds that attack the machine they are built on. Each is stopped or does no harm, nothing of it is left, and the
//! daemon builds the next package as if nothing had been.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, jobs};
use crate::peer::{TestPeer, both};
use crate::wait;
use crate::workshop::processes_of;

/// What an attempt that failed says, so that its job fails with these words.
const HELD: &str = "the wall held";
/// What a job's directory holds when it ended.
const LOGS: [&str; 3] = ["log", "dependencies.log", "recipe"];

/// An ebuild that tries `attempt`, Bash that succeeds when it got through, with the rights of root in `pkg_setup` and
/// with those of a build in `src_compile`. When neither gets through it dies.
fn attempts(machine: &Builder, name: &str, attempt: &str) {
    machine.ebuild(
        &format!("app-misc/{name}-1.0"),
        &format!(
            "SLOT=\"0\"\nattempt() {{\n{attempt}\n}}\n\
             pkg_setup() {{ ( attempt ) && echo through >\"${{T}}/through\"; }}\n\
             src_compile() {{\n( attempt ) && echo through >\"${{T}}/through\"\n\
             [[ -e ${{T}}/through ]] || die \"{HELD}\"\n}}\n"
        ),
        &[],
    );
}

/// An ebuild that does this in `src_compile`.
fn compiles(machine: &Builder, name: &str, body: &str) {
    let body = format!(
        "SLOT=\"0\"\nsrc_compile() {{\n{body}\n}}\nsrc_install() {{ echo good >good; insinto /opt; doins good; }}\n"
    );
    machine.ebuild(&format!("app-misc/{name}-1.0"), &body, &[]);
}

fn job_of(peer: &TestPeer, name: &str) -> Value {
    let cpv = format!("app-misc/{name}-1.0");
    jobs(peer).into_iter().find(|job| job["cpv"] == cpv.as_str()).unwrap_or_else(|| panic!("there is a job for {cpv}"))
}

/// Builds them; they all must fail in `src_compile`, each for a reason with one of these words in it.
fn must_fail(peer: &TestPeer, names: &[&str], words: &[&str]) {
    let atoms: Vec<String> = names.iter().map(|name| format!("app-misc/{name}")).collect();
    let mut all = vec!["build"];
    all.extend(atoms.iter().map(String::as_str));
    let output = peer.verb(&all);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    for name in names {
        let job = job_of(peer, name);
        let reason = job["reason"].as_str().unwrap_or_default();
        let log = fs::read_to_string(job["log_path"].as_str().unwrap()).unwrap_or_default();
        assert_eq!(job["state"], "failed", "{name} got through: {job}\n{log}");
        assert_eq!(job["phase"], "compile", "{name}: {job}\n{log}");
        assert!(words.iter().any(|word| reason.contains(word)), "{name}: {reason:?} has none of {words:?}\n{log}");
    }
}

/// Nothing of the builds is on the machine but their logs, and a good package is built as ever.
fn is_clean_and_builds(machine: &Builder, peer: &TestPeer) {
    nothing_left(machine, peer);
    compiles(machine, "good", ":");
    peer.does(&["build", "app-misc/good"]);
    assert_eq!(job_of(peer, "good")["state"], "done");
    nothing_left(machine, peer);
}

fn nothing_left(machine: &Builder, peer: &TestPeer) {
    let place = machine.dir.to_str().unwrap();
    assert_eq!(processes_of(place), Vec::<String>::new(), "processes of builds are left");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(place)).collect();
    assert_eq!(left, Vec::<&str>::new(), "mounts are left");
    for job in fs::read_dir(peer.store_dir().join("jobs")).unwrap() {
        for entry in fs::read_dir(job.unwrap().path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            assert!(LOGS.iter().any(|log| name == *log), "{} is left", entry.path().display());
        }
    }
}

/// Runs an attempt outside any walls, where it must get through: else its failure inside would prove nothing.
fn gets_through_outside(attempt: &str) {
    let output = wait::run(Command::new("bash").args(["-c", attempt]));
    assert!(output.status.success(), "{attempt}: {}", both(&output));
}

/// A listener on loopback, and how many connected to it.
fn listener() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    thread::spawn(move || {
        for _connection in listener.incoming().map_while(Result::ok) {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[test]
fn an_ebuild_reaches_no_network_no_daemon_and_no_other_process() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let (port, connected) = listener();
    let connect = |port: &str| format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let to_listener = connect(&port.to_string());
    let to_daemon = connect(peer.http().rsplit(':').next().unwrap());
    let control = peer.dir().join("control.sock").display().to_string();
    let to_control =
        format!("python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{control}\")' 2>/dev/null");
    // PTRACE_TRACEME and PTRACE_SEIZE of a child: an ordinary kernel allows both to everybody.
    let traceme = "python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(0, 0, 0, 0) != 0)'";
    let seize = "sleep 600 & python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) != 0)' $!\n\
                 code=$?; kill -9 $!; (exit $code)";
    for attempt in [&to_listener, &to_daemon, &to_control] {
        gets_through_outside(attempt);
    }
    gets_through_outside(traceme);
    wait::until("its own connection", || (connected.load(Ordering::SeqCst) == 1).then_some(()));
    attempts(&machine, "listener", &to_listener);
    attempts(&machine, "daemon", &to_daemon);
    attempts(&machine, "control", &to_control);
    attempts(&machine, "traceme", traceme);
    attempts(&machine, "seize", seize);
    attempts(&machine, "mount", "mount -t tmpfs none \"${T}\" 2>/dev/null || mount --bind /tmp /usr 2>/dev/null");
    attempts(&machine, "remount", "mount -o remount,rw /usr 2>/dev/null || umount /etc/portage 2>/dev/null");
    attempts(
        &machine,
        "unshare",
        "unshare -U true 2>/dev/null || unshare -Urm true 2>/dev/null || unshare -m true 2>/dev/null",
    );
    must_fail(&peer, &["listener", "daemon", "control", "traceme", "seize", "mount", "remount", "unshare"], &[HELD]);
    assert_eq!(connected.load(Ordering::SeqCst), 1, "only the connection from outside was made");
    is_clean_and_builds(&machine, &peer);
}

#[test]
fn an_ebuild_reads_nothing_private_and_writes_nothing_outside_its_work() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let source = machine.source("plain-1.0", &[("file", "as it was\n")]);
    let spoil = "echo spoilt 2>/dev/null >>/var/cache/distfiles/plain-1.0.tar || \
                 chmod 777 /var/cache/distfiles/plain-1.0.tar 2>/dev/null || rm -f /var/cache/distfiles/plain-1.0.tar 2>/dev/null";
    let body = format!(
        "SLOT=\"0\"\nS=\"${{WORKDIR}}\"\npkg_setup() {{ ( {spoil} ) && die \"through\"; }}\n\
         src_compile() {{ ( {spoil} ) && die \"through\"; die \"{HELD}\"; }}\n"
    );
    machine.ebuild("app-misc/spoil-1.0", &body, &[&source]);
    let peer = machine.start();
    let store = peer.store_dir().display().to_string();
    let stored =
        format!("ls {store}/* >/dev/null 2>&1 || cat {store}/*key* >/dev/null 2>&1 || ls {store}/jobs/1/* 2>/dev/null");
    gets_through_outside(&stored);
    assert!(Path::new("/etc/shadow").exists());
    attempts(&machine, "shadow", "cat /etc/shadow 2>/dev/null || cat /proc/1/root/etc/shadow 2>/dev/null");
    attempts(&machine, "stored", &stored);
    let repo = machine.repo.dir.display().to_string();
    let marker = format!("peerage-was-here-{}", std::process::id());
    let places = [
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/etc/portage",
        "/opt",
        "/var",
        "/var/lib",
        "/var/db/pkg",
        "/root",
        "/home",
        "/boot",
        "/sys",
        "/proc",
        "/dev",
        "/var/cache/distfiles",
        &repo,
        &store,
    ];
    let write = format!(
        "local place through=1\nfor place in {}; do\nif ( : >\"${{place}}/{marker}\" ) 2>/dev/null; then\n\
         [[ $(stat -f -c %T \"${{place}}\") == tmpfs ]] || {{ echo \"wrote to ${{place}}\"; through=0; }}\nfi\ndone\n\
         return ${{through}}",
        places.join(" ")
    );
    attempts(&machine, "write", &write);
    must_fail(&peer, &["shadow", "stored", "write", "spoil"], &[HELD]);
    for place in places {
        assert!(!Path::new(place).join(&marker).exists(), "it wrote to {place}");
    }
    peer.must_verify();
    is_clean_and_builds(&machine, &peer);
}

#[test]
fn no_secret_of_the_daemon_or_of_portage_is_anywhere_inside() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let secret = "peerage-canary-0f1e2d3c";
    // A pattern that does not match itself, wherever the ebuild's own text may lie.
    let pattern = "peerage-canary-[0-9a-f]{8}";
    let etc = machine.dir.join("root/etc/portage");
    machine.etc("gnupg/private-keys-v1.d/key", secret);
    machine.etc("binrepos.conf/there.conf", &format!("[there]\nsync-uri = https://me:{secret}@example.invalid/\n"));
    let outside = wait::run(Command::new("grep").args(["-rlE", pattern]).arg(&etc));
    assert_eq!(String::from_utf8(outside.stdout).unwrap().lines().count(), 2, "the secrets are where they were put");
    let look = format!(
        "local found\nfound=$( {{ env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; }} 2>/dev/null | grep -aE '{pattern}'\n\
         grep -rsaE -D skip '{pattern}' /etc /var /run /tmp /dev/shm /root /home {} {} )\n\
         [[ -n ${{found}} ]] && echo \"found ${{found}}\"",
        etc.display(),
        machine.dir.display()
    );
    attempts(&machine, "look", &look);
    let peer = machine.start_with("").through(&["env", &format!("PEERAGE_CANARY={secret}")]).start();
    let environ = fs::read(format!("/proc/{}/environ", pid_of_daemon(&machine.dir))).unwrap();
    assert!(String::from_utf8_lossy(&environ).contains(secret), "the daemon has the secret");
    must_fail(&peer, &["look"], &[HELD]);
}

/// The daemon that keeps its store below `dir`.
fn pid_of_daemon(dir: &Path) -> String {
    let store = dir.join("store").display().to_string();
    let found = fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let bytes = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        line.contains(" daemon --data-dir ") && line.contains(&store)
    });
    found.expect("it runs").file_name().into_string().unwrap()
}

/// A process of the test itself, ended with it.
struct Marked(Child);

impl Drop for Marked {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn what_an_ebuild_leaves_running_ends_with_it() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let marker = format!("peerage-left-{}", std::process::id());
    let outside = Marked(Command::new("sleep").arg0(&marker).arg("600").stdin(Stdio::null()).spawn().unwrap());
    wait::until("the process to be found", || (processes_of(&marker).len() == 1).then_some(()));
    drop(outside);
    compiles(
        &machine,
        "leaves",
        &format!(
            "( ( exec -a {marker} setsid nohup sleep 600 ) </dev/null >/dev/null 2>&1 & ) &\n\
             ( trap '' TERM HUP INT; exec -a {marker} setsid bash -c 'trap \"\" TERM HUP; while :; do sleep 1; done' {marker} \
             </dev/null >/dev/null 2>&1 & )\n\
             ( exec -a {marker} sleep 600 ) &\ndisown -a\n\
             until [[ $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c {marker}) -ge 2 ]]; do sleep 0.1; done"
        ),
    );
    let peer = machine.start();
    peer.does(&["build", "app-misc/leaves"]);
    assert_eq!(job_of(&peer, "leaves")["state"], "done");
    assert_eq!(processes_of(&marker), Vec::<String>::new());
    is_clean_and_builds(&machine, &peer);
}

#[test]
fn an_ebuild_that_uses_up_disk_processes_or_memory_is_ended_with_the_limit_as_the_reason() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start_with("disk_max = \"32MiB\"\nprocesses_max = 64\nmemory_max = \"384MiB\"").start();
    compiles(
        &machine,
        "fills",
        "for i in {1..10000}; do dd if=/dev/zero of=\"${WORKDIR}/fill${i}\" bs=1M count=4 2>/dev/null || sleep 1; done",
    );
    compiles(&machine, "long", "dd if=/dev/zero of=\"${WORKDIR}/fill\" bs=1M count=100000 || die \"one file\"");
    compiles(&machine, "forks", "for i in {1..100000}; do sleep 600 & done; wait");
    compiles(
        &machine,
        "eats",
        "for i in {1..12}; do python3 -c 'import time; held = b\"x\" * (80 << 20); time.sleep(600)' & done; wait",
    );
    must_fail(&peer, &["fills"], &["it filled more of the disk than it may; the limits are in [build] of peer.toml"]);
    must_fail(&peer, &["long"], &["filled more of the disk than it may", "one file"]);
    must_fail(&peer, &["forks"], &["it had more processes than it may"]);
    must_fail(&peer, &["eats"], &["it used more memory than it may"]);
    assert!(on_disk(&peer.store_dir().join("jobs")) < 4 << 20, "the disk was given back");
    is_clean_and_builds(&machine, &peer);
}

/// Bytes of the files below a directory.
fn on_disk(dir: &PathBuf) -> u64 {
    let output = wait::run(Command::new("du").args(["-sB1"]).arg(dir));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn an_ebuild_without_end_is_ended_when_its_time_is_over() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    compiles(&machine, "endless", "while :; do sleep 1; done");
    let peer = machine.start_with("time_max_s = 10").start();
    must_fail(&peer, &["endless"], &["it took longer than it may"]);
    nothing_left(&machine, &peer);
    let peer = machine_again(&machine, peer);
    is_clean_and_builds(&machine, &peer);
}

/// The same store without a limit: a good build may take long on a busy machine.
fn machine_again(machine: &Builder, peer: TestPeer) -> TestPeer {
    let (status, _again) = peer.terminate();
    assert!(status.is_some_and(|status| status.success()));
    machine.start_with("").start()
}

#[test]
fn a_package_that_an_ebuild_made_itself_is_not_taken_for_portages() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let body = "SLOT=\"0\"\nsrc_install() {\nmkdir -p /var/cache/binpkgs/app-misc/good && \
                echo forged >/var/cache/binpkgs/app-misc/good/good-1.0-1.gpkg.tar\n:\n}\n";
    machine.ebuild("app-misc/forges-1.0", body, &[]);
    let peer = machine.start();
    let output = peer.verb(&["build", "app-misc/forges"]);
    let job = job_of(&peer, "forges");
    // Where Portage drops root's rights the forgery fails and the package is an honest one; else it is refused.
    if output.status.success() {
        assert_eq!(job["state"], "done");
    } else {
        assert_eq!(job["reason"], "Portage left 2 packages, expected one", "{job}");
    }
    assert!(!both(&output).contains("app-misc/good"));
    is_clean_and_builds(&machine, &peer);
}
