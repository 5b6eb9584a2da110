//! Binary packages signed by this node, and what the real Portage with the real gpg thinks of them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::openpgp::OpenPgpKey;
use tempfile::tempdir;
use tree::gpkg::Gpkg;
use tree::gpkg_write::{GpkgSigner, rewrite};

use crate::gentoo::{Repo, checkout};
use crate::peer::{Start, both, peer};
use crate::wait;

/// `verify-signature = true`, as Portage reads it from binrepos.conf: what it thinks of each file, a word a line.
const VERIFY: &str = "
import sys, portage
from portage.gpkg import gpkg
settings = portage.config(clone=portage.settings)
settings['BINPKG_GPG_VERIFY_GPG_HOME'] = sys.argv[1]
settings.backup_changes('BINPKG_GPG_VERIFY_GPG_HOME')
for path in sys.argv[2:]:
    try:
        gpkg(settings, None, path, verify_signature=True)._verify_binpkg()
        print('good')
    except portage.exception.PortageException as error:
        print(type(error).__name__)
";

/// The binhosts of a machine's binrepos.conf as Portage reads them, one a line, in its order of asking.
const BINREPOS: &str = "
import os, sys, portage
from portage.binrepo.config import BinRepoConfigLoader
root = portage.settings['PORTAGE_CONFIGROOT']
loaded = BinRepoConfigLoader([os.path.join(root, 'etc/portage/binrepos.conf')], portage.settings)
for repo in reversed(list(loaded.values())):
    print(repo.name, repo.sync_uri, repo.verify_signature, repo.location)
";

/// A machine with the real Portage, and one ebuild that needs no sources.
struct Machine {
    dir: PathBuf,
    repo: Repo,
}

impl Machine {
    fn new(dir: &Path) -> Self {
        // Portage verifies as nobody, who must come this far.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let repo = Repo::new(dir, "main");
        let text = "EAPI=8\nDESCRIPTION=\"x\"\nHOMEPAGE=\"https://example.invalid/\"\nLICENSE=\"Example\"\nSLOT=\"0\"\n\
                    KEYWORDS=\"amd64\"\nS=\"${WORKDIR}\"\nsrc_install() { echo hi > note; insinto /opt; doins note; }\n";
        repo.write("app-misc/note/note-1.0.ebuild", text);
        repo.write("app-misc/note/Manifest", "");
        let home = dir.join("gnupg");
        let defaults = format!("\nBINPKG_GPG_VERIFY_GPG_HOME=\"{}\"\n", home.display());
        let base = fs::read_to_string(repo.dir.join("profiles/base/make.defaults")).unwrap();
        repo.write("profiles/base/make.defaults", &(base + &defaults));
        Self { dir: dir.to_owned(), repo }
    }

    fn keyring(&self) -> PathBuf {
        self.dir.join("gnupg")
    }

    fn emerge(&self, features: &str, words: &[&str]) -> Output {
        let portage = std::env::var_os("PEERAGE_PORTAGE").expect("PEERAGE_PORTAGE is set by ./test");
        let mut command = Command::new(checkout().join("examples/portage"));
        command.arg(self.dir.join("portage")).args(["emerge", "--nodeps", "--oneshot", "--color=n"]).args(words);
        command.env("PEERAGE_PORTAGE", portage).env("REPOS", &self.repo.dir).env("FEATURES", features);
        wait::run(command.env_remove("PYTHONPATH"))
    }

    /// The unsigned package as Portage builds it.
    fn package(&self) -> PathBuf {
        let output = self.emerge("", &["--buildpkgonly", "app-misc/note"]);
        assert!(output.status.success(), "{}", both(&output));
        let dir = self.dir.join("portage/binpkgs/app-misc/note");
        let mut found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let package = found.find(|path| path.to_string_lossy().ends_with(".gpkg.tar")).unwrap();
        fs::canonicalize(package).unwrap()
    }

    /// What Portage thinks of these files.
    fn verdicts(&self, packages: &[&Path]) -> Vec<String> {
        let keyring = self.keyring();
        self.asks(VERIFY, &[&[keyring.as_path()], packages].concat())
    }

