//! What a user may name: a distfile, a digest, a CID, an atom or a set, and the distfiles that means.
//!
//! Names and digests are looked up in the catalog. Which ebuild an atom means, and which atoms a set has, is Portage's to
//! say: keywords, masks, slots, USE dependencies, the profile and every kind of set are its business. So it is asked
//! ([`portage`]): once for all targets of a request, in the sandbox, which takes about half a second. Where it cannot be
//! asked, or has no profile to judge by (a mirror that is no Gentoo machine), [`reader`] reads what it can itself, and the
//! answer says so. A line of a set that means nothing is left out, as Portage does, and told with its file, line and reason.

mod portage;
mod reader;

use crate::api::LeftOut;
use crate::blocking;
use crate::domain::{Domain, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::CatalogEntry;
use tree::atom::Atom;
use tree::cid;
use tree::cpv::Cpv;
use tree::name::DistfileName;

/// Why a target names nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is spelled like nothing that can be named.
    #[error("{target:?} is no distfile name, digest, CID, atom or set: {why}")]
    Malformed {
        /// As typed.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// No Manifest names such a distfile.
    #[error("no Manifest of a repository here names the distfile {target:?}")]
    UnknownDistfile {
        /// As typed.
        target: String,
    },
    /// No ebuild is meant.
    #[error("{target:?} means nothing here: {why}")]
    UnknownAtom {
        /// As typed.
        target: String,
        /// Why.
        why: String,
    },
    /// The ebuild has none.
    #[error("{package} has no distfiles")]
    NoDistfiles {
        /// The ebuild.
        package: String,
    },
    /// There is no such set, or nobody who knows it.
    #[error("the set {target} means nothing here: {why}")]
    Set {
        /// As typed.
        target: String,
        /// Why.
        why: String,
    },
}

impl TargetError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { .. } => Some("an atom names its category, as in app-misc/hello or =app-misc/hello-1.0"),
            Self::UnknownAtom { why, .. } if why.contains("masked") => Some(
                "accept it as for emerge, in /etc/portage/package.accept_keywords, package.unmask or package.license",
            ),
            Self::UnknownDistfile { .. } | Self::UnknownAtom { .. } => {
                Some("sync the repository that has it; peer status lists the repositories this node reads")
            }
            Self::NoDistfiles { .. } => None,
            Self::Set { .. } => Some("`emerge --list-sets` lists those that Portage knows"),
        }
    }
}

/// One ebuild that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    cpv: Cpv,
    /// The repository it is taken from.
    repo: String,
}

/// What an atom or a set means.
#[derive(Clone, Debug, Default)]
struct Meaning {
    packages: Vec<Chosen>,
    left_out: Vec<LeftOut>,
    /// What is to be known of what was taken.
    notes: Vec<String>,
    /// Why it means nothing.
    nothing: Option<String>,
}

/// What some targets name.
#[derive(Debug, Default)]
pub struct Named {
    /// Of each target, as typed and in that order, the distfiles or why there are none.
    pub each: Vec<(String, Result<Vec<Target>, TargetError>)>,
    /// Lines of sets that mean nothing.
    pub left_out: Vec<LeftOut>,
    /// What else is to be known of the answer.
    pub notes: Vec<String>,
    /// True when Portage did not answer, though it had answered before: a later answer will be a better one.
    pub is_makeshift: bool,
}

/// The distfiles that targets name now.
///
/// Cancel safe: yes.
pub async fn resolve(domain: &Arc<Domain>, texts: &[String]) -> Named {
    let asked: BTreeSet<String> = texts.iter().filter(|text| means_packages(text)).cloned().collect();
    let asked: Vec<String> = asked.into_iter().collect();
    let mut named = Named::default();
    let meanings = meanings(domain, asked, &mut named).await;
    let (looking, texts) = (Arc::clone(domain), texts.to_vec());
    blocking::run(move || {
        if meanings.values().flat_map(|meaning| &meaning.packages).any(|chosen| entries(&looking, chosen).is_empty()) {
            // Portage sees an ebuild as soon as it is there.
            looking.refresh_eagerly();
        }
        for text in texts {
            let found = one(&looking, &text, meanings.get(&text));
            named.each.push((text, found));
        }
        for meaning in meanings.into_values() {
            named.left_out.extend(meaning.left_out);
            named.notes.extend(meaning.notes);
        }
        named
    })
    .await
}

