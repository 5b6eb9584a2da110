//! Pins: what the user keeps and helps to mirror. A pin is a target as typed; what it names is looked up again whenever
//! the repositories change, so that a pinned atom follows new versions.

use crate::api;
use crate::binhost::PIN_ROOT;
use crate::domain::{Domain, Target};
use crate::targets;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{IndexError, PinRoot};
use tree::digest::Digest;

/// The pins as they are. Reads the index: blocking.
#[must_use]
pub fn list(domain: &Domain) -> api::Pins {
    let mut pins: BTreeMap<String, api::Pin> = BTreeMap::new();
    for pin in domain.store.pins().into_iter().filter(|pin| is_users(&pin.root)) {
        let target = pin.root.to_string();
        let row = pins.entry(target.clone()).or_insert(api::Pin { target, distfiles: 0, held: 0, held_bytes: 0 });
        row.distfiles += 1;
        if let Some(size) = domain.store.size_of(&pin.digest) {
            row.held += 1;
            row.held_bytes += size;
        }
    }
    api::Pins { pins: pins.into_values().collect(), unknown: Vec::new() }
}

/// Adds or removes pins and says how they are then. Blocking.
///
/// # Errors
/// When the store cannot keep them.
pub fn change(domain: &Domain, request: &api::PinRequest) -> Result<api::Pins, IndexError> {
    let mut unknown = Vec::new();
    for target in &request.targets {
        let Some(root) = target.parse::<PinRoot>().ok().filter(is_users) else {
            unknown.push(target.clone());
            continue;
        };
        let known = if request.remove { domain.store.unpin(&root)? > 0 } else { add(domain, &root)? };
        if !known {
            unknown.push(target.clone());
        }
    }
    Ok(api::Pins { unknown, ..list(domain) })
}

/// Whether the user set a pin: the binhost keeps what it lists by one of its own.
fn is_users(root: &PinRoot) -> bool {
    root.as_str() != PIN_ROOT
}

fn add(domain: &Domain, root: &PinRoot) -> Result<bool, IndexError> {
    let Ok(named) = targets::resolve(domain, root.as_str()) else { return Ok(false) };
    let digests: Vec<Digest> = named.iter().map(|target| target.wanted.digest).collect();
    if !digests.is_empty() {
        domain.store.repin(root, &digests)?;
    }
    Ok(!digests.is_empty())
}

/// Looks every pin up again: new distfiles are pinned, those no longer named are let go. A pin that names nothing any
/// more keeps what it had. Blocking.
///
/// # Errors
/// When the store cannot keep them.
pub fn follow(domain: &Domain) -> Result<(), IndexError> {
    let mut pinned: BTreeMap<PinRoot, BTreeSet<Digest>> = BTreeMap::new();
    for pin in domain.store.pins() {
        pinned.entry(pin.root).or_default().insert(pin.digest);
    }
    for (root, old) in pinned {
        let Ok(named) = targets::resolve(domain, root.as_str()) else { continue };
        let new: BTreeSet<Digest> = named.iter().map(|target| target.wanted.digest).collect();
        if new.is_empty() || new == old {
            continue;
        }
        domain.store.repin(&root, &new.into_iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Pinned distfiles that are not here. Blocking.
#[must_use]
pub fn missing(domain: &Domain) -> Vec<Target> {
    let users = domain.store.pins().into_iter().filter(|pin| is_users(&pin.root));
    let digests: BTreeSet<Digest> = users.map(|pin| pin.digest).collect();
    digests.iter().filter(|digest| !domain.store.contains(digest)).map(|digest| domain.target(digest)).collect()
}

/// Obtains what is pinned and not here, one after the other: helping to mirror must not crowd out what the user waits
/// for.
pub async fn fill(domain: Arc<Domain>) {
    let looking = Arc::clone(&domain);
    for target in crate::blocking::run(move || missing(&looking)).await {
        if let Err(error) = domain.obtain(&target).await {
            tracing::info!(name = target.name, %error, "a pinned distfile is not to be had now");
        }
    }
}
