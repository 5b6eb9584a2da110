//! `peer emerge`: the real emerge, with what the node can do for it done before, and never worse than plain emerge.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::tempdir;

use crate::answers::{NOTE, is_plain};
use crate::builder::{Builder, jobs, of_cpv, portage};
use crate::gentoo::checkout;
use crate::peer::{TestPeer, both};
use crate::wait;

/// A machine on which `emerge` is the private Portage of the tests, with the configuration that the node reads.
struct Machine {
    builder: Builder,
    /// What `emerge` was handed: a line a word, and `exec` lines that say which process it was.
    handed: PathBuf,
}

impl Machine {
    fn new(dir: &Path) -> Self {
        let builder = Builder::new(dir);
        builder.ebuild("app-misc/note-1.0", NOTE, &[]);
        let (bin, handed) = (dir.join("bin"), dir.join("handed"));
        fs::create_dir_all(&bin).unwrap();
        // The private Portage is no command of the PATH: this starts it with its places, and changes no word.
        let script = format!(
            "#!/bin/sh\nprintf '%s\\0' \"$@\" > '{}'\nprintf '%s' \"$$\" > '{}'\nexport PEERAGE_PORTAGE='{}' REPOS='{}' \
             FEATURES=\nexec '{}' '{}' emerge --color=n --ask=n \"$@\"\n",
            handed.display(),
            dir.join("process").display(),
            portage().display(),
            builder.repo.dir.display(),
            checkout().join("examples/portage").display(),
            dir.join("root").display()
        );
        fs::write(bin.join("emerge"), script).unwrap();
        fs::set_permissions(bin.join("emerge"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { builder, handed }
    }

    /// Its daemon; Portage trusts its packages, and looks for them at its binhost.
    fn start(&self, build: &str) -> TestPeer {
        let keyring = self.builder.keyring();
        let peer = self.builder.start_with(build).start();
        self.builder.import(&peer);
        peer.does(&["key", "init", "--keyring", keyring.to_str().unwrap()]);
        self.knows(peer.status()["binhost"].as_str().unwrap());
        peer
    }

    /// Writes binrepos.conf.
    fn knows(&self, binhost: &str) {
        let location = self.builder.dir.join("binhost-cache");
        let section = format!(
            "[peerage]\npriority = 10\nsync-uri = {binhost}\nverify-signature = true\nlocation = {}\n",
            location.display()
        );
        self.builder.etc("binrepos.conf/peerage.conf", &section);
    }

    fn command(&self, control: &Path, program: &str) -> Command {
        let dir = &self.builder.dir;
        let mut command = Command::new(program);
        command.env_clear().env("HOME", dir).env("LANG", "C.UTF-8").current_dir(dir);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", dir.join("bin").display()));
        command.env("PEER_CONTROL", control).env("PORTAGE_CONFIGROOT", dir.join("root"));
        command
    }

    fn with(&self, control: &Path, words: &[&str]) -> Output {
        let mut command = self.command(control, env!("CARGO_BIN_EXE_peer"));
        wait::run(command.arg("emerge").args(words))
    }

    /// `peer emerge WORD…` beside this daemon.
    fn emerge(&self, peer: &TestPeer, words: &[&str]) -> Output {
        self.with(&peer.dir().join("control.sock"), words)
    }

    /// The same words for plain emerge.
    fn plain(&self, words: &[&str]) -> Output {
        wait::run(self.command(Path::new("/nonexistent"), "emerge").args(words))
    }

    /// The words that emerge was handed.
    fn handed(&self) -> Vec<String> {
        let bytes = fs::read(&self.handed).unwrap();
        bytes
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .filter(|word| !word.is_empty())
            .collect()
    }

    fn installed(&self, path: &str) -> bool {
        self.builder.dir.join("root/root").join(path).exists()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_the_binhost_has_is_installed_from_it_and_what_it_has_not_is_left_to_emerge() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let peer = machine.start("");
    peer.does(&["build", "app-misc/one"]);
    let before = jobs(&peer);
    let output = machine.emerge(&peer, &["--oneshot", "app-misc/one", "app-misc/note"]);
    assert!(output.status.success(), "{}", both(&output));
    assert_eq!(machine.handed(), ["--getbinpkg", "--oneshot", "app-misc/one", "app-misc/note"]);
    let said = both(&output);
    assert!(said.contains("Fetching app-misc/one-1.0") || said.contains("Extracting app-misc/one-1.0"), "{said}");
    let told = stderr(&output);
    assert!(told.contains("3 packages: 2 here") && told.contains("1 to build"), "the weather is told: {told}");
    let output = wait::run(&mut Command::new(machine.builder.dir.join("root/root/usr/bin/one")));
    assert_eq!(stdout(&output), "one two color\n");
    assert!(machine.installed("opt/note/note"), "emerge built it");
    assert_eq!(jobs(&peer), before, "a build here is begun only where the user says so");
}

#[test]
fn a_miss_that_policy_allows_is_built_in_the_sandbox_first() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let failing = "SLOT=\"0\"\nsrc_compile() { [[ -e /var/tmp/peer || -n ${T} && ${T} == /var/tmp/portage/* ]] && die \
                   \"not in the sandbox\"; true; }\nsrc_install() { :; }\n";
    machine.builder.ebuild("app-misc/picky-1.0", failing, &[]);
    let peer = machine.start("on_miss = \"sandbox\"");
    let output = machine.emerge(&peer, &["--oneshot", "app-misc/note"]);
    assert!(output.status.success(), "{}", both(&output));
    let job = of_cpv(&jobs(&peer), "app-misc/note-1.0").clone();
    assert_eq!((&job["state"], &job["source"]), (&"done".into(), &"build".into()), "{job}");
    let said = both(&output);
    assert!(said.contains("Extracting app-misc/note-1.0") || said.contains("Fetching app-misc/note-1.0"), "{said}");
    assert!(!said.contains("Compiling source"), "emerge took the package: {said}");
    assert!(machine.installed("opt/note/note"));

    // What does not build in the sandbox is said in a line and left to emerge, which may have more luck.
    let output = machine.emerge(&peer, &["--oneshot", "app-misc/picky"]);
    assert_eq!(of_cpv(&jobs(&peer), "app-misc/picky-1.0")["state"], "failed");
    let told = stderr(&output);
    assert!(told.lines().any(|line| line.contains("app-misc/picky-1.0")), "{told}");
    assert!(output.status.success(), "{}", both(&output));
    assert_eq!(machine.handed().last().map(String::as_str), Some("app-misc/picky"));
}

#[test]
fn pretending_and_asking_build_nothing() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let peer = machine.start("on_miss = \"sandbox\"");
    for words in [
        &["--pretend", "app-misc/note"][..],
        &["-p", "app-misc/note"],
        &["-1pv", "app-misc/note"],
        &["app-misc/note", "--pretend"],
        &["-av", "--pretend", "app-misc/note"],
    ] {
        let output = machine.emerge(&peer, words);
        assert!(output.status.success(), "{words:?}: {}", both(&output));
        assert!(stdout(&output).contains("app-misc/note-1.0"), "{words:?}: {}", both(&output));
        assert!(stderr(&output).contains("1 package"), "the weather is told: {}", stderr(&output));
        assert!(jobs(&peer).is_empty(), "{words:?}");
        assert_eq!(machine.handed(), [&["--getbinpkg"], words].concat());
        is_plain(&stderr(&output));
    }
    assert!(!machine.installed("opt/note/note"));
    // Nobody is there to be asked: emerge says no by itself, and nothing was built before it did.
    let output = machine.emerge(&peer, &["--ask", "app-misc/note"]);
    assert!(jobs(&peer).is_empty(), "{}", both(&output));
}

#[test]
fn without_a_daemon_it_is_plain_emerge() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let peer = machine.start("");
    let control = peer.dir().join("control.sock");
    peer.does(&["build", "app-misc/one"]);
    let (_status, again) = peer.terminate();
    let words = ["--oneshot", "app-misc/note"];
    let output = machine.with(&control, &words);
    assert!(output.status.success(), "{}", both(&output));
    assert!(machine.installed("opt/note/note"));
    let handed = machine.handed();
    assert!(handed.ends_with(&words.map(str::to_owned)), "{handed:?}");
    let told = stderr(&output);
    assert!(told.lines().any(|line| line.contains("peer") && line.contains("emerge")), "it says so: {told}");

