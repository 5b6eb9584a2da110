//! `peer doctor`: what is wrong with this machine, and the mend. Judges what it is given and reads a few files; asks nobody.

mod builds;
mod fetching;
mod signing;
mod whom;

use crate::api::Status;
use crate::api_doctor::CheckLine;
use crate::builds::with_causes;
use crate::config::Config;
use crate::domain::Domain;
use crate::http;
use crate::setup;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tree::conf::{GetConfigError, LeftOut, LoadMakeConfError, MakeConf, ReposConf};
use tree::moment::Moment;
use tree::repo::EbuildRepo;

pub use builds::Building;
pub use fetching::{Fetching, VARIABLES};
pub use signing::Signing;

/// No clock that is right shows less: 2026-01-01, before the first release.
const CLOCK_MIN_S: u64 = 1_767_225_600;
/// A repository may be this much from the future before the clock is doubted.
const CLOCK_SLACK_S: u64 = 86_400;
/// Below this the daemon cannot even write its index.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// Good to know; nothing is wrong.
    Info,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

impl State {
    /// The word scripts see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The state of a word; one that is not known, of another version perhaps, is to be looked at.
    fn of_word(word: &str) -> Self {
        [Self::Ok, Self::Info, Self::Warn, Self::Fail]
            .into_iter()
            .find(|state| state.word() == word)
            .unwrap_or(Self::Warn)
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at; stable.
    pub name: String,
    /// How bad it is.
    pub state: State,
    /// The file, with its line where there is one, or the setting.
    pub object: Option<String>,
    /// What was found.
    pub finding: String,
    /// What the user may do about it.
    pub mend: Option<String>,
}

impl Check {
    fn new(name: &str, state: State, finding: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, object: None, finding: finding.into(), mend: None }
    }

    fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    fn object(self, object: impl Into<String>) -> Self {
        Self { object: Some(object.into()), ..self }
    }
}

impl From<CheckLine> for Check {
    fn from(line: CheckLine) -> Self {
        let CheckLine { name, state, object, finding, mend } = line;
        Self { name, state: State::of_word(&state), object, finding, mend }
    }
}

impl From<Check> for CheckLine {
    fn from(check: Check) -> Self {
        let Check { name, state, object, finding, mend } = check;
        Self { name, state: state.word().to_owned(), object, finding, mend }
    }
}

/// What the one who asks has found out already.
#[derive(Debug)]
pub struct Evidence {
    /// The effective configuration, or why there is none.
    pub config: Result<Config, String>,
    /// What the daemon says of itself, or why it says nothing.
    pub daemon: Result<Status, String>,
    /// Where the mirror should answer, and what it answers for `/distfiles/layout.conf`.
    pub layout_conf: Option<(SocketAddr, Result<String, String>)>,
    /// The signing key and Portage's trust in it; none where there is no daemon to ask or no Portage.
    pub signing: Option<Signing>,
    /// What the daemon finds with its own rights, programs and limits; none when there is none that can say.
    pub of_daemon: Option<Vec<Check>>,
    /// What builds need of this machine, tried as the one who asks; none when the daemon tried it.
    pub building: Option<Building>,
    /// How Portage's own commands fetch from this node; none when there is nothing to fetch from.
    pub fetching: Option<Result<Fetching, String>>,
    /// The clock.
    pub now: SystemTime,
}

/// Looks at everything, in the order in which one thing needs the other.
#[must_use]
pub fn examine(evidence: &Evidence) -> Vec<Check> {
    let status = evidence.daemon.as_ref().ok();
    let mut checks = vec![configuration(&evidence.config), daemon(&evidence.daemon)];
    checks.extend(mirror(evidence.layout_conf.as_ref()));
    let Ok(config) = &evidence.config else {
        return checks;
    };
    checks.push(disk(config, status));
    checks.extend(portage(config, evidence.layout_conf.as_ref().map(|(address, _)| *address)));
    checks.extend(evidence.signing.iter().flat_map(signing::checks));
    checks.extend(binhost(config, status, evidence.layout_conf.as_ref().map(|(address, _)| *address)));
    checks.extend(evidence.fetching.iter().flat_map(fetching::checks));
    let (repositories, repos) = repositories(config);
    let newest = repos.iter().filter_map(|path| made_at(path)).max();
    // The daemon reads them with its rights, which count.
    checks.extend(match &evidence.of_daemon {
        Some(told) => told.clone(),
        None => repositories,
    });
    checks.push(clock(evidence.now, newest));
    checks.extend(status.map(|status| peers(config, status)));
    checks.extend(status.into_iter().flat_map(warnings));
    if let Some(building) = &evidence.building {
        checks.extend(builds::checks(building, config, &repos));
        let finding = "what is said of builds holds for this user: no daemon says what holds for it";
        checks.push(Check::new("builds", State::Info, finding).mend("start the daemon, then peer doctor"));
    }
    checks
}