    /// The lines that a script in Portage's own Python prints.
    fn asks(&self, script: &str, arguments: &[&Path]) -> Vec<String> {
        let mut command = Command::new(std::env::var_os("PEERAGE_PYTHON").expect("PEERAGE_PYTHON is set by ./test"));
        command.args(["-I", "-c", script]).args(arguments);
        let configroot = self.dir.join("portage");
        let output = wait::run(command.env("PORTAGE_CONFIGROOT", configroot).env("PORTAGE_REPOSITORIES", ""));
        assert!(output.status.success(), "{}", both(&output));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// The package written anew, signed or not.
fn rewritten(package: &Path, to: &Path, key: Option<&OpenPgpKey>) -> PathBuf {
    let gpkg = Gpkg::read(File::open(package).unwrap()).unwrap();
    let mut signer = key;
    let signer = signer.as_mut().map(|signer| signer as &mut dyn GpkgSigner);
    rewrite(File::open(package).unwrap(), &gpkg, File::create(to).unwrap(), signer).unwrap();
    to.to_owned()
}

/// The file with one byte changed behind the first place where `mark` stands.
fn spoiled(package: &Path, to: &Path, mark: &str, behind: usize) -> PathBuf {
    let mut bytes = fs::read(package).unwrap();
    let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()).unwrap() + behind;
    bytes[at] ^= 1;
    fs::write(to, bytes).unwrap();
    to.to_owned()
}

#[test]
fn portage_takes_what_this_node_signed_and_nothing_else() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let node = Start::new(&dir.path().join("node")).repo(&machine.repo).start();
    let keyring = machine.keyring();
    let words = |verb| ["key", verb, "--keyring", keyring.to_str().unwrap()];
    assert_eq!(node.verb(&words("show")).status.code(), Some(1), "there is no key yet");
    let made = node.json(&words("init"));
    assert_eq!((&made["made"], &made["trusted"]), (&true.into(), &true.into()), "{made}");
    let again = node.json(&words("init"));
    assert_eq!((&again["made"], &again["fingerprint"]), (&false.into(), &made["fingerprint"]), "{again}");

    let secret = PathBuf::from(made["path"].as_str().unwrap());
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o600);
    let ours = OpenPgpKey::load(&secret).unwrap().unwrap();
    assert_eq!(made["fingerprint"], ours.fingerprint());
    let stranger = OpenPgpKey::generate(ours.user_id()).unwrap();

    let built = machine.package();
    let to = |name: &str| dir.path().join(name).with_extension("gpkg.tar");
    let signed = rewritten(&built, &to("signed"), Some(&ours));
    let packages = [
        (&signed, true),
        (&rewritten(&signed, &to("again"), Some(&ours)), true),
        (&built, false),
        (&rewritten(&signed, &to("unsigned"), None), false),
        (&rewritten(&built, &to("stranger"), Some(&stranger)), false),
        (&spoiled(&signed, &to("image"), "/image.tar", 530), false),
        (&spoiled(&signed, &to("manifest"), "SHA512 ", 9), false),
    ];
    let paths: Vec<&Path> = packages.iter().map(|(path, _)| path.as_path()).collect();
    let verdicts = machine.verdicts(&paths);
    let taken: Vec<bool> = verdicts.iter().map(|verdict| verdict == "good").collect();
    let wanted: Vec<bool> = packages.iter().map(|(_, wanted)| *wanted).collect();
    assert_eq!(taken, wanted, "{verdicts:?}");

    // The whole way: emerge installs the signed one, and refuses it once the key is taken out of the keyring.
    let demanding = "binpkg-request-signature -pkgdir-index-trusted";
    let install = || machine.emerge(demanding, &["--usepkgonly", "app-misc/note"]);
    let installed = dir.path().join("portage/root/opt/note");
    let refused = || {
        let output = install();
        assert!(!output.status.success() && !installed.exists(), "{}", both(&output));
        both(&output)
    };
    assert!(refused().contains("appears unsigned"));
    fs::copy(&signed, &built).unwrap();
    let output = install();
    assert!(output.status.success(), "{}", both(&output));
    assert_eq!(fs::read_to_string(&installed).unwrap(), "hi\n");
    fs::remove_file(&installed).unwrap();
    let undone = node.json(&[&words("init")[..], &["--undo"]].concat());
    assert_eq!(undone["trusted"], false, "{undone}");
    assert!(refused().contains("unknown key"));
}

