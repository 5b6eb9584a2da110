//! What was passed through and kept: files of `/snapshots/` and `/releases/`, which no Manifest names.
//!
//! They live in the store like any blob, under the digest of what came, and go by gc like any blob. A small table says
//! which path had which digest, and by which validators a mirror can say that it still has. They are never announced.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Paths remembered; the one used longest ago goes first. Snapshots are dated, so the table would grow for ever.
const PATHS_MAX: usize = 512;
/// Bytes of all of them: whoever asks for paths must not fill the disk. A few stages and snapshots, or what a machine takes
/// from the official binhost in some weeks.
const BYTES_MAX: u64 = 8 << 30;
/// A larger file is handed through and not kept: an image of a whole system is asked for once.
pub const FILE_MAX_BYTES: u64 = 2 << 30;
/// A table larger than this was not written by us.
const TABLE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// File of the table below the data directory.
const TABLE_FILE: &str = "kept.json";

/// What is known of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its content, 128 hex digits.
    pub digest: String,
    /// `ETag` of the mirror.
    pub etag: Option<String>,
    /// `Last-Modified` of the mirror.
    pub last_modified: Option<String>,
    /// `Content-Type` of the mirror; earlier versions kept it, nothing reads it.
    #[serde(default, skip_serializing)]
    pub content_type: Option<String>,
    /// Bytes; 0 where an earlier version kept it.
    #[serde(default)]
    pub size: u64,
    /// When it was last asked for, seconds since the Unix epoch.
    pub used: u64,
}

/// The table.
#[derive(Debug)]
pub struct KeptPaths {
    file: PathBuf,
    paths: Mutex<BTreeMap<String, Kept>>,
}

impl KeptPaths {
    /// Reads the table below `data_dir`. One that cannot be read is an empty one: nothing but a second download is lost.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let file = data_dir.join(TABLE_FILE);
        let small = std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() <= TABLE_MAX_BYTES);
        let text = if small { std::fs::read(&file).unwrap_or_default() } else { Vec::new() };
        let paths = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, paths: Mutex::new(paths) }
    }

    /// What is known of a path; that it was asked for counts as its last use.
    #[must_use]
    pub fn get(&self, path: &str, now: u64) -> Option<Kept> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = paths.get_mut(path)?;
        kept.used = now;
        Some(kept.clone())
    }

    /// Remembers a path, and gives the digests of what is remembered no more for its sake. Writes the table: blocking.
    ///
    /// # Errors
    /// When the table cannot be written; it is then known until the daemon ends.
    pub fn put(&self, path: &str, kept: Kept) -> Result<Vec<String>, store::PathError> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = paths.insert(path.to_owned(), kept);
        let mut gone: Vec<String> = replaced.map(|kept| kept.digest).into_iter().collect();
        let mut bytes = paths.values().fold(0_u64, |sum, kept| sum.saturating_add(kept.size));
        while paths.len() > PATHS_MAX || bytes > BYTES_MAX {
            let oldest = paths.iter().filter(|(other, _)| *other != path).min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { break };
            if let Some(kept) = paths.remove(&oldest) {
                bytes = bytes.saturating_sub(kept.size);
                gone.push(kept.digest);
            }
        }
        gone.retain(|digest| paths.values().all(|kept| kept.digest != *digest));
        let json = serde_json::to_vec_pretty(&*paths).unwrap_or_default();
        store::write_atomically(&self.file, &json, 0o644)?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(used: u64) -> Kept {
        let digest = format!("{used:0128x}");
        Kept { digest, etag: Some("\"x\"".into()), last_modified: None, content_type: None, size: 1, used }
    }

    #[test]
    fn what_was_kept_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        KeptPaths::open(dir.path()).put("/snapshots/a", kept(1)).unwrap();
        let again = KeptPaths::open(dir.path());
        assert_eq!(again.get("/snapshots/a", 7), Some(Kept { used: 7, ..kept(1) }));
        assert_eq!(again.get("/snapshots/b", 7), None);
    }

    #[test]
    fn a_broken_table_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        store::write_atomically(&dir.path().join(TABLE_FILE), b"{\"x\":", 0o644).unwrap();
        assert_eq!(KeptPaths::open(dir.path()).get("x", 0), None);
    }

    #[test]
    fn the_path_used_longest_ago_is_forgotten_first() {
        let dir = tempfile::tempdir().unwrap();
        let table = KeptPaths::open(dir.path());
        for n in 0..=PATHS_MAX as u64 {
            table.put(&format!("/snapshots/{n}"), kept(n)).unwrap();
        }
        assert_eq!(table.get("/snapshots/0", 0), None);
        assert!(table.get("/snapshots/1", 0).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_what_goes_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let table = KeptPaths::open(dir.path());
        let large = |used| Kept { size: FILE_MAX_BYTES, ..kept(used) };
        let most = BYTES_MAX / FILE_MAX_BYTES;
        for n in 0..most {
            assert_eq!(table.put(&format!("/releases/{n}"), large(n)).unwrap(), Vec::<String>::new());
        }
        assert_eq!(table.put("/releases/more", large(most)).unwrap(), [large(0).digest]);
        assert_eq!(table.get("/releases/0", 0), None);
        // Another content of a path takes the place of the one before, and no content goes that another path has.
        assert_eq!(table.put("/releases/more", large(most + 1)).unwrap(), [large(most).digest]);
        table.put("/releases/same", Kept { size: 0, ..large(most + 1) }).unwrap();
        assert_eq!(table.put("/releases/same", Kept { size: 0, ..large(77) }).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_table_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let row =
            r#"{"/releases/a":{"digest":"00","etag":null,"last_modified":null,"content_type":"text/html","used":3}}"#;
        store::write_atomically(&dir.path().join(TABLE_FILE), row.as_bytes(), 0o644).unwrap();
        assert_eq!(KeptPaths::open(dir.path()).get("/releases/a", 4).unwrap().size, 0);
    }
}