/// What the daemon itself finds: as whom it runs, what it may do, and what it can read.
pub async fn of_daemon(domain: &Arc<Domain>) -> Vec<Check> {
    let mut checks = whom::this_process();
    let building = domain.builds.try_out(domain).await;
    let looking = Arc::clone(domain);
    let looked = move || {
        let config = &looking.config;
        let (repositories, repos) = repositories(config);
        (configuration_root(config), repositories, builds::checks(&building, config, &repos))
    };
    let (root, repositories, builds) = crate::blocking::run(looked).await;
    checks.extend(root);
    checks.extend(repositories);
    checks.extend(builds);
    checks
}

/// Whether the daemon can read what it takes its mirrors from.
fn configuration_root(config: &Config) -> Option<Check> {
    let error = MakeConf::load(&config.config_root).err()?;
    Some(make_conf_fault(&error, "the daemon cannot use it, and knows no mirror"))
}

/// What is wrong with make.conf, where.
fn make_conf_fault(error: &LoadMakeConfError, so: &str) -> Check {
    let object = match &error.0 {
        GetConfigError::Fault { path, line, .. } => format!("{}:{line}", path.display()),
        GetConfigError::Read(error) => error.path().display().to_string(),
    };
    Check::new("make.conf", State::Fail, format!("{}; {so}", with_causes(error))).object(object).mend("mend that line")
}

fn configuration(config: &Result<Config, String>) -> Check {
    match config {
        Ok(_) => Check::new("configuration", State::Ok, "it can be read and meant"),
        Err(why) => Check::new("configuration", State::Fail, why).mend("peer check-config"),
    }
}

fn daemon(daemon: &Result<Status, String>) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    match daemon {
        Err(why) => Check::new("daemon", State::Fail, why)
            .mend("start it: `rc-service peer start` or `systemctl start peer`, or run `peer daemon`"),
        Ok(status) if status.version != ours => {
            Check::new("daemon", State::Warn, format!("it runs version {}, this is {ours}", status.version))
                .mend("restart the daemon")
        }
        Ok(status) => Check::new("daemon", State::Ok, format!("it runs as {}", status.peer_id)),
    }
}

fn mirror(asked: Option<&(SocketAddr, Result<String, String>)>) -> Option<Check> {
    let (address, answer) = asked?;
    Some(match answer {
        Ok(text) if text.contains("content-hash BLAKE2B") => {
            Check::new("mirror", State::Ok, format!("it answers at http://{address}"))
        }
        Ok(_) => Check::new("mirror", State::Fail, format!("something else answers at http://{address}"))
            .mend("give the daemon another port: http.listen in peer.toml, then `peer setup`"),
        Err(why) => Check::new("mirror", State::Fail, why).mend("start the daemon, or see its log"),
    })
}

fn disk(config: &Config, status: Option<&Status>) -> Check {
    let wanted = config.store_free_min.0;
    // The daemon runs as another user and perhaps elsewhere: it knows best, and could not run if it could not write.
    if let Some(status) = status {
        return free_space("the store of the daemon", status.disk_free_bytes, wanted);
    }
    let dir = &config.data_dir;
    let shown = dir.display().to_string();
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        return Check::new("disk", State::Warn, format!("{shown} is not writable for this user"))
            .mend("run the daemon as the user who owns it, or say --data-dir");
    }
    match rustix::fs::statvfs(existing) {
        Err(error) => {
            Check::new("disk", State::Warn, format!("nobody can tell how full the disk of {shown} is: {error}"))
                .mend("say --data-dir DIR")
        }
        Ok(stat) => free_space(&shown, stat.f_bavail.saturating_mul(stat.f_frsize), wanted),
    }
}

