//! `./run --once`: what a new user sees first, with the binary under test; and the example repositories by themselves.

use std::process::Command;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source, checkout};
use crate::peer::{Start, both};
use crate::wait;

#[test]
fn the_demonstration_runs_to_its_end_with_real_portage() {
    let output =
        wait::run(Command::new(checkout().join("run")).arg("--once").env("PEER_BIN", env!("CARGO_BIN_EXE_peer")));
    let told = both(&output);
    assert!(output.status.success(), "{told}");
    let told = told.to_lowercase();
    for part in ["x-peer-source: peer", "fetched and verified by portage: large-1.0.bin"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}

#[test]
fn the_example_manifests_name_the_files_that_the_script_makes() {
    let dir = tempdir().unwrap();
    let examples = checkout().join("examples");
    let (main, over) = (dir.path().join("main"), dir.path().join("over"));
    for (target, option) in [(&main, None), (&over, Some("--overlay"))] {
        let made = wait::run(Command::new(examples.join("distfiles")).args(option).arg(target));
        assert!(made.status.success(), "{}", both(&made));
    }
    let repos = ["repo", "overlay", "overlay-without-cache"].map(|name| Repo { dir: examples.join(name) });
    let [repo, overlay, uncached] = &repos;
    let node = Start::new(&dir.path().join("node")).repo(repo).repo(overlay).repo(uncached).start();
    node.import(&main);
    node.import(&over);
    for (directory, name) in [
        (&main, "hello-1.0.tar"),
        (&over, "hello-1.0.tar"),
        (&main, "renamed-1.0.tar"),
        (&main, "mirrored-1.0.tar"),
        (&main, "mirrored-doc-1.0.tar"),
        (&main, "licensed-1.0.tar"),
        (&main, "licensed-extra-1.0.tar"),
        (&main, "unmirrored-1.0.tar"),
        (&main, "unmirrored-doc-1.0.tar"),
        (&main, "uncached-1.0.tar"),
        (&main, "large-1.0.bin"),
    ] {
        let source = Source::at(&directory.join(name), name);
        assert!(node.get(&source.sums.path()).is(&source.content()), "{name}");
        let by_name = node.get(&format!("/distfiles/{name}"));
        assert_eq!(by_name.status, 200, "a Manifest names {name}");
    }
}
