//! `kill -9` and `SIGTERM` of the daemon in every phase of a build: nothing of the build runs on, nothing half-made is
//! listed or kept, and after the restart the job comes to its end.
//!
//! The ebuilds wait in the phase that a file names; the test waits for them to say so, never for a time to pass.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, jobs, portage};
use crate::fault_server::{Answer, FaultServer};
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::wait;
use crate::workshop::processes_of;

/// What the interface promises for `SIGTERM`, and as much again for a machine that is busy with other tests.
const END_MAX: Duration = Duration::from_secs(10);

/// A machine whose builds wait where the test wants them to.
struct Held {
    machine: Builder,
    flags: PathBuf,
}

impl Held {
    /// Has `app-misc/slow`, which waits in any phase of its build, and `app-misc/needs`, whose build dependency
    /// `dev-libs/held` waits when it is put into the layer. `/etc/portage/bashrc` waits while the package is written.
    fn new(dir: &Path) -> Self {
        let machine = Builder::new(dir);
        let flags = dir.join("flags");
        fs::create_dir_all(&flags).unwrap();
        fs::write(flags.join("hold"), "").unwrap();
        let hold = format!(
            "hold() {{ if [[ $(<{0}/hold) == \"$1\" ]]; then : >\"${{T}}/waits-$1\"; \
             while [[ $(<{0}/hold) == \"$1\" ]]; do sleep 0.1; done; fi; }}\n",
            flags.display()
        );
        machine.etc("bashrc", &format!("{hold}[[ ${{EBUILD_PHASE}} == package ]] && hold package\n:\n"));
        fs::create_dir_all(dir.join("payload")).unwrap();
        let payload = dir.join("payload/noise");
        // Large enough that writing, hashing and signing it are phases that a kill can come into.
        fs::write(&payload, noise(3, 24 << 20)).unwrap();
        let slow = format!(
            "SLOT=\"0\"\n{hold}src_unpack() {{ hold unpack; default; }}\nsrc_compile() {{ hold compile; }}\n\
             src_install() {{ hold install; insinto /opt/slow; doins {}; }}\n",
            payload.display()
        );
        machine.ebuild("app-misc/slow-1.0", &slow, &[]);
        let library = format!(
            "SLOT=\"0\"\n{hold}src_install() {{ insinto /opt/held; newins - file <<<held; }}\npkg_preinst() {{ hold merge; }}\n"
        );
        machine.ebuild("dev-libs/held-1.0", &library, &[]);
        machine.ebuild(
            "app-misc/needs-1.0",
            "SLOT=\"0\"\nDEPEND=\"dev-libs/held\"\nsrc_compile() { [[ $(</opt/held/file) == held ]] || die; }\n",
            &[],
        );
        Self { machine, flags }
    }

    /// Builds of this machine wait in this phase from now on; in none when it is empty.
    fn hold(&self, phase: &str) {
        let new = self.flags.join("new");
        fs::write(&new, phase).unwrap();
        fs::rename(new, self.flags.join("hold")).unwrap();
    }

    fn start(&self) -> Start {
        let portage = portage();
        let (portage, dir) = (portage.display(), self.machine.dir.display());
        let config = format!(
            "[build]\njobs_max = 1\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\", \
             \"{dir}/flags\", \"{dir}/payload\"]\n"
        );
        Start::new(&self.machine.dir)
            .config(&config)
            .repo(&self.machine.repo)
            .flag("--config-root", self.machine.dir.join("root").to_str().unwrap())
    }

    /// Waits until the build of a package has said, in its own temporary directory, that it waits in a phase.
    fn wait_for(&self, peer: &TestPeer, job: u64, package: &str, phase: &str) {
        let sign = peer
            .store_dir()
            .join("jobs")
            .join(job.to_string())
            .join("work")
            .join(package)
            .join("temp")
            .join(format!("waits-{phase}"));
        wait::until(&sign.display().to_string(), || sign.exists().then_some(()));
    }

    /// Nothing that was begun for a build of this machine is alive. Its processes end when the kernel has told them.
    fn is_quiet(&self) {
        let place = self.machine.dir.to_str().unwrap();
        wait::until("the processes of the build to end", || processes_of(place).is_empty().then_some(()));
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(place), "mounts are left: {mounts}");
    }

    /// `kill -9` of the daemon and of nothing else: what it started must end by itself.
    fn killed(&self, peer: TestPeer) -> Start {
        peer.signal("KILL");
        self.is_quiet();
        peer.kill()
    }

    /// Starts again after an end in the middle of job `id`: until it may go on nothing of it is listed; then it is done.
    fn goes_on(&self, start: Start, id: u64, attempts: u64) -> TestPeer {
        let peer = start.start();
        peer.must_verify();
        assert_eq!(listed(&peer), Vec::<Entry>::new(), "half a package is listed");
        self.hold("");
        let job = ended(&peer, id);
        assert_eq!((&job["state"], &job["attempt"]), (&"done".into(), &attempts.into()), "{job}");
        peer
    }
}

