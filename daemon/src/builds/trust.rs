//! Whose claims count, and for what. By default nobody's: being near, known or fast gives no authority.
//!
//! Two ways there are: a key that the user lists, for the packages named with it; and the role `sign` in a group that this machine's user
//! joined or founded, for any package. Who is blocked here counts for nothing.

use crate::api_builds::TrustedKey;
use crate::group::{Groups, Role};
use crate::stats::now_s;
use crate::swarm::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use store::{IndexError, RowError, RowTable, Store};
use tree::atom::Atom;
use tree::cpv::{Cp, Cpv};

/// Keys one machine trusts; a user lists them by hand.
const KEYS_MAX: usize = 1000;
/// Atoms of one key.
const PACKAGES_MAX: usize = 1000;
/// The form written here.
const VERSION: u8 = 1;

/// What a key may build for this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// `*/*`
    Anything,
    /// `category/*`
    Category(String),
    /// An atom.
    Packages(Box<Atom>),
}

/// Why trust was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not the name of a node.
    #[error("{text:?} is no peer id; `peer status` on the other machine prints its own")]
    Key {
        /// As given.
        text: String,
    },
    /// Not an atom.
    #[error("{text:?} says no packages: {why}; expected an atom, `category/*`, or `*/*` for anything")]
    Packages {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Trust without packages is a mistake.
    #[error("no packages were named: say which the key may build, or `*/*` for anything")]
    Nothing,
    /// More than anybody lists.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The store.
    #[error("cannot keep the trusted keys")]
    Store(#[from] RowError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    v: u8,
    packages: Vec<String>,
    since: u64,
}

/// The keys of this machine's user, kept in the store.
#[derive(Debug)]
pub struct Trust {
    store: Store,
    groups: Arc<Groups>,
    keys: RwLock<BTreeMap<PeerId, (Vec<Scope>, TrustedKey)>>,
}

impl Trust {
    /// Reads what is kept. A row that cannot be read trusts nobody. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: &Store, groups: Arc<Groups>) -> Result<Self, IndexError> {
        let mut keys = BTreeMap::new();
        for (key, value) in store.rows(RowTable::Trust, b"", None, KEYS_MAX)? {
            let text = String::from_utf8_lossy(&key).into_owned();
            let row: Option<Row> = serde_ipld_dagcbor::from_slice(&value).ok().filter(|row: &Row| row.v == VERSION);
            let (Ok(peer), Some(row)) = (text.parse::<PeerId>(), row) else {
                tracing::warn!(key = text, "a row of trust cannot be read and counts for nothing");
                continue;
            };
            let scopes = row.packages.iter().filter_map(|text| scope(text).ok()).collect();
            keys.insert(peer, (scopes, TrustedKey { key: text, packages: row.packages, since: row.since }));
        }
        Ok(Self { store: store.clone(), groups, keys: RwLock::new(keys) })
    }

    /// Whether claims of this builder count for this package.
    #[must_use]
    pub fn counts(&self, builder: &PeerId, cpv: &Cpv, slot: &str) -> bool {
        if self.groups.is_blocked(builder) {
            return false;
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let listed = keys.get(builder).is_some_and(|(scopes, _)| scopes.iter().any(|scope| scope.covers(cpv, slot)));
        listed || self.groups.role(builder) == Some(Role::Sign)
    }

    /// Whether the user listed this key, for whatever packages, and did not block it.
    #[must_use]
    pub fn is_trusted(&self, peer: &PeerId) -> bool {
        self.packages(peer).is_some() && !self.groups.is_blocked(peer)
    }

    /// For which packages the user listed a key.
    #[must_use]
    pub fn packages(&self, peer: &PeerId) -> Option<Vec<String>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(peer).map(|(_, key)| key.packages.clone())
    }

    /// What of a key's list is about a package, of whatever version.
    #[must_use]
    pub fn covering(&self, peer: &PeerId, cp: &Cp) -> Vec<String> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let Some((_, key)) = keys.get(peer) else { return Vec::new() };
        let about = |text: &&String| scope(text).is_ok_and(|scope| scope.is_about(cp));
        key.packages.iter().filter(about).cloned().collect()
    }

    /// The builders that count for this package.
    #[must_use]
    pub fn builders(&self, cpv: &Cpv, slot: &str) -> Vec<PeerId> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let covers = |scopes: &[Scope]| scopes.iter().any(|scope| scope.covers(cpv, slot));
        let mut builders: Vec<PeerId> =
            keys.iter().filter(|(_, (scopes, _))| covers(scopes)).map(|(peer, _)| *peer).collect();
        drop(keys);
        builders.retain(|peer| !self.groups.is_blocked(peer));
        for member in self.groups.members().into_iter().filter(|member| member.role == Role::Sign) {
            if !builders.contains(&member.peer) {
                builders.push(member.peer);
            }
        }
        builders
    }

    /// All keys.
    #[must_use]
    pub fn list(&self) -> Vec<TrustedKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().map(|(_, key)| key.clone()).collect()
    }

    /// Trusts a key for these packages and no others, whatever was said of it before. Blocking.
    ///
    /// # Errors
    /// When key or packages are not what they should be, or cannot be kept.
    pub fn set(&self, key: &str, packages: &[String]) -> Result<(), TrustError> {
        let peer: PeerId = key.parse().map_err(|_| TrustError::Key { text: short(key) })?;
        if packages.is_empty() {
            return Err(TrustError::Nothing);
        }
        if packages.len() > PACKAGES_MAX {
            return Err(TrustError::TooMany { what: "atoms", max: PACKAGES_MAX });
        }
        let scopes = packages.iter().map(|text| scope(text)).collect::<Result<Vec<_>, _>>()?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX && !keys.contains_key(&peer) {
            return Err(TrustError::TooMany { what: "keys", max: KEYS_MAX });
        }
        let since = now_s();
        let row = Row { v: VERSION, packages: packages.to_vec(), since };
        let value = serde_ipld_dagcbor::to_vec(&row).expect("text and numbers always have a DAG-CBOR form");
        let text = peer.to_string();
        self.store.put_row(RowTable::Trust, text.as_bytes(), &value)?;
        keys.insert(peer, (scopes, TrustedKey { key: text, packages: packages.to_vec(), since }));
        Ok(())
    }

    /// Trusts a key no longer; false when it was not trusted. Blocking.
    ///
    /// # Errors
    /// When the text is no key, or the change cannot be kept.
    pub fn remove(&self, key: &str) -> Result<bool, TrustError> {
        let peer: PeerId = key.parse().map_err(|_| TrustError::Key { text: short(key) })?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains_key(&peer) {
            return Ok(false);
        }
        self.store.delete_row(RowTable::Trust, peer.to_string().as_bytes())?;
        keys.remove(&peer);
        Ok(true)
    }
}

