//! `Machine`: repositories with slots, masks and USE flags, and sets as people write them; what the real Portage takes of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::builder::portage;
use crate::gentoo::{Repo, Source};
use crate::noise::noise;
use crate::peer::{Start, TestPeer, both};
use crate::wait;

/// What a daemon asks Portage with.
pub(crate) const CHOOSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon/src/targets/choose.py");
const ANSWERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/selection_answers.py");

/// Ebuilds of the main repository and of an overlay, each with a distfile of its name: what follows KEYWORDS="amd64".
const MAIN: &[(&str, &str)] = &[
    ("dev-lang/py-3.11.1", "SLOT=3.11\n"),
    ("dev-lang/py-3.11.9", "SLOT=3.11\nKEYWORDS=~amd64\n"),
    ("dev-lang/py-3.12.2", "SLOT=3.12\n"),
    ("dev-lang/py-3.13.0", "SLOT=3.13/3.13t\n"),
    ("dev-lang/py-3.14.0_beta1", "SLOT=3.14\nKEYWORDS=~amd64\n"),
    ("sys-kernel/srcs-5.15.102", "SLOT=5.15.102\n"),
    ("sys-kernel/srcs-6.1.38", "SLOT=6.1.38\n"),
    ("sys-kernel/srcs-6.1.46", "SLOT=6.1.46\n"),
    ("sys-kernel/srcs-6.6.1", "SLOT=6.6.1\n"),
    ("dev-libs/so-1.0", "SLOT=0/1\n"),
    ("dev-libs/so-1.1-r1", "SLOT=0/1.1\n"),
    ("dev-libs/so-2.0", "SLOT=0/2\n"),
    ("app-misc/a-1", "SLOT=0\n"),
    ("app-misc/b-1", "SLOT=0\n"),
    ("app-misc/c-1", "SLOT=0\n"),
    ("app-misc/masked-1", "SLOT=0\n"),
    ("app-misc/masked-2", "SLOT=0\n"),
    ("app-misc/testing-1", "SLOT=0\nKEYWORDS=~amd64\n"),
    ("app-misc/other-1", "SLOT=0\nKEYWORDS='-* arm64'\n"),
    ("app-misc/live-1", "SLOT=0\n"),
    ("app-misc/live-9999", "SLOT=0\nKEYWORDS=\n"),
    ("app-misc/bound-1", "SLOT=0\n"),
    ("app-misc/bound-2", "SLOT=0\nLICENSE=Bad\n"),
    ("app-misc/flags-1", "SLOT=0\nIUSE='ssl +nls'\n"),
    ("app-misc/flags-2", "SLOT=0\nIUSE='+nls'\n"),
    ("app-misc/flags-3", "SLOT=0\nIUSE='gui'\n"),
    ("app-misc/gplus++-1.0", "SLOT=0\n"),
    ("kde-plasma/kwin-6", "SLOT=6\n"),
];
const OVER: &[(&str, &str)] =
    &[("app-misc/a-2", "SLOT=0\n"), ("app-misc/b-1", "SLOT=0\n"), ("app-misc/only-1", "SLOT=7\n")];

