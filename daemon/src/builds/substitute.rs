//! A package that a trusted peer built: claims for its fingerprint are gathered, the bytes come from anyone, and what came
//! is looked at once more before it counts.
//!
//! What a liar can do: a claim by a key that is not trusted is not even followed; bytes that are not those of the claim
//! are never stored, and who sent them is blamed by the fetcher; a trusted builder whose package is not what its own claim
//! or the recipe says is believed no more until the daemon starts again, and the package is built here.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::claim::{CLAIM_BYTES_MAX, SignedClaim};
use super::jobs::Entry;
use super::plan::Planned;
use super::publish::{self, seekable};
use super::stop::Stop;
use super::trust::Trust;
use crate::binhost::Owner;
use crate::blocking;
use crate::domain::{Domain, Target};
use crate::flight::ObtainError;
use crate::swarm::{OpenError, PeerId};
use futures::StreamExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Blob, RowTable, Store, Wanted};
use tree::digest::Digest;
use tree::elf::Links;
use tree::gpkg::Gpkg;
use tree::image::Image;

/// How long peers are looked for, and then each is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Peers asked for one fingerprint.
const ASKED_MAX: usize = 16;
/// Peers asked side by side.
const ASKED_WIDTH: usize = 8;
/// Builders that were caught; more than anybody trusts.
const CAUGHT_MAX: usize = 1000;

/// A package that a peer's claim is about, looked at and found to be what it should be.
pub(super) struct Substitute {
    pub(super) claim: SignedClaim,
    pub(super) blob: Blob,
    pub(super) gpkg: Gpkg,
    pub(super) links: Links,
}

/// Trusted builders that were caught telling something else than they gave.
#[derive(Debug, Default)]
pub struct Caught(Mutex<BTreeSet<PeerId>>);

