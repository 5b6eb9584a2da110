//! What a builder makes for a client is that client's and nobody else's; and what it made for itself goes to a client only as it
//! goes to any member.

use std::fs;

use serde_json::Value;
use tree::digest::Digest;

use crate::builder::{Builder, binpkgs, jobs, of_cpv, planned};
use crate::cbor::Value::{Bytes, Flag, List, Map, Number, Text};
use crate::cbor::encode;
use crate::liar::Liar;
use crate::members::{enrol, refused, sees};
use crate::peer::{TestPeer, both};
use crate::workshop::{MINE, Workshop, came_from, held_packages};

const TWO: &str = "dev-libs/two-1.0";

fn fate(node: &TestPeer, cpv: &str) -> Value {
    of_cpv(&planned(node, &[&format!("={cpv}")]), cpv)["fate"].clone()
}

/// Packages of `app-misc/mine` that a member tells of.
fn told(node: &TestPeer, member: &str) -> usize {
    let output = node.verb(&["show", "app-misc/mine", "--domain", member, "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    shown["binpkgs"].as_array().map_or(0, Vec::len)
}

/// A guest's package was claimed before the whole group, which installed it by the word of its builder.
#[test]
fn what_is_made_for_a_client_is_given_and_told_to_nobody_else() {
    let workshop = Workshop::new();
    let [(_a, weak), (_b, strong)] = workshop.pair();
    let (_c, other) = workshop.node("other");
    enrol(&strong, &other, "build");
    sees(&other, &weak, "build");
    weak.does(&["build", "app-misc/mine", "--on", "strong"]);
    came_from(&weak, MINE, &strong);
    assert_eq!(held_packages(&strong, MINE), 0, "it is not the builder's own");

    // Neither by its recipe nor by its digest, from the builder or from the client.
    assert_eq!(fate(&other, MINE), "build");
    for node in [&strong, &weak] {
        let digest = binpkgs(node, "app-misc/mine")[0]["digest"].as_str().unwrap().to_owned();
        let output = other.verb(&["fetch", &digest]);
        assert!(!output.status.success(), "{}", both(&output));
    }
    // Nobody hears that there is such a package, but whose it is.
    let found = |node: &TestPeer| node.json(&["search", "mine", "--domain", "strong"])["rows"].clone();
    assert_eq!((found(&other)[0]["binary"].clone(), found(&weak)[0]["binary"].clone()), (false.into(), true.into()));
    assert_eq!((told(&other, "strong"), told(&weak, "strong")), (0, 1));
    // Who has just this built there as well has it built anew.
    other.does(&["build", "app-misc/mine", "--on", "strong"]);
    came_from(&other, MINE, &strong);
    let made = jobs(&strong);
    let digests: std::collections::BTreeSet<String> = made.iter().map(|job| job["digest"].to_string()).collect();
    assert_eq!((made.len(), digests.len()), (2, 2), "{made:?}");
    // So does the builder itself; and what is its own is given to members as ever.
    strong.does(&["build", "app-misc/mine"]);
    assert_eq!((jobs(&strong).len(), held_packages(&strong, MINE)), (3, 1));
    let (_d, third) = workshop.node("third");
    enrol(&strong, &third, "fetch");
    assert_eq!(fate(&third, MINE), "substitute");
    // All this is so after a restart, too.
    let strong = strong.kill().start();
    sees(&strong, &third, "fetch");
    assert_eq!((held_packages(&strong, MINE), told(&third, "strong")), (1, 1));
}

/// An offer of nothing but the fingerprint of what the user had built for himself was answered with a claim, the package and
/// its log.
#[test]
fn what_a_builder_made_for_itself_is_no_clients_by_its_recipe_where_members_are_not_given_it() {
    let workshop = Workshop::new();
    let bound = |machine: &Builder| {
        let body = "SLOT=\"0\"\nRESTRICT=\"bindist\"\nsrc_install() { echo x > x; insinto /opt/${PN}; doins x; }\n";
        machine.ebuild("app-misc/bound-1.0", body, &[]);
    };
    let machines = ["weak", "silent", "strong", "closed"].map(|name| {
        let machine = workshop.machine(name);
        bound(&machine);
        let config = match name {
            "silent" => "share = \"none\"",
            "closed" => "share = \"none\"\n[offload]\njobs_max = 0\n",
            _ => "",
        };
        let node = workshop.start(&machine, config).start();
        machine.import(&node);
        (machine, node)
    });
    let [(_a, weak), (_b, silent), (_c, strong), (_d, closed)] = machines;
    for (node, name, atom, cpv) in
        [(&silent, "silent", "dev-libs/two", TWO), (&strong, "strong", "app-misc/bound", "app-misc/bound-1.0")]
    {
        node.does(&["build", atom]);
        enrol(node, &weak, "build");
        weak.does(&["build", atom, "--on", name, "--rebuild"]);
        came_from(&weak, cpv, node);
        let made = jobs(node);
        let digests: std::collections::BTreeSet<String> = made.iter().map(|job| job["digest"].to_string()).collect();
        assert_eq!((made.len(), digests.len()), (2, 2), "it is built anew: {made:?}");
        assert_eq!(held_packages(node, cpv), 1, "its own stays its own");
    }
    closed.does(&["build", "app-misc/mine"]);
    enrol(&closed, &weak, "build");
    let said = refused(&weak, &["build", "app-misc/mine", "--on", "closed"]);
    assert!(said.contains("it builds for nobody"), "{said}");
    assert_eq!(jobs(&closed).len(), 1);
}

fn text(text: &str) -> crate::cbor::Value {
    Text(text.to_owned())
}

fn digest(digest: &Digest) -> crate::cbor::Value {
    Bytes(digest.as_bytes().to_vec())
}

/// A domain of these files, with the sizes that are said of them.
fn domain(files: &[(&str, Digest, u64)]) -> Vec<u8> {
    let file = |(name, content, size): &(&str, Digest, u64)| List(vec![text(name), digest(content), Number(*size)]);
    let repository = Map(vec![
        ("main", Flag(true)),
        ("name", text("main")),
        ("state", text("")),
        ("masters", List(Vec::new())),
        ("priority", Number(0)),
    ]);
    encode(&Map(vec![
        ("v", Number(1)),
        ("files", List(files.iter().map(file).collect())),
        ("profile", text("main:base")),
        ("variables", Map(Vec::new())),
        ("repositories", List(vec![repository])),
    ]))
}

fn offer(cpv: &str, fingerprint: &Digest, recipe: &str, domain: &[u8]) -> Vec<u8> {
    let offer = Map(vec![
        ("v", Number(1)),
        ("cpv", text(cpv)),
        ("arch", text("")),
        ("repo", text("main")),
        ("chost", text("")),
        ("lease", Bytes(vec![1; 16])),
        ("domain", digest(&Digest::of(domain))),
        ("recipe", text(recipe)),
        ("domain_size", Number(domain.len() as u64)),
        ("fingerprint", digest(fingerprint)),
    ]);
    encode(&Map(vec![("offer", offer)]))
}

/// A record that named a digest had the bytes laid out that the builder held under it, whatever their size and whosever they
/// were; one whose sizes add up to more than a number holds ended the daemon.
#[test]
fn a_member_that_names_what_the_builder_holds_gets_none_of_it() {
    let workshop = Workshop::new();
    let (machine, liar) = (workshop.machine("strong"), Liar::start());
    let start = workshop.start(&machine, "share = \"none\"").flag("--peer", &liar.swarm.listen_addrs()[0].to_string());
    let mut node = start.start();
    machine.import(&node);
    node.wait_for_peers(1);
    liar.joins(&node, "build");
    node.does(&["build", "dev-libs/two"]);
    let own: Digest = binpkgs(&node, "dev-libs/two")[0]["digest"].as_str().unwrap().parse().unwrap();
    let fingerprint: Digest = binpkgs(&node, "dev-libs/two")[0]["fingerprint"].as_str().unwrap().parse().unwrap();
    let recipe = format!("peerage recipe 1\ncpv {TWO}\n");
    let of_recipe = Digest::of(recipe.as_bytes());
    for (files, why) in [
        (vec![("package.use/a", own, 1)], "the member has no such block"),
        (vec![("package.use/a", own, 1 << 63), ("package.use/b", own, 1 << 63)], "sizes that no number holds"),
        (vec![("package.use/a", own, u64::MAX), ("package.use/b", own, 1)], "the same"),
    ] {
        let record = domain(&files);
        liar.gives(&record);
        let heard = liar.offers_to(&node, offer(TWO, &of_recipe, &recipe, &record)).concat();
        assert!(heard.contains("refused") && heard.contains("dcodefdomain"), "{why}: {heard:?}");
        let laid_out = fs::read_dir(node.dir().join("store/domains")).map_or(0, Iterator::count);
        assert_eq!(laid_out, 0, "{why}");
        assert!(node.is_healthy(), "{why}");
    }
    // The fingerprint alone of what the builder made for itself.
    let empty = domain(&[]);
    liar.gives(&empty);
    let heard = liar.offers_to(&node, offer(TWO, &fingerprint, &recipe, &empty)).concat();
    assert!(heard.contains("refused") && !heard.contains("done") && !heard.contains("accepted"), "{heard:?}");
    let opened = liar.runtime.block_on(liar.swarm.open(node.peer_id().parse().unwrap(), &own, 0));
    assert!(opened.is_err());
    assert_eq!(jobs(&node).len(), 1);
}
