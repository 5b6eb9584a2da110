//! `peer build` from the request to the program that runs: the real bwrap, the real Portage inside it, and the real
//! emerge that installs what came of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::openpgp::OpenPgpKey;
use serde_json::Value;
use tempfile::tempdir;
use tree::gpkg::Gpkg;
use tree::gpkg_write::{GpkgSigner, rewrite};

use crate::builder::{Builder, binpkgs, jobs, of_cpv, planned};
use crate::peer::{TestPeer, both};
use crate::wait;

/// An ebuild that installs files, a link and a directory of its own, and needs no sources.
const NOTE: &str = "SLOT=\"0\"\nsrc_install() {\n\tprintf 'hi\\n' > note\n\tinsinto /opt/note\n\tdoins note\n\
                    \tdosym note /opt/note/link\n\tkeepdir /var/lib/note\n\tfperms 0600 /opt/note/note\n}\n";

/// Gives the machine's keyring the key of this daemon; what `peer key init` says.
fn trust_own_key(machine: &Builder, peer: &TestPeer) -> Value {
    peer.json(&["key", "init", "--keyring", machine.keyring().to_str().unwrap()])
}

fn binhost(peer: &TestPeer) -> String {
    peer.status()["binhost"].as_str().unwrap().to_owned()
}

/// What a program of a client's root prints.
fn runs(machine: &Builder, client: &str, program: &str) -> String {
    let output = wait::run(&mut Command::new(machine.dir.join(client).join("root").join(program)));
    assert!(output.status.success(), "{}", both(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", both(output));
    both(output)
}

/// The entries of a `Packages` file for one package: the lines of each.
fn entries(index: &str, cpv: &str) -> Vec<Vec<String>> {
    let about = format!("CPV: {cpv}");
    let lines = |entry: &str| entry.lines().map(str::to_owned).collect::<Vec<_>>();
    index.split("\n\n").map(lines).filter(|entry| entry.contains(&about)).collect()
}

fn field<'a>(entry: &'a [String], key: &str) -> &'a str {
    let prefix = format!("{key}: ");
    entry.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{key} in {entry:?}"))
}

/// A file of a daemon's binhost.
fn offered(peer: &TestPeer, path: &str) -> Vec<u8> {
    let url = binhost(peer);
    let reply = peer.get(&format!("{}/{path}", url.trim_start_matches(&peer.url())));
    assert_eq!(reply.status, 200, "{url}/{path}");
    reply.body
}

fn packages(peer: &TestPeer) -> String {
    String::from_utf8(offered(peer, "Packages")).unwrap()
}

#[test]
fn a_program_and_the_library_it_needs_are_built_without_network_and_stock_emerge_installs_both() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    let made = trust_own_key(&machine, &peer);
    assert_eq!(made["trusted"], true, "{made}");

    let plan = planned(&peer, &["app-misc/one"]);
    let order: Vec<&Value> = plan.iter().map(|package| &package["cpv"]).collect();
    assert_eq!(order, ["dev-libs/two-1.0", "app-misc/one-1.0"], "what it needs comes first");
    assert!(plan.iter().all(|package| package["fate"] == "build"), "{plan:?}");
    assert_eq!(plan[1]["use_flags"].as_array().unwrap(), &["color"]);
    assert!(jobs(&peer).is_empty(), "pretending begins nothing");

    let said = peer.does(&["build", "app-misc/one"]);
    let built: Vec<&str> = said.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(said.lines().all(|line| line.starts_with("built ")), "{said}");
    assert_eq!(built, ["dev-libs/two-1.0", "app-misc/one-1.0"]);
    for job in jobs(&peer) {
        assert_eq!(
            (&job["state"], &job["source"], &job["attempt"]),
            (&"done".into(), &"build".into(), &1.into()),
            "{job}"
        );
    }

    let installing = machine.emerge("client", &binhost(&peer), &["--getbinpkgonly", "app-misc/one"]);
    let said = succeeds(&installing);
    assert!(said.contains("dev-libs/two-1.0"), "{said}");
    assert_eq!(runs(&machine, "client", "usr/bin/one"), "one two color\n");
    assert!(machine.dir.join("client/root/usr/include/two.h").is_file(), "what it needs to run is installed too");

    // Asked again: nothing is begun.
    let before = jobs(&peer);
    assert_eq!(peer.does(&["build", "app-misc/one"]), "have dev-libs/two-1.0\nhave app-misc/one-1.0\n");
    assert!(planned(&peer, &["app-misc/one"]).iter().all(|package| package["fate"] == "have"));
    assert_eq!(jobs(&peer), before);
}

