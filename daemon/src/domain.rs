//! The domain: repositories, store, mirrors and swarm put together once; everything is asked of it.
//!
//! Two questions are kept apart. *What is wanted* is answered by the catalog (what the Manifests say) or, for a bare
//! digest, by the digest itself. *Who has it* is answered by the store, then by [`crate::fetcher`].

use crate::announce::Announcer;
use crate::binhost::Binhost;
use crate::blocking;
use crate::budget::{Class, Limits, Places, Who};
use crate::builds::Builds;
use crate::fetcher;
use crate::flight::{End, Flight, Flights, Follower, ObtainError};
use crate::group::Groups;
use crate::kept::KeptPaths;
use crate::openpgp::SigningKey;
use crate::pins;
use crate::questions::Questions;
use crate::repositories::{Refreshed, Repositories};
use crate::sources::Sources;
use crate::stats::{Source, Stats, now_s};
use crate::swarm::{PeerId, Swarm};
use crate::tasks::Tasks;
use crate::{api, config::Config, upkeep};
use mirrors::layout::Asked;
use mirrors::{Exempt, Mirrors, Uri};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Blob, CatalogEntry, Store, Wanted};
use tokio::sync::Notify;
use tree::digest::Digest;
use tree::distfile::Distfile;

/// A node that has only just started may not have reached the peers it was told to dial: so long after its start it
/// waits for them, at most so long, before it says that nobody has a file.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Members that are asked for what nobody announces.
const SILENT_MAX: usize = 16;

/// Everything one node is made of.
#[derive(Debug)]
pub struct Domain {
    /// How it was set up.
    pub config: Config,
    /// Bytes by digest, and the catalog.
    pub store: Store,
    /// Bytes by HTTP.
    pub mirrors: Mirrors,
    /// Other nodes.
    pub swarm: Swarm,
    /// The ebuild repositories and their index.
    pub repositories: Repositories,
    /// Transfers under way.
    pub flights: Flights,
    /// What was served.
    pub stats: Stats,
    /// What was passed through and kept.
    pub kept: Arc<KeptPaths>,
    /// The daemon's tasks.
    pub tasks: Tasks,
    /// Where it is reached.
    pub addresses: Addresses,
    /// When it began to serve.
    pub started: Instant,
    /// Keeps the swarm told of what is held.
    pub announcer: Arc<Announcer>,
    /// Binary packages for this machine's Portage.
    pub binhost: Arc<Binhost>,
    /// What makes them.
    pub builds: Builds,
    /// What questions keep.
    pub questions: Questions,
    /// Machines whose users enrolled them.
    pub groups: Arc<Groups>,
    /// Told when pins may name other files, or pinned files may be missing.
    pub pins_changed: Notify,
    /// The key binary packages are signed with.
    pub signing: SigningKey,
    /// What pins were looked up for.
    followed: pins::Followed,
    /// Transfers that may run at the same time; each counts for whoever brings its bytes.
    transfers: Places,
}

/// Where a daemon is reached.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// HTTP listeners, ports resolved.
    pub http: Vec<SocketAddr>,
    /// URL for `binrepos.conf`.
    pub binhost: String,
}

/// The parts a [`Domain`] is put together from.
#[derive(Debug)]
pub struct Parts {
    /// How it was set up.
    pub config: Config,
    /// Bytes by digest.
    pub store: Store,
    /// Bytes by HTTP.
    pub mirrors: Mirrors,
    /// Other nodes.
    pub swarm: Swarm,
    /// What is wanted.
    pub repositories: Repositories,
    /// Who tells the swarm.
    pub announcer: Arc<Announcer>,
    /// Binary packages.
    pub binhost: Arc<Binhost>,
    /// What makes them.
    pub builds: Builds,
    /// Machines whose users enrolled them.
    pub groups: Arc<Groups>,
    /// Where it is reached.
    pub addresses: Addresses,
    /// The daemon's tasks.
    pub tasks: Tasks,
}

