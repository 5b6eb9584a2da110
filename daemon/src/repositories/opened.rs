//! The configured repositories, opened: what each has of its masters, and what beside a package's own files decides about it.

use crate::causes::with_causes;
use crate::config::Config;
use crate::portage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tree::conf::{LeftOut, RepoConf, ReposConf};
use tree::digest::Hasher;
use tree::name::RepoName;
use tree::repo::{EbuildRepo, Stamp};

/// The licence group whose members forbid to hand a distfile on.
const FORBIDDING_GROUP: &str = "EULA";

/// All repositories at one moment.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Those that can be read, foremost first.
    pub(super) trees: Vec<Tree>,
    /// Those that cannot, and why.
    pub(super) broken: Vec<Broken>,
    /// What the configuration has that Portage passes over.
    pub(super) left_out: Vec<LeftOut>,
}

/// A repository that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) path: PathBuf,
    pub(super) problem: String,
}

/// One repository at one moment, with what it has of its masters.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) repo: EbuildRepo,
    /// False when a master could not be read: its licence groups, which forbid, are then not known, so nothing of this
    /// repository is announced.
    pub(super) complete: bool,
    /// What decides about all its packages.
    rules: [u8; 16],
}

impl Opened {
    /// Opens every repository that Portage would read.
    pub(super) fn now(config: &Config) -> Self {
        let mut opened = Self::default();
        let conf = opened.configured(config);
        let mut repos = Vec::new();
        let mut directories = BTreeMap::new();
        let places: Vec<PathBuf> = conf.repos.iter().map(|repo| repo.location.clone()).collect();
        for conf in conf.repos.into_iter().rev() {
            match conf.open(&mut directories) {
                Ok(repo) => repos.push((repo.beside(places.clone()), conf)),
                Err(error) => opened.broken.push(Broken { path: conf.location, problem: with_causes(&error) }),
            }
        }
        opened.left_out = conf.problems;
        let by_name: BTreeMap<RepoName, EbuildRepo> =
            repos.iter().map(|(repo, _)| (repo.name().clone(), repo.clone())).collect();
        opened.trees = repos.into_iter().map(|(repo, conf)| Tree::new(repo, &conf, &by_name)).collect();
        opened
    }

    fn configured(&mut self, config: &Config) -> ReposConf {
        if let Some(paths) = &config.repos {
            for path in paths {
                if let Err(error) = EbuildRepo::open(path) {
                    let problem = with_causes(&error);
                    self.broken.push(Broken { path: path.clone(), problem });
                }
            }
            return ReposConf::parse(&portage::repositories(paths));
        }
        ReposConf::load_in(&config.config_root, &config.repo_variables).unwrap_or_else(|error| {
            let path = config.config_root.join("etc/portage/repos.conf");
            self.broken.push(Broken { path, problem: with_causes(&error) });
            ReposConf::default()
        })
    }
}

impl Tree {
    /// A repository has the licence groups and mirrors of its masters beside its own.
    fn new(mut repo: EbuildRepo, conf: &RepoConf, all: &BTreeMap<RepoName, EbuildRepo>) -> Self {
        let mut complete = conf.has_all_masters;
        for master in conf.masters.iter().filter(|master| **master != conf.name) {
            match all.get(master) {
                Some(master) => repo.inherit(master),
                None => complete = false,
            }
        }
        let mut rules = Hasher::new(false);
        rules.update(&[u8::from(complete)]);
        for licence in repo.license_groups().members(FORBIDDING_GROUP) {
            rules.update(licence.as_bytes());
            rules.update(b" ");
        }
        let (sum, _) = rules.finish();
        let rules = sum.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { repo, complete, rules }
    }

    /// The stamps of packages, with all that decides about them beside their own files: when a master appears, a licence
    /// becomes one that forbids, or an eclass changes that a package inherits, it is read again.
    pub(super) fn stamps(&self) -> Stamps<'_> {
        Stamps { tree: self, known: BTreeMap::new() }
    }
}

/// Makes stamps, and sums up each set of eclasses once.
pub(super) struct Stamps<'a> {
    tree: &'a Tree,
    known: BTreeMap<String, [u8; 16]>,
}

impl Stamps<'_> {
    /// The stamp of a package with these files and eclasses; never all zeros but by a chance of 1 in 2^128.
    pub(super) fn of(&mut self, files: Stamp, inherited: &str) -> [u8; 16] {
        let eclasses = match self.known.get(inherited) {
            Some(known) => *known,
            None => {
                let stamp = self.tree.repo.eclass_stamp(inherited);
                self.known.insert(inherited.to_owned(), stamp);
                stamp
            }
        };
        let mut all = Hasher::new(false);
        [files.0, self.tree.rules, eclasses].iter().for_each(|part| all.update(part));
        let (sum, _) = all.finish();
        sum.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// The last part of a path, for a repository that says no name.
pub(super) fn called(path: &Path) -> String {
    path.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}
