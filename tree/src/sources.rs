//! Which files make.conf and the files of package.env `source`: Portage reads them wherever they lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::conf;
use crate::getconfig;

/// What make.conf names by `source`, and its values, which files of package.env may use in their own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    values: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

impl Sources {
    /// Reads `etc/make.conf` and `etc/portage/make.conf` below `config_root`. Where a file is wrong, what stands behind the
    /// fault is not seen: Portage stops there, and says why.
    #[must_use]
    pub fn of_make_conf(config_root: &Path) -> Self {
        let mut sources = Self { values: conf::first_values(config_root), files: Vec::new() };
        for place in conf::make_conf_places(config_root) {
            for path in conf::files_below(&place).unwrap_or_default() {
                sources.read(&path);
            }
        }
        sources
    }

    fn read(&mut self, path: &Path) {
        let mut sourced = Vec::new();
        let _stopped = getconfig::read_noting(path, &mut self.values, &mut sourced);
        self.files.append(&mut sourced);
    }

    /// The files, as they are named, those of other files after these; also the ones that are not there.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What a file of package.env names.
    #[must_use]
    pub fn of_env(&self, path: &Path) -> Vec<PathBuf> {
        let mut of_env = Self { values: self.values.clone(), files: Vec::new() };
        of_env.read(path);
        of_env.files
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;

    #[test]
    fn sources_of_sources_are_named_and_those_that_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, out) = (dir.path().join("etc/portage"), dir.path().join("out"));
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(&out).unwrap();
        let text = format!("DOTS={0}\nsource ${{DOTS}}/one\nA=1\nsource {0}/none\nB=2", out.display());
        std::fs::write(etc.join("make.conf"), text).unwrap();
        std::fs::write(out.join("one"), "source two\nsource \"./three\"\n").unwrap();
        std::fs::write(out.join("two"), "").unwrap();
        std::fs::write(out.join("three"), "C=3").unwrap();
        let sources = Sources::of_make_conf(dir.path());
        let named: Vec<_> = sources.files().iter().map(|file| file.strip_prefix(&out).unwrap()).collect();
        assert_eq!(named, ["one", "two", "three", "none"].map(Path::new));
        let value = |name: &str| sources.values.get(name).map(String::as_str);
        assert_eq!((value("C"), value("A"), value("B")), (Some("3"), Some("1"), None));
        std::fs::write(etc.join("env"), "source ${DOTS}/two").unwrap();
        assert_eq!(sources.of_env(&etc.join("env")), [out.join("two")]);
    }
}
