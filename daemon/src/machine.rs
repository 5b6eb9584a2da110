//! This machine as binary packages see it: its processor, and the libraries that its dynamic linker finds.

use crate::blocking;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tree::cpu::CpuFeatures;
use tree::elf::{ElfFile, FILE_BYTES_MAX, Soname};

/// Where every dynamic linker looks, besides what `ld.so.conf` says.
const USUAL: [&str; 8] =
    ["lib64", "usr/lib64", "lib", "usr/lib", "lib32", "usr/lib32", "usr/local/lib64", "usr/local/lib"];
/// Directories of `ld.so.conf`, and files that it includes.
const CONF_MAX: usize = 1000;
/// Bytes of one such file.
const CONF_BYTES_MAX: u64 = 1 << 20;
/// Libraries that are remembered; a large machine has some five thousand.
const LIBRARIES_MAX: usize = 50_000;

/// The machine the daemon runs on.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    features: CpuFeatures,
    read: Mutex<BTreeMap<PathBuf, Read>>,
}

/// A library as it was when it was read; another stamp is another file.
#[derive(Debug)]
struct Read {
    stamp: Stamp,
    file: Option<ElfFile>,
}

/// Device, inode, size and change time.
type Stamp = (u64, u64, u64, i64, i64);

/// The libraries as they are now.
#[derive(Debug)]
pub struct Libraries<'a> {
    machine: &'a Machine,
    dirs: Vec<PathBuf>,
    found: BTreeMap<Soname, Option<BTreeSet<String>>>,
}

impl Machine {
    /// The machine whose root is `/`. Reads `/proc/cpuinfo`. Blocking.
    #[must_use]
    pub fn here() -> Self {
        let features = CpuFeatures::from_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        tracing::debug!(%features, "this processor");
        Self::new(Path::new("/"), features)
    }

    /// As [`Machine::here`], from async code.
    pub async fn open() -> Self {
        blocking::run(Self::here).await
    }

    /// A machine with this root and these instruction sets.
    #[must_use]
    pub fn new(root: &Path, features: CpuFeatures) -> Self {
        Self { root: root.to_owned(), features, read: Mutex::default() }
    }

    /// What the processor has.
    #[must_use]
    pub const fn features(&self) -> &CpuFeatures {
        &self.features
    }

    /// The libraries as they are now. Blocking.
    #[must_use]
    pub fn libraries(&self) -> Libraries<'_> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        let mut files = BTreeSet::new();
        read_conf(&self.root, Path::new("etc/ld.so.conf"), &mut dirs, &mut files);
        dirs.extend(USUAL.iter().map(|dir| self.root.join(dir)));
        Libraries { machine: self, dirs, found: BTreeMap::new() }
    }

    /// What a file says of itself, read once.
    fn file(&self, path: &Path) -> Option<ElfFile> {
        let metadata = std::fs::metadata(path).ok()?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return None;
        }
        let stamp = (metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec());
        if let Some(read) = self.read().get(path).filter(|read| read.stamp == stamp) {
            return read.file.clone();
        }
        let file = File::open(path).ok().and_then(ElfFile::open);
        let mut read = self.read();
        if read.len() >= LIBRARIES_MAX {
            read.clear();
        }
        read.insert(path.to_owned(), Read { stamp, file: file.clone() });
        file
    }

    fn read(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Libraries<'_> {
    /// The symbol versions that the library of this name defines; None where there is no such library. `more` are
    /// directories that the program itself names. Blocking.
    pub fn defined(&mut self, soname: &Soname, more: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        if let Some(Some(found)) = self.found.get(soname) {
            return Some(found.clone());
        }
        let usual = if self.found.contains_key(soname) { None } else { self.look(soname, &self.dirs) };
        if usual.is_some() {
            self.found.insert(soname.clone(), usual.clone());
            return usual;
        }
        self.found.insert(soname.clone(), None);
        let more: Vec<PathBuf> = more.iter().map(|dir| self.machine.root.join(dir.trim_start_matches('/'))).collect();
        self.look(soname, &more)
    }

    fn look(&self, soname: &Soname, dirs: &[PathBuf]) -> Option<BTreeSet<String>> {
        let files = dirs.iter().filter_map(|dir| self.machine.file(&dir.join(&soname.name)));
        files.into_iter().find(|file| file.abi == soname.abi).map(|file| file.defined)
    }
}

