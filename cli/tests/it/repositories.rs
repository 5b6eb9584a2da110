//! Repositories as they are in life: changing under the node, overlapping, broken, without md5-cache, and large.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;

use crate::gentoo::{Ebuild, Repo, Source, checkout};
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;
use crate::upstream::Nginx;
use crate::wait;

/// `DIST` lines in the snapshot of the overlay.
const OVERLAY_LINES: u64 = 55_001;

#[test]
fn a_changed_repository_is_seen_without_a_restart() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let old = Source::new(&nginx.distfiles(), "old-1.0.bin", &noise(1, 1_000));
    let new = Source::new(&nginx.distfiles(), "new-1.0.bin", &noise(2, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("old", "http://127.0.0.1:1", &old);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());
    assert!(node.get(&old.sums.path()).is(&old.content()));
    assert_eq!(node.get("/distfiles/new-1.0.bin").status, 404);

    repo.add_plain("new", "http://127.0.0.1:1", &new);
    wait::until("the new ebuild's file", || node.get(&new.name_path()).is(&new.content()).then_some(()));
    fs::remove_dir_all(repo.dir.join("app-misc/old")).unwrap();
    wait::until("the removed ebuild's name to go", || {
        // A name that is not known makes the node look whether the repository has changed.
        node.get("/distfiles/stranger.bin");
        (node.get("/distfiles/old-1.0.bin").status == 404).then_some(())
    });
    assert_eq!(node.number("distfiles_indexed"), 1);
}

#[test]
fn a_file_rolled_again_under_the_same_name_is_another_file() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let first = Source::new(&nginx.distfiles(), "rolled-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("rolled", "http://127.0.0.1:1", &first);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());
    let was = first.content();
    assert!(node.get(&first.name_path()).is(&was));
    let second = Source::new(&nginx.distfiles(), "rolled-1.0.bin", &noise(2, 1_000));
    repo.add_plain("rolled", "http://127.0.0.1:1", &second);
    // As Portage asks, which has read the new Manifest already.
    wait::until("the new digest", || node.get(&second.sums.path()).is(&second.content()).then_some(()));
    wait::until("the new bytes under the old name", || {
        node.get(&second.name_path()).is(&second.content()).then_some(())
    });
    assert!(node.get(&first.sums.path()).is(&was), "the old bytes keep their digest");
    node.holds_only(2);
}

#[test]
fn two_repositories_with_the_same_file_name_get_their_own_bytes() {
    let dir = tempdir().unwrap();
    let (one, two) = (Nginx::start(&dir.path().join("one")), Nginx::start(&dir.path().join("two")));
    let main = Source::new(&one.www(), "same-1.0.bin", &noise(1, 10_000));
    let overlay = Source::new(&two.www(), "same-1.0.bin", &noise(2, 20_000));
    let repo = Repo::new(dir.path(), "main");
    let over = Repo::overlay(dir.path(), "over", "main");
    repo.add_plain("from-main", &one.url(), &main);
    over.add_plain("from-overlay", &two.url(), &overlay);
    let node = Start::new(&dir.path().join("node")).repo(&repo).repo(&over).start();
    let client = Client::new(&dir.path().join("client"), &[&repo, &over], &node.url());
    client.fetches(&["app-misc/from-main"]);
    assert_eq!(client.content("same-1.0.bin"), main.content());
    client.forget_files();
    client.fetches(&["app-misc/from-overlay"]);
    assert_eq!(client.content("same-1.0.bin"), overlay.content());
    node.holds_only(2);
    let by_name = node.get("/distfiles/same-1.0.bin");
    assert!(by_name.is(&main.content()) || by_name.is(&overlay.content()), "{}", by_name.status);
}

