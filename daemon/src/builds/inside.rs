//! What Portage sees inside the sandbox: which of this machine, under which path, with which environment.
//!
//! The rule is *the same path inside as outside* for everything Portage's configuration names, so that profiles, links
//! and repositories mean the same. Distfiles, packages and work have Portage's usual places. The environment says what
//! must not follow the user's make.conf: where things are, and that walls, fetching and signing are not Portage's here.

use super::foreign::Foreign;
use super::reach::{Asked, ETC, Reach};
use crate::config::Config;
use crate::config_build::BuildConfig;
use crate::portage;
use sandbox::{Bind, Identity, Limits, Link, Policy, Root, Scratch};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the sources are, inside.
const DISTDIR: &str = "/var/cache/distfiles";
/// Where packages go, inside.
const PKGDIR: &str = "/var/cache/binpkgs";
/// Where packages of build dependencies are, inside.
pub(super) const DEPENDENCIES: &str = "/var/cache/dependencies";
/// Where a layer is made, inside.
const LAYER: &str = "/var/tmp/layer";
/// A bashrc of the node, inside; used where there is one user number.
pub(super) const BASHRC: &str = "/var/tmp/peer/bashrc";
/// Where Portage works, inside.
const WORK: &str = "/var/tmp/portage";
/// What the user chose to have, below the root: sets and the world file.
const CHOSEN: &str = "var/lib/portage";
/// Where Portage writes besides, and nobody reads it afterwards: it locks beside the database of what is installed, which
/// is laid over the first of these, as root and layers have it.
const SCRATCH: [&str; 3] = ["/var/db", "/var/cache/edb", "/var/log/portage"];
/// Bytes of each of those.
const SCRATCH_BYTES: u64 = 256 << 20;
/// Names of the variables in the recipe that is built, for variables.py; it asks for them where the configuration is another
/// machine's.
const OF_RECIPE: &str = "PEERAGE_RECIPE";
/// What Portage reads below the root of its configuration; with another ROOT than `/` it reads it below `/` too.
const READ_OF_ROOT: [&str; 3] = [ETC, "etc/make.conf", "etc/make.profile"];

/// Builds of this machine's configuration.
#[derive(Clone, Debug)]
pub struct Inside {
    path: OsString,
    config_root: PathBuf,
    root: Root,
    binds: Vec<Bind>,
    links: Vec<Link>,
    hidden: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    repositories: Option<String>,
    /// Variables that reach an ebuild besides those that Portage, the profile or variables.py knows.
    variables: Vec<String>,
    /// Whether the configuration is another machine's.
    foreign: bool,
    /// Variables that the recipe of its package names; the only ones that an ebuild gets of that configuration.
    named: Vec<String>,
    identity: Identity,
    limits: Limits,
}

/// Whose `/etc/portage` is seen, and which ebuilds it is for.
struct Configuration {
    root: PathBuf,
    reach: Reach,
    repositories: Option<String>,
    variables: Vec<String>,
    foreign: bool,
    named: Vec<String>,
}

/// The directories of one build on this machine.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Its sources, by name.
    pub distfiles: PathBuf,
    /// Where the package appears.
    pub out: PathBuf,
    /// Where Portage works.
    pub work: PathBuf,
    /// A bashrc for builds with one user number.
    pub bashrc: PathBuf,
    /// Packages of its build dependencies, with a `Packages` index.
    pub dependencies: PathBuf,
    /// Those, installed.
    pub layer: PathBuf,
}

impl Inside {
    /// What is asked of [`Reach`] for this machine's configuration. `repos` are the repositories as they are now.
    #[must_use]
    pub fn asked(config: &Config, repos: &[PathBuf]) -> Asked {
        let same = |bind: &&crate::config_build::ExtraBind| bind.source == bind.target;
        Asked {
            config_root: absolute(&config.config_root),
            repositories: repos.iter().map(|repo| absolute(repo)).collect(),
            of_repos_conf: config.repos.is_none(),
            bound: config.build.binds.iter().filter(same).map(|bind| bind.target.clone()).collect(),
            root: root_of(&config.build),
            identity: Identity::of_this_process(),
            data_dir: absolute(&config.data_dir),
        }
    }

    /// For a configuration. `repos` are the repositories as they are now, `reach` is what it reads besides them,
    /// `repositories` the text of a repos.conf when they are not those of Portage's own, `path` the daemon's `PATH`.
    #[must_use]
    pub fn new(config: &Config, repos: &[PathBuf], reach: Reach, repositories: Option<String>, path: OsString) -> Self {
        let configuration = Configuration {
            root: absolute(&config.config_root),
            reach,
            repositories,
            variables: config.build.variables.clone(),
            foreign: false,
            named: Vec::new(),
        };
        Self::with(&config.build, configuration, repos, path)
    }