/// Whether a text is an atom or a set, for which the repositories and Portage's configuration count.
#[must_use]
pub fn means_packages(text: &str) -> bool {
    text.starts_with('@') || (text.contains('/') && text.parse::<Atom>().is_ok())
}

/// What each of the atoms and sets means: as Portage says, else as can be read without it, which is noted.
async fn meanings(domain: &Arc<Domain>, asked: Vec<String>, named: &mut Named) -> BTreeMap<String, Meaning> {
    if asked.is_empty() {
        return BTreeMap::new();
    }
    let error = match portage::ask(domain, &asked).await {
        Ok(meanings) => {
            domain.questions.portage_answers.store(true, Ordering::Relaxed);
            return asked.into_iter().zip(meanings).collect();
        }
        Err(error) => error,
    };
    tracing::info!(%error, "atoms and sets are read without Portage");
    named.is_makeshift = domain.questions.portage_answers.load(Ordering::Relaxed);
    named.notes.push(format!(
        "read without Portage, by version and slot only, whatever is masked or keyworded: {error}; `peer doctor` says more"
    ));
    let (looking, why) = (Arc::clone(domain), error.to_string());
    blocking::run(move || {
        let read = |text: String| {
            let meaning = reader::read(&looking, &text, &why);
            (text, meaning)
        };
        asked.into_iter().map(read).collect()
    })
    .await
}

fn one(domain: &Domain, text: &str, meaning: Option<&Meaning>) -> Result<Vec<Target>, TargetError> {
    if let Some(meaning) = meaning {
        return of_packages(domain, text, meaning);
    }
    if let Some(digest) = text.parse().ok().or_else(|| cid::from_cid(text).ok()) {
        return Ok(vec![domain.target(&digest)]);
    }
    let malformed = |why: String| TargetError::Malformed { target: clipped(text), why };
    if text.contains('/') {
        let why = text.parse::<Atom>().err().map(|error| error.to_string());
        return Err(malformed(why.unwrap_or_else(|| "Portage was not asked".to_owned())));
    }
    let name: DistfileName = text.parse().map_err(|error: tree::name::ParseNameError| malformed(error.to_string()))?;
    let known = domain.by_name(name.as_ref());
    known.map(|target| vec![target]).ok_or_else(|| TargetError::UnknownDistfile { target: clipped(text) })
}

fn of_packages(domain: &Domain, text: &str, meaning: &Meaning) -> Result<Vec<Target>, TargetError> {
    let is_set = text.starts_with('@');
    if let Some(why) = &meaning.nothing {
        let (target, why) = (clipped(text), why.clone());
        return Err(if is_set { TargetError::Set { target, why } } else { TargetError::UnknownAtom { target, why } });
    }
    let entries = meaning.packages.iter().flat_map(|chosen| entries(domain, chosen));
    let found: BTreeMap<_, Target> = entries.map(|entry| (entry.digest, domain.target(&entry.digest))).collect();
    match meaning.packages.as_slice() {
        // Packages without distfiles are normal in a set.
        [only] if found.is_empty() && !is_set => {
            Err(TargetError::NoDistfiles { package: format!("{}::{}", only.cpv, only.repo) })
        }
        _ => Ok(found.into_values().collect()),
    }
}

/// The catalog's rows of an ebuild.
fn entries(domain: &Domain, chosen: &Chosen) -> Vec<CatalogEntry> {
    let mut rows = domain.store.catalog().by_package(Some(&chosen.repo), &chosen.cpv.cp.to_string());
    let category = &chosen.cpv.cp.category;
    rows.retain(|row| row.ebuilds.iter().any(|pf| Cpv::from_pf(category, pf).is_ok_and(|cpv| cpv == chosen.cpv)));
    rows
}

/// What is quoted back to a user of what they typed.
fn clipped(text: &str) -> String {
    text.chars().take(200).collect()
}