impl Caught {
    pub(super) fn add(&self, peer: PeerId) {
        let mut caught = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if caught.len() < CAUGHT_MAX {
            caught.insert(peer);
        }
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

/// Claims kept here for a fingerprint. Blocking.
#[must_use]
pub fn kept_claims(store: &Store, fingerprint: &Digest) -> Vec<SignedClaim> {
    let rows = store.rows(RowTable::Claims, fingerprint.as_bytes(), None, ASKED_MAX).unwrap_or_default();
    rows.iter().filter_map(|(_, value)| SignedClaim::try_from(value.as_slice()).ok()).collect()
}

/// Every claim that is kept. Blocking.
#[must_use]
pub fn all_claims(store: &Store) -> Vec<SignedClaim> {
    let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = store.rows(RowTable::Claims, b"", after.as_deref(), usize::MAX).unwrap_or_default();
        let Some((last, _)) = page.last() else { return all };
        after = Some(last.clone());
        all.extend(page.iter().filter_map(|(_, value)| SignedClaim::try_from(value.as_slice()).ok()));
    }
}

/// Takes away claims on packages that were made for other machines, which an earlier program kept. Blocking.
pub(crate) fn forget_claims_on(store: &Store, guests: &[(Digest, Owner)]) {
    let guests: BTreeSet<Digest> = guests.iter().map(|(digest, _)| *digest).collect();
    for claim in all_claims(store).iter().filter(|claim| guests.contains(&claim.claim.digest)) {
        if let Err(error) = store.delete_row(RowTable::Claims, &claim_key(claim)) {
            tracing::error!(%error, cpv = %claim.claim.cpv, "a claim on another machine's package cannot be taken back");
        }
    }
}

/// The key of a claim's row: one claim a fingerprint and builder.
#[must_use]
pub fn claim_key(claim: &SignedClaim) -> Vec<u8> {
    [claim.claim.fingerprint.as_bytes().as_slice(), &claim.builder.to_bytes()].concat()
}

/// All claims for a fingerprint that can be had now: kept ones, and those of peers that provide it or whose word counts.
/// Signatures are checked; whether a claim counts is left to the caller.
///
/// Cancel safe: yes.
pub async fn claims(domain: &Arc<Domain>, trusted: &[PeerId], fingerprint: &Digest) -> Vec<SignedClaim> {
    let store = domain.store.clone();
    let digest = *fingerprint;
    let mut all = blocking::run(move || kept_claims(&store, &digest)).await;
    let connected: BTreeSet<PeerId> = domain.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
    let mut asked: Vec<PeerId> = trusted.iter().filter(|peer| connected.contains(peer)).copied().collect();
    asked.extend(domain.groups.members().iter().map(|member| member.peer).filter(|peer| connected.contains(peer)));
    asked.extend(domain.swarm.holders(fingerprint));
    if asked.is_empty() && !trusted.is_empty() {
        asked.extend(domain.swarm.find(fingerprint, PATIENCE).await);
    }
    let mut seen = BTreeSet::new();
    asked.retain(|peer| seen.insert(*peer) && *peer != domain.swarm.peer_id());
    asked.truncate(ASKED_MAX);
    let asking: Vec<_> = asked.into_iter().map(|peer| domain.swarm.claims(peer, fingerprint, PATIENCE)).collect();
    let answers: Vec<Result<Vec<Vec<u8>>, OpenError>> =
        futures::stream::iter(asking).buffer_unordered(ASKED_WIDTH).collect().await;
    let answers = answers.into_iter().map(Result::unwrap_or_default).collect::<Vec<_>>();
    let read = |bytes: &Vec<u8>| match SignedClaim::try_from(bytes.as_slice()) {
        Ok(claim) if claim.claim.fingerprint == *fingerprint => Some(claim),
        Ok(_other_question) => None,
        Err(error) => {
            tracing::info!(%error, limit = CLAIM_BYTES_MAX, "a peer sent something that is no claim");
            None
        }
    };
    all.extend(answers.iter().flatten().filter_map(read));
    all.sort_by_key(|claim| (claim.builder, std::cmp::Reverse(claim.claim.made_at)));
    all.dedup_by_key(|claim| claim.builder);
    all
}

/// Those of the claims that count here for what is planned, the best first: what most builders agree on, then the newest.
pub(super) fn counting(all: &[SignedClaim], planned: &Planned, trust: &Trust, caught: &Caught) -> Vec<SignedClaim> {
    let mut agreeing: BTreeMap<Digest, usize> = BTreeMap::new();
    for claim in all {
        let votes = agreeing.entry(claim.claim.image).or_default();
        *votes = votes.saturating_add(1);
    }
    let about = |claim: &&SignedClaim| {
        let said = &claim.claim;
        said.cpv == planned.cpv && said.repo == planned.repo && said.slot == planned.slot
    };
    let counts =
        |claim: &&SignedClaim| trust.counts(&claim.builder, &planned.cpv, &planned.slot) && !caught.has(&claim.builder);
    let mut good: Vec<SignedClaim> = all.iter().filter(about).filter(counts).cloned().collect();
    let votes = |claim: &SignedClaim| agreeing.get(&claim.claim.image).copied().unwrap_or(0);
    good.sort_by_key(|claim| std::cmp::Reverse((votes(claim), claim.claim.made_at)));
    good
}

/// The package of the first claim that leads to one, or None: then it is built. Each that leads to none is told with the job.
///
/// Cancel safe: yes.
///
/// # Errors
/// When there is no room for it here: who has no room for a package has none to build it either.
pub(super) async fn obtain(
    domain: &Arc<Domain>,
    planned: &Planned,
    claims: Vec<SignedClaim>,
    entry: &Entry,
) -> Result<Option<Substitute>, Arc<ObtainError>> {
    let caught = &domain.builds.caught;
    for claim in claims {
        let builder = domain.groups.name(&claim.builder);
        let said = &claim.claim;
        let wanted = Wanted { digest: said.digest, size: Some(said.size), sha512: None };
        let target = Target { name: format!("{}.gpkg.tar", said.cpv.pf()), wanted, over_http: None };
        let blob = match domain.obtain_from(&target, &likely(domain, &claim.builder)).await {
            Ok((blob, _source)) => blob,
            Err(error) if matches!(*error, ObtainError::DiskFull { .. }) => return Err(error),
            Err(error) => {
                tracing::info!(cpv = %said.cpv, builder = %claim.builder, %error, "a claimed package is not to be had");
                entry.tell(format!("the package of {builder} is not to be had: {error}"));
                continue;
            }
        };
        let (looking, planned, said) = (blob.clone(), planned.clone(), claim.claim.clone());
        let (store, stop) = (domain.store.clone(), entry.stop(domain.tasks.stopping()));
        let asked = stop.clone();
        match blocking::run(move || look(&store, &looking, &planned, &said.image, &stop)).await {
            // Not the package's fault, and whoever waits for this hears of it elsewhere.
            Err(_) if asked.is_set() => return Ok(None),
            Ok((gpkg, links)) => return Ok(Some(Substitute { claim, blob, gpkg, links })),
            Err(why) => {
                tracing::warn!(cpv = %claim.claim.cpv, builder = %claim.builder, why, "a trusted builder is believed no more: its package is not what it says");
                entry.tell(format!("the package of {builder} is not what it claims: {why}"));
                caught.add(claim.builder);
            }
        }
    }
    Ok(None)
}

/// Who may have a package without announcing it: who built it, then the members, any of which may have given the claim.
fn likely(domain: &Domain, builder: &PeerId) -> Vec<PeerId> {
    let is_connected = domain.swarm.peers().iter().any(|peer| peer.peer_id == *builder);
    let members = domain.connected_members().into_iter().filter(|peer| peer != builder);
    is_connected.then_some(*builder).into_iter().chain(members).take(ASKED_MAX).collect()
}

/// Whether a package is what was asked for and claimed; nothing in it is looked into before its image is the claimed one.
/// Blocking.
fn look(store: &Store, blob: &Blob, planned: &Planned, claimed: &Digest, stop: &Stop) -> Result<(Gpkg, Links), String> {
    let file = || stop.through(seekable(blob));
    let gpkg = Gpkg::read(file()).map_err(|error| error.to_string())?;
    fits(&gpkg, planned)?;
    let image = Image::read(file(), &gpkg).map_err(|error| error.to_string())?;
    if image.digest() != *claimed {
        return Err("it installs something else".to_owned());
    }
    let links = publish::links(store, file(), &gpkg).map_err(|error| error.to_string())?;
    Ok((gpkg, links))
}

/// Whether the package says of itself what was planned. An own build is asked the same.
pub(super) fn fits(gpkg: &Gpkg, planned: &Planned) -> Result<(), String> {
    let metadata = &gpkg.metadata;
    let cpv = metadata.cpv().map_err(|error| error.to_string())?;
    if cpv != planned.cpv {
        return Err(format!("it is {cpv}"));
    }
    if metadata.repository() != Some(planned.repo.as_str()) {
        return Err(format!("it is of another repository than {}", planned.repo));
    }
    let (slot, wanted) = (full_slot(metadata.slot()), full_slot(&planned.slot));
    if slot != wanted {
        return Err(format!("its slot is {slot}, expected {wanted}"));
    }
    let iuse: BTreeSet<&str> = metadata.words("IUSE").map(|flag| flag.trim_start_matches(['+', '-'])).collect();
    let on: BTreeSet<&str> = metadata.words("USE").filter(|flag| iuse.contains(flag)).collect();
    let wanted: BTreeSet<&str> =
        planned.use_flags.iter().map(String::as_str).filter(|flag| iuse.contains(flag)).collect();
    if on == wanted { Ok(()) } else { Err("its USE flags are others".to_owned()) }
}

/// `0` is `0/0` (PMS 7.2).
pub(super) fn full_slot(slot: &str) -> String {
    if slot.contains('/') { slot.to_owned() } else { format!("{slot}/{slot}") }
}
