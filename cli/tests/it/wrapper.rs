//! `peer emerge`: the real Portage behind it, with packages made ready before, and alone where nothing can be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::tempdir;

use crate::builder::{Builder, came, jobs, portage};
use crate::gentoo::checkout;
use crate::peer::{TestPeer, both};
use crate::wait;

/// The words that tests need of emerge.
const WORDS: [&str; 3] = ["--oneshot", "--color=n", "--ask=n"];

/// A machine where `emerge` is the real one, in a root of its own, with the binhost of a node in its binrepos.conf.
pub(crate) struct Wrapped<'a> {
    machine: &'a Builder,
    dir: PathBuf,
    control: PathBuf,
    mirror: String,
}

impl<'a> Wrapped<'a> {
    pub(crate) fn new(machine: &'a Builder, peer: &TestPeer) -> Self {
        let dir = machine.dir.join("client");
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let script = format!(
            "#!/bin/sh\nexec {} {} emerge \"$@\"\n",
            checkout().join("examples/portage").display(),
            dir.display()
        );
        fs::write(bin.join("emerge"), script).unwrap();
        fs::set_permissions(bin.join("emerge"), fs::Permissions::from_mode(0o755)).unwrap();
        let etc = dir.join("etc/portage/binrepos.conf");
        fs::create_dir_all(&etc).unwrap();
        let section = format!(
            "[peerage]\npriority = 10\nsync-uri = {}\nverify-signature = true\nlocation = {}\n",
            peer.status()["binhost"].as_str().unwrap(),
            dir.join("binhost").display()
        );
        fs::write(etc.join("peerage.conf"), section).unwrap();
        peer.json(&["key", "init", "--keyring", machine.keyring().to_str().unwrap()]);
        Self { machine, dir, control: peer.dir().join("control.sock"), mirror: peer.url() }
    }

    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &self.dir).env("PORTAGE_CONFIGROOT", &self.dir);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.dir.join("bin").display()));
        command.env("PEERAGE_PORTAGE", portage()).env("REPOS", &self.machine.repo.dir).env("FEATURES", "force-mirror");
        command.env("GENTOO_MIRRORS", &self.mirror);
        command
    }

    /// `peer emerge WORD…`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_peer"));
        command.arg("--control").arg(&self.control).arg("emerge").args(words);
        command
    }

    /// `emerge WORD…`.
    pub(crate) fn plain(&self, words: &[&str]) -> Command {
        let mut command = self.program(self.dir.join("bin/emerge").to_str().expect("temporary paths are text"));
        command.args(words);
        command
    }

    /// Whether something is installed.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.dir.join("root").join(path).exists()
    }

    pub(crate) fn emerge(&self, words: &[&str]) -> Output {
        wait::run(&mut self.command(words))
    }

    pub(crate) fn does(&self, words: &[&str]) -> String {
        let output = self.emerge(&[&WORDS[..], words].concat());
        assert!(output.status.success(), "{}", both(&output));
        both(&output)
    }
}

#[test]
fn emerge_installs_what_was_built_before_it_and_only_shows_when_it_is_to_show() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start_with("on_miss = \"sandbox\"").start();
    machine.import(&peer);
    let wrapped = Wrapped::new(&machine, &peer);

    let shown = wrapped.does(&["--pretend", "app-misc/one"]);
    assert!(shown.contains("peer: 2 packages: 0 here, 0 from others, 2 to build here"), "{shown}");
    assert!(shown.contains("build app-misc/one-1.0: nobody is trusted to build it"), "{shown}");
    assert!(jobs(&peer).is_empty(), "nothing is made when emerge only shows");

    let said = wrapped.does(&["app-misc/one"]);
    assert!(said.contains("built dev-libs/two-1.0") && said.contains("built app-misc/one-1.0"), "{said}");
    assert_eq!(said.matches("Emerging binary").count(), 2, "{said}");
    let ran = wait::run(&mut Command::new(wrapped.dir.join("root/usr/bin/one")));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "one two color\n");

    // The user's own word about binary packages stands.
    let said = wrapped.does(&["--pretend", "--getbinpkg=n", "dev-libs/two"]);
    assert!(said.contains("[ebuild") && !said.contains("[binary"), "{said}");
}

#[test]
fn what_a_trusted_peer_has_is_fetched_and_the_rest_is_left_to_emerge() {
    let dir = tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let strong = Builder::new(&dir.path().join("strong"));
    let node = strong.start_with("share = \"lan\"").start();
    strong.import(&node);
    let strong = node;
    strong.does(&["build", "dev-libs/two"]);
    let weak = Builder::new(&dir.path().join("weak"));
    weak.ebuild("app-misc/note-1.0", "SLOT=\"0\"\nsrc_install() { echo hi > note; insinto /opt; doins note; }\n", &[]);
    let node = weak.start_with("").knows(&strong).start();
    node.wait_for_peers(1);
    node.does(&["trust", "add", &strong.peer_id(), "--packages", "*/*"]);
    let wrapped = Wrapped::new(&weak, &node);

    let said = wrapped.does(&["dev-libs/two", "app-misc/note"]);
    assert!(said.contains("peer: 2 packages: 0 here, 1 from others, 1 to build here"), "{said}");
    assert_eq!(came(&node, "dev-libs/two-1.0"), ("substitute".into(), strong.peer_id().into()));
    assert_eq!(jobs(&node).len(), 1, "what nobody has is left to emerge");
    assert!(said.contains("Emerging binary") && wrapped.dir.join("root/opt/note").is_file(), "{said}");
}

#[test]
fn emerge_runs_alone_where_the_daemon_does_not_and_its_exit_code_is_the_last_word() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let wrapped = Wrapped::new(&machine, &peer);
    let none = wrapped.emerge(&["--color=n", "app-misc/none"]);
    assert_eq!(none.status.code(), Some(1), "{}", both(&none));
    assert!(both(&none).contains("there are no ebuilds to satisfy"), "{}", both(&none));
    let version = wrapped.emerge(&["--version"]);
    assert!(both(&version).contains("Portage"), "words of emerge are emerge's: {}", both(&version));
    assert!(!both(&version).contains("peer:"), "{}", both(&version));

    let (_, _) = peer.terminate();
    let said = wrapped.does(&["--pretend", "dev-libs/two"]);
    assert!(said.contains("cannot reach the daemon") && said.contains("[ebuild"), "{said}");
}
