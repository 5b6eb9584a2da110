//! Why one package is, or is not, to be had as a binary: everything that is known of it.

use super::instance::{Instance, Sought};
use super::name_of;
use super::weather::{instances, of_one, sky};
use crate::api_questions::{Outlook, WhyAnswer, WhyBuilder, WhyClaim, WhyInstance, WhyReject};
use crate::builds::offload::On;
use crate::builds::plan::{PlanError, Planned};
use crate::builds::{RequestError, substitute};
use crate::domain::Domain;
use std::collections::BTreeSet;
use std::sync::Arc;
use tree::atom::Atom;
use tree::cpv::Cp;

/// Everything about the package that Portage takes for `atom`.
///
/// Cancel safe: yes.
///
/// # Errors
/// When there can be no sandbox, or Portage knows nothing of the kind and neither does the binhost.
pub async fn why(domain: &Arc<Domain>, atom: &str) -> Result<WhyAnswer, RequestError> {
    let plan = match domain.builds.plan(domain, &[atom.to_owned()], &[]).await {
        Ok(plan) => Arc::new(plan),
        Err(RequestError::Plan(PlanError::Refused { why, said })) => {
            let known = not_planned(domain, atom, &why, &said).await;
            return known.ok_or(RequestError::Plan(PlanError::Refused { why, said }));
        }
        Err(error) => return Err(error),
    };
    let foreseen = domain.builds.foresee(domain, &plan, false, On::Policy).await;
    let asked = foreseen.iter().filter_map(|foreseen| Some((foreseen, plan.packages.get(foreseen.index)?)));
    let Some((foreseen, planned)) = asked.into_iter().find(|(_, planned)| planned.asked) else {
        let why = "Portage would do nothing".to_owned();
        return Err(RequestError::Plan(PlanError::Refused { why, said: String::new() }));
    };
    let sky = sky(domain, &plan, std::slice::from_ref(foreseen), None).await;
    let (package, miss) = of_one(domain, &sky, foreseen, planned).await;
    let sought = Sought::of(planned);
    let none = Vec::new();
    let there = sky.instances.get(&planned.cpv.cp).unwrap_or(&none);
    let next = miss.and_then(|miss| miss.next).or_else(|| match package.state {
        Outlook::Substitute | Outlook::Build | Outlook::Offload => Some(format!("`peer build {atom}` makes it ready")),
        Outlook::Have | Outlook::Impossible => None,
    });
    Ok(WhyAnswer {
        cpv: package.cpv,
        repo: package.repo,
        state: Some(package.state),
        use_flags: planned.use_flags.clone(),
        kind: package.kind,
        cause: package.cause,
        next,
        instances: there.iter().map(|instance| shown(instance, Some(&sought))).collect(),
        claims: claims(domain, planned).await,
        builders: builders(domain, planned),
    })
}

/// What is known of a package that Portage does not take: it is masked, or its ebuild is gone.
async fn not_planned(domain: &Arc<Domain>, atom: &str, why: &str, said: &str) -> Option<WhyAnswer> {
    let parsed: Atom = atom.parse().ok()?;
    let there = instances(domain, BTreeSet::from([parsed.cp.clone()]), None).await;
    let there: &Vec<Instance> = there.get::<Cp>(&parsed.cp)?;
    let first = said.lines().map(str::trim).find(|line| !line.is_empty());
    Some(WhyAnswer {
        cpv: atom.to_owned(),
        cause: Some(first.map_or_else(|| why.to_owned(), |first| format!("{why}: {first}"))),
        next: Some("`emerge --pretend` with the same words says more".to_owned()),
        instances: there.iter().map(|instance| shown(instance, None)).collect(),
        ..WhyAnswer::default()
    })
}

fn shown(instance: &Instance, sought: Option<&Sought>) -> WhyInstance {
    let compared = sought.filter(|sought| sought.cpv == instance.cpv);
    let differences = compared.map_or_else(|| instance.rejects.clone(), |sought| instance.differences(sought));
    WhyInstance {
        cpv: instance.cpv.to_string(),
        repo: instance.repo.clone(),
        build_id: instance.build_id,
        digest: instance.digest.to_string(),
        at: instance.at.clone(),
        usable: differences.is_empty(),
        rejects: differences.into_iter().map(|(kind, text)| WhyReject { kind, text }).collect(),
    }
}

/// Who built exactly this.
async fn claims(domain: &Arc<Domain>, planned: &Planned) -> Vec<WhyClaim> {
    let trusted = domain.builds.trust.builders(&planned.cpv, &planned.slot);
    let known = substitute::claims(domain, &trusted, &planned.recipe.fingerprint()).await;
    let own = domain.swarm.peer_id();
    let told = known.into_iter().map(|claim| {
        let builder = claim.builder;
        let (counts, why) = if builder == own {
            (true, "this node built it")
        } else if domain.builds.is_caught(&builder) {
            (false, "it was caught giving something else than it told")
        } else if trusted.contains(&builder) {
            (true, "its word counts for this package")
        } else {
            (false, "nobody said that its word counts for this package")
        };
        WhyClaim { builder: builder.to_string(), name: name_of(domain, &builder), counts, why: why.to_owned() }
    });
    told.collect()
}

/// Whose word counts, and whether they can be asked.
fn builders(domain: &Arc<Domain>, planned: &Planned) -> Vec<WhyBuilder> {
    let connected: BTreeSet<_> = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    let state = |peer| {
        if domain.builds.is_caught(peer) {
            "caught giving something else than it told".to_owned()
        } else if let Some(grounded) = domain.builds.grounded(peer) {
            format!("not asked to build for {} s: {}", grounded.for_s, grounded.why)
        } else if connected.contains(peer) {
            "connected".to_owned()
        } else {
            "away".to_owned()
        }
    };
    let trusted = domain.builds.trust.builders(&planned.cpv, &planned.slot);
    let told = trusted.iter().map(|peer| WhyBuilder {
        peer: peer.to_string(),
        name: name_of(domain, peer),
        state: state(peer),
    });
    told.collect()
}
