//! The configuration: a TOML file, overridden by flags and `PEER_*` variables, made into one checked [`Config`].
//!
//! Unknown keys are refused. Sizes are written with their unit (`"40 GiB"`).
//! Nothing here reads the environment: the caller says what surrounds the process ([`Surroundings`]).

use crate::config_build::{BuildConfig, BuildSection, BuildShare, OnMiss};
use crate::config_offload::{OffloadConfig, OffloadSection};
use crate::surroundings::default_data_dir;
pub use crate::surroundings::{Surroundings, default_control};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tree::conf::RepoVariables;

/// Where a configuration file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/peer/peer.toml";
/// A configuration file larger than this is refused: it is written by hand.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What flags and variables say; `None` and empty mean "not said".
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--http`.
    pub http: Vec<SocketAddr>,
    /// `--control`.
    pub control: Option<PathBuf>,
    /// `--p2p`.
    pub p2p: Vec<String>,
    /// `--peer`.
    pub peers: Vec<String>,
    /// `--no-mdns`.
    pub no_mdns: bool,
    /// `--repo`.
    pub repos: Vec<PathBuf>,
    /// `--mirror`.
    pub mirrors: Vec<String>,
    /// `--config-root`.
    pub config_root: Option<PathBuf>,
}

/// Everything a daemon needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Portage's own variables about the repositories, as the daemon's environment has them.
    pub repo_variables: RepoVariables,
    /// A proxy looks names up for the daemon, as its environment says.
    pub proxied: bool,
    /// Store, index and keys.
    pub data_dir: PathBuf,
    /// Addresses of the mirror and the status page.
    pub http: Vec<SocketAddr>,
    /// Host names by which `http` may be asked, besides addresses and `localhost`.
    pub http_names: Vec<String>,
    /// The socket for the verbs.
    pub control: PathBuf,
    /// Where peers connect.
    pub swarm_listen: Vec<String>,
    /// Peers to dial.
    pub swarm_peers: Vec<String>,
    /// Discovery on the LAN.
    pub mdns: bool,
    /// Ebuild repositories; `None` means those of Portage's repos.conf.
    pub repos: Option<Vec<PathBuf>>,
    /// Gentoo mirrors above this node; `None` means GENTOO_MIRRORS of make.conf.
    pub mirrors: Option<Vec<String>>,
    /// Where Portage's configuration is (`DIR/etc/portage`).
    pub config_root: PathBuf,
    /// The budget of the store; `None` means the disk is the limit.
    pub store_size_max: Option<Size>,
    /// Free space gc and ingest leave on the filesystem.
    pub store_free_min: Size,
    /// Check SHA512 beside BLAKE2B; Portage checks it again anyway.
    pub check_sha512: bool,
    /// Give distfiles to peers.
    pub share_distfiles: bool,
    /// Give them to far peers too, not only to the local network and to peers that were named.
    pub share_wan: bool,
    /// Bytes a second given to all peers together; `None` means no ceiling.
    pub share_upload_max: Option<Size>,
    /// Seconds without a byte after which an HTTP source is left for the next.
    pub mirror_stall_s: u64,
    /// Transfers at the same time.
    pub transfers_max: usize,
    /// What this machine is called among members of its groups; `None` means its host name.
    pub node_name: Option<String>,
    /// How packages are built.
    pub build: BuildConfig,
    /// What others build for this machine, and it for them.
    pub offload: OffloadConfig,
}

/// Where an effective value came from, for `peer check-config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The key as the file spells it.
    pub key: &'static str,
    /// The effective value.
    pub value: String,
    /// `flag or variable`, the file's path, or `default`.
    pub from: String,
}

/// A number of bytes, spelled with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is no size.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a size; expected a number and a unit, such as \"40 GiB\"")]
pub struct ParseSizeError {
    text: String,
}