/// One file that is wanted: what the Manifests say of it, or only its digest.
#[derive(Clone, Debug)]
pub struct Target {
    /// Distfile name, or the short digest when no Manifest names it.
    pub name: String,
    /// What its bytes must be.
    pub wanted: Wanted,
    /// Whom to ask over HTTP; none when no Manifest here knows the digest.
    pub over_http: Option<mirrors::Source>,
}

impl Target {
    /// A digest no Manifest here knows: it is its own proof, is looked for in the store and among peers only, and is
    /// never announced.
    #[must_use]
    pub fn bare(digest: Digest) -> Self {
        Self { name: digest.short(), wanted: Wanted { digest, size: None, sha512: None }, over_http: None }
    }

    /// What catalog rows of one digest say together. None for no rows, or rows whose name is no distfile name.
    ///
    /// Whom one repository allows to be asked may be asked: the file is the same.
    #[must_use]
    pub fn from_entries(entries: &[CatalogEntry]) -> Option<Self> {
        let first = entries.first()?;
        let sha512 = entries.iter().find_map(|entry| entry.sha512);
        let mut uris: Vec<Uri> = Vec::new();
        for uri in entries.iter().flat_map(|entry| &entry.uris) {
            let exempt = match uri.exempt {
                1 => Exempt::Fetch,
                2 => Exempt::Mirror,
                _ => Exempt::None,
            };
            if !uris.iter().any(|known| known.uri == uri.uri) {
                uris.push(Uri { uri: uri.uri.clone(), exempt });
            }
        }
        let may_fetch = entries.iter().any(|entry| entry.may_fetch);
        // What no ebuild that could be read names may be asked of mirrors: nothing forbids it, and no address allows more.
        let unnamed = entries.iter().any(|entry| entry.may_mirror && !entry.may_fetch);
        if unnamed && !may_fetch {
            uris.retain(|uri| uri.exempt != Exempt::None || uri.uri.starts_with("mirror://"));
        }
        let name = first.name.parse().ok()?;
        let distfile = Distfile { name, size: first.size, blake2b: first.digest, sha512 };
        let over_http = mirrors::Source {
            distfile,
            uris,
            may_mirror: entries.iter().any(|entry| entry.may_mirror),
            may_fetch: may_fetch || unnamed,
        };
        let wanted = Wanted { digest: first.digest, size: Some(first.size), sha512 };
        Some(Self { name: first.name.clone(), wanted, over_http: Some(over_http) })
    }
}

