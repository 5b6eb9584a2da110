//! The first look at the repositories, which takes as long as Portage takes to answer: nobody waits for it who need not.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::noise::noise;
use crate::peer::{Start, TestPeer, both};
use crate::portage::Client;
use crate::upstream::Nginx;
use crate::wait;

/// A Python of the daemon's that answers when the gate is opened.
struct Gate {
    dir: PathBuf,
}

impl Gate {
    fn closed(dir: &Path) -> Self {
        let dir = dir.join("gate");
        fs::create_dir_all(&dir).unwrap();
        let python = std::env::var("PEERAGE_PYTHON").expect("PEERAGE_PYTHON is set by ./test");
        let gate = Self { dir };
        gate.close();
        // A reader of a pipe waits until somebody opens it to write.
        let script =
            format!("#!/bin/sh\n[ -p {0}/pipe ] && read -r _ < {0}/pipe\nexec {python} \"$@\"\n", gate.dir.display());
        fs::write(gate.dir.join("python3"), script).unwrap();
        fs::set_permissions(gate.dir.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
        gate
    }

    fn close(&self) {
        let made = std::process::Command::new("mkfifo")
            .arg(self.dir.join("pipe"))
            .status()
            .expect("mkfifo is on every machine");
        assert!(made.success());
    }

    fn open(&self) {
        let pipe = self.dir.join("pipe");
        let away = self.dir.join("old");
        fs::rename(&pipe, &away).unwrap();
        // Whoever waits is let through; who comes later finds no pipe. Opened for both, it waits for nobody.
        let mut writer = fs::File::options().read(true).write(true).open(away).unwrap();
        writer.write_all(b"\n").unwrap();
    }

    fn start(&self, dir: &Path, root: &Path) -> Start {
        let path = format!("PATH={}:{}", self.dir.display(), std::env::var("PATH").unwrap());
        Start::new(dir).flag("--config-root", root.to_str().unwrap()).through(&["env", &path])
    }
}

/// A machine whose repository has one package with an md5-cache entry and one without.
struct Machine {
    repo: Repo,
    root: PathBuf,
    known: Source,
    asked: Source,
    nginx: Nginx,
}

fn machine(dir: &Path) -> Machine {
    let nginx = Nginx::start(&dir.join("nginx"));
    let known = Source::new(&nginx.www(), "known-1.0.bin", &noise(1, 10_000));
    let asked = Source::new(&nginx.www(), "asked-1.0.bin", &noise(2, 10_000));
    let repo = Repo::new(dir, "gentoo");
    repo.add_plain("known", &nginx.url(), &known);
    repo.add_plain("asked", &nginx.url(), &asked);
    fs::remove_file(repo.dir.join("metadata/md5-cache/app-misc/asked-1.0")).unwrap();
    let root = crate::repositories::machine(dir, &repo, "");
    Machine { repo, root, known, asked, nginx }
}

fn until_portage_is_asked(node: &TestPeer) -> Value {
    wait::until("Portage to be asked", || {
        let status = node.status();
        (status["look"]["asking"] == true).then_some(status)
    })
}

#[test]
fn while_portage_is_asked_all_that_is_known_is_served_and_the_rest_is_refused_at_once() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let gate = Gate::closed(dir.path());
    let node = gate.start(&dir.path().join("node"), &machine.root).begin().answering();
    let status = until_portage_is_asked(&node);
    let look = &status["look"];
    assert_eq!(
        (&look["repository"], &look["read"], &look["of"], &look["first"]),
        (&"gentoo".into(), &0.into(), &1.into(), &true.into())
    );
    assert!(node.does(&["status"]).contains("looking gentoo 0 1\n"));
    assert!(node.get("/").text().contains("asking Portage about repository gentoo: 0 of 1 packages"));
    assert_eq!((node.get("/healthz").status, node.get("/readyz").status), (200, 503));
    assert_eq!(node.get("/distfiles/layout.conf").status, 200);

    let known = node.get(&machine.known.sums.path());
    assert!(known.is(&machine.known.content()), "{}", known.status);
    for path in [machine.asked.sums.path(), machine.asked.name_path(), "/distfiles/asked-1.0.bin".to_owned()] {
        let refused = node.get(&path);
        assert_eq!(refused.status, 503, "{path}");
        assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{path}");
    }
    // Portage goes on to SRC_URI itself.
    let client = Client::new(&dir.path().join("client"), &[&machine.repo], &node.url()).with_upstream();
    client.fetches(&["app-misc/asked"]);
    assert_eq!(client.content("asked-1.0.bin"), machine.asked.content());

    // What needs all that the repositories say waits for it.
    thread::scope(|scope| {
        let fetching = scope.spawn(|| node.verb(&["fetch", "asked-1.0.bin"]));
        let showing = scope.spawn(|| node.verb(&["show", "app-misc/asked"]));
        gate.open();
        let (fetched, shown) = (fetching.join().unwrap(), showing.join().unwrap());
        assert!(fetched.status.success(), "{}", both(&fetched));
        assert!(both(&shown).contains("distfile asked-1.0.bin"), "{}", both(&shown));
    });
    assert_eq!(node.get("/readyz").status, 200);
    assert!(node.get(&machine.asked.name_path()).is(&machine.asked.content()));
    assert_eq!(node.status()["look"], Value::Null);
}

#[test]
fn a_start_serves_what_the_last_index_knew_and_a_later_look_keeps_nobody_waiting() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let gate = Gate::closed(dir.path());
    gate.open();
    let node = gate.start(&dir.path().join("node"), &machine.root).start();
    assert_eq!(node.ready["indexed"], true, "a quick look is waited for");
    let again = node.terminate().1;

    gate.close();
    let more = Source::new(&machine.nginx.www(), "more-1.0.bin", &noise(3, 10_000));
    machine.repo.add_plain("more", &machine.nginx.url(), &more);
    fs::remove_file(machine.repo.dir.join("metadata/md5-cache/app-misc/more-1.0")).unwrap();
    let node = again.begin().answering();
    until_portage_is_asked(&node);
    for source in [&machine.known, &machine.asked] {
        let reply = node.get(&source.name_path());
        assert!(reply.is(&source.content()), "{}: {}", source.name, reply.status);
    }
    assert_eq!(node.get(&more.name_path()).status, 503);
    gate.open();
    wait::until("the new package to be read", || node.get(&more.name_path()).is(&more.content()).then_some(()));

    // A request that names something new begins a look, and does not wait for Portage either.
    gate.close();
    let late = Source::new(&machine.nginx.www(), "late-1.0.bin", &noise(4, 10_000));
    machine.repo.add_plain("late", &machine.nginx.url(), &late);
    fs::remove_file(machine.repo.dir.join("metadata/md5-cache/app-misc/late-1.0")).unwrap();
    let status = wait::until("a look that asks Portage", || {
        assert_eq!(node.get(&late.name_path()).status, 404);
        let status = node.status();
        (status["look"]["asking"] == true).then_some(status)
    });
    assert_eq!(status["look"]["first"], false);
    gate.open();
    wait::until("the late package to be read", || node.get(&late.name_path()).is(&late.content()).then_some(()));
}

#[test]
fn a_node_that_is_stopped_while_portage_is_asked_ends_at_once() {
    let dir = tempdir().unwrap();
    let machine = machine(dir.path());
    let gate = Gate::closed(dir.path());
    let node = gate.start(&dir.path().join("node"), &machine.root).begin().answering();
    until_portage_is_asked(&node);
    let (status, _) = node.terminate();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
