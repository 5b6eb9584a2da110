//! Builds: whether sandboxes can be made here, whether Portage is there for them, and whether they can read what they
//! build from. Nothing of it is a failure of the node: a machine that does not build still shares.

use super::{Check, State};
use crate::builds::inside::Inside;
use crate::builds::reach::{Asked, Reach};
use crate::config::Config;
use crate::portage::program;
use sandbox::spawn::{Job, run};
use sandbox::{Finding, Identity, Sandbox, Standing};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Portage is imported in a tenth of a second; a cold disk takes some seconds.
const IMPORT_DEADLINE: Duration = Duration::from_secs(30);
/// A version is a few bytes.
const VERSION_MAX_BYTES: u64 = 1024;
/// Says the version of the Portage that this Python has.
const IMPORT: &str = "import portage; print(portage.VERSION)";
/// What every plan reads of a repository; where these can be read, rsync and git have made the rest readable as well.
const REPOSITORY: [&str; 5] = ["", "profiles", "profiles/repo_name", "metadata", "metadata/layout.conf"];

/// What the one who asks has found out about builds.
#[derive(Debug)]
pub struct Building {
    /// Whose rights builds have.
    identity: Identity,
    /// What of this machine sandboxes need, or which program there is not.
    sandbox: Result<Vec<Finding>, String>,
    /// The version of the Portage that `python3` of the `PATH` has, or why it has none; none where it was not looked at.
    portage: Option<Result<String, String>>,
}

impl Building {
    /// What was found.
    pub(crate) fn new(
        identity: Identity,
        sandbox: Result<Vec<Finding>, String>,
        portage: Option<Result<String, String>>,
    ) -> Self {
        Self { identity, sandbox, portage }
    }

    /// Tries it out with the programs of `path`, a value of `PATH`. The node's own is asked for best: as its user, and
    /// with its environment.
    ///
    /// Cancel safe: yes.
    pub async fn try_out(path: &OsStr) -> Self {
        let identity = Identity::of_this_process();
        let sandbox = match Sandbox::open(path) {
            Ok(sandbox) => Ok(sandbox.preflight(identity).await),
            Err(missing) => Err(missing.to_string()),
        };
        let portage = match program(path, "python3") {
            Some(python) => portage_of(python, path).await,
            None => Err("there is no python3 in the PATH".to_owned()),
        };
        Self { identity, sandbox, portage: Some(portage) }
    }
}

