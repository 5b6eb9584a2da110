//! The builder's end: a client's offer is looked at, refused with the reason or made in the sandbox with the client's
//! domain, and told of until it ends. The job goes on for a while when the client is lost ([`super::guests`]), and who asks
//! again gets what came of it.

use super::difference::{differs, unplanned};
use super::their_domain::TheirDomain;
use super::versions::{ROUNDS_MAX, not_the_clients};
use super::wire::{Code, LOG_BYTES_MAX, Offer, Said as _, ToBuilder, ToClient, VERSION};
use super::{HEARTBEAT, SILENCE_MAX, guests};
use crate::api_builds::{Job, JobState};
use crate::binhost::{COMPILED_WITH, Origin, ask};
use crate::blocking;
use crate::builds::foreign::ForeignError;
use crate::builds::inside::Inside;
use crate::builds::jobs::Entry;
use crate::builds::local::is_of_machine;
use crate::builds::plan::{self, Plan};
use crate::builds::recipe::Recipe;
use crate::builds::{publish, with_causes, work};
use crate::domain::Domain;
use crate::gives::What;
use crate::group::Role;
use crate::swarm::{Dialogue, PeerId};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tree::cpu::Needed;
use tree::cpv::Cpv;
use tree::digest::Digest;
use tree::name::RepoName;

/// How often a log that grows is looked at.
const LOG_PERIOD: Duration = Duration::from_millis(500);

/// What an offer came to.
enum Taken {
    /// It was made before: the receipt.
    Made(Vec<u8>),
    Job(Arc<Entry>),
}