#[test]
fn the_public_key_can_be_shown_without_the_keyring_and_the_secret_never_leaves_its_file() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    let keyring = dir.path().join("gnupg");
    let keyring = keyring.to_str().unwrap();
    node.does(&["key", "init", "--keyring", keyring]);
    let armored = node.does(&["key", "show", "--armor"]);
    assert!(armored.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), "{armored}");
    let shown = node.does(&["key", "show", "--keyring", keyring]);
    assert!(shown.contains(&format!("user_id Peerage node {}\n", node.peer_id())), "{shown}");
    assert!(shown.contains("\ntrusted yes\n"), "{shown}");
    let shown = node.does(&["key", "show", "--keyring", dir.path().join("none").to_str().unwrap()]);
    assert!(shown.contains("\ntrusted no\n"), "{shown}");
    let all = [&armored, &shown, &node.log(), &node.json(&["key", "show"]).to_string()].map(String::as_str).concat();
    assert!(!all.contains("PRIVATE"), "{all}");

    let (_, start) = node.terminate();
    let node = start.start();
    assert_eq!(node.does(&["key", "show", "--armor"]), armored, "the key survives the restart");
    let (_, _) = node.terminate();
    let gone = peer(dir.path(), &["key", "show", "--control", dir.path().join("no.sock").to_str().unwrap()]);
    assert_eq!(gone.status.code(), Some(3), "{}", both(&gone));
}

#[test]
fn portage_reads_the_binhost_that_setup_wrote_and_doctor_finds_it_in_order_once_the_key_is_trusted() {
    let dir = tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let node = Start::new(&dir.path().join("node")).repo(&machine.repo).start();
    let root = dir.path().join("portage");
    let etc = root.join("etc/portage");
    fs::create_dir_all(etc.join("binrepos.conf")).unwrap();
    let others =
        "[gentoo]\npriority = 9999\nsync-uri = https://b.example.invalid/binpackages\nverify-signature = false\n";
    fs::write(etc.join("binrepos.conf/gentoobinhost.conf"), others).unwrap();
    fs::write(etc.join("make.conf"), "").unwrap();
    std::os::unix::fs::symlink(machine.repo.dir.join("profiles/base"), etc.join("make.profile")).unwrap();
    let flags = ["--config-root", root.to_str().unwrap(), "--http", "127.0.0.1:0"];
    let repo = ["--repo", machine.repo.dir.to_str().unwrap()];
    let doctor = || node.json(&[&["doctor"], &flags[..], &repo[..]].concat())["checks"].clone();
    let state = |checks: &serde_json::Value, name: &str| {
        let mut checks = checks.as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).map(|check| check["state"].as_str().unwrap().to_owned())
    };
    let before = doctor();
    assert_eq!(state(&before, "binrepos.conf").as_deref(), Some("info"), "{before}");
    assert_eq!(state(&before, "signing key").as_deref(), Some("info"), "{before}");
    node.does(&[&["setup", "--yes"], &flags[..]].concat());
    let binhost = node.status()["binhost"].as_str().unwrap().to_owned();
    let ours = format!("peerage {binhost} True /var/cache/binhost/peerage");
    let read = machine.asks(BINREPOS, &[]);
    assert_eq!((read.len(), &read[0]), (2, &ours), "{read:?}");

    node.does(&[&["key", "init"], &flags[..]].concat());
    assert!(etc.join("gnupg/trustdb.gpg").is_file(), "below the same root, when make.conf names no other");
    let after = doctor();
    for name in ["binrepos.conf", "signing key", "keyring"] {
        assert_eq!(state(&after, name).as_deref(), Some("ok"), "{after}");
    }
    node.does(&[&["key", "init", "--undo"], &flags[..]].concat());
    let undone = doctor();
    assert_eq!(state(&undone, "keyring").as_deref(), Some("warn"), "{undone}");
    node.does(&[&["setup", "--undo", "--yes"], &flags[..]].concat());
    assert_eq!(fs::read_dir(etc.join("binrepos.conf")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(etc.join("binrepos.conf/gentoobinhost.conf")).unwrap(), others);
}
