//! What repositories, packages and users say in questions that is meant to fool a terminal, or to keep the node busy.

use std::fs;

use tempfile::tempdir;

use crate::answers::{NOTE, is_plain, only};
use crate::builder::Builder;
use crate::peer::both;

const EVIL: &str = "\u{1b}[2J\u{7}\u{202e}evil";

#[test]
fn what_is_found_in_packages_and_configuration_is_spelled_out() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    // A soname is any string.
    let orphan = "SLOT=\"0\"\nsrc_compile() {\n\techo 'int lost(void) { return 1; }' > stub.c\n\tgcc -shared -fPIC -nostdlib \
                  -Wl,-soname,$'libno\\033[2J\\awhere\\n.so.7' -o libnowhere.so stub.c || die\n\techo 'int lost(void); int \
                  call(void) { return lost(); }' > call.c\n\tgcc -shared -fPIC -nostdlib -o liborphan.so call.c \
                  libnowhere.so || die\n}\nsrc_install() { exeinto /usr/lib64; doexe liborphan.so; }\n";
    machine.ebuild("app-misc/orphan-1.0", orphan, &[]);
    machine.ebuild("app-misc/masked-1.0", NOTE, &[]);
    machine.ebuild("app-misc/evil-1.0", &format!("{NOTE}DESCRIPTION=\"{EVIL}\"\nHOMEPAGE=\"{EVIL}\"\n"), &[]);
    machine.repo.write("profiles/package.mask", &format!("# {EVIL}\napp-misc/masked\n"));
    // Directories that are no packages.
    machine.repo.write(&format!("app-misc/{EVIL}/{EVIL}-1.0.ebuild"), "EAPI=8\n");
    machine.repo.write(&format!("app-misc/odd/odd-{EVIL}.ebuild"), "EAPI=8\n");
    let peer = machine.start_with("").start();
    peer.does(&["build", "app-misc/orphan"]);
    // Whether it is held against the package or not, it is no command to a terminal.
    only(&peer, "app-misc/orphan-1.0").iter().for_each(|(_, text)| is_plain(text));
    for words in [
        &["show", "app-misc/orphan"][..],
        &["why", "app-misc/orphan"],
        &["weather", "app-misc/orphan"],
        &["show", "app-misc/evil"],
        &["why", "app-misc/evil"],
        &["weather", "app-misc/evil"],
        &["search", "app-misc"],
        &["search", "evil"],
        &["why", "app-misc/masked"],
        &["weather", "app-misc/masked"],
        &["weather", "app-misc/masked", "app-misc/evil"],
        &["build", "app-misc/masked"],
        &["show", EVIL],
        &["why", EVIL],
        &["weather", EVIL],
        &["weather", "@evil\u{1b}[2J"],
        &["search", EVIL],
    ] {
        let output = peer.verb(words);
        let said = both(&output);
        is_plain(&said);
        assert!(matches!(output.status.code(), Some(0..=2)), "{words:?} ended with {}: {said}", output.status);
        assert!(!said.contains("panicked"), "{said}");
        let output = peer.verb(&[words, &["--json"]].concat());
        let json = String::from_utf8_lossy(&output.stdout);
        assert!(json.chars().all(|c| !c.is_control() || c == '\n'), "{words:?}: {json:?}");
    }
    // The reason is a line of text however many lines the name has.
    let told = peer.does(&["why", "app-misc/orphan"]);
    assert!(!told.lines().any(|line| line.starts_with(".so.7")), "{told}");
    assert!(!peer.log().contains('\u{1b}'), "nor does the log take it as it is");
}

#[test]
fn a_package_mask_is_no_riddle() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/masked-1.0", NOTE, &[]);
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    machine.repo.write("profiles/package.mask", "# Breaks the moon.\napp-misc/masked\n");
    let peer = machine.start_with("").start();
    // Why nothing can be had is what `why` is for.
    let output = peer.verb(&["why", "app-misc/masked"]);
    assert!(both(&output).contains("mask"), "{}", both(&output));
    let output = peer.verb(&["weather", "app-misc/masked"]);
    assert!(both(&output).contains("mask"), "{}", both(&output));
    let output = peer.verb(&["weather", "app-misc/note"]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
}

#[test]
fn the_weather_of_many_packages_begins_nothing() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    let atoms: Vec<String> = (0..60).map(|number| format!("app-misc/n{number}")).collect();
    for atom in &atoms {
        machine.ebuild(&format!("{atom}-1.0"), NOTE, &[]);
    }
    machine.etc("sets/many", &atoms.join("\n"));
    let peer = machine.start_with("").start();
    let said = peer.json(&["weather", "@many"]);
    assert_eq!(said["packages"].as_array().unwrap().len(), 60);
    crate::answers::adds_up(&said);
    assert_eq!((&said["totals"]["build"], &said["totals"]["unknown_times"]), (&60.into(), &60.into()));
    assert_eq!(peer.get("/healthz").status, 200);
    let left = fs::read_dir(peer.store_dir().join("jobs")).map(|found| found.count()).unwrap_or(0);
    assert_eq!(left, 0, "asking leaves nothing behind");
}
