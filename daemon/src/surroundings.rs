//! What the process finds around it, and the defaults that depend on it.

use std::path::PathBuf;
pub use tree::conf::RepoVariables;

/// What the process finds around it; read once by the command line.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// True for uid 0.
    pub is_root: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// What Portage's own variables say about the repositories.
    pub repo_variables: RepoVariables,
    /// A variable names a proxy (`http_proxy` and its like).
    pub has_proxy: bool,
}

/// The socket clients try when nobody names one.
#[must_use]
pub fn default_control(around: &Surroundings) -> PathBuf {
    match &around.xdg_runtime_dir {
        Some(dir) if !around.is_root => dir.join("peer/control.sock"),
        _ => PathBuf::from("/run/peer/control.sock"),
    }
}

/// Where a daemon keeps everything when nobody says; none without a home.
pub(crate) fn default_data_dir(around: &Surroundings) -> Option<PathBuf> {
    if around.is_root {
        return Some(PathBuf::from("/var/lib/peer"));
    }
    around
        .xdg_data_home
        .clone()
        .or_else(|| Some(around.home.as_ref()?.join(".local/share")))
        .map(|dir| dir.join("peer"))
}
