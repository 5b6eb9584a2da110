//! `peer import`: files that are here already go into the store, each held to the Manifest line of its name.
//!
//! Nothing is taken that no Manifest names, so the verb cannot be used to read other files through the daemon.
//!
//! A file is a blob once the disk has it, so small ones would be waited for one after the other: several are taken in side by
//! side, and the file system brings them to the disk together. What is told is in the order of their names all the same.

use crate::api::{ImportLine, ImportRequest};
use crate::domain::Domain;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use store::{FinishError, How, ImportError, ImportOptions, Imported, IncomingError, Wanted};
use tokio_util::sync::CancellationToken;
use tree::digest::Digest;

/// Folders below the one that was named.
const DEPTH_MAX: u32 = 8;
/// Files looked at in one import.
const FILES_MAX: u64 = 10_000_000;
/// Files taken in side by side: what a file system brings to the disk in one commit.
const WIDTH: usize = 16;

/// What came of one file.
enum Outcome {
    Taken {
        digest: Digest,
        size: u64,
        how: How,
    },
    /// It is not taken, and whether its bytes are to blame.
    Refused {
        why: String,
        wrong: bool,
    },
    /// No Manifest names it.
    Unnamed,
    /// The same bytes are being taken in under another name.
    Later,
}

struct Import<'a> {
    domain: &'a Domain,
    stopping: &'a CancellationToken,
    tell: &'a mut dyn FnMut(ImportLine) -> bool,
    options: ImportOptions,
    seen: u64,
    imported: u64,
    skipped: u64,
    wrong: u64,
    bytes: u64,
}

/// Imports what `request` names; `tell` takes each line and answers false when nobody listens any more. Blocking.
pub fn run(
    domain: &Domain,
    request: &ImportRequest,
    stopping: &CancellationToken,
    tell: &mut dyn FnMut(ImportLine) -> bool,
) {
    let options = ImportOptions { hard_link: request.link };
    let mut import = Import { domain, stopping, tell, options, seen: 0, imported: 0, skipped: 0, wrong: 0, bytes: 0 };
    for path in &request.paths {
        // What the user names may be a link; what lies in a folder they name may not lead out of it.
        let go_on = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => import.folder(Path::new(path), DEPTH_MAX),
            Ok(metadata) if metadata.is_file() => import.files(&[PathBuf::from(path)], true),
            Ok(_) => import.skip(Path::new(path), "it is neither a file nor a folder", false),
            Err(error) => import.skip(Path::new(path), &format!("the daemon cannot read it: {error}"), false),
        };
        if !go_on {
            return;
        }
    }
    let done = ImportLine::Done {
        imported: import.imported,
        skipped: import.skipped,
        wrong: import.wrong,
        bytes: import.bytes,
    };
    (import.tell)(done);
}

fn how_word(how: How) -> &'static str {
    match how {
        How::Present => "present",
        How::Reflinked => "reflinked",
        How::HardLinked => "linked",
        How::Copied => "copied",
    }
}