fn free_space(dir: &str, free: u64, wanted: u64) -> Check {
    let mend = "peer gc --size SIZE, or store.size_max in peer.toml";
    let finding = format!("{} MiB are free for {dir}", free >> 20);
    match free {
        0..FREE_BYTES_MIN => Check::new("disk", State::Fail, finding).mend(mend),
        _ if free < wanted => {
            Check::new("disk", State::Warn, format!("{finding}, less than store.free_min")).mend(mend)
        }
        _ => Check::new("disk", State::Ok, finding),
    }
}

fn portage(config: &Config, http: Option<SocketAddr>) -> Vec<Check> {
    let dir = config.config_root.join("etc/portage");
    if !dir.is_dir() {
        let finding = format!("{} is not there: this machine serves others, but has no Portage itself", dir.display());
        return vec![Check::new("portage", State::Warn, finding).mend("say --config-root DIR if it is elsewhere")];
    }
    let mut checks = vec![Check::new("portage", State::Ok, format!("its configuration is in {}", dir.display()))];
    let Some(http) = http else {
        return checks;
    };
    checks.push(match MakeConf::load(&config.config_root) {
        Err(error) => make_conf_fault(&error, "Portage cannot use it either"),
        Ok(make_conf) => gentoo_mirrors(make_conf.get("GENTOO_MIRRORS").unwrap_or_default(), http),
    });
    checks.push(match setup::files(&dir.join("mirrors")) {
        Err(error) => Check::new("mirrors", State::Fail, with_causes(&error)).mend("mend it by hand"),
        Ok(files) => local_line(files.iter().map(|(_, text)| text.as_str()), http),
    });
    checks
}

/// Only the running daemon knows the id in its binhost's address.
fn binhost(config: &Config, status: Option<&Status>, http: Option<SocketAddr>) -> Option<Check> {
    let dir = config.config_root.join("etc/portage");
    let url = setup::binhost_url(http?, &status?.peer_id)?;
    dir.is_dir().then(|| signing::binrepos(&config.config_root, &url))
}

/// True when `word` is this node's URL, by number or as `localhost`.
fn is_ours(word: &str, http: SocketAddr) -> bool {
    let named = format!("http://localhost:{}", http.port());
    let word = word.trim_end_matches('/');
    word == setup::mirror_url(http) || (setup::reachable(http).ip().is_loopback() && word == named)
}

fn gentoo_mirrors(value: &str, http: SocketAddr) -> Check {
    match value.split_whitespace().position(|word| is_ours(word, http)) {
        Some(0) => Check::new("make.conf", State::Ok, "GENTOO_MIRRORS names this node first"),
        Some(_) => Check::new("make.conf", State::Warn, "GENTOO_MIRRORS names other mirrors before this node")
            .mend("peer setup, or move it to the front"),
        None => {
            Check::new("make.conf", State::Warn, "GENTOO_MIRRORS does not name this node, so Portage does not ask it")
                .mend("peer setup")
        }
    }
}

fn local_line<'a>(texts: impl Iterator<Item = &'a str>, http: SocketAddr) -> Check {
    let named = texts.flat_map(str::lines).any(|line| {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        words.next() == Some("local") && words.any(|word| is_ours(word, http))
    });
    if named {
        return Check::new("mirrors", State::Ok, "`local` names this node");
    }
    let finding =
        "/etc/portage/mirrors has no `local` line for this node, so files with RESTRICT=mirror are not asked of it";
    Check::new("mirrors", State::Warn, finding).mend("peer setup")
}

/// The repositories' checks, and the newest time one of them was made at.
/// What is wrong with them, and where they are.
fn repositories(config: &Config) -> (Vec<Check>, Vec<PathBuf>) {
    let mut checks = Vec::new();
    let paths: Vec<PathBuf> = match &config.repos {
        Some(paths) => paths.clone(),
        None => match ReposConf::load_in(&config.config_root, &config.repo_variables) {
            Ok(conf) => {
                let problem = |problem: LeftOut| {
                    Check::new("repositories", State::Warn, problem.to_string())
                        .object(problem.origin.to_string())
                        .mend("mend repos.conf")
                };
                checks.extend(conf.problems.into_iter().map(problem));
                conf.repos.into_iter().map(|repo| repo.location).collect()
            }
            Err(error) => {
                let check = Check::new("repositories", State::Fail, with_causes(&error));
                return (vec![check.mend("mend repos.conf, or say --repo DIR")], Vec::new());
            }
        },
    };
    if paths.is_empty() {
        let finding = "there is none: no Manifest names a distfile, so nothing can be served";
        checks.push(Check::new("repositories", State::Fail, finding).mend("emaint sync -a, or say --repo DIR"));
    }
    checks.extend(paths.iter().map(|path| repository(path)));
    (checks, paths)
}

