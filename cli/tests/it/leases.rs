//! Builds for other machines end when nobody waits for them any more, so that their place is free; and it is said for whom
//! each is.

use crate::builder::jobs;
use crate::members::enrol;
use crate::wait;
use crate::workshop::{Request, SLOW, Workshop, came_from, held, held_at, is_quiet, job, job_if};

/// One place, and a second until who is lost is given up.
const SHORT: &str = "[offload]\njobs_max = 1\nlease_s = 1";

#[test]
fn a_build_whose_client_is_lost_ends_and_its_place_is_free_for_the_next_one() {
    let workshop = Workshop::new();
    let (_a, weak) = workshop.node("weak");
    let (at_strong, strong) = workshop.node_with("strong", &format!("jobs_max = 1\n{SHORT}"));
    let (_c, second) = workshop.node("second");
    enrol(&strong, &weak, "build");
    enrol(&strong, &second, "build");
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    let lost = held_at(&strong);
    let table = strong.does(&["jobs"]);
    assert!(table.lines().any(|line| line.contains(SLOW) && line.contains("for weak")), "{table}");
    let other = Request::new(&second, &["app-misc/mine", "--on", "strong"]);
    wait::until("the second client's job", || job_if(&strong, "app-misc/mine-1.0"));
    let weak = weak.kill();
    drop(request);
    // Nobody lets the first build go on: only its end frees the place.
    other.does();
    came_from(&second, "app-misc/mine-1.0", &strong);
    let ended = job(&strong, SLOW);
    assert_eq!((&ended["state"], &ended["id"]), (&"cancelled".into(), &lost.into()), "{ended}");
    let why = ended["reason"].as_str().unwrap();
    assert!(why.contains("weak") && why.contains("lease_s"), "{why}");
    is_quiet(&at_strong);
    // Who comes back after that begins anew.
    workshop.go_on();
    let weak = weak.start();
    wait::until("the client's job to end", || (job(&weak, SLOW)["state"] == "done").then_some(()));
    came_from(&weak, SLOW, &strong);
}

#[test]
fn what_was_begun_only_for_a_lost_client_ends_too() {
    let workshop = Workshop::new();
    let machines = ["weak", "strong"].map(|name| {
        let machine = workshop.machine(name);
        machine.ebuild("app-misc/above-1.0", "SLOT=\"0\"\nDEPEND=\"app-misc/slow\"\n", &[]);
        machine
    });
    let [at_weak, at_strong] = &machines;
    let weak = workshop.start(at_weak, "").start();
    let strong = workshop.start(at_strong, SHORT).start();
    enrol(&strong, &weak, "build");
    // The client has what it needs, the builder has not, and makes it first.
    weak.does(&["build", "app-misc/slow", "--on", "local"]);
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/above", "--on", "strong"]);
    held_at(&strong);
    drop(weak.kill());
    drop(request);
    wait::until("all jobs at the builder to end", || {
        jobs(&strong).iter().all(|job| job["state"] == "cancelled").then_some(())
    });
    assert_eq!(jobs(&strong).len(), 2, "{:?}", jobs(&strong));
    is_quiet(at_strong);
    assert_eq!(held(&strong, SLOW), None);
    workshop.go_on();
}