#[test]
fn other_use_flags_are_another_recipe_and_the_package_that_fits_the_configuration_is_listed() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let peer = machine.start();
    trust_own_key(&machine, &peer);
    peer.does(&["build", "app-misc/one"]);
    let coloured = planned(&peer, &["app-misc/one"]);
    machine.etc("package.use", "app-misc/one -color\n");
    let plain = planned(&peer, &["app-misc/one"]);
    let fate = |plan: &[Value], cpv: &str| of_cpv(plan, cpv)["fate"].as_str().unwrap().to_owned();
    assert_eq!((fate(&plain, "dev-libs/two-1.0"), fate(&plain, "app-misc/one-1.0")), ("have".into(), "build".into()));
    let print = |plan: &[Value], cpv: &str| of_cpv(plan, cpv)["fingerprint"].clone();
    assert_ne!(print(&plain, "app-misc/one-1.0"), print(&coloured, "app-misc/one-1.0"));
    assert_eq!(print(&plain, "dev-libs/two-1.0"), print(&coloured, "dev-libs/two-1.0"));

    let said = peer.does(&["build", "app-misc/one"]);
    assert!(said.starts_with("have dev-libs/two-1.0\nbuilt app-misc/one-1.0 "), "{said}");
    // Of both only the one is listed that the configuration asks for.
    let has_color = |entry: &[String]| field(entry, "USE").split(' ').any(|word| word == "color");
    let listed = |color: bool| {
        planned(&peer, &["app-misc/one"]);
        wait::until("one to be listed", || {
            let listed = entries(&packages(&peer), "app-misc/one-1.0");
            (listed.len() == 1 && has_color(&listed[0]) == color).then(|| listed[0].clone())
        })
    };
    let without = listed(false);
    machine.etc("package.use", "");
    let with = listed(true);
    machine.etc("package.use", "app-misc/one -color\n");
    for key in ["BUILD_ID", "PATH", "SHA1"] {
        assert_ne!(field(&with, key), field(&without, key), "{key}");
    }
    let held = binpkgs(&peer, "app-misc/one");
    assert_eq!(held.len(), 2, "both are kept");

    // Each job keeps its recipe: nothing but the flag is another.
    let recipe = |job: &Value| {
        let log = PathBuf::from(job["log_path"].as_str().unwrap());
        let text = fs::read_to_string(log.with_file_name("recipe")).unwrap();
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let all = jobs(&peer);
    let recipes: Vec<_> = all.iter().filter(|job| job["cpv"] == "app-misc/one-1.0").map(recipe).collect();
    let other: Vec<&String> = recipes[0].symmetric_difference(&recipes[1]).collect();
    assert_eq!(other, ["use color"]);
    // Nor does it matter where the flag was set.
    machine.etc("package.use", "");
    let make_conf = fs::read_to_string(machine.dir.join("root/etc/portage/make.conf")).unwrap();
    machine.etc("make.conf", &format!("{make_conf}USE=\"-color\"\n"));
    let elsewhere = planned(&peer, &["app-misc/one"]);
    assert_eq!(print(&elsewhere, "app-misc/one-1.0"), print(&plain, "app-misc/one-1.0"));
    assert_eq!(fate(&elsewhere, "app-misc/one-1.0"), "have");

    // Each is given to emerge while it is the one that is wanted.
    let client = machine.dir.join("plain/etc/portage");
    fs::create_dir_all(&client).unwrap();
    fs::write(client.join("package.use"), "app-misc/one -color\n").unwrap();
    for (name, prints, conf) in [("plain", "one two plain\n", "USE=\"-color\"\n"), ("coloured", "one two color\n", "")]
    {
        machine.etc("make.conf", &format!("{make_conf}{conf}"));
        listed(conf.is_empty());
        let words = ["--getbinpkgonly", "--binpkg-respect-use=y", "app-misc/one"];
        succeeds(&machine.emerge(name, &binhost(&peer), &words));
        assert_eq!(runs(&machine, name, "usr/bin/one"), prints);
    }
}

