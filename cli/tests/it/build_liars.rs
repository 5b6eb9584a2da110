//! Nodes that say of packages what is not so: a swarm of the test's own, with claims that it signs as it likes.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::builds::claim::{Claim, SignedClaim};
use daemon::swarm::{Config, Held, Holdings, Identity, PeerId, Swarm};
use daemon::tasks::Tasks;
use tempfile::tempdir;
use tokio::runtime::Runtime;
use tree::digest::Digest;
use tree::gpkg::Gpkg;
use tree::image::Image;

use crate::builder::{Builder, built_here, came, of_cpv, package, planned};
use crate::liar::Blob;
use crate::peer::TestPeer;

const ONE: &str = "app-misc/one-1.0";
const TWO: &str = "dev-libs/two-1.0";

/// What the liar gives, and what it was asked for.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    claims: Mutex<Vec<Vec<u8>>>,
    opened: Mutex<Vec<Digest>>,
    asked: Mutex<Vec<Digest>>,
}

impl Holdings for Shelf {
    fn open(&self, digest: &Digest, _: &PeerId) -> Option<Held> {
        self.opened.lock().unwrap().push(*digest);
        let bytes = self.blobs.lock().unwrap().get(digest)?.clone();
        Some(Held { size: bytes.len() as u64, reader: Box::new(Blob(bytes)) })
    }

    /// The same, whatever recipe is asked for.
    fn claims(&self, fingerprint: &Digest, _: &PeerId) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap().push(*fingerprint);
        self.claims.lock().unwrap().clone()
    }

    fn announced(&self) -> Vec<Digest> {
        Vec::new()
    }
}

/// A node of the swarm that is no daemon.
struct Liar {
    runtime: Runtime,
    identity: Identity,
    swarm: Swarm,
    shelf: Arc<Shelf>,
    tasks: Tasks,
}

impl Liar {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (identity, shelf, tasks) = (Identity::generate(), Arc::new(Shelf::default()), Tasks::new());
        let own = Identity::from_bytes(&identity.to_bytes()).unwrap();
        let config = Config { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..Config::default() };
        let holdings: Arc<dyn Holdings> = Arc::<Shelf>::clone(&shelf);
        let swarm = runtime.block_on(Swarm::start(own, config, holdings, &tasks)).unwrap();
        Self { runtime, identity, swarm, shelf, tasks }
    }

    /// A daemon that knows nobody but this.
    fn known_to(&self, machine: &Builder) -> TestPeer {
        let address = self.swarm.listen_addrs()[0].to_string();
        let node = machine.start_with("").flag("--peer", &address).start();
        machine.import(&node);
        node.wait_for_peers(1);
        node
    }

    /// Offers bytes, and these claims for every recipe; announces that it has some for this one.
    fn says(&self, package: &[u8], fingerprint: Digest, claims: &[&[u8]]) {
        self.shelf.blobs.lock().unwrap().insert(Digest::of(package), package.to_vec());
        *self.shelf.claims.lock().unwrap() = claims.iter().map(|claim| claim.to_vec()).collect();
        self.swarm.announce(&[fingerprint, Digest::of(package)]);
    }

    fn was_asked_for(&self, fingerprint: &Digest) -> bool {
        self.shelf.asked.lock().unwrap().contains(fingerprint)
    }

    fn gave(&self, package: &[u8]) -> bool {
        self.shelf.opened.lock().unwrap().contains(&Digest::of(package))
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let ended = self.runtime.block_on(self.tasks.shutdown(Duration::from_secs(5)));
        assert!(ended || std::thread::panicking(), "the test's own node ends");
    }
}

/// A package that looks like `dev-libs/two` in all but what it installs, and what it installs.
fn poisoned(dir: &std::path::Path) -> (Vec<u8>, Digest) {
    let machine = Builder::new(dir);
    let evil = "SLOT=\"0/1\"\nS=\"${WORKDIR}\"\nsrc_install() { echo evil > two.h; doheader two.h; }\n";
    machine.ebuild(TWO, evil, &[]);
    let node = machine.start_with("").start();
    node.does(&["build", "dev-libs/two"]);
    let (_digest, bytes) = package(&node, TWO);
    let path = dir.join("poisoned.gpkg.tar");
    std::fs::write(&path, &bytes).unwrap();
    let gpkg = Gpkg::read(File::open(&path).unwrap()).unwrap();
    let image = Image::read(File::open(&path).unwrap(), &gpkg).unwrap();
    (bytes, image.digest())
}

