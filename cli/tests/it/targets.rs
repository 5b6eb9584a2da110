//! What a user names, as atoms and sets, against what the real Portage takes: `peer fetch`, `pin` and `show`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::peer::{TestPeer, both};
use crate::selection::{CHOOSE, Machine, targets};
use crate::wait;

#[test]
fn atoms_and_sets_mean_the_ebuilds_that_portage_takes() {
    let machine = Machine::new();
    let targets = targets();
    let theirs = machine.portage_takes(&targets);
    let ours = machine.says(CHOOSE, &targets);
    assert_eq!(ours["has_profile"], true, "{ours}");
    let mut wrong = String::new();
    let (mut taken, mut nothing) = (0, 0);
    for ((target, theirs), ours) in targets.iter().zip(theirs).zip(ours["answers"].as_array().unwrap()) {
        let cpvs =
            ours["packages"].as_array().unwrap().iter().map(|package| package["cpv"].as_str().unwrap().to_owned());
        let cpvs: BTreeSet<String> = cpvs.collect();
        taken += usize::from(!cpvs.is_empty());
        nothing += usize::from(!ours["nothing"].is_null());
        // Portage takes none while the USE flags are others; what emerge would take once they are changed is told as that.
        let notes = ours["notes"].to_string();
        let later = |cpv: &str| notes.contains(&format!(": {cpv}: its USE flags are others now"));
        let now: BTreeSet<String> = cpvs.iter().filter(|cpv| !later(cpv)).cloned().collect();
        let known = theirs.clone().unwrap_or_default();
        if !now.is_subset(&known) || !known.is_subset(&cpvs) {
            wrong += &format!("{target}: {cpvs:?}, but Portage: {theirs:?}\n");
        }
        if target.starts_with('@') && theirs.is_none() == ours["nothing"].is_null() {
            wrong += &format!("{target}: {ours}, but Portage: {theirs:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(taken > 60 && nothing > 15, "{taken} mean something, {nothing} do not");
}

/// The names of the files that `peer fetch` brings, and what it leaves out.
fn fetched(node: &TestPeer, target: &str) -> (BTreeSet<String>, Vec<Value>, String) {
    let output = node.verb(&["fetch", target, "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let have = lines.iter().filter(|line| line["event"] == "have");
    let names = have.map(|line| line["name"].as_str().unwrap().to_owned()).collect();
    let left_out = lines.iter().filter(|line| line["event"] == "left-out").cloned().collect();
    (names, left_out, String::from_utf8(output.stderr).unwrap())
}

fn left_out(lines: &[Value]) -> Vec<(String, Option<u64>, String)> {
    let name =
        |line: &Value| line["file"].as_str().and_then(|file| file.rsplit('/').next()).unwrap_or_default().to_owned();
    let mut all: Vec<_> = lines
        .iter()
        .map(|line| (name(line), line["line"].as_u64(), line["text"].as_str().unwrap().to_owned()))
        .collect();
    all.sort();
    all
}

#[test]
fn fetch_pin_and_show_take_what_portage_takes_and_tell_what_is_left_out() {
    let machine = Machine::new();
    let node = machine.start();
    node.import(&machine.sources);
    for (target, files) in [
        ("dev-lang/py", &["main-py-3.13.0.tar"][..]),
        ("dev-lang/py:3.11", &["main-py-3.11.1.tar"]),
        ("app-misc/a", &["over-a-2.tar"]),
        ("app-misc/a::main", &["main-a-1.tar"]),
        ("app-misc/b", &["over-b-1.tar"]),
        ("app-misc/flags[ssl]", &["main-flags-1.tar"]),
        ("@usedep", &["main-flags-1.tar", "main-flags-2.tar"]),
        ("@missing", &["over-a-2.tar"]),
        ("@installed", &["main-py-3.12.2.tar", "over-b-1.tar"]),
        ("@gcc+tools", &["main-gplus++-1.0.tar"]),
        ("@world", &["main-a-1.tar", "main-c-1.tar", "main-py-3.11.1.tar", "over-a-2.tar", "over-b-1.tar"]),
    ] {
        let (names, _, said) = fetched(&node, target);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), files, "{target}: {said}");
    }
    let (_, lines, said) = fetched(&node, "@world");
    let expected = [
        ("conflict", 2, "<<<<<<<"),
        ("conflict", 4, "======="),
        ("conflict", 5, ">>>>>>>"),
        ("world", 2, "<<<<<<<"),
        ("world", 4, "@weekly"),
        ("world", 5, "kde-plasma/*"),
        ("world", 7, "app-misc/was-here"),
        ("world_sets", 2, "app-misc/c"),
        ("world_sets", 3, "@gone-set"),
    ];
    assert_eq!(
        left_out(&lines),
        expected.map(|(file, line, text)| (file.to_owned(), Some(line), text.to_owned())),
        "{said}"
    );
    let world = machine.root().join("var/lib/portage/world");
    assert!(said.contains(&format!("{}:5: kde-plasma/*: ", world.display())), "{said}");

    for (target, why) in [
        ("app-misc/testing", "~amd64 keyword"),
        ("=app-misc/masked-2", "package.mask"),
        ("=app-misc/bound-2", "Bad"),
        ("app-misc/nothing", "no ebuild"),
        ("app-misc/plain", "has no distfiles"),
        ("@nosuch", "knows no such set"),
        ("@sub", "knows no such set"),
        ("app-misc/*", "is not a"),
    ] {
        let output = node.verb(&["fetch", target]);
        assert_eq!(output.status.code(), Some(1), "{target}: {}", both(&output));
        assert!(both(&output).contains(why), "{target}: {}", both(&output));
    }

    let shown = node.json(&["show", "dev-lang/py:3.12"]);
    assert_eq!(shown["distfiles"][0]["name"], "main-py-3.12.2.tar", "{shown}");
    let pinned = |node: &TestPeer| node.json(&["pin", "list"])["pins"][0]["distfiles"].as_u64().unwrap();
    let added = node.json(&["pin", "add", "@selected"]);
    assert_eq!((pinned(&node), added["left_out"].as_array().unwrap().len()), (4, 9), "{added}");
    let unknown = node.verb(&["pin", "add", "app-misc/testing"]);
    assert!(both(&unknown).contains("~amd64 keyword"), "{}", both(&unknown));
    // A pin follows the world file, not the repositories alone.
    machine.state("world", b"sys-kernel/srcs:5.15.102\n");
    machine.state("world_sets", b"");
    node.signal("HUP");
    wait::until("the pin to follow", || (pinned(&node) == 1).then_some(()));
}

#[test]
fn without_portage_sets_are_read_as_far_as_they_can_be_and_that_is_told() {
    let machine = Machine::new();
    fs::remove_file(machine.root().join("etc/portage/make.profile")).unwrap();
    let node = machine.start();
    node.import(&machine.sources);
    for (target, files) in [
        ("dev-lang/py", &["main-py-3.14.0_beta1.tar"][..]),
        ("dev-lang/py:3.11", &["main-py-3.11.9.tar"]),
        ("app-misc/live", &["main-live-1.tar"]),
        ("app-misc/a::main", &["main-a-1.tar"]),
        ("app-misc/b", &["over-b-1.tar"]),
        (
            "@weekly",
            &[
                "main-py-3.11.9.tar",
                "main-so-1.0.tar",
                "main-srcs-5.15.102.tar",
                "main-srcs-6.1.38.tar",
                "over-b-1.tar",
            ],
        ),
        ("@sub/one", &["over-a-2.tar"]),
        ("@circle", &["over-a-2.tar", "over-b-1.tar"]),
        ("@installed", &["main-py-3.12.2.tar", "over-b-1.tar"]),
        ("@selected", &["main-a-1.tar", "main-py-3.11.9.tar", "over-a-2.tar", "over-b-1.tar"]),
    ] {
        let (names, _, said) = fetched(&node, target);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), files, "{target}: {said}");
        assert!(said.contains("no profile is chosen"), "{target}: {said}");
    }
    let (_, lines, said) = fetched(&node, "@weekly");
    assert_eq!(
        left_out(&lines),
        [("weekly", 2, "@system"), ("weekly", 3, "@profile")].map(|(file, line, text)| (
            file.to_owned(),
            Some(line),
            text.to_owned()
        )),
        "{said}"
    );
    for set in ["@of-repo", "@system", "@../sets/slots", "@backup~"] {
        let output = node.verb(&["fetch", set]);
        assert_eq!(output.status.code(), Some(1), "{set}: {}", both(&output));
    }
}
