//! Eclasses: which file a name means for a repository, and whether it is still the one that metadata was made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::confine;
use crate::md5::Md5;
use crate::scan::{self, ScanRepoError, Trace};

/// Bytes of one eclass; the largest real one has some 100 KiB.
const ECLASS_BYTES_MAX: usize = 4 << 20;
/// Stands for all eclasses, where nobody knows which ones an ebuild inherits.
pub const ANY: &str = "*";

/// The eclasses of one repository directory, as they are at one moment. A file is read at most once.
#[derive(Debug)]
pub struct EclassDir {
    files: BTreeMap<String, (PathBuf, Trace)>,
    sums: Mutex<BTreeMap<String, Option<Md5>>>,
}

impl EclassDir {
    /// Lists the eclasses of the repository at `root`; there may be none.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn open(root: &Path) -> Result<Self, ScanRepoError> {
        let mut files = BTreeMap::new();
        for (name, entry) in scan::entries(&root.join("eclass"))? {
            let Some(eclass) = name.strip_suffix(".eclass") else { continue };
            // Through links, as bash reads it.
            let Ok(stat) = fs::metadata(entry.path()) else { continue };
            files.insert(eclass.to_owned(), (entry.path(), Trace::new(&name, &stat)));
        }
        Ok(Self { files, sums: Mutex::default() })
    }

    fn md5(&self, name: &str) -> Option<Md5> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sums.get(name) {
            return *known;
        }
        let (path, _) = self.files.get(name)?;
        let sum = confine::read(path, ECLASS_BYTES_MAX).ok().map(|bytes| Md5::of(&bytes));
        sums.insert(name.to_owned(), sum);
        sum
    }
}

/// The eclasses that the ebuilds of one repository inherit: of its masters, in order, then its own, then those that
/// repos.conf puts over them. Of two with one name the last counts.
#[derive(Debug, Clone, Default)]
pub struct Eclasses(Vec<Arc<EclassDir>>);

impl Eclasses {
    /// The eclasses of these directories, the last before the others.
    #[must_use]
    pub fn new(directories: Vec<Arc<EclassDir>>) -> Self {
        Self(directories)
    }

    fn holder(&self, name: &str) -> Option<&EclassDir> {
        self.0.iter().rev().find(|directory| directory.files.contains_key(name)).map(Arc::as_ref)
    }

    /// The sum of the eclass of that name, if there is one that can be read.
    pub(crate) fn md5(&self, name: &str) -> Option<Md5> {
        self.holder(name)?.md5(name)
    }

    /// A sum that is another when one of these eclasses is, from their places, times and sizes. `names` are parted by
    /// spaces; [`ANY`] means all there are.
    #[must_use]
    pub fn stamp(&self, names: &str) -> [u8; 16] {
        let mut state = blake2b_simd::Params::new().hash_length(16).to_state();
        let mut add = |name: &str| {
            state.update(name.as_bytes()).update(&[0]);
            match self.holder(name).and_then(|holder| holder.files.get(name)) {
                Some((path, trace)) => {
                    state.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
                    trace.add_to(&mut state);
                }
                None => {
                    state.update(&[1]);
                }
            }
        };
        if names == ANY {
            let all: BTreeSet<&String> = self.0.iter().flat_map(|directory| directory.files.keys()).collect();
            all.into_iter().for_each(|name| add(name));
        } else {
            names.split(' ').filter(|name| !name.is_empty()).for_each(add);
        }
        scan::first_16(&state.finalize())
    }
}
