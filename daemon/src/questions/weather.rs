//! The weather: what becomes of each package of a plan, from whom, how many bytes and how much time, and why not better.

use super::cause::{Miss, Reach, miss};
use super::estimate::BuildTimes;
use super::instance::{Instance, Sought};
use super::members;
use super::name_of;
use crate::api_builds::{Fate, PlanOption};
use crate::api_questions::{MissKind, Outlook, WeatherAnswer, WeatherPackage, WeatherTotals};
use crate::binhost::ask;
use crate::blocking;
use crate::builds::offload::On;
use crate::builds::plan::{Plan, Planned};
use crate::builds::{Foreseen, RequestError, substitute};
use crate::config_build::OnMiss;
use crate::domain::Domain;
use crate::swarm::PeerId;
use futures::StreamExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tree::cpv::Cp;
use tree::digest::Digest;

/// Packages whose claims are looked for side by side.
const LOOK_WIDTH: usize = 8;
/// Ended jobs that are looked at for how long builds take.
const JOBS_MAX: usize = 10_000;

/// What is known before a package is looked at.
pub(super) struct Sky {
    /// What there is of each package.
    pub(super) instances: BTreeMap<Cp, Vec<Instance>>,
    times: BuildTimes,
    their_times: BTreeMap<Cp, u64>,
    connected: BTreeSet<PeerId>,
}

impl Sky {
    /// How long a build may take: as it did here, else as it did elsewhere.
    fn seconds(&self, cp: &Cp) -> Option<u64> {
        self.times.seconds(cp).or_else(|| self.their_times.get(cp).copied())
    }
}

/// What becomes of what `atoms` take, and why, for a member that asks.
///
/// Cancel safe: yes.
///
/// # Errors
/// When there can be no sandbox, or Portage finds no way.
pub async fn weather(
    domain: &Arc<Domain>,
    atoms: &[String],
    options: &[PlanOption],
    asked_by: PeerId,
) -> Result<WeatherAnswer, RequestError> {
    let plan = Arc::new(domain.builds.plan(domain, atoms, options).await?);
    Ok(of_plan(domain, &plan, On::Policy, Some(asked_by)).await)
}

/// The same for this machine's user, who may have just this plan carried out next.
///
/// Cancel safe: yes.
///
/// # Errors
/// As [`weather`].
pub async fn to_begin(
    domain: &Arc<Domain>,
    atoms: &[String],
    options: &[PlanOption],
    on: On,
) -> Result<WeatherAnswer, RequestError> {
    let plan = Arc::new(domain.builds.plan(domain, atoms, options).await?);
    let answer = of_plan(domain, &plan, on, None).await;
    Ok(WeatherAnswer { plan: Some(domain.builds.keep_plan(atoms, options, &plan)), ..answer })
}

/// The weather of a plan that is made already.
///
/// Cancel safe: yes.
async fn of_plan(domain: &Arc<Domain>, plan: &Arc<Plan>, on: On, asked_by: Option<PeerId>) -> WeatherAnswer {
    let foreseen = domain.builds.foresee(domain, plan, false, on).await;
    let sky = sky(domain, plan, &foreseen, asked_by).await;
    let rows = foreseen.iter().filter_map(|foreseen| Some((foreseen, plan.packages.get(foreseen.index)?)));
    let rows: Vec<_> = rows.map(|(foreseen, planned)| of_one(domain, &sky, foreseen, planned)).collect();
    let packages: Vec<WeatherPackage> =
        futures::stream::iter(rows).buffered(LOOK_WIDTH).map(|(package, _)| package).collect().await;
    let totals = totals(&packages, domain.config.build.on_miss);
    WeatherAnswer { packages, totals, more: false, plan: None }
}

/// Looks once at what all packages of the plan are judged by.
pub(super) async fn sky(
    domain: &Arc<Domain>,
    plan: &Arc<Plan>,
    foreseen: &[Foreseen],
    asked_by: Option<PeerId>,
) -> Sky {
    let connected = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    let all = plan.packages.iter().map(|package| package.cpv.cp.clone()).collect();
    let missed = foreseen.iter().filter(|foreseen| !matches!(foreseen.package.fate, Fate::Have | Fate::Substitute));
    let missed = missed.filter_map(|foreseen| Some(plan.packages.get(foreseen.index)?.cpv.cp.clone())).collect();
    let (mut instances, (theirs, their_times)) =
        futures::join!(instances(domain, all, asked_by), members::offers_of_all(domain, &missed));
    for instance in theirs {
        instances.entry(instance.cpv.cp.clone()).or_default().push(instance);
    }
    Sky { instances, times: build_times(domain), their_times, connected }
}

