//! Finding packages by words in their names and descriptions.

use super::members::{self, AskMemberError};
use crate::api_questions::{SearchAnswer, SearchRow};
use crate::blocking;
use crate::domain::Domain;
use crate::swarm::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tree::cpv::{Cp, Cpv};
use tree::repo::{EbuildRepo, Stamp};

/// Packages in an answer.
pub const ROWS_MAX: usize = 500;
/// Words of a question, and bytes of one.
pub const WORDS_MAX: usize = 16;
/// See [`WORDS_MAX`].
pub const WORD_BYTES_MAX: usize = 200;
/// Bytes that are kept of a description; they are one line by policy.
const DESCRIPTION_MAX: usize = 300;
/// A version that is no release comes after all others.
const LIVE: &str = "9999";

/// What the packages of the repositories say they are. Read when it is first asked for; what did not change since is
/// not read again.
#[derive(Debug, Default)]
pub struct Descriptions(Mutex<BTreeMap<String, BTreeMap<Cp, Described>>>);

#[derive(Clone, Debug)]
struct Described {
    stamp: Stamp,
    newest: Cpv,
    text: String,
}

impl Descriptions {
    /// The packages of a repository that have all of the words, with description and newest version. Blocking.
    fn find(&self, repo: &EbuildRepo, words: &[String]) -> Vec<(Cpv, String)> {
        let Ok(scanned) = repo.scan_all() else { return Vec::new() };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(repo.name().as_str()).unwrap_or_default();
        let mut now = BTreeMap::new();
        for (cp, stamp) in scanned {
            let known = before.get(&cp).filter(|known| known.stamp == stamp).cloned();
            if let Some(described) = known.or_else(|| describe(repo, &cp, stamp)) {
                now.insert(cp, described);
            }
        }
        let found = now.iter().filter(|(cp, described)| has_words(&cp.to_string(), &described.text, words));
        let found = found.map(|(_, described)| (described.newest.clone(), described.text.clone())).collect();
        all.insert(repo.name().to_string(), now);
        found
    }
}

