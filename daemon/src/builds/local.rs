//! One package built on this machine: sources obtained by digest, build dependencies installed into a layer, then real
//! `emerge --buildpkgonly` inside the walls. What comes out is one unsigned gpkg, not yet believed in.

use super::domain_names::script;
use super::inside::{BASHRC, DEPENDENCIES, Inside, Rooms};
use super::jobs::Entry;
use super::plan::{NeededDistfile, Plan, Planned, changed_since};
use crate::blocking;
use crate::domain::Domain;
use crate::flight::{ObtainError, ROOM_HINT};
use futures::{StreamExt as _, TryStreamExt as _};
use sandbox::{Cancel, End, Limit, LogFile, LogLine, LogSink, Outcome, Phase, Policy, Sandbox, SandboxError};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Blob, LinkError};
use tokio::sync::mpsc;
use tree::packages::{PackageEntry, PackagesIndex};
use tree::size::total;

const EMERGE: &str = script!("emerge.py");
const OWNERS: &str = include_str!("owners.bashrc");
/// Sources obtained side by side.
const FETCH_WIDTH: usize = 4;
/// Entries of the output folder that are looked at: a gpkg lies two folders deep.
const OUT_ENTRIES_MAX: usize = 64;
/// Files of a job that stay: the log of the build, its recipe, the log of the installation of its build dependencies.
pub(super) const LOG: &str = "log";
pub(super) const RECIPE: &str = "recipe";
pub(super) const DEPENDENCIES_LOG: &str = "dependencies.log";
/// Mode of the directory of a job, and of those in it, which builds enter.
pub(super) const JOB_MODE: u32 = 0o700;
const DIRECTORY_MODE: u32 = 0o755;
/// Bytes of a log that are kept; chromium's has some 30 MB.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;
/// Said of a build that used up what it may: the machine's fault and not the ebuild's.
const LIMITS_HINT: &str = "the limits are in [build] of peer.toml";
/// Lines that wait to be looked at.
const LINES_MAX: usize = 256;
/// Time between two looks at a log that grows.
const SHOW_PERIOD: Duration = Duration::from_millis(200);

/// Why a package was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It cannot be built in a sandbox at all.
    #[error("{0}")]
    Hopeless(String),
    /// The disk has no room for it.
    #[error(
        "there is no room to build it: {} are free at {}, its sources take {} and store.free_min keeps {} free; {ROOM_HINT}",
        store::human(*free), path.display(), store::human(*needs), store::human(*keeps)
    )]
    NoRoom {
        /// The directory of the job.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that its sources take, those to be fetched and all of them unpacked.
        needs: u64,
        /// Bytes that are to stay free.
        keeps: u64,
    },
    /// A source is not to be had.
    #[error("{name} is not to be had: {source}")]
    Source {
        /// The distfile.
        name: String,
        /// Why.
        #[source]
        source: Arc<ObtainError>,
    },
    /// A package it needs is not here.
    #[error("{cpv}, which it needs to be built, is not here any more")]
    Dependency {
        /// Its name or fingerprint.
        cpv: String,
    },
    /// A directory or file of the job.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob cannot be put where the sandbox reads it.
    #[error("cannot give {name} to the sandbox")]
    Link {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The index of the dependencies cannot be written.
    #[error("cannot write the index of the build dependencies: {0}")]
    Index(String),
    /// The sandbox cannot be made.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// There is no Portage.
    #[error("there is no python3 in the daemon's PATH to run Portage with")]
    NoPython,
    /// Portage said no, or was stopped.
    #[error("{why}")]
    Failed {
        /// In which phase.
        phase: String,
        /// Why, in one line.
        why: String,
        /// The file of the job that says more.
        log: &'static str,
    },
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Portage ended well and left something else than one package.
    #[error("Portage left {found} packages, expected one")]
    Output {
        /// How many.
        found: usize,
    },
    /// What was read for the recipe is not what was built from.
    #[error("{path} changed while it was built: ask again")]
    Changed {
        /// The first that changed.
        path: PathBuf,
    },
}

/// What a local build needs to know.
pub(super) struct LocalBuild<'a> {
    pub(super) domain: &'a Arc<Domain>,
    pub(super) sandbox: &'a Sandbox,
    pub(super) inside: &'a Inside,
    pub(super) plan: &'a Plan,
    pub(super) planned: &'a Planned,
    pub(super) entry: &'a Entry,
    pub(super) dir: &'a Path,
    /// Packages of the layer, as the binhost lists them.
    pub(super) dependencies: Vec<(PackageEntry, Blob)>,
}