impl FromStr for Size {
    type Err = ParseSizeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSizeError { text: text.chars().take(64).collect() };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at_checked(split).ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            "TiB" | "T" => 1 << 40,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides it: prints what parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration {path} is larger than {FILE_MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file does not say what can be understood.
    #[error("cannot understand the configuration {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// There is no place for the data.
    #[error("no place for the data: neither XDG_DATA_HOME nor HOME is set; say --data-dir")]
    NoDataDir,
    /// A value cannot be meant.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    repos: Option<Vec<PathBuf>>,
    http: HttpSection,
    control: ControlSection,
    swarm: SwarmSection,
    mirrors: MirrorsSection,
    portage: PortageSection,
    store: StoreSection,
    share: ShareSection,
    node: NodeSection,
    build: BuildSection,
    offload: OffloadSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NodeSection {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    listen: Option<Vec<SocketAddr>>,
    names: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ControlSection {
    socket: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SwarmSection {
    listen: Option<Vec<String>>,
    peers: Option<Vec<String>>,
    mdns: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MirrorsSection {
    list: Option<Vec<String>>,
    stall_s: Option<u64>,
    transfers_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PortageSection {
    config_root: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreSection {
    size_max: Option<Size>,
    free_min: Option<Size>,
    check_sha512: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShareSection {
    distfiles: Option<bool>,
    wan: Option<bool>,
    upload_per_second_max: Option<Size>,
}

/// Picks flag over file over default and keeps note of which it was.
pub(super) struct Picker {
    file: String,
    origins: Vec<Origin>,
}

impl Picker {
    pub(super) fn pick<T>(
        &mut self,
        key: &'static str,
        flag: Option<T>,
        file: Option<T>,
        default: T,
        show: impl Fn(&T) -> String,
    ) -> T {
        let (value, from) = match (flag, file) {
            (Some(value), _) => (value, "flag or variable".to_owned()),
            (None, Some(value)) => (value, self.file.clone()),
            (None, None) => (default, "default".to_owned()),
        };
        self.origins.push(Origin { key, value: show(&value), from });
        value
    }
}

fn merge_build(file: BuildSection, picker: &mut Picker) -> BuildConfig {
    let path = |path: &PathBuf| path.display().to_string();
    BuildConfig {
        root: picker.pick("build.root", None, file.root, PathBuf::from("/"), path),
        binds: picker.pick("build.binds", None, file.binds, Vec::new(), |list| show_list(list)),
        jobs_max: picker.pick("build.jobs_max", None, file.jobs_max, 1, ToString::to_string),
        memory_max: picker.pick("build.memory_max", None, file.memory_max, Size(8 << 30), ToString::to_string),
        disk_max: picker.pick("build.disk_max", None, file.disk_max, Size(64 << 30), ToString::to_string),
        processes_max: picker.pick("build.processes_max", None, file.processes_max, 4096, ToString::to_string),
        time_max_s: picker.pick("build.time_max_s", None, file.time_max_s, 12 * 3600, ToString::to_string),
        variables: picker.pick("build.variables", None, file.variables, Vec::new(), |list| show_list(list)),
        on_miss: picker.pick("build.on_miss", None, file.on_miss, OnMiss::default(), ToString::to_string),
        share: picker.pick("build.share", None, file.share, BuildShare::Group, ToString::to_string),
    }
}

fn non_empty<T>(list: &[T]) -> Option<Vec<T>>
where
    T: Clone,
{
    (!list.is_empty()).then(|| list.to_vec())
}

fn show_list<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn show_paths(list: &[PathBuf]) -> String {
    list.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}

impl Config {
    /// Reads the file, lays flags and variables over it, fills in defaults and checks the whole.
    ///
    /// # Errors
    /// When a file that was named (or lies at [`DEFAULT_FILE`]) cannot be read or understood, or a value cannot be meant.
    pub fn load(overrides: &Overrides, around: &Surroundings) -> Result<(Self, Vec<Origin>), LoadConfigError> {
        let (file, file_name) = read_file(overrides.config.as_deref())?;
        let mut picker = Picker { file: file_name, origins: Vec::new() };
        let data_dir = overrides.data_dir.clone().or(file.data_dir.clone());
        let default_dir = match (&data_dir, default_data_dir(around)) {
            (None, None) => return Err(LoadConfigError::NoDataDir),
            (_, dir) => dir.unwrap_or_default(),
        };
        let mut config = Self::merge(overrides, file, default_dir, default_control(around), &mut picker);
        config.repo_variables = around.repo_variables.clone();
        config.proxied = around.has_proxy;
        config.check()?;
        Ok((config, picker.origins))
    }

    fn merge(flags: &Overrides, file: File, data_dir: PathBuf, control: PathBuf, picker: &mut Picker) -> Self {
        let path = |path: &PathBuf| path.display().to_string();
        let optional = |list: &Option<Vec<String>>| list.as_ref().map_or("of make.conf".to_owned(), |l| show_list(l));
        let default_http = vec![SocketAddr::from(([127, 0, 0, 1], 8420))];
        let default_p2p =
            ["/ip4/0.0.0.0/tcp/8421", "/ip6/::/tcp/8421", "/ip4/0.0.0.0/udp/8421/quic-v1", "/ip6/::/udp/8421/quic-v1"];
        let default_p2p = default_p2p.map(str::to_owned).to_vec();
        let build = merge_build(file.build, picker);
        Self {
            data_dir: picker.pick("data_dir", flags.data_dir.clone(), file.data_dir, data_dir, path),
            http: picker.pick("http.listen", non_empty(&flags.http), file.http.listen, default_http, |l| show_list(l)),
            http_names: picker.pick("http.names", None, file.http.names, Vec::new(), |list| show_list(list)),
            control: picker.pick("control.socket", flags.control.clone(), file.control.socket, control, path),
            swarm_listen: picker
                .pick("swarm.listen", non_empty(&flags.p2p), file.swarm.listen, default_p2p, |l| show_list(l)),
            swarm_peers: picker
                .pick("swarm.peers", non_empty(&flags.peers), file.swarm.peers, Vec::new(), |l| show_list(l)),
            mdns: picker.pick("swarm.mdns", flags.no_mdns.then_some(false), file.swarm.mdns, true, ToString::to_string),
            repos: picker.pick("repos", non_empty(&flags.repos).map(Some), file.repos.map(Some), None, |list| {
                list.as_ref().map_or("of repos.conf".to_owned(), |l| show_paths(l))
            }),
            mirrors: picker.pick(
                "mirrors.list",
                non_empty(&flags.mirrors).map(Some),
                file.mirrors.list.map(Some),
                None,
                optional,
            ),
            config_root: picker.pick(
                "portage.config_root",
                flags.config_root.clone(),
                file.portage.config_root,
                PathBuf::from("/"),
                path,
            ),
            store_size_max: picker.pick("store.size_max", None, file.store.size_max.map(Some), None, |size| {
                size.map_or("no limit".to_owned(), |size| size.to_string())
            }),
            store_free_min: picker.pick(
                "store.free_min",
                None,
                file.store.free_min,
                Size(1 << 30),
                ToString::to_string,
            ),
            check_sha512: picker.pick("store.check_sha512", None, file.store.check_sha512, false, ToString::to_string),
            share_distfiles: picker.pick("share.distfiles", None, file.share.distfiles, true, ToString::to_string),
            share_wan: picker.pick("share.wan", None, file.share.wan, false, ToString::to_string),
            share_upload_max: picker.pick(
                "share.upload_per_second_max",
                None,
                file.share.upload_per_second_max.map(Some),
                None,
                |size| size.map_or("no limit".to_owned(), |size| size.to_string()),
            ),
            mirror_stall_s: picker.pick("mirrors.stall_s", None, file.mirrors.stall_s, 5, ToString::to_string),
            transfers_max: picker.pick(
                "mirrors.transfers_max",
                None,
                file.mirrors.transfers_max,
                16,
                ToString::to_string,
            ),
            node_name: picker.pick("node.name", None, file.node.name.map(Some), None, |name| {
                name.clone().unwrap_or_else(|| "the host name".to_owned())
            }),
            offload: OffloadConfig::merge(&file.offload, build.jobs_max, picker),
            build,
            repo_variables: RepoVariables::default(),
            proxied: false,
        }
    }

    /// Refuses values that parse but cannot be meant.
    fn check(&self) -> Result<(), LoadConfigError> {
        let wrong = |key, why: &str| Err(LoadConfigError::Value { key, why: why.to_owned() });
        if self.http.is_empty() {
            return wrong("http.listen", "at least one address is needed: it is what Portage asks");
        }
        if let Some(name) = self.http_names.iter().find(|name| !is_host_name(name)) {
            return wrong("http.names", &format!("{name:?} is no host name such as strong.lan (without a port)"));
        }
        if !(1..=45).contains(&self.mirror_stall_s) {
            return wrong("mirrors.stall_s", "must be from 1 to 45 seconds: Portage itself gives up after 60");
        }
        if !(1..=256).contains(&self.transfers_max) {
            return wrong("mirrors.transfers_max", "must be from 1 to 256");
        }
        if let Err((key, why)) = self.build.check().and_then(|()| self.offload.check()) {
            return wrong(key, why);
        }
        if self.node_name.as_ref().is_some_and(|name| !crate::group::roster::is_name(name)) {
            return wrong("node.name", "must be 1 to 63 letters, digits, dots, underscores and hyphens");
        }
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data_dir", "is empty");
        }
        for mirror in self.mirrors.iter().flatten() {
            if !url::Url::parse(mirror).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                return wrong("mirrors.list", &format!("{mirror:?} is no http or https address"));
            }
        }
        for address in self.swarm_listen.iter().chain(&self.swarm_peers) {
            if let Err(error) = address.parse::<libp2p::Multiaddr>() {
                return wrong(
                    "swarm",
                    &format!("{address:?} is no multiaddr such as /ip4/192.0.2.1/tcp/8421: {error}"),
                );
            }
        }
        Ok(())
    }
}

fn is_host_name(name: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    name.len() <= 253 && name.split('.').all(label)
}

fn read_file(named: Option<&Path>) -> Result<(File, String), LoadConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let failed = |source| LoadConfigError::Read { path: path.to_owned(), source };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((File::default(), String::new()));
        }
        Err(error) => return Err(failed(error)),
    };
    if size > FILE_MAX_BYTES {
        return Err(LoadConfigError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let file = toml::from_str(&text)
        .map_err(|source| LoadConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    Ok((file, path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Surroundings {
        Surroundings {
            is_root: false,
            home: Some("/home/u".into()),
            xdg_data_home: None,
            xdg_runtime_dir: Some("/run/user/7".into()),
            ..Surroundings::default()
        }
    }

    fn load(text: &str, overrides: Overrides) -> Result<(Config, Vec<Origin>), LoadConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.toml");
        store::write_atomically(&path, text.as_bytes(), 0o644).unwrap();
        Config::load(&Overrides { config: Some(path), ..overrides }, &user())
    }

    #[test]
    fn sizes_parse_and_print_back() {
        for (text, bytes) in [("0 B", 0), ("40 GiB", 40 << 30), ("1 KiB", 1024), ("1500 MB", 1_500_000_000), ("7", 7)] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        for text in ["", "GiB", "-1 GiB", "1 XB", "99999999999 TiB", "1.5 GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = load("[http]\nlistne = [\"127.0.0.1:1\"]\n", Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("listne") && error.contains("listen"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Overrides { http: vec!["127.0.0.1:9".parse().unwrap()], ..Overrides::default() };
        let (config, origins) =
            load("[http]\nlisten = [\"127.0.0.1:8\"]\n[store]\nsize_max = \"2 GiB\"\n", flags).unwrap();
        assert_eq!(config.http, ["127.0.0.1:9".parse().unwrap()]);
        assert_eq!(config.store_size_max, Some(Size(2 << 30)));
        assert_eq!(config.data_dir, Path::new("/home/u/.local/share/peer"));
        assert_eq!(config.control, Path::new("/run/user/7/peer/control.sock"));
        let from = |key| origins.iter().find(|origin| origin.key == key).unwrap().from.clone();
        assert_eq!(from("http.listen"), "flag or variable");
        assert!(from("store.size_max").ends_with("peer.toml"));
        assert_eq!(from("data_dir"), "default");
    }

    #[test]
    fn values_that_cannot_be_meant_name_their_key() {
        let error = load("[mirrors]\nstall_s = 60\n", Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with("mirrors.stall_s"), "{error}");
    }

    #[test]
    fn names_of_the_listener_are_host_names() {
        let named = |text: &str| load(&format!("[http]\nnames = [{text:?}]\n"), Overrides::default());
        assert_eq!(named("strong.lan").unwrap().0.http_names, ["strong.lan"]);
        for wrong in ["", "strong.lan:8420", "*.lan", "http://strong.lan", "a..b", "strong.lan."] {
            assert!(named(wrong).unwrap_err().to_string().starts_with("http.names"), "{wrong}");
        }
    }

    #[test]
    fn who_gets_packages_is_a_word_and_the_old_yes_and_no_are_refused_with_a_hint() {
        let share = |text: &str| load(&format!("[build]\nshare = {text}\n"), Overrides::default());
        assert_eq!(share("\"lan\"").unwrap().0.build.share, BuildShare::Lan);
        assert_eq!(share("\"none\"").unwrap().0.build.share, BuildShare::None);
        assert_eq!(load("", Overrides::default()).unwrap().0.build.share, BuildShare::Group);
        for (old, new) in
            [("true", "\"lan\" gives"), ("false", "\"none\" gives"), ("\"all\"", "\"group\", \"lan\" or \"none\"")]
        {
            let error = share(old).unwrap_err().to_string();
            assert!(error.contains(new), "{error}");
        }
    }

    #[test]
    fn a_node_has_a_name_that_is_one() {
        let name = |text: &str| load(&format!("[node]\nname = {text:?}\n"), Overrides::default());
        assert_eq!(name("strong.lan").unwrap().0.node_name.as_deref(), Some("strong.lan"));
        assert!(name("a b").unwrap_err().to_string().starts_with("node.name"));
    }
}
