//! Questions between members of a group, both ends: the packages they find, have, and foresee, and what is nearly wanted.
//!
//! They go over `/peerage/group/1` as bytes about [`Topic::Query`]: DAG-CBOR here (FORMATS.md). Who is no member is not
//! answered at all; a weather, which runs Portage's resolver, is for members that may also give builds to do, one at a time.

use super::instance::Instance;
use super::{search, show, weather};
use crate::announce::Answerer;
use crate::api_builds::{PlanOption, ShowAnswer};
use crate::api_questions::{MissKind, SearchAnswer, WeatherAnswer};
use crate::builds::plan::is_word;
use crate::builds::with_causes;
use crate::domain::Domain;
use crate::group::{FindMemberError, Role};
use crate::swarm::wire::ANSWER_BYTES_MAX;
use crate::swarm::{OpenError, PeerId, Topic};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tree::cpu::{CpuFeatures, Needed};
use tree::cpv::Cp;

/// The form written here.
const VERSION: u8 = 1;
/// Members that are asked side by side, and how many in all by a question to everybody.
const WIDTH: usize = 16;
const MEMBERS_MAX: usize = 64;
/// How long a question to everybody waits for each; who asks has an answer of its own already.
const SWEEP_WAIT: Duration = Duration::from_secs(5);
/// How long a question to one member waits.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// A weather is the work of a resolver.
const WEATHER_WAIT: Duration = Duration::from_secs(120);
/// Atoms of one question.
const ATOMS_MAX: usize = 1000;
/// Packages whose binary packages are asked for at once.
const PACKAGES_MAX: usize = 2000;
/// Binary packages of one package that are told.
const OFFERS_MAX: usize = 4;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    v: u8,
    question: MemberQuestion,
}

/// What a member may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberQuestion {
    /// Packages that have these words.
    Search(Vec<String>),
    /// The binary packages and distfiles of an atom.
    Show(String),
    /// What becomes of these atoms there.
    Weather(Vec<String>, Vec<PlanOption>),
    /// Which binary packages there are of these packages, and how long they took to build.
    Offers(Vec<String>),
}

/// What it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberAnswer {
    /// To [`MemberQuestion::Search`].
    Search(SearchAnswer),
    /// To [`MemberQuestion::Show`].
    Show(ShowAnswer),
    /// To [`MemberQuestion::Weather`].
    Weather(WeatherAnswer),
    /// To [`MemberQuestion::Offers`].
    Offers(Offers),
    /// There is none, for this reason.
    Refused(String),
}

/// Binary packages of a member, and what it knows of builds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// The packages.
    pub offers: Vec<Offer>,
    /// Seconds that builds took, by package.
    pub times: BTreeMap<String, u64>,
}

/// A binary package of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    cpv: String,
    repo: String,
    use_flags: BTreeSet<String>,
    iuse: BTreeSet<String>,
    chost: Option<String>,
    cflags: Option<String>,
    fingerprint: String,
    build_id: Option<u64>,
    digest: String,
}