/// The package written anew with the signature of `key`, or of nobody.
fn signed_by(package: &Path, to: &Path, key: Option<&OpenPgpKey>) {
    let gpkg = Gpkg::read(File::open(package).unwrap()).unwrap();
    let mut signer = key;
    let signer = signer.as_mut().map(|signer| signer as &mut dyn GpkgSigner);
    rewrite(File::open(package).unwrap(), &gpkg, File::create(to).unwrap(), signer).unwrap();
}

fn sum(program: &str, path: &Path) -> String {
    let output = wait::run(Command::new(program).arg(path));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// A binhost of files with the one package of another's index; the index says what is true of `package`.
fn binhost_of(dir: &Path, index: &str, package: &Path) -> String {
    fs::create_dir_all(dir).unwrap();
    let placed = dir.join("note.gpkg.tar");
    fs::copy(package, &placed).unwrap();
    let size = fs::metadata(&placed).unwrap().len().to_string();
    let truth = [
        ("SIZE", size),
        ("MD5", sum("md5sum", &placed)),
        ("SHA1", sum("sha1sum", &placed)),
        ("PATH", "note.gpkg.tar".into()),
    ];
    let line = |line: &str| match truth.iter().find(|(key, _)| line.starts_with(&format!("{key}: "))) {
        Some((key, value)) => format!("{key}: {value}\n"),
        None => format!("{line}\n"),
    };
    fs::write(dir.join("Packages"), index.lines().map(line).collect::<String>()).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    format!("file://{}", dir.display())
}

#[test]
fn emerge_with_the_same_settings_refuses_what_is_unsigned_signed_by_a_stranger_or_corrupted() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    let peer = machine.start();
    trust_own_key(&machine, &peer);
    peer.does(&["build", "app-misc/note"]);
    let index = packages(&peer);
    let listed = entries(&index, "app-misc/note-1.0");
    let at = |name: &str| machine.dir.join(name).with_extension("gpkg.tar");
    let good = at("good");
    fs::write(&good, offered(&peer, field(&listed[0], "PATH"))).unwrap();

    signed_by(&good, &at("unsigned"), None);
    let stranger = OpenPgpKey::generate("Stranger <stranger@example.invalid>").unwrap();
    signed_by(&good, &at("stranger"), Some(&stranger));
    let mut bytes = fs::read(&good).unwrap();
    let image = bytes.windows(10).position(|window| window == b"/image.tar").unwrap();
    bytes[image + 530] ^= 1;
    fs::write(at("corrupted"), &bytes).unwrap();

    let emerge = |name: &str, binhost: &str| machine.emerge(name, binhost, &["--getbinpkgonly", "app-misc/note"]);
    let installed = |name: &str| machine.dir.join(name).join("root/opt/note/note").exists();
    let plain = |name: &str| binhost_of(&machine.dir.join("binhosts").join(name), &index, &at(name));
    for (name, why) in [("unsigned", "sign"), ("stranger", "sign"), ("corrupted", "")] {
        let output = emerge(&format!("client-{name}"), &plain(name));
        let said = both(&output);
        assert!(!output.status.success() && !installed(&format!("client-{name}")), "{name}: {said}");
        assert!(said.to_lowercase().contains(why) && said.contains("app-misc/note-1.0"), "{name}: {said}");
    }
    // Corrupted on the way: the index is the daemon's, the file is not what it says.
    let served = machine.dir.join("binhosts/way");
    let url = binhost_of(&served, &index, &good);
    fs::write(served.join("note.gpkg.tar"), &bytes).unwrap();
    let output = emerge("client-way", &url);
    assert!(!output.status.success() && !installed("client-way"), "{}", both(&output));
    // And it is the file that is refused, not this kind of binhost.
    succeeds(&emerge("client-good", &plain("good")));
    assert!(installed("client-good"));
}

