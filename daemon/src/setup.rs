//! `peer setup`: the lines that make Portage ask this node, planned, shown and written, and taken out again.
//!
//! Three files are changed, each by a block of its own between marks, so that undoing it restores every other byte:
//! `make.conf`, where GENTOO_MIRRORS gets this node before the user's mirrors (which stay: Portage goes on to them by
//! itself when the daemon is stopped), and `mirrors`, whose `local` line Portage asks first, and even for
//! `RESTRICT=mirror` and `RESTRICT=fetch` (portage(5), "mirrors"); and `binrepos.conf`, where this node's binhost becomes
//! one of those that `emerge --getbinpkg` asks.

mod binrepos;
mod block;
mod diff;
mod text;

pub use binrepos::{binhost_url, names_binhost, plan_binhost};
use block::{Place, Stripped};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use text::Text;

/// A file of Portage's configuration larger than this is none that a person wrote.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files looked at where make.conf or mirrors is a directory.
const FILES_MAX: usize = 1000;
/// Where make.conf is a directory Portage reads it in order of name, and the last assignment has the last word.
const LAST_FILE: &str = "zz-peer.conf";
/// Where mirrors is a directory: Portage asks the `local` hosts in the order it reads them.
const FIRST_FILE: &str = "00-peer.conf";
/// Mode of a new file: Portage reads its configuration as several users.
const NEW_MODE: u32 = 0o644;
/// Mode of a new directory, likewise.
const NEW_DIRECTORY_MODE: u32 = 0o755;

/// Whose configuration is changed.
#[derive(Clone, Debug)]
pub struct Portage {
    /// `DIR` of `DIR/etc/portage`, as in PORTAGE_CONFIGROOT.
    pub config_root: PathBuf,
}

/// What Portage shall ask.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Where this node's mirror listens.
    pub http: SocketAddr,
}

/// A file as it is and as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file itself, behind all symbolic links.
    pub path: PathBuf,
    /// Its text; none when there is no such file.
    pub before: Option<String>,
    /// Its text afterwards; none when it shall go.
    pub after: Option<String>,
    /// The directory it is in is made with it, or goes with it when nothing else is in it.
    pub with_directory: bool,
}

impl Edit {
    /// The change as a unified diff.
    #[must_use]
    pub fn diff(&self) -> String {
        diff::unified(&self.path.display().to_string(), self.before.as_deref(), self.after.as_deref())
    }
}

