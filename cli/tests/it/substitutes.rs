//! Packages between nodes: who is trusted for what, what a liar achieves, and what must not leave the machine.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, LAN, binpkgs, built_here, came, jobs, of_cpv, package, planned};
use crate::peer::{TestPeer, both};
use crate::wait;

const ONE: &str = "app-misc/one-1.0";
const TWO: &str = "dev-libs/two-1.0";

/// A daemon of this machine without any source, which knows these peers, once it is connected to them.
fn without_sources(machine: &Builder, peers: &[&TestPeer]) -> TestPeer {
    let start = peers.iter().fold(machine.start_with(LAN), |start, peer| start.knows(peer));
    let node = start.start();
    node.wait_for_peers(peers.len() as u64);
    node
}

fn trust(node: &TestPeer, builder: &TestPeer, packages: &[&str]) {
    let id = builder.peer_id();
    node.does(&[&["trust", "add", &id, "--packages"], packages].concat());
}

fn taken_from(builder: &TestPeer) -> (Value, Value) {
    ("substitute".into(), builder.peer_id().into())
}

#[test]
fn a_trusted_peers_packages_are_taken_without_building_and_stock_emerge_installs_them_with_this_nodes_own_key() {
    let dir = tempdir().unwrap();
    let at_a = Builder::new(&dir.path().join("a"));
    let a = at_a.start_for_everybody();
    a.does(&["build", "app-misc/one"]);
    // The same repository at another place.
    let at_b = Builder::new(&dir.path().join("elsewhere/and/deeper/b"));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let keyring = at_b.keyring();
    let b = without_sources(&at_b, &[&a]);
    b.does(&["key", "init", "--keyring", keyring.to_str().unwrap()]);
    trust(&b, &a, &["app-misc/*", "dev-libs/*"]);
    let plan = planned(&b, &["app-misc/one"]);
    for cpv in [ONE, TWO] {
        assert_eq!(of_cpv(&plan, cpv)["fate"], "substitute", "{plan:?}");
        let theirs = of_cpv(&jobs(&a), cpv)["fingerprint"].clone();
        assert_eq!(of_cpv(&plan, cpv)["fingerprint"], theirs, "the place of a repository is not in the recipe");
    }

    let said = b.does(&["build", "app-misc/one"]);
    let lines = |cpv: &str| said.lines().filter(|line| line.starts_with(&format!("substituted {cpv} "))).count();
    assert_eq!((lines(ONE), lines(TWO), said.lines().count()), (1, 1, 2), "{said}");
    assert!(said.lines().all(|line| line.ends_with(&format!(" from {}", a.peer_id()))), "{said}");
    for cpv in [ONE, TWO] {
        assert_eq!(came(&b, cpv), taken_from(&a));
        assert_eq!(binpkgs(&b, &format!("={cpv}"))[0]["builder"], a.peer_id());
    }
    let shown = b.json(&["show", "app-misc/one"]);
    assert_eq!(shown["distfiles"][0]["held"], false, "no source was needed: {shown}");

    let binhost = b.status()["binhost"].as_str().unwrap().to_owned();
    let output = at_b.emerge("client", &binhost, &["--getbinpkgonly", "app-misc/one"]);
    assert!(output.status.success(), "{}", both(&output));
    let output = wait::run(&mut Command::new(at_b.dir.join("client/root/usr/bin/one")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one two color\n");
}

#[test]
fn a_third_node_takes_a_trusted_builders_package_from_whoever_has_it() {
    let dir = tempdir().unwrap();
    let at_a = Builder::new(&dir.path().join("a"));
    let a = at_a.start_for_everybody();
    a.does(&["build", "dev-libs/two"]);
    let b = without_sources(&Builder::new(&dir.path().join("b")), &[&a]);
    trust(&b, &a, &["*/*"]);
    b.does(&["build", "dev-libs/two"]);
    let builder = taken_from(&a);
    let id = a.peer_id();
    a.kill();
    let c = without_sources(&Builder::new(&dir.path().join("c")), &[&b]);
    c.does(&["trust", "add", &id, "--packages", "dev-libs/two"]);
    c.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&c, TWO), builder, "A is gone; B had the claim and the bytes");
}

#[test]
fn without_trust_or_outside_of_its_scope_a_package_is_built_here() {
    let dir = tempdir().unwrap();
    let at_a = Builder::new(&dir.path().join("a"));
    let a = at_a.start_for_everybody();
    a.does(&["build", "app-misc/one"]);

    let at_b = Builder::new(&dir.path().join("b"));
    let b = without_sources(&at_b, &[&a]);
    at_b.import(&b);
    let plan = planned(&b, &["app-misc/one"]);
    assert!(plan.iter().all(|package| package["fate"] == "build"), "nobody is trusted: {plan:?}");
    trust(&b, &a, &["dev-libs/*"]);
    b.does(&["build", "app-misc/one"]);
    assert_eq!((came(&b, TWO), came(&b, ONE)), (taken_from(&a), built_here()));
    assert_eq!(of_cpv(&jobs(&b), ONE)["image"], of_cpv(&jobs(&a), ONE)["image"], "built from the same, it is the same");

    // C trusts B, which is not connected, and not A, which is: A's word counts nothing.
    let at_c = Builder::new(&dir.path().join("c"));
    let c = without_sources(&at_c, &[&a]);
    at_c.import(&c);
    trust(&c, &b, &["*/*"]);
    trust(&c, &a, &["dev-libs/other", "<dev-libs/two-1.0", "dev-libs/two:7"]);
    b.kill();
    c.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&c, TWO), built_here());
    // What was trusted once is trusted no longer when that is said.
    trust(&c, &a, &["app-misc/*"]);
    assert_eq!(of_cpv(&planned(&c, &["app-misc/one"]), ONE)["fate"], "substitute");
    c.does(&["trust", "remove", &a.peer_id()]);
    assert_eq!(of_cpv(&planned(&c, &["app-misc/one"]), ONE)["fate"], "build");
}

