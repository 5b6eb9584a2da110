//! Why somebody's word counts here, or does not: for `peer trust explain`.

use super::{Groups, Role};
use crate::api_group::Explanation;
use crate::builds::substitute::all_claims;
use crate::domain::Domain;
use crate::swarm::PeerId;
use tree::atom::Atom;

/// Claims of one package that are told.
const CLAIMS_MAX: usize = 50;

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Neither an atom nor anybody known.
    #[error("{text:?} is neither a package nor a machine that is known here: {why}")]
    Unknown {
        /// As given.
        text: String,
        /// What it was taken for.
        why: String,
    },
}

/// Explains an atom, a key or the name of a member. Reads the claims: blocking.
///
/// # Errors
/// When it is none of them.
pub fn explain(domain: &Domain, what: &str) -> Result<Explanation, ExplainError> {
    let peer = domain.groups.find_even_blocked(what).ok().or_else(|| what.parse().ok());
    if let Some(peer) = peer {
        return Ok(of_machine(domain, &peer));
    }
    let unknown = |why: String| ExplainError::Unknown { text: what.chars().take(100).collect(), why };
    if !what.contains('/') {
        return Err(unknown(domain.groups.find(what).map_or_else(|error| error.to_string(), |_| String::new())));
    }
    let atom: Atom = what.parse().map_err(|error: tree::atom::ParseAtomError| unknown(error.to_string()))?;
    Ok(of_package(domain, what, &atom))
}

fn of_machine(domain: &Domain, peer: &PeerId) -> Explanation {
    let (groups, trust) = (&domain.groups, &domain.builds.trust);
    let explained =
        |verdict: &str, lines| Explanation { subject: peer.to_string(), verdict: verdict.to_owned(), lines };
    if *peer == groups.local() {
        return explained("self", vec!["that is this machine: what it builds itself counts here".to_owned()]);
    }
    let mut lines = memberships(groups, peer);
    let listed = trust.packages(peer);
    if let Some(packages) = &listed {
        lines.push(format!("its key is listed here for {}", packages.join(" ")));
    }
    if groups.is_blocked(peer) {
        lines.push(format!(
            "it is blocked here: no role and no key counts; `peer trust add {peer} --packages ATOM…` ends that"
        ));
        return explained("blocked", lines);
    }
    if domain.builds.is_caught(peer) {
        lines.push(
            "it gave another package than it claimed: it is believed no more until the daemon starts again".to_owned(),
        );
        return explained("caught", lines);
    }
    if let Some(grounded) = domain.builds.grounded(peer) {
        let (minutes, why) = (grounded.for_s / 60 + 1, grounded.why);
        lines.push(format!(
            "no builds are given to it for {minutes} min: it failed five times at once, the last time: {why}"
        ));
    }
    let signs = groups.role(peer) == Some(Role::Sign);
    let verdict = match (&listed, signs) {
        (_, true) => "counts",
        (Some(packages), _) if packages.iter().any(|text| text == "*/*") => "counts",
        (Some(_), false) => "counts-for-some",
        (None, false) => {
            lines.push("what it built counts for nothing here: it is built here instead".to_owned());
            "does-not-count"
        }
    };
    explained(verdict, lines)
}

/// What the rosters say of a machine.
fn memberships(groups: &Groups, peer: &PeerId) -> Vec<String> {
    let everyone = groups.everyone();
    let of = everyone.iter().filter(|(member, _)| member.peer == *peer);
    let mut lines: Vec<String> = of
        .map(|(member, _)| {
            let whose = if member.group == groups.local() {
                "this machine's own group".to_owned()
            } else {
                format!("the group of {}", groups.name(&member.group))
            };
            let founder = if member.founder { ", which it founded" } else { "" };
            format!("{} has the role {} in {whose}{founder}: {}", member.name, member.role, meaning(member.role))
        })
        .collect();
    if lines.is_empty() {
        lines.push(format!("{peer} is in no group of this machine"));
    }
    lines
}

/// What a role lets a member do, from where this machine stands.
#[must_use]
pub fn meaning(role: Role) -> &'static str {
    match role {
        Role::Fetch => "it may take binary packages from here and ask questions",
        Role::Build => "it may take binary packages from here, ask questions and give this machine builds to do",
        Role::Sign => {
            "it may take binary packages from here and give this machine builds to do, and every package it builds counts here"
        }
    }
}

fn of_package(domain: &Domain, what: &str, atom: &Atom) -> Explanation {
    let (groups, trust) = (&domain.groups, &domain.builds.trust);
    let (mut lines, mut may) = (Vec::new(), false);
    for member in groups.members().into_iter().filter(|member| member.role == Role::Sign) {
        may = true;
        lines.push(format!("{} may sign it: role sign in the group of {}", member.name, groups.name(&member.group)));
    }
    for key in trust.list() {
        let Ok(peer) = key.key.parse::<PeerId>() else { continue };
        let covers: Vec<String> = trust.covering(&peer, &atom.cp);
        if covers.is_empty() {
            continue;
        }
        let name = groups.name(&peer);
        if groups.is_blocked(&peer) {
            lines.push(format!("{name} may not sign it: its key is listed for {}, and blocked", covers.join(" ")));
        } else {
            may = true;
            lines.push(format!("{name} may sign it: its key is listed for {}", covers.join(" ")));
        }
    }
    let mut counts = false;
    let about = |claim: &crate::builds::claim::SignedClaim| atom.matches(&claim.claim.cpv, Some(&claim.claim.slot));
    let mut claims = all_claims(&domain.store);
    claims.retain(about);
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.claim.made_at));
    for claim in claims.iter().take(CLAIMS_MAX) {
        let (said, builder) = (&claim.claim, &claim.builder);
        let name = if *builder == groups.local() { "this machine".to_owned() } else { groups.name(builder) };
        let (good, why) = if *builder == groups.local() {
            (true, "it was built here")
        } else if domain.builds.is_caught(builder) {
            (false, "it was caught giving something else")
        } else if trust.counts(builder, &said.cpv, &said.slot) {
            (true, "its word counts for this package")
        } else {
            (false, "nobody said that its word counts for this package")
        };
        counts |= good;
        let verb = if good { "counts" } else { "does not count" };
        lines.push(format!("a claim on {}::{} by {name} is known and {verb}: {why}", said.cpv, said.repo));
    }
    if !may {
        lines.push(
            "nobody but this machine may sign it: it is built here; `peer trust add` or `peer join` changes that"
                .to_owned(),
        );
    }
    let verdict = if counts {
        "counts"
    } else if may {
        "may"
    } else {
        "nobody"
    };
    Explanation { subject: what.to_owned(), verdict: verdict.to_owned(), lines }
}