fn repository(path: &Path) -> Check {
    match EbuildRepo::open(path) {
        Err(error) => Check::new("repositories", State::Fail, with_causes(&error))
            .object(path.display().to_string())
            .mend("emaint sync -a; the daemon's user must be able to read it"),
        Ok(repo) if !repo.has_md5_cache() => {
            let finding =
                format!("{} has no metadata/md5-cache, so where its distfiles come from is known badly", repo.name());
            Check::new("repositories", State::Warn, finding).mend(format!("egencache --update --repo {}", repo.name()))
        }
        Ok(repo) => Check::new("repositories", State::Ok, format!("{} at {}", repo.name(), path.display())),
    }
}

/// What `metadata/timestamp.chk` says, which is when infrastructure made this state of the repository.
fn made_at(repository: &Path) -> Option<Moment> {
    let path = repository.join("metadata/timestamp.chk");
    // One line; a larger file is something else.
    let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() < 200);
    let text = small.then(|| std::fs::read_to_string(&path).ok())??;
    http::date::read(&text.trim().replace("+0000", "GMT"))
}

fn clock(now: SystemTime, newest: Option<Moment>) -> Check {
    let mend = "set the clock: chronyd or ntpd keep it right";
    let now = Moment::of(now).map_or(0, Moment::seconds);
    if now < CLOCK_MIN_S {
        return Check::new("clock", State::Fail, "it shows a time before 2026, so no certificate can be checked")
            .mend(mend);
    }
    match newest {
        Some(newest) if now.saturating_add(CLOCK_SLACK_S) < newest.seconds() => {
            let finding = format!("it is behind a repository made at {}", http::date::say(newest));
            Check::new("clock", State::Warn, finding).mend(mend)
        }
        _ => Check::new("clock", State::Ok, "it is plausible"),
    }
}

fn peers(config: &Config, status: &Status) -> Check {
    match status.peers {
        0 if !config.mdns && config.swarm_peers.is_empty() => {
            Check::new("peers", State::Info, "none: discovery is off and the configuration names none")
        }
        0 => Check::new("peers", State::Warn, "none is connected; mirrors and upstream are still asked")
            .mend("peer peers dial MULTIADDR, and let port 8421 (TCP and UDP) through the firewall"),
        count => Check::new("peers", State::Ok, format!("{count} connected")),
    }
}

