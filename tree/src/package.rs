//! What the ebuilds of one package say together about its distfiles: where they are, and with whom they may be shared.

use std::collections::{BTreeMap, BTreeSet};

use crate::cpv::Cp;
use crate::distfile::Distfile;
use crate::eclass::ANY;
use crate::license::{License, LicenseGroups};
use crate::manifest::Manifest;
use crate::mdcache::MdEntry;
use crate::name::DistfileName;
use crate::restrict::Restrict;
use crate::uri::{Exempt, SrcEntry, SrcUri};

/// Problems that a package tells of; further ones are dropped.
pub const PROBLEMS_MAX: usize = 64;
/// Sources of one distfile; further ones are dropped.
pub const SOURCES_MAX: usize = 256;
/// Bytes of the names of a package's eclasses; with more, any eclass counts as inherited.
pub const INHERITED_BYTES_MAX: usize = 64 << 10;
/// Characters of one problem's text.
const PROBLEM_CHARS_MAX: usize = 400;

/// With whom a distfile may be shared, and who may be asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Gentoo's mirrors may be asked. True where no ebuild names the file, for then nothing forbids it.
    pub mirror: bool,
    /// The hosts of SRC_URI may be asked automatically: false under RESTRICT=fetch without `fetch+` or `mirror+`.
    pub fetch: bool,
    /// Peers may be told that it is here. True only if at least one ebuild names the file, every ebuild that names it allows
    /// it, and all ebuilds of the package could be read: RESTRICT has neither `mirror` nor `fetch`, or the entry is
    /// exempted by `mirror+`; and the licence may be redistributed.
    pub announce: bool,
}

/// A distfile of a package, with all that its ebuilds say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageDistfile {
    /// Its name, size and digests.
    pub distfile: Distfile,
    /// Its entries in SRC_URI, each once, at most [`SOURCES_MAX`]. Where `sharing.fetch` holds, only those that may be asked automatically.
    pub sources: Vec<SrcEntry>,
    /// With whom it may be shared.
    pub sharing: Sharing,
    /// The ebuilds that name it, as `PF` (`openssl-3.5.1-r1`).
    pub ebuilds: Vec<String>,
}

/// A package of a repository, with its distfiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Category and name.
    pub cp: Cp,
    /// The distfiles of its Manifest, in its order.
    pub entries: Vec<PackageDistfile>,
    /// What was wrong, for people; at most [`PROBLEMS_MAX`].
    pub problems: Vec<String>,
    /// The ebuilds, as `PF`, whose metadata is not known: they have no md5-cache entry that belongs to them, and none was given.
    pub without_metadata: Vec<String>,
    /// How many of these have an entry that was made from another ebuild or eclass, or that cannot be read.
    pub stale: usize,
    /// The eclasses that its ebuilds inherit, each once, parted by spaces; [`ANY`] where that is not known of all.
    pub inherited: String,
}

/// What is known of one ebuild's metadata.
#[derive(Debug, Clone)]
pub(crate) enum Metadata {
    /// Read.
    Known(Box<MdEntry>),
    /// Not there.
    Missing,
    /// There, and made from another ebuild or other eclasses.
    Stale,
    /// There, and unreadable.
    Broken(String),
}

/// What the ebuilds seen so far say about one distfile.
#[derive(Default)]
struct Named {
    ebuilds: Vec<String>,
    allowed_sources: Vec<SrcEntry>,
    forbidden_sources: Vec<SrcEntry>,
    mirror: bool,
    fetch: bool,
    announce_forbidden: bool,
}

/// One ebuild's words about its files.
struct Terms {
    restrict: Restrict,
    redistributable: bool,
}

impl Terms {
    fn may_fetch(&self, entry: &SrcEntry) -> bool {
        !self.restrict.fetch || entry.exempt != Exempt::None
    }

    fn may_mirror(&self, entry: &SrcEntry) -> bool {
        (!self.restrict.fetch && !self.restrict.mirror) || entry.exempt == Exempt::Mirror
    }
}

