//! Questions: the weather of a plan, with the cause of each miss, and that asking changes nothing.

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, jobs, of_cpv};
use crate::peer::{TestPeer, both};

fn weather(peer: &TestPeer, atoms: &[&str]) -> Value {
    peer.json(&[&["weather"], atoms].concat())
}

/// State, kind and cause of a package.
fn says(peer: &TestPeer, cpv: &str) -> (String, String, String) {
    let answer = weather(peer, &["app-misc/one"]);
    let packages = answer["packages"].as_array().unwrap();
    let text = |key: &str| of_cpv(packages, cpv)[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("kind"), text("cause"))
}

fn three(state: &str, kind: &str, cause: &str) -> (String, String, String) {
    (state.to_owned(), kind.to_owned(), cause.to_owned())
}

#[test]
fn the_weather_says_what_is_had_and_why_the_rest_is_not() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let before = weather(&peer, &["app-misc/one"]);
    let totals = &before["totals"];
    assert_eq!((&totals["build"], &totals["unknown_times"], &totals["bytes"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(says(&peer, "app-misc/one-1.0"), three("build", "nobody", "nobody is trusted to build it"));
    assert!(jobs(&peer).is_empty(), "asking begins nothing");

    peer.does(&["build", "app-misc/one"]);
    assert_eq!(says(&peer, "app-misc/one-1.0"), three("have", "", ""));
    machine.etc("package.use", "app-misc/one -color\n");
    assert_eq!(says(&peer, "app-misc/one-1.0"), three("build", "use", "here: it has USE +color"));
    let answer = weather(&peer, &["app-misc/one"]);
    assert_eq!((&answer["totals"]["have"], &answer["totals"]["unknown_times"]), (&1.into(), &0.into()), "{answer}");
    machine.etc("package.use", "");
    machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O1\"\nCXXFLAGS=\"${CFLAGS}\"\n");
    let (state, kind, cause) = says(&peer, "app-misc/one-1.0");
    assert_eq!((state.as_str(), kind.as_str()), ("build", "recipe"), "{cause}");
    machine.etc("make.conf", "GENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2 -pipe\"\nCXXFLAGS=\"${CFLAGS}\"\n");
    machine.ebuild("app-misc/one-1.1", "SLOT=\"0\"\nIUSE=\"+color debug\"\n", &[]);
    assert_eq!(says(&peer, "app-misc/one-1.1"), three("build", "version", "there is only 1.0"));

    let none = peer.verb(&["weather", "app-misc/none"]);
    assert_eq!(none.status.code(), Some(1));
    // A set of the user's own is one to Portage too.
    machine.etc("sets/mine", "dev-libs/two\n");
    let answer = weather(&peer, &["@mine"]);
    assert_eq!(answer["packages"][0]["cpv"], "dev-libs/two-1.0", "{answer}");
}

#[test]
fn why_tells_all_that_is_known_of_a_package() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let before = peer.json(&["why", "dev-libs/two"]);
    assert_eq!((&before["state"], &before["kind"]), (&"build".into(), &"nobody".into()), "{before}");
    assert!(before["next"].as_str().unwrap().contains("peer join"), "{before}");

    peer.does(&["build", "dev-libs/two"]);
    let had = peer.json(&["why", "dev-libs/two"]);
    assert_eq!((&had["state"], &had["cause"]), (&"have".into(), &Value::Null), "{had}");
    assert_eq!((&had["instances"][0]["usable"], &had["claims"][0]["counts"]), (&true.into(), &true.into()), "{had}");
    let said = peer.does(&["why", "dev-libs/two"]);
    assert!(said.starts_with("have dev-libs/two-1.0 main -\ninstance dev-libs/two-1.0 1 here usable "), "{said}");

    // The ebuild is masked: what there is of it is told all the same.
    machine.etc("package.mask", "dev-libs/two\n");
    let masked = peer.json(&["why", "dev-libs/two"]);
    assert_eq!(
        (&masked["state"], &masked["instances"][0]["cpv"]),
        (&Value::Null, &"dev-libs/two-1.0".into()),
        "{masked}"
    );
    assert!(masked["cause"].as_str().unwrap().contains("masked"), "{masked}");
    let none = peer.verb(&["why", "app-misc/none"]);
    assert_eq!(none.status.code(), Some(1));
    let option = peer.verb(&["why", "--", "--sync"]);
    assert_eq!(option.status.code(), Some(2));
}

