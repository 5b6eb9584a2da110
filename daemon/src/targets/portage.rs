//! Asking Portage which ebuilds atoms and sets mean: `choose.py`, run inside the sandbox, and its answer.
//!
//! It sees what a build sees, so that a fetch, a build and emerge mean the same, with the world file and the database of
//! installed packages of `--config-root` where that has its own.

use super::{Chosen, Meaning};
use crate::api::LeftOut;
use crate::builds::reach::ReachError;
use crate::domain::Domain;
use sandbox::{Bind, Cancel, End, MissingProgram, SandboxError};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tree::cpv::Cpv;

/// A set of all installed packages takes seconds; a repository without md5-cache minutes.
const DEADLINE: Duration = Duration::from_secs(300);
/// A package takes some hundred bytes.
const ANSWER_MAX_BYTES: u64 = 64 << 20;
/// Words of Portage that are told, in characters.
const SAID_MAX: usize = 500;
/// What of a config root is its own, and where Portage looks for it.
const STATE: [&str; 2] = ["var/lib/portage", "var/db/pkg"];
const SCRIPT: &str = include_str!("choose.py");

/// Why Portage did not say.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("there is no {}", path.display())]
    NoConfiguration { path: PathBuf },
    #[error("no profile is chosen: {} leads to none", path.display())]
    NoProfile { path: PathBuf },
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
    #[error("Portage answered about {found} targets, not {asked}")]
    Count { asked: usize, found: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    has_profile: bool,
    answers: Vec<One>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    packages: Vec<Package>,
    left_out: Vec<Line>,
    notes: Vec<String>,
    nothing: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    cpv: String,
    repo: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    file: Option<String>,
    line: Option<u64>,
    text: String,
    why: String,
}

/// What each of these means, in the same order.
///
/// Cancel safe: yes; Portage is killed.
pub(super) async fn ask(domain: &Arc<Domain>, asked: &[String]) -> Result<Vec<Meaning>, AskError> {
    let root = &domain.config.config_root;
    let etc = root.join("etc/portage");
    if !etc.is_dir() {
        return Err(AskError::NoConfiguration { path: etc });
    }
    let (sandbox, inside) = (domain.builds.sandbox()?, domain.builds.inside(domain).await?);
    let python = inside.program("python3").ok_or(AskError::NoPython)?;
    let mut policy = inside.resolver();
    policy.limits.time = DEADLINE;
    let state = own_state(root);
    policy.binds.extend(state.iter().map(|(outside, at)| Bind::read_only(outside).at(at)));
    let command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), SCRIPT.into()];
    let input = serde_json::to_vec(asked)?;
    // Each is a process of some hundred megabytes; who waits is answered by the next.
    let _turn = domain.questions.choosing.acquire().await;
    let captured = sandbox.capture(&policy, &command, &input, ANSWER_MAX_BYTES, Cancel::never()).await?;
    let answer: Answer = match captured.outcome.end {
        End::Ended { code: 0 } if !captured.output.is_empty() => serde_json::from_slice(&captured.output)?,
        _ => {
            let said: Vec<char> = captured.errors.trim_end().chars().rev().take(SAID_MAX).collect();
            return Err(AskError::Broke { said: said.into_iter().rev().collect() });
        }
    };
    if !answer.has_profile {
        return Err(AskError::NoProfile { path: etc.join("make.profile") });
    }
    if answer.answers.len() != asked.len() {
        return Err(AskError::Count { asked: asked.len(), found: answer.answers.len() });
    }
    Ok(asked.iter().zip(answer.answers).map(|(target, one)| meaning(target, one, &state)).collect())
}

/// Directories of a config root that is another than `/` which lie elsewhere inside.
fn own_state(root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let places = STATE.iter().map(|place| (absolute.join(place), Path::new("/").join(place)));
    places.filter(|(outside, at)| outside != at && outside.is_dir()).collect()
}

fn meaning(target: &str, one: One, state: &[(PathBuf, PathBuf)]) -> Meaning {
    let outside = |file: String| {
        let found = state.iter().find_map(|(outside, at)| Some(outside.join(Path::new(&file).strip_prefix(at).ok()?)));
        found.map_or(file, |path| path.display().to_string())
    };
    let left_out = |line: Line| LeftOut {
        target: target.to_owned(),
        file: line.file.map(outside),
        line: line.line,
        text: line.text,
        why: line.why,
    };
    let mut meaning = Meaning {
        packages: Vec::new(),
        left_out: one.left_out.into_iter().map(left_out).collect(),
        notes: one.notes,
        nothing: one.nothing,
    };
    for Package { cpv, repo } in one.packages {
        match cpv.parse::<Cpv>() {
            Ok(cpv) => meaning.packages.push(Chosen { cpv, repo }),
            Err(error) => meaning.notes.push(format!("{target}: what Portage takes is not read here: {error}")),
        }
    }
    meaning
}
