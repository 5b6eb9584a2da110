//! Offload: a package built by another machine of the group, with the client's own configuration, as two daemons on loopback
//! and the real Portage do it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::builder::{Builder, binpkgs, jobs, of_cpv};
use crate::gentoo::Source;
use crate::members::enrol;
use crate::peer::{TestPeer, both};

const ONE: &str = "app-misc/one-1.0";
const TWO: &str = "dev-libs/two-1.0";
/// What must not leave the client.
const CANARY: &str = "canary-7f3a";

/// A founder that builds for others, and a machine that it let join with this role.
fn group(dir: &Path, role: &str) -> (Builder, TestPeer, Builder, TestPeer) {
    let strong = Builder::new(&dir.join("strong"));
    let builder = strong.start();
    let weak = Builder::new(&dir.join("elsewhere/weak"));
    let client = weak.start_with("").knows(&builder).start();
    client.wait_for_peers(1);
    let ticket = builder.does(&["invite", "--role", role]);
    client.does(&["join", ticket.trim(), "--name", "weak"]);
    (strong, builder, weak, client)
}

fn job(peer: &TestPeer, cpv: &str) -> Value {
    of_cpv(&jobs(peer), cpv).clone()
}

/// Everything below a directory, as text where it is.
fn has_below(dir: &Path, needle: &str) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            return has_below(&entry.path(), needle);
        }
        let bytes = if kind.is_file() { fs::read(entry.path()).unwrap_or_default() } else { Vec::new() };
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    })
}

#[test]
fn a_weak_machine_gets_exactly_its_own_build_from_a_strong_one() {
    let dir = tempdir().unwrap();
    let (_strong, builder, weak, client) = group(dir.path(), "build");
    // A configuration of its own, and secrets where people leave them.
    weak.etc(
        "make.conf",
        &format!(
            "GENTOO_MIRRORS=\"\"\nCOMMON=\"-O1 -pipe\"\nCFLAGS=\"${{COMMON}} -DWEAK=\\\"1\\\"\"\nCXXFLAGS=\"${{CFLAGS}}\"\n\
             GITHUB_TOKEN=\"{CANARY}\"\nPYTHON_PASSWORD=\"{CANARY}\"\nMY_OWN=\"{CANARY}\"\n"
        ),
    );
    weak.etc("package.use/one", &format!("# {CANARY}\napp-misc/one -color debug\n"));
    weak.etc("package.env", "app-misc/one small\n");
    weak.etc("env/small", &format!("CFLAGS=\"${{CFLAGS}} -Os\"\nNPM_TOKEN=\"{CANARY}\"\n"));
    weak.etc(
        "patches/app-misc/one/words.patch",
        "--- a/one.c\n+++ b/one.c\n@@ -7,1 +7,1 @@\n-int main(void) { printf(\"one %s %s\\n\", two(), KIND); return 0; }\n\
         +int main(void) { printf(\"patched %s %s\\n\", two(), KIND); return 0; }\n",
    );
    for private in ["gnupg/secret", "binrepos.conf/x.conf", "env/app-misc/other", "unknown/file"] {
        weak.etc(private, CANARY);
    }

    let said = client.verb(&["build", "--on", &builder.peer_id(), "app-misc/one"]);
    assert!(said.status.success(), "{}", both(&said));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.lines().any(|line| line.starts_with(&format!("offloaded {ONE} "))), "{text}");
    let of_client = job(&client, ONE);
    assert_eq!(of_client["source"], "offload", "{of_client}");
    assert_eq!(of_client["builder"], builder.peer_id());
    let of_builder = job(&builder, ONE);
    assert_eq!(of_builder["client"], client.peer_id());
    assert_eq!(of_client["fingerprint"], of_builder["fingerprint"]);

    let held = binpkgs(&client, "app-misc/one");
    assert_eq!(held.len(), 1, "{held:?}");
    let flags: Vec<&str> = held[0]["use_flags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(flags.contains(&"debug") && !flags.contains(&"color"), "{flags:?}");
    let index = builder.status()["binhost"].as_str().unwrap().trim_start_matches(&builder.url()).to_owned();
    let listed = String::from_utf8(builder.get(&format!("{index}/Packages")).body).unwrap();
    assert!(!listed.contains(ONE), "the builder's own Portage is not offered it: {listed}");
    assert!(!has_below(&dir.path().join("strong"), CANARY), "a secret came to the builder");

    // The same as it would have built itself.
    let image = of_client["image"].clone();
    weak.import(&client);
    client.does(&["build", "--on", "local", "--rebuild", "app-misc/one"]);
    let again = job(&client, ONE);
    assert_eq!((again["source"].clone(), again["image"].clone()), ("build".into(), image));
}

#[test]
fn a_job_for_a_client_gets_the_restricted_sources_that_the_client_alone_has() {
    let dir = tempdir().unwrap();
    let (strong, weak) = (Builder::new(&dir.path().join("strong")), Builder::new(&dir.path().join("elsewhere/weak")));
    let content = [("bound.txt", "for whom has the right to it\n")];
    for machine in [&strong, &weak] {
        let bound = machine.source("bound-1.0", &content);
        let install = "SLOT=\"0\"\nRESTRICT=\"fetch\"\nsrc_install() { insinto /opt; doins bound.txt; }\n";
        machine.ebuild("app-misc/bound-1.0", install, &[&bound]);
    }
    let builder = strong.start_with("").start();
    let client = weak.start_with("").knows(&builder).start();
    weak.import(&client);
    enrol(&builder, &client, "build");
    client.does(&["build", "app-misc/bound", "--on", &builder.peer_id()]);
    let job = job(&client, "app-misc/bound-1.0");
    assert_eq!((&job["state"], &job["source"]), (&"done".into(), &"offload".into()), "{job}");
    // A stranger beside them is given neither the source nor the package.
    let digest = Source::at(&weak.dir.join("sources/bound-1.0.tar"), "bound-1.0.tar").sums.blake2b;
    let other = Builder::new(&dir.path().join("other"));
    let stranger = other.start_with("").knows(&builder).start();
    stranger.wait_for_peers(1);
    assert!(!stranger.verb(&["fetch", &digest]).status.success());
}

#[test]
fn a_builder_refuses_a_machine_without_the_role_and_another_tree_with_the_reason() {
    let dir = tempdir().unwrap();
    let (_strong, builder, _weak, client) = group(&dir.path().join("fetch"), "fetch");
    let refused = client.verb(&["build", "--on", &builder.peer_id(), "dev-libs/two"]);
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    assert!(both(&refused).contains("role is less than `build`"), "{}", both(&refused));
    assert!(jobs(&builder).is_empty(), "nothing is begun for it");

    let (strong, builder, _weak, client) = group(&dir.path().join("tree"), "build");
    strong.ebuild("dev-libs/two-1.0", "SLOT=\"0/1\"\nsrc_configure() { :; }\n", &[]);
    let refused = client.verb(&["build", "--on", &builder.peer_id(), "dev-libs/two"]);
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    assert!(both(&refused).contains("another recipe there"), "{}", both(&refused));
    let tried = job(&client, TWO)["tried"].clone();
    assert!(tried[0]["reason"].as_str().unwrap().contains("ebuild"), "{tried}");
}
