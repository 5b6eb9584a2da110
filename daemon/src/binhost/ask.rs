//! Asking this machine's Portage about the packages of the binhost: in the background, all at once, and only when its
//! configuration, an ebuild or the packages changed.

use super::Binhost;
use super::answers::{OwnPortage, WouldBuild};
use super::row::BinpkgRow;
use crate::blocking;
use crate::builds::inside::Inside;
use crate::builds::reach::{Reach, ReachError};
use crate::builds::repositories_of;
use crate::domain::Domain;
use sandbox::{Cancel, End, MissingProgram, Sandbox, SandboxError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tree::cpv::Cpv;
use tree::digest::Digest;

/// Time between two looks, when nobody says that something changed.
const PERIOD: Duration = Duration::from_secs(60);
/// How long it must be quiet before a look: a run of builds publishes one package after the other.
const QUIET: Duration = Duration::from_secs(1);
/// How long a run of changes puts a look off.
const QUIET_MAX: Duration = Duration::from_secs(20);
/// Time after which Portage is asked again though it did not answer to the same question before.
const AGAIN: Duration = Duration::from_secs(600);
/// An index that was looked at so lately is not looked at again for the next who asks.
const FRESH: Duration = Duration::from_secs(1);
/// How long who asks for the index waits for Portage's answer about a configuration that just changed, and then takes the
/// index as it was: emerge gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// A package takes some milliseconds.
const DEADLINE: Duration = Duration::from_secs(600);
/// IUSE and USE of a package are some hundred bytes, of the largest some ten thousand.
const ANSWER_MAX_BYTES: u64 = 256 << 20;
/// Files of a configuration that are looked at.
const FILES_MAX: usize = 200_000;
/// How deep.
const DEPTH_MAX: usize = 16;
/// Words of Portage that are logged, in bytes.
const SAID_MAX: usize = 2000;
const SCRIPT: &str = include_str!("match.py");

/// Why Portage did not answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Missing(#[from] MissingProgram),
    #[error("there is no python3 in the daemon's PATH to run Portage with")]
    NoPython,
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("Portage did not answer: {said}")]
    Broke { said: String },
    #[error("Portage's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("Portage answered about {found} packages, not {asked}")]
    Count { asked: usize, found: usize },
}

/// A question: packages of the same version with the same words get one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Question {
    cpv: String,
    repo: String,
    slot: String,
    eapi: String,
    keywords: String,
    chost: String,
    iuse: String,
    r#use: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    machine: OwnPortage,
    packages: Vec<Option<WouldBuild>>,
}

/// The configuration and the ebuilds as they are: another text or number is another state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps {
    config: String,
    ebuilds: BTreeMap<Digest, u64>,
}

/// Looks that were made, for those who wait for one.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Somebody waits for a look.
    asked: Notify,
    made: watch::Sender<u64>,
    /// When somebody last made sure that none was needed.
    last: Mutex<Option<Instant>>,
}