/// Atoms that a user may type.
const ATOMS: &[&str] = &[
    "dev-lang/py",
    "dev-lang/py:3.11",
    "dev-lang/py:3.12",
    "dev-lang/py:3.13",
    "dev-lang/py:3.13/3.13t",
    "dev-lang/py:3.13/3.13",
    "dev-lang/py:3.13=",
    "dev-lang/py:3.14",
    "dev-lang/py:3",
    "dev-lang/py:=",
    "dev-lang/py:*",
    "<dev-lang/py-3.12:3.11",
    ">=dev-lang/py-3.12:3.12",
    "=dev-lang/py-3.11*",
    "=dev-lang/py-3.14.0_beta1",
    "~dev-lang/py-3.12.2:3.12",
    "sys-kernel/srcs",
    "sys-kernel/srcs:5.15.102",
    "sys-kernel/srcs:6.1.38",
    "<sys-kernel/srcs-6.6",
    "=sys-kernel/srcs-6.1*",
    "=sys-kernel/srcs-6.1*:6.1.38",
    "dev-libs/so",
    "dev-libs/so:0",
    "dev-libs/so:0/1",
    "dev-libs/so:0/1.1",
    "dev-libs/so:0/2=",
    "dev-libs/so:0/3",
    "~dev-libs/so-1.1",
    "=dev-libs/so-1.1",
    "=dev-libs/so-1.1-r1",
    "app-misc/a",
    "app-misc/a::main",
    "app-misc/a::over",
    "app-misc/a:0::main",
    "=app-misc/a-1::over",
    "app-misc/a::nobody",
    "app-misc/b",
    "app-misc/b::over",
    "app-misc/only:7::over",
    "app-misc/only::main",
    "app-misc/masked",
    "=app-misc/masked-2",
    "app-misc/testing",
    "app-misc/other",
    "app-misc/live",
    "=app-misc/live-9999",
    "app-misc/bound",
    "=app-misc/bound-2",
    "app-misc/flags",
    "app-misc/flags[nls]",
    "app-misc/flags[-nls]",
    "app-misc/flags[ssl]",
    "app-misc/flags[-ssl]",
    "app-misc/flags[ssl(-)]",
    "app-misc/flags[ssl(+)]",
    "app-misc/flags[-ssl(-)]",
    "app-misc/flags[none]",
    "app-misc/flags:0::main[nls,-ssl]",
    "app-misc/gplus++",
    "kde-plasma/kwin:6",
    "app-misc/nothing",
];

/// Files of `/etc/portage/sets`.
const SETS: &[(&str, &[u8])] = &[
    ("slots", b"dev-lang/py:3.11\nsys-kernel/srcs:5.15.102\nsys-kernel/srcs:6.1.38\ndev-libs/so:0/1\n"),
    ("repos", b"app-misc/a::main\napp-misc/b::over\n"),
    ("usedep", b"<app-misc/flags-3[nls]\n=app-misc/flags-1[-ssl]\n"),
    ("weekly", b"@slots\n@system\n@profile\napp-misc/b\n"),
    ("glob", b"kde-plasma/*\n"),
    ("glob2", b"*/kwin\napp-misc/c\n"),
    ("minus", b"app-misc/a\n-app-misc/b\n"),
    ("conflict", b"app-misc/a\n<<<<<<< HEAD\napp-misc/b\n=======\n>>>>>>> x\n"),
    ("bare", b"vim\napp-misc/a\n"),
    ("latin", b"# gr\xfc\xdfe\napp-misc/a\n"),
    ("crlf", b"app-misc/a\r\napp-misc/b\r\n"),
    ("bom", b"\xef\xbb\xbfapp-misc/a\napp-misc/b\n"),
    ("trail", b"app-misc/a   # why\n   app-misc/b\n\t\n"),
    ("missing", b"@nothere\napp-misc/a\n"),
    ("sub/one", b"app-misc/a\n"),
    ("sub/.hidden", b"app-misc/a\n"),
    ("backup~", b"app-misc/a\n"),
    ("told.metadata", b"description:\nx\n"),
    ("gcc+tools", b"app-misc/gplus++\n"),
    ("dot.ted-1", b"app-misc/b\n"),
    ("slot-operator", b"app-misc/a:0/0\napp-misc/b:0=\n"),
    ("operators", b"=dev-lang/py-3.11*\n~dev-libs/so-1.1\n<app-misc/a-2\n"),
    ("circle", b"@ring\napp-misc/a\n"),
    ("ring", b"@circle\napp-misc/b\n"),
    ("hard", b"app-misc/masked\napp-misc/testing\napp-misc/live\n=app-misc/live-9999\n"),
    ("blocked", b"!app-misc/a\napp-misc/b\n"),
    ("empty", b"# nothing yet\n"),
    ("gone", b"app-misc/was-here\n"),
    ("nodist", b"app-misc/plain\n"),
];

/// Sets that files of the machine and of the repository make besides, and some that are none.
const OTHERS: &[&str] = &[
    "world",
    "selected",
    "selected-packages",
    "selected-sets",
    "system",
    "profile",
    "installed",
    "of-repo",
    "configured",
    "linked",
    "live-rebuild",
    "preserved-rebuild",
    "security-none",
    "one",
    "sub",
    ".hidden",
    "told.metadata",
    "nosuch",
    "../sets/slots",
];