/// Hears one client to its end.
pub(crate) async fn serve(domain: Arc<Domain>, client: PeerId, dialogue: Dialogue) {
    let mut line = Line { dialogue, ticks: ticks(HEARTBEAT), heard: Instant::now() };
    let Some(offer) = line.offer().await else { return };
    let Ok(digest) = <[u8; 64]>::try_from(offer.fingerprint.as_slice()) else { return };
    let fingerprint = Digest::from_bytes(digest);
    tracing::debug!(%client, cpv = offer.cpv, fingerprint = ?fingerprint, "offered a build");
    let taken = line.while_alive(take(&domain, client, &offer, fingerprint)).await;
    let last = match taken {
        None => return,
        Some(Err(refused)) => Some(refused),
        Some(Ok(Taken::Made(receipt))) => Some(ToClient::Done { claim: ByteBuf::from(receipt) }),
        Some(Ok(Taken::Job(entry))) => line.follow(&domain, client, fingerprint, &entry).await,
    };
    if let Some(last) = last {
        tracing::debug!(%client, cpv = offer.cpv, ?last, "a build for another machine ended");
        // A client that is gone asks again.
        let _gone = line.dialogue.say(last.encode()).await;
        line.dialogue.end().await;
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A dialogue with what keeps it alive.
struct Line {
    dialogue: Dialogue,
    ticks: Interval,
    heard: Instant,
}

/// What a client wants besides going on.
enum Word {
    Nothing,
    /// Nobody said anything: it is time for a sign of life.
    Beat,
    Cancel,
    Gone,
}

impl Line {
    async fn offer(&mut self) -> Option<Box<Offer>> {
        let first = tokio::time::timeout(SILENCE_MAX, self.dialogue.hear()).await.ok()??.ok()?;
        match ToBuilder::decode(&first) {
            Ok(ToBuilder::Offer(offer)) if offer.v == VERSION => Some(offer),
            other => {
                tracing::debug!(?other, "a dialogue about builds began with no offer");
                None
            }
        }
    }

    /// Waits for the client's next word, or until the next sign of life is due.
    ///
    /// Cancel safe: yes; for that reason it says nothing itself.
    async fn attend(&mut self) -> Word {
        tokio::select! {
            biased;
            heard = self.dialogue.hear() => match heard.map(|frame| frame.map(|frame| ToBuilder::decode(&frame))) {
                Some(Ok(Ok(ToBuilder::Alive {}))) => {
                    self.heard = Instant::now();
                    Word::Nothing
                }
                Some(Ok(Ok(ToBuilder::Cancel {}))) => Word::Cancel,
                _ => Word::Gone,
            },
            _ = self.ticks.tick() => if self.heard.elapsed() > SILENCE_MAX { Word::Gone } else { Word::Beat },
        }
    }

    async fn beat(&mut self) -> bool {
        self.dialogue.say(ToClient::Alive {}.encode()).await.is_ok()
    }

    /// Does something while the client is told that this machine is alive; None when the client left.
    async fn while_alive<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                word = self.attend() => match word {
                    Word::Nothing => {}
                    Word::Beat if self.beat().await => {}
                    Word::Beat | Word::Cancel | Word::Gone => return None,
                },
            }
        }
    }

    /// Tells how a job goes on; the last message, or None when the client left before.
    async fn follow(
        &mut self,
        domain: &Arc<Domain>,
        client: PeerId,
        fingerprint: Digest,
        entry: &Arc<Entry>,
    ) -> Option<ToClient> {
        if !domain.announcer.shared().gives().may_give(What::Job(&entry.now()), &client) {
            return Some(ToClient::refused(Code::Role, "this machine gives no builds here any more"));
        }
        let _listening = domain.builds.offload.guests.listen(fingerprint, client);
        self.dialogue.say(ToClient::Accepted { job: entry.id() }.encode()).await.ok()?;
        let mut watched = entry.watch();
        let mut looks = ticks(LOG_PERIOD);
        let (mut told, mut at) = (None, 0);
        loop {
            let job = watched.borrow_and_update().clone();
            let now = (job.phase.clone(), job.reason.clone());
            let log = read_log(&job, at).await;
            if !log.is_empty() || told.as_ref() != Some(&now) {
                at += log.len() as u64;
                let full = log.len() == LOG_BYTES_MAX;
                let event =
                    ToClient::Event { phase: Some(now.0.clone()), reason: now.1.clone(), log: ByteBuf::from(log) };
                self.dialogue.say(event.encode()).await.ok()?;
                told = Some(now);
                if full {
                    continue;
                }
            }
            if job.state.is_final() {
                return Some(ended(domain, client, fingerprint, job).await);
            }
            tokio::select! {
                _changed = watched.changed() => {}
                _ = looks.tick() => {}
                word = self.attend() => match word {
                    Word::Nothing => {}
                    Word::Beat if self.beat().await => {}
                    Word::Beat | Word::Gone => return None,
                    Word::Cancel => {
                        domain.builds.offload.guests.farewell(&fingerprint, &client);
                        entry.cancel();
                        return None;
                    }
                },
            }
        }
    }
}

async fn read_log(job: &Job, from: u64) -> Vec<u8> {
    let path = PathBuf::from(&job.log_path);
    blocking::run(move || {
        let read = || {
            let mut file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES_MAX as u64).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        // There is no log before the build begins.
        read().unwrap_or_default()
    })
    .await
}

async fn ended(domain: &Arc<Domain>, client: PeerId, fingerprint: Digest, job: Job) -> ToClient {
    match job.state {
        JobState::Done => match made(domain, client, fingerprint).await {
            Some(receipt) => ToClient::Done { claim: ByteBuf::from(receipt) },
            None => ToClient::failed("publish", "the package was made and is not here any more", &[], false),
        },
        JobState::Cancelled => {
            let reason = job.reason.as_deref().unwrap_or("its user there cancelled it");
            ToClient::failed(&job.phase, reason, &[], false)
        }
        JobState::Failed | JobState::Queued | JobState::Running => {
            let reason = job.reason.as_deref().unwrap_or("no reason is known");
            let ebuild = is_ebuilds(&job.phase) && !job.log_tail.is_empty() && !is_of_machine(reason);
            ToClient::failed(&job.phase, reason, &job.log_tail, ebuild)
        }
    }
}

