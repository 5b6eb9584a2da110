//! What client and builder say in a dialogue of `/peerage/build/1`: DAG-CBOR maps, one a frame. FORMATS.md has the bytes.
//!
//! A client offers once, then says that it is alive, or cancels. A builder refuses or accepts, then tells how far it is, and
//! at last what it made or why not.

use crate::builds::claim::CLAIM_BYTES_MAX;
use crate::builds::recipe::RECIPE_BYTES_MAX;
use crate::builds::record::RECORD_BYTES_MAX;
use crate::sizes::SaidSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;

/// The form spoken here.
pub(super) const VERSION: u8 = 1;
/// Bytes of a log in one message.
pub(super) const LOG_BYTES_MAX: usize = 64 * 1024;
/// Lines of a refusal or failure, and bytes of each.
pub(super) const LINES_MAX: usize = 60;
pub(super) const LINE_BYTES_MAX: usize = 2048;
/// Bytes of a short text.
const TEXT_BYTES_MAX: usize = 4096;

/// Bytes of a domain record, as its client says.
pub(super) type RecordSize = SaidSize<RECORD_BYTES_MAX>;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToBuilder {
    Offer(Box<Offer>),
    Alive {},
    /// It does not want the package any more.
    Cancel {},
}

/// One package that another machine may build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    pub(super) v: u8,
    /// Names this attempt in logs of both ends; 16 random bytes.
    pub(super) lease: ByteBuf,
    pub(super) cpv: String,
    pub(super) repo: String,
    pub(super) fingerprint: ByteBuf,
    /// Its text, so that a builder that comes to another one can say what differs.
    pub(super) recipe: String,
    /// Of the client's domain record.
    pub(super) domain: ByteBuf,
    /// Bytes of the record.
    pub(super) domain_size: RecordSize,
    pub(super) arch: String,
    pub(super) chost: String,
}

/// What a builder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToClient {
    Refused {
        code: Code,
        reason: String,
        lines: Vec<String>,
    },
    Accepted {
        job: u64,
    },
    Event {
        phase: Option<String>,
        reason: Option<String>,
        log: ByteBuf,
    },
    Alive {},
    /// The receipt for the package, which an earlier version gave as a claim.
    Done {
        claim: ByteBuf,
    },
    Failed {
        phase: String,
        reason: String,
        tail: Vec<String>,
        ebuild: bool,
    },
}

/// Why a builder does not build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    /// The client's role does not allow it.
    Role,
    Arch,
    Chost,
    Cpu,
    Repository,
    Profile,
    /// It comes to another recipe.
    Differs,
    /// It has enough to do.
    Busy,
    /// No sandbox can build it.
    Hopeless,
    /// The domain cannot be used, or did not come.
    Domain,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Role => "role",
            Self::Arch => "arch",
            Self::Chost => "chost",
            Self::Cpu => "cpu",
            Self::Repository => "repository",
            Self::Profile => "profile",
            Self::Differs => "differs",
            Self::Busy => "busy",
            Self::Hopeless => "hopeless",
            Self::Domain => "domain",
        })
    }
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("not a message about builds: {0}")]
    Form(String),
    #[error("a message about builds with too long a {0}")]
    Long(&'static str),
}

/// A message that is bounded in all its parts.
pub(super) trait Said: Serialize + DeserializeOwned {
    fn check(&self) -> Result<(), ReadError>;

    fn encode(&self) -> Vec<u8> {
        serde_ipld_dagcbor::to_vec(self).expect("text, numbers and bytes always have a DAG-CBOR form")
    }

    fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let said: Self = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| ReadError::Form(error.to_string()))?;
        said.check()?;
        Ok(said)
    }
}

