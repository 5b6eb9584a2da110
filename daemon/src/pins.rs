//! Pins: what the user keeps and helps to mirror. A pin is a target as typed; what it names is looked up again whenever
//! the repositories, Portage's configuration or the world file change, so that a pinned atom follows new versions and a
//! pinned set what is in it.

use crate::api;
use crate::binhost::{PIN_ROOT, ask};
use crate::blocking;
use crate::domain::{Domain, Target};
use crate::targets::{self, Named};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
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
            row.held_bytes = row.held_bytes.saturating_add(size);
        }
    }
    api::Pins { pins: pins.into_values().collect(), ..api::Pins::default() }
}

/// Adds or removes pins and says how they are then.
///
/// Cancel safe: yes; a part of the targets may be pinned then.
///
/// # Errors
/// When the store cannot keep them.
pub async fn change(domain: &Arc<Domain>, request: &api::PinRequest) -> Result<api::Pins, IndexError> {
    let named = if request.remove { Named::default() } else { targets::resolve(domain, &request.targets).await };
    let (changing, request) = (Arc::clone(domain), request.clone());
    blocking::run(move || {
        let Named { each, left_out, notes, .. } = named;
        let (mut unknown, mut problems) = (Vec::new(), Vec::new());
        if request.remove {
            for target in request.targets {
                let root = target.parse::<PinRoot>().ok().filter(is_users);
                let known = root.map(|root| changing.store.unpin(&root)).transpose()?;
                if known.is_none_or(|removed| removed == 0) {
                    unknown.push(target);
                }
            }
        }
        for (target, found) in each {
            match (target.parse::<PinRoot>().ok().filter(is_users), found) {
                (Some(root), Ok(named)) if !named.is_empty() => changing.store.repin(&root, &digests(&named))?,
                (_, Err(error)) => {
                    let hint = error.hint().map(str::to_owned);
                    problems.push(api::TargetProblem { target: target.clone(), error: error.to_string(), hint });
                    unknown.push(target);
                }
                (root, Ok(_)) => {
                    if root.is_some() {
                        let error = "nothing in it has distfiles now, so there is nothing to keep".to_owned();
                        problems.push(api::TargetProblem { target: target.clone(), error, hint: None });
                    }
                    unknown.push(target);
                }
            }
        }
        Ok(api::Pins { unknown, problems, left_out, notes, ..list(&changing) })
    })
    .await
}

/// Whether the user set a pin: the binhost keeps what it lists by one of its own.
fn is_users(root: &PinRoot) -> bool {
    root.as_str() != PIN_ROOT
}

fn digests(named: &[Target]) -> Vec<Digest> {
    named.iter().map(|target| target.wanted.digest).collect()
}

/// The state of what pins of atoms and sets hang on beside the repositories: Portage's configuration, what was chosen and
/// what is installed.
#[derive(Debug, Default)]
pub struct Followed(Mutex<Option<String>>);

impl Followed {
    /// Whether that is another one than at the last look. Never where there are no such pins. Blocking.
    pub fn differs(&self, domain: &Domain) -> bool {
        let mut users = domain.store.pins().into_iter().filter(|pin| is_users(&pin.root));
        if !users.any(|pin| targets::means_packages(pin.root.as_str())) {
            return false;
        }
        let now = Some(ask::configuration_stamp(domain));
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *last != now;
        *last = now;
        differs
    }
}

/// Looks every pin up again: new distfiles are pinned, those no longer named are let go. A pin that names nothing any
/// more keeps what it had.
///
/// Cancel safe: yes; a part of the pins may have followed then.
///
/// # Errors
/// When the store cannot keep them.
pub async fn follow(domain: &Arc<Domain>) -> Result<(), IndexError> {
    let looking = Arc::clone(domain);
    let pinned = blocking::run(move || {
        let mut pinned: BTreeMap<PinRoot, BTreeSet<Digest>> = BTreeMap::new();
        for pin in looking.store.pins().into_iter().filter(|pin| is_users(&pin.root)) {
            pinned.entry(pin.root).or_default().insert(pin.digest);
        }
        pinned
    })
    .await;
    let roots: Vec<String> = pinned.keys().map(ToString::to_string).collect();
    let named = targets::resolve(domain, &roots).await;
    if named.is_makeshift {
        tracing::info!("Portage does not answer now, so pins keep what they have");
        return Ok(());
    }
    let following = Arc::clone(domain);
    blocking::run(move || {
        // In the same order: the roots are those of the map.
        for ((root, old), (_, found)) in pinned.into_iter().zip(named.each) {
            let new: BTreeSet<Digest> = digests(&found.unwrap_or_default()).into_iter().collect();
            // One that was removed meanwhile stays so.
            let is_there = || following.store.pins().iter().any(|pin| pin.root == root);
            if !new.is_empty() && new != old && is_there() {
                following.store.repin(&root, &new.into_iter().collect::<Vec<_>>())?;
            }
        }
        Ok(())
    })
    .await
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
    for target in blocking::run(move || missing(&looking)).await {
        if let Err(error) = domain.obtain(&target).await {
            tracing::info!(name = target.name, %error, "a pinned distfile is not to be had now");
        }
    }
}