/// `peer build` in the background; it ends when its daemon does.
struct Request(Child);

impl Request {
    fn new(peer: &TestPeer, atoms: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.arg("build").args(atoms).arg("--control").arg(peer.dir().join("control.sock"));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn job(peer: &TestPeer, cpv: &str) -> Option<Value> {
    jobs(peer).into_iter().find(|job| job["cpv"] == cpv)
}

/// Waits for a job to be there, and gives its number.
fn begun(peer: &TestPeer, cpv: &str) -> u64 {
    wait::until("the job", || job(peer, cpv)?["id"].as_u64())
}

fn ended(peer: &TestPeer, id: u64) -> Value {
    wait::until("the job to end", || {
        let job = jobs(peer).into_iter().find(|job| job["id"] == id)?;
        matches!(job["state"].as_str()?, "done" | "failed" | "cancelled").then_some(job)
    })
}

/// An entry of the Packages index.
#[derive(Debug, PartialEq)]
struct Entry {
    cpv: String,
    path: String,
    size: u64,
}

/// The packages in the index, each of which must be given whole.
fn listed(peer: &TestPeer) -> Vec<Entry> {
    let url = peer.status()["binhost"].as_str().expect("the status tells of the binhost").to_owned();
    let base = url.strip_prefix(&peer.url()).expect("it is at this daemon").to_owned();
    let index = peer.get(&format!("{base}/Packages"));
    assert_eq!(index.status, 200);
    let text = String::from_utf8(index.body).unwrap();
    let mut found = Vec::new();
    for block in text.split("\n\n").filter(|block| block.contains("CPV: ")) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        let entry = Entry { cpv: field("CPV: "), path: field("PATH: "), size: field("SIZE: ").parse().unwrap() };
        let reply = peer.get(&format!("{base}/{}", entry.path));
        assert_eq!((reply.status, reply.body.len() as u64), (200, entry.size), "{block}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &reply.body).unwrap();
        let sum = wait::run(Command::new("sha1sum").arg(file.path())).stdout;
        assert_eq!(String::from_utf8(sum).unwrap().split(' ').next().unwrap(), field("SHA1: "), "{block}");
        found.push(entry);
    }
    found
}

/// The package is listed once, its store is right, and nobody needs to build it again.
fn is_there_once(peer: &TestPeer, cpvs: &[&str]) {
    let mut found: Vec<String> = listed(peer).into_iter().map(|entry| entry.cpv).collect();
    found.sort();
    assert_eq!(found, cpvs);
    peer.must_verify();
    for cpv in cpvs {
        let said = peer.does(&["build", &format!("={cpv}")]);
        assert!(said.contains(&format!("have {cpv}")), "{said}");
    }
}

/// Kills the daemon while `app-misc/slow` waits in a phase, which its job must show when `shown`.
fn killed_in(phase: &str, shown: &str) {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    held.hold(phase);
    let peer = held.start().start();
    let request = Request::new(&peer, &["app-misc/slow"]);
    let id = begun(&peer, "app-misc/slow-1.0");
    held.wait_for(&peer, id, "app-misc/slow-1.0", phase);
    wait::until("the phase to be shown", || (job(&peer, "app-misc/slow-1.0")?["phase"] == shown).then_some(()));
    assert_ne!(processes_of(dir.path().to_str().unwrap()), Vec::<String>::new(), "the build is found while it runs");
    let start = held.killed(peer);
    drop(request);
    let peer = held.goes_on(start, id, 2);
    is_there_once(&peer, &["app-misc/slow-1.0"]);
}

#[test]
fn killed_while_it_unpacks_a_build_is_begun_again() {
    killed_in("unpack", "unpack");
}

#[test]
fn killed_while_it_compiles_a_build_is_begun_again() {
    killed_in("compile", "compile");
}

#[test]
fn killed_while_it_installs_a_build_is_begun_again() {
    killed_in("install", "install");
}

#[test]
fn killed_while_the_package_is_written_a_build_is_begun_again() {
    // Portage says that it writes the package only when it is written.
    killed_in("package", "install");
}

#[test]
fn killed_while_build_dependencies_are_installed_both_packages_are_there_once() {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    held.hold("merge");
    let peer = held.start().start();
    let request = Request::new(&peer, &["app-misc/needs"]);
    let id = begun(&peer, "app-misc/needs-1.0");
    held.wait_for(&peer, id, "dev-libs/held-1.0", "merge");
    assert_eq!(job(&peer, "app-misc/needs-1.0").unwrap()["phase"], "dependencies");
    let start = held.killed(peer);
    drop(request);
    let peer = start.start();
    let there: Vec<String> = listed(&peer).into_iter().map(|entry| entry.cpv).collect();
    assert_eq!(there, ["dev-libs/held-1.0"], "what was made before is kept");
    held.hold("");
    let job = ended(&peer, id);
    assert_eq!(job["state"], "done", "{job}");
    is_there_once(&peer, &["app-misc/needs-1.0", "dev-libs/held-1.0"]);
}

#[test]
fn killed_while_one_build_runs_and_another_waits_both_are_done_later() {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    held.hold("compile");
    held.machine.ebuild("app-misc/next-1.0", "SLOT=\"0\"\n", &[]);
    let peer = held.start().start();
    let first = Request::new(&peer, &["app-misc/slow"]);
    let slow = begun(&peer, "app-misc/slow-1.0");
    held.wait_for(&peer, slow, "app-misc/slow-1.0", "compile");
    let second = Request::new(&peer, &["app-misc/next"]);
    let next = begun(&peer, "app-misc/next-1.0");
    let waiting = job(&peer, "app-misc/next-1.0").unwrap();
    assert_eq!((&waiting["state"], &waiting["phase"]), (&"queued".into(), &"wait".into()), "{waiting}");
    let start = held.killed(peer);
    drop((first, second));
    let peer = held.goes_on(start, slow, 2);
    let waited = ended(&peer, next);
    assert_eq!((&waited["state"], &waited["attempt"]), (&"done".into(), &1.into()), "{waited}");
    is_there_once(&peer, &["app-misc/next-1.0", "app-misc/slow-1.0"]);
}

#[test]
fn killed_while_a_source_is_fetched_a_build_is_begun_again() {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    let source = held.machine.source("far-1.0", &[("file", &"far away\n".repeat(100_000))]);
    held.machine.ebuild("app-misc/far-1.0", "SLOT=\"0\"\nsrc_install() { dodoc file; }\n", &[&source]);
    let content = source.content();
    let (flows, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (flowing, asking) = (Arc::clone(&flows), Arc::clone(&asked));
    let mirror = FaultServer::for_file("far-1.0.tar", move |_| {
        asking.store(true, Ordering::SeqCst);
        let whole = content.clone();
        if flowing.load(Ordering::SeqCst) { Answer::Whole(whole) } else { Answer::Stall(whole, 300_000) }
    });
    let peer = held.start().mirror(&mirror.url()).start();
    let request = Request::new(&peer, &["app-misc/far"]);
    let id = begun(&peer, "app-misc/far-1.0");
    wait::until("the mirror to be asked", || asked.load(Ordering::SeqCst).then_some(()));
    assert_eq!(job(&peer, "app-misc/far-1.0").unwrap()["phase"], "fetch");
    let start = held.killed(peer);
    drop(request);
    flows.store(true, Ordering::SeqCst);
    let peer = start.start();
    let job = ended(&peer, id);
    assert_eq!((&job["state"], &job["attempt"]), (&"done".into(), &2.into()), "{job}");
    is_there_once(&peer, &["app-misc/far-1.0"]);
}

#[test]
fn killed_at_moments_while_the_package_is_written_signed_and_published_it_is_whole_or_not_there() {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    let mut start = held.start();
    for moment in ["package", "sign", "blob"] {
        let peer = start.start();
        let before = peer.number("blobs");
        let request = Request::new(&peer, &["--rebuild", "app-misc/slow"]);
        let id = wait::until("the job", || jobs(&peer).into_iter().find(|job| job["state"] != "done")?["id"].as_u64());
        let dir = peer.store_dir().join(format!("jobs/{id}"));
        wait::until(moment, || {
            let reached = match moment {
                "package" => contains_package(&dir.join("out")),
                "sign" => peer.get(&format!("/api/v1/jobs/{id}")).text().contains("\"phase\":\"sign\""),
                _ => peer.number("blobs") > before,
            };
            reached.then_some(())
        });
        start = held.killed(peer);
        drop(request);
        let peer = start.start();
        peer.must_verify();
        let job = ended(&peer, id);
        assert_eq!(job["state"], "done", "killed at {moment}: {job}");
        is_there_once(&peer, &["app-misc/slow-1.0"]);
        start = peer.kill();
    }
}

/// A file of a package, begun or complete, is below this directory.
fn contains_package(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let about = entry.metadata();
        about.is_ok_and(|about| if about.is_dir() { contains_package(&entry.path()) } else { about.len() > 1 << 20 })
    })
}

#[test]
fn sigterm_in_the_middle_of_a_build_ends_the_daemon_soon_and_the_build_goes_on_later() {
    let dir = tempdir().unwrap();
    let held = Held::new(dir.path());
    held.hold("compile");
    let peer = held.start().start();
    let request = Request::new(&peer, &["app-misc/slow"]);
    let id = begun(&peer, "app-misc/slow-1.0");
    held.wait_for(&peer, id, "app-misc/slow-1.0", "compile");
    let asked = Instant::now();
    let (status, start) = peer.terminate();
    assert!(status.is_some_and(|status| status.success()), "a clean end: {status:?}");
    assert!(asked.elapsed() < END_MAX, "it took {:?}", asked.elapsed());
    held.is_quiet();
    drop(request);
    let peer = held.goes_on(start, id, 2);
    is_there_once(&peer, &["app-misc/slow-1.0"]);
}