impl LocalBuild<'_> {
    /// Builds; the answer is the file of the unsigned package, in the job's directory.
    ///
    /// Cancel safe: yes; the sandbox is killed. The directory is left to the caller.
    pub(super) async fn run(self) -> Result<PathBuf, BuildError> {
        if let Some(why) = &self.planned.hopeless {
            return Err(BuildError::Hopeless(why.clone()));
        }
        let python = self.inside.program("python3").ok_or(BuildError::NoPython)?;
        let rooms = rooms(self.dir, self.inside)?;
        // Kept beside the log: it says why two fingerprints are not the same.
        write(self.dir, RECIPE, self.planned.recipe.text())?;
        self.has_room().await?;
        self.entry.show(|job| "fetch".clone_into(&mut job.phase));
        let mut cancelled = self.entry.cancelled();
        tokio::select! {
            biased;
            Ok(_true) = cancelled.wait_for(|cancelled| *cancelled) => return Err(BuildError::Cancelled),
            fetched = self.fetch(&rooms) => fetched?,
        }
        if !self.dependencies.is_empty() {
            self.entry.show(|job| "dependencies".clone_into(&mut job.phase));
            self.layer(&rooms, &python).await?;
        }
        self.number_after(&rooms).await?;
        let mut command = self.emerge(&python, BUILD);
        command.push(format!("={}::{}", self.planned.cpv, self.planned.repo).into());
        let mut policy = self.inside.build(&rooms, !self.dependencies.is_empty());
        policy.limits.disk_reserve_bytes = self.domain.config.store_free_min.0;
        let outcome = self.inside_run(&policy, &command, LOG).await?;
        ended(&outcome, self.entry, LOG)?;
        let (inputs, begun) = (self.planned.inputs.clone(), self.plan.begun);
        if let Some(path) = blocking::run(move || changed_since(&inputs, begun)).await {
            return Err(BuildError::Changed { path });
        }
        one_package(&rooms.out)
    }

    fn path_error(&self, name: &str, source: io::Error) -> BuildError {
        BuildError::Path { path: self.dir.join(name), source }
    }

    /// Looks before anything is fetched: what a build takes is not known, but less than its sources it is not. While it runs the
    /// sandbox looks.
    async fn has_room(&self) -> Result<(), BuildError> {
        let (store, files, path) = (self.domain.store.clone(), self.planned.distfiles.clone(), self.dir.to_owned());
        let keeps = self.domain.config.store_free_min.0;
        blocking::run(move || {
            let away = files.iter().filter(|file| !store.contains(&file.digest));
            // Those to be fetched, and all of them unpacked.
            let needs = total(files.iter().chain(away).map(|file| file.size));
            let stat = rustix::fs::statvfs(&path);
            let stat = stat.map_err(|error| BuildError::Path { path: path.clone(), source: error.into() })?;
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            if free < needs.saturating_add(keeps) {
                return Err(BuildError::NoRoom { path, free, needs, keeps });
            }
            Ok(())
        })
        .await
    }

    /// The words that run `emerge` inside.
    fn emerge(&self, python: &Path, options: &[&str]) -> Vec<OsString> {
        let bashrc = if self.inside.has_one_user() { BASHRC } else { "" };
        let mut command: Vec<OsString> = vec![python.into(), "-I".into(), "-c".into(), EMERGE.into(), bashrc.into()];
        command.extend(options.iter().map(Into::into));
        command
    }

    /// Every source into the store, and a name of it where the sandbox reads. Only what the Manifest names is there.
    async fn fetch(&self, rooms: &Rooms) -> Result<(), BuildError> {
        let all: Vec<_> = self.planned.distfiles.iter().map(|wanted| self.fetch_one(wanted, rooms)).collect();
        futures::stream::iter(all).buffer_unordered(FETCH_WIDTH).try_collect().await
    }

    async fn fetch_one(&self, wanted: &NeededDistfile, rooms: &Rooms) -> Result<(), BuildError> {
        let (looking, digest) = (Arc::clone(self.domain), wanted.digest);
        let mut target = blocking::run(move || looking.target(&digest)).await;
        target.wanted.size = Some(wanted.size);
        let failed = |source| BuildError::Source { name: wanted.name.to_string(), source };
        let (blob, _source) = self.domain.obtain(&target).await.map_err(failed)?;
        link(&blob, &rooms.distfiles, wanted.name.as_ref())
    }

    /// Tells Portage of the builds of this version that are listed already, so that the new one has the next `BUILD_ID`.
    async fn number_after(&self, rooms: &Rooms) -> Result<(), BuildError> {
        let (listing, cpv) = (Arc::clone(self.domain), self.planned.cpv.clone());
        let rows = blocking::run(move || listing.binhost.rows()).await;
        let earlier: Vec<PackageEntry> =
            rows.iter().filter(|row| *row.entry.cpv() == cpv).filter_map(|row| row.listed().ok()).collect();
        if earlier.is_empty() { Ok(()) } else { self.write_index(&rooms.out, earlier) }
    }

    /// A `Packages` index for Portage inside.
    fn write_index(&self, dir: &Path, entries: Vec<PackageEntry>) -> Result<(), BuildError> {
        let header: BTreeMap<String, String> = self.plan.header.clone();
        let text = PackagesIndex::new(&header, crate::stats::now_s(), entries).to_string();
        let written = store::write_atomically(&dir.join("Packages"), text.as_bytes(), 0o644);
        written.map_err(|error| BuildError::Index(error.to_string()))
    }

    /// Installs the build dependencies of this plan into a directory that is then laid over the root.
    async fn layer(&self, rooms: &Rooms, python: &Path) -> Result<(), BuildError> {
        let mut entries = Vec::new();
        let mut atoms: Vec<OsString> = Vec::new();
        for (listed, blob) in &self.dependencies {
            let name = format!("{}.gpkg.tar", blob.digest());
            link(blob, &rooms.dependencies, &name)?;
            let entry = listed.clone().with_path(name);
            let entry = entry.map_err(|error| BuildError::Index(error.to_string()))?;
            atoms.push(format!("={}", entry.cpv()).into());
            entries.push(entry);
        }
        self.write_index(&rooms.dependencies, entries)?;
        let mut command = self.emerge(python, INSTALL);
        command.extend(atoms);
        tracing::debug!(job = self.entry.id(), from = DEPENDENCIES, "installing build dependencies into a layer");
        let outcome = self.inside_run(&self.inside.layering(rooms), &command, DEPENDENCIES_LOG).await?;
        match outcome.end {
            End::Ended { code: 0 } => Ok(()),
            _ => ended(&outcome, self.entry, DEPENDENCIES_LOG).map_err(|error| match error {
                BuildError::Failed { why, log, .. } => BuildError::Failed {
                    phase: "dependencies".to_owned(),
                    why: format!("its build dependencies cannot be installed: {why}"),
                    log,
                },
                other => other,
            }),
        }
    }

    /// Runs one command in the sandbox, with its own log, and shows how far it is.
    async fn inside_run(&self, policy: &Policy, command: &[OsString], log: &str) -> Result<Outcome, BuildError> {
        let path = self.dir.join(log);
        let file = LogFile::create(&path, LOG_BYTES_MAX).map_err(|source| self.path_error(log, source))?;
        let (lines, mut said) = mpsc::channel::<LogLine>(LINES_MAX);
        let showing = async {
            let mut shown = Instant::now();
            let mut phase = None;
            while let Some(line) = said.recv().await {
                if line.phase == phase && shown.elapsed() < SHOW_PERIOD {
                    continue;
                }
                (shown, phase) = (Instant::now(), line.phase);
                let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                self.entry.show(|job| {
                    job.log_bytes = bytes;
                    // While dependencies are installed, Portage's phases are theirs and not this package's.
                    if let Some(phase) = phase.filter(|_| log == LOG) {
                        phase.name().clone_into(&mut job.phase);
                    }
                });
            }
        };
        let sink = LogSink { file: Some(file), lines: Some(lines) };
        let running = self.sandbox.run(policy, command, sink, Cancel::when(self.entry.cancelled()));
        let begun = Instant::now();
        let (outcome, ()) = tokio::join!(running, showing);
        tracing::debug!(job = self.entry.id(), log, took = ?begun.elapsed(), "a sandbox ended");
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let outcome = outcome?;
        self.entry.show(|job| {
            job.log_bytes = bytes;
            job.cpu_ms = outcome.usage.cpu.map(|cpu| u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX));
            job.memory_peak_bytes = outcome.usage.memory_peak_bytes;
        });
        Ok(outcome)
    }
}