/// A machine with these repositories and sets, as a user has them.
pub(crate) struct Machine {
    dir: TempDir,
    pub(crate) sources: PathBuf,
    repos: [Repo; 2],
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repos = [Repo::new(dir.path(), "main"), Repo::overlay(dir.path(), "over", "main")];
        let machine = Self { sources: dir.path().join("sources"), dir, repos };
        let categories = "app-misc\ndev-lang\ndev-libs\nkde-plasma\nsys-kernel\n";
        for (repo, ebuilds) in machine.repos.iter().zip([MAIN, OVER]) {
            repo.write("profiles/categories", categories);
            repo.write("licenses/Bad", "bad\n");
            machine.add(repo, ebuilds);
        }
        let main = &machine.repos[0];
        main.write(
            "app-misc/plain/plain-1.ebuild",
            "EAPI=8\nDESCRIPTION=x\nSLOT=0\nKEYWORDS=amd64\nS=\"${WORKDIR}\"\n",
        );
        main.write("profiles/package.mask", "=app-misc/masked-2\n");
        main.write("profiles/base/packages", "*app-misc/c\napp-misc/b\n");
        main.write(
            "sets.conf",
            "[of]\nclass = portage.sets.files.StaticFileSet\nmultiset = true\ndirectory = ${repository:main}/sets\n",
        );
        main.write("sets/of-repo", "app-misc/c\nnonsense\n");
        let etc = |path: &str, text: &[u8]| {
            let path = machine.root().join("etc/portage").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        etc("make.conf", b"GENTOO_MIRRORS=\"\"\nACCEPT_LICENSE=\"* -Bad\"\n");
        let [main, over] = [0, 1].map(|one| machine.repos[one].dir.display().to_string());
        etc(
            "repos.conf",
            format!("[DEFAULT]\nmain-repo = main\n[main]\nlocation = {main}\n[over]\nlocation = {over}\n").as_bytes(),
        );
        etc("package.use", b"=app-misc/flags-1 ssl\n");
        etc(
            "sets.conf",
            b"[configured]\nclass = portage.sets.base.DummyPackageSet\npackages = app-misc/a @slots @nowhere\n",
        );
        for (name, content) in SETS {
            etc(&format!("sets/{name}"), content);
        }
        symlink("slots", machine.root().join("etc/portage/sets/linked")).unwrap();
        symlink(machine.repos[0].dir.join("profiles/base"), machine.root().join("etc/portage/make.profile")).unwrap();
        machine.state(
            "world",
            b"dev-lang/py:3.11\n<<<<<<< HEAD\n# \xfc\n@weekly\nkde-plasma/*\napp-misc/a::main\napp-misc/was-here\n",
        );
        machine.state("world_sets", b"@conflict\napp-misc/c\n@gone-set\n");
        for (cpv, slot) in [("app-misc/b-0.9", "0"), ("dev-lang/py-3.12.0", "3.12"), ("app-misc/-MERGING-x-1", "0")] {
            let entry = machine.root().join("var/db/pkg").join(cpv);
            fs::create_dir_all(&entry).unwrap();
            let (category, pf) = cpv.split_once('/').unwrap();
            for (name, text) in [
                ("SLOT", slot),
                ("CATEGORY", category),
                ("PF", pf),
                ("EAPI", "8"),
                ("repository", "main"),
                ("COUNTER", "1"),
            ] {
                fs::write(entry.join(name), format!("{text}\n")).unwrap();
            }
        }
        // A Python prefix of its own, made of links, as in examples/portage.
        let prefix = machine.dir.path().join("prefix");
        for dir in ["work", "prefix/bin", "prefix/etc"] {
            fs::create_dir_all(machine.dir.path().join(dir)).unwrap();
        }
        fs::copy(portage().join("pyvenv.cfg"), prefix.join("pyvenv.cfg")).unwrap();
        for part in ["lib", "share"] {
            symlink(portage().join(part), prefix.join(part)).unwrap();
        }
        symlink("/usr/bin/python3", prefix.join("bin/python3")).unwrap();
        symlink(machine.root().join("etc/portage"), prefix.join("etc/portage")).unwrap();
        let repositories = fs::read_to_string(machine.root().join("etc/portage/repos.conf")).unwrap();
        for name in ["main", "over"] {
            let mut command = machine.python();
            command.arg(portage().join("bin/egencache")).args(["--repo", name, "--update", "--tolerant"]);
            command.arg(format!("--repositories-configuration={repositories}"));
            let output = wait::run(&mut command);
            assert!(output.status.success(), "{}", both(&output));
        }
        machine
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("machine")
    }

