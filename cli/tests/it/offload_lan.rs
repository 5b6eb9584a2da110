//! A weak machine gets exactly its own build from a strong one, over a network.

use std::path::PathBuf;
use std::process::Command;

use crate::builder::{Builder, binpkgs, built_here, came, jobs, of_cpv, planned};
use crate::members::enrol;
use crate::network::Network;
use crate::peer::{TestPeer, both};
use crate::wait;
use crate::workshop::{MINE, MINE_PATCH, Workshop, came_from, held_packages, job};

const TWO: &str = "dev-libs/two-1.0";
const WEAK: usize = 0;
const STRONG: usize = 1;

/// USE, CFLAGS, package.env and a patch of this machine's own.
fn configure(machine: &Builder) {
    machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O1 -pipe\"\nCXXFLAGS=\"${CFLAGS}\"\n");
    machine.etc("package.use/mine", "# plain is enough\napp-misc/mine -color debug\n");
    machine.etc("package.env", "app-misc/mine weak\n");
    machine.etc("env/weak", "CFLAGS=\"-O1 -DWEAK\"\nEXTRA_ECONF=\"--for-weak\"\n");
    machine.etc("patches/app-misc/mine/welcome.patch", MINE_PATCH);
}

/// Settings of the strong machine, none of which may be seen in what it builds for another.
fn configure_otherwise(machine: &Builder) {
    machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O3 -DSTRONG\"\nCXXFLAGS=\"${CFLAGS}\"\nUSE=\"debug\"\n");
    machine.etc("package.env", "app-misc/mine strong\n");
    machine.etc("env/strong", "EXTRA_ECONF=\"--for-strong\"\n");
    machine.etc("patches/app-misc/mine/goodbye.patch", &MINE_PATCH.replace("welcome", "goodbye"));
}

fn index(lan: &Network, machine: usize, node: &TestPeer) -> String {
    let binhost = node.status()["binhost"].as_str().unwrap().to_owned();
    String::from_utf8(lan.get(machine, &format!("{binhost}/Packages"))).unwrap()
}

/// Installs with the stock emerge of the weak machine; gives the root.
fn install(lan: &Network, machine: &Builder, node: &TestPeer, atom: &str) -> PathBuf {
    let binhost = node.status()["binhost"].as_str().unwrap().to_owned();
    let client = "client/etc/portage";
    let from = machine.dir.join("root/etc/portage");
    let to = machine.dir.join(client);
    std::fs::create_dir_all(&to).unwrap();
    for name in ["package.use", "package.env", "env", "patches"] {
        let copied = wait::run(Command::new("cp").arg("-r").arg(from.join(name)).arg(&to));
        assert!(copied.status.success(), "{}", both(&copied));
    }
    let words = ["--getbinpkgonly", "--binpkg-respect-use=y", atom];
    let output = machine.emerge_through(&lan.inside(WEAK), "client", &binhost, &words);
    assert!(output.status.success(), "{}", both(&output));
    machine.dir.join("client/root")
}

