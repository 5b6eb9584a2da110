//! `TestPeer`: the real `peer daemon` on ports of its own choice, with its own store, ended when the test is.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::gentoo::Repo;
use crate::http::{self, Reply};
use crate::wait::{self, DEADLINE};

/// Lines of the log shown when a test fails.
const LOG_LINES: usize = 60;

/// A test's daemon speaks on loopback only, and looks for nobody.
const QUIET: &[&str] = &["--p2p", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];

/// How to start a daemon.
pub(crate) struct Start {
    dir: PathBuf,
    wrapper: Vec<String>,
    flags: Vec<String>,
    /// What keeps it from speaking to anybody it was not told of.
    quiet: &'static [&'static str],
}

/// A running daemon.
pub(crate) struct TestPeer {
    child: Child,
    start: Start,
    /// The object of the ready line, or of a status before it: both name the addresses.
    pub(crate) ready: Value,
}

impl Start {
    /// A daemon that keeps everything under `dir`, which may hold the store of an earlier one.
    pub(crate) fn new(dir: &Path) -> Self {
        let alone = dir.join("alone/etc/portage");
        fs::create_dir_all(&alone).expect("a test can write");
        fs::write(alone.join("make.conf"), "GENTOO_MIRRORS=\"\"\n").expect("a test can write");
        Self { dir: dir.to_owned(), wrapper: Vec::new(), flags: Vec::new(), quiet: QUIET }
    }

    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn repo(mut self, repo: &Repo) -> Self {
        self.flags.extend(repo.flags());
        self
    }

    pub(crate) fn mirror(self, url: &str) -> Self {
        self.flag("--mirror", url)
    }

    /// Makes `other` the only peer it is told of.
    pub(crate) fn knows(self, other: &TestPeer) -> Self {
        let address = other.p2p();
        self.flag("--peer", &address)
    }

    /// Gives it a configuration file.
    pub(crate) fn config(self, text: &str) -> Self {
        let path = self.dir.join("peer.toml");
        fs::write(&path, text).expect("a test can write");
        self.flag("--config", path.to_str().expect("temporary paths are text"))
    }

    /// Starts it through another program, such as `unshare`, that ends in `exec`.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Lets it speak on all interfaces and find others: only for a network namespace of its own.
    pub(crate) fn with_default_swarm(mut self) -> Self {
        self.quiet = &[];
        self
    }

    /// Lets it speak at this address, and look for nobody.
    pub(crate) fn at(mut self, listens: &str) -> Self {
        self.quiet = &["--no-mdns"];
        if let Some(flag) = self.flags.iter().position(|flag| flag == "--p2p") {
            self.flags.drain(flag..=flag + 1);
        }
        self.flag("--p2p", listens)
    }

    /// The command line, without where output goes.
    fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(env!("CARGO_BIN_EXE_peer").to_owned());
        words.push("daemon".to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("--data-dir").arg(self.dir.join("store"));
        command.arg("--control").arg(self.control());
        if !self.flags.iter().any(|flag| flag == "--config-root") {
            command.arg("--config-root").arg(self.dir.join("alone"));
        }
        command.args(["--http", "127.0.0.1:0"]).args(self.quiet);
        command.args(&self.flags);
        clean(&mut command, &self.dir);
        command.process_group(0);
        command
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Starts it and waits until it says that it serves.
    pub(crate) fn start(self) -> TestPeer {
        self.try_start().unwrap_or_else(|(status, log)| panic!("the daemon ended with {status} instead:\n{log}"))
    }

    /// Starts it; when it ends before it serves, how it ended and what it logged.
    pub(crate) fn try_start(self) -> Result<TestPeer, (ExitStatus, String)> {
        self.begin().ready()
    }

    /// Starts it and waits for nothing.
    pub(crate) fn begin(self) -> Starting {
        let log = self.dir.join("log");
        let file = File::options().create(true).append(true).open(&log).expect("a test can write");
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("the binary was built for this test");
        let stdout = child.stdout.take().expect("it is a pipe");
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // The receiver hears only the first line, but the pipe is read to its end so that nothing blocks.
            let _heard = sender.send(lines.next());
            lines.for_each(drop);
        });
        Starting { child, start: self, first_line: receiver }
    }
}

