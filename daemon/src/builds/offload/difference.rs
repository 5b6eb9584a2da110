//! Why what is planned here is not what the client asked for, told so that its user can mend it.

use super::wire::{Code, Offer, ToClient, cut_lines};
use crate::builds::plan::{PlanError, Planned};
use crate::builds::with_causes;
use std::collections::BTreeSet;

/// There is no plan at all with the client's domain.
pub(super) fn unplanned(error: &PlanError, missing: &[String]) -> ToClient {
    let said = match error {
        PlanError::Refused { said, .. } => said.lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    differing(&with_causes(error), said, missing)
}

/// What the two recipes do not have in common: `-` is the client's, `+` this machine's.
pub(super) fn differs(offer: &Offer, planned: &Planned, missing: &[String]) -> ToClient {
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        (offer.recipe.lines().collect(), planned.recipe.text().lines().collect());
    let only = |one: &[&str], other: &[&str], sign: &str| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    let lines = [only(&theirs, &ours, "-"), only(&ours, &theirs, "+")].concat();
    let kinds: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    differing(&format!("it comes to another recipe there: {kinds}"), lines, missing)
}

/// A refusal that says first which repositories are not here: they may be why.
fn differing(reason: &str, lines: Vec<String>, missing: &[String]) -> ToClient {
    let absent = missing.iter().map(|name| format!("the repository {name} is not on this machine"));
    let lines: Vec<String> = absent.chain(lines).collect();
    ToClient::Refused { code: Code::Differs, reason: reason.to_owned(), lines: cut_lines(&lines) }
}