/// The configuration root of a machine whose one repository is `repo`, called gentoo.
pub(crate) fn machine(dir: &Path, repo: &Repo, mirrors: &str) -> PathBuf {
    let root = dir.join("machine");
    let etc = root.join("etc/portage");
    fs::create_dir_all(etc.join("repos.conf")).unwrap();
    let location = repo.dir.display();
    let conf = format!("[DEFAULT]\nmain-repo = gentoo\n\n[gentoo]\nlocation = {location}\nsync-type =\nsync-uri =\n");
    fs::write(etc.join("repos.conf/gentoo.conf"), conf).unwrap();
    fs::write(etc.join("make.conf"), format!("# ours\nGENTOO_MIRRORS=\"{mirrors}\"\n")).unwrap();
    std::os::unix::fs::symlink(repo.dir.join("profiles/base"), etc.join("make.profile")).unwrap();
    root
}

#[test]
fn repositories_are_found_in_repos_conf_under_the_config_root() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "configured-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "gentoo");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let root = machine(dir.path(), &repo, &format!("http://127.0.0.1:1 \\\n\t{}", nginx.url()));
    let node = Start::new(&dir.path().join("node")).flag("--config-root", root.to_str().unwrap()).start();
    let reply = node.get(&source.sums.path());
    assert!(reply.is(&source.content()), "{}", reply.status);
    assert_eq!(reply.header("x-peer-source"), Some("mirror"));
}

#[test]
fn a_repository_without_md5_cache_is_read_by_asking_portage() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.www(), "uncached-1-0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "gentoo");
    repo.add_plain("uncached", "http://127.0.0.1:1", &source);
    fs::remove_dir_all(repo.dir.join("metadata/md5-cache")).unwrap();
    // Only bash knows what this comes to.
    repo.write(
        "app-misc/uncached/uncached-1.0.ebuild",
        &format!(
            "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.invalid/\"\n\
             SRC_URI=\"{}/${{PN}}-$(ver_rs 1 -).bin\"\nLICENSE=\"Example\"\nSLOT=\"0\"\nKEYWORDS=\"amd64\"\n",
            nginx.url()
        ),
    );
    let root = machine(dir.path(), &repo, "");
    let node = Start::new(&dir.path().join("node")).flag("--config-root", root.to_str().unwrap()).start();
    let reply = wait::until("Portage to have said where the file is", || {
        let reply = node.get(&source.sums.path());
        (reply.status == 200).then_some(reply)
    });
    assert!(reply.is(&source.content()));
    assert_eq!(reply.header("x-peer-source"), Some("upstream"));
}

/// An ebuild whose text says where its files are, and all else that a test wants.
fn ebuild(src_uri: &str, more: &str) -> String {
    format!(
        "EAPI=8\n{more}\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.invalid/\"\nSRC_URI=\"{src_uri}\"\n\
         LICENSE=\"Example\"\nSLOT=\"0\"\nKEYWORDS=\"amd64\"\n"
    )
}

#[test]
fn an_md5_cache_entry_of_an_older_ebuild_is_believed_in_nothing() {
    // An overlay commits its md5-cache and does not make it anew: the old SRC_URI was asked, and a file that the ebuild
    // forbids to hand on was given to peers.
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let url = nginx.url();
    let moved = Source::new(&nginx.www(), "moved-1.0.bin", &noise(1, 10_000));
    let bound = Source::new(&nginx.www(), "bound-1.0.bin", &noise(2, 10_000));
    let free = Source::new(&nginx.www(), "free-1.0.bin", &noise(3, 10_000));
    let repo = Repo::new(dir.path(), "gentoo");
    repo.add_plain("moved", "http://127.0.0.1:1", &moved);
    repo.add_plain("bound", &url, &bound);
    repo.add_plain("free", &url, &free);
    repo.write("app-misc/moved/moved-1.0.ebuild", &ebuild(&format!("{url}/moved-1.0.bin"), ""));
    let restricted = ebuild(&format!("{url}/bound-1.0.bin"), "RESTRICT=\"mirror\"");
    repo.write("app-misc/bound/bound-1.0.ebuild", &restricted);
    let root = machine(dir.path(), &repo, "");
    let a = Start::new(&dir.path().join("a")).flag("--config-root", root.to_str().unwrap()).start();
    for source in [&moved, &bound, &free] {
        let reply = a.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{}: {}", source.name, reply.status);
        assert_eq!(reply.header("x-peer-source"), Some("upstream"), "{}", source.name);
    }
    nginx.finish();
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror("http://127.0.0.1:1").knows(&a).start();
    b.wait_for_peers(1);
    assert!(b.get(&free.sums.path()).is(&free.content()), "what nothing forbids is given");
    assert!(b.get(&moved.sums.path()).is(&moved.content()));
    assert_eq!(b.get(&bound.sums.path()).status, 404, "what the ebuild forbids now is not");
}