/// A daemon that has not said yet that it serves.
pub(crate) struct Starting {
    child: Child,
    start: Start,
    first_line: mpsc::Receiver<Option<String>>,
}

impl Starting {
    /// Waits for its ready line; when it ends before, how it ended and what it logged.
    pub(crate) fn ready(mut self) -> Result<TestPeer, (ExitStatus, String)> {
        let log = self.start.dir.join("log");
        match self.first_line.recv_timeout(DEADLINE) {
            Ok(Some(line)) => {
                let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                assert_eq!(ready["event"], "ready", "the first line is the ready line");
                Ok(TestPeer { child: self.child, start: self.start, ready })
            }
            Ok(None) => {
                let status = self.child.wait().expect("the child is ours");
                Err((status, fs::read_to_string(log).unwrap_or_default()))
            }
            Err(_) => {
                wait::signal("KILL", -i64::from(self.child.id()));
                panic!("the daemon neither served nor ended:\n{}", fs::read_to_string(log).unwrap_or_default());
            }
        }
    }

    /// As soon as its control socket answers, whether it said that it serves or not.
    pub(crate) fn answering(self) -> TestPeer {
        let control = self.start.control();
        let words = ["status", "--json", "--control", control.to_str().expect("temporary paths are text")];
        let status: Value = wait::until("the control socket to answer", || {
            let output = peer(&self.start.dir, &words);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("the status is JSON"))
        });
        TestPeer { child: self.child, start: self.start, ready: status }
    }
}

/// Gives a command no environment but what every process needs, so that no test depends on whose machine it is.
fn clean(command: &mut Command, home: &Path) {
    command.env_clear();
    command.env("HOME", home).env("LANG", "C.UTF-8");
    let mut path = std::env::var("PATH").unwrap_or_default();
    // A repository without md5-cache is read by asking Portage.
    if let Ok(portage) = std::env::var("PEERAGE_PORTAGE") {
        path = format!("{portage}/bin:{path}");
        command.env("PEERAGE_PYTHON", format!("{portage}/bin/python3"));
    }
    command.env("PATH", path);
}

/// Runs the binary with any arguments and no environment.
pub(crate) fn peer(home: &Path, arguments: &[&str]) -> Output {
    // A daemon that serves where it should have refused is ended, so that the test says so soon.
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_peer")]).args(arguments).current_dir(home);
    clean(&mut command, home);
    wait::run(&mut command)
}

impl TestPeer {
    /// A daemon for these repositories with this mirror, and no peers.
    pub(crate) fn mirror_of(dir: &Path, repo: &Repo, mirror: &str) -> Self {
        Start::new(dir).repo(repo).mirror(mirror).start()
    }