    /// For another machine's configuration, in this machine's clean root. `named` are the variables in the recipe of what is
    /// to be built.
    #[must_use]
    pub fn of_foreign(config: &Config, foreign: &Foreign, named: Vec<String>, path: OsString) -> Self {
        let root = absolute(&foreign.config_root);
        let configuration = Configuration {
            reach: Reach::nowhere(&root),
            root,
            repositories: Some(foreign.repos_conf.clone()),
            variables: foreign.variables.clone(),
            foreign: true,
            named,
        };
        Self::with(&config.build, configuration, &foreign.repositories, path)
    }

    fn with(build: &BuildConfig, configuration: Configuration, repos: &[PathBuf], path: OsString) -> Self {
        let Configuration { root: config_root, reach, repositories, variables, foreign, named } = configuration;
        let mut binds: Vec<Bind> = repos.iter().map(|repo| Bind::read_only(absolute(repo))).collect();
        binds.push(Bind::read_only(&reach.etc));
        binds.extend(reach.shown.iter().map(Bind::read_only));
        let mut links: Vec<Link> = reach.links().collect();
        links.extend(of_the_root(&config_root, &reach));
        let chosen = build.root.join(CHOSEN);
        if !foreign && chosen.is_dir() {
            binds.push(Bind::read_only(chosen).at(Path::new("/").join(CHOSEN)));
        }
        binds.extend(build.binds.iter().map(|bind| Bind::read_only(&bind.source).at(&bind.target)));
        let limits = Limits {
            memory_bytes: build.memory_max.0,
            pids: build.processes_max,
            time: Duration::from_secs(build.time_max_s),
            disk_bytes: build.disk_max.0,
            files: sandbox::limits::files_of(build.disk_max.0),
            file_bytes: build.disk_max.0,
            ..Limits::default()
        };
        let (hidden, watched) = (reach.hidden.into_iter().collect(), reach.watched.into_iter().collect());
        let (root, identity) = (root_of(build), Identity::of_this_process());
        Self {
            path,
            config_root,
            root,
            binds,
            links,
            hidden,
            watched,
            repositories,
            variables,
            foreign,
            named,
            identity,
            limits,
        }
    }

    /// Files and directories beside `/etc/portage` that belong to the configuration.
    #[must_use]
    pub fn watched(&self) -> &[PathBuf] {
        &self.watched
    }

    /// Whose rights builds have; directories they write must be given to it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether all files belong to one user, so that owners can only be remembered.
    #[must_use]
    pub fn has_one_user(&self) -> bool {
        matches!(self.identity, Identity::Single { .. })
    }

    /// The system seen inside.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A program of the daemon's `PATH`, which is the `PATH` inside.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        portage::program(&self.path, name)
    }

    /// For the resolver: nothing can be written, and it has less time.
    #[must_use]
    pub fn resolver(&self) -> Policy {
        self.policy(None, &[])
    }

    /// For the installation of build dependencies into a layer.
    #[must_use]
    pub fn layering(&self, rooms: &Rooms) -> Policy {
        // What is installed is built already: of a recipe it needs nothing.
        let more = [("ROOT", LAYER), ("SYSROOT", "/"), ("PKGDIR", DEPENDENCIES), (OF_RECIPE, "")];
        let mut policy = self.policy(None, &more);
        policy.binds.push(Bind::read_only(&rooms.dependencies).at(DEPENDENCIES));
        policy.binds.push(Bind::writable(&rooms.layer).at(LAYER));
        policy.binds.push(Bind::writable(&rooms.work).at(WORK));
        policy.binds.push(Bind::read_only(&rooms.bashrc).at(BASHRC));
        policy
    }

    /// For the build itself, with the layer under it when there is one.
    #[must_use]
    pub fn build(&self, rooms: &Rooms, layered: bool) -> Policy {
        let named = self.named.join(" ");
        let mut policy = self.policy(layered.then_some(rooms.layer.as_path()), &[(OF_RECIPE, &named)]);
        policy.binds.push(Bind::read_only(&rooms.distfiles).at(DISTDIR));
        policy.binds.push(Bind::writable(&rooms.out).at(PKGDIR));
        policy.binds.push(Bind::writable(&rooms.work).at(WORK));
        policy.binds.push(Bind::read_only(&rooms.bashrc).at(BASHRC));
        policy
    }

    fn policy(&self, layer: Option<&Path>, more: &[(&str, &str)]) -> Policy {
        let mut policy = Policy::new(self.root.clone(), self.identity);
        policy.binds.clone_from(&self.binds);
        policy.links.clone_from(&self.links);
        policy.hidden.clone_from(&self.hidden);
        let scratch = |target: &str| Scratch { target: target.into(), size_bytes: SCRATCH_BYTES, mode: 0o1777 };
        policy.scratch = SCRATCH.iter().map(|target| scratch(target)).collect();
        if self.foreign || !self.root.path().join(CHOSEN).is_dir() {
            policy.scratch.push(scratch(&format!("/{CHOSEN}")));
        }
        policy.layers = layer.map(Path::to_owned).into_iter().collect();
        policy.limits = self.limits.clone();
        policy.environment = self.environment(more);
        policy
    }

    fn environment(&self, more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), self.path.clone()),
            ("PORTAGE_CONFIGROOT".into(), self.config_root.clone().into_os_string()),
        ];
        // It has this niceness already; another, lower one is refused and would only be complained of.
        environment.push(("PORTAGE_NICENESS".into(), self.limits.nice.to_string().into()));
        if let Some(repositories) = &self.repositories {
            environment.push(("PORTAGE_REPOSITORIES".into(), repositories.into()));
        }
        if !self.variables.is_empty() {
            environment.push(("PEERAGE_VARIABLES".into(), self.variables.join(" ").into()));
        }
        if self.foreign {
            environment.push(("PEERAGE_FOREIGN".into(), "1".into()));
        }
        let fixed = FIXED.iter().copied().chain([("FEATURES", features(self.identity))]);
        environment.extend(fixed.chain(more.iter().copied()).map(|(name, value)| (name.into(), value.into())));
        environment
    }
}

