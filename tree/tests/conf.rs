//! make.conf and repos.conf where there is no Portage to compare with, and what a hostile file cannot do.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tree::conf::{ConfFault, GetConfigError, MakeConf, ReposConf};

#[expect(clippy::disallowed_methods, reason = "a test makes its configuration")]
fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories are made");
    fs::write(path, text).expect("a file is written");
}

fn root(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    files.iter().for_each(|(path, text)| put(directory.path(), path, text));
    directory
}

#[test]
fn nothing_configured_is_no_error() {
    let directory = root(&[]);
    assert_eq!(MakeConf::load(directory.path()).expect("nothing").get("DISTDIR"), None);
    assert_eq!(ReposConf::load(directory.path()).expect("nothing"), ReposConf::default());
}

#[test]
fn globals_come_first_and_a_directory_is_read_in_order() {
    let directory = root(&[
        ("usr/share/portage/config/make.globals", "DISTDIR=/globals\nPKGDIR=\"/pkg\"\nGENTOO_MIRRORS=http://globals\n"),
        ("etc/portage/make.conf/10-first", "DISTDIR=/first\nA=one\n"),
        ("etc/portage/make.conf/20-second", "DISTDIR=\"${DISTDIR}/second\"\n"),
        ("etc/portage/make.conf/20-second~", "DISTDIR=backup\n"),
        ("etc/portage/make.conf/sub/30", "GENTOO_MIRRORS=\"\n http://a\n http://b\"\n"),
    ]);
    let conf = MakeConf::load(directory.path()).expect("a configuration");
    assert_eq!(conf.get("DISTDIR"), Some("/first/second"));
    assert_eq!(conf.get("PKGDIR"), Some("/pkg"));
    assert_eq!(
        conf.get("GENTOO_MIRRORS").expect("mirrors").split_whitespace().collect::<Vec<_>>(),
        ["http://a", "http://b"]
    );
}

#[test]
fn the_old_place_that_is_a_link_to_the_new_is_read_once() {
    let directory = root(&[("etc/portage/make.conf", "A=\"$A x\"\n")]);
    std::os::unix::fs::symlink("portage/make.conf", directory.path().join("etc/make.conf")).expect("a link is made");
    assert_eq!(MakeConf::load(directory.path()).expect("a configuration").get("A"), Some(" x"));
}

#[test]
fn a_fault_says_the_file_and_the_line() {
    let directory = root(&[("etc/portage/make.conf", "A=1\nB C\n")]);
    let error = MakeConf::load(directory.path()).expect_err("a fault").0;
    assert!(
        matches!(&error, GetConfigError::Fault { line: 2 | 3, fault: ConfFault::NoAssignment { .. }, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("etc/portage/make.conf line"), "{error}");
}

#[test]
fn files_that_source_each_other_and_values_that_double_end() {
    let directory = root(&[("etc/portage/make.conf", "source make.conf\n")]);
    let error = MakeConf::load(directory.path()).expect_err("a loop").0;
    assert!(matches!(error, GetConfigError::Fault { fault: ConfFault::TooManySources, .. }), "{error:?}");

    let doubling = format!("A=0123456789\n{}", "A=\"$A$A\"\n".repeat(100));
    let directory = root(&[("etc/portage/make.conf", &doubling)]);
    let error = MakeConf::load(directory.path()).expect_err("too large").0;
    assert!(matches!(error, GetConfigError::Fault { fault: ConfFault::Expand(_), .. }), "{error:?}");
}

#[test]
fn a_device_is_not_read() {
    let directory = root(&[("etc/portage/make.conf", "source /dev/zero\n")]);
    let error = MakeConf::load(directory.path()).expect_err("a device").0;
    assert!(matches!(error, GetConfigError::Fault { fault: ConfFault::Source(_), .. }), "{error:?}");
}

#[test]
fn a_repository_that_cannot_be_used_is_told_of() {
    let directory = root(&[(
        "etc/portage/repos.conf",
        "[a]\nlocation = relative\n[b c]\nlocation = /\n[d]\nlocation = /nonexistent/d\n[e]\n",
    )]);
    let conf = ReposConf::load(directory.path()).expect("a configuration");
    assert_eq!((conf.repos.len(), conf.problems.len()), (0, 4), "{:?}", conf.problems);
}