#[test]
fn search_finds_names_and_descriptions_and_says_what_is_ready_as_a_binary() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let rows = |words: &[&str]| peer.json(&[&["search"], words].concat())["rows"].as_array().unwrap().clone();
    let found = rows(&["TEST", "two"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["cpv"], &found[0]["description"]), (&"dev-libs/two-1.0".into(), &"A test".into()));
    assert_eq!((&found[0]["binary"], &found[0]["domain"]), (&false.into(), &Value::Null));
    peer.does(&["build", "dev-libs/two"]);
    machine.ebuild("dev-libs/two-1.1", "SLOT=\"0/1\"\n", &[]);
    let found = rows(&["two"]);
    assert_eq!((&found[0]["cpv"], &found[0]["binary"]), (&"dev-libs/two-1.1".into(), &true.into()), "{found:?}");
    let said = peer.does(&["search", "test"]);
    assert_eq!(said, "app-misc/one-1.0  main  -       here  A test\ndev-libs/two-1.1  main  binary  here  A test\n");
    let none = peer.verb(&["search", "nothing-of-this-name"]);
    assert_eq!(none.status.code(), Some(1));
}

/// Lets `node` into the group of `founder`, and waits until both know it.
fn join(founder: &TestPeer, node: &TestPeer, role: &str, name: &str) {
    let ticket = founder.does(&["invite", "--role", role]);
    node.does(&["join", ticket.trim(), "--name", name]);
}

#[test]
fn members_answer_for_their_own_machines_as_far_as_their_roles_go() {
    let dir = tempdir().unwrap();
    let strong_machine = Builder::new(&dir.path().join("strong"));
    let strong = strong_machine.start_with("[node]\nname = \"strong\"").start();
    strong_machine.import(&strong);
    let weak_machine = Builder::new(&dir.path().join("weak"));
    let weak = weak_machine.start_with("").start();
    let guest = Builder::new(&dir.path().join("guest")).start_with("").start();
    strong.does(&["build", "app-misc/one"]);
    join(&strong, &weak, "build", "weak");
    join(&strong, &guest, "fetch", "guest");

    let answer = weather(&weak, &["dev-libs/two"]);
    let two = of_cpv(answer["packages"].as_array().unwrap(), "dev-libs/two-1.0");
    assert_eq!((&two["state"], &two["from"]), (&"substitute".into(), &serde_json::json!(["strong"])), "{answer}");
    // What a member has of it tells what is in the way, and how long it takes.
    weak_machine.etc("package.use", "app-misc/one -color\n");
    assert_eq!(says(&weak, "app-misc/one-1.0"), three("build", "use", "at strong: it has USE +color"));
    assert_eq!(weather(&weak, &["app-misc/one"])["totals"]["unknown_times"], 0);
    let told = weak.json(&["why", "app-misc/one"]);
    assert_eq!((&told["instances"][0]["at"], &told["builders"][0]["state"]), (&"strong".into(), &"connected".into()));

    let found = weak.json(&["search", "two", "--domain", "strong"]);
    assert_eq!((&found["rows"][0]["domain"], &found["rows"][0]["binary"]), (&"strong".into(), &true.into()), "{found}");
    let all = weak.json(&["search", "two"])["rows"].as_array().unwrap().clone();
    let domains: Vec<&Value> = all.iter().map(|row| &row["domain"]).collect();
    assert_eq!(domains, [&Value::Null, &"strong".into()], "here, and who has a binary package: {all:?}");
    let shown = weak.json(&["show", "dev-libs/two", "--domain", "strong"]);
    assert_eq!(shown["binpkgs"][0]["cpv"], "dev-libs/two-1.0", "{shown}");
    assert_eq!(weak.json(&["weather", "app-misc/one", "--domain", "strong"])["totals"]["have"], 2);

    let refused = guest.verb(&["weather", "app-misc/one", "--domain", "strong"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(both(&refused).contains("the role fetch may not"), "{}", both(&refused));
    let nobody = weak.verb(&["show", "dev-libs/two", "--domain", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", both(&nobody));
    assert!(both(&nobody).contains("no member of a group here is called \"nobody\""), "{}", both(&nobody));
}
