//! What the daemon does by itself from time to time: looking whether repositories changed, gc, writing down use times.

use crate::binhost::BinhostError;
use crate::blocking;
use crate::domain::Domain;
use crate::pins;
use crate::stats::now_s;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::GcTarget;
use tree::conf::{CustomMirrors, MakeConf};
use url::Url;

/// Time between two looks at the repositories, at least; a look that takes long makes it longer.
const REFRESH_PERIOD: Duration = Duration::from_secs(60);
/// A look may take this part of the time: 1 in 200.
const REFRESH_SHARE: u32 = 200;
/// Time after which pinned files that were not to be had are tried again.
const PINS_PERIOD: Duration = Duration::from_secs(60 * 60);
/// Time between two gc runs.
const GC_PERIOD: Duration = Duration::from_secs(15 * 60);
/// Packages built for other machines are kept so long: their clients have collected them by then.
const GUEST_LIFE: Duration = Duration::from_secs(14 * 86_400);
/// Time between two flushes of what is kept in memory for a while.
const FLUSH_PERIOD: Duration = Duration::from_secs(30);

/// Looks at the repositories at once and then again and again.
pub(crate) async fn refresh(domain: Arc<Domain>) {
    loop {
        let started = Instant::now();
        let done = domain.refresh().await;
        // Reading what changed is no reason to look more rarely.
        let took = if done.changed() { Duration::ZERO } else { started.elapsed() };
        tokio::time::sleep(REFRESH_PERIOD.max(took * REFRESH_SHARE)).await;
    }
}

/// Looks up what pins name and obtains what is not here: when told to, and from time to time what was not to be had before.
pub(crate) async fn fill_pins(domain: Arc<Domain>) {
    loop {
        if let Err(error) = pins::follow(&domain).await {
            tracing::error!(%error, "pins cannot follow the repositories");
        }
        pins::fill(Arc::clone(&domain)).await;
        // Told or not, it is time then.
        let _elapsed = tokio::time::timeout(PINS_PERIOD, domain.pins_changed.notified()).await;
    }
}

/// Keeps the store within its budget.
pub(crate) async fn gc(domain: Arc<Domain>) {
    loop {
        tokio::time::sleep(GC_PERIOD).await;
        let letting_go = Arc::clone(&domain);
        let before = now_s().saturating_sub(GUEST_LIFE.as_secs());
        let forgotten = blocking::run(move || {
            let gone = letting_go.binhost.forget_guests(before)?;
            letting_go.announcer.shared().gives().forget_packages(&gone);
            Ok::<_, BinhostError>(())
        });
        if let Err(error) = forgotten.await {
            tracing::error!(%error, "packages built for other machines cannot be let go");
        }
        let store = domain.store.clone();
        match blocking::run(move || store.gc(GcTarget::Budget, false)).await {
            Ok(report) if report.freed_bytes > 0 => {
                tracing::info!(blobs = report.removed.len(), bytes = report.freed_bytes, "gc");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "gc failed"),
        }
    }
}

/// Writes down what is kept in memory for a while.
pub(crate) async fn flush(domain: Arc<Domain>) {
    loop {
        tokio::time::sleep(FLUSH_PERIOD).await;
        let store = domain.store.clone();
        if let Err(error) = blocking::run(move || store.flush()).await {
            tracing::error!(%error, "the store cannot be flushed");
        }
    }
}

/// The mirrors above this node: those of the configuration, else GENTOO_MIRRORS, in both cases less this node itself.
/// Reads files: blocking.
pub(crate) fn read_portage_mirrors(domain: &Domain) {
    let config = &domain.config;
    let listed = match &config.mirrors {
        Some(listed) => listed.clone(),
        None => match MakeConf::load(&config.config_root) {
            Ok(conf) => conf.get("GENTOO_MIRRORS").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            Err(error) => {
                let error = crate::builds::with_causes(&error);
                tracing::warn!(error, "make.conf cannot be used, so no mirror is known");
                Vec::new()
            }
        },
    };
    let mirrors = listed.iter().filter_map(|text| usable(text, &domain.addresses.http)).collect();
    domain.mirrors.set_mirrors(mirrors);
}

/// What the user says in `/etc/portage/mirrors`, less this node itself. Reads files: blocking.
pub(crate) fn read_custom_mirrors(domain: &Domain) {
    let ours = &domain.addresses.http;
    let table = CustomMirrors::load(&domain.config.config_root).unwrap_or_else(|error| {
        tracing::warn!(%error, "/etc/portage/mirrors cannot be read, so its mirrors are not asked");
        CustomMirrors::default()
    });
    let local = table.local().iter().filter_map(|text| usable(text, ours)).collect();
    // What `mirror://` means may be this node too.
    let is_ours = |text: &str| Url::parse(text).is_ok_and(|url| is_ours(&url, ours));
    domain.mirrors.set_custom(local, table.named().without(is_ours));
}

/// None for what is no HTTP mirror (a folder, rsync) and for this node: it must not ask itself.
fn usable(text: &str, ours: &[SocketAddr]) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    (!is_ours(&url, ours)).then_some(url)
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn is_ours(url: &Url, ours: &[SocketAddr]) -> bool {
    let port = url.port_or_known_default();
    let address = match url.host() {
        Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(url::Host::Domain(name)) if name.eq_ignore_ascii_case("localhost") => None,
        Some(url::Host::Domain(_)) | None => return false,
    };
    ours.iter().any(|our| {
        let same_host = address
            .is_none_or(|address| address == our.ip() || (our.ip().is_unspecified() && is_of_this_machine(address)));
        Some(our.port()) == port && same_host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_never_asks_itself() {
        let ours = ["127.0.0.1:8420".parse().unwrap(), "0.0.0.0:9000".parse().unwrap()];
        for (text, kept) in [
            ("http://127.0.0.1:8420", false),
            ("http://127.0.0.1:8420/", false),
            ("http://localhost:8420", false),
            ("http://127.0.0.1:9000", false),
            ("http://127.0.0.1:8421", true),
            ("http://127.0.0.2:8420", true),
            ("http://mirror.invalid:8420/gentoo", true),
            ("https://mirror.invalid", true),
            ("rsync://mirror.invalid/gentoo", false),
            ("/var/cache/distfiles", false),
        ] {
            assert_eq!(usable(text, &ours).is_some(), kept, "{text}");
        }
    }
}