/// Why a member gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskMemberError {
    /// There is none of this name.
    #[error(transparent)]
    Find(#[from] FindMemberError),
    /// It cannot be asked.
    #[error("{name} does not answer")]
    Open {
        /// What it is called.
        name: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// It says no.
    #[error("{name} says: {why}")]
    Refused {
        /// What it is called.
        name: String,
        /// Its words.
        why: String,
    },
    /// It says something else.
    #[error("the answer of {name} is none to this question: does it run another version?")]
    Garbled {
        /// What it is called.
        name: String,
    },
}

impl From<&Instance> for Offer {
    fn from(instance: &Instance) -> Self {
        Self {
            cpv: instance.cpv.to_string(),
            repo: instance.repo.clone(),
            use_flags: instance.use_flags.clone(),
            iuse: instance.iuse.clone(),
            chost: instance.chost.clone(),
            cflags: instance.cflags.clone(),
            fingerprint: instance.fingerprint.to_string(),
            build_id: instance.build_id,
            digest: instance.digest.to_string(),
        }
    }
}

impl Offer {
    /// What it is to who asked; none where it makes no sense.
    fn instance(self, peer: PeerId, name: &str, here: &CpuFeatures) -> Option<Instance> {
        let on = self.use_flags.iter().map(String::as_str);
        let needed = Needed::of(self.chost.as_deref().unwrap_or_default(), self.cflags.as_deref(), on);
        let missing = needed.missing_in(here).map(|missing| format!("this processor does not have {missing}"));
        Some(Instance {
            cpv: self.cpv.parse().ok()?,
            repo: self.repo,
            use_flags: self.use_flags,
            iuse: self.iuse,
            chost: self.chost,
            cflags: self.cflags,
            fingerprint: self.fingerprint.parse().ok()?,
            build_id: self.build_id,
            digest: self.digest.parse().ok()?,
            at: Some(name.to_owned()),
            peer: Some(peer),
            rejects: missing.map(|text| (MissKind::Cpu, text)).into_iter().collect(),
        })
    }
}

/// Answers the questions of members from now on.
pub fn answer_members(domain: &Arc<Domain>) {
    let weak = Arc::downgrade(domain);
    let answerer: Box<Answerer> = Box::new(move |peer, question| {
        // The daemon may be about to end.
        let domain = weak.upgrade();
        Box::pin(async move { answer(&domain?, peer, &question).await })
    });
    domain.announcer.shared().answer_queries(answerer);
}

async fn answer(domain: &Arc<Domain>, peer: PeerId, question: &[u8]) -> Option<Vec<u8>> {
    let role = domain.groups.role(&peer)?;
    let asked: Asked = serde_ipld_dagcbor::from_slice(question).ok()?;
    let answer = if asked.v == VERSION {
        found(domain, peer, role, asked.question).await
    } else {
        MemberAnswer::Refused(format!("version {} of a question, expected {VERSION}", asked.v))
    };
    Some(encoded(answer))
}

async fn found(domain: &Arc<Domain>, peer: PeerId, role: Role, question: MemberQuestion) -> MemberAnswer {
    let no = |why: &str| MemberAnswer::Refused(why.to_owned());
    match question {
        MemberQuestion::Search(words) if search::are_words(&words) => {
            MemberAnswer::Search(search::local(domain, &words, Some(peer)).await)
        }
        MemberQuestion::Show(atom) => match show::local(domain, &atom, Some(peer)).await {
            // How this machine reads its configuration is its own affair.
            Ok(shown) => MemberAnswer::Show(ShowAnswer { notes: Vec::new(), ..shown }),
            Err(error) => MemberAnswer::Refused(format!("{atom:?} is no atom: {error}")),
        },
        MemberQuestion::Weather(_, _) if role < Role::Build => no("the role fetch may not ask for a weather"),
        MemberQuestion::Weather(atoms, options)
            if !atoms.is_empty() && atoms.len() <= ATOMS_MAX && atoms.iter().all(|atom| is_word(atom)) =>
        {
            let Ok(_turn) = domain.questions.weathers.try_acquire() else {
                return no("another member is asking for a weather: ask again later");
            };
            match weather::weather(domain, &atoms, &options, peer).await {
                Ok(answer) => MemberAnswer::Weather(answer),
                Err(error) => MemberAnswer::Refused(with_causes(&error)),
            }
        }
        MemberQuestion::Offers(packages) if packages.len() <= PACKAGES_MAX => {
            MemberAnswer::Offers(offers(domain, &packages, peer).await)
        }
        MemberQuestion::Search(_) | MemberQuestion::Weather(_, _) | MemberQuestion::Offers(_) => {
            no("the question has too many words, or none")
        }
    }
}

async fn offers(domain: &Arc<Domain>, packages: &[String], asked_by: PeerId) -> Offers {
    let wanted: BTreeSet<Cp> = packages.iter().filter_map(|text| text.parse().ok()).collect();
    let built = weather::build_times(domain);
    let times = wanted.iter().filter_map(|cp| Some((cp.to_string(), built.seconds(cp)?))).collect();
    let mut offers = Vec::new();
    for (_, mut instances) in weather::instances(domain, wanted, Some(asked_by)).await {
        instances.sort_by(|one, other| other.cpv.version.cmp(&one.cpv.version));
        offers.extend(instances.iter().take(OFFERS_MAX).map(Offer::from));
    }
    Offers { offers, times }
}

/// In bytes; an answer that is too long loses its end and says so.
fn encoded(mut answer: MemberAnswer) -> Vec<u8> {
    loop {
        let bytes = serde_ipld_dagcbor::to_vec(&answer).expect("texts and numbers always have a DAG-CBOR form");
        if bytes.len() <= ANSWER_BYTES_MAX {
            return bytes;
        }
        match &mut answer {
            MemberAnswer::Search(found) => {
                found.rows.truncate(found.rows.len() / 2);
                found.more = true;
            }
            MemberAnswer::Weather(weather) => {
                weather.packages.truncate(weather.packages.len() / 2);
                weather.more = true;
            }
            MemberAnswer::Show(shown) => {
                shown.binpkgs.truncate(shown.binpkgs.len() / 2);
                shown.distfiles.truncate(shown.distfiles.len() / 2);
            }
            MemberAnswer::Offers(offers) => offers.offers.truncate(offers.offers.len() / 2),
            MemberAnswer::Refused(why) => why.clear(),
        }
    }
}

async fn ask(
    domain: &Arc<Domain>,
    peer: PeerId,
    question: MemberQuestion,
    wait: Duration,
) -> Result<MemberAnswer, AskMemberError> {
    let name = domain.groups.name(&peer);
    let asked = Asked { v: VERSION, question };
    let bytes = serde_ipld_dagcbor::to_vec(&asked).expect("texts and numbers always have a DAG-CBOR form");
    let answer = match domain.swarm.ask(peer, Topic::Query, bytes, wait).await {
        Ok(answer) => answer,
        Err(source) => return Err(AskMemberError::Open { name, source }),
    };
    match serde_ipld_dagcbor::from_slice(&answer) {
        Ok(MemberAnswer::Refused(why)) => Err(AskMemberError::Refused { name, why }),
        Ok(answer) => Ok(answer),
        Err(_) => Err(AskMemberError::Garbled { name }),
    }
}

async fn ask_all(
    domain: &Arc<Domain>,
    question: &MemberQuestion,
) -> Vec<(PeerId, Result<MemberAnswer, AskMemberError>)> {
    let asking = domain.connected_members().into_iter().take(MEMBERS_MAX).map(|peer| {
        let answer = ask(domain, peer, question.clone(), SWEEP_WAIT);
        async move { (peer, answer.await) }
    });
    futures::stream::iter(asking.collect::<Vec<_>>()).buffer_unordered(WIDTH).collect().await
}

/// What binary packages connected members have of these packages, and how long builds took there.
///
/// Cancel safe: yes.
pub(super) async fn offers_of_all(domain: &Arc<Domain>, packages: &BTreeSet<Cp>) -> (Vec<Instance>, BTreeMap<Cp, u64>) {
    if packages.is_empty() {
        return Default::default();
    }
    let names = packages.iter().take(PACKAGES_MAX).map(ToString::to_string).collect();
    let (mut instances, mut times) = (Vec::new(), BTreeMap::new());
    let here = domain.binhost.machine().features();
    for (peer, answer) in ask_all(domain, &MemberQuestion::Offers(names)).await {
        match answer {
            Ok(MemberAnswer::Offers(told)) => {
                let name = domain.groups.name(&peer);
                let asked = |instance: &Instance| packages.contains(&instance.cpv.cp);
                instances.extend(
                    told.offers.into_iter().filter_map(|offer| offer.instance(peer, &name, here)).filter(asked),
                );
                for (package, seconds) in told.times {
                    let Ok(cp) = package.parse() else { continue };
                    times.entry(cp).or_insert(seconds);
                }
            }
            Ok(_) => tracing::info!(%peer, "a member answered another question than was asked"),
            Err(error) => tracing::debug!(%peer, %error, "a member was not heard about its packages"),
        }
    }
    (instances, times)
}

/// What connected members find, each with its name; and who did not answer.
///
/// Cancel safe: yes.
pub(super) async fn search_all(domain: &Arc<Domain>, words: &[String]) -> (Vec<(String, SearchAnswer)>, Vec<String>) {
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for (peer, answer) in ask_all(domain, &MemberQuestion::Search(words.to_vec())).await {
        let name = domain.groups.name(&peer);
        match answer {
            Ok(MemberAnswer::Search(answer)) => found.push((name, answer)),
            Ok(_) => silent.push(AskMemberError::Garbled { name }.to_string()),
            Err(error) => silent.push(with_causes(&error)),
        }
    }
    (found, silent)
}

/// What one member finds; and its name.
///
/// Cancel safe: yes.
///
/// # Errors
/// When there is no such member, or no answer of it.
pub async fn search_of(
    domain: &Arc<Domain>,
    member: &str,
    words: &[String],
) -> Result<(String, SearchAnswer), AskMemberError> {
    let peer = domain.groups.find(member)?;
    let name = domain.groups.name(&peer);
    match ask(domain, peer, MemberQuestion::Search(words.to_vec()), ANSWER_WAIT).await? {
        MemberAnswer::Search(answer) => Ok((name, answer)),
        _ => Err(AskMemberError::Garbled { name }),
    }
}

/// What one member has of an atom.
///
/// Cancel safe: yes.
///
/// # Errors
/// As [`search_of`].
pub async fn show_of(domain: &Arc<Domain>, member: &str, atom: &str) -> Result<ShowAnswer, AskMemberError> {
    let peer = domain.groups.find(member)?;
    match ask(domain, peer, MemberQuestion::Show(atom.to_owned()), ANSWER_WAIT).await? {
        MemberAnswer::Show(answer) => Ok(answer),
        _ => Err(AskMemberError::Garbled { name: domain.groups.name(&peer) }),
    }
}

/// The weather of one member's machine.
///
/// Cancel safe: yes.
///
/// # Errors
/// As [`search_of`].
pub async fn weather_of(
    domain: &Arc<Domain>,
    member: &str,
    atoms: &[String],
    options: &[PlanOption],
) -> Result<WeatherAnswer, AskMemberError> {
    let peer = domain.groups.find(member)?;
    match ask(domain, peer, MemberQuestion::Weather(atoms.to_vec(), options.to_vec()), WEATHER_WAIT).await? {
        MemberAnswer::Weather(answer) => Ok(answer),
        _ => Err(AskMemberError::Garbled { name: domain.groups.name(&peer) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_questions::SearchRow;

    #[test]
    fn questions_and_answers_come_back_as_they_went() {
        for question in [
            MemberQuestion::Search(vec!["a".to_owned()]),
            MemberQuestion::Show("a/b".to_owned()),
            MemberQuestion::Weather(vec!["@world".to_owned()], PlanOption::UPDATE.to_vec()),
            MemberQuestion::Offers(vec!["a/b".to_owned()]),
        ] {
            let bytes = serde_ipld_dagcbor::to_vec(&Asked { v: VERSION, question: question.clone() }).unwrap();
            let read: Asked = serde_ipld_dagcbor::from_slice(&bytes).unwrap();
            assert_eq!(read.question, question);
        }
        let bytes = encoded(MemberAnswer::Weather(WeatherAnswer::default()));
        let MemberAnswer::Weather(read) = serde_ipld_dagcbor::from_slice(&bytes).unwrap() else { panic!("a weather") };
        assert_eq!(read, WeatherAnswer::default());
    }

    #[test]
    fn an_answer_that_is_too_long_loses_its_end_and_says_so() {
        let row = SearchRow {
            cpv: "a/b-1".to_owned(),
            repo: "gentoo".to_owned(),
            description: "x".repeat(2000),
            domain: None,
            binary: false,
        };
        let rows = vec![row; 500];
        let bytes = encoded(MemberAnswer::Search(SearchAnswer { rows, more: false, silent: Vec::new() }));
        assert!(bytes.len() <= ANSWER_BYTES_MAX);
        let MemberAnswer::Search(read) = serde_ipld_dagcbor::from_slice(&bytes).unwrap() else { panic!("a search") };
        assert!(read.more && read.rows.len() >= 100);
    }
}