/// Empty directories, those that are written given to whoever Portage starts as.
pub(super) fn rooms(top: &Path, inside: &Inside) -> Result<Rooms, BuildError> {
    let identity = inside.identity();
    let (user, group) = identity.start();
    let failed = |name: &str, source| BuildError::Path { path: top.join(name), source };
    DirBuilder::new().recursive(true).mode(JOB_MODE).create(top).map_err(|source| failed("", source))?;
    let dir = |name: &str| {
        let path = top.join(name);
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path);
        // The umask may have taken bits away.
        let made = made.and_then(|()| set_permissions(&path, Permissions::from_mode(DIRECTORY_MODE)));
        made.map(|()| path).map_err(|source| failed(name, source))
    };
    let given = |path: PathBuf| {
        let given = sandbox::give(&path, identity, user, group);
        given.map(|()| path.clone()).map_err(|source| BuildError::Path { path, source })
    };
    let (distfiles, dependencies) = (dir("distfiles")?, dir("dependencies")?);
    let layer = top.join("layer");
    sandbox::prepare_layer(inside.root(), &layer).map_err(|source| failed("layer", source))?;
    let bashrc = write(top, "bashrc", OWNERS)?;
    let (out, work, layer) = (given(dir("out")?)?, given(dir("work")?)?, given(layer)?);
    Ok(Rooms { distfiles, dependencies, bashrc, out, work, layer })
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, BuildError> {
    let path = dir.join(name);
    match store::write_atomically(&path, text.as_bytes(), 0o644) {
        Ok(()) => Ok(path),
        Err(error) => Err(BuildError::Path { path, source: io::Error::other(error) }),
    }
}

