//! binrepos.conf (portage(5)): this node's binhost, as a section of its own in a file of its own.

use super::block::Place;
use super::{Edit, Portage, SetupError, Wanted, mirror_url};
use std::net::SocketAddr;
use tree::binrepos::{BinRepos, LoadBinReposError};
use tree::conf::MakeConf;

/// The file or directory below `etc/portage`.
pub(super) const NAME: &str = "binrepos.conf";
/// Name of the section, and of the directory that Portage keeps its copies of the packages in.
const SECTION: &str = "[peerage]";
/// The file where binrepos.conf is a directory, as it is on a new Gentoo system.
const OWN_FILE: &str = "peerage.conf";
/// Portage asks the binhost with the highest number first; Gentoo's own has at most 9999.
const PRIORITY: u32 = 10_000;

/// The URL of a node's binhost. The id is in it because Portage's cache of the indexes knows hosts and paths but no
/// ports. None when the id is none.
#[must_use]
pub fn binhost_url(listener: SocketAddr, peer_id: &str) -> Option<String> {
    let is_id = !peer_id.is_empty() && peer_id.chars().all(|c| c.is_ascii_alphanumeric());
    is_id.then(|| format!("{}/binpkgs/{peer_id}", mirror_url(listener)))
}

/// The changes that make `emerge --getbinpkg` ask this binhost and take from it only what its key has signed; none when
/// it does already, or when the user has a section of this name.
///
/// # Errors
/// When the configuration cannot be read or understood.
pub fn plan_binhost(portage: &Portage, url: &str) -> Result<Vec<Edit>, SetupError> {
    let wanted = Wanted {
        body: format!(
            "{SECTION}\npriority = {PRIORITY}\nsync-uri = {url}\nlocation = /var/cache/binhost/peerage\n\
             verify-signature = true\n"
        ),
        place: Place::End,
        // Sections are read wherever they stand.
        has_last_word: |_line| false,
        said_by_user: SECTION.to_owned(),
        own_file: OWN_FILE,
        as_directory: true,
    };
    wanted.plan(&portage.dir().join(NAME))
}

/// Whether Portage asks this binhost: binrepos.conf or PORTAGE_BINHOST names it.
///
/// # Errors
/// When binrepos.conf cannot be read, or is wrong: Portage then uses none of it.
pub fn names_binhost(portage: &Portage, url: &str) -> Result<bool, LoadBinReposError> {
    let make_conf = MakeConf::load(&portage.config_root).ok();
    let listed = make_conf.as_ref().and_then(|conf| conf.get("PORTAGE_BINHOST")).unwrap_or_default();
    Ok(BinRepos::load(&portage.config_root, listed)?.at(url).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::{apply, plan_undo};
    use super::*;
    use std::path::Path;

    const URL: &str = "http://127.0.0.1:8420/binpkgs/12D3KooWtest";

    fn machine() -> (tempfile::TempDir, Portage) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/portage")).unwrap();
        let portage = Portage { config_root: dir.path().canonicalize().unwrap() };
        (dir, portage)
    }

    fn put(portage: &Portage, name: &str, text: &str) {
        let path = portage.dir().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        store::write_atomically(&path, text.as_bytes(), 0o644).unwrap();
    }

    fn get(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn set_up(portage: &Portage, url: &str) -> usize {
        let edits = plan_binhost(portage, url).unwrap();
        apply(&edits).unwrap();
        edits.len()
    }

    fn undo(portage: &Portage) {
        apply(&plan_undo(portage).unwrap()).unwrap();
    }

    #[test]
    fn a_machine_without_binrepos_conf_gets_a_directory_that_goes_again_when_it_is_empty() {
        let (_dir, portage) = machine();
        let path = portage.dir().join("binrepos.conf");
        assert_eq!(set_up(&portage, URL), 1);
        let text = get(&path.join("peerage.conf"));
        assert!(text.contains(&format!("\n[peerage]\npriority = 10000\nsync-uri = {URL}\n")), "{text}");
        assert!(text.contains("\nverify-signature = true\n"), "{text}");
        assert_eq!(set_up(&portage, URL), 0, "once is enough");
        assert_eq!(set_up(&portage, "http://127.0.0.1:1/binpkgs/other"), 1);
        assert!(!get(&path.join("peerage.conf")).contains("8420"));
        undo(&portage);
        assert!(!path.exists());

        set_up(&portage, URL);
        put(&portage, "binrepos.conf/gentoobinhost.conf", "[gentoo]\n");
        undo(&portage);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "what others put there stays");
    }

    #[test]
    fn a_directory_gets_a_file_beside_the_others_and_is_left_as_it_was() {
        let (_dir, portage) = machine();
        put(&portage, "binrepos.conf/gentoobinhost.conf", "[gentoo]\nsync-uri = https://b.example/\n");
        let path = portage.dir().join("binrepos.conf");
        set_up(&portage, URL);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
        undo(&portage);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
        assert_eq!(get(&path.join("gentoobinhost.conf")), "[gentoo]\nsync-uri = https://b.example/\n");
        std::fs::remove_file(path.join("gentoobinhost.conf")).unwrap();
        set_up(&portage, URL);
        undo(&portage);
        assert!(path.is_dir(), "an empty directory that was there before stays too");
    }

    #[test]
    fn a_file_gets_the_section_at_its_end_and_every_byte_comes_back() {
        for text in ["", "[gentoo]\nsync-uri = https://b.example/", "# a\r\n\n"] {
            let (_dir, portage) = machine();
            put(&portage, "binrepos.conf", text);
            set_up(&portage, URL);
            let set = get(&portage.dir().join("binrepos.conf"));
            assert!(set.starts_with(text) && set.contains("\n[peerage]\n"), "{set}");
            undo(&portage);
            assert_eq!(get(&portage.dir().join("binrepos.conf")), text);
        }
    }

    #[test]
    fn a_section_of_the_user_is_left_alone_for_two_of_one_name_void_all_of_them() {
        let (_dir, portage) = machine();
        put(&portage, "binrepos.conf/mine.conf", "[peerage]\nsync-uri = http://192.0.2.1:8420/binpkgs/x\n");
        assert_eq!(set_up(&portage, URL), 0);
        put(&portage, "binrepos.conf/mine.conf", "[peerage-too]\nsync-uri = http://192.0.2.1:8420/binpkgs/x\n");
        assert_eq!(set_up(&portage, URL), 1);
    }

    #[test]
    fn only_an_id_makes_an_address() {
        let http = "0.0.0.0:8420".parse().unwrap();
        assert_eq!(binhost_url(http, "12D3KooWtest").as_deref(), Some(URL));
        for id in ["", "a/b", "a\n[x]", "ü"] {
            assert_eq!(binhost_url(http, id), None);
        }
    }
}