#[test]
fn a_build_that_fails_shows_the_compilers_own_words_and_the_queue_goes_on() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let make = "broken: broken.c\n\t$(CC) -o $@ broken.c\n";
    let broken =
        machine.source("broken-1.0", &[("broken.c", "int main(void) { return no_such_thing; }\n"), ("Makefile", make)]);
    machine.ebuild("app-misc/broken-1.0", "SLOT=\"0\"\nsrc_compile() { emake CC=gcc || die; }\n", &[&broken]);
    machine.ebuild("app-misc/above-1.0", "SLOT=\"0\"\nDEPEND=\"app-misc/broken\"\n", &[]);
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    let peer = machine.start_with("jobs_max = 1").start();
    machine.import(&peer);

    let output = peer.verb(&["build", "app-misc/above", "app-misc/broken", "app-misc/note"]);
    let (facts, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(facts.starts_with("built app-misc/note-1.0 ") && facts.lines().count() == 1, "{facts}");
    assert!(said.contains("peer: cannot build app-misc/broken-1.0: ") && said.contains("compile"), "{said}");
    assert!(said.contains("  | broken.c:1:") && said.contains("no_such_thing"), "{said}");
    assert!(said.contains("peer: cannot build app-misc/above-1.0: app-misc/broken-1.0, which it needs"), "{said}");

    let all = jobs(&peer);
    let job = of_cpv(&all, "app-misc/broken-1.0");
    assert_eq!((&job["state"], &job["phase"]), (&"failed".into(), &"compile".into()), "{job}");
    let path = PathBuf::from(job["log_path"].as_str().unwrap());
    assert!(said.contains(job["log_path"].as_str().unwrap()), "{said}");
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.contains("no_such_thing") && log.contains("Unpacking source"), "the whole log is there: {log}");
    assert_eq!(peer.does(&["logs", &job["id"].to_string()]), log);
    let left = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_type().unwrap());
    assert!(left.into_iter().all(|kind| kind.is_file()), "no tree of a failed build is left");
    assert_eq!(of_cpv(&all, "app-misc/above-1.0")["state"], "failed");
    assert!(!packages(&peer).contains("broken"), "what was not made is not listed");

    assert!(peer.does(&["build", "dev-libs/two"]).starts_with("built dev-libs/two-1.0 "), "later requests are served");
}

fn images(peer: &TestPeer, cpvs: &[&str]) -> Vec<String> {
    let image = |cpv: &&str| {
        let held = binpkgs(peer, &format!("={cpv}"));
        assert_eq!(held.len(), 1, "a rebuilt package takes the place of the old one");
        held[0]["image"].as_str().unwrap().to_owned()
    };
    cpvs.iter().map(image).collect()
}

#[test]
fn three_packages_built_twice_install_the_same_and_a_challenge_names_the_file_that_does_not() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    let random = "SLOT=\"0\"\nsrc_install() {\n\tinsinto /opt/chance\n\techo same > same; doins same\n\
                  \tread -r line < /proc/sys/kernel/random/uuid; echo ${line} > stamp; doins stamp\n}\n";
    machine.ebuild("app-misc/chance-1.0", random, &[]);
    let peer = machine.start();
    let atoms = ["app-misc/one", "dev-libs/two", "app-misc/note"];
    let cpvs = ["app-misc/one-1.0", "dev-libs/two-1.0", "app-misc/note-1.0"];
    peer.does(&[&["build", "app-misc/chance"], &atoms[..]].concat());
    let first = images(&peer, &cpvs);
    let said = peer.does(&[&["build", "--rebuild"], &atoms[..]].concat());
    assert_eq!(said.lines().filter(|line| line.starts_with("built ")).count(), 3, "{said}");
    assert_eq!(images(&peer, &cpvs), first);
    let all = jobs(&peer);
    for (cpv, image) in cpvs.iter().zip(&first) {
        let both: Vec<&Value> = all.iter().filter(|job| job["cpv"] == *cpv).collect();
        assert_eq!(both.len(), 2, "{all:?}");
        assert!(both.iter().all(|job| job["image"] == image.as_str()), "{both:?}");
    }

    let before = packages(&peer);
    let said = peer.does(&["challenge", "app-misc/one"]);
    assert_eq!(said.lines().next(), Some(format!("same app-misc/one-1.0 {}", first[0]).as_str()), "{said}");
    let output = peer.verb(&["challenge", "app-misc/chance"]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let named: Vec<&str> = said.lines().filter(|line| line.starts_with("difference ")).collect();
    assert_eq!(named.len(), 1, "{said}");
    assert!(
        named[0].trim_start_matches("difference ").trim_start_matches('/').starts_with("opt/chance/stamp: content"),
        "{said}"
    );
    assert_eq!(packages(&peer), before, "a challenge changes nothing of what is offered");
    let output = peer.verb(&["challenge", "=app-misc/one-9"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
}