#[test]
fn a_weak_machine_gets_from_a_strong_one_what_it_would_have_built_itself_bit_for_bit() {
    let Some(lan) = Network::of(2) else { return };
    let workshop = Workshop::new();
    let (at_weak, at_strong) = (workshop.machine("weak"), workshop.machine("strong"));
    configure(&at_weak);
    configure_otherwise(&at_strong);
    let keyring = at_weak.keyring();
    // The profile is part of a recipe, and the keyring is named in it.
    let defaults = std::fs::read_to_string(at_weak.repo.dir.join("profiles/base/make.defaults")).unwrap();
    at_strong.repo.write("profiles/base/make.defaults", &defaults);
    let strong = lan.quiet(STRONG, workshop.start(&at_strong, "")).start();
    let weak = lan.quiet(WEAK, workshop.start(&at_weak, "")).start();
    at_strong.import(&strong);
    at_weak.import(&weak);
    weak.does(&["key", "init", "--keyring", keyring.to_str().unwrap()]);
    enrol(&strong, &weak, "build");

    let plan = planned(&weak, &["app-misc/mine", "--on", "strong"]);
    assert_eq!(of_cpv(&plan, MINE)["fate"], "offload", "{plan:?}");
    assert!(jobs(&strong).is_empty(), "a plan is no build");
    let output = weak.verb(&["build", "app-misc/mine", "--on", "strong"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", both(&output));
    assert!(said.starts_with(&format!("offloaded {MINE} ")) && said.lines().count() == 1, "{said}");
    assert!(said.contains(" on strong"), "{said}");

    came_from(&weak, MINE, &strong);
    let (here, there) = (job(&weak, MINE), job(&strong, MINE));
    assert_eq!((&here["on"], &here["builder_name"]), (&strong.peer_id().into(), &"strong".into()), "{here}");
    assert!(here["client"].is_null(), "{here}");
    assert_eq!((&there["client"], &there["state"]), (&weak.peer_id().into(), &"done".into()), "{there}");
    assert_eq!(here["fingerprint"], there["fingerprint"]);
    let log = weak.does(&["logs", &here["id"].to_string()]);
    assert!(log.contains("Compiling source") && log.contains("welcome.patch"), "{log}");
    let listed = &binpkgs(&weak, "app-misc/mine")[0];
    assert_eq!(listed["builder"], strong.peer_id(), "{listed}");
    let use_flags: Vec<&str> =
        listed["use_flags"].as_array().unwrap().iter().filter_map(|flag| flag.as_str()).collect();
    assert!(use_flags.contains(&"debug") && !use_flags.contains(&"color"), "{listed}");

    let root = install(&lan, &at_weak, &weak, "app-misc/mine");
    let output = wait::run(&mut Command::new(root.join("usr/bin/mine")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "welcome weak plain\n");
    assert_eq!(std::fs::read_to_string(root.join("opt/mine/settings")).unwrap(), "-O1 -DWEAK\n--for-weak\n");

    // Nothing of it is the strong machine's own.
    assert!(!index(&lan, STRONG, &strong).contains("app-misc/mine"));
    assert_eq!(held_packages(&strong, MINE), 0);
    assert_eq!(of_cpv(&planned(&strong, &["app-misc/mine"]), MINE)["fate"], "build");
    assert!(index(&lan, WEAK, &weak).contains("app-misc/mine-1.0"));

    let challenge = weak.does(&["challenge", "app-misc/mine"]);
    assert!(challenge.starts_with(&format!("same {MINE} ")), "{challenge}");
    weak.does(&["build", "--rebuild", "--on", "local", "app-misc/mine"]);
    assert_eq!(came(&weak, MINE), built_here());
    assert_eq!(job(&weak, MINE)["image"], here["image"], "built here it is the same");
    assert_eq!(jobs(&strong).len(), 1);
}

#[test]
fn by_policy_what_is_missing_is_built_elsewhere_and_what_is_there_is_not_asked_for() {
    let workshop = Workshop::new();
    let (_at_strong, strong) = workshop.node("strong");
    let (at_weak, weak) = workshop.node_with("weak", "[offload]\nbuilds = \"misses\"\n");
    // Nobody is there yet: it is built here.
    weak.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&weak, TWO), built_here());
    enrol(&strong, &weak, "build");
    weak.does(&["build", "app-misc/mine"]);
    came_from(&weak, MINE, &strong);
    assert_eq!(
        weak.does(&["build", "app-misc/mine", "dev-libs/two"]).lines().filter(|l| l.starts_with("have ")).count(),
        2
    );
    assert_eq!(jobs(&strong).len(), 1);
    // Said for this once, whatever the policy.
    at_weak.etc("package.use", "app-misc/mine debug\n");
    weak.does(&["build", "app-misc/mine", "--on", "local"]);
    assert_eq!(came(&weak, MINE), built_here());
    assert_eq!(jobs(&strong).len(), 1);
}

#[test]
fn without_being_told_no_machine_gives_its_builds_away() {
    let workshop = Workshop::new();
    let [(_, weak), (_, strong)] = workshop.pair();
    weak.does(&["build", "app-misc/mine"]);
    assert_eq!(came(&weak, MINE), built_here());
    assert!(jobs(&strong).is_empty());
}

#[test]
fn what_was_built_for_another_is_listed_when_this_machine_asks_for_the_same() {
    let workshop = Workshop::new();
    let [(_, weak), (_, strong)] = workshop.pair();
    weak.does(&["build", "dev-libs/two", "--on", "strong"]);
    came_from(&weak, TWO, &strong);
    assert_eq!(held_packages(&strong, TWO), 0);
    let base = strong.status()["binhost"].as_str().unwrap().trim_start_matches(&strong.url()).to_owned();
    let index = String::from_utf8(strong.get(&format!("{base}/Packages")).body).unwrap();
    assert!(!index.contains(TWO), "{index}");
    // Nor after a restart, which reads all rows anew.
    let strong = strong.kill_to_return().start();
    assert_eq!(held_packages(&strong, TWO), 0);
    strong.does(&["build", "dev-libs/two"]);
    assert_eq!(held_packages(&strong, TWO), 1);
    assert_eq!(binpkgs(&strong, "dev-libs/two")[0]["image"], binpkgs(&weak, "dev-libs/two")[0]["image"]);
}

#[test]
fn two_domains_at_one_builder_are_kept_apart() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (at_strong, strong)] = workshop.pair();
    let (at_other, other) = workshop.node("other");
    enrol(&strong, &other, "build");
    configure(&at_weak);
    at_other.etc("package.use", "app-misc/mine -color\n");
    at_strong.etc("package.use", "app-misc/mine color debug\n");
    std::thread::scope(|scope| {
        let builds = [(&weak, "strong"), (&other, "strong"), (&strong, "local")];
        let running = builds.map(|(node, on)| scope.spawn(move || node.does(&["build", "app-misc/mine", "--on", on])));
        running.into_iter().for_each(|build| drop(build.join().unwrap()));
    });
    let own =
        |node: &TestPeer| jobs(node).into_iter().find(|job| job["cpv"] == MINE && job["client"].is_null()).unwrap();
    let told = [&weak, &other, &strong].map(own);
    let images: std::collections::BTreeSet<String> = told.iter().map(|job| job["image"].to_string()).collect();
    assert_eq!(images.len(), 3, "{told:?}");
    assert_eq!(held_packages(&strong, MINE), 1, "only its own");
    for node in [&weak, &other] {
        assert!(node.does(&["challenge", "app-misc/mine"]).starts_with("same "));
    }
}
