//! Builds that a builder does not take, each with its reason, and those that fail there.

use std::fs;

use crate::builder::{Builder, jobs};
use crate::gentoo::Repo;
use crate::members::{enrol, refused};
use crate::peer::{TestPeer, both};
use crate::wait;
use crate::workshop::{MINE, Request, SLOW, Workshop, came_from, held_at, held_packages, job, job_if, was_built_here};

/// What `peer build --on strong` says when it is refused; nothing was built anywhere, and nothing is listed.
fn refusal(weak: &TestPeer, strong: &TestPeer, atom: &str) -> String {
    let before = jobs(strong).len();
    let said = refused(weak, &["build", atom, "--on", "strong"]).to_lowercase();
    assert!(said.contains("strong"), "who refused is named: {said}");
    assert_eq!(jobs(strong).len(), before, "nothing was begun: {said}");
    said
}

fn make_conf(machine: &Builder, lines: &str) {
    machine.etc("make.conf", &format!("GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2 -pipe\"\nCXXFLAGS=\"${{CFLAGS}}\"\n{lines}"));
}

#[test]
fn another_chost_and_a_processor_that_the_builder_has_not_are_refused_before_anything_is_fetched() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (_b, strong)] = workshop.pair();
    make_conf(&at_weak, "CHOST=\"aarch64-unknown-linux-gnu\"\n");
    let said = refusal(&weak, &strong, "app-misc/mine");
    assert!(said.contains("chost") && said.contains("aarch64-unknown-linux-gnu"), "{said}");
    // No processor has what AMD gave up and what Intel never began.
    make_conf(&at_weak, "CFLAGS=\"-O2 -mxop -mfma4 -mlwp\"\n");
    let said = refusal(&weak, &strong, "app-misc/mine");
    assert!(said.contains("processor") && said.contains("xop"), "{said}");
    assert!(
        !strong.dir().join("store/domains").exists()
            || fs::read_dir(strong.dir().join("store/domains")).unwrap().count() == 0
    );
    // A processor that nobody knows is the compiler's to refuse, if the builder does not.
    make_conf(&at_weak, "CFLAGS=\"-O2 -march=no-such-processor\"\n");
    let said = refused(&weak, &["build", "app-misc/mine", "--on", "strong"]);
    assert!(said.contains("no-such-processor"), "{said}");
    assert_eq!((held_packages(&weak, MINE), held_packages(&strong, MINE)), (0, 0));
    make_conf(&at_weak, "");
    weak.does(&["build", "app-misc/mine", "--on", "strong"]);
    came_from(&weak, MINE, &strong);
}

#[test]
fn a_repository_that_the_builder_has_not_is_named() {
    let workshop = Workshop::new();
    let (weak_machine, strong_machine) = (workshop.machine("weak"), workshop.machine("strong"));
    let overlay = Repo::overlay(&weak_machine.dir, "extra", "main");
    overlay.write("profiles/categories", "app-misc\n");
    let alone = "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.invalid/\"\nLICENSE=\"Example\"\nKEYWORDS=\"amd64\"\n\
                 SLOT=\"0\"\nS=\"${WORKDIR}\"\nsrc_install() { echo x > x; insinto /opt/rare; doins x; }\n";
    overlay.write("app-misc/rare/rare-1.0.ebuild", alone);
    let strong = workshop.start(&strong_machine, "").start();
    let weak = workshop.start(&weak_machine, "").repo(&overlay).start();
    enrol(&strong, &weak, "build");
    let said = refusal(&weak, &strong, "app-misc/rare");
    assert!(said.contains("repositor") && said.contains("extra"), "{said}");
    weak.does(&["build", "app-misc/rare", "--on", "any"]);
    was_built_here(&weak, "app-misc/rare-1.0");
}

#[test]
fn another_ebuild_or_profile_is_refused_with_what_differs() {
    let workshop = Workshop::new();
    let [(weak_machine, weak), (strong_machine, strong)] = workshop.pair();
    let ebuild = "app-misc/mine/mine-1.0.ebuild";
    let text = fs::read_to_string(strong_machine.repo.dir.join(ebuild)).unwrap();
    strong_machine.repo.write(ebuild, &(text.clone() + "\nsrc_configure() { :; }\n"));
    let said = refusal(&weak, &strong, "app-misc/mine");
    assert!(said.contains("another recipe") && said.contains("- ebuild "), "{said}");
    weak.does(&["build", "app-misc/mine", "--on", "any"]);
    was_built_here(&weak, MINE);
    strong_machine.repo.write(ebuild, &text);

    // A profile that the builder's repository has not.
    weak_machine.repo.write("profiles/other/parent", "../base\n");
    weak_machine.repo.write("profiles/other/eapi", "8\n");
    weak_machine.repo.write("profiles/other/make.defaults", "CFLAGS=\"-O1\"\n");
    let profile = weak_machine.dir.join("root/etc/portage/make.profile");
    fs::remove_file(&profile).unwrap();
    std::os::unix::fs::symlink(weak_machine.repo.dir.join("profiles/other"), &profile).unwrap();
    let said = refusal(&weak, &strong, "app-misc/one");
    assert!(said.contains("profile"), "{said}");
}

