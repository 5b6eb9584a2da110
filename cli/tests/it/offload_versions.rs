//! A client that has a dependency installed in an older version than the builder would take: the package is built there with
//! the client's version all the same, and a version that the repositories no longer have is said.

use std::fs;

use tempfile::tempdir;

use crate::builder::{Builder, came, jobs, of_cpv, portage};
use crate::peer::{Start, both};

const ONE: &str = "app-misc/one-1.0";

/// A machine whose repository has the library in two versions.
fn machine(dir: &std::path::Path) -> Builder {
    let machine = Builder::new(dir);
    let tree = dir.join("trees/two-1.0");
    let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
    let (code, header, make) = (read("two.c"), read("two.h"), read("Makefile"));
    let newer = machine.source("two-1.1", &[("two.c", &code), ("two.h", &header), ("Makefile", &make)]);
    machine.ebuild("dev-libs/two-1.1", "SLOT=\"0/1\"\n", &[&newer]);
    let older = crate::gentoo::Source::at(&dir.join("sources/two-1.0.tar"), "two-1.0.tar");
    let lines = newer.manifest_line() + &older.manifest_line();
    machine.repo.write("dev-libs/two/Manifest", &lines);
    machine
}

#[test]
fn a_package_is_built_elsewhere_with_the_version_of_its_dependency_that_is_installed_here() {
    let dir = tempdir().unwrap();
    let (strong, weak) = (machine(&dir.path().join("strong")), machine(&dir.path().join("weak")));
    let builder = strong.start();

    // The weak machine has the older library installed.
    fs::create_dir_all(weak.dir.join("alone/dist")).unwrap();
    fs::copy(weak.dir.join("sources/two-1.0.tar"), weak.dir.join("alone/dist/two-1.0.tar")).unwrap();
    let merged = weak.emerge("alone", "file:///nowhere", &["--nodeps", "=dev-libs/two-1.0"]);
    assert!(merged.status.success(), "{}", both(&merged));
    let (portage, installed) = (portage(), weak.dir.join("alone/root/var/db/pkg"));
    let (portage, installed) = (portage.display(), installed.display());
    let config = format!(
        "[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\", \"{installed}:/var/db/pkg\"]\n"
    );
    let root = weak.dir.join("root");
    let client = Start::new(&weak.dir).config(&config).repo(&weak.repo).flag("--config-root", root.to_str().unwrap());
    let client = client.knows(&builder).start();
    client.wait_for_peers(1);
    let ticket = builder.does(&["invite", "--role", "build"]);
    client.does(&["join", ticket.trim(), "--name", "weak"]);

    let id = builder.peer_id();
    let said = client.verb(&["build", ONE.trim_end_matches("-1.0"), "--on", &id]);
    assert!(said.status.success(), "{}\n{}", both(&said), builder.log());
    assert_eq!(came(&client, ONE), ("offload".into(), id.clone().into()));
    let all = jobs(&builder);
    assert_eq!(of_cpv(&all, "dev-libs/two-1.0")["state"], "done", "built with the client's version: {all:?}");
    assert!(all.iter().all(|job| job["cpv"] != "dev-libs/two-1.1"), "{all:?}");

    // The builder's repository lets go of that version.
    fs::remove_file(strong.repo.dir.join("dev-libs/two/two-1.0.ebuild")).unwrap();
    weak.etc("package.use", "app-misc/one -color\n");
    let said = client.verb(&["build", ONE.trim_end_matches("-1.0"), "--on", &id]);
    assert_eq!(said.status.code(), Some(1), "{}", both(&said));
    assert!(both(&said).contains("dev-libs/two-1.1"), "{}", both(&said));
}
