//! What was built for another machine is kept for it, and never becomes this machine's own: who wants the very same builds it.

use tempfile::tempdir;

use crate::answers::{NOTE, STRONG, adds_up, enrol, listed, of_weather, rejects, state_of};
use crate::builder::{Builder, binpkgs, jobs, of_cpv};
use crate::peer::both;
use crate::wait;

const NOTES: &str = "app-misc/note-1.0";

/// A machine that has a note with a flag.
fn machine(dir: &std::path::Path) -> Builder {
    let machine = Builder::new(dir);
    machine.ebuild(NOTES, &format!("{NOTE}IUSE=\"debug\"\n"), &[]);
    machine
}

#[test]
fn a_guests_package_is_listed_at_the_guest_and_at_the_builder_only_when_it_built_its_own() {
    let dir = tempdir().unwrap();
    let (strong, weak) = (machine(&dir.path().join("a")), machine(&dir.path().join("b")));
    weak.etc("package.use", "app-misc/note debug\n");
    let a = strong.start_with(STRONG).start();
    let b = weak.start_with("[offload]\nbuilds = \"misses\"").knows(&a).start();
    b.wait_for_peers(1);
    enrol(&a, &b, "weak", "build");

    // Foreseen: somebody may build it.
    let said = b.json(&["weather", "app-misc/note"]);
    adds_up(&said);
    assert_eq!(state_of(&said, NOTES).0, "offload", "{said}");
    assert_eq!(of_weather(&said, NOTES)["from"], serde_json::json!(["strong"]), "{said}");
    let why = b.json(&["why", "app-misc/note"]);
    assert_eq!(why["state"], "offload", "{why}");
    let asked = b.verb(&["build", "app-misc/note"]);
    assert!(asked.status.success(), "{}", both(&asked));
    let job = of_cpv(&jobs(&b), NOTES).clone();
    assert_eq!((&job["source"], &job["builder"]), (&"offload".into(), &a.peer_id().into()), "{job}");
    assert_eq!(listed(&b, NOTES).len(), 1, "it is the guest's");

    // At the builder it is kept, and not its own.
    assert!(listed(&a, NOTES).is_empty());
    for instance in &binpkgs(&a, "app-misc/note") {
        assert!(rejects(instance).iter().any(|(kind, _)| kind == "guest"), "{instance}");
    }
    let said = a.json(&["weather", "app-misc/note"]);
    assert_eq!(state_of(&said, NOTES).0, "build", "{said}");
    // Not even when it would fit.
    strong.etc("package.use", "app-misc/note debug\n");
    let planned = a.json(&["build", "--pretend", "app-misc/note"]);
    assert_eq!(of_cpv(planned["packages"].as_array().unwrap(), NOTES)["fate"], "build", "{planned}");
    // All who are asked say the same of it, and why.
    let said = a.json(&["weather", "app-misc/note"]);
    assert_eq!(
        (state_of(&said, NOTES).0.as_str(), &of_weather(&said, NOTES)["kind"]),
        ("build", &"guest".into()),
        "{said}"
    );
    let why = a.json(&["why", "app-misc/note"]);
    assert_eq!((&why["state"], &why["kind"]), (&"build".into(), &"guest".into()), "{why}");
    assert!(listed(&a, NOTES).is_empty(), "asking is not wanting");
    // When it is wanted here it is built here, by this machine's own configuration.
    let said = a.does(&["build", "app-misc/note"]);
    assert!(said.contains(&format!("built {NOTES}")), "{said}");
    wait::until("its own package", || (listed(&a, NOTES).len() == 1).then_some(()));
    assert_eq!(rejects(&binpkgs(&a, "app-misc/note")[0]), []);
    let built = jobs(&a).iter().filter(|job| job["cpv"] == NOTES && job["source"] == "build").count();
    assert_eq!(built, 2, "{:?}", jobs(&a));
    assert_eq!(a.json(&["weather", "app-misc/note"])["totals"]["have"], 1);
    // What is this machine's own is given to the guest.
    assert_eq!(b.verb(&["build", "app-misc/note", "--rebuild", "--on", "strong"]).status.code(), Some(0));
    assert_eq!(jobs(&a).iter().filter(|job| job["cpv"] == NOTES).count(), 2, "{:?}", jobs(&a));
    // Also after a restart, and the guest's other packages are guests still.
    let a = a.kill().start();
    wait::until("its own package", || (listed(&a, NOTES).len() == 1).then_some(()));
}