fn describe(repo: &EbuildRepo, cp: &Cp, stamp: Stamp) -> Option<Described> {
    let ebuilds: Vec<Cpv> = repo.ebuilds(cp).iter().filter_map(|pf| Cpv::from_pf(&cp.category, pf).ok()).collect();
    let release = ebuilds.iter().rfind(|cpv| !cpv.version.as_str().contains(LIVE));
    let newest = release.or(ebuilds.last())?.clone();
    let mut text = repo.description(&newest).unwrap_or_default();
    let end = (0..=DESCRIPTION_MAX.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    Some(Described { stamp, newest, text })
}

/// Whether these may be searched for.
#[must_use]
pub fn are_words(words: &[String]) -> bool {
    let good = |word: &String| !word.is_empty() && word.len() <= WORD_BYTES_MAX;
    (1..=WORDS_MAX).contains(&words.len()) && words.iter().all(good)
}

/// What this machine and all connected members have. Of what is known here too, others are told only where they have a
/// binary package.
///
/// Cancel safe: yes.
pub async fn everywhere(domain: &Arc<Domain>, words: &[String]) -> SearchAnswer {
    let (here, (found, silent)) = futures::join!(local(domain, words, None), members::search_all(domain, words));
    let known: BTreeSet<(String, String)> = here.rows.iter().map(|row| (row.cpv.clone(), row.repo.clone())).collect();
    let (mut rows, mut more) = (here.rows, here.more);
    for (name, answer) in found {
        more |= answer.more;
        let news = |row: &SearchRow| row.binary || !known.contains(&(row.cpv.clone(), row.repo.clone()));
        rows.extend(named(answer, &name).rows.into_iter().filter(news));
    }
    let small: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let answer = ordered(rows, &small);
    SearchAnswer { more: more || answer.more, silent, ..answer }
}

/// What one member has.
///
/// Cancel safe: yes.
///
/// # Errors
/// When there is no such member, or no answer of it.
pub async fn of_member(domain: &Arc<Domain>, member: &str, words: &[String]) -> Result<SearchAnswer, AskMemberError> {
    let (name, answer) = members::search_of(domain, member, words).await?;
    Ok(named(answer, &name))
}

/// An answer of another node, as one of its domain, whatever it says itself.
fn named(mut answer: SearchAnswer, name: &str) -> SearchAnswer {
    answer.more |= answer.rows.len() > ROWS_MAX;
    answer.rows.truncate(ROWS_MAX);
    answer.rows.iter_mut().for_each(|row| row.domain = Some(name.to_owned()));
    answer.silent.clear();
    answer
}

/// Whether each word is in the name or the description.
fn has_words(name: &str, description: &str, words: &[String]) -> bool {
    let (name, description) = (name.to_lowercase(), description.to_lowercase());
    words.iter().all(|word| name.contains(word) || description.contains(word))
}

/// What this machine's repositories and binhost have, as far as who asks is told of it. `words` are in small letters or become
/// so.
///
/// Cancel safe: yes.
pub async fn local(domain: &Arc<Domain>, words: &[String], asked_by: Option<PeerId>) -> SearchAnswer {
    let (looking, words) = (Arc::clone(domain), words.iter().map(|word| word.to_lowercase()).collect::<Vec<_>>());
    blocking::run(move || {
        let mut binaries: BTreeMap<Cp, Cpv> = BTreeMap::new();
        let gives = looking.announcer.shared().gives();
        for row in looking.binhost.rows().iter().filter(|row| gives.may_tell(row, asked_by.as_ref())) {
            let cpv = row.entry.cpv();
            let newer = binaries.get(&cpv.cp).is_none_or(|other| other.version < cpv.version);
            if newer && looking.store.contains(&row.digest) {
                binaries.insert(cpv.cp.clone(), cpv.clone());
            }
        }
        let mut rows = Vec::new();
        for repo in looking.repositories.opened().iter() {
            for (cpv, description) in looking.questions.descriptions.find(repo, &words) {
                let binary = binaries.contains_key(&cpv.cp);
                let (cpv, repo) = (cpv.to_string(), repo.name().to_string());
                rows.push(SearchRow { cpv, repo, description, domain: None, binary });
            }
        }
        let known: BTreeSet<Cp> = rows.iter().filter_map(|row| Some(row.cpv.parse::<Cpv>().ok()?.cp)).collect();
        // What was built from an ebuild that is gone.
        for (cp, cpv) in binaries.iter().filter(|(cp, _)| !known.contains(cp)) {
            if has_words(&cp.to_string(), "", &words) {
                let (repo, description) = (String::new(), String::new());
                rows.push(SearchRow { cpv: cpv.to_string(), repo, description, domain: None, binary: true });
            }
        }
        ordered(rows, &words)
    })
    .await
}

/// Those with all words in their names first, the shortest of them before the others; at most [`ROWS_MAX`].
fn ordered(mut rows: Vec<SearchRow>, words: &[String]) -> SearchAnswer {
    rows.sort_by_cached_key(|row| {
        let name = row.cpv.to_lowercase();
        let in_name = words.iter().all(|word| name.contains(word));
        let exact =
            words.iter().any(|word| name.split_once('/').is_some_and(|(_, pf)| pf.starts_with(&format!("{word}-"))));
        (!in_name, !exact, row.cpv.clone(), row.domain.clone(), row.repo.clone())
    });
    let more = rows.len() > ROWS_MAX;
    rows.truncate(ROWS_MAX);
    SearchAnswer { rows, more, silent: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_word_must_be_in_the_name_or_the_description_in_any_case() {
        for (asked, found) in [
            ("htop", true),
            ("HTOP process", false),
            ("htop process", true),
            ("sys-process/htop", true),
            ("htop gui", false),
        ] {
            assert_eq!(has_words("sys-process/htop", "Interactive Process viewer", &words(asked)), found, "{asked}");
        }
    }

    #[test]
    fn the_package_of_that_very_name_comes_first_and_descriptions_last() {
        let row = |cpv: &str| SearchRow {
            cpv: cpv.to_owned(),
            repo: String::new(),
            description: String::new(),
            domain: None,
            binary: false,
        };
        let rows = ["app-a/other-1", "app-b/libtop-1", "sys-process/top-3", "app-c/topper-1"].map(row).to_vec();
        let names: Vec<String> = ordered(rows, &words("top")).rows.into_iter().map(|row| row.cpv).collect();
        assert_eq!(names, ["sys-process/top-3", "app-b/libtop-1", "app-c/topper-1", "app-a/other-1"]);
    }

    #[test]
    fn an_answer_is_bounded_and_says_so() {
        let row = |at: usize| SearchRow {
            cpv: format!("a/b{at}-1"),
            repo: String::new(),
            description: String::new(),
            domain: None,
            binary: false,
        };
        let answer = ordered((0..=ROWS_MAX).map(row).collect(), &words("b"));
        assert!(answer.more && answer.rows.len() == ROWS_MAX);
    }
}