/// Makes sure that what is listed fits the configuration as it is now, for who asks right after changing it: looks at the
/// files, and lets Portage be asked when they changed. Waits 8 s at most.
///
/// Cancel safe: yes; Portage is asked in the background.
pub(crate) async fn in_time(domain: &Arc<Domain>) {
    let looks = &domain.binhost.looks;
    let last = || looks.last.lock().unwrap_or_else(PoisonError::into_inner);
    if last().is_some_and(|last| last.elapsed() < FRESH) {
        return;
    }
    let waited = async {
        // One look may be under way that began before the change.
        for _ in 0..2 {
            let mut made = looks.made.subscribe();
            let looking = Arc::clone(domain);
            if blocking::run(move || stale(&looking)).await.is_none() {
                return;
            }
            looks.asked.notify_one();
            // The sender lives as long as the binhost.
            let _ended = made.changed().await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waited).await;
    *last() = Some(Instant::now());
    if ended.is_err() {
        tracing::info!(
            "binary packages are listed as they fitted the configuration before its last change: Portage needs longer to answer"
        );
    }
}

/// Keeps what is listed to what this machine can use, until the daemon stops.
pub(crate) async fn follow(domain: Arc<Domain>) {
    let mut failed: Option<(Stamps, Instant)> = None;
    loop {
        let binhost = Arc::clone(&domain.binhost);
        blocking::run(move || binhost.describe_old()).await;
        let looking = Arc::clone(&domain);
        let stale = blocking::run(move || stale(&looking)).await;
        let again = |(stamps, when): &(Stamps, Instant)| stale.as_ref() == Some(stamps) && when.elapsed() < AGAIN;
        if let Some(stamps) = stale.clone().filter(|_| !failed.as_ref().is_some_and(again)) {
            let begun = Instant::now();
            failed = match ask(&domain, &stamps).await {
                Ok(packages) => {
                    tracing::debug!(packages, took = ?begun.elapsed(), "asked Portage what it would build");
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "binary packages are listed whatever USE flags they have: Portage cannot be asked; `peer doctor` looks at what it needs");
                    Some((stamps, Instant::now()))
                }
            };
        }
        let looks = &domain.binhost.looks;
        looks.made.send_modify(|made| *made += 1);
        tokio::select! {
            () = looks.asked.notified() => {}
            () = quiet(&domain.binhost.changed) => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Until something changed and a run of changes ended.
async fn quiet(changed: &Notify) {
    changed.notified().await;
    let since = Instant::now();
    while since.elapsed() < QUIET_MAX && tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {}
}

/// The state that Portage should be asked about, if it was not. Libraries are looked at again too. Blocking.
fn stale(domain: &Domain) -> Option<Stamps> {
    let packages = domain.binhost.own_packages();
    if packages.is_empty() {
        return None;
    }
    super::report(domain.binhost.compare());
    let stamps = Stamps::read(domain, &packages);
    domain.binhost.is_stale(&stamps.config, &stamps.ebuilds).then_some(stamps)
}

impl Stamps {
    fn read(domain: &Domain, packages: &[(Digest, Cpv)]) -> Self {
        let repos = repositories_of(domain);
        let mut text = String::new();
        configuration(domain, &repos, &mut text);
        let ebuilds = packages.iter().map(|(digest, cpv)| (*digest, ebuild_stamp(&repos, cpv)));
        Self { config: Digest::of(text.as_bytes()).to_string(), ebuilds: ebuilds.collect() }
    }
}

/// Adds the state of all that Portage reads beside ebuilds.
fn configuration(domain: &Domain, repos: &[PathBuf], text: &mut String) {
    *text += concat!(env!("CARGO_PKG_VERSION"), "\n");
    let mut left = FILES_MAX;
    walk(&domain.config.config_root.join("etc/portage"), DEPTH_MAX, &mut left, text);
    match Reach::of(&Inside::asked(&domain.config, repos)) {
        Ok(reach) => {
            reach.watched.iter().for_each(|path| walk(path, DEPTH_MAX, &mut left, text));
            text.extend(reach.links.iter().map(|(at, to)| format!("{} -> {}\n", at.display(), to.display())));
        }
        Err(error) => text.push_str(&error.to_string()),
    }
    for repo in repos {
        for folder in ["profiles", "eclass", "metadata/layout.conf"] {
            walk(&repo.join(folder), DEPTH_MAX, &mut left, text);
        }
    }
}

/// The state of the configuration and of what the user chose to have: another text is another state. Blocking.
pub(crate) fn configuration_stamp(domain: &Domain) -> String {
    let mut text = String::new();
    configuration(domain, &repositories_of(domain), &mut text);
    for root in [&domain.config.config_root, &domain.config.build.root] {
        for place in ["var/lib/portage/world", "var/lib/portage/world_sets", "var/db/pkg"] {
            if let Ok(metadata) = std::fs::metadata(root.join(place)) {
                line(&root.join(place), &metadata, &mut text);
            }
        }
    }
    Digest::of(text.as_bytes()).to_string()
}

/// Adds names and change times of everything below a path; links are followed, as Portage does.
fn walk(path: &Path, depth: usize, left: &mut usize, text: &mut String) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if *left == 0 || depth == 0 {
        return;
    }
    *left -= 1;
    line(path, &metadata, text);
    if metadata.is_dir() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| walk(entry, depth - 1, left, text));
    }
}

fn line(path: &Path, metadata: &std::fs::Metadata, text: &mut String) {
    use std::fmt::Write as _;
    let (secs, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    let _infallible = writeln!(text, "{} {} {secs}.{nanos}", path.display(), metadata.len());
}

/// The state of the ebuilds of a package's version; never 0.
fn ebuild_stamp(repos: &[PathBuf], cpv: &Cpv) -> u64 {
    let mut text = String::new();
    for repo in repos {
        let path = repo.join(cpv.cp.to_string()).join(format!("{}.ebuild", cpv.pf()));
        if let Ok(metadata) = std::fs::metadata(&path) {
            line(&path, &metadata, &mut text);
        }
    }
    let digest = Digest::of(text.as_bytes());
    let first = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first).max(1)
}

impl Question {
    fn of(row: &BinpkgRow) -> Self {
        let text = |key: &str| row.entry.get(key).unwrap_or_default().to_owned();
        let or = |key: &str, default: &str| row.entry.get(key).unwrap_or(default).to_owned();
        Self {
            cpv: row.entry.cpv().to_string(),
            repo: text("REPO"),
            slot: or("SLOT", "0"),
            eapi: or("EAPI", "0"),
            keywords: text("KEYWORDS"),
            chost: text("CHOST"),
            iuse: text("IUSE"),
            r#use: text("USE"),
        }
    }
}