fn bounded(bounds: &[(&'static str, bool)]) -> Result<(), ReadError> {
    bounds.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(what, _)| Err(ReadError::Long(what)))
}

fn short(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX
}

fn few(lines: &[String]) -> bool {
    lines.len() <= LINES_MAX && lines.iter().all(|line| line.len() <= LINE_BYTES_MAX)
}

impl Said for ToBuilder {
    fn check(&self) -> Result<(), ReadError> {
        let Self::Offer(offer) = self else { return Ok(()) };
        bounded(&[
            ("lease", offer.lease.len() <= 64),
            ("name", [&offer.cpv, &offer.repo, &offer.arch, &offer.chost].iter().all(|text| text.len() <= 512)),
            ("digest", offer.fingerprint.len() == 64 && offer.domain.len() == 64),
            ("recipe", offer.recipe.len() <= RECIPE_BYTES_MAX),
        ])
    }
}

impl Said for ToClient {
    fn check(&self) -> Result<(), ReadError> {
        let optional = |text: &Option<String>| text.as_deref().is_none_or(short);
        match self {
            Self::Refused { reason, lines, .. } => bounded(&[("reason", short(reason)), ("list of lines", few(lines))]),
            Self::Event { phase, reason, log } => bounded(&[
                ("phase", optional(phase)),
                ("reason", optional(reason)),
                ("log", log.len() <= LOG_BYTES_MAX),
            ]),
            Self::Done { claim } => bounded(&[("claim", claim.len() <= CLAIM_BYTES_MAX)]),
            Self::Failed { phase, reason, tail, .. } => {
                bounded(&[("phase", short(phase)), ("reason", short(reason)), ("end of a log", few(tail))])
            }
            Self::Accepted { .. } | Self::Alive {} => Ok(()),
        }
    }
}

/// A text that fits.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Lines that fit.
pub(super) fn cut_lines(lines: &[String]) -> Vec<String> {
    let skipped = lines.len().saturating_sub(LINES_MAX);
    lines.iter().skip(skipped).map(|line| cut(line, LINE_BYTES_MAX)).collect()
}

impl ToClient {
    pub(super) fn refused(code: Code, reason: &str) -> Self {
        Self::Refused { code, reason: cut(reason, TEXT_BYTES_MAX), lines: Vec::new() }
    }

    pub(super) fn failed(phase: &str, reason: &str, tail: &[String], ebuild: bool) -> Self {
        Self::Failed {
            phase: cut(phase, TEXT_BYTES_MAX),
            reason: cut(reason, TEXT_BYTES_MAX),
            tail: cut_lines(tail),
            ebuild,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            v: VERSION,
            lease: ByteBuf::from(vec![1; 16]),
            cpv: "app-misc/one-1.0".into(),
            repo: "main".into(),
            fingerprint: ByteBuf::from(vec![2; 64]),
            recipe: "peerage recipe 1\n".into(),
            domain: ByteBuf::from(vec![3; 64]),
            domain_size: 100.try_into().unwrap(),
            arch: "amd64".into(),
            chost: "x86_64-pc-linux-gnu".into(),
        }
    }

    #[test]
    fn messages_read_as_they_were_said() {
        for said in [ToBuilder::Offer(Box::new(offer())), ToBuilder::Alive {}, ToBuilder::Cancel {}] {
            assert_eq!(ToBuilder::decode(&said.encode()).unwrap(), said);
        }
        for said in [
            ToClient::refused(Code::Differs, "because"),
            ToClient::Accepted { job: 7 },
            ToClient::Event { phase: Some("compile".into()), reason: None, log: ByteBuf::from(b"x".to_vec()) },
            ToClient::Alive {},
            ToClient::Done { claim: ByteBuf::from(vec![1]) },
            ToClient::failed("compile", "died", &["line".to_owned()], true),
        ] {
            assert_eq!(ToClient::decode(&said.encode()).unwrap(), said);
        }
    }

    #[test]
    fn what_is_too_long_or_something_else_is_refused() {
        let long = Offer { recipe: "x".repeat(RECIPE_BYTES_MAX + 1), ..offer() };
        assert!(ToBuilder::decode(&ToBuilder::Offer(Box::new(long)).encode()).is_err());
        let digest = Offer { fingerprint: ByteBuf::from(vec![1; 63]), ..offer() };
        assert!(ToBuilder::decode(&ToBuilder::Offer(Box::new(digest)).encode()).is_err());
        let log = ToClient::Event { phase: None, reason: None, log: ByteBuf::from(vec![0; LOG_BYTES_MAX + 1]) };
        assert!(ToClient::decode(&log.encode()).is_err());
        assert!(
            ToClient::decode(b"garbage").is_err()
                && ToBuilder::decode(&ToClient::Accepted { job: 1 }.encode()).is_err()
        );
        let failed = ToClient::failed("x", &"y".repeat(10_000), &vec!["z".repeat(10_000); 100], false);
        assert!(ToClient::decode(&failed.encode()).is_ok(), "what is said here always fits");
    }
}