fn root_of(build: &BuildConfig) -> Root {
    if build.root == Path::new("/") { Root::host() } else { Root::stage(&build.root) }
}

/// Links by which what Portage reads of its configuration's root is found below `/`, where that is another.
fn of_the_root(config_root: &Path, reach: &Reach) -> Vec<Link> {
    let places = READ_OF_ROOT.iter().filter_map(|name| {
        let at = Path::new("/").join(name);
        let real = if *name == ETC { reach.etc.clone() } else { std::fs::canonicalize(config_root.join(name)).ok()? };
        let is_taken = real == at || reach.links.contains_key(&at);
        let is_below = reach.shown.iter().chain(reach.links.keys()).any(|path| path.starts_with(&at));
        (!is_taken && !is_below).then_some(Link { at, to: real })
    });
    places.collect()
}

/// As the sandbox needs it: it stands somewhere else than the daemon.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What builds do not take from make.conf.
const FIXED: &[(&str, &str)] = &[
    ("HOME", "/var/tmp"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("NO_COLOR", "1"),
    // The layout of a system, also where Portage itself comes from a Python environment.
    ("PORTAGE_OVERRIDE_EPREFIX", ""),
    ("DISTDIR", DISTDIR),
    ("PKGDIR", PKGDIR),
    ("PORTAGE_TMPDIR", "/var/tmp"),
    ("PORTAGE_LOGDIR", "/var/log/portage"),
    ("EMERGE_LOG_DIR", "/var/log/portage"),
    ("EMERGE_DEFAULT_OPTS", ""),
    ("PORTAGE_ELOG_SYSTEM", "echo"),
    ("PORTAGE_ELOG_CLASSES", "warn error"),
    ("PORTAGE_SCHEDULING_POLICY", ""),
    ("PORTAGE_TRUST_HELPER", ""),
    ("GENTOO_MIRRORS", ""),
    ("FETCHCOMMAND", "/bin/false"),
    ("RESUMECOMMAND", "/bin/false"),
    ("BINPKG_FORMAT", "gpkg"),
    ("BINPKG_COMPRESS", "zstd"),
    ("BINPKG_COMPRESS_FLAGS", ""),
];

/// The walls are bwrap's; what Portage would do of it again cannot work inside and is turned off, and so is everything
/// that fetches, signs, or takes from another place.
fn features(identity: Identity) -> &'static str {
    match identity {
        Identity::Mapped { .. } => {
            "-sandbox -usersandbox -network-sandbox -ipc-sandbox -pid-sandbox -mount-sandbox -cgroup -userfetch -usersync \
             -news -merge-sync -ccache -distcc -distcc-pump -icecream -getbinpkg -parallel-fetch -binpkg-signing \
             -binpkg-request-signature binpkg-ignore-signature -buildpkg -splitlog -clean-logs -keepwork -keeptemp -fakeroot userpriv \
             binpkg-multi-instance"
        }
        Identity::Single { .. } => {
            "-sandbox -usersandbox -network-sandbox -ipc-sandbox -pid-sandbox -mount-sandbox -cgroup -userfetch -usersync \
             -news -merge-sync -ccache -distcc -distcc-pump -icecream -getbinpkg -parallel-fetch -binpkg-signing \
             -binpkg-request-signature binpkg-ignore-signature -buildpkg -splitlog -clean-logs -keepwork -keeptemp -userpriv fakeroot \
             binpkg-multi-instance"
        }
    }
}