#[test]
fn edits_of_ebuilds_and_eclasses_are_seen_where_no_md5_cache_entry_follows_them() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let url = nginx.url();
    let sources: Vec<Source> = ["first-1.0.bin", "edited-1.0.bin", "inherited-1.0.bin"]
        .iter()
        .enumerate()
        .map(|(number, name)| Source::new(&nginx.www(), name, &noise(number as u64, 10_000)))
        .collect();
    let repo = Repo::new(dir.path(), "gentoo");
    // Another package has an entry, so the repository has an md5-cache.
    repo.add_plain("other", &url, &Source::new(&nginx.www(), "other-1.0.bin", &noise(9, 10_000)));
    let lines: String = sources.iter().map(Source::manifest_line).collect();
    repo.write("app-misc/edited/Manifest", &lines);
    repo.write("eclass/where.eclass", "WHERE=\"http://127.0.0.1:1\"\n");
    let text = |names: &str| ebuild(names, "inherit where");
    repo.write(
        "app-misc/edited/edited-1.0.ebuild",
        &text(&format!("{url}/first-1.0.bin ${{WHERE}}/inherited-1.0.bin")),
    );
    let root = machine(dir.path(), &repo, "");
    let node = Start::new(&dir.path().join("node")).flag("--config-root", root.to_str().unwrap()).start();
    let has = |source: &Source| node.get(&source.sums.path()).is(&source.content());
    // A name that is not known makes the node look whether the repository has changed.
    let looks_until = |source: &Source| {
        wait::until(&source.name, || {
            node.get("/distfiles/stranger.bin");
            has(source).then_some(())
        });
    };
    assert!(has(&sources[0]) && !has(&sources[1]) && !has(&sources[2]));

    repo.write(
        "app-misc/edited/edited-1.0.ebuild",
        &text(&format!("{url}/first-1.0.bin {url}/edited-1.0.bin ${{WHERE}}/inherited-1.0.bin")),
    );
    looks_until(&sources[1]);
    assert!(!has(&sources[2]));
    repo.write("eclass/where.eclass", &format!("WHERE=\"{url}\"\n"));
    looks_until(&sources[2]);
}

#[test]
fn where_portage_cannot_be_asked_mirrors_may_be_and_peers_are_given_nothing() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "unasked-1.0.bin", &noise(1, 10_000));
    let repo = Repo::new(dir.path(), "gentoo");
    repo.add_plain("unasked", "http://127.0.0.1:1", &source);
    fs::remove_dir_all(repo.dir.join("metadata/md5-cache")).unwrap();
    let root = machine(dir.path(), &repo, &nginx.url());
    let empty = dir.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let path = format!("PATH={}", empty.display());
    let start = Start::new(&dir.path().join("a")).flag("--config-root", root.to_str().unwrap());
    let a = start.through(&["/usr/bin/env", &path]).start();
    let reply = a.get(&source.name_path());
    assert!(reply.is(&source.content()), "{}", reply.status);
    assert_eq!(reply.header("x-peer-source"), Some("mirror"));
    let problem = a.status()["repositories"][0]["problem"].to_string();
    assert!(problem.contains("there is no python3") && problem.contains("Gentoo's mirrors only"), "{problem}");
    nginx.finish();
    let b = Start::new(&dir.path().join("b")).repo(&repo).mirror("http://127.0.0.1:1").knows(&a).start();
    b.wait_for_peers(1);
    assert_eq!(b.get(&source.sums.path()).status, 404);
}