/// Why Portage's configuration cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// This machine has no Portage, or it is elsewhere.
    #[error("{path} is not a directory: is this Gentoo? say --config-root DIR if its configuration is elsewhere")]
    NoPortage {
        /// What was looked for.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not a text that a person wrote.
    #[error("{path} has more than {FILE_BYTES_MAX} bytes: change it by hand")]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// Somebody changed the marks.
    #[error("{path} has one of the marks of `peer setup` without the other: mend it by hand")]
    Mangled {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what the plan was made for.
    #[error("{path} was changed by somebody else meanwhile: nothing more was written; run it again")]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: is this run as root?")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The address under which this machine itself reaches a listener: the unspecified address means loopback.
#[must_use]
pub fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// The URL that GENTOO_MIRRORS and the `local` line name: Portage adds `/distfiles/…` itself.
#[must_use]
pub fn mirror_url(listener: SocketAddr) -> String {
    format!("http://{}", reachable(listener))
}

/// The changes that make Portage ask this node; none when it does already.
///
/// # Errors
/// When there is no Portage configuration, or it cannot be read or understood.
pub fn plan(portage: &Portage, targets: &Targets) -> Result<Vec<Edit>, SetupError> {
    let url = mirror_url(targets.http);
    let dir = portage.dir();
    if !dir.is_dir() {
        return Err(SetupError::NoPortage { path: dir });
    }
    let make_conf = Wanted {
        body: format!("GENTOO_MIRRORS=\"{url} ${{GENTOO_MIRRORS}}\"\n"),
        place: Place::End,
        has_last_word: |line| {
            line.starts_with("GENTOO_MIRRORS") || line.starts_with("source ") || line.starts_with(". ")
        },
        said_by_user: format!("GENTOO_MIRRORS=\"{url} "),
        own_file: LAST_FILE,
        as_directory: false,
    };
    let mirrors = Wanted {
        body: format!("local {url}\n"),
        place: Place::Start,
        has_last_word: |line| line.split_whitespace().next() == Some("local"),
        said_by_user: format!("local {url}"),
        own_file: FIRST_FILE,
        as_directory: false,
    };
    let mut edits = make_conf.plan(&dir.join("make.conf"))?;
    edits.extend(mirrors.plan(&dir.join("mirrors"))?);
    Ok(edits)
}

/// The changes that take out everything [`plan`] put in, and nothing else; none when there is nothing of it.
///
/// # Errors
/// When the configuration cannot be read or the marks were changed.
pub fn plan_undo(portage: &Portage) -> Result<Vec<Edit>, SetupError> {
    let mut edits = Vec::new();
    for name in ["make.conf", "mirrors", binrepos::NAME] {
        for (path, before) in files(&portage.dir().join(name))? {
            let stripped = strip(&path, &before)?;
            edits.extend(edit(path, Some(before), stripped.rest, stripped.made_directory));
        }
    }
    Ok(edits)
}

/// Writes the changes: each file whole or not at all, with the mode and the owner it has.
///
/// # Errors
/// When a file is no more what the plan was made for, or cannot be written; the files before it are written then.
pub fn apply(edits: &[Edit]) -> Result<(), SetupError> {
    edits.iter().try_for_each(apply_one)
}

fn apply_one(edit: &Edit) -> Result<(), SetupError> {
    let path = &edit.path;
    let found = if path.exists() { Some(Text::read(path)?) } else { None };
    if found.as_ref().map(|found| &found.text) != edit.before.as_ref() {
        return Err(SetupError::ChangedMeanwhile { path: path.clone() });
    }
    let failed = |source: io::Error| SetupError::Write { path: path.clone(), source: source.into() };
    let directory = path.parent().filter(|_| edit.with_directory);
    let Some(after) = &edit.after else {
        std::fs::remove_file(path).map_err(failed)?;
        // What others have put into it meanwhile keeps it.
        directory.map(std::fs::remove_dir).transpose().unwrap_or_default();
        return Ok(());
    };
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        std::fs::DirBuilder::new().mode(NEW_DIRECTORY_MODE).create(directory).map_err(failed)?;
    }
    let old = found.is_some().then(|| std::fs::metadata(path)).transpose().map_err(failed)?;
    let mode = old.as_ref().map_or(NEW_MODE, |old| old.mode() & 0o7777);
    let bytes = Text { text: after.clone(), is_latin1: found.is_some_and(|found| found.is_latin1) }.into_bytes();
    store::write_atomically(path, &bytes, mode)
        .map_err(|source| SetupError::Write { path: path.clone(), source: source.into() })?;
    let new = std::fs::metadata(path).map_err(failed)?;
    match old {
        Some(old) if (old.uid(), old.gid()) != (new.uid(), new.gid()) => {
            std::os::unix::fs::chown(path, Some(old.uid()), Some(old.gid())).map_err(failed)
        }
        _ => Ok(()),
    }
}

impl Portage {
    fn dir(&self) -> PathBuf {
        let dir = self.config_root.join("etc/portage");
        // Where it cannot be resolved it cannot be read either, and that is told with the path as it was said.
        dir.canonicalize().unwrap_or(dir)
    }
}

/// What one of the configurations shall say.
struct Wanted {
    body: String,
    place: Place,
    /// True for a line that undoes our block when it stands nearer to the place the block belongs to.
    has_last_word: fn(&str) -> bool,
    /// How the line begins by which a user may have said it already.
    said_by_user: String,
    /// Name of the block's own file where the configuration is a directory.
    own_file: &'static str,
    /// Where there is neither file nor directory it is to become a directory.
    as_directory: bool,
}

impl Wanted {
    fn plan(&self, path: &Path) -> Result<Vec<Edit>, SetupError> {
        let mut texts: BTreeMap<PathBuf, String> = files(path)?.into_iter().collect();
        let new_directory = self.as_directory && path.symlink_metadata().is_err();
        let target = if path.is_dir() || new_directory { path.join(self.own_name(path)?) } else { real(path)? };
        let mut edits = Vec::new();
        if !self.said(texts.values()) {
            let before = texts.remove(&target);
            let stripped = before.as_deref().map(|before| strip(&target, before)).transpose()?;
            let after = match (&before, stripped) {
                (Some(before), Some(stripped)) if stripped.stands_well(&self.body, self.place, self.has_last_word) => {
                    before.clone()
                }
                (_, stripped) => {
                    let made_directory = new_directory || stripped.as_ref().is_some_and(|s| s.made_directory);
                    let rest = stripped.and_then(|stripped| stripped.rest);
                    block::insert(rest.as_deref(), made_directory, &self.body, self.place)
                }
            };
            edits.extend(edit(target, before, Some(after), new_directory));
        }
        // Blocks elsewhere are left from when the configuration was laid out otherwise.
        for (path, before) in texts {
            let stripped = strip(&path, &before)?;
            edits.extend(edit(path, Some(before), stripped.rest, stripped.made_directory));
        }
        Ok(edits)
    }

    /// The name of the block's own file in a directory: one that Portage reads after all others, where that is its place.
    fn own_name(&self, dir: &Path) -> Result<String, SetupError> {
        let failed = |source| SetupError::Read { path: dir.to_owned(), source };
        if self.place == Place::Start || !dir.is_dir() {
            return Ok(self.own_file.to_owned());
        }
        let mut last = None;
        for entry in std::fs::read_dir(dir).map_err(failed)?.take(FILES_MAX) {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let is_read = !name.starts_with('.') && !name.ends_with('~') && !name.ends_with(self.own_file);
            last = last.max(is_read.then_some(name));
        }
        // A name that begins with another stands right behind it.
        let behind = last.filter(|last| last.as_str() > self.own_file).map(|last| format!("{last}-{}", self.own_file));
        Ok(behind.unwrap_or_else(|| self.own_file.to_owned()))
    }

    /// True when the user's own lines say it, outside every block.
    fn said<'a>(&self, mut texts: impl Iterator<Item = &'a String>) -> bool {
        texts.any(|text| {
            let own = block::strip(text).ok().and_then(|stripped| stripped.rest).unwrap_or_default();
            own.lines().any(|line| {
                let rest = line.trim_start().strip_prefix(&self.said_by_user);
                rest.is_some_and(|rest| {
                    self.said_by_user.ends_with(' ') || !rest.starts_with(|c: char| !c.is_whitespace())
                })
            })
        })
    }
}

