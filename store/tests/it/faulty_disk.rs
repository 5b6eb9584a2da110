//! A disk that fails at a chosen call, or loses its power at a chosen sync.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use store::{Disk, Listed, RealDisk};

/// When a disk goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Never,
    /// This call fails, the next ones do not.
    Once(u64),
    /// This call and all after it fail, as when the process is gone.
    From(u64),
    /// This sync and all calls after it fail, and only what was synced before is left.
    PowerCut(u64),
}

/// A real disk that goes wrong when told to, and remembers what was synced.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    root: PathBuf,
    fault: Fault,
    kind: io::ErrorKind,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    syncs: u64,
    dead: bool,
    /// What each file had when it was last synced.
    bytes: BTreeMap<u64, Vec<u8>>,
    /// What each directory had when it was last synced: name → inode.
    names: BTreeMap<PathBuf, u64>,
    /// The index when it was last synced.
    index: BTreeMap<String, Vec<u8>>,
}

impl FaultyDisk {
    pub(crate) fn new(root: &Path, fault: Fault, kind: io::ErrorKind) -> Arc<Self> {
        Arc::new(Self { root: root.to_path_buf(), fault, kind, state: Mutex::default() })
    }

    fn call(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let fails = state.dead || matches!(self.fault, Fault::Once(n) | Fault::From(n) if n == state.calls);
        state.calls += 1;
        state.dead |= fails && matches!(self.fault, Fault::From(_));
        if fails { Err(self.kind.into()) } else { Ok(()) }
    }

    fn sync_call(&self) -> io::Result<()> {
        self.call()?;
        let mut state = self.state.lock().unwrap();
        if self.fault == Fault::PowerCut(state.syncs) {
            state.dead = true;
            return Err(self.kind.into());
        }
        state.syncs += 1;
        Ok(())
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.calls, state.syncs)
    }

    /// Writes what a power cut leaves into another directory.
    pub(crate) fn image(&self, to: &Path) {
        let state = self.state.lock().unwrap();
        for (path, inode) in &state.names {
            let place = to.join(path.strip_prefix(&self.root).unwrap());
            put(&place, state.bytes.get(inode).map_or(&[], Vec::as_slice));
        }
        for (name, bytes) in &state.index {
            put(&to.join("index").join(name), bytes);
        }
    }
}

/// Writes a file, and makes the directories on the way to it.
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    store::write_atomically(path, bytes, 0o644).unwrap();
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.create_dir(path)
    }

    fn open_partial(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        RealDisk.open_partial(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        RealDisk.open_read(path)
    }

    fn append(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.call() {
            // A full disk takes some of it.
            RealDisk.append(file, path, at, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        RealDisk.append(file, path, at, bytes)
    }

    fn truncate(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        self.call()?;
        RealDisk.truncate(file, path, len)
    }

    fn reserve(&self, _file: &File, _path: &Path, _len: u64) -> io::Result<()> {
        self.call()
    }

    fn reflink(&self, _from: &File, _to: &File, _to_path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.hard_link(from, to)
    }

    fn seal(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.seal(file, path)
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        self.sync_call()?;
        let metadata = file.metadata()?;
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap()];
        file.read_exact_at(&mut bytes, 0)?;
        self.state.lock().unwrap().bytes.insert(metadata.ino(), bytes);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync_call()?;
        let mut state = self.state.lock().unwrap();
        state.names.retain(|name, _| name.parent() != Some(path));
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                state.names.insert(entry.path(), entry.metadata()?.ino());
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        RealDisk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        self.call()?;
        RealDisk.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.call()?;
        RealDisk.free_bytes(path)
    }

    fn commit(&self, write: &mut dyn FnMut() -> io::Result<()>, synced: bool) -> io::Result<()> {
        if !synced {
            self.call()?;
            return write();
        }
        self.sync_call()?;
        write()?;
        let mut index = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("index"))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap();
            // RocksDB removes files it is done with while this reads.
            if let Ok(bytes) = fs::read(entry.path())
                && name != "LOCK"
            {
                index.insert(name, bytes);
            }
        }
        self.state.lock().unwrap().index = index;
        Ok(())
    }
}
