//! `Workshop`: machines that build for each other. They have the same repository, each at a place of its own, and their
//! builds wait where the test wants them to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::builder::{Builder, jobs, portage};
use crate::members::enrol;
use crate::peer::{Start, TestPeer, both};
use crate::wait;

/// A program that tells how it was configured: by USE, by CFLAGS, by its own settings and by a patch.
const MINE_C: &str = "#include <stdio.h>\n#ifdef WEAK\n#define WHO \"weak\"\n#else\n#define WHO \"nobody\"\n#endif\n#ifdef \
                      COLOR\n#define KIND \"color\"\n#else\n#define KIND \"plain\"\n#endif\nint main(void) {\n\tputs(\"hello \
                      \" WHO \" \" KIND);\n\treturn 0;\n}\n";
const MINE_MAKE: &str =
    "mine: mine.c\n\t$(CC) $(CFLAGS) -o $@ mine.c\ninstall:\n\tinstall -D mine $(DESTDIR)/usr/bin/mine\n";
/// What a user of one machine changes in it.
pub(crate) const MINE_PATCH: &str = "--- a/mine.c\n+++ b/mine.c\n@@ -11,5 +11,5 @@\n #endif\n int main(void) {\n-\tputs(\"hello \
                                     \" WHO \" \" KIND);\n+\tputs(\"welcome \" WHO \" \" KIND);\n \treturn 0;\n }\n";
pub(crate) const MINE: &str = "app-misc/mine-1.0";
pub(crate) const SLOW: &str = "app-misc/slow-1.0";
/// Bytes of noise in `app-misc/large`.
const LARGE: usize = 24 << 20;

/// A directory for machines, and what their builds wait for.
pub(crate) struct Workshop {
    dir: TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let workshop = Self { dir: tempdir().expect("a test can write") };
        fs::create_dir_all(workshop.flags()).expect("a test can write");
        // Portage verifies signatures as nobody, who must come this far.
        fs::set_permissions(workshop.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        workshop
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn flags(&self) -> PathBuf {
        self.dir.path().join("flags")
    }

    /// A machine of this name with the packages of [`Builder`] and
    /// - `app-misc/mine`, which shows how it was configured,
    /// - `app-misc/slow`, which waits in `src_compile` as long as builds are held,
    /// - `app-misc/large`, whose package is tens of megabytes,
    /// - `app-misc/broken`, which fails in `src_compile`.
    pub(crate) fn machine(&self, name: &str) -> Builder {
        let machine = Builder::new(&self.dir.path().join(name));
        let mine = machine.source("mine-1.0", &[("mine.c", MINE_C), ("Makefile", MINE_MAKE)]);
        machine.ebuild(
            MINE,
            "SLOT=\"0\"\nIUSE=\"+color debug\"\nsrc_compile() {\n\tuse color && CFLAGS+=\" -DCOLOR\"\n\temake CC=gcc \
             CFLAGS=\"${CFLAGS}\"\n}\nsrc_install() {\n\tdefault\n\tprintf '%s\\n' \"${CFLAGS}\" \"${EXTRA_ECONF}\" \
             > settings\n\tinsinto /opt/mine\n\tdoins settings\n}\n",
            &[&mine],
        );
        machine.ebuild(SLOW, &self.waiting(""), &[]);
        let noise = "SLOT=\"0\"\nsrc_install() {\n\tpython3 -c 'import random; random.seed(1); \
                     open(\"noise\", \"wb\").write(random.randbytes(SIZE))' || die\n\tinsinto /opt/large\n\tdoins noise\n}\n";
        machine.ebuild("app-misc/large-1.0", &noise.replace("SIZE", &LARGE.to_string()), &[]);
        machine.ebuild(
            "app-misc/broken-1.0",
            "SLOT=\"0\"\nsrc_compile() { echo 'no such thing, says the compiler' >&2; die 'it is broken'; }\n",
            &[],
        );
        machine
    }

    /// The rest of an ebuild that waits in `src_compile` as long as builds are held.
    pub(crate) fn waiting(&self, more: &str) -> String {
        let hold = self.flags().join("hold");
        format!(
            "SLOT=\"0\"\n{more}src_compile() {{\n\techo 'the wait begins'\n\twhile [[ -e {} ]]; do sleep 0.1; done\n\techo \
             'the wait is over'\n}}\nsrc_install() {{ echo slow > slow; insinto /opt/${{PN}}; doins slow; }}\n",
            hold.display()
        )
    }

    /// How the daemon of a machine is started, with more lines for its configuration; the first belong to `[build]`.
    pub(crate) fn start(&self, machine: &Builder, config: &str) -> Start {
        let portage = portage();
        let (portage, flags) = (portage.display(), self.flags());
        let name = machine.dir.file_name().expect("it has a name").to_string_lossy().into_owned();
        let text = format!(
            "[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\", \"{}\"]\n{config}\n[node]\nname = \
             \"{name}\"\n",
            flags.display()
        );
        Start::new(&machine.dir)
            .config(&text)
            .repo(&machine.repo)
            .flag("--config-root", machine.dir.join("root").to_str().expect("temporary paths are text"))
    }

    /// A machine and its daemon on loopback, with all sources.
    pub(crate) fn node(&self, name: &str) -> (Builder, TestPeer) {
        self.node_with(name, "")
    }

    /// The same, with more lines for its configuration.
    pub(crate) fn node_with(&self, name: &str, config: &str) -> (Builder, TestPeer) {
        let machine = self.machine(name);
        let node = self.start(&machine, config).start();
        machine.import(&node);
        (machine, node)
    }

    /// A weak machine that may have builds done by a strong one.
    pub(crate) fn pair(&self) -> [(Builder, TestPeer); 2] {
        let (weak, strong) = (self.node("weak"), self.node("strong"));
        enrol(&strong.1, &weak.1, "build");
        [weak, strong]
    }

    /// The same with one more machine that builds for both.
    pub(crate) fn three(&self) -> [(Builder, TestPeer); 3] {
        let [weak, strong] = self.pair();
        let other = self.node("other");
        enrol(&strong.1, &other.1, "sign");
        crate::members::sees(&weak.1, &other.1, "sign");
        [weak, strong, other]
    }

    /// From now on builds of `app-misc/slow` wait.
    pub(crate) fn hold(&self) {
        fs::write(self.flags().join("hold"), "").expect("a test can write");
    }

    /// They go on.
    pub(crate) fn go_on(&self) {
        fs::remove_file(self.flags().join("hold")).expect("they were held");
    }
}

/// Until a build of `app-misc/slow` waits at this node; the number of its job there.
pub(crate) fn held_at(node: &TestPeer) -> u64 {
    wait::until("a build to wait", || held(node, SLOW))
}

/// The job of this package at this node, when its build waits.
pub(crate) fn held(node: &TestPeer, cpv: &str) -> Option<u64> {
    let running = |job: &Value| job["cpv"] == cpv && job["state"] == "running" && job["source"] != "offload";
    let job = jobs(node).into_iter().find(running)?;
    let log = fs::read_to_string(job["log_path"].as_str()?).ok()?;
    log.contains("the wait begins").then(|| job["id"].as_u64())?
}

/// `peer build` in the background, as a user's terminal has it.
pub(crate) struct Request {
    child: Child,
    said: PathBuf,
}

impl Request {
    pub(crate) fn new(node: &TestPeer, words: &[&str]) -> Self {
        let said = node.dir().join(format!("said-{}", words.join("-").replace('/', "-")));
        let file = fs::File::create(&said).expect("a test can write");
        let again = file.try_clone().expect("a file can be had twice");
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.arg("build").args(words).arg("--control").arg(node.dir().join("control.sock"));
        command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(again);
        Self { child: command.spawn().expect("the binary was built for this test"), said }
    }

