//! Capturing this machine's domain: `capture.py` asks Portage in the sandbox, and what it says becomes blobs.

use super::domain_file::{DomainFile, Environments};
use super::domain_names::script;
use super::inside::Inside;
use super::record::{DomainRecord, RECORD_BYTES_MAX, ReadRecordError, RepositoryState};
use sandbox::{Cancel, End, Sandbox, SandboxError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;
use tree::digest::Digest;

/// Reading /etc/portage takes a second.
const DEADLINE: Duration = Duration::from_secs(120);
/// Files are hexadecimal digits in it.
const ANSWER_MAX_BYTES: u64 = 80 << 20;
const SCRIPT: &str = script!("capture.py");

/// Why this machine's configuration cannot be given to another one.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaptureError {
    /// There is no Portage.
    #[error("there is no python3 in the daemon's PATH to run Portage with")]
    NoPython,
    /// The sandbox.
    #[error("Portage cannot be asked for its configuration")]
    Sandbox(#[from] SandboxError),
    /// The script broke.
    #[error("Portage did not tell its configuration: {said}")]
    Broke {
        /// The end of what it printed.
        said: String,
    },
    /// The answer is not one this program understands.
    #[error("what Portage tells of its configuration cannot be read: {0}")]
    Answer(String),
    /// Something decides builds that no other machine is given.
    #[error("{0}; such a configuration stays on this machine")]
    Private(String),
}

impl From<ReadRecordError> for CaptureError {
    fn from(error: ReadRecordError) -> Self {
        Self::Private(error.to_string())
    }
}

/// A captured domain: the record, and the files that it names.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) record: Vec<u8>,
    pub(super) files: Vec<(Digest, Vec<u8>)>,
}

impl Captured {
    /// What the domain is known by.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.record)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    variables: BTreeMap<String, String>,
    profile: String,
    repositories: Vec<RepositoryState>,
    files: BTreeMap<String, String>,
    problems: Vec<String>,
}

/// Asks Portage for the configuration of `inside`.
///
/// Cancel safe: yes.
pub(super) async fn capture(sandbox: &Sandbox, inside: &Inside) -> Result<Captured, CaptureError> {
    let python = inside.program("python3").ok_or(CaptureError::NoPython)?;
    let command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), SCRIPT.into()];
    let mut policy = inside.resolver();
    policy.limits.time = DEADLINE;
    let captured = sandbox.capture(&policy, &command, b"", ANSWER_MAX_BYTES, Cancel::never()).await?;
    if !matches!(captured.outcome.end, End::Ended { code: 0 }) || captured.output.is_empty() {
        return Err(CaptureError::Broke { said: super::plan::cut(&captured.errors) });
    }
    read(&captured.output)
}

fn read(answer: &[u8]) -> Result<Captured, CaptureError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| CaptureError::Answer(error.to_string()))?;
    if !answer.problems.is_empty() {
        return Err(CaptureError::Private(answer.problems.join("; ")));
    }
    let mut files = Vec::new();
    let mut named = BTreeMap::new();
    let environments = Environments::of(answer.files.keys());
    for (name, text) in answer.files {
        let content =
            unhex(&text).ok_or_else(|| CaptureError::Answer(format!("{name} is not in hexadecimal digits")))?;
        // Told now, where its user can do something about it, and not by the builder.
        if let Some(Err(wrong)) = DomainFile::at(&name).map(|file| file.written_anew(&content, &environments)) {
            return Err(CaptureError::Private(format!(
                "/etc/portage/{name} has what no other machine takes: {}",
                wrong.0
            )));
        }
        let size = (content.len() as u64).try_into();
        let size = size.map_err(|error| CaptureError::Private(format!("/etc/portage/{name}: {error}")))?;
        let digest = Digest::of(&content);
        named.insert(name, (digest, size));
        files.push((digest, content));
    }
    let record = DomainRecord {
        variables: answer.variables,
        profile: answer.profile,
        repositories: answer.repositories,
        files: named,
    };
    record.check()?;
    let record = record.encode();
    if record.len() as u64 > RECORD_BYTES_MAX {
        return Err(ReadRecordError::Long(record.len()).into());
    }
    Ok(Captured { record, files })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_with_a_private_part_is_not_captured() {
        let answer = |more: &str| {
            format!(
                "{{\"variables\":{{}},\"profile\":\"a:b\",\"repositories\":[],\"files\":{{{more}}},\"problems\":[]}}"
            )
        };
        let good = read(answer("\"package.use\":\"612f6220630a\"").as_bytes()).unwrap();
        let record = DomainRecord::decode(&good.record).unwrap();
        assert_eq!(record.files["package.use"], (Digest::of(b"a/b c\n"), 6.try_into().unwrap()));
        assert!(matches!(read(answer("\"bashrc\":\"61\"").as_bytes()), Err(CaptureError::Private(_))));
        let private = answer("").replace("\"problems\":[]", "\"problems\":[\"x leads out\"]");
        assert!(matches!(read(private.as_bytes()), Err(CaptureError::Private(why)) if why == "x leads out"));
    }
}