/// How long builds took here.
pub(super) fn build_times(domain: &Domain) -> BuildTimes {
    BuildTimes::of(&domain.builds.jobs.list(JOBS_MAX))
}

/// What there is of these packages, as far as who asks is told of it.
pub(super) async fn instances(
    domain: &Arc<Domain>,
    wanted: BTreeSet<Cp>,
    asked_by: Option<PeerId>,
) -> BTreeMap<Cp, Vec<Instance>> {
    ask::in_time(domain).await;
    let looking = Arc::clone(domain);
    blocking::run(move || {
        let mut instances: BTreeMap<Cp, Vec<Instance>> = BTreeMap::new();
        for instance in looking.binhost.all_instances() {
            let cp = &instance.row.entry.cpv().cp;
            let gives = looking.announcer.shared().gives();
            if wanted.contains(cp) && gives.may_tell(&instance.row, asked_by.as_ref()) {
                instances.entry(cp.clone()).or_default().push(Instance::of(&instance));
            }
        }
        instances
    })
    .await
}

/// One package; and why it is missed, if it is.
pub(super) async fn of_one(
    domain: &Arc<Domain>,
    sky: &Sky,
    foreseen: &Foreseen,
    planned: &Planned,
) -> (WeatherPackage, Option<Miss>) {
    let state = match foreseen.package.fate {
        Fate::Have => Outlook::Have,
        Fate::Substitute => Outlook::Substitute,
        Fate::Offload => Outlook::Offload,
        Fate::Build if planned.hopeless.is_some() => Outlook::Impossible,
        Fate::Build => Outlook::Build,
    };
    let missed = matches!(state, Outlook::Build | Outlook::Offload);
    let why = match state {
        Outlook::Build | Outlook::Offload => Some(why_missed(domain, sky, planned).await),
        Outlook::Have => unusable(sky, planned),
        Outlook::Substitute | Outlook::Impossible => None,
    };
    // What is held and of no use here is not ready, and would not be if it were made again.
    let state = if state == Outlook::Have && why.is_some() { Outlook::Impossible } else { state };
    let bytes = if state == Outlook::Build { away_bytes(domain, planned).await } else { foreseen.package.size };
    let package = WeatherPackage {
        cpv: planned.cpv.to_string(),
        repo: planned.repo.clone(),
        state,
        from: foreseen.from.iter().map(|peer| name_of(domain, peer)).collect(),
        bytes: if state == Outlook::Impossible { 0 } else { bytes },
        build_s: if missed { sky.seconds(&planned.cpv.cp) } else { None },
        kind: why.as_ref().map(|miss| miss.kind),
        cause: why.as_ref().map(|miss| miss.cause.clone()).or_else(|| planned.hopeless.clone()),
    };
    (package, why)
}

/// Why this machine cannot use what was made to its own recipe: it is held, and Portage does not take it.
fn unusable(sky: &Sky, planned: &Planned) -> Option<Miss> {
    let fingerprint = planned.recipe.fingerprint();
    let there = sky.instances.get(&planned.cpv.cp)?;
    let mut made = there.iter().filter(|instance| instance.peer.is_none() && instance.fingerprint == fingerprint);
    let first = made.next()?;
    let (kind, text) = first.rejects.first()?;
    if made.any(|other| other.rejects.is_empty()) {
        return None;
    }
    Some(Miss { kind: *kind, cause: format!("emerge does not take it: {text}"), next: None })
}

async fn why_missed(domain: &Arc<Domain>, sky: &Sky, planned: &Planned) -> Miss {
    let none = Vec::new();
    let counts = |peer: &PeerId| domain.builds.trust.counts(peer, &planned.cpv, &planned.slot);
    let there = sky.instances.get(&planned.cpv.cp).unwrap_or(&none);
    if let Some(miss) = of_guest(there, &planned.recipe.fingerprint()) {
        return miss;
    }
    let (instances, others): (Vec<&Instance>, Vec<&Instance>) =
        there.iter().partition(|instance| instance.peer.as_ref().is_none_or(counts));
    let instances: Vec<Instance> = instances.into_iter().cloned().collect();
    let mut reach = reach(domain, sky, planned).await;
    // Members whose word does not count, and who have just this.
    let same = others.into_iter().filter(|instance| instance.fingerprint == planned.recipe.fingerprint());
    reach.untrusted.extend(same.filter_map(|other| Some((other.peer?.to_string(), other.at.clone()?))));
    reach.untrusted.sort();
    reach.untrusted.dedup();
    miss(&Sought::of(planned), planned.may_share, &instances, &reach)
}

