//! From the files and variables to the configured repositories, step by step as Portage's `RepoConfigLoader` does it
//! (`portage/repository/config.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::conf::{LoadMakeConfError, MakeConf};
use crate::ini::{Ini, Options, ParseIniError, Place};
use crate::name::RepoName;
use crate::repos_conf::{LeftOut, LeftOutWhy, Origin, REPOS_MAX, RepoConf, RepoVariables, ReposConf};
use crate::repos_entry::{Entry, real};
use crate::shell_words;

/// Priority of the main repository where none is given.
const MAIN_REPO_PRIORITY: i64 = -1000;
/// A repository of this name may be missing, as before its first synchronisation, and still be the main one.
const GENTOO: &str = "gentoo";

/// The state between the files and their meaning.
pub(crate) struct Loading {
    ini: Ini,
    files: Vec<PathBuf>,
    given: bool,
    defaults: Options,
    main_repo: Option<String>,
    /// Names, aliases and sections, and the entries they mean, in the order in which they came to be.
    names: Vec<String>,
    meanings: BTreeMap<String, usize>,
    entries: Vec<Entry>,
    portdir: PathBuf,
    written: Vec<PathBuf>,
    problems: Vec<LeftOut>,
    void: bool,
}

impl Loading {
    pub(crate) fn new(config_root: &Path) -> Self {
        let root = config_root.to_string_lossy();
        let defaults = [("EPREFIX", ""), ("EROOT", "/"), ("PORTAGE_CONFIGROOT", &root), ("ROOT", "/")];
        Self {
            ini: Ini::new(&[defaults.as_slice(), &[("sync-rsync-extra-opts", "")]].concat()),
            files: Vec::new(),
            given: false,
            defaults: Options::new(),
            main_repo: None,
            names: Vec::new(),
            meanings: BTreeMap::new(),
            entries: Vec::new(),
            portdir: PathBuf::new(),
            written: Vec::new(),
            problems: Vec::new(),
            void: false,
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.given = true;
        self.file(PathBuf::new(), text.as_bytes());
        self.sections();
    }

    /// Reads one file; after a fault no other is read.
    pub(crate) fn file(&mut self, path: PathBuf, bytes: &[u8]) {
        if self.void {
            return;
        }
        // As Python opens a text.
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n");
        self.files.push(path);
        if let Err(fault) = self.ini.read(&text) {
            self.void(fault);
        }
    }

    fn void(&mut self, fault: ParseIniError) {
        let place = match &fault {
            ParseIniError::Reference { section, option } => self.ini.place(section, Some(option)),
            ParseIniError::NoSection { line } | ParseIniError::Syntax { line } | ParseIniError::Twice { line, .. } => {
                Some(Place { file: self.files.len().saturating_sub(1), line: *line })
            }
            ParseIniError::TooMany => None,
        };
        let origin = self.origin(place);
        self.problems.push(LeftOut { origin, section: None, why: LeftOutWhy::Faulty(fault) });
        self.void = true;
        self.ini = Ini::default();
    }

    fn origin(&self, place: Option<Place>) -> Origin {
        if self.given {
            return Origin::Given;
        }
        let file = |index: usize| self.files.get(index).or(self.files.last()).cloned().unwrap_or_default();
        match place {
            Some(place) => Origin::File { path: file(place.file), line: Some(place.line) },
            None => Origin::File { path: file(usize::MAX), line: None },
        }
    }

    fn leave_out(&mut self, index: usize, section: &str, why: LeftOutWhy) {
        let origin = match self.entries.get(index).map(|entry| &entry.origin) {
            Some(origin) => origin.clone(),
            None => self.origin(None),
        };
        let section = (!matches!(origin, Origin::Variable(_))).then(|| section.to_owned());
        self.problems.push(LeftOut { origin, section, why });
    }

    fn set(&mut self, name: &str, entry: Entry) {
        if !self.meanings.contains_key(name) {
            self.names.push(name.to_owned());
        }
        self.meanings.insert(name.to_owned(), self.entries.len());
        self.entries.push(entry);
    }

    fn means(&self, name: &str) -> Option<(usize, &Entry)> {
        let index = *self.meanings.get(name)?;
        Some((index, self.entries.get(index)?))
    }

    fn remove(&mut self, name: &str) {
        self.meanings.remove(name);
        self.names.retain(|known| known != name);
    }

    /// Makes entries of what was read.
    pub(crate) fn sections(&mut self) {
        let sections = match self.ini.sections() {
            Ok(sections) => sections,
            Err(fault) => {
                self.void(fault);
                Vec::new()
            }
        };
        self.main_repo = self.ini.default_value("main-repo");
        for option in ["aliases", "eclass-overrides", "masters"] {
            self.defaults.extend(self.ini.default_value(option).map(|value| (option.to_owned(), value)));
        }
        for (section, options) in sections {
            let place = self.ini.place(&section, Some("location")).or_else(|| self.ini.place(&section, None));
            let origin = self.origin(place);
            if self.entries.len() >= REPOS_MAX {
                self.problems.push(LeftOut { origin, section: Some(section), why: LeftOutWhy::TooMany });
                return;
            }
            self.written.extend(options.get("location").map(|location| PathBuf::from(location.trim())));
            self.set(&section, Entry::new(Some(&section), &options, origin));
        }
    }

    /// PORTDIR and the words of PORTDIR_OVERLAY, of the environment or of make.conf.
    pub(crate) fn variables(&mut self, config_root: &Path, variables: &RepoVariables) {
        let conf = MakeConf::load(config_root).unwrap_or_else(|LoadMakeConfError(error)| {
            let origin = Origin::File { path: config_root.join("etc/portage/make.conf"), line: None };
            let why = LeftOutWhy::MakeConf(crate::package::with_causes(&error));
            self.problems.push(LeftOut { origin, section: None, why });
            MakeConf::default()
        });
        let value = |given: &Option<String>, name: &str| {
            given.clone().or_else(|| conf.get(name).map(str::to_owned)).unwrap_or_default()
        };
        let overlays = value(&variables.portdir_overlay, "PORTDIR_OVERLAY");
        let overlays = shell_words::split(&overlays).unwrap_or_else(|error| {
            let origin = Origin::Variable("PORTDIR_OVERLAY");
            self.problems.push(LeftOut { origin, section: None, why: error.into() });
            Vec::new()
        });
        let portdir = value(&variables.portdir, "PORTDIR");
        self.portdir = real(Path::new(&portdir)).unwrap_or_else(|| PathBuf::from(&portdir));
        self.places(&portdir, &overlays);
    }

    /// Adds PORTDIR and the overlays, which replace sections of the same name.
    fn places(&mut self, portdir: &str, overlays: &[String]) {
        // Options are taken from repos.conf as it was, not from an overlay of the same name.
        let before = (self.meanings.clone(), self.entries.clone());
        let mut base = 0;
        let all = (!portdir.is_empty()).then_some((portdir, true)).into_iter();
        for (place, is_main) in all.chain(overlays.iter().map(|overlay| (overlay.as_str(), false))) {
            self.written.push(PathBuf::from(place));
            let variable = if is_main { "PORTDIR" } else { "PORTDIR_OVERLAY" };
            let mut options = self.defaults.clone();
            options.insert("location".to_owned(), place.to_owned());
            let name = self.main_repo.clone().filter(|_| is_main);
            let mut entry = Entry::new(name.as_deref(), &options, Origin::Variable(variable));
            if self.entries.len() >= REPOS_MAX || !(entry.is_there || (is_main && base == 0)) {
                let why = LeftOutWhy::NotADirectory(PathBuf::from(place));
                self.problems.push(LeftOut { origin: entry.origin, section: None, why });
                continue;
            }
            if let Some(conf) = before.0.get(&entry.name).and_then(|index| before.1.get(*index)) {
                if !conf.aliases.is_empty() {
                    entry.aliases.clone_from(&conf.aliases);
                }
                if !conf.overrides.is_empty() {
                    entry.overrides.clone_from(&conf.overrides);
                }
                entry.masters = conf.masters.clone().or(entry.masters);
                entry.priority = conf.priority.or(entry.priority);
            }
            if let Some((index, old)) = self.means(&entry.name)
                && let Some(location) = old.location.clone().filter(|old| Some(old) != entry.location.as_ref())
            {
                let section = entry.name.clone();
                if location == self.portdir {
                    self.portdir = entry.location.clone().unwrap_or_default();
                }
                self.leave_out(index, &section, LeftOutWhy::Replaced { variable, location });
            }
            let same_as_main = entry.location.as_deref() == real(Path::new(portdir)).as_deref();
            if entry.priority.is_none() && !(base == 0 && (is_main || same_as_main)) {
                entry.priority = Some(base);
                base += 1;
            }
            self.set(&entry.name.clone(), entry);
        }
    }

    /// Takes away what cannot be used, as Portage does before it looks at aliases.
    fn validate(&mut self) {
        for section in self.names.clone() {
            let Some((index, entry)) = self.means(&section) else { continue };
            let Entry { name, location, is_there, aliases, .. } = entry.clone();
            let why = match location {
                None => LeftOutWhy::NoLocation,
                Some(location) if !is_there => {
                    let relative = !location.is_absolute();
                    let why = if relative { LeftOutWhy::Relative } else { LeftOutWhy::NotADirectory };
                    if name == GENTOO && !relative {
                        self.leave_out(index, &section, why(location));
                        continue;
                    }
                    why(location)
                }
                Some(location) if name != section && !aliases.contains(&section) => {
                    LeftOutWhy::OtherName { name, location }
                }
                Some(_) => continue,
            };
            self.leave_out(index, &section, why);
            self.remove(&section);
        }
    }

    /// Gives every repository its name and aliases too; what is taken stays as it is.
    fn add_aliases(&mut self) {
        for section in self.names.clone() {
            let Some((index, entry)) = self.means(&section) else { continue };
            let own = entry.name.clone();
            for name in [vec![own.clone()], entry.aliases()].concat() {
                match self.means(&name) {
                    Some((other, taken)) => {
                        let by = taken.location.clone().unwrap_or_default();
                        // Only without its own name is a repository not there at all.
                        if name == own && other != index {
                            self.leave_out(index, &section, LeftOutWhy::Taken { name, by });
                        }
                    }
                    None => {
                        self.names.push(name.clone());
                        self.meanings.insert(name, index);
                    }
                }
            }
        }
    }

    fn find_main(&mut self) -> Option<usize> {
        if let Some((index, _)) = self.main_repo.as_deref().and_then(|main| self.means(main)) {
            return Some(index);
        }
        if let Some(main) = self.main_repo.clone().filter(|_| !self.void) {
            let origin = self.origin(self.ini.place("DEFAULT", Some("main-repo")));
            self.problems.push(LeftOut { origin, section: None, why: LeftOutWhy::NoMain(main) });
        }
        let at_portdir = |entry: &&Entry| entry.location.as_ref() == Some(&self.portdir);
        if self.portdir.as_os_str().is_empty() {
            return None;
        }
        let names = self.names.iter().filter_map(|name| self.means(name));
        names.filter(|(_, entry)| at_portdir(entry)).map(|(index, _)| index).next_back()
    }

    pub(crate) fn finish(mut self) -> ReposConf {
        self.validate();
        self.add_aliases();
        let main = self.find_main();
        if let Some(main) = main.and_then(|main| self.entries.get_mut(main)) {
            main.priority.get_or_insert(MAIN_REPO_PRIORITY);
        }
        let mut conf = ReposConf::default();
        let main_name = main.and_then(|main| self.entries.get(main)).map(|entry| entry.name.clone());
        conf.main_repo = main_name.as_ref().and_then(|name| name.parse().ok());
        for name in self.names.clone() {
            let Some((index, entry)) = self.means(&name) else { continue };
            if entry.name != name || !entry.is_there {
                continue;
            }
            let entry = entry.clone();
            let location = entry.location.clone().unwrap_or_default();
            match name.parse::<RepoName>() {
                Ok(repo) => {
                    let repo = self.repo(repo, index, &entry, main_name.as_deref());
                    conf.repos.push(repo);
                }
                Err(source) => self.leave_out(index, &name, LeftOutWhy::Name { location, source }),
            }
        }
        conf.repos.sort_by(|left, right| (left.priority, &left.name).cmp(&(right.priority, &right.name)));
        (conf.written, conf.problems) = (self.written, self.problems);
        conf
    }

    /// A repository with its masters found.
    fn repo(&mut self, name: RepoName, index: usize, entry: &Entry, main: Option<&str>) -> RepoConf {
        let location = entry.location.clone().unwrap_or_default();
        let named = match &entry.masters {
            Some(named) => named.clone(),
            None => main.filter(|main| *main != entry.name).map(str::to_owned).into_iter().collect(),
        };
        let (mut masters, mut eclasses_of, mut has_all_masters) = (Vec::new(), Vec::new(), true);
        for master in named {
            let found =
                self.means(&master).and_then(|(_, entry)| Some((entry.name.parse().ok()?, entry.location.clone()?)));
            match found {
                Some((name, location)) => {
                    masters.push(name);
                    eclasses_of.push(location);
                }
                None => {
                    has_all_masters = false;
                    self.leave_out(index, &entry.name, LeftOutWhy::NoMaster(master));
                }
            }
        }
        if !eclasses_of.contains(&location) {
            eclasses_of.push(location.clone());
        }
        let overrides = entry.overrides.iter().filter_map(|name| self.means(name)?.1.location.clone());
        eclasses_of.extend(overrides);
        let (priority, origin) = (entry.priority.unwrap_or(0), entry.origin.clone());
        RepoConf { name, location, priority, masters, has_all_masters, eclasses_of, origin }
    }
}