impl Package {
    /// Puts a Manifest and the metadata of the package's ebuilds together.
    pub(crate) fn assemble(
        cp: Cp,
        manifest: Manifest,
        metadata: &[(String, Metadata)],
        groups: &LicenseGroups,
    ) -> Self {
        let mut problems = Problems::default();
        for skipped in &manifest.skipped {
            problems.add(format!("Manifest line {}: {}", skipped.line, skipped.reason));
        }
        let mut named: BTreeMap<DistfileName, Named> = BTreeMap::new();
        let (mut without_metadata, mut stale) = (Vec::new(), 0);
        let mut inherited = BTreeSet::new();
        let mut unreadable = false;
        for (pf, metadata) in metadata {
            match metadata {
                Metadata::Known(entry) => {
                    inherited.extend(entry.names_of_eclasses());
                    match SrcUri::parse(&entry.src_uri) {
                        Ok(src_uri) => take_ebuild(&mut named, pf, &src_uri, entry, groups),
                        Err(error) => {
                            unreadable = true;
                            problems.add(format!("SRC_URI of {pf}: {}", with_causes(&error)));
                        }
                    }
                }
                Metadata::Missing => without_metadata.push(pf.clone()),
                Metadata::Stale => {
                    stale += 1;
                    without_metadata.push(pf.clone());
                }
                Metadata::Broken(reason) => {
                    stale += 1;
                    without_metadata.push(pf.clone());
                    problems.add(format!("md5-cache entry of {pf}: {reason}"));
                }
            }
        }
        // An ebuild that nobody could read may name any file of the Manifest, and forbid it.
        let all_known = without_metadata.is_empty();
        let all_read = !unreadable && all_known;
        let entries = manifest
            .distfiles
            .into_iter()
            .map(|distfile| match named.remove(&distfile.name) {
                Some(named) => named.finish(distfile, all_read),
                None => PackageDistfile {
                    distfile,
                    sources: Vec::new(),
                    sharing: Sharing { mirror: true, fetch: false, announce: false },
                    ebuilds: Vec::new(),
                },
            })
            .collect();
        let names = inherited.into_iter().collect::<Vec<_>>().join(" ");
        let inherited = if all_known && names.len() <= INHERITED_BYTES_MAX { names } else { ANY.to_owned() };
        Self { cp, entries, problems: problems.0, without_metadata, stale, inherited }
    }
}

fn take_ebuild(
    named: &mut BTreeMap<DistfileName, Named>,
    pf: &str,
    src_uri: &SrcUri,
    entry: &MdEntry,
    groups: &LicenseGroups,
) {
    let terms = Terms {
        restrict: Restrict::parse(&entry.restrict),
        redistributable: License::new(&entry.license).may_redistribute(groups),
    };
    for source in src_uri.iter() {
        let named = named.entry(source.name.clone()).or_default();
        if named.ebuilds.last().is_none_or(|last| last != pf) {
            named.ebuilds.push(pf.to_owned());
        }
        let (may_fetch, may_mirror) = (terms.may_fetch(source), terms.may_mirror(source));
        named.fetch |= may_fetch;
        named.mirror |= may_mirror;
        named.announce_forbidden |= !may_mirror || !terms.redistributable;
        let sources = if may_fetch { &mut named.allowed_sources } else { &mut named.forbidden_sources };
        if sources.len() < SOURCES_MAX && !sources.contains(source) {
            sources.push(source.clone());
        }
    }
}

impl Named {
    fn finish(self, distfile: Distfile, all_read: bool) -> PackageDistfile {
        PackageDistfile {
            distfile,
            sources: if self.fetch { self.allowed_sources } else { self.forbidden_sources },
            sharing: Sharing { mirror: self.mirror, fetch: self.fetch, announce: all_read && !self.announce_forbidden },
            ebuilds: self.ebuilds,
        }
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(problem.chars().take(PROBLEM_CHARS_MAX).collect());
        }
    }
}

/// An error's text with those of its causes behind it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
