//! The life of the process, in reading order: open, bind, serve, read the repositories, stop.
//!
//! It serves before it has read the repositories, which may take minutes where Portage must be asked. The ready line, and
//! the word to the service manager, wait a moment for that, so that on most machines whoever waits for it finds all files
//! known; [`Ready::indexed`] says whether it is so.

use crate::announce::{self, Announcer, Shared};
use crate::api::Ready;
use crate::binhost::{self, Binhost, BinhostError};
use crate::blocking;
use crate::builds::trust::Trust;
use crate::builds::{self, Builds, substitute};
use crate::config::Config;
use crate::domain::{Addresses, Domain, Parts};
use crate::gives::Sharing;
use crate::group::{Groups, gossip};
use crate::http::{control, public, serve_tcp, serve_unix};
use crate::machine::Machine;
use crate::portage::Portage;
use crate::private_files::{self, PrivateFileError};
use crate::questions::members;
use crate::repositories::{AskMetadata, Repositories};
use crate::swarm::{self, Identity, Swarm};
use crate::tasks::Tasks;
use crate::upkeep;
use mirrors::{Mirrors, Options as MirrorOptions};
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Options as StoreOptions, Store};
use tokio::net::{TcpListener, UnixListener};

/// From SIGTERM to the end; INTERFACE.md promises 5 s.
const STOP_MAX: Duration = Duration::from_secs(4);
/// How long the ready line waits for the first look at the repositories. A service manager waits much longer.
const READY_WAIT: Duration = Duration::from_secs(10);
/// The service manager is told how far a look is at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(2);
/// File of the node's key below the data directory.
const KEY_FILE: &str = "identity.key";
/// A key has some 70 bytes.
const KEY_MAX_BYTES: u64 = 4096;
/// Open files that hundreds of peers and transfers need.
const OPEN_FILES: u64 = 65_536;
/// Bits of the control socket: its owner and group may use the verbs.
const CONTROL_MODE: u32 = 0o660;

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder or file of its own.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("cannot open the store")]
    Store(#[from] store::OpenStoreError),
    /// The binary packages.
    #[error("cannot offer the binary packages")]
    Binhost(#[from] BinhostError),
    /// The jobs, and whom the user enrolled and trusts.
    #[error("cannot read the jobs, the groups and whose claims count")]
    Builds(#[from] store::IndexError),
    /// The key of this node, or the control socket.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    /// The key of this node.
    #[error("the key {path} cannot be read: {why}")]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An HTTP address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon has the control socket.
    #[error("another daemon answers on {path}")]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// An address of the swarm.
    #[error("{text:?} is no multiaddr: {why}")]
    Multiaddr {
        /// As written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The swarm.
    #[error("cannot start the swarm")]
    Swarm(#[from] swarm::StartSwarmError),
    /// The mirrors.
    #[error("cannot set up the mirrors")]
    Mirrors(#[from] mirrors::NewMirrorsError),
    /// What it cannot be without ended in a fault of its own.
    #[error(
        "the task {task:?} ended in a fault that the log tells of, and there is no node without it: please report it"
    )]
    Fault {
        /// Which.
        task: &'static str,
    },
}

/// Runs a daemon until `shutdown` resolves. `path` is the daemon's `PATH`, where Portage is looked for.
///
/// # Errors
/// When it cannot start; once it serves, when a task ends in a panic that it cannot be without.
pub async fn run(
    config: Config,
    path: OsString,
    on_ready: impl FnOnce(&Ready),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let tasks = Tasks::new();
    make_folder(&config.data_dir, 0o755)?;
    open_up();
    let control_folder = config.control.parent().unwrap_or(Path::new("."));
    make_folder(control_folder, 0o755)?;
    let store = open_store(&config).await?;
    let machine = Arc::new(Machine::open().await);
    let binhost = Arc::new(open_binhost(&store, machine).await?);
    let identity = identity(&config.data_dir)?;
    let listeners = bind_http(&config.http).await?;
    let control = bind_control(&config.control).await?;
    let addresses = addresses(&listeners, &identity);

    let groups = Arc::new(open_groups(&config, &store, &identity).await?);
    let trust = Arc::new(open_trust(&store, &groups).await?);
    let shared = Arc::new(open_shared(&store, &config, &groups, &trust, &binhost).await);
    let builds = open_builds(&config, &store, &identity, trust, &path).await?;
    let ask: Arc<dyn AskMetadata> =
        Arc::new(Portage::new(tokio::runtime::Handle::current(), &config, path, tasks.stopping().clone()));
    let repositories = Repositories::new(config.clone(), Some(ask), tasks.stopping().clone());
    let mirrors = Mirrors::new(mirror_options(&config))?;
    // Before the swarm lists what is here.
    let events = store.subscribe();
    let swarm = Swarm::start(identity, swarm_config(&config)?, Arc::<Shared>::clone(&shared), &tasks).await?;
    let announcer = Arc::new(Announcer::new(shared));
    let parts = Parts {
        config,
        store,
        mirrors,
        swarm,
        repositories,
        announcer: Arc::clone(&announcer),
        binhost,
        builds,
        groups,
        addresses,
        tasks,
    };
    let domain = Arc::new(Domain::new(parts));
    members::answer_members(&domain);
    let finding = Arc::clone(&domain);
    blocking::run(move || finding.find_repositories()).await;

    Builds::hear(&domain);
    start_tasks(&domain, announcer, events, listeners, control);
    tokio::pin!(shutdown);
    let end = async {
        tokio::select! {
            biased;
            () = shutdown => Ok(()),
            task = domain.tasks.failed() => Err(RunError::Fault { task }),
        }
    };
    tokio::pin!(end);
    tokio::select! {
        biased;
        ended = &mut end => {
            stop(&domain).await;
            return ended;
        }
        _in_time = tokio::time::timeout(READY_WAIT, domain.repositories.first_look()) => {}
    }
    on_ready(&ready(&domain));
    notify(&[sd_notify::NotifyState::Ready]);
    let ended = end.await;

    tracing::info!("stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    stop(&domain).await;
    ended
}

fn start_tasks(
    domain: &Arc<Domain>,
    announcer: Arc<Announcer>,
    events: store::Events,
    listeners: Vec<TcpListener>,
    control: UnixListener,
) {
    let tasks = &domain.tasks;
    let reads = public(Arc::clone(domain));
    for listener in listeners {
        tasks.spawn_vital("http", until_stopped(tasks, serve_tcp(listener, reads.clone(), tasks.clone())));
    }
    let verbs = serve_unix(control, control::router(Arc::clone(domain)), tasks.clone());
    tasks.spawn_vital("control", until_stopped(tasks, verbs));
    let (store, swarm, mut events) = (domain.store.clone(), domain.swarm.clone(), Some(events));
    tasks.keep("announce", move || {
        announce::follow(store.clone(), events.take(), swarm.clone(), Arc::clone(&announcer))
    });
    let (store, binhost) = (domain.store.clone(), Arc::clone(&domain.binhost));
    tasks.keep("binhost", move || binhost::follow(store.clone(), Arc::clone(&binhost)));
    tasks.keep("groups", with(domain, gossip::follow));
    tasks.keep("match", with(domain, binhost::ask::follow));
    tasks.keep("status", with(domain, tell_status));
    tasks.spawn("resume builds", once_read(Arc::clone(domain), Builds::resume));
    tasks.keep("refresh", with(domain, upkeep::refresh));
    tasks.keep("pins", with(domain, |domain| once_read(domain, upkeep::fill_pins)));
    tasks.keep("gc", with(domain, upkeep::gc));
    tasks.keep("flush", with(domain, upkeep::flush));
}

/// Work that can begin with the domain as often as it must.
fn with<W, F: Fn(Arc<Domain>) -> W>(domain: &Arc<Domain>, work: F) -> impl FnMut() -> W + use<W, F> {
    let domain = Arc::clone(domain);
    move || work(Arc::clone(&domain))
}

/// What accepts connections is dropped when the daemon stops.
fn until_stopped<F: Future<Output = ()> + Send + 'static>(tasks: &Tasks, work: F) -> impl Future<Output = ()> + use<F> {
    let stop = tasks.stopping().clone();
    async move { stop.run_until_cancelled(work).await.unwrap_or_default() }
}

/// Work that needs all that the repositories say.
async fn once_read<W: Future<Output = ()>>(domain: Arc<Domain>, work: impl FnOnce(Arc<Domain>) -> W) {
    domain.repositories.first_look().await;
    work(domain).await;
}

/// Tells the service manager how far a look at the repositories is.
async fn tell_status(domain: Arc<Domain>) {
    let mut looking = domain.repositories.looking();
    // The sender lives as long as the domain.
    while looking.changed().await.is_ok() {
        let status = looking.borrow_and_update().as_ref().map_or("serving".to_owned(), ToString::to_string);
        notify(&[sd_notify::NotifyState::Status(&status)]);
        tokio::time::sleep(STATUS_PERIOD).await;
    }
}

/// Stop accepting, cancel, wait bounded, flush the store.
async fn stop(domain: &Arc<Domain>) {
    if !domain.tasks.shutdown(STOP_MAX).await {
        tracing::warn!("some work did not end in time");
    }
    let control = domain.config.control.clone();
    let domain = Arc::clone(domain);
    blocking::run(move || {
        if let Err(error) = domain.store.flush() {
            tracing::error!(%error, "the store cannot be flushed");
        }
    })
    .await;
    if let Err(error) = std::fs::remove_file(&control) {
        tracing::debug!(%error, "the control socket is gone already");
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// What a service manager's limits and umask would take from a node: as many open files as it may have, up to what a busy
/// one needs, and, where builds have user numbers of their own, files that these can read. Whom the data directory lets in
/// was decided when it was made.
fn open_up() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays");
    }
    if rustix::process::geteuid().is_root() {
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), RunError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| RunError::Path { path: path.to_owned(), source })
}

/// A folder that nobody else may enter, whatever the umask is and whoever made it: an earlier version let others in.
fn make_private(path: &Path) -> Result<(), RunError> {
    make_folder(path, 0o700)?;
    let set = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    set.map_err(|source| RunError::Path { path: path.to_owned(), source })
}

async fn open_store(config: &Config) -> Result<Store, RunError> {
    let options = StoreOptions {
        size_max_bytes: config.store_size_max.map(|size| size.0),
        free_min_bytes: config.store_free_min.0,
        check_sha512: config.check_sha512,
        ..StoreOptions::default()
    };
    let dir = config.data_dir.join("store");
    Ok(blocking::run(move || Store::open(&dir, options)).await?)
}

/// The peer id of the node that keeps its data here; none before its first start, or when this user may not read it.
#[must_use]
pub fn peer_id_of(data_dir: &Path) -> Option<String> {
    let path = data_dir.join(KEY_FILE);
    let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= KEY_MAX_BYTES);
    let bytes = small.then(|| std::fs::read(&path).ok())??;
    Some(Identity::from_bytes(&bytes).ok()?.peer_id().to_string())
}

async fn open_groups(config: &Config, store: &Store, identity: &Identity) -> Result<Groups, store::IndexError> {
    let (name, store, identity) = (config.node_name.clone(), store.clone(), identity.clone());
    blocking::run(move || Ok(Groups::open(&store, identity)?.named(&name.unwrap_or_else(gossip::host_name)))).await
}

async fn open_trust(store: &Store, groups: &Arc<Groups>) -> Result<Trust, store::IndexError> {
    let (store, groups) = (store.clone(), Arc::clone(groups));
    blocking::run(move || Trust::open(&store, groups)).await
}

async fn open_shared(
    store: &Store,
    config: &Config,
    groups: &Arc<Groups>,
    trust: &Arc<Trust>,
    binhost: &Arc<Binhost>,
) -> Shared {
    let sharing = Sharing { distfiles: config.share_distfiles, builds: config.build.share };
    let (store, groups, trust) = (store.clone(), Arc::clone(groups), Arc::clone(trust));
    let binhost = Arc::clone(binhost);
    blocking::run(move || {
        let guests = binhost.guests();
        substitute::forget_claims_on(&store, &guests);
        let shared = Shared::new(&store, sharing, groups, trust);
        shared.gives().note_packages(guests);
        shared
    })
    .await
}

async fn open_builds(
    config: &Config,
    store: &Store,
    identity: &Identity,
    trust: Arc<Trust>,
    path: &OsString,
) -> Result<Builds, RunError> {
    let (config, store, identity, path) = (config.clone(), store.clone(), identity.clone(), path.clone());
    let data_dir = config.data_dir.clone();
    let opened = blocking::run(move || Builds::open(&config, &store, identity, trust, path)).await?;
    for name in builds::PRIVATE_FOLDERS {
        make_private(&data_dir.join(name))?;
    }
    Ok(opened)
}

async fn open_binhost(store: &Store, machine: Arc<Machine>) -> Result<Binhost, BinhostError> {
    let store = store.clone();
    blocking::run(move || Binhost::open(&store, machine)).await
}

fn identity(data_dir: &Path) -> Result<Identity, RunError> {
    let path = data_dir.join(KEY_FILE);
    if let Some(bytes) = private_files::read(&path, KEY_MAX_BYTES)? {
        return Identity::from_bytes(&bytes).map_err(|error| RunError::Key { path, why: error.to_string() });
    }
    let identity = Identity::generate();
    let written = store::write_atomically(&path, &identity.to_bytes(), 0o600);
    written.map_err(|error| RunError::Key { path, why: error.to_string() })?;
    Ok(identity)
}

async fn bind_http(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| RunError::Listen { address, source })?);
    }
    Ok(listeners)
}

