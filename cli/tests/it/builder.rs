//! `Builder`: a machine that builds. A repository with a library and a program that needs it, sources in C, the
//! configuration of a Portage, and a daemon whose sandbox sees the private Portage of the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::gentoo::{Repo, Source, checkout};
use crate::peer::{Start, TestPeer};
use crate::wait;

/// The library's header, and what its program prints.
const TWO_C: &str = "const char *two(void) { return \"two\"; }\n";
const ONE_C: &str = "#include <two.h>\n#include <stdio.h>\n#ifdef COLOR\n#define KIND \"color\"\n#else\n#define KIND \"plain\"\n\
                     #endif\nint main(void) { printf(\"one %s %s\\n\", two(), KIND); return 0; }\n";
/// A static library, so that the program runs from any root.
const TWO_MAKE: &str = "libtwo.a: two.c\n\t$(CC) $(CFLAGS) -c -o two.o two.c\n\t$(AR) rcs $@ two.o\ninstall:\n\tinstall -Dm644 \
                        libtwo.a $(DESTDIR)/usr/lib/libtwo.a\n\tinstall -Dm644 two.h $(DESTDIR)/usr/include/two.h\n";
const ONE_MAKE: &str =
    "one: one.c\n\t$(CC) $(CFLAGS) -o $@ one.c -ltwo\ninstall:\n\tinstall -D one $(DESTDIR)/usr/bin/one\n";

/// One machine.
pub(crate) struct Builder {
    pub(crate) dir: PathBuf,
    pub(crate) repo: Repo,
}

/// A line of `[build]`: packages are given to strangers nearby too, and announced.
pub(crate) const LAN: &str = "share = \"lan\"";

/// The private Portage of the tests.
pub(crate) fn portage() -> PathBuf {
    std::env::var_os("PEERAGE_PORTAGE")
        .expect("PEERAGE_PORTAGE is set by ./test; by hand: set -a; eval \"$(./test --prepare)\"")
        .into()
}

impl Builder {
    /// A machine in `dir` with `dev-libs/two` and `app-misc/one`, which needs it to be built and run.
    pub(crate) fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a test can write");
        // Portage verifies signatures as nobody, who must come this far.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let repo = Repo::new(dir, "main");
        repo.write("profiles/categories", "app-misc\ndev-libs\n");
        let machine = Self { dir: dir.to_owned(), repo };
        let two = machine
            .source("two-1.0", &[("two.c", TWO_C), ("two.h", "const char *two(void);\n"), ("Makefile", TWO_MAKE)]);
        machine.ebuild("dev-libs/two-1.0", "SLOT=\"0/1\"\n", &[&two]);
        let one = machine.source("one-1.0", &[("one.c", ONE_C), ("Makefile", ONE_MAKE)]);
        machine.ebuild(
            "app-misc/one-1.0",
            "SLOT=\"0\"\nIUSE=\"+color debug\"\nDEPEND=\"dev-libs/two:=\"\nRDEPEND=\"dev-libs/two:=\"\n\
             src_compile() { use color && CFLAGS+=\" -DCOLOR\"; emake CC=gcc CFLAGS=\"${CFLAGS}\"; }\n",
            &[&one],
        );
        machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2 -pipe\"\nCXXFLAGS=\"${CFLAGS}\"\n");
        let profile = machine.dir.join("root/etc/portage/make.profile");
        std::os::unix::fs::symlink(machine.repo.dir.join("profiles/base"), profile).expect("a test can write");
        machine
    }

    /// Writes below `/etc/portage`.
    pub(crate) fn etc(&self, path: &str, content: &str) {
        let path = self.dir.join("root/etc/portage").join(path);
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a test can write");
        fs::write(path, content).expect("a test can write");
    }

    /// A tar of sources, always with the same bytes.
    pub(crate) fn source(&self, name: &str, files: &[(&str, &str)]) -> Source {
        let tree = self.dir.join("trees");
        for (file, content) in files {
            let path = tree.join(name).join(file);
            fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a test can write");
            fs::write(path, content).expect("a test can write");
        }
        let sources = self.dir.join("sources");
        fs::create_dir_all(&sources).expect("a test can write");
        let tar = sources.join(format!("{name}.tar"));
        let mut command = Command::new("tar");
        command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(&tree);
        let made = wait::run(command.arg("-cf").arg(&tar).arg(name));
        assert!(made.status.success(), "tar makes sources");
        Source::at(&tar, &format!("{name}.tar"))
    }

    /// An ebuild `category/name-version`; `body` says SLOT and what else it needs.
    pub(crate) fn ebuild(&self, cpv: &str, body: &str, sources: &[&Source]) {
        let (category, pf) = cpv.split_once('/').expect("a test writes category/name-version");
        let (name, _version) = pf.rsplit_once('-').expect("a test writes category/name-version");
        let uris: Vec<String> =
            sources.iter().map(|source| format!("https://example.invalid/{}", source.name)).collect();
        let without = if sources.is_empty() { "S=\"${WORKDIR}\"\n" } else { "" };
        let text = format!(
            "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.invalid/\"\nSRC_URI=\"{}\"\nLICENSE=\"Example\"\n\
             KEYWORDS=\"amd64\"\n{without}{body}",
            uris.join(" ")
        );
        self.repo.write(&format!("{category}/{name}/{pf}.ebuild"), &text);
        let lines: String = sources.iter().map(|source| source.manifest_line()).collect();
        self.repo.write(&format!("{category}/{name}/Manifest"), &lines);
    }

    /// How its daemon is started, with more lines for the `[build]` section.
    pub(crate) fn start_with(&self, build: &str) -> Start {
        let portage = portage();
        let portage = portage.display();
        let config = format!("[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\"]\n{build}\n");
        Start::new(&self.dir)
            .config(&config)
            .repo(&self.repo)
            .flag("--config-root", self.dir.join("root").to_str().expect("temporary paths are text"))
    }

    /// Its daemon, with the sources in the store and no way to fetch any.
    pub(crate) fn start(&self) -> TestPeer {
        let peer = self.start_with("").start();
        self.import(&peer);
        peer
    }

    /// As [`Builder::start`], giving its packages to strangers too.
    pub(crate) fn start_for_everybody(&self) -> TestPeer {
        let peer = self.start_with(LAN).start();
        self.import(&peer);
        peer
    }

    /// Takes all sources into the store.
    pub(crate) fn import(&self, peer: &TestPeer) {
        peer.import(&self.dir.join("sources"));
    }

    /// `emerge` of the real Portage with this machine's repository, in a root of its own below `name`; binrepos.conf
    /// leads to the binhost of `peer`, whose signatures are asked for. The keyring is that of `keyring`.
    pub(crate) fn emerge(&self, name: &str, binhost: &str, words: &[&str]) -> Output {
        self.emerge_through(&[], name, binhost, words)
    }

    /// The same, with words before it that make it run elsewhere.
    pub(crate) fn emerge_through(&self, before: &[&str], name: &str, binhost: &str, words: &[&str]) -> Output {
        let dir = self.dir.join(name);
        let etc = dir.join("etc/portage");
        fs::create_dir_all(etc.join("binrepos.conf")).expect("a test can write");
        let section = format!(
            "[peerage]\npriority = 10\nsync-uri = {binhost}\nverify-signature = true\nlocation = {}\n",
            dir.join("binhost").display()
        );
        fs::write(etc.join("binrepos.conf/peerage.conf"), section).expect("a test can write");
        let program = checkout().join("examples/portage");
        let mut all = before.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(all.next().expect("the program itself"));
        command.args(all).arg(&dir).args(["emerge", "--oneshot", "--color=n", "--ask=n"]).args(words);
        command.env("PEERAGE_PORTAGE", portage()).env("REPOS", &self.repo.dir).env("FEATURES", "");
        wait::run(command.env_remove("PYTHONPATH"))
    }

    /// Tells Portage of this machine's repository where the keyring is.
    pub(crate) fn keyring(&self) -> PathBuf {
        let keyring = self.dir.join("gnupg");
        let path = self.repo.dir.join("profiles/base/make.defaults");
        let base = fs::read_to_string(&path).expect("the profile is there");
        let line = format!("\nBINPKG_GPG_VERIFY_GPG_HOME=\"{}\"\n", keyring.display());
        if !base.contains(&line) {
            fs::write(path, base + &line).expect("a test can write");
        }
        keyring
    }
}

