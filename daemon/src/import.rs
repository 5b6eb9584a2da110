//! `peer import`: files that are here already go into the store, each held to the Manifest line of its name.
//!
//! Nothing is taken that no Manifest names, so the verb cannot be used to read other files through the daemon.

use crate::api::{ImportLine, ImportRequest};
use crate::domain::Domain;
use std::path::{Path, PathBuf};
use store::{FinishError, How, ImportError, ImportOptions, Imported, Wanted};
use tokio_util::sync::CancellationToken;
use tree::digest::Digest;

/// Folders below the one that was named.
const DEPTH_MAX: u32 = 8;
/// Files looked at in one import.
const FILES_MAX: u64 = 10_000_000;

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
            Ok(metadata) if metadata.is_file() => import.file(Path::new(path), true),
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
        files.iter().all(|file| self.file(file, false))
            && (depth == 0 || folders.iter().all(|folder| self.folder(folder, depth - 1)))
    }

    /// False when the import shall end.
    fn file(&mut self, path: &Path, named: bool) -> bool {
        self.seen += 1;
        if self.stopping.is_cancelled() || self.seen > FILES_MAX {
            return false;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = self.wanted(&name);
        if wanted.is_empty() {
            // A DISTDIR has locks, indexes and half files; they are worth a line only when they were asked for.
            return if named { self.skip(path, "no Manifest names it", false) } else { self.count_skipped() };
        }
        let size = std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        let mut why = "its size is another than in the Manifest".to_owned();
        let mut fitting: Vec<&Wanted> =
            wanted.iter().filter(|wanted| wanted.size.is_none() || wanted.size == size).collect();
        if fitting.len() > 1 {
            // Two repositories name different files alike, of one size: only the bytes say which this is.
            match store::digest_of_file(path) {
                Ok((digest, _, _)) => fitting.retain(|wanted| wanted.digest == digest),
                Err(error) => return self.skip(path, &error.to_string(), false),
            }
            "it has other bytes than its Manifest lines say".clone_into(&mut why);
        }
        for wanted in fitting {
            match self.domain.store.import_with(path, wanted, self.options) {
                Ok(Imported { blob, how }) => return self.take(path, blob.digest(), blob.size(), how_word(how)),
                Err(
                    ImportError::WrongSize { .. }
                    | ImportError::Finish(FinishError::Mismatch { .. } | FinishError::Sha512Mismatch { .. }),
                ) => {
                    "it has other bytes than its Manifest line says".clone_into(&mut why);
                }
                Err(error) => return self.skip(path, &error.to_string(), false),
            }
        }
        self.skip(path, &why, true)
    }

    /// What a file of that name may be: every Manifest line of the name, or of the digest a content-hash folder names.
    fn wanted(&self, name: &str) -> Vec<Wanted> {
        let catalog = self.domain.store.catalog();
        let rows = match name.parse::<Digest>() {
            Ok(digest) => catalog.by_digest(&digest),
            Err(_) => catalog.by_name(name),
        };
        let mut wanted: Vec<Wanted> = self
            .domain
            .repositories
            .in_order(rows)
            .into_iter()
            .map(|row| Wanted { digest: row.digest, size: Some(row.size), sha512: row.sha512 })
            .collect();
        let mut seen = Vec::new();
        wanted.retain(|one| {
            !seen.contains(&one.digest) && {
                seen.push(one.digest);
                true
            }
        });
        wanted
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
