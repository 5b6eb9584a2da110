//! Asking real Portage for the metadata of ebuilds that have no md5-cache entry: one Python process a batch.

use crate::config::Config;
use crate::repositories::AskMetadata;
use sandbox::spawn::{Ended, Job, RunError, run};
pub use sandbox::spawn::{Stage, overhear, replace as hand_over};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tree::conf::{RepoVariables, ReposConf};
use tree::cpv::Cp;
use tree::mdcache::MdEntry;
use tree::repo::EbuildRepo;

/// Portage itself starts in a second, on a slow disk in some.
const START_MAX: Duration = Duration::from_secs(30);
/// Sourcing an ebuild takes some 50 ms. Portage was seen to wait for ever for one that had ended: the next look asks again.
const EBUILD_MAX: Duration = Duration::from_secs(3);
/// However many are asked about.
const DEADLINE_MAX: Duration = Duration::from_secs(600);
/// Metadata of one ebuild is some kilobytes.
const ANSWER_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Reads `cat/PF` lines, writes `cat/PF`, then md5-cache lines, then an empty line, for each it has an answer for.
const SCRIPT: &str = r#"
import sys, portage
keys = ("EAPI", "SLOT", "KEYWORDS", "IUSE", "LICENSE", "RESTRICT", "SRC_URI", "INHERITED")
db = portage.db[portage.root]["porttree"].dbapi
tree = sys.argv[1]
for cpv in sys.stdin.read().split():
    try:
        values = db.aux_get(cpv, list(keys), mytree=tree)
    except (KeyError, portage.exception.PortageException):
        continue
    print(cpv)
    for key, value in zip(keys, values):
        if value:
            print(key + "=" + " ".join(value.split()))
    print(flush=True)
"#;

/// Portage of this machine.
#[derive(Clone, Debug)]
pub struct Portage {
    runtime: Handle,
    config_root: PathBuf,
    path: OsString,
    /// `PORTAGE_REPOSITORIES`: the text of a repos.conf, where the repositories are not those of Portage's own.
    repositories: Option<String>,
    stopping: CancellationToken,
}

impl Portage {
    /// Asks through the interpreter that `path` (of the daemon's environment) finds.
    #[must_use]
    pub fn new(runtime: Handle, config: &Config, path: OsString, stopping: CancellationToken) -> Self {
        let repositories = given_repositories(config);
        Self { runtime, config_root: config.config_root.clone(), path, repositories, stopping }
    }

    fn python(&self) -> Option<PathBuf> {
        program(&self.path, "python3")
    }