async fn portage_of(python: PathBuf, path: &OsStr) -> Result<String, String> {
    let shown = python.display().to_string();
    let job = Job {
        program: python,
        arguments: ["-I", "-c", IMPORT].map(Into::into).to_vec(),
        environment: vec![("PATH".into(), path.to_owned()), ("LANG".into(), "C.UTF-8".into())],
        input: Vec::new(),
        output_max_bytes: VERSION_MAX_BYTES,
        deadline: IMPORT_DEADLINE,
    };
    match run(job).await {
        Ok(ended) if ended.code == Some(0) => Ok(String::from_utf8_lossy(&ended.output).trim().to_owned()),
        Ok(ended) => {
            let why = ended.errors.lines().last().unwrap_or("it said nothing").to_owned();
            Err(format!("{shown} has no Portage: {why}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn checks(building: &Building, config: &Config, repos: &[PathBuf]) -> Vec<Check> {
    let mut checks = match &building.sandbox {
        Ok(findings) => findings.iter().map(sandbox).collect(),
        Err(missing) => {
            let mend = missing.split_once("install ").map_or(missing.as_str(), |(_, package)| package);
            vec![Check::new("sandbox", State::Warn, missing).mend(format!("install {mend}"))]
        }
    };
    checks.extend(building.portage.as_ref().map(programs));
    if !config.build.root.is_dir() {
        let finding = format!("{}, the system that builds see, is not there", config.build.root.display());
        checks.push(Check::new("build root", State::Warn, finding).mend("unpack a stage3 there, or mend build.root"));
    }
    // A user's own builds read with that user's rights, which the checks of the repositories have used already.
    if matches!(building.identity, Identity::Mapped { .. }) {
        checks.extend(repos.iter().filter_map(|repo| unreadable(repo, &REPOSITORY)));
    }
    checks.extend(unshown(config, repos, building.identity));
    checks
}

fn sandbox(finding: &Finding) -> Check {
    let found = format!("{}: {}", finding.subject, finding.found);
    match finding.standing {
        Standing::Good => Check::new("sandbox", State::Ok, found),
        Standing::Less => Check::new("sandbox", State::Info, found).mend(&finding.mend),
        Standing::Blocks => {
            Check::new("sandbox", State::Warn, format!("{found}; nothing is built here")).mend(&finding.mend)
        }
    }
}

fn programs(portage: &Result<String, String>) -> Check {
    let mend = "install sys-apps/portage, or let the PATH of the daemon lead to it";
    // Builds call Portage's own `emerge` through the interpreter, wherever its script is.
    match portage {
        Err(why) => Check::new("builds", State::Info, format!("{why}; nothing is built here")).mend(mend),
        Ok(version) => Check::new("builds", State::Ok, format!("python3 has Portage {version}")),
    }
}

/// What Portage reads here and builds cannot be shown.
fn unshown(config: &Config, repos: &[PathBuf], identity: Identity) -> Option<Check> {
    let asked = Asked { identity, ..Inside::asked(config, repos) };
    let error = Reach::of(&asked).err()?;
    let mend = "OPERATING.md, \"A configuration that lies elsewhere\", tells what to do";
    Some(Check::new("builds", State::Warn, format!("{error}; nothing is built here")).mend(mend))
}

/// What is read-protected from the users of builds, who are nobody outside: the first such thing.
fn unreadable(top: &Path, names: &[&str]) -> Option<Check> {
    const READ: u32 = 0o004;
    const ENTER: u32 = 0o005;
    let closed = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|metadata| {
            let wanted = if metadata.is_dir() { ENTER } else { READ };
            metadata.mode() & wanted != wanted
        })
    };
    let path = names.iter().map(|name| top.join(name)).find(closed)?;
    let shown = path.display();
    let finding =
        format!("{shown} cannot be read by others, and builds are others: they have user numbers of their own");
    Some(Check::new("builds", State::Warn, finding).mend(format!("chmod -R o+rX {shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};
    use std::os::unix::fs::PermissionsExt as _;

    fn config(root: &Path) -> Config {
        let overrides = Overrides {
            data_dir: Some(root.to_owned()),
            config_root: Some(root.to_owned()),
            config: Some("/dev/null".into()),
            ..Overrides::default()
        };
        Config::load(&overrides, &Surroundings::default()).unwrap().0
    }

    fn finding(standing: Standing, mend: &str) -> Finding {
        Finding { subject: "namespaces", standing, found: "so it is".to_owned(), mend: mend.to_owned() }
    }

    fn building(identity: Identity) -> Building {
        Building { identity, sandbox: Ok(vec![finding(Standing::Good, "")]), portage: Some(Ok("3.0.83".to_owned())) }
    }

    fn worst(checks: &[Check]) -> State {
        checks.iter().map(|check| check.state).max().unwrap()
    }

    #[test]
    fn what_keeps_builds_from_running_is_a_warning_with_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let mut one = building(Identity::Single { uid: 250, gid: 250 });
        assert_eq!(worst(&checks(&one, &config, &[])), State::Ok);
        for (standing, state) in [(Standing::Less, State::Info), (Standing::Blocks, State::Warn)] {
            one.sandbox = Ok(vec![finding(standing, "sysctl")]);
            let told = checks(&one, &config, &[]);
            assert_eq!((worst(&told), told[0].mend.as_deref()), (state, Some("sysctl")), "{told:?}");
        }
        one.sandbox = Err("bwrap is not installed: install sys-apps/bubblewrap".to_owned());
        let told = checks(&one, &config, &[]);
        assert_eq!(told[0].mend.as_deref(), Some("install sys-apps/bubblewrap"), "{told:?}");
    }

    #[test]
    fn a_machine_without_portage_is_no_builder_and_not_at_fault() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = building(Identity::Single { uid: 250, gid: 250 });
        one.portage = Some(Err("python3 has no Portage".to_owned()));
        let told = checks(&one, &config(dir.path()), &[]);
        assert_eq!(worst(&told), State::Info);
        assert!(told.iter().any(|check| check.finding.contains("no Portage") && check.mend.is_some()), "{told:?}");
    }

    #[test]
    fn what_the_users_of_builds_cannot_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::DirBuilder::new().recursive(true).create(repo.join("profiles")).unwrap();
        let set = |path: &Path, mode| {
            let opened = std::fs::File::open(path).unwrap();
            opened.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&repo, 0o755);
        set(&repo.join("profiles"), 0o755);
        let mapped = building(Identity::Mapped { outer_first: 100_000, count: 65_536 });
        let config = config(dir.path());
        assert_eq!(worst(&checks(&mapped, &config, std::slice::from_ref(&repo))), State::Ok);
        set(&repo.join("profiles"), 0o750);
        let told = checks(&mapped, &config, std::slice::from_ref(&repo));
        assert!(told.iter().any(|check| check.finding.contains("repo/profiles")), "{told:?}");
        let own = building(Identity::Single { uid: 250, gid: 250 });
        assert_eq!(
            worst(&checks(&own, &config, std::slice::from_ref(&repo))),
            State::Ok,
            "a user's builds are no others"
        );
        let etc = dir.path().join("etc/portage");
        std::fs::DirBuilder::new().recursive(true).create(&etc).unwrap();
        std::os::unix::fs::symlink("/", etc.join("package.use")).unwrap();
        let told = checks(&own, &config, &[repo]);
        assert!(told.iter().any(|check| check.finding.contains("package.use leads to /")), "{told:?}");
    }

    #[tokio::test]
    async fn programs_that_are_not_in_the_path_are_missed() {
        let dir = tempfile::tempdir().unwrap();
        let found = Building::try_out(dir.path().as_os_str()).await;
        assert!(found.portage.unwrap().unwrap_err().contains("python3"));
    }
}