fn fingerprint(node: &TestPeer, atom: &str, cpv: &str) -> Digest {
    of_cpv(&planned(node, &[atom]), cpv)["fingerprint"].as_str().unwrap().parse().unwrap()
}

/// "This recipe of `cpv` was built to `package`, which installs `image`."
fn claim(by: &Identity, fingerprint: Digest, cpv: &str, slot: &str, package: &[u8], image: Digest) -> SignedClaim {
    let (digest, size) = (Digest::of(package), package.len() as u64);
    let (cpv, repo, slot) = (cpv.parse().unwrap(), "main".to_owned(), slot.to_owned());
    Claim { fingerprint, cpv, repo, slot, digest, size, image, made_at: 1_700_000_000 }.sign(by)
}

#[test]
fn claims_of_a_stranger_forged_ones_and_those_about_another_recipe_are_not_even_followed() {
    let dir = tempdir().unwrap();
    let (bytes, image) = poisoned(&dir.path().join("poison"));
    let liar = Liar::start();
    let node = liar.known_to(&Builder::new(&dir.path().join("node")));
    let trusted = Identity::generate();
    node.does(&["trust", "add", &trusted.peer_id().to_string(), "--packages", "*/*"]);
    let wanted = fingerprint(&node, "dev-libs/two", TWO);
    let by_stranger = claim(&liar.identity, wanted, TWO, "0/1", &bytes, image);
    let elsewhere = claim(&trusted, Digest::of(b"another recipe"), TWO, "0/1", &bytes, image);
    let other_package = claim(&trusted, wanted, ONE, "0/0", &bytes, image);
    let mut forged = claim(&trusted, wanted, TWO, "0/1", &bytes, image).as_bytes().to_vec();
    // The last bytes are the signature.
    *forged.last_mut().unwrap() ^= 1;
    let claims = [by_stranger.as_bytes(), elsewhere.as_bytes(), other_package.as_bytes(), &forged, b"no claim"];
    liar.says(&bytes, wanted, &claims);

    assert_eq!(of_cpv(&planned(&node, &["dev-libs/two"]), TWO)["fate"], "build");
    assert!(node.does(&["build", "dev-libs/two"]).starts_with("built "));
    assert_eq!(came(&node, TWO), built_here());
    assert!(liar.was_asked_for(&wanted), "its claims were heard");
    assert!(!liar.gave(&bytes), "and led to nothing");
}

#[test]
fn a_trusted_builder_whose_package_is_not_what_it_claims_is_believed_no_more() {
    let dir = tempdir().unwrap();
    let (bytes, image) = poisoned(&dir.path().join("poison"));
    let liar = Liar::start();
    let node = liar.known_to(&Builder::new(&dir.path().join("node")));
    node.does(&["trust", "add", &liar.identity.peer_id().to_string(), "--packages", "*/*"]);
    let fate = |node: &TestPeer| of_cpv(&planned(node, &["app-misc/one"]), ONE)["fate"].as_str().unwrap().to_owned();

    // The bytes are those of the claim, and install something else than it says.
    let (two, one) = (fingerprint(&node, "dev-libs/two", TWO), fingerprint(&node, "app-misc/one", ONE));
    let wrong_image = claim(&liar.identity, two, TWO, "0/1", &bytes, Digest::of(b"another image"));
    let wrong_package = claim(&liar.identity, one, ONE, "0/0", &bytes, image);
    liar.says(&bytes, two, &[wrong_image.as_bytes(), wrong_package.as_bytes()]);
    assert_eq!(of_cpv(&planned(&node, &["dev-libs/two"]), TWO)["fate"], "substitute", "nothing is known of it yet");
    assert_eq!(fate(&node), "substitute");
    assert!(node.does(&["build", "dev-libs/two"]).starts_with("built "));
    assert_eq!(came(&node, TWO), built_here());
    assert!(liar.gave(&bytes), "it was looked at");
    assert_eq!(fate(&node), "build", "it is not asked for anything more");

    // Forgotten with the daemon, and found out again: the package is not the one of the claim.
    let (_status, start) = node.terminate();
    let node = start.start();
    node.wait_for_peers(1);
    assert_eq!(fate(&node), "substitute");
    assert!(node.does(&["build", "app-misc/one"]).contains("built app-misc/one-1.0 "));
    assert_eq!(came(&node, ONE), built_here());
    let found_out = |line: &&str| line.contains("believed no more");
    assert_eq!(node.log().lines().filter(found_out).count(), 2, "{}", node.log());
    node.must_verify();
}