    // A daemon that hangs keeps nobody from installing.
    let peer = again.start();
    machine.knows(peer.status()["binhost"].as_str().unwrap());
    peer.signal("STOP");
    fs::remove_file(machine.builder.dir.join("root/etc/portage/binrepos.conf/peerage.conf")).unwrap();
    let output = machine.emerge(&peer, &["--oneshot", "--nodeps", "dev-libs/two"]);
    peer.signal("CONT");
    assert_eq!(machine.handed().last().map(String::as_str), Some("dev-libs/two"), "{}", both(&output));
}

#[test]
fn words_exit_code_and_process_are_those_of_emerge() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let peer = machine.start("on_miss = \"sandbox\"");
    let before = jobs(&peer);
    for words in [
        &["--version"][..],
        &["-V"],
        &["--info"],
        &["--search", "note"],
        &["-s", "note"],
        &["--searchdesc", "test"],
        &["--help"],
        &["--list-sets"],
        &["--depclean", "--pretend"],
        &["-cp"],
        &["--unmerge", "app-misc/note"],
        &["-C", "app-misc/note"],
        &["--sync", "nosuchrepository"],
        &["--nosuchoption"],
        &["--check-news"],
        &[],
    ] {
        let plain = machine.plain(words);
        fs::remove_file(&machine.handed).unwrap();
        let output = machine.emerge(&peer, words);
        assert_eq!(machine.handed(), words, "unchanged");
        assert_eq!(output.status.code(), plain.status.code(), "{words:?}: {}", both(&output));
        assert!(
            !stderr(&output).contains("package:") && !stderr(&output).contains("packages:"),
            "no weather: {}",
            stderr(&output)
        );
    }
    // What emerge refuses it refuses as before: a package that is not there, a build that fails.
    machine.builder.ebuild("app-misc/broken-1.0", "SLOT=\"0\"\nsrc_compile() { die broken; }\n", &[]);
    for words in [&["app-misc/nothing"][..], &["--oneshot", "app-misc/broken"], &["--pretend", "app-misc/nothing"]] {
        let plain = machine.plain(words);
        let output = machine.emerge(&peer, words);
        assert_eq!(machine.handed(), [&["--getbinpkg"], words].concat());
        assert_eq!(output.status.code(), plain.status.code(), "{words:?}: {}", both(&output));
        assert_ne!(output.status.code(), Some(0), "{words:?}");
    }
    // Only the build that was asked for by a word that installs.
    let begun: Vec<Value> = jobs(&peer).iter().map(|job| job["cpv"].clone()).collect();
    assert!(before.is_empty() && begun.iter().all(|cpv| cpv == "app-misc/broken-1.0"), "{begun:?}");

    // What the user says about binary packages stands.
    for own in ["--getbinpkg=n", "--getbinpkgonly", "-g", "--usepkg=n", "-K"] {
        machine.emerge(&peer, &[own, "--pretend", "app-misc/note"]);
        assert_eq!(machine.handed(), [own, "--pretend", "app-misc/note"]);
    }
    // Words are bytes.
    let strange = std::ffi::OsStr::from_bytes(b"--exclude=a b\n\xff*");
    let mut command = machine.command(&peer.dir().join("control.sock"), env!("CARGO_BIN_EXE_peer"));
    let mut child = command
        .args(["emerge", "--pretend"])
        .arg(strange)
        .arg("app-misc/note")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id();
    assert!(wait::exit_within(&mut child, wait::DEADLINE).is_some());
    let handed = fs::read(&machine.handed).unwrap();
    assert!(handed.windows(strange.len()).any(|words| words == strange.as_bytes()), "{handed:?}");
    let process = fs::read_to_string(machine.builder.dir.join("process")).unwrap();
    assert_eq!(process, id.to_string(), "the process became emerge: signals and the terminal are its own");
}
