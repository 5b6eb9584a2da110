//! `/etc/portage/mirrors`: what the user says of `mirror://`, and mirrors that are asked for every file (portage(5)).

use std::path::Path;

use crate::conf::files_below;
use crate::confine::{self, ReadFileError};
use crate::thirdparty::ThirdPartyMirrors;

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 4 << 20;
/// The name of the mirrors that are asked for every file.
const LOCAL: &str = "local";

/// The user's mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomMirrors {
    table: ThirdPartyMirrors,
}

impl CustomMirrors {
    /// Loads `etc/portage/mirrors` below `config_root`, a file or a directory; it need not be there.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn load(config_root: &Path) -> Result<Self, ReadFileError> {
        let mut table = ThirdPartyMirrors::default();
        for path in files_below(&config_root.join("etc/portage/mirrors"))? {
            let text = String::from_utf8_lossy(&confine::read(&path, FILE_BYTES_MAX)?).into_owned();
            table.merge(&ThirdPartyMirrors::parse(&text));
        }
        Ok(Self { table })
    }

    /// Mirrors that are asked for every file, restricted or not, in order.
    #[must_use]
    pub fn local(&self) -> &[String] {
        self.table.hosts(LOCAL)
    }

    /// What the names in `mirror://NAME/` mean, before all that repositories say.
    #[must_use]
    pub fn named(&self) -> &ThirdPartyMirrors {
        &self.table
    }
}