/// The file under `dir` with this content.
fn blob_with(dir: &Path, content: &[u8]) -> Option<PathBuf> {
    for path in fs::read_dir(dir).ok()?.map_while(Result::ok).map(|entry| entry.path()) {
        let metadata = fs::symlink_metadata(&path).ok()?;
        let same = || metadata.len() == content.len() as u64 && fs::read(&path).is_ok_and(|bytes| bytes == content);
        let found = if metadata.is_dir() { blob_with(&path, content) } else { same().then(|| path.clone()) };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Changes a byte of a blob in the node's store, under its feet.
fn tamper(node: &TestPeer, content: &[u8]) {
    let path = blob_with(&node.store_dir(), content).expect("the store keeps blobs as files");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let middle = content.len() as u64 / 2;
    file.seek(SeekFrom::Start(middle)).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_peer_that_gives_other_bytes_under_a_true_claim_changes_nothing_but_its_blame() {
    let dir = tempdir().unwrap();
    let at_a = Builder::new(&dir.path().join("a"));
    let a = at_a.start_for_everybody();
    a.does(&["build", "dev-libs/two"]);
    let (_digest, bytes) = package(&a, TWO);
    let liar = without_sources(&Builder::new(&dir.path().join("liar")), &[&a]);
    trust(&liar, &a, &["*/*"]);
    liar.does(&["build", "dev-libs/two"]);
    tamper(&liar, &bytes);

    // Only the liar is there: what it gives is thrown away, and the package is built.
    let id = a.peer_id();
    let a = a.kill();
    let at_b = Builder::new(&dir.path().join("b"));
    let b = without_sources(&at_b, &[&liar]);
    at_b.import(&b);
    b.does(&["trust", "add", &id, "--packages", "*/*"]);
    assert_eq!(of_cpv(&planned(&b, &["dev-libs/two"]), TWO)["fate"], "substitute", "the claim itself is true");
    b.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&b, TWO), built_here());
    b.must_verify();
    assert!(blob_with(&b.store_dir(), &bytes).is_none());
    let blamed = |line: &str| line.contains("peer sent wrong bytes") && line.contains(&liar.peer_id());
    assert!(b.log().lines().any(blamed), "{}", b.log());
    b.kill();

    // A is there too: whoever is asked first, it is A's bytes that are taken.
    let a = a.start();
    let c = without_sources(&Builder::new(&dir.path().join("c")), &[&liar, &a]);
    trust(&c, &a, &["*/*"]);
    c.does(&["build", "dev-libs/two"]);
    assert_eq!(came(&c, TWO), taken_from(&a));
    c.must_verify();
    assert!(blob_with(&c.store_dir(), &bytes).is_some());
}

#[test]
fn what_may_not_be_given_on_is_neither_claimed_nor_announced_nor_given() {
    let dir = tempdir().unwrap();
    let machine = |name: &str| {
        let machine = Builder::new(&dir.path().join(name));
        machine.repo.write("profiles/license_groups", "EULA Grudge\n");
        machine.repo.write("licenses/Grudge", "Keep it.\n");
        let install = "src_install() { echo kept > kept; insinto /opt/${PN}; doins kept; }\n";
        machine.ebuild("app-misc/bound-1.0", &format!("SLOT=\"0\"\nRESTRICT=\"bindist\"\n{install}"), &[]);
        machine.ebuild("app-misc/grudge-1.0", &format!("SLOT=\"0\"\nLICENSE=\"Grudge\"\n{install}"), &[]);
        machine.ebuild("app-misc/free-1.0", &format!("SLOT=\"0\"\n{install}"), &[]);
        machine
    };
    let cpvs = ["app-misc/bound-1.0", "app-misc/grudge-1.0", "app-misc/free-1.0"];
    let atoms = ["app-misc/bound", "app-misc/grudge", "app-misc/free"];
    let at_a = machine("a");
    let a = at_a.start_with(LAN).start();
    a.does(&[&["build"], &atoms[..]].concat());
    let binhost = a.status()["binhost"].as_str().unwrap().to_owned();
    let output =
        at_a.emerge("client", &binhost, &["--pretend", "--getbinpkgonly", "app-misc/bound", "app-misc/grudge"]);
    assert!(output.status.success(), "this machine's own Portage may have them: {}", both(&output));

    let b = without_sources(&machine("b"), &[&a]);
    trust(&b, &a, &["*/*"]);
    let plan = planned(&b, &atoms);
    let fates = cpvs.map(|cpv| of_cpv(&plan, cpv)["fate"].clone());
    assert_eq!(fates, ["build", "build", "substitute"]);
    // Whoever knows the digest gets nothing either.
    for (cpv, given) in cpvs.into_iter().zip([false, false, true]) {
        let (digest, _bytes) = package(&a, cpv);
        let output = b.verb(&["fetch", &digest]);
        assert_eq!(output.status.success(), given, "{cpv}: {}", both(&output));
    }
    b.does(&[&["build"], &atoms[..]].concat());
    assert_eq!(cpvs.map(|cpv| came(&b, cpv)), [built_here(), built_here(), taken_from(&a)]);
}