    /// Writes below `/var/lib/portage`.
    pub(crate) fn state(&self, name: &str, content: &[u8]) {
        let path = self.root().join("var/lib/portage").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn add(&self, repo: &Repo, ebuilds: &[(&str, &str)]) {
        let mut manifests: BTreeMap<String, String> = BTreeMap::new();
        for (number, (cpv, body)) in ebuilds.iter().enumerate() {
            let (category, pf) = cpv.split_once('/').unwrap();
            let name = pf.split("-1.1-r").next().unwrap();
            let name = if name == pf { pf.rsplit_once('-').unwrap().0 } else { name };
            let of = repo.dir.file_name().unwrap().to_str().unwrap();
            let file = format!("{of}-{pf}.tar");
            let source =
                Source::new(&self.sources, &file, &noise(number as u64 + if of == "main" { 1 } else { 1000 }, 3000));
            let text = format!(
                "EAPI=8\nDESCRIPTION=x\nHOMEPAGE=https://example.invalid/\nSRC_URI=https://example.invalid/{file}\nLICENSE=Example\n\
                 KEYWORDS=amd64\nS=\"${{WORKDIR}}\"\n{body}"
            );
            repo.write(&format!("{category}/{name}/{pf}.ebuild"), &text);
            manifests.entry(format!("{category}/{name}/Manifest")).or_default().push_str(&source.manifest_line());
        }
        manifests.iter().for_each(|(path, text)| repo.write(path, text));
    }

    /// The private Portage's Python, with this machine's configuration and state.
    fn python(&self) -> Command {
        let prefix = self.dir.path().join("prefix");
        let mut command = Command::new(prefix.join("bin/python3"));
        command.env_clear().env("LANG", "C.UTF-8").env("HOME", self.dir.path());
        command
            .env("PATH", format!("{}:{}:/usr/bin:/bin", prefix.join("bin").display(), portage().join("bin").display()));
        command.env("PEERAGE_PORTAGE", portage()).env("EPREFIX", "");
        command.env("PORTAGE_CONFIGROOT", self.root()).env("ROOT", self.root()).env("SYSROOT", self.root());
        for name in ["PORTAGE_TMPDIR", "DISTDIR", "PORTAGE_LOGDIR", "EMERGE_LOG_DIR"] {
            command.env(name, self.dir.path().join("work"));
        }
        command.env("PORTAGE_USERNAME", "root").env("PORTAGE_GRPNAME", "root");
        command.env(
            "FEATURES",
            "-userfetch -userpriv -usersandbox -sandbox -network-sandbox -ipc-sandbox -pid-sandbox -mount-sandbox",
        );
        command
    }

    /// What a script says of these.
    pub(crate) fn says(&self, script: &str, targets: &[String]) -> Value {
        let mut command = self.python();
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(targets).unwrap()).unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What Portage takes for each: the names of the ebuilds; none where it does not know the set.
    pub(crate) fn portage_takes(&self, targets: &[String]) -> Vec<Option<BTreeSet<String>>> {
        let all = self.says(ANSWERS, targets);
        let texts = |one: &Value| {
            one.as_array().map(|all| all.iter().map(|cpv| cpv.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>())
        };
        all.as_array().unwrap().iter().map(texts).collect()
    }

    pub(crate) fn start(&self) -> TestPeer {
        let portage = portage();
        let portage = portage.display();
        let config = format!("[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\"]\n");
        let dir = self.dir.path().join("node");
        let root = self.root();
        Start::new(&dir).config(&config).flag("--config-root", root.to_str().unwrap()).start()
    }
}

/// Every atom and set of the tables.
pub(crate) fn targets() -> Vec<String> {
    let sets = SETS.iter().map(|(name, _)| *name).chain(OTHERS.iter().copied());
    ATOMS.iter().map(|atom| (*atom).to_owned()).chain(sets.map(|name| format!("@{name}"))).collect()
}