/// Asks about all packages and takes the answers over; how many there were.
async fn ask(domain: &Arc<Domain>, stamps: &Stamps) -> Result<usize, AskError> {
    let asking = Arc::clone(&domain.binhost);
    let questions = blocking::run(move || asking.questions()).await;
    let asked: Vec<&Question> = questions.keys().collect();
    let input = serde_json::to_vec(&asked)?;
    let (sandbox, inside) = (domain.builds.sandbox()?, domain.builds.inside(domain).await?);
    let answer = run(&sandbox, &inside, &input).await?;
    if answer.packages.len() != asked.len() {
        return Err(AskError::Count { asked: asked.len(), found: answer.packages.len() });
    }
    let count = answer.packages.len();
    let each = questions.into_values().zip(answer.packages).collect();
    let (binhost, stamps, machine) = (Arc::clone(&domain.binhost), stamps.clone(), answer.machine);
    blocking::run(move || super::report(binhost.take_answers(stamps.config, machine, each, &stamps.ebuilds))).await;
    Ok(count)
}

/// What this machine's Portage is configured for; it is asked where that is not known yet. None when it does not answer.
///
/// Cancel safe: yes.
pub async fn own_portage(domain: &Arc<Domain>) -> Option<OwnPortage> {
    let binhost = Arc::clone(&domain.binhost);
    if let Some(known) = blocking::run(move || binhost.own_portage()).await {
        return Some(known);
    }
    let sandbox =
        domain.builds.sandbox().inspect_err(|error| tracing::warn!(%error, "Portage cannot be asked")).ok()?;
    let asked = async { run(&sandbox, &domain.builds.inside(domain).await?, b"[]").await };
    let answer = asked.await.inspect_err(|error| tracing::warn!(%error, "Portage cannot be asked")).ok()?;
    let (binhost, machine) = (Arc::clone(&domain.binhost), answer.machine.clone());
    blocking::run(move || super::report(binhost.take_answers(String::new(), machine, Vec::new(), &BTreeMap::new())))
        .await;
    Some(answer.machine)
}

/// With the walls of the resolver: nothing can be written, nothing be fetched.
async fn run(sandbox: &Sandbox, inside: &Inside, input: &[u8]) -> Result<Answer, AskError> {
    let python = inside.program("python3").ok_or(AskError::NoPython)?;
    let command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), SCRIPT.into()];
    let mut policy = inside.resolver();
    policy.limits.time = DEADLINE;
    let captured = sandbox.capture(&policy, &command, input, ANSWER_MAX_BYTES, Cancel::never()).await?;
    match captured.outcome.end {
        End::Ended { code: 0 } if !captured.output.is_empty() => Ok(serde_json::from_slice(&captured.output)?),
        _ => {
            let said: String = captured.errors.chars().rev().take(SAID_MAX).collect();
            Err(AskError::Broke { said: said.chars().rev().collect() })
        }
    }
}

impl Binhost {
    /// The packages that are not guests.
    fn own_packages(&self) -> Vec<(Digest, Cpv)> {
        let state = self.state();
        let own = state.rows.values().filter(|row| !row.is_guest());
        own.map(|row| (row.digest, row.entry.cpv().clone())).collect()
    }

    /// What is to be asked, and which packages each answer is about.
    fn questions(&self) -> BTreeMap<Question, Vec<Digest>> {
        let mut questions: BTreeMap<Question, Vec<Digest>> = BTreeMap::new();
        for row in self.state().rows.values().filter(|row| !row.is_guest()) {
            questions.entry(Question::of(row)).or_default().push(row.digest);
        }
        questions
    }

    /// Something that Portage reads may have changed: it is looked at soon, in the background.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn a_configuration_is_another_when_a_file_came_went_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = || {
            let (mut text, mut left) = (String::new(), FILES_MAX);
            walk(dir.path(), DEPTH_MAX, &mut left, &mut text);
            text
        };
        let mut seen = vec![stamp()];
        let mut changed = |what: &str| {
            let now = stamp();
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(stamp(), now);
            seen.push(now);
        };
        std::fs::create_dir(dir.path().join("package.use")).unwrap();
        changed("a directory");
        std::fs::write(dir.path().join("package.use/one"), "a/b c\n").unwrap();
        changed("a file");
        std::fs::write(dir.path().join("package.use/one"), "a/b -c\n").unwrap();
        changed("its content");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("package.use/round")).unwrap();
        changed("a link that leads round");
        std::fs::remove_file(dir.path().join("package.use/one")).unwrap();
        changed("it went");
    }

    #[test]
    fn an_ebuild_that_came_or_changed_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let repos = [dir.path().to_owned()];
        let row = row(b"1", 1);
        let none = ebuild_stamp(&repos, row.entry.cpv());
        assert_ne!(none, 0);
        std::fs::create_dir_all(dir.path().join("dev-libs/greet")).unwrap();
        std::fs::write(dir.path().join("dev-libs/greet/greet-1.ebuild"), "EAPI=8").unwrap();
        let there = ebuild_stamp(&repos, row.entry.cpv());
        std::fs::write(dir.path().join("dev-libs/greet/greet-1.ebuild"), "EAPI=8 ").unwrap();
        assert!(there != none && ebuild_stamp(&repos, row.entry.cpv()) != there);
    }
}