/// Whether the phase is one in which the ebuild itself runs.
fn is_ebuilds(phase: &str) -> bool {
    ["setup", "unpack", "prepare", "configure", "compile", "test", "install"].contains(&phase)
}

/// The receipt for a package that this machine built itself and that goes to this client: made for it, or this machine's own
/// that its members are given. Who names a fingerprint has no right by that.
async fn made(domain: &Arc<Domain>, client: PeerId, fingerprint: Digest) -> Option<Vec<u8>> {
    let looking = Arc::clone(domain);
    blocking::run(move || {
        let gives = looking.announcer.shared().gives();
        let rows = looking.binhost.of_recipe(&fingerprint);
        let mut built = rows.iter().filter(|row| row.origin == Origin::Built && looking.store.contains(&row.digest));
        let row = built.find(|row| gives.may_give(What::Package(row), &client))?;
        Some(publish::receipt(&looking.builds.identity, row, client)?.as_bytes().to_vec())
    })
    .await
}

/// Looks at an offer, cheapest questions first; nothing of the client's is fetched before it may have what it wants.
async fn take(domain: &Arc<Domain>, client: PeerId, offer: &Offer, fingerprint: Digest) -> Result<Taken, ToClient> {
    let guests = &domain.builds.offload.guests;
    if domain.groups.role(&client).is_none_or(|role| role < Role::Build) {
        let why = "this machine gives no builds here: its role is less than `build`";
        return Err(ToClient::refused(Code::Role, why));
    }
    if domain.config.offload.jobs_max == 0 {
        return Err(ToClient::refused(Code::Role, "it builds for nobody: offload.jobs_max is 0 there"));
    }
    if let Some(receipt) = made(domain, client, fingerprint).await {
        return Ok(Taken::Made(receipt));
    }
    let Some(place) = guests.place(&fingerprint, client) else {
        let why = format!("{} builds for others run or wait there already", guests.count());
        return Err(ToClient::refused(Code::Busy, &why));
    };
    // Its own that goes on. What is made for this machine or another client by the same recipe is not for it to see.
    let open = domain.builds.jobs.open_of(&fingerprint);
    let gives = domain.announcer.shared().gives();
    if let Some(entry) = open.into_iter().find(|entry| gives.may_give(What::Job(&entry.now()), &client)) {
        place.taken();
        guests::keep(domain, &entry, fingerprint, client);
        return Ok(Taken::Job(entry));
    }
    fits(domain, offer).await?;
    let entry = begin(domain, client, offer, fingerprint).await?;
    place.taken();
    Ok(Taken::Job(entry))
}

/// Whether this machine can run what it would make: asked before anything is fetched.
async fn fits(domain: &Arc<Domain>, offer: &Offer) -> Result<(), ToClient> {
    let recipe = Recipe::of_text(offer.recipe.clone());
    let value = |name: &str| recipe.value("environment", name).unwrap_or_default();
    let own = ask::own_portage(domain).await.unwrap_or_default();
    let differs = |own: &str, theirs: &str| !own.is_empty() && !theirs.is_empty() && own != theirs;
    if differs(&own.arch, &offer.arch) {
        let why = format!("it is a machine of ARCH {}, and the package is for {}", own.arch, offer.arch);
        return Err(ToClient::refused(Code::Arch, &why));
    }
    if differs(&own.chost, &offer.chost) {
        let why = format!("its CHOST is {}, and the package is for {}", own.chost, offer.chost);
        return Err(ToClient::refused(Code::Chost, &why));
    }
    let flags: Vec<String> = COMPILED_WITH.iter().map(|name| value(name)).filter(|flags| !flags.is_empty()).collect();
    let needed = Needed::of(&offer.chost, flags.iter().map(String::as_str), []);
    match (&needed, needed.missing_in(domain.binhost.machine().features())) {
        // What the builder's own compiler was told by `native` of the client's is known by its names only.
        (Needed::Features(_), Some(missing)) => {
            let why =
                format!("its processor lacks {missing}, which programs made with these flags use while they are built");
            Err(ToClient::refused(Code::Cpu, &why))
        }
        _ => Ok(()),
    }
}