    /// What it said, once it has ended well.
    pub(crate) fn does(mut self) -> String {
        let status = wait::exit_within(&mut self.child, wait::DEADLINE);
        let said = self.said();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{said}");
        said
    }

    /// What it said, once it has ended with "no".
    pub(crate) fn fails(mut self) -> String {
        let status = wait::exit_within(&mut self.child, wait::DEADLINE);
        let said = self.said();
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{said}");
        said
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.end();
    }
}

/// The newest job of a package at a node.
pub(crate) fn job(node: &TestPeer, cpv: &str) -> Value {
    job_if(node, cpv).unwrap_or_else(|| panic!("there is a job for {cpv}"))
}

pub(crate) fn job_if(node: &TestPeer, cpv: &str) -> Option<Value> {
    jobs(node).into_iter().find(|job| job["cpv"] == cpv)
}

/// A package came from this builder, by offload, and is here once.
pub(crate) fn came_from(node: &TestPeer, cpv: &str, builder: &TestPeer) {
    let job = job(node, cpv);
    assert_eq!((&job["state"], &job["source"]), (&"done".into(), &"offload".into()), "{job}");
    assert_eq!(job["builder"], builder.peer_id(), "{job}");
    assert_eq!(held_packages(node, cpv), 1);
}

/// A package was built here, and is here once.
pub(crate) fn was_built_here(node: &TestPeer, cpv: &str) -> Value {
    let job = job(node, cpv);
    assert_eq!(
        (&job["state"], &job["source"], &job["builder"]),
        (&"done".into(), &"build".into(), &Value::Null),
        "{job}"
    );
    assert_eq!(held_packages(node, cpv), 1);
    job
}

/// How many packages of this version the node's binhost has.
pub(crate) fn held_packages(node: &TestPeer, cpv: &str) -> usize {
    let output = node.verb(&["show", &format!("={cpv}"), "--json"]);
    // Nothing at all is a "no".
    if output.status.code() == Some(1) {
        return 0;
    }
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", both(&output)));
    // Those made for others are shown, with that as the reason why they are not listed.
    let listed = |package: &&Value| !package["rejects"].to_string().contains("\"guest\"");
    shown["binpkgs"].as_array().map_or(0, |all| all.iter().filter(listed).count())
}

/// The command lines of processes, other than daemons and their clients, that have this text in their command line or
/// environment.
pub(crate) fn processes_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("this is Linux").flatten() {
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let ours = command.contains(" daemon --data-dir ") || command.contains("--control");
        if !command.is_empty() && !ours && (command.contains(text) || read("environ").contains(text)) {
            found.push(command);
        }
    }
    found
}

/// No process works below this directory any more.
pub(crate) fn is_quiet(machine: &Builder) {
    let place = machine.dir.to_str().expect("temporary paths are text");
    wait::until("the processes of the build to end", || processes_of(place).is_empty().then_some(()));
}