/// The jobs a daemon tells of, newest first.
pub(crate) fn jobs(peer: &TestPeer) -> Vec<Value> {
    let all = peer.json(&["jobs", "--all"]);
    all["jobs"].as_array().expect("a list of jobs").clone()
}

/// The binary packages of an atom in a daemon's binhost.
pub(crate) fn binpkgs(peer: &TestPeer, atom: &str) -> Vec<Value> {
    let shown = peer.json(&["show", atom]);
    shown["binpkgs"].as_array().expect("a list of packages").clone()
}

/// What a daemon would do for these atoms, a package each.
pub(crate) fn planned(peer: &TestPeer, atoms: &[&str]) -> Vec<Value> {
    let plan = peer.json(&[&["build", "--pretend"], atoms].concat());
    assert_eq!(plan["event"], "planned", "{plan}");
    plan["packages"].as_array().expect("a list of packages").clone()
}

/// The package of this name and version among some of JSON.
pub(crate) fn of_cpv<'a>(all: &'a [Value], cpv: &str) -> &'a Value {
    all.iter().find(|one| one["cpv"] == cpv).unwrap_or_else(|| panic!("{cpv} is not among {all:?}"))
}

/// How a package came to a node: source and builder of its job.
pub(crate) fn came(node: &TestPeer, cpv: &str) -> (Value, Value) {
    let all = jobs(node);
    let job = of_cpv(&all, cpv);
    assert_eq!(job["state"], "done", "{job}");
    (job["source"].clone(), job["builder"].clone())
}

/// What [`came`] says of a package that was built and not taken from anybody.
pub(crate) fn built_here() -> (Value, Value) {
    ("build".into(), Value::Null)
}

/// The signed package of an atom, as a node's binhost has it: its digest and its bytes.
pub(crate) fn package(node: &TestPeer, cpv: &str) -> (String, Vec<u8>) {
    let held = binpkgs(node, &format!("={cpv}"));
    let digest = held[0]["digest"].as_str().unwrap().to_owned();
    let binhost = node.status()["binhost"].as_str().unwrap().to_owned();
    let base = binhost.trim_start_matches(&node.url()).to_owned();
    let index = String::from_utf8(node.get(&format!("{base}/Packages")).body).unwrap();
    let path =
        index.lines().filter_map(|line| line.strip_prefix("PATH: ")).find(|path| path.contains(&digest)).unwrap();
    (digest, node.get(&format!("{base}/{path}")).body)
}