impl Domain {
    /// Puts the parts together; does nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, store, mirrors, swarm, repositories, announcer, binhost, builds, groups, addresses, tasks } =
            parts;
        let transfers = Places::new(Limits::of(config.transfers_max as u64), Duration::MAX);
        let kept = Arc::new(KeptPaths::open(&config.data_dir));
        let signing = SigningKey::below(&config.data_dir, &swarm.peer_id().to_string());
        let (flights, stats, started) = (Flights::default(), Stats::default(), Instant::now());
        Self {
            config,
            store,
            mirrors,
            swarm,
            repositories,
            flights,
            stats,
            kept,
            tasks,
            addresses,
            started,
            announcer,
            binhost,
            builds,
            questions: Questions::default(),
            groups,
            pins_changed: Notify::new(),
            signing,
            followed: pins::Followed::default(),
            transfers,
        }
    }

    /// Finds the repositories and mirrors, so that what the last index knows can be served. Blocking, and quick.
    pub fn find_repositories(&self) {
        upkeep::read_portage_mirrors(self);
        upkeep::read_custom_mirrors(self);
        self.repositories.find(&self.store);
        self.mirrors.set_thirdparty(self.repositories.thirdparty());
    }

    /// Compares the repositories with the index, and what hangs on them: mirrors, announcements, pins. Blocking.
    pub fn refresh_now(&self) -> Refreshed {
        upkeep::read_portage_mirrors(self);
        upkeep::read_custom_mirrors(self);
        self.repositories.refresh(&self.store, |done| self.take_over(done))
    }

    /// For a request that names something unknown: begins to compare the repositories with the index, unless that is
    /// being done or was a moment ago, and waits a moment for it. Blocking.
    pub fn refresh_eagerly(self: &Arc<Self>) {
        if self.repositories.claim_eagerly() {
            let domain = Arc::clone(self);
            blocking::start(move || {
                domain.repositories.run(&domain.store, |done| domain.take_over(done));
            });
        }
        self.repositories.wait_a_moment();
    }

    /// As [`Domain::refresh_now`], from async code.
    pub async fn refresh(self: &Arc<Self>) -> Refreshed {
        let domain = Arc::clone(self);
        blocking::run(move || {
            let done = domain.refresh_now();
            if domain.followed.differs(&domain) {
                domain.pins_changed.notify_one();
            }
            done
        })
        .await
    }

    /// What hangs on the repositories follows them.
    fn take_over(&self, done: Refreshed) {
        self.mirrors.set_thirdparty(self.repositories.thirdparty());
        if done.changed() {
            self.announcer.follow_catalog(&self.swarm);
            self.pins_changed.notify_one();
            self.binhost.look_again();
        }
    }

    /// What the Manifests say of what was asked for; a bare digest that none knows is a target too.
    /// None when a *name* is not known: then nothing is fetched (the node is no open proxy).
    ///
    /// Reads the index: blocking.
    #[must_use]
    pub fn resolve(&self, asked: &Asked) -> Option<Target> {
        match asked {
            Asked::ByDigest(digest) => Some(self.target(digest)),
            Asked::ByName(name) => self.by_name(name.as_ref()),
            Asked::BySha512(_) => None,
        }
    }

    /// What the Manifests say of a digest. Reads the index: blocking.
    #[must_use]
    pub fn target(&self, digest: &Digest) -> Target {
        let entries = self.repositories.in_order(self.store.catalog().by_digest(digest));
        Target::from_entries(&entries).unwrap_or_else(|| Target::bare(*digest))
    }

    /// The file of that name in the foremost repository that names it. Reads the index: blocking.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Target> {
        let entries = self.repositories.in_order(self.store.catalog().by_name(name));
        let digest = entries.first()?.digest;
        // Another repository may know more places for the same bytes, under another name too.
        Target::from_entries(&self.repositories.in_order(self.store.catalog().by_digest(&digest)))
            .map(|target| Target { name: name.to_owned(), ..target })
            .filter(|target| target.wanted.digest == digest)
    }

    /// The transfer for `target`, joined or begun.
    ///
    /// # Errors
    /// When too many are under way.
    pub fn follow(self: &Arc<Self>, target: &Target) -> Result<Follower, ObtainError> {
        self.follow_from(target, &[])
    }

    /// As [`Domain::follow`]; a transfer that is begun asks these peers first, which may have it without saying so.
    fn follow_from(self: &Arc<Self>, target: &Target, first: &[PeerId]) -> Result<Follower, ObtainError> {
        let domain = Arc::clone(self);
        let (over_http, first) = (target.over_http.clone(), first.to_vec());
        self.flights.join(&target.name, &target.wanted, move |flight| {
            let tasks = domain.tasks.clone();
            tasks.spawn("transfer", async move {
                let _landing = domain.flights.landing(&flight);
                domain.fly(&flight, over_http, &first).await;
            });
        })
    }

    /// From the store, or by whatever means.
    ///
    /// Cancel safe: yes; the transfer goes on without this waiter.
    ///
    /// # Errors
    /// When it is not to be had.
    pub async fn obtain(self: &Arc<Self>, target: &Target) -> Result<(Blob, Source), Arc<ObtainError>> {
        self.obtain_from(target, &[]).await
    }

    /// As [`Domain::obtain`], asking these connected peers first: what only members are given is not announced.
    ///
    /// Cancel safe: yes; the transfer goes on without this waiter.
    ///
    /// # Errors
    /// When it is not to be had.
    pub async fn obtain_from(
        self: &Arc<Self>,
        target: &Target,
        first: &[PeerId],
    ) -> Result<(Blob, Source), Arc<ObtainError>> {
        if let Some(blob) = self.get(target.wanted.digest).await {
            return Ok((blob, Source::Store));
        }
        match self.follow_from(target, first)?.end().await {
            End::Have(blob, source) => Ok((blob, source)),
            End::Failed(error) => Err(error),
        }
    }

    /// From the store only. A store that cannot be read is logged and counts as "not here".
    pub async fn get(&self, digest: Digest) -> Option<Blob> {
        let store = self.store.clone();
        blocking::run(move || held(&store, &digest)).await
    }

    /// Runs one flight to its end.
    async fn fly(self: &Arc<Self>, flight: &Arc<Flight>, over_http: Option<mirrors::Source>, first: &[PeerId]) {
        // What only strangers can have waits among its like, and keeps no file of a mirror waiting.
        let silent = self.silent_holders(&flight.wanted.digest).await;
        let strange = over_http.is_none() && first.is_empty() && silent.is_empty();
        let place = self.transfers.enter_when_free(if strange { Who::any(Class::Stranger) } else { Who::OWN }).await;
        // It may have come in between the client's look into the store and this flight.
        let end = if let Some(blob) = self.get(flight.wanted.digest).await {
            End::Have(blob, Source::Store)
        } else {
            if first.is_empty() {
                self.wait_for_first_peers(&flight.wanted.digest).await;
            }
            let sources = Sources::new(flight.wanted.digest, &self.swarm, &self.mirrors, over_http, &self.tasks)
                .first(first)
                .silent(silent)
                .within(&self.transfers, place);
            match fetcher::obtain(&self.store, flight, sources).await {
                Ok((blob, source)) => End::Have(blob, source),
                Err(error) => End::Failed(Arc::new(error)),
            }
        };
        self.note_end(flight, &end);
        self.flights.end(flight, end);
    }

    /// Members that are connected, in order of their names.
    #[must_use]
    pub fn connected_members(&self) -> Vec<PeerId> {
        let connected: BTreeSet<PeerId> = self.swarm.peers().into_iter().map(|peer| peer.peer_id).collect();
        let members = self.groups.members().into_iter().map(|member| member.peer);
        members.filter(|peer| connected.contains(peer)).collect()
    }

    /// Members that may hold what is never announced: packages, and distfiles that are restricted.
    async fn silent_holders(self: &Arc<Self>, digest: &Digest) -> Vec<PeerId> {
        let (looking, digest) = (Arc::clone(self), *digest);
        if blocking::run(move || looking.store.catalog().may_announce(&digest)).await {
            return Vec::new();
        }
        self.connected_members().into_iter().take(SILENT_MAX).collect()
    }

    /// Waits, in the first moments of a node that has peers to dial, until one of them has the blob.
    async fn wait_for_first_peers(&self, digest: &Digest) {
        let left = SETTLE_MAX.saturating_sub(self.started.elapsed());
        if self.config.swarm_peers.is_empty() || left.is_zero() {
            return;
        }
        let mut changes = self.swarm.changes();
        let held = async { while self.swarm.holders(digest).is_empty() && changes.changed().await.is_ok() {} };
        // Nobody has it by then: the other sources are asked, and peers once more at the end.
        let _elapsed = tokio::time::timeout(left, held).await;
    }

    fn note_end(&self, flight: &Flight, end: &End) {
        let (source, error) = match end {
            End::Have(_, source) => (Some(source.as_str().to_owned()), None),
            End::Failed(error) => (None, Some(error.to_string())),
        };
        tracing::info!(name = flight.name, digest = ?flight.wanted.digest, source, error, "transfer ended");
        let took_ms = u64::try_from(flight.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let size = flight.progress().size;
        self.stats.ended(api::Ended { name: flight.name.clone(), size, source, error, at: now_s(), took_ms });
    }

    /// Names a Manifest gives to a digest, for people. Reads the index: blocking.
    #[must_use]
    pub fn names(&self, digest: &Digest) -> Vec<String> {
        let mut names: Vec<_> = self.store.catalog().by_digest(digest).into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A blob of the store; a store that cannot be read is logged and counts as "not here". Blocking.
#[must_use]
pub fn held(store: &Store, digest: &Digest) -> Option<Blob> {
    match store.get(digest) {
        Ok(blob) => blob,
        Err(error) => {
            tracing::error!(?digest, %error, "cannot read a blob");
            None
        }
    }
}