#[test]
fn mirrors_that_the_user_names_are_asked_as_portage_asks_them() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let named = Source::new(&nginx.www().join("named"), "named-1.0.bin", &noise(1, 10_000));
    let bound = Source::new(&nginx.distfiles(), "bound-1.0.bin", &noise(2, 10_000));
    let repo = Repo::new(dir.path(), "gentoo");
    repo.add_plain("named", "mirror://mine", &named);
    repo.add(&Ebuild {
        name: "bound",
        src_uri: "http://127.0.0.1:1/bound-1.0.bin",
        restrict: "mirror",
        sources: &[&bound],
    });
    let root = machine(dir.path(), &repo, "");
    let mirrors = format!("mine {0}/named/\nlocal {0}\n", nginx.url());
    fs::write(root.join("etc/portage/mirrors"), mirrors).unwrap();
    let node = Start::new(&dir.path().join("node")).flag("--config-root", root.to_str().unwrap()).start();
    for source in [&named, &bound] {
        let reply = node.get(&source.sums.path());
        assert!(reply.is(&source.content()), "{}: {}", source.name, reply.status);
    }
}

#[test]
fn broken_manifests_and_cache_entries_do_not_hide_the_good_ones() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let good = Source::new(&nginx.distfiles(), "good-1.0.bin", &noise(1, 1_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("good", "http://127.0.0.1:1", &good);
    let sum = "0".repeat(128);
    let lines = [
        "DIST".to_owned(),
        "DIST name".to_owned(),
        format!("DIST ../../etc/passwd 10 BLAKE2B {sum} SHA512 {sum}"),
        format!("DIST .hidden 10 BLAKE2B {sum}"),
        format!("DIST huge.bin 99999999999999999999999999 BLAKE2B {sum}"),
        format!("DIST minus.bin -1 BLAKE2B {sum}"),
        format!("DIST short.bin 10 BLAKE2B {}", &sum[..40]),
        format!("DIST odd.bin 10 BLAKE2B {}", "zz".repeat(64)),
        "DIST nosums.bin 10".to_owned(),
        "DIST onlymd5.bin 10 MD5 d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("DIST {}.bin 10 BLAKE2B {sum}", "n".repeat(9_000)),
        "\u{0}\u{1}\u{2}".to_owned(),
        "-----BEGIN PGP SIGNED MESSAGE-----".to_owned(),
    ];
    let good_manifest = fs::read_to_string(repo.dir.join("app-misc/good/Manifest")).unwrap();
    repo.write("app-misc/good/Manifest", &format!("{}\n{good_manifest}", lines.join("\n")));
    repo.write("app-misc/broken/Manifest", &lines.join("\n"));
    fs::create_dir_all(repo.dir.join("app-misc/bytes")).unwrap();
    fs::write(repo.dir.join("app-misc/bytes/Manifest"), noise(3, 100_000)).unwrap();
    fs::write(repo.dir.join("metadata/md5-cache/app-misc/bytes-1.0"), noise(4, 100_000)).unwrap();
    fs::create_dir_all(repo.dir.join("app-misc/directory/Manifest")).unwrap();
    let deep = format!("EAPI=8\nSLOT=0\nSRC_URI={}", "a? ( ".repeat(20_000));
    repo.write("metadata/md5-cache/app-misc/deep-1.0", &deep);
    repo.write("app-misc/deep/Manifest", &format!("DIST deep.bin 10 BLAKE2B {sum} SHA512 {sum}\n"));
    let mut node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());
    assert!(node.get(&good.sums.path()).is(&good.content()));
    assert!(node.get(&good.name_path()).is(&good.content()));
    assert!(node.is_healthy());
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn an_overlay_that_vanishes_does_not_stop_the_others() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let kept = Source::new(&nginx.distfiles(), "kept-1.0.bin", &noise(1, 1_000));
    let gone = Source::new(&nginx.distfiles(), "gone-1.0.bin", &noise(2, 1_000));
    let repo = Repo::new(dir.path(), "main");
    let over = Repo::overlay(dir.path(), "over", "main");
    repo.add_plain("kept", "http://127.0.0.1:1", &kept);
    over.add(&Ebuild { name: "gone", src_uri: "http://127.0.0.1:1/gone-1.0.bin", restrict: "", sources: &[&gone] });
    let mut node = Start::new(&dir.path().join("node")).repo(&repo).repo(&over).mirror(&nginx.url()).start();
    fs::remove_dir_all(&over.dir).unwrap();
    let late = Source::new(&nginx.distfiles(), "late-1.0.bin", &noise(3, 1_000));
    repo.add_plain("late", "http://127.0.0.1:1", &late);
    wait::until("the other repository's change", || node.get(&late.name_path()).is(&late.content()).then_some(()));
    assert!(node.get(&kept.name_path()).is(&kept.content()));
    assert!(node.is_healthy());
}

