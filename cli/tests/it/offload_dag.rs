//! One request of several packages over two builders.

use std::collections::BTreeSet;

use crate::builder::{Builder, jobs, of_cpv, planned};
use crate::peer::TestPeer;
use crate::wait;
use crate::workshop::{Request, Workshop, held, held_packages, job};

const LEAVES: [&str; 3] = ["dev-libs/l1-1.0", "dev-libs/l2-1.0", "dev-libs/l3-1.0"];
const MIDDLE: &str = "dev-libs/middle-1.0";
const TOP: &str = "app-misc/top-1.0";

/// `top` needs `middle` and a leaf, `middle` needs two leaves; leaves wait as long as builds are held.
fn packages(workshop: &Workshop, machine: &Builder) {
    for cpv in LEAVES {
        machine.ebuild(cpv, &workshop.waiting(""), &[]);
    }
    let needs = |packages: &str, checks: &str| {
        format!(
            "SLOT=\"0\"\nDEPEND=\"{packages}\"\nRDEPEND=\"{packages}\"\nsrc_install() {{\n{checks}\n\techo ${{PN}} > x\n\tinsinto \
             /opt/${{PN}}\n\tdoins x\n}}\n"
        )
    };
    machine.ebuild(MIDDLE, &needs("dev-libs/l1 dev-libs/l2", "\tcat /opt/l1/slow /opt/l2/slow || die"), &[]);
    machine.ebuild(TOP, &needs("dev-libs/middle dev-libs/l3", "\tcat /opt/middle/x /opt/l3/slow || die"), &[]);
}

fn work<'a>(nodes: &[&'a TestPeer], cpv: &str) -> Vec<(&'a str, u64)> {
    let names = ["strong", "other"];
    let held_by = nodes.iter().zip(names).filter_map(|(node, name)| Some((name, held(node, cpv)?)));
    held_by.collect()
}

#[test]
fn the_packages_of_one_request_are_built_by_both_builders_side_by_side_and_dependencies_come_first() {
    let workshop = Workshop::new();
    let nodes = workshop.three();
    for (machine, _) in &nodes {
        packages(&workshop, machine);
    }
    let [(_a, weak), (_b, strong), (_c, other)] = nodes;
    let plan = planned(&weak, &["app-misc/top", "--on", "any"]);
    assert!(plan.iter().all(|package| package["fate"] == "offload"), "{plan:?}");
    workshop.hold();
    let request = Request::new(&weak, &["app-misc/top", "--on", "any"]);
    let builders = wait::until("both to work", || {
        let working: BTreeSet<&str> =
            LEAVES.iter().flat_map(|cpv| work(&[&strong, &other], cpv)).map(|(name, _)| name).collect();
        (working.len() == 2).then_some(working)
    });
    assert_eq!(builders, BTreeSet::from(["other", "strong"]));
    assert!(jobs(&weak).iter().all(|job| job["state"] != "done"), "what needs others waits for them");
    workshop.go_on();
    let said = request.does();
    assert_eq!(said.lines().filter(|line| line.starts_with("offloaded ")).count(), 5, "{said}");

    let all = jobs(&weak);
    let number = |cpv: &str, what: &str| of_cpv(&all, cpv)[what].as_u64().unwrap();
    for cpv in LEAVES.into_iter().chain([MIDDLE, TOP]) {
        let job = of_cpv(&all, cpv);
        assert_eq!((&job["state"], &job["source"]), (&"done".into(), &"offload".into()), "{job}");
        assert_eq!(held_packages(&weak, cpv), 1);
        let by = [&strong, &other].into_iter().filter(|node| job["builder"] == node.peer_id()).count();
        assert_eq!(by, 1, "{job}");
    }
    for (cpv, needs) in [(MIDDLE, &[LEAVES[0], LEAVES[1]]), (TOP, &[MIDDLE, LEAVES[2]])] {
        for dependency in needs {
            assert!(number(cpv, "started_at") >= number(dependency, "ended_at"), "{dependency} before {cpv}");
        }
    }
    let of_builders = |node: &TestPeer| jobs(node).iter().filter(|job| job["state"] == "done").count();
    assert!(of_builders(&strong) >= 1 && of_builders(&other) >= 1);
    assert_eq!(job(&weak, TOP)["attempt"], 1);
}

#[test]
fn what_needs_a_package_that_fails_elsewhere_is_not_begun_anywhere() {
    let workshop = Workshop::new();
    let nodes = workshop.three();
    for (machine, _) in &nodes {
        packages(&workshop, machine);
        machine.ebuild("dev-libs/l2-1.0", "SLOT=\"0\"\nsrc_compile() { die 'never'; }\n", &[]);
    }
    let [(_a, weak), (_b, strong), (_c, other)] = nodes;
    let said = crate::members::refused(&weak, &["build", "app-misc/top", "--on", "any"]);
    assert!(said.contains("dev-libs/l2-1.0"), "{said}");
    for (cpv, state) in
        [(LEAVES[0], "done"), (LEAVES[1], "failed"), (LEAVES[2], "done"), (MIDDLE, "failed"), (TOP, "failed")]
    {
        assert_eq!(job(&weak, cpv)["state"], state, "{cpv}");
    }
    for node in [&strong, &other] {
        assert!(jobs(node).iter().all(|job| job["cpv"] != MIDDLE && job["cpv"] != TOP), "{:?}", jobs(node));
    }
}