async fn begin(
    domain: &Arc<Domain>,
    client: PeerId,
    offer: &Offer,
    fingerprint: Digest,
) -> Result<Arc<Entry>, ToClient> {
    let domain_error = |why: &str| ToClient::refused(Code::Domain, why);
    let named = (offer.cpv.parse::<Cpv>(), offer.repo.parse::<RepoName>());
    let (Ok(cpv), Ok(repo)) = named else { return Err(domain_error("the offer names no package")) };
    if Digest::of(offer.recipe.as_bytes()) != fingerprint {
        return Err(domain_error("the recipe of the offer is not that of its fingerprint"));
    }
    let (plan, index) = plan(domain, client, offer, &cpv, &repo).await?;
    let Some(planned) = plan.packages.get(index) else { return Err(domain_error("the offer names no package")) };
    if let Some(why) = &planned.hopeless {
        return Err(ToClient::refused(Code::Hopeless, why));
    }
    let (beginning, plan) = (Arc::clone(domain), Arc::new(plan));
    let (tell, begun) = oneshot::channel();
    // By itself: a job that is begun is carried and kept, even when its client is lost in this moment.
    domain.tasks.spawn("begin for another machine", async move {
        let entry = work::begin(&beginning, &plan, index, false, super::On::Local).await;
        if let Ok(Some(entry)) = &entry {
            guests::keep(&beginning, entry, fingerprint, client);
        }
        let _gone = tell.send(entry);
    });
    match begun.await {
        Ok(Ok(Some(entry))) => Ok(entry),
        Ok(Ok(None)) => Err(ToClient::refused(Code::Hopeless, "there is no such package in the plan")),
        Ok(Err(error)) => Err(ToClient::refused(Code::Busy, &with_causes(&error))),
        Err(_stopping) => Err(ToClient::refused(Code::Busy, "its daemon is stopping")),
    }
}

/// A plan with the client's domain in which the package has the fingerprint of the offer, and its place there.
async fn plan(
    domain: &Arc<Domain>,
    client: PeerId,
    offer: &Offer,
    cpv: &Cpv,
    repo: &RepoName,
) -> Result<(Plan, usize), ToClient> {
    let sandbox = domain.builds.sandbox().map_err(|error| ToClient::refused(Code::Hopeless, &error.to_string()))?;
    let atom = format!("={cpv}::{repo}");
    let theirs = TheirDomain::of(domain, client, offer)?;
    let (mut masked, mut rounds) = (BTreeSet::new(), 0);
    loop {
        let foreign = theirs.laid_out(&masked).await?;
        let missing = foreign.missing.clone();
        if missing.contains(&offer.repo) {
            let missing = ForeignError::Repository { name: offer.repo.clone() };
            return Err(ToClient::refused(Code::Repository, &missing.to_string()));
        }
        let inside = Inside::of_foreign(&domain.config, &foreign, Vec::new(), domain.builds.path.clone());
        let plan = plan::plan_foreign(&sandbox, &inside, foreign, std::slice::from_ref(&atom)).await;
        let plan = plan.map_err(|error| unplanned(&error, &missing))?;
        let index = plan.packages.iter().position(|package| package.cpv == *cpv && package.asked);
        let Some((index, planned)) = index.and_then(|index| Some((index, plan.packages.get(index)?))) else {
            return Err(ToClient::refused(Code::Differs, "with this configuration nothing is to be built there"));
        };
        if planned.recipe.text() == offer.recipe {
            return Ok((plan, index));
        }
        let others = not_the_clients(&offer.recipe, planned);
        rounds += 1;
        if rounds >= ROUNDS_MAX || others.is_subset(&masked) {
            return Err(differs(offer, planned, &missing));
        }
        tracing::debug!(%cpv, ?others, "planned again with the client's versions");
        masked.extend(others);
    }
}