fn warnings(status: &Status) -> Vec<Check> {
    status
        .warnings
        .iter()
        .map(|warning| Check::new("daemon", State::Warn, warning).mend("peer status, and the daemon's log"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};

    fn http() -> SocketAddr {
        "127.0.0.1:8420".parse().unwrap()
    }

    fn config(root: &Path) -> Config {
        let overrides = Overrides {
            data_dir: Some(root.to_owned()),
            config_root: Some(root.to_owned()),
            config: Some("/dev/null".into()),
            ..Overrides::default()
        };
        Config::load(&overrides, &Surroundings::default()).unwrap().0
    }

    fn healthy() -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peers: 2,
            disk_free_bytes: 1 << 40,
            ..Status::default()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        Moment::of_seconds(seconds).unwrap().time()
    }

    fn state_of(checks: &[Check], name: &str) -> Option<State> {
        checks.iter().filter(|check| check.name == name).map(|check| check.state).max()
    }

    #[test]
    fn a_machine_with_nothing_on_it_fails_and_every_failure_has_a_mend() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence {
            config: Ok(config(dir.path())),
            daemon: Err("cannot reach the daemon".to_owned()),
            layout_conf: Some((http(), Err("connection refused".to_owned()))),
            signing: None,
            building: None,
            of_daemon: None,
            fetching: None,
            now: at(1_800_000_000),
        };
        let checks = examine(&evidence);
        for (name, state) in
            [("daemon", State::Fail), ("mirror", State::Fail), ("portage", State::Warn), ("clock", State::Ok)]
        {
            assert_eq!(state_of(&checks, name), Some(state), "{name}");
        }
        assert_eq!(state_of(&checks, "repositories"), Some(State::Fail));
        assert!(checks.iter().all(|check| check.state < State::Warn || check.mend.is_some()), "{checks:#?}");
    }

    #[test]
    fn a_machine_that_was_set_up_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let portage = setup::Portage { config_root: dir.path().canonicalize().unwrap() };
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        std::fs::create_dir_all(dir.path().join("repo/profiles")).unwrap();
        std::fs::create_dir_all(dir.path().join("repo/metadata/md5-cache")).unwrap();
        let put = |name: &str, text: &str| {
            store::write_atomically(&dir.path().join(name), text.as_bytes(), 0o644).unwrap();
        };
        put("repo/profiles/repo_name", "test\n");
        put("repo/metadata/layout.conf", "masters =\n");
        put("repo/metadata/timestamp.chk", "Thu, 20 Nov 2036 00:00:01 +0000\n");
        let mut config = config(&portage.config_root);
        config.repos = Some(vec![portage.config_root.join("repo")]);
        let mut evidence = Evidence {
            config: Ok(config),
            daemon: Ok(healthy()),
            layout_conf: Some((http(), Ok("[structure]\n0=content-hash BLAKE2B 8\n".to_owned()))),
            signing: None,
            building: None,
            of_daemon: None,
            fetching: None,
            now: at(1_800_000_000),
        };
        let before = examine(&evidence);
        assert_eq!(state_of(&before, "make.conf"), Some(State::Warn));
        assert_eq!(state_of(&before, "mirrors"), Some(State::Warn));
        assert_eq!(state_of(&before, "clock"), Some(State::Warn), "the repository is ten years ahead");
        setup::apply(&setup::plan(&portage, &setup::Targets { http: http() }).unwrap()).unwrap();
        evidence.now = at(2_200_000_000);
        let after = examine(&evidence);
        assert!(after.iter().all(|check| check.state <= State::Info), "{after:#?}");
    }

    #[test]
    fn this_node_behind_another_mirror_is_asked_too_late() {
        for (value, state) in [
            ("http://127.0.0.1:8420 http://m.example", State::Ok),
            ("http://localhost:8420/ http://m.example", State::Ok),
            ("http://m.example http://127.0.0.1:8420", State::Warn),
            ("http://127.0.0.1:84200", State::Warn),
            ("", State::Warn),
        ] {
            assert_eq!(gentoo_mirrors(value, http()).state, state, "{value}");
        }
    }

    #[test]
    fn only_an_uncommented_local_line_counts() {
        for (text, state) in [
            ("local http://127.0.0.1:8420\n", State::Ok),
            ("x y\n  local\thttp://o.example http://127.0.0.1:8420 # me\n", State::Ok),
            ("# local http://127.0.0.1:8420\n", State::Warn),
            ("local http://o.example # http://127.0.0.1:8420\n", State::Warn),
            ("npm http://127.0.0.1:8420\n", State::Warn),
        ] {
            assert_eq!(local_line([text].into_iter(), http()).state, state, "{text}");
        }
    }

    #[test]
    fn something_else_on_the_port_is_not_taken_for_the_mirror() {
        let check = mirror(Some(&(http(), Ok("<html>".to_owned())))).unwrap();
        assert_eq!(check.state, State::Fail);
    }

    #[test]
    fn a_full_disk_an_old_clock_and_rot_are_told() {
        assert_eq!(free_space("/d", 1 << 20, 1 << 30).state, State::Fail);
        assert_eq!(free_space("/d", 1 << 29, 1 << 30).state, State::Warn);
        assert_eq!(free_space("/d", 1 << 30, 1 << 30).state, State::Ok);
        assert_eq!(clock(at(0), None).state, State::Fail);
        let rotten = Status { warnings: vec!["1 blobs rotted".to_owned()], ..healthy() };
        assert_eq!(state_of(&warnings(&rotten), "daemon"), Some(State::Warn));
    }
}