#[test]
fn a_bashrc_of_the_users_own_keeps_a_package_here_and_says_so() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (_b, strong)] = workshop.pair();
    at_weak.etc("env/app-misc/one", "pre_src_compile() { :; }\n");
    weak.does(&["build", "app-misc/mine", "--on", "strong"]);
    came_from(&weak, MINE, &strong);
    for path in ["env/app-misc/slow", "bashrc"] {
        at_weak.etc(path, "pre_src_compile() { :; }\n");
        let said = refused(&weak, &["build", "app-misc/slow", "--on", "strong"]);
        assert!(said.contains("bashrc") || said.contains("env/app-misc/slow"), "{said}");
        fs::remove_file(at_weak.dir.join("root/etc/portage").join(path)).unwrap();
    }
    assert_eq!(jobs(&strong).len(), 1);
    at_weak.etc("bashrc", "true\n");
    weak.does(&["build", "app-misc/slow", "--on", "any"]);
    was_built_here(&weak, SLOW);
    assert_eq!(jobs(&strong).len(), 1);
}

#[test]
fn a_builder_takes_only_so_much_work_and_what_is_more_is_built_here_or_waits() {
    let workshop = Workshop::new();
    let names: Vec<String> = (0..8).map(|number| format!("n{number}")).collect();
    let with_names = |machine: &Builder| {
        for name in &names {
            let body = "SLOT=\"0\"\nsrc_install() { echo x > x; insinto /opt/${PN}; doins x; }\n";
            machine.ebuild(&format!("app-misc/{name}-1.0"), body, &[]);
        }
    };
    let (at_weak, at_strong) = (workshop.machine("weak"), workshop.machine("strong"));
    with_names(&at_weak);
    with_names(&at_strong);
    let strong = workshop.start(&at_strong, "[offload]\njobs_max = 1\n").start();
    let weak = workshop.start(&at_weak, "").start();
    enrol(&strong, &weak, "build");
    workshop.hold();
    let slow = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    held_at(&strong);
    let waiting = |name: &String| Request::new(&weak, &[&format!("app-misc/{name}"), "--on", "strong"]);
    let mut queued: Vec<Request> = names.iter().take(4).map(waiting).collect();
    wait::until("the queue to be full", || {
        let guests = jobs(&strong).iter().filter(|job| job["state"] == "queued" || job["state"] == "running").count();
        (guests == 5).then_some(())
    });
    // Any other place will do; who insists on this one waits for it.
    weak.does(&["build", "app-misc/n5", "--on", "any"]);
    let here = was_built_here(&weak, "app-misc/n5-1.0");
    let reason = here["tried"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("run or wait there already"), "{here}");
    let insists = Request::new(&weak, &["app-misc/n4", "--on", "strong"]);
    wait::until("the builder's word", || {
        let job = job_if(&weak, "app-misc/n4-1.0")?;
        job["reason"].as_str().is_some_and(|reason| reason.contains("enough to do")).then_some(())
    });
    workshop.go_on();
    slow.does();
    queued.drain(..).for_each(|request| drop(request.does()));
    came_from(&weak, "app-misc/n3-1.0", &strong);
    insists.does();
    came_from(&weak, "app-misc/n4-1.0", &strong);
}

#[test]
fn an_ebuild_that_fails_is_not_tried_elsewhere_and_the_compilers_words_come_back() {
    const BROKEN: &str = "app-misc/broken-1.0";
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong), (_c, other)] = workshop.three();
    let said = refused(&weak, &["build", "app-misc/broken", "--on", "any"]);
    assert!(said.contains("no such thing, says the compiler"), "{said}");
    let here = job(&weak, BROKEN);
    assert_eq!((&here["state"], &here["phase"]), (&"failed".into(), &"compile".into()), "{here}");
    assert!(weak.does(&["logs", &here["id"].to_string()]).contains("no such thing, says the compiler"));
    let there = [&strong, &other].map(|node| job_if(node, BROKEN));
    assert_eq!(there.iter().flatten().count(), 1, "{there:?}");
    assert_eq!(there.iter().flatten().next().unwrap()["state"], "failed");
    assert_eq!(held_packages(&weak, BROKEN), 0);
    // Asked again it is tried again, once.
    refused(&weak, &["build", "app-misc/broken", "--on", "any"]);
    let count = |node: &TestPeer| jobs(node).iter().filter(|job| job["cpv"] == BROKEN).count();
    assert!(count(&strong) + count(&other) <= 2 && count(&weak) == 2);
    // A builder whose ebuilds fail is none that fails.
    weak.does(&["build", "app-misc/mine", "--on", "strong"]);
    came_from(&weak, MINE, &strong);
}

#[test]
fn who_is_no_member_or_not_there_is_said_by_name() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    let output = weak.verb(&["build", "app-misc/mine", "--on", "no-such-machine"]);
    let said = both(&output);
    assert!(output.status.code() == Some(2) && said.contains("no-such-machine"), "{said}");
    let strong = strong.kill_to_return();
    let said = refused(&weak, &["build", "app-misc/mine", "--on", "strong"]);
    assert!(said.contains("strong"), "{said}");
    assert_eq!(held_packages(&weak, MINE), 0);
    let strong = strong.start();
    crate::members::sees(&weak, &strong, "sign");
    let id = strong.peer_id();
    weak.does(&["build", "app-misc/mine", "--on", &id]);
    came_from(&weak, MINE, &strong);
    // A member whose word does not count is no builder for this machine.
    let said = refused(&strong, &["build", "dev-libs/two", "--on", "weak"]);
    assert!(said.contains("weak"), "{said}");
    assert_eq!(held_packages(&strong, "dev-libs/two-1.0"), 0);
}