/// The very same was made here, for another machine: that is nearest, and not this machine's.
fn of_guest(there: &[Instance], fingerprint: &Digest) -> Option<Miss> {
    let mut here = there.iter().filter(|instance| instance.peer.is_none() && instance.fingerprint == *fingerprint);
    let text = here.find_map(|instance| instance.rejects.iter().find(|(kind, _)| *kind == MissKind::Guest))?.1.clone();
    let cause = format!("here: {text}; this machine's own is built anew");
    Some(Miss { kind: MissKind::Guest, cause, next: None })
}

/// Who could have a package.
async fn reach(domain: &Arc<Domain>, sky: &Sky, planned: &Planned) -> Reach {
    let builders = domain.builds.trust.builders(&planned.cpv, &planned.slot);
    let (connected, away): (Vec<&PeerId>, Vec<&PeerId>) =
        builders.iter().partition(|peer| sky.connected.contains(peer));
    let names = |peers: &[&PeerId]| peers.iter().map(|peer| name_of(domain, peer)).collect::<Vec<_>>();
    let untrusted = untrusted(domain, planned, &planned.recipe.fingerprint()).await;
    Reach {
        connected: names(&connected),
        away: names(&away),
        untrusted: untrusted.iter().map(|peer| (peer.to_string(), name_of(domain, peer))).collect(),
    }
}

/// Who says to have built it, and does not count. Only who says to have claims is asked.
async fn untrusted(domain: &Arc<Domain>, planned: &Planned, fingerprint: &Digest) -> Vec<PeerId> {
    let claims = if domain.swarm.holders(fingerprint).is_empty() {
        let (store, fingerprint) = (domain.store.clone(), *fingerprint);
        blocking::run(move || substitute::kept_claims(&store, &fingerprint)).await
    } else {
        substitute::claims(domain, &[], fingerprint).await
    };
    let own = domain.swarm.peer_id();
    let counts = |peer: &PeerId| domain.builds.trust.counts(peer, &planned.cpv, &planned.slot);
    claims.iter().map(|claim| claim.builder).filter(|peer| *peer != own && !counts(peer)).collect()
}

/// Bytes of its distfiles that are not here.
async fn away_bytes(domain: &Arc<Domain>, planned: &Planned) -> u64 {
    let (store, files) = (domain.store.clone(), planned.distfiles.clone());
    blocking::run(move || {
        let away = files.iter().filter(|file| !store.contains(&file.digest));
        away.fold(0_u64, |sum, file| sum.saturating_add(file.size))
    })
    .await
}

fn totals(packages: &[WeatherPackage], on_miss: OnMiss) -> WeatherTotals {
    let mut totals = WeatherTotals::default();
    for package in packages {
        let count = match package.state {
            Outlook::Have => &mut totals.have,
            Outlook::Substitute => &mut totals.substitute,
            Outlook::Offload => &mut totals.offload,
            Outlook::Build => &mut totals.build,
            Outlook::Impossible => &mut totals.impossible,
        };
        *count += 1;
        totals.ahead += u64::from(match package.state {
            Outlook::Substitute | Outlook::Offload => true,
            Outlook::Build => on_miss == OnMiss::Sandbox,
            Outlook::Have | Outlook::Impossible => false,
        });
        totals.bytes = totals.bytes.saturating_add(package.bytes);
        if matches!(package.state, Outlook::Build | Outlook::Offload) {
            totals.build_s = totals.build_s.saturating_add(package.build_s.unwrap_or(0));
            totals.unknown_times += u64::from(package.build_s.is_none());
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_say_how_many_times_are_not_known() {
        let package = |state, bytes, build_s| WeatherPackage {
            cpv: "a/b-1".to_owned(),
            repo: "gentoo".to_owned(),
            state,
            from: Vec::new(),
            bytes,
            build_s,
            kind: None,
            cause: None,
        };
        let packages = [
            package(Outlook::Have, 0, None),
            package(Outlook::Substitute, 5, None),
            package(Outlook::Build, 7, Some(60)),
            package(Outlook::Build, 1, None),
            package(Outlook::Offload, 2, Some(3)),
            package(Outlook::Impossible, 0, None),
        ];
        assert_eq!(super::totals(&packages, OnMiss::Sandbox).ahead, 4);
        let totals = super::totals(&packages, OnMiss::Emerge);
        assert_eq!(
            totals,
            WeatherTotals {
                have: 1,
                substitute: 1,
                offload: 1,
                build: 2,
                impossible: 1,
                ahead: 2,
                bytes: 15,
                build_s: 63,
                unknown_times: 1
            }
        );
    }
}
