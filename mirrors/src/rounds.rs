//! The order in which a caller asks: everyone once with little patience, then everyone once more with much.

use crate::error::{Blame, FetchError};
use crate::http::Patience;
use crate::plan::Candidate;

/// After so many mirrors without the file the others most likely lack it too: they are replicas of one master.
const MIRRORS_WITHOUT: usize = 2;

/// An iterator over whom to ask next and how patiently; ends after the second round.
///
/// After each failure call [`Rounds::failed`], or [`Rounds::dismiss`] after wrong bytes. When one brings the file, simply
/// stop.
#[derive(Debug)]
pub struct Rounds {
    candidates: Vec<Candidate>,
    /// Indices still to be asked in the second round, in order.
    again: Vec<usize>,
    next: usize,
    patience: Patience,
    last: Option<usize>,
    mirrors_without: usize,
}

impl Rounds {
    /// Over what [`crate::Mirrors::plan`] gave.
    #[must_use]
    pub fn new(candidates: Vec<Candidate>) -> Self {
        Self { candidates, again: Vec::new(), next: 0, patience: Patience::Normal, last: None, mirrors_without: 0 }
    }

    /// The candidate last given out failed so. What will not change by asking is not asked in the second round; and once
    /// two Gentoo mirrors have said "not there" (a file of an overlay), the mirrors left come after upstream, to spare
    /// everyone the misses.
    pub fn failed(&mut self, error: &FetchError) {
        if !error.is_retryable() {
            self.dismiss();
        }
        if let FetchError::Status { at: Blame::Mirror(_), code: 404 | 410, .. } = error {
            self.mirrors_without += 1;
            if self.mirrors_without >= MIRRORS_WITHOUT
                && let Some(left) = self.candidates.get_mut(self.next..)
            {
                left.sort_by_key(Candidate::is_mirror);
            }
        }
    }

    /// The candidate last given out is not asked in the second round (wrong bytes).
    pub fn dismiss(&mut self) {
        if let Some(last) = self.last.take() {
            self.again.retain(|index| *index != last);
        }
    }
}

impl Iterator for Rounds {
    type Item = (Candidate, Patience);

    fn next(&mut self) -> Option<Self::Item> {
        if self.patience == Patience::Normal {
            if let Some(candidate) = self.candidates.get(self.next) {
                self.again.push(self.next);
                self.last = Some(self.next);
                self.next += 1;
                return Some((candidate.clone(), Patience::Normal));
            }
            self.patience = Patience::Long;
            self.again.reverse();
        }
        let index = self.again.pop()?;
        self.last = Some(index);
        self.candidates.get(index).map(|candidate| (candidate.clone(), Patience::Long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    fn candidates(hosts: &[&str]) -> Vec<Candidate> {
        hosts.iter().map(|host| Candidate::mirror(&Url::parse(&format!("http://{host}/")).unwrap()).unwrap()).collect()
    }

    fn names(rounds: &mut Rounds, count: usize) -> Vec<(String, Patience)> {
        rounds.take(count).map(|(candidate, patience)| (candidate.host().to_owned(), patience)).collect()
    }

    #[test]
    fn everyone_is_asked_twice_and_the_second_time_patiently() {
        let mut rounds = Rounds::new(candidates(&["a", "b"]));
        let asked = names(&mut rounds, 9);
        let want = [("a", Patience::Normal), ("b", Patience::Normal), ("a", Patience::Long), ("b", Patience::Long)];
        assert_eq!(asked, want.map(|(host, patience)| (host.to_owned(), patience)));
        assert!(rounds.next().is_none());
    }

    #[test]
    fn whoever_is_dismissed_is_not_asked_again() {
        let mut rounds = Rounds::new(candidates(&["a", "b", "c"]));
        rounds.next();
        rounds.next();
        rounds.dismiss();
        rounds.dismiss();
        let rest: Vec<String> = names(&mut rounds, 9).into_iter().map(|(host, _)| host).collect();
        assert_eq!(rest, ["c", "a", "c"]);
    }

    #[test]
    fn a_file_that_two_mirrors_lack_is_asked_of_upstream_before_the_other_mirrors() {
        let mut all = candidates(&["a", "b", "c", "d"]);
        all.extend(["http://up/f", "http://up2/f"].map(|uri| Candidate::upstream(uri).unwrap()));
        let mut rounds = Rounds::new(all);
        let mut asked = Vec::new();
        while let Some((candidate, _)) = rounds.next() {
            asked.push(candidate.host().to_owned());
            rounds.failed(&FetchError::Status { at: candidate.blame(), code: 404, retry_after: None });
        }
        assert_eq!(asked, ["a", "b", "up", "up2", "c", "d"]);
    }

    #[test]
    fn an_empty_plan_has_no_rounds() {
        let mut rounds = Rounds::new(Vec::new());
        rounds.dismiss();
        assert!(rounds.next().is_none());
    }
}