impl Scope {
    fn is_about(&self, cp: &Cp) -> bool {
        match self {
            Self::Anything => true,
            Self::Category(category) => cp.category.as_str() == category,
            Self::Packages(atom) => atom.cp == *cp,
        }
    }

    fn covers(&self, cpv: &Cpv, slot: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Category(category) => cpv.cp.category.as_str() == category,
            Self::Packages(atom) => atom.matches(cpv, Some(slot)),
        }
    }
}

fn scope(text: &str) -> Result<Scope, TrustError> {
    let wrong = |why: String| TrustError::Packages { text: short(text), why };
    if text == "*/*" {
        return Ok(Scope::Anything);
    }
    if let Some(category) = text.strip_suffix("/*") {
        let category: tree::name::Category = category.parse().map_err(|_| wrong("no such category".to_owned()))?;
        return Ok(Scope::Category(category.as_str().to_owned()));
    }
    let atom: Atom = text.parse().map_err(|error: tree::atom::ParseAtomError| wrong(error.to_string()))?;
    if atom.repo.is_some() || !atom.use_dependencies.is_empty() {
        // Passing over a part of it would trust for more than was meant.
        return Err(wrong("a repository or USE flags cannot limit trust".to_owned()));
    }
    Ok(Scope::Packages(Box::new(atom)))
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::Identity;
    use std::time::Duration;

    #[test]
    fn the_role_sign_counts_for_anything_and_a_listed_key_for_what_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        let groups = Arc::new(Groups::open(&store, Identity::generate()).unwrap());
        let trust = Trust::open(&store, Arc::clone(&groups)).unwrap();
        let joined = |role| {
            let peer = Identity::generate().peer_id();
            let (ticket, _) = groups.invite(role, Duration::from_secs(60), None, &[]).unwrap();
            groups.admit(&peer, &ticket.secret, role.as_str()).unwrap();
            peer
        };
        let [fetch, build, sign] = [Role::Fetch, Role::Build, Role::Sign].map(joined);
        let listed = Identity::generate().peer_id();
        trust.set(&listed.to_string(), &["dev-libs/foo".to_owned()]).unwrap();
        let cpv = |text: &str| text.parse::<Cpv>().unwrap();
        let counting = |text: &str| {
            let mut all = trust.builders(&cpv(text), "0");
            for peer in [fetch, build, sign, listed] {
                assert_eq!(all.contains(&peer), trust.counts(&peer, &cpv(text), "0"), "{text}");
            }
            all.sort_unstable();
            all
        };
        let mut both = vec![sign, listed];
        both.sort_unstable();
        assert_eq!(counting("dev-libs/foo-1"), both);
        assert_eq!(counting("dev-libs/bar-1"), [sign]);
        assert_eq!(trust.covering(&listed, &cpv("dev-libs/foo-9").cp), ["dev-libs/foo"]);
        assert!(trust.covering(&listed, &cpv("dev-libs/bar-9").cp).is_empty());
        groups.block(&listed).unwrap();
        groups.block(&sign).unwrap();
        assert!(counting("dev-libs/foo-1").is_empty() && !trust.is_trusted(&listed));
        groups.unblock(&sign).unwrap();
        groups.revoke(&sign).unwrap();
        assert!(counting("dev-libs/foo-1").is_empty());
    }
}
