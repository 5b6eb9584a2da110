//! The messages of `/peerage/group/1`: bytes about a topic, and bytes for an answer, neither of them looked into here.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::{DecodeError, Message, Raw, VERSION, from_cbor, to_cbor};
use serde::{Deserialize, Serialize};

/// Bytes of one question.
pub const QUESTION_BYTES_MAX: usize = 128 << 10;
/// Bytes of one answer: four times the longest roster.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Joining a group, and its roster.
    Group,
    /// What a member has, knows and would build.
    Query,
}

/// Asks something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRequest {
    /// About what.
    pub topic: Topic,
    /// The question, at most [`QUESTION_BYTES_MAX`] bytes.
    pub question: Vec<u8>,
}

/// Answers a [`GroupRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// The answer, at most [`ANSWER_BYTES_MAX`] bytes.
    Said(Vec<u8>),
    /// Too many questions are open.
    Busy,
    /// This peer, or this topic, is not answered here.
    Refused,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionForm<'a> {
    v: u8,
    t: u8,
    #[serde(borrow)]
    q: Raw<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidForm<'a> {
    v: u8,
    s: u8,
    #[serde(borrow)]
    a: Raw<'a>,
}

impl Message for GroupRequest {
    const LENGTH_MAX: usize = QUESTION_BYTES_MAX + 64;

    fn encode(&self) -> Vec<u8> {
        let t = match self.topic {
            Topic::Group => 0,
            Topic::Query => 1,
        };
        to_cbor(&QuestionForm { v: VERSION, t, q: Raw(&self.question) })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: QuestionForm<'_> = from_cbor(bytes, |form: &QuestionForm<'_>| form.v)?;
        let topic = match form.t {
            0 => Topic::Group,
            1 => Topic::Query,
            status => return Err(DecodeError::Status { status }),
        };
        Ok(Self { topic, question: within(form.q.0, QUESTION_BYTES_MAX)? })
    }
}

impl Message for GroupAnswer {
    const LENGTH_MAX: usize = ANSWER_BYTES_MAX + 64;

    fn encode(&self) -> Vec<u8> {
        let (s, said) = match self {
            Self::Said(bytes) => (0, bytes.as_slice()),
            Self::Busy => (2, [].as_slice()),
            Self::Refused => (4, [].as_slice()),
        };
        to_cbor(&SaidForm { v: VERSION, s, a: Raw(said) })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let form: SaidForm<'_> = from_cbor(bytes, |form: &SaidForm<'_>| form.v)?;
        match (form.s, form.a.0.len()) {
            (0, _) => Ok(Self::Said(within(form.a.0, ANSWER_BYTES_MAX)?)),
            (2, 0) => Ok(Self::Busy),
            (4, 0) => Ok(Self::Refused),
            (status, _) => Err(DecodeError::Status { status }),
        }
    }
}

fn within(bytes: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::EntryLength { length: bytes.len(), max });
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::exercise;
    use proptest::prelude::{any, prop, proptest};

    proptest! {
        #[test]
        fn what_is_asked_and_said_comes_as_it_was(said in prop::collection::vec(any::<u8>(), 0..200)) {
            for topic in [Topic::Group, Topic::Query] {
                let request = GroupRequest { topic, question: said.clone() };
                assert_eq!(GroupRequest::decode(&request.encode()).unwrap(), request);
            }
            for answer in [GroupAnswer::Said(said), GroupAnswer::Busy, GroupAnswer::Refused] {
                assert_eq!(GroupAnswer::decode(&answer.encode()).unwrap(), answer);
            }
        }

        #[test]
        fn one_byte_changed_does_no_harm(at in 0_usize..40, to: u8) {
            for mut bytes in [
                GroupRequest { topic: Topic::Query, question: vec![7; 20] }.encode(),
                GroupAnswer::Said(vec![1, 2, 3]).encode(),
            ] {
                let at = at % bytes.len();
                bytes[at] = to;
                exercise(&bytes);
            }
        }
    }

    #[test]
    fn the_longest_fit_their_frames_and_longer_ones_are_refused() {
        let asked = |length| GroupRequest { topic: Topic::Group, question: vec![0xff; length] }.encode();
        assert!(asked(QUESTION_BYTES_MAX).len() <= GroupRequest::LENGTH_MAX);
        assert!(GroupRequest::decode(&asked(QUESTION_BYTES_MAX)).is_ok());
        assert!(matches!(
            GroupRequest::decode(&asked(QUESTION_BYTES_MAX + 1)),
            Err(DecodeError::EntryLength { max: QUESTION_BYTES_MAX, .. })
        ));
        let said = GroupAnswer::Said(vec![0xff; ANSWER_BYTES_MAX]).encode();
        assert!(said.len() <= GroupAnswer::LENGTH_MAX && GroupAnswer::decode(&said).is_ok());
        let both = to_cbor(&SaidForm { v: 1, s: 4, a: Raw(b"x") });
        assert!(matches!(GroupAnswer::decode(&both), Err(DecodeError::Status { status: 4 })));
    }

    #[test]
    fn the_bytes_are_those_that_are_written_down() {
        let question = GroupRequest { topic: Topic::Query, question: b"xy".to_vec() }.encode();
        assert_eq!(question, b"\xa3\x61q\x42xy\x61t\x01\x61v\x01");
        assert_eq!(GroupAnswer::Said(b"z".to_vec()).encode(), b"\xa3\x61a\x41z\x61s\x00\x61v\x01");
    }
}