    fn job(&self, python: PathBuf, repo: &Path, cpvs: &str) -> Job {
        let mut environment: Vec<(OsString, OsString)> = [
            ("PATH", self.path.clone()),
            ("PORTAGE_CONFIGROOT", self.config_root.clone().into_os_string()),
            ("LANG", "C.UTF-8".into()),
            ("HOME", "/nonexistent".into()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        if let Some(repositories) = &self.repositories {
            environment.push(("PORTAGE_REPOSITORIES".into(), repositories.into()));
        }
        Job {
            program: python,
            // Isolated: nothing is imported from the folder the daemon happens to be in.
            arguments: vec!["-I".into(), "-c".into(), SCRIPT.into(), repo.as_os_str().to_owned()],
            environment,
            input: cpvs.as_bytes().to_vec(),
            output_max_bytes: ANSWER_MAX_BYTES,
            deadline: deadline(cpvs.lines().count()),
        }
    }
}

impl AskMetadata for Portage {
    fn ask(
        &self,
        repo: &Path,
        ebuilds: &[(Cp, Vec<String>)],
    ) -> Result<BTreeMap<Cp, BTreeMap<String, MdEntry>>, String> {
        let python = self.python().ok_or("there is no python3 in the daemon's PATH to run Portage with")?;
        let asked: BTreeMap<String, (&Cp, &String)> = ebuilds
            .iter()
            .flat_map(|(cp, pfs)| pfs.iter().map(move |pf| (format!("{}/{pf}", cp.category), (cp, pf))))
            .collect();
        let list = asked.keys().cloned().collect::<Vec<_>>().join("\n");
        let job = self.job(python, repo, &list);
        let ended = self.runtime.block_on(self.stopping.run_until_cancelled(run(job)));
        match ended.ok_or("the daemon is stopping")? {
            Ok(Ended { output, code: Some(0), .. }) => Ok(parse(&output, &asked)),
            Ok(Ended { output, code, errors }) => {
                let answers = parse(&output, &asked);
                // Nothing at all: it is Portage that has the trouble, not one of the ebuilds.
                if answers.is_empty() {
                    let said = errors.trim().lines().next_back().unwrap_or("it says nothing");
                    return Err(format!("Portage ends with {code:?}: {said}"));
                }
                tracing::warn!(repo = %repo.display(), code, errors, "Portage did not answer for every ebuild");
                Ok(answers)
            }
            Err(
                error @ (RunError::Start { .. }
                | RunError::Deadline { .. }
                | RunError::TooMuch { .. }
                | RunError::Pipe { .. }),
            ) => Err(error.to_string()),
        }
    }
}

/// How long an answer about so many ebuilds is waited for.
fn deadline(ebuilds: usize) -> Duration {
    let each = EBUILD_MAX.saturating_mul(u32::try_from(ebuilds).unwrap_or(u32::MAX));
    START_MAX.saturating_add(each).min(DEADLINE_MAX)
}

/// A program in the directories of a `PATH`.
#[must_use]
pub fn program(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// `PORTAGE_REPOSITORIES` for a Portage of this node: where the repositories are named one by one, or by variables of the
/// daemon's environment, which no other program sees. None where Portage finds them by itself.
#[must_use]
pub fn given_repositories(config: &Config) -> Option<String> {
    if let Some(paths) = &config.repos {
        return Some(repositories(paths));
    }
    let variables = &config.repo_variables;
    if *variables == RepoVariables::default() {
        return None;
    }
    Some(ReposConf::load_in(&config.config_root, variables).ok()?.to_text())
}

/// A repos.conf of repositories that were named one by one, foremost first, the hindmost as the main one.
#[must_use]
pub fn repositories(paths: &[PathBuf]) -> String {
    let opened: Vec<EbuildRepo> = paths.iter().filter_map(|path| EbuildRepo::open(path).ok()).collect();
    let main = opened.last().map(|repo| format!("[DEFAULT]\nmain-repo = {}\n", repo.name())).unwrap_or_default();
    let section = |(priority, repo): (usize, &EbuildRepo)| {
        let location = repo.path().display().to_string().replace('%', "%%");
        format!("[{}]\nlocation = {location}\npriority = {priority}\n", repo.name())
    };
    main + &opened.iter().rev().enumerate().map(section).collect::<String>()
}

/// Takes only answers to what was asked.
fn parse(output: &[u8], asked: &BTreeMap<String, (&Cp, &String)>) -> BTreeMap<Cp, BTreeMap<String, MdEntry>> {
    let mut answers: BTreeMap<Cp, BTreeMap<String, MdEntry>> = BTreeMap::new();
    for block in String::from_utf8_lossy(output).split("\n\n") {
        let Some((cpv, metadata)) = block.trim_start_matches('\n').split_once('\n') else { continue };
        let (Some((cp, pf)), Ok(entry)) = (asked.get(cpv), MdEntry::parse(metadata.as_bytes())) else { continue };
        answers.entry((*cp).clone()).or_default().insert((*pf).clone(), entry);
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_ebuilds_are_not_waited_for_as_long_as_many() {
        for (ebuilds, seconds) in [(0, 30), (1, 33), (64, 222), (10_000, 600), (usize::MAX, 600)] {
            assert_eq!(deadline(ebuilds), Duration::from_secs(seconds), "{ebuilds}");
        }
    }

    #[test]
    fn only_what_was_asked_is_taken_from_the_answer() {
        let cp: Cp = "app-misc/hello".parse().unwrap();
        let pf = "hello-1".to_owned();
        let asked = [("app-misc/hello-1".to_owned(), (&cp, &pf))].into();
        let output = b"app-misc/hello-1\nEAPI=8\nSRC_URI=https://a.invalid/x\n\napp-misc/evil-1\nEAPI=8\n\n";
        let answers = parse(output, &asked);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[&cp][&pf].src_uri, "https://a.invalid/x");
    }
}