impl Import<'_> {
    fn folder(&mut self, folder: &Path, depth: u32) -> bool {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.skip(folder, &format!("the daemon cannot read it: {error}"), false),
        };
        let (mut files, mut folders): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
        files.sort_unstable();
        folders.sort_unstable();
        self.files(&files, false) && (depth == 0 || folders.iter().all(|folder| self.folder(folder, depth - 1)))
    }

    /// Takes files in, side by side. False when the import shall end.
    fn files(&mut self, files: &[PathBuf], named: bool) -> bool {
        let (domain, stopping, options) = (self.domain, self.stopping, self.options);
        let (next, left) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (done, outcomes) = mpsc::sync_channel(WIDTH);
            for _ in 0..WIDTH.min(files.len()) {
                let done = done.clone();
                scope.spawn(|| {
                    let done = done;
                    while !left.load(Ordering::Relaxed) && !stopping.is_cancelled() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = files.get(number) else { return };
                        if done.send((number, look(domain, path, options))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            // What is done before those in front of it waits here: no more than are under way, and their followers.
            let (mut waiting, mut at) = (BTreeMap::new(), 0);
            for (number, outcome) in outcomes {
                waiting.insert(number, outcome);
                while let (Some(outcome), Some(path)) = (waiting.remove(&at), files.get(at)) {
                    at += 1;
                    let outcome = match outcome {
                        // By now it is here.
                        Outcome::Later => look(domain, path, options),
                        outcome => outcome,
                    };
                    if !self.tell_of(path, outcome, named) {
                        left.store(true, Ordering::Relaxed);
                        return false;
                    }
                }
            }
            !stopping.is_cancelled()
        })
    }

    fn tell_of(&mut self, path: &Path, outcome: Outcome, named: bool) -> bool {
        self.seen += 1;
        let go_on = match outcome {
            Outcome::Taken { digest, size, how } => self.take(path, digest, size, how_word(how)),
            Outcome::Refused { why, wrong } => self.skip(path, &why, wrong),
            Outcome::Later => self.skip(path, "the same bytes are being taken in by somebody else", false),
            // A DISTDIR has locks, indexes and half files; they are worth a line only when they were asked for.
            Outcome::Unnamed if named => self.skip(path, "no Manifest names it", false),
            Outcome::Unnamed => self.count_skipped(),
        };
        go_on && self.seen < FILES_MAX
    }

    fn take(&mut self, path: &Path, digest: Digest, size: u64, how: &str) -> bool {
        self.imported += 1;
        self.bytes = self.bytes.saturating_add(size);
        let path = path.display().to_string();
        (self.tell)(ImportLine::Imported { path, digest: digest.to_string(), size, how: how.to_owned() })
    }

    fn skip(&mut self, path: &Path, reason: &str, wrong: bool) -> bool {
        self.skipped += 1;
        self.wrong += u64::from(wrong);
        (self.tell)(ImportLine::Skipped { path: path.display().to_string(), reason: reason.to_owned(), wrong })
    }

    fn count_skipped(&mut self) -> bool {
        self.skipped += 1;
        true
    }
}

/// Takes one file in, if it is what a Manifest line of its name says.
fn look(domain: &Domain, path: &Path, options: ImportOptions) -> Outcome {
    let refused = |why: String, wrong| Outcome::Refused { why, wrong };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let wanted = wanted(domain, &name);
    if wanted.is_empty() {
        return Outcome::Unnamed;
    }
    let size = std::fs::metadata(path).map(|metadata| metadata.len()).ok();
    let mut why = "its size is another than in the Manifest";
    let mut fitting: Vec<&Wanted> =
        wanted.iter().filter(|wanted| wanted.size.is_none() || wanted.size == size).collect();
    if fitting.len() > 1 {
        // Two repositories name different files alike, of one size: only the bytes say which this is.
        match store::digest_of_file(path) {
            Ok((digest, _, _)) => fitting.retain(|wanted| wanted.digest == digest),
            Err(error) => return refused(error.to_string(), false),
        }
        why = "it has other bytes than its Manifest lines say";
    }
    for wanted in fitting {
        match domain.store.import_with(path, wanted, options) {
            Ok(Imported { blob, how }) => return Outcome::Taken { digest: blob.digest(), size: blob.size(), how },
            Err(ImportError::Incoming(IncomingError::AlreadyIncoming(_))) => return Outcome::Later,
            Err(
                ImportError::WrongSize { .. }
                | ImportError::Finish(FinishError::Mismatch { .. } | FinishError::Sha512Mismatch { .. }),
            ) => why = "it has other bytes than its Manifest line says",
            Err(error) => return refused(error.to_string(), false),
        }
    }
    refused(why.to_owned(), true)
}

/// What a file of that name may be: every Manifest line of the name, or of the digest a content-hash folder names.
fn wanted(domain: &Domain, name: &str) -> Vec<Wanted> {
    let catalog = domain.store.catalog();
    let rows = match name.parse::<Digest>() {
        Ok(digest) => catalog.by_digest(&digest),
        Err(_) => catalog.by_name(name),
    };
    let mut seen = HashSet::new();
    let rows = domain.repositories.in_order(rows).into_iter().filter(|row| seen.insert(row.digest));
    rows.map(|row| Wanted { digest: row.digest, size: Some(row.size), sha512: row.sha512 }).collect()
}