/// A socket that a dead daemon left is taken over; a living one's is not.
async fn bind_control(path: &Path) -> Result<UnixListener, RunError> {
    if private_files::is_answered(path).await? {
        return Err(RunError::Running { path: path.to_owned() });
    }
    Ok(private_files::bind_socket(path, CONTROL_MODE)?)
}

/// The binhost's path names this node: Portage's index cache knows no port.
fn addresses(listeners: &[TcpListener], identity: &Identity) -> Addresses {
    let http: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let first = http.first().map(ToString::to_string).unwrap_or_default();
    Addresses { http, binhost: format!("http://{first}/binpkgs/{}", identity.peer_id()) }
}

fn mirror_options(config: &Config) -> MirrorOptions {
    MirrorOptions {
        stall: Duration::from_secs(config.mirror_stall_s),
        proxied: config.proxied,
        ..MirrorOptions::default()
    }
}

fn swarm_config(config: &Config) -> Result<swarm::Config, RunError> {
    let parse = |text: &String| {
        text.parse().map_err(|error: libp2p::multiaddr::Error| RunError::Multiaddr {
            text: text.clone(),
            why: error.to_string(),
        })
    };
    Ok(swarm::Config {
        listen: config.swarm_listen.iter().map(parse).collect::<Result<_, _>>()?,
        peers: config.swarm_peers.iter().map(parse).collect::<Result<_, _>>()?,
        mdns: config.mdns,
        serve_wan: config.share_wan,
        upload_bytes_per_second_max: config.share_upload_max.map(|size| size.0),
        agent: concat!("peerage/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..swarm::Config::default()
    })
}

fn ready(domain: &Domain) -> Ready {
    Ready {
        event: "ready".to_owned(),
        http: domain.addresses.http.iter().map(ToString::to_string).collect(),
        control: domain.config.control.display().to_string(),
        p2p: crate::snapshot::p2p_addresses(domain),
        binhost: domain.addresses.binhost.clone(),
        peer_id: domain.swarm.peer_id().to_string(),
        indexed: domain.repositories.are_read(),
    }
}