fn strip(path: &Path, text: &str) -> Result<Stripped, SetupError> {
    block::strip(text).map_err(|block::Mangled| SetupError::Mangled { path: path.to_owned() })
}

fn edit(path: PathBuf, before: Option<String>, after: Option<String>, with_directory: bool) -> Option<Edit> {
    (before != after).then_some(Edit { path, before, after, with_directory })
}

/// The file behind symbolic links, for a rename would replace the link; the path itself where nothing is yet.
fn real(path: &Path) -> Result<PathBuf, SetupError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        _ => path.canonicalize().map_err(|source| SetupError::Read { path: path.to_owned(), source }),
    }
}

/// The texts of a file, or of the files of a directory that Portage would read, in its order.
pub(crate) fn files(path: &Path) -> Result<Vec<(PathBuf, String)>, SetupError> {
    if !path.is_dir() {
        let path = real(path)?;
        return if path.exists() { Ok(vec![(path.clone(), Text::read(&path)?.text)]) } else { Ok(Vec::new()) };
    }
    let failed = |source| SetupError::Read { path: path.to_owned(), source };
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)?.take(FILES_MAX) {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_encoded_bytes();
        if entry.path().is_file() && !name.starts_with(b".") && !name.ends_with(b"~") {
            let path = real(&entry.path())?;
            let text = Text::read(&path)?.text;
            texts.push((path, text));
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const HTTP: &str = "127.0.0.1:8420";

    /// A configuration root with these files under `etc/portage`.
    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Portage) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        for (name, text) in files {
            put(dir.path(), name, text);
        }
        let portage = Portage { config_root: dir.path().canonicalize().unwrap() };
        (dir, portage)
    }

    fn put(root: &Path, name: &str, text: &str) {
        let path = root.join("etc/portage").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        store::write_atomically(&path, text.as_bytes(), 0o640).unwrap();
    }

    fn get(portage: &Portage, name: &str) -> Option<String> {
        std::fs::read_to_string(portage.dir().join(name)).ok()
    }

    fn set_up(portage: &Portage, http: &str) -> Vec<Edit> {
        let edits = plan(portage, &Targets { http: http.parse().unwrap() }).unwrap();
        apply(&edits).unwrap();
        edits
    }

    fn undo(portage: &Portage) {
        apply(&plan_undo(portage).unwrap()).unwrap();
    }

    const USUAL: &str =
        "CFLAGS=\"-O2\"\nGENTOO_MIRRORS=\"https://a.example/gentoo \\\n  https://b.example\"\nUSE=\"x\"\n";

    #[test]
    fn this_node_comes_before_the_mirrors_of_the_user_and_undo_restores_every_byte() {
        for make_conf in [USUAL, "", "\n", "A=1", "A=1\n\n\n", "# nothing\r\n", "A=\"ü\"\n# no newline at the end"] {
            for mirrors in ["", "local http://other.example\n", "npm http://n.example"] {
                let (_dir, portage) = root(&[("make.conf", make_conf), ("mirrors", mirrors)]);
                set_up(&portage, HTTP);
                let set = get(&portage, "make.conf").unwrap();
                assert!(set.starts_with(make_conf), "{set}");
                assert!(set.contains("\nGENTOO_MIRRORS=\"http://127.0.0.1:8420 ${GENTOO_MIRRORS}\"\n"), "{set}");
                let set = get(&portage, "mirrors").unwrap();
                assert!(set.ends_with(mirrors) && set.contains("\nlocal http://127.0.0.1:8420\n"), "{set}");
                undo(&portage);
                assert_eq!(get(&portage, "make.conf").as_deref(), Some(make_conf));
                assert_eq!(get(&portage, "mirrors").as_deref(), Some(mirrors));
                assert_eq!(plan_undo(&portage).unwrap(), []);
            }
        }
    }

    #[test]
    fn a_file_with_a_byte_that_is_no_utf8_is_changed_and_keeps_it() {
        let (_dir, portage) = root(&[]);
        let path = portage.dir().join("make.conf");
        let before = b"# caf\xe9 \xff\xc3\xa4\nA=1";
        store::write_atomically(&path, before, 0o644).unwrap();
        set_up(&portage, HTTP);
        let set = std::fs::read(&path).unwrap();
        assert!(set.starts_with(before) && set.len() > before.len(), "{}", String::from_utf8_lossy(&set));
        assert_eq!(set_up(&portage, HTTP), []);
        undo(&portage);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    /// The last assignment has the last word, so that ours must stand behind every file that makes one.
    #[test]
    fn in_a_directory_the_own_file_is_the_last_that_is_read() {
        let cases: [(&[&str], &str); 6] = [
            (&["10-a.conf"], "zz-peer.conf"),
            (&["zz-local.conf"], "zz-peer.conf"),
            (&["zzz"], "zzz-zz-peer.conf"),
            (&["zz-peer.conf.d/x", "zz-a"], "zz-peer.conf.d-zz-peer.conf"),
            (&["~last", "a"], "~last-zz-peer.conf"),
            (&["\u{e4}", ".zzzz", "zzzz~"], "\u{e4}-zz-peer.conf"),
        ];
        for (files, name) in cases {
            let files: Vec<(String, String)> = files
                .iter()
                .map(|file| (format!("make.conf/{file}"), "GENTOO_MIRRORS=\"https://late.example\"\n".to_owned()))
                .collect();
            let borrowed: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let (_dir, portage) = root(&borrowed);
            set_up(&portage, HTTP);
            assert!(get(&portage, &format!("make.conf/{name}")).is_some(), "{name} beside {files:?}");
            let read = tree::conf::MakeConf::load(&portage.config_root).unwrap();
            let mirrors = read.get("GENTOO_MIRRORS").unwrap();
            assert_eq!(mirrors, "http://127.0.0.1:8420 https://late.example", "{files:?}");
            assert_eq!(set_up(&portage, HTTP), [], "{files:?}");
            put(&portage.config_root, &format!("make.conf/{name}0"), "GENTOO_MIRRORS=\"https://later.example\"\n");
            set_up(&portage, HTTP);
            let read = tree::conf::MakeConf::load(&portage.config_root).unwrap();
            assert_eq!(read.get("GENTOO_MIRRORS"), Some("http://127.0.0.1:8420 https://later.example"), "{files:?}");
            undo(&portage);
            assert_eq!(plan_undo(&portage).unwrap(), []);
        }
    }

    #[test]
    fn files_that_setup_made_go_with_undo_unless_the_user_wrote_into_them() {
        let (_dir, portage) = root(&[]);
        set_up(&portage, HTTP);
        put(&portage.config_root, "mirrors", &format!("{}mine http://m.example\n", get(&portage, "mirrors").unwrap()));
        undo(&portage);
        assert_eq!(get(&portage, "make.conf"), None);
        assert_eq!(get(&portage, "mirrors").as_deref(), Some("mine http://m.example\n"));
    }

    #[test]
    fn what_the_user_changed_elsewhere_in_the_file_stays_after_undo() {
        let (_dir, portage) = root(&[("make.conf", "A=1")]);
        set_up(&portage, HTTP);
        let set = get(&portage, "make.conf").unwrap();
        put(&portage.config_root, "make.conf", &format!("# mine\n{set}B=2\n"));
        undo(&portage);
        assert_eq!(get(&portage, "make.conf").as_deref(), Some("# mine\nA=1\nB=2\n"));
    }

    #[test]
    fn a_second_time_changes_nothing_and_another_port_replaces_the_first() {
        let (_dir, portage) = root(&[("make.conf", USUAL)]);
        assert_eq!(set_up(&portage, HTTP).len(), 2);
        assert_eq!(set_up(&portage, HTTP), []);
        set_up(&portage, "0.0.0.0:9");
        let set = get(&portage, "make.conf").unwrap();
        assert!(set.contains("http://127.0.0.1:9 ") && !set.contains("8420"), "{set}");
        assert_eq!(get(&portage, "mirrors").unwrap().matches("local").count(), 1);
        undo(&portage);
        assert_eq!(get(&portage, "make.conf").as_deref(), Some(USUAL));
    }

    #[test]
    fn mirrors_that_were_assigned_after_the_block_come_before_it_again() {
        let (_dir, portage) = root(&[("make.conf", "A=1\n")]);
        set_up(&portage, HTTP);
        let set = get(&portage, "make.conf").unwrap();
        put(&portage.config_root, "make.conf", &format!("{set}B=2\n"));
        assert_eq!(set_up(&portage, HTTP), [], "a line that does not matter is no reason to move the block");
        put(&portage.config_root, "make.conf", &format!("{set}GENTOO_MIRRORS=\"http://m.example\"\n"));
        set_up(&portage, HTTP);
        let set = get(&portage, "make.conf").unwrap();
        assert!(set.find("m.example").unwrap() < set.find("8420").unwrap(), "{set}");
    }

    #[test]
    fn what_the_user_already_says_is_not_said_again() {
        let own = "GENTOO_MIRRORS=\"http://127.0.0.1:8420 http://m.example\"\n";
        let (_dir, portage) = root(&[("make.conf", own), ("mirrors", "local http://127.0.0.1:8420\n")]);
        assert_eq!(set_up(&portage, HTTP), []);
        assert_eq!(set_up(&portage, "127.0.0.1:842").len(), 2, "another port is something else");
    }

    #[test]
    fn directories_get_a_file_of_their_own_that_portage_reads_last_or_first() {
        let (_dir, portage) =
            root(&[("make.conf/10-a", USUAL), ("make.conf/.hidden", "x"), ("mirrors/b", "local http://o.example\n")]);
        set_up(&portage, HTTP);
        assert!(get(&portage, "make.conf/zz-peer.conf").unwrap().contains("8420"));
        assert!(get(&portage, "mirrors/00-peer.conf").unwrap().contains("8420"));
        assert_eq!(get(&portage, "make.conf/10-a").as_deref(), Some(USUAL));
        undo(&portage);
        assert_eq!(get(&portage, "make.conf/zz-peer.conf"), None);
        assert_eq!(get(&portage, "mirrors/00-peer.conf"), None);
    }

    #[test]
    fn a_block_left_in_a_file_that_became_part_of_a_directory_moves() {
        let (dir, portage) = root(&[("make.conf", USUAL)]);
        set_up(&portage, HTTP);
        let old = get(&portage, "make.conf").unwrap();
        std::fs::remove_file(dir.path().join("etc/portage/make.conf")).unwrap();
        put(dir.path(), "make.conf/main", &old);
        set_up(&portage, HTTP);
        assert_eq!(get(&portage, "make.conf/main").as_deref(), Some(USUAL));
        assert!(get(&portage, "make.conf/zz-peer.conf").is_some());
    }

    #[test]
    fn mode_stays_and_a_symbolic_link_stays_a_link() {
        let (dir, portage) = root(&[("real.conf", USUAL)]);
        let link = portage.dir().join("make.conf");
        std::os::unix::fs::symlink("real.conf", &link).unwrap();
        std::fs::set_permissions(portage.dir().join("real.conf"), std::fs::Permissions::from_mode(0o600)).unwrap();
        set_up(&portage, HTTP);
        assert!(link.is_symlink());
        let mode = std::fs::metadata(dir.path().join("etc/portage/real.conf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        undo(&portage);
        assert_eq!(get(&portage, "real.conf").as_deref(), Some(USUAL));
    }

    #[test]
    fn half_a_block_is_left_for_the_user_to_mend() {
        let (_dir, portage) = root(&[("make.conf", "A=1\n")]);
        set_up(&portage, HTTP);
        let set = get(&portage, "make.conf").unwrap();
        let (half, _) = set.split_once("# <<<").unwrap();
        put(&portage.config_root, "make.conf", half);
        assert!(matches!(plan_undo(&portage), Err(SetupError::Mangled { .. })));
        let again = plan(&portage, &Targets { http: HTTP.parse().unwrap() });
        assert!(matches!(again, Err(SetupError::Mangled { .. })), "{again:?}");
    }

    #[test]
    fn a_file_that_changed_since_the_plan_is_not_overwritten() {
        let (_dir, portage) = root(&[("make.conf", "A=1\n")]);
        let edits = plan(&portage, &Targets { http: HTTP.parse().unwrap() }).unwrap();
        put(&portage.config_root, "make.conf", "A=2\n");
        assert!(matches!(apply(&edits), Err(SetupError::ChangedMeanwhile { .. })));
        assert_eq!(get(&portage, "make.conf").as_deref(), Some("A=2\n"));
    }

    #[test]
    fn no_portage_is_said_and_a_file_that_is_too_large_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = Portage { config_root: dir.path().to_owned() };
        let targets = Targets { http: HTTP.parse().unwrap() };
        assert!(matches!(plan(&nowhere, &targets), Err(SetupError::NoPortage { .. })));
        let (_dir, portage) = root(&[]);
        store::write_atomically(&portage.dir().join("make.conf"), &vec![b'#'; 5 << 20], 0o644).unwrap();
        assert!(matches!(plan(&portage, &targets), Err(SetupError::NotText { .. })));
    }

    #[test]
    fn the_unspecified_address_is_reached_over_loopback() {
        for (listener, url) in
            [("0.0.0.0:1", "http://127.0.0.1:1"), ("[::]:2", "http://[::1]:2"), ("192.0.2.1:3", "http://192.0.2.1:3")]
        {
            assert_eq!(mirror_url(listener.parse().unwrap()), url);
        }
    }
}