/// For a package with everything it needs there: no dependency is looked at again.
const BUILD: &[&str] = &[
    "--buildpkgonly",
    "--nodeps",
    "--oneshot",
    "--usepkg=n",
    "--getbinpkg=n",
    "--package-moves=n",
    "--ask=n",
    "--quiet-build=n",
    "--color=n",
    "--nospinner",
];

/// For the packages of a layer: exactly those, from the given index and from nowhere else.
const INSTALL: &[&str] = &[
    "--usepkgonly",
    "--getbinpkg=n",
    "--package-moves=n",
    "--nodeps",
    "--oneshot",
    "--ask=n",
    "--quiet-build=y",
    "--color=n",
    "--nospinner",
];

fn link(blob: &Blob, dir: &Path, name: &str) -> Result<(), BuildError> {
    match blob.link_to(dir, name) {
        Ok(_how) => Ok(()),
        Err(source) => Err(BuildError::Link { name: name.to_owned(), source }),
    }
}

/// Whether a reason is about what the machine lets a build have, and not about the ebuild.
pub(super) fn is_of_machine(reason: &str) -> bool {
    reason.contains(LIMITS_HINT) || reason.contains(ROOM_HINT)
}

/// What an ended command means.
fn ended(outcome: &Outcome, entry: &Entry, log: &'static str) -> Result<(), BuildError> {
    let phase = outcome.phase.map_or_else(|| entry.now().phase, |phase: Phase| phase.name().to_owned());
    let why = match outcome.end {
        End::Ended { code: 0 } => return Ok(()),
        End::Cancelled => return Err(BuildError::Cancelled),
        End::Limit(limit @ Limit::DiskReserve) => format!("{limit}; {ROOM_HINT}"),
        End::Limit(limit) => format!("{limit}; {LIMITS_HINT}"),
        End::Ended { code } => died(outcome).unwrap_or_else(|| format!("Portage ended with exit code {code}")),
    };
    Err(BuildError::Failed { phase, why, log })
}

/// Portage's report in one line: what failed, and the words of `die` that stand under it.
fn died(outcome: &Outcome) -> Option<String> {
    let failed = outcome.log.failure.as_deref()?;
    let words = |line: &String| line.trim_start().trim_start_matches('*').trim().to_owned();
    let mut under = outcome.log.last.iter().map(words).skip_while(|line| !line.contains(failed)).skip(1);
    let said = under.next().filter(|said| !said.is_empty() && said != "(no error message)");
    let failed = failed.trim_end_matches(':');
    Some(said.map_or_else(|| failed.to_owned(), |said| format!("{failed}: {said}")))
}

/// The one regular file `*.gpkg.tar` below the output folder; links are not followed.
fn one_package(out: &Path) -> Result<PathBuf, BuildError> {
    let failed = |source| BuildError::Path { path: out.to_owned(), source };
    let (mut found, mut ahead, mut looked) = (Vec::new(), vec![out.to_owned()], 0);
    while let Some(dir) = ahead.pop() {
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            looked += 1;
            if looked > OUT_ENTRIES_MAX {
                return Err(BuildError::Output { found: looked });
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                ahead.push(entry.path());
            } else if kind.is_file() && entry.file_name().as_encoded_bytes().ends_with(b".gpkg.tar") {
                found.push(entry.path());
            }
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => Err(BuildError::Output { found: found.len() }),
    }
}