#[test]
fn a_real_overlay_with_fifty_five_thousand_lines_is_indexed_and_looked_up() {
    let snapshot = checkout().join("../shared/data/guru-metadata.tar.xz");
    if !snapshot.exists() {
        eprintln!("skipped: the snapshot of the overlay is not beside the checkout");
        return;
    }
    let dir = tempdir().unwrap();
    let overlay = dir.path().join("guru");
    fs::create_dir_all(&overlay).unwrap();
    let unpacked = wait::run(Command::new("tar").arg("-xJf").arg(snapshot).arg("-C").arg(&overlay));
    assert!(unpacked.status.success(), "{}", crate::peer::both(&unpacked));
    let repo = Repo { dir: overlay };
    kill_addresses(&repo);
    let lines = dist_lines(&repo);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, "http://127.0.0.1:1");
    assert_eq!(lines.len() as u64, OVERLAY_LINES, "the snapshot is the one the number is about");
    assert_eq!(node.number("distfiles_indexed"), OVERLAY_LINES);

    // Each is known by name and by digest, looked for, and had by nobody.
    for line in lines.iter().step_by(5_000) {
        let words: Vec<&str> = line.split(' ').collect();
        let digest = words[words.iter().position(|&word| word == "BLAKE2B").unwrap() + 1];
        for path in [format!("/distfiles/{}/{digest}", &digest[..2]), crate::gentoo::name_path(words[1])] {
            assert_eq!(node.get(&path.replace('+', "%2B")).status, 404, "{path}");
        }
        let known = node.verb(&["fetch", words[1]]);
        assert_eq!(known.status.code(), Some(1), "known, but nobody has it: {}", crate::peer::both(&known));
    }
    let again = node.terminate().1.start();
    assert_eq!(again.number("distfiles_indexed"), OVERLAY_LINES, "after a restart too");
}

/// Makes every address in the md5-cache one where nothing listens: a test asks no server in the world.
fn kill_addresses(repo: &Repo) {
    let script = "find \"$1/metadata/md5-cache\" -type f -print0 \
         | xargs -0 sed -i -E '/^SRC_URI=/ s#[a-z0-9+]+://#http://127.0.0.1:1/#g'";
    let done = wait::run(Command::new("sh").args(["-c", script, "sh"]).arg(&repo.dir));
    assert!(done.status.success(), "{}", crate::peer::both(&done));
}

/// All `DIST` lines, read plainly.
fn dist_lines(repo: &Repo) -> Vec<String> {
    let mut lines = Vec::new();
    for category in fs::read_dir(&repo.dir).unwrap().map_while(Result::ok).filter(|entry| entry.path().is_dir()) {
        for package in fs::read_dir(category.path()).unwrap().map_while(Result::ok) {
            let manifest = fs::read_to_string(package.path().join("Manifest")).unwrap_or_default();
            lines.extend(manifest.lines().filter(|line| line.starts_with("DIST ")).map(str::to_owned));
        }
    }
    lines.sort();
    lines
}
