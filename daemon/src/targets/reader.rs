//! What can be read of atoms and sets without Portage: the newest version with keywords in the slot and repository that is
//! named, whatever is masked; the world file, world_sets, `/etc/portage/sets` and the names of what is installed. The rest
//! (the profile's sets, sets.conf, sets that look at what is installed) is left out and told.

use super::{Chosen, Meaning};
use crate::api::LeftOut;
use crate::domain::Domain;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use tree::atom::Atom;
use tree::cpv::Cpv;
use tree::repo::{EbuildRepo, Found};
use tree::set::{Items, SetFile};

/// Sets that one set may lead to.
const SETS_MAX: usize = 1000;
/// Packages that may be installed.
const INSTALLED_MAX: usize = 100_000;
/// A SLOT.
const SLOT_BYTES_MAX: u64 = 1024;

/// What one atom or set means; `why` Portage cannot say it. Blocking.
pub(super) fn read(domain: &Domain, target: &str, why: &str) -> Meaning {
    let repos: Vec<EbuildRepo> =
        domain.repositories.list().iter().filter_map(|repo| EbuildRepo::open(Path::new(&repo.path)).ok()).collect();
    let mut reading = Reading {
        root: &domain.config.config_root,
        repos: &repos,
        target,
        why,
        seen: BTreeSet::new(),
        meaning: Meaning::default(),
    };
    match target.strip_prefix('@') {
        Some(set) => {
            if !reading.set(set) {
                let known = "@selected, @installed and the files of /etc/portage/sets can be read without it";
                reading.meaning.nothing = Some(format!("only Portage knows it ({known}): {why}"));
            }
        }
        None => match target.parse() {
            Ok(atom) if reading.atom(&atom) => {}
            Ok(_) => reading.meaning.nothing = Some("no ebuild of a repository here matches".to_owned()),
            Err(error) => reading.meaning.nothing = Some(error.to_string()),
        },
    }
    reading.meaning
}

struct Reading<'a> {
    root: &'a Path,
    /// The foremost first.
    repos: &'a [EbuildRepo],
    target: &'a str,
    why: &'a str,
    seen: BTreeSet<String>,
    meaning: Meaning,
}

impl Reading<'_> {
    /// Adds the ebuild that an atom means; false when there is none.
    fn atom(&mut self, atom: &Atom) -> bool {
        let mut best: Option<(bool, Found, &EbuildRepo)> = None;
        for repo in self.repos {
            for found in repo.find(atom).unwrap_or_default() {
                // What nobody keyworded is live or not ready: only if there is nothing else.
                let keyworded = found.keywords.as_deref().is_none_or(|words| !words.trim().is_empty());
                let better = best
                    .as_ref()
                    .is_none_or(|(other, than, _)| (keyworded, &found.cpv.version) > (*other, &than.cpv.version));
                if better {
                    best = Some((keyworded, found, repo));
                }
            }
        }
        let Some((_, found, repo)) = best else { return false };
        let chosen = Chosen { cpv: found.cpv, repo: repo.name().to_string() };
        if !self.meaning.packages.contains(&chosen) {
            self.meaning.packages.push(chosen);
        }
        true
    }

    /// Adds what a set has; false when it is not known.
    fn set(&mut self, name: &str) -> bool {
        if self.seen.len() >= SETS_MAX || !self.seen.insert(name.to_owned()) {
            return true;
        }
        let chosen = self.root.join("var/lib/portage");
        match name {
            "world" => {
                for part in ["profile", "selected", "system"] {
                    if !self.set(part) {
                        self.leave_out(None, None, &format!("@{part}"), self.why);
                    }
                }
                true
            }
            "selected" => ["selected-packages", "selected-sets"].iter().all(|part| self.set(part)),
            "selected-packages" => self.file(&chosen.join("world"), Items::Atoms, true),
            "selected-sets" => self.file(&chosen.join("world_sets"), Items::Sets, true),
            "installed" => {
                self.installed();
                true
            }
            _ => {
                let dir = self.root.join("etc/portage/sets");
                is_name(name) && dir.join(name).is_file() && self.file(&dir.join(name), Items::Both, false)
            }
        }
    }

    fn file(&mut self, path: &Path, items: Items, may_lack: bool) -> bool {
        let place = path.display().to_string();
        let file = match SetFile::read(path, items) {
            Ok(file) => file,
            Err(error) => {
                if !(may_lack && error.is_missing()) {
                    self.leave_out(Some(&place), None, "", &crate::builds::with_causes(&error));
                }
                return true;
            }
        };
        for line in file.left_out {
            self.leave_out(Some(&place), Some(line.line), &line.text, &line.why.to_string());
        }
        for item in file.atoms {
            if !self.atom(&item.value) {
                let why = "no ebuild of a repository here matches";
                self.leave_out(Some(&place), Some(item.line), &item.text, why);
            }
        }
        for item in file.sets {
            if !self.set(&item.value) {
                let why = format!("only Portage can know that set: {}", self.why);
                self.leave_out(Some(&place), Some(item.line), &item.text, &why);
            }
        }
        true
    }

    /// What is installed, each package by its slot.
    fn installed(&mut self) {
        let mut atoms = BTreeSet::new();
        for (category, path) in entries(&self.root.join("var/db/pkg")) {
            let Ok(category) = category.parse() else { continue };
            for (pf, path) in entries(&path) {
                // Entries that begin with a dash are half merged.
                let Ok(cpv) = Cpv::from_pf(&category, &pf) else { continue };
                let slot = slot(&path);
                let slot = slot.split('/').next().unwrap_or("0");
                if atoms.len() < INSTALLED_MAX {
                    atoms.insert(format!("{}:{slot}", cpv.cp));
                }
            }
        }
        for text in atoms {
            let found = text.parse().is_ok_and(|atom| self.atom(&atom));
            if !found {
                self.leave_out(None, None, &text, "no ebuild of a repository here matches");
            }
        }
    }

    fn leave_out(&mut self, file: Option<&str>, line: Option<u64>, text: &str, why: &str) {
        self.meaning.left_out.push(LeftOut {
            target: self.target.to_owned(),
            file: file.map(str::to_owned),
            line,
            text: text.to_owned(),
            why: why.to_owned(),
        });
    }
}

/// Whether Portage makes a set of a file of this name below `/etc/portage/sets`.
fn is_name(name: &str) -> bool {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let hidden = name.split('/').any(|part| part.starts_with('.') || part.ends_with('~') || part.is_empty());
    plain && !hidden && !name.ends_with(".metadata")
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

fn slot(entry: &Path) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(entry.join("SLOT")).and_then(|file| file.take(SLOT_BYTES_MAX).read_to_string(&mut text));
    if read.is_ok() { text.trim().to_owned() } else { "0".to_owned() }
}