/// Directories of an `ld.so.conf`, and of what it includes (`include PATH/*.conf`).
fn read_conf(root: &Path, path: &Path, dirs: &mut Vec<PathBuf>, files: &mut BTreeSet<PathBuf>) {
    let whole = root.join(path);
    let small = std::fs::metadata(&whole).is_ok_and(|metadata| metadata.len() <= CONF_BYTES_MAX);
    if files.len() > CONF_MAX || !small || !files.insert(whole.clone()) {
        return;
    }
    let text = std::fs::read_to_string(&whole).unwrap_or_default();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if dirs.len() >= CONF_MAX {
            return;
        }
        if let Some(pattern) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
            let pattern = pattern.trim().trim_start_matches('/');
            let base =
                if line.contains("/etc/") || pattern.starts_with("etc/") { PathBuf::new() } else { "etc".into() };
            included(root, &base.join(pattern)).iter().for_each(|path| read_conf(root, path, dirs, files));
        } else if line.starts_with('/') {
            dirs.push(root.join(line.trim_start_matches('/')));
        }
    }
}

/// Files that a path with at most one `*` in its last part names, below the root.
fn included(root: &Path, pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((front, back)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let folder = pattern.parent().unwrap_or(Path::new(""));
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let fits =
        |name: &String| name.len() >= front.len() + back.len() && name.starts_with(front) && name.ends_with(back);
    let mut files: Vec<PathBuf> = names.filter(fits).map(|name| folder.join(name)).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;
    use tree::elf::Abi;

    #[test]
    fn directories_are_those_of_ld_so_conf_and_the_usual_ones() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("etc/ld.so.conf", "# words\ninclude ld.so.conf.d/*.conf\n/opt/lib # more\ninclude /etc/other.conf\n");
        put("etc/ld.so.conf.d/b.conf", "/b\n");
        put("etc/ld.so.conf.d/a.conf", "/a\ninclude /etc/ld.so.conf\n");
        put("etc/ld.so.conf.d/a.conf.bak", "/never\n");
        put("etc/other.conf", "/other\nrelative\n");
        let machine = Machine::new(dir.path(), CpuFeatures::default());
        let libraries = machine.libraries();
        let mut dirs: Vec<&Path> = libraries.dirs.iter().map(|path| path.strip_prefix(dir.path()).unwrap()).collect();
        let usual = dirs.split_off(dirs.len() - USUAL.len());
        assert!(
            dirs.contains(&Path::new("a")) && dirs.contains(&Path::new("b")) && dirs.contains(&Path::new("opt/lib"))
        );
        assert!(
            dirs.contains(&Path::new("other")) && !dirs.contains(&Path::new("never")) && dirs.len() == 4,
            "{dirs:?}"
        );
        assert_eq!(usual[0], Path::new("lib64"));
    }

    #[test]
    fn the_c_library_of_this_machine_is_found_by_its_name_and_abi() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let own = ElfFile::read(own.as_slice()).unwrap();
        let libc = own.needed.iter().find(|name| name.starts_with("libc.")).unwrap();
        let machine = Machine::here();
        let mut libraries = machine.libraries();
        let soname = Soname { abi: own.abi, name: libc.clone() };
        let defined = libraries.defined(&soname, &BTreeSet::new()).expect("this program runs here");
        for (library, version) in own.versions.iter().filter(|(library, _)| library == libc) {
            assert!(defined.contains(version), "{library} {version}");
        }
        let strange = Soname { abi: Abi { bits: 64, machine: 9999 }, name: libc.clone() };
        assert_eq!(libraries.defined(&strange, &BTreeSet::new()), None, "of another kind of machine");
        assert_eq!(libraries.defined(&Soname { name: "libno-such.so.7".into(), ..soname }, &BTreeSet::new()), None);
    }

    #[test]
    fn a_program_finds_libraries_in_its_own_directories_and_a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("opt/app")).unwrap();
        let path = dir.path().join("opt/app/libx.so.1");
        std::fs::copy("/proc/self/exe", &path).unwrap();
        let abi = ElfFile::open(File::open(&path).unwrap()).unwrap().abi;
        let soname = Soname { abi, name: "libx.so.1".into() };
        let machine = Machine::new(dir.path(), CpuFeatures::default());
        let more = BTreeSet::from(["/opt/app".to_owned()]);
        assert_eq!(machine.libraries().defined(&soname, &BTreeSet::new()), None);
        let mut libraries = machine.libraries();
        assert!(libraries.defined(&soname, &BTreeSet::new()).is_none() && libraries.defined(&soname, &more).is_some());
        std::fs::write(&path, "no library any more").unwrap();
        assert_eq!(machine.libraries().defined(&soname, &more), None);
    }
}