    fn word(&self, pointer: &str) -> &str {
        self.ready.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("the ready line has {pointer}"))
    }

    /// `ADDR:PORT` of the first HTTP listener.
    pub(crate) fn http(&self) -> String {
        self.word("/http/0").to_owned()
    }

    /// What Portage is told.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http())
    }

    /// The first multiaddr where peers connect.
    pub(crate) fn p2p(&self) -> String {
        self.word("/p2p/0").to_owned()
    }

    /// `ADDR:PORT` of that multiaddr.
    pub(crate) fn p2p_port(&self) -> String {
        let address = self.p2p();
        let words: Vec<&str> = address.split('/').collect();
        format!("{}:{}", words[2], words[4])
    }

    pub(crate) fn peer_id(&self) -> String {
        self.word("/peer_id").to_owned()
    }

    /// The process of the daemon, whatever it was started through.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.start.dir.join("store")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.start.dir
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        http::get(&self.http(), path)
    }

    /// Still alive and answering.
    pub(crate) fn is_healthy(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none() && self.get("/healthz").status == 200
    }

    /// `peer VERB` at this daemon, with `--control` after the words.
    pub(crate) fn verb(&self, words: &[&str]) -> Output {
        let control = self.start.control();
        let mut all = words.to_vec();
        all.extend(["--control", control.to_str().expect("temporary paths are text")]);
        peer(&self.start.dir, &all)
    }

    /// Begins a verb, and waits for its first line: from then on the daemon is known to be at it. What is given back waits for
    /// its end, and answers how it ended.
    pub(crate) fn begins(&self, words: &[&str]) -> (String, impl FnOnce() -> ExitStatus + use<>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(words).arg("--control").arg(self.start.control());
        clean(&mut command, &self.start.dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the binary was built for this test");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        said.read_line(&mut first).expect("the binary prints UTF-8");
        let end = move || {
            std::io::copy(&mut said, &mut std::io::sink()).expect("its output can be read");
            child.wait().expect("the child is ours")
        };
        (first, end)
    }

    /// A verb that must do what it is asked.
    pub(crate) fn does(&self, words: &[&str]) -> String {
        let output = self.verb(words);
        assert!(output.status.success(), "peer {words:?} ended with {}: {}", output.status, both(&output));
        String::from_utf8(output.stdout).expect("the binary prints UTF-8")
    }

    /// A verb with `--json`, read.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.push("--json");
        let text = self.does(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("peer {all:?} printed no JSON ({error}): {text}"))
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// A number of `peer status --json`.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let status = self.status();
        status[name].as_u64().unwrap_or_else(|| panic!("status has the number {name}: {status}"))
    }

    pub(crate) fn import(&self, path: &Path) {
        self.does(&["import", path.to_str().expect("temporary paths are text")]);
    }

    /// Until this daemon has a connection to `count` peers.
    pub(crate) fn wait_for_peers(&self, count: u64) {
        wait::until("peers to connect", || (self.number("peers") >= count).then_some(()));
    }

    /// Everything in the store hashes to its name.
    pub(crate) fn must_verify(&self) {
        let output = self.verb(&["verify"]);
        assert_eq!(output.status.code(), Some(0), "the store holds wrong bytes: {}", both(&output));
    }

    /// No blob but `count` right ones.
    pub(crate) fn holds_only(&self, count: u64) {
        // A large file is given to its end before it is safe on the disk.
        wait::until("transfers to end", || {
            self.status()["transfers"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
        self.must_verify();
        assert_eq!(self.number("blobs"), count, "blobs in the store");
    }

    /// What was logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.start.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, name: &str) {
        wait::signal(name, i64::from(self.child.id()));
    }

    /// `kill -9`, at once; gives back how to start it again on the same store.
    pub(crate) fn kill(mut self) -> Start {
        self.end();
        self.again()
    }

    /// `kill -9`; gives back how to start it again at the address where it was, as one does that listens at the default.
    pub(crate) fn kill_to_return(self) -> Start {
        let address = self.p2p();
        self.kill().at(&address)
    }

    /// `SIGTERM`, and its end.
    pub(crate) fn terminate(mut self) -> (Option<ExitStatus>, Start) {
        self.signal("TERM");
        let status = wait::exit_within(&mut self.child, DEADLINE);
        (status, self.again())
    }

    fn again(&self) -> Start {
        let Start { dir, wrapper, flags, quiet } = &self.start;
        Start { dir: dir.clone(), wrapper: wrapper.clone(), flags: flags.clone(), quiet }
    }

    fn end(&mut self) {
        // The whole group, for what it may have started; it is stopped perhaps, which SIGKILL does not mind.
        if self.child.try_wait().ok().flatten().is_none() {
            wait::signal("KILL", -i64::from(self.child.id()));
        }
        let _status = self.child.wait();
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            eprintln!("--- log of the daemon in {} ---\n{}", self.start.dir.display(), lines[from..].join("\n"));
        }
    }
}

/// What a command printed, for a failed test's message.
pub(crate) fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
