//! Jobs after a restart: what waits is said to wait, one run of the resolver is for all of them, and a cancel is answered
//! whatever the resolver does.

use std::fs;

use serde_json::Value;

use crate::builder::jobs;
use crate::members::refused;
use crate::peer::{TestPeer, both};
use crate::wait;
use crate::workshop::{Request, SLOW, Workshop, held_at, is_quiet};

/// An ebuild that is read only when it may be: the resolver waits for as long as the file is there.
fn stuck(workshop: &Workshop) -> String {
    let flag = workshop.path().join("flags/stuck");
    format!("while [[ -e {} ]]; do :; done\nSLOT=\"0\"\n", flag.display())
}

fn states(node: &TestPeer) -> Vec<(String, String, String)> {
    let text = |job: &Value, name: &str| job[name].as_str().unwrap().to_owned();
    jobs(node).iter().rev().map(|job| (text(job, "cpv"), text(job, "state"), text(job, "phase"))).collect()
}

#[test]
fn after_a_restart_jobs_wait_until_they_are_begun_and_every_cancel_is_answered() {
    let workshop = Workshop::new();
    let machine = workshop.machine("one");
    machine.ebuild("app-misc/stuck-1.0", &stuck(&workshop), &[]);
    machine.ebuild("app-misc/next-1.0", "SLOT=\"0\"\n", &[]);
    machine.ebuild("app-misc/last-1.0", "SLOT=\"0\"\n", &[]);
    let node = workshop.start(&machine, "jobs_max = 1").start();
    workshop.hold();
    let first = Request::new(&node, &["app-misc/slow"]);
    held_at(&node);
    let others = ["stuck", "next", "last"].map(|name| {
        let request = Request::new(&node, &[&format!("app-misc/{name}")]);
        wait::until(name, || jobs(&node).iter().any(|job| job["cpv"] == format!("app-misc/{name}-1.0")).then_some(()));
        request
    });
    fs::write(workshop.path().join("flags/stuck"), "").unwrap();
    let node = node.kill_to_return();
    is_quiet(&machine);
    drop((first, others));
    // The resolver does not come to an end: nothing has begun, and that is what is said.
    let node = node.start();
    let waiting = |name: &str| (format!("app-misc/{name}-1.0"), "queued".to_owned(), "wait".to_owned());
    assert_eq!(states(&node), ["slow", "stuck", "next", "last"].map(waiting));
    let id = |cpv: &str| jobs(&node).iter().find(|job| job["cpv"] == cpv).unwrap()["id"].to_string();
    let next = id("app-misc/next-1.0");
    assert_eq!(node.does(&["cancel", &next]), format!("cancelled {next} app-misc/next-1.0\n"));
    assert!(refused_code(&node, &["cancel", &next]), "it has ended");
    let said = node.does(&["cancel", "--all"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines.iter().all(|line| line.starts_with("cancelled ")), "{said}");
    assert!(states(&node).iter().all(|(_, state, _)| state == "cancelled"), "{:?}", states(&node));
    assert!(both(&node.verb(&["cancel", "--all"])).contains("no job waits or runs"));
    // Nothing of them begins when the resolver comes to its end.
    fs::remove_file(workshop.path().join("flags/stuck")).unwrap();
    workshop.go_on();
    let said = node.does(&["build", "app-misc/last"]);
    assert!(said.contains("built app-misc/last-1.0"), "{said}");
    assert_eq!(jobs(&node).iter().filter(|job| job["state"] == "done").count(), 1, "{:?}", states(&node));
}

fn refused_code(node: &TestPeer, words: &[&str]) -> bool {
    node.verb(words).status.code() == Some(1)
}

#[test]
fn one_job_that_cannot_be_planned_any_more_does_not_keep_the_others() {
    let workshop = Workshop::new();
    let machine = workshop.machine("one");
    for name in ["gone", "next", "last"] {
        machine.ebuild(&format!("app-misc/{name}-1.0"), "SLOT=\"0\"\n", &[]);
    }
    let node = workshop.start(&machine, "jobs_max = 1").start();
    workshop.hold();
    let requests = ["slow", "gone", "next", "last"].map(|name| {
        let request = Request::new(&node, &[&format!("app-misc/{name}")]);
        wait::until(name, || jobs(&node).iter().any(|job| job["cpv"] == format!("app-misc/{name}-1.0")).then_some(()));
        request
    });
    held_at(&node);
    let node = node.kill_to_return();
    is_quiet(&machine);
    drop(requests);
    fs::remove_dir_all(machine.repo.dir.join("app-misc/gone")).unwrap();
    workshop.go_on();
    let node = node.start();
    let state = |cpv: &str| jobs(&node).iter().find(|job| job["cpv"] == cpv).unwrap()["state"].clone();
    for cpv in [SLOW, "app-misc/next-1.0", "app-misc/last-1.0"] {
        wait::until(cpv, || (state(cpv) == "done").then_some(()));
    }
    wait::until("the job of the ebuild that is gone to be given up", || {
        (state("app-misc/gone-1.0") == "failed").then_some(())
    });
    let said = refused(&node, &["build", "app-misc/gone"]);
    assert!(said.contains("gone"), "{said}");
}
