//! [`Mirrors`]: GENTOO_MIRRORS, the named mirrors, the clients and the health, put together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tree::thirdparty::ThirdPartyMirrors;
use url::Url;

use crate::clients::Clients;
use crate::health::{HostHealth, Ledger, Report};
use crate::learned_layouts::LearnedLayouts;
use crate::plan::{Candidate, Places, Source, plan, shown};

/// GENTOO_MIRRORS beyond this many are not used; Gentoo's whole list has fewer hosts by region.
pub const MIRRORS_MAX: usize = 64;

/// How to fetch, and from where.
#[derive(Debug, Clone)]
pub struct Options {
    /// GENTOO_MIRRORS in the user's order; what is not http(s) is left out. May hold credentials.
    pub mirrors: Vec<Url>,
    /// What `mirror://` means to the repositories (`profiles/thirdpartymirrors`).
    pub thirdparty: ThirdPartyMirrors,
    /// Until a connection stands, name lookup and TLS included.
    pub connect: Duration,
    /// From then until the head of the answer, each redirect anew ([`crate::Patience::Normal`]).
    pub first_byte: Duration,
    /// Silence in a body that makes a caller go on to the next ([`crate::Patience::Normal`]).
    pub stall: Duration,
    /// In place of `first_byte` and `stall` with [`crate::Patience::Long`].
    pub long: Duration,
    /// Redirects followed in one GET.
    pub redirects_max: usize,
    /// What we call ourselves.
    pub user_agent: String,
    /// Names are looked up by a proxy of the environment: then the address connected to says nothing of the server, and whom
    /// the proxy connects to is its own decision.
    pub proxied: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            thirdparty: ThirdPartyMirrors::default(),
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            long: Duration::from_secs(45),
            redirects_max: 5,
            user_agent: concat!("peer/", env!("CARGO_PKG_VERSION"), " (Gentoo distfile-fetch)").to_owned(),
            proxied: false,
        }
    }
}

/// Why [`Mirrors::new`] failed.
#[derive(Debug, Error)]
pub enum NewMirrorsError {
    /// TLS or the system's name lookup cannot be set up, or the user agent is not fit for a header.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

#[derive(Debug, Clone)]
struct Lists {
    local: Arc<[Url]>,
    custom: Arc<ThirdPartyMirrors>,
    mirrors: Arc<[Url]>,
    thirdparty: Arc<ThirdPartyMirrors>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) clients: Clients,
    pub(crate) layouts: LearnedLayouts,
    lists: RwLock<Lists>,
    ledger: Mutex<Ledger>,
}

/// Everything that can be fetched over HTTP. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Mirrors {
    pub(crate) inner: Arc<Inner>,
}

impl Mirrors {
    /// Sets up the clients; connects to nobody.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(mut options: Options) -> Result<Self, NewMirrorsError> {
        let clients = Clients::new(&options)?;
        let lists = Lists {
            local: Arc::default(),
            custom: Arc::default(),
            mirrors: usable(std::mem::take(&mut options.mirrors)),
            thirdparty: Arc::new(std::mem::take(&mut options.thirdparty)),
        };
        let inner = Inner {
            options,
            clients,
            layouts: LearnedLayouts::default(),
            lists: RwLock::new(lists),
            ledger: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Puts another list in the place of GENTOO_MIRRORS. Health stays.
    pub fn set_mirrors(&self, mirrors: Vec<Url>) {
        let mirrors = usable(mirrors);
        self.inner.lists.write().unwrap_or_else(PoisonError::into_inner).mirrors = mirrors;
    }

    /// Takes over what the user says in `/etc/portage/mirrors`: mirrors that are asked for every file, restricted or not,
    /// and what `mirror://` means before all that the repositories say.
    pub fn set_custom(&self, local: Vec<Url>, custom: ThirdPartyMirrors) {
        let local = usable(local);
        let mut lists = self.inner.lists.write().unwrap_or_else(PoisonError::into_inner);
        (lists.local, lists.custom) = (local, Arc::new(custom));
    }

    /// Changes what `mirror://` means to the repositories.
    pub fn set_thirdparty(&self, thirdparty: ThirdPartyMirrors) {
        self.inner.lists.write().unwrap_or_else(PoisonError::into_inner).thirdparty = Arc::new(thirdparty);
    }

    /// Whom to ask for `source`, in order; see [`crate::plan`]. Empty when nobody may or can be asked now.
    #[must_use]
    pub fn plan(&self, source: &Source) -> Vec<Candidate> {
        let lists = {
            let lists = self.inner.lists.read().unwrap_or_else(PoisonError::into_inner);
            lists.clone()
        };
        let places = Places {
            local: &lists.local,
            mirrors: &lists.mirrors,
            custom: &lists.custom,
            thirdparty: &lists.thirdparty,
        };
        plan(source, places, &self.ledger(), Instant::now())
    }

    /// Takes in how an attempt went. Call once for every [`Mirrors::open`]: with the error if it or the body failed, else
    /// once the bytes are known to be right or wrong. When several candidates brought parts of wrong bytes, nobody is
    /// reported.
    pub fn report(&self, candidate: &Candidate, report: Report<'_>) {
        if let Report::Failed(error) = report {
            tracing::debug!(%candidate, %error, "a candidate failed");
        }
        self.ledger().report(candidate.host(), candidate.pair(), report, Instant::now());
    }

    /// All hosts known, by name.
    #[must_use]
    pub fn health(&self) -> Vec<HostHealth> {
        self.ledger().health(Instant::now())
    }

    pub(crate) fn mirrors(&self) -> Arc<[Url]> {
        Arc::clone(&self.inner.lists.read().unwrap_or_else(PoisonError::into_inner).mirrors)
    }

    /// Held for a moment only, never over an await.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The http(s) mirrors among these, in order, as many as are used.
fn usable(mirrors: Vec<Url>) -> Arc<[Url]> {
    let (good, other): (Vec<Url>, Vec<Url>) = mirrors.into_iter().partition(|url| Candidate::mirror(url).is_ok());
    for url in &other {
        tracing::warn!(mirror = shown(url), "not an http or https mirror, left out");
    }
    good.into_iter().take(MIRRORS_MAX).collect()
}
