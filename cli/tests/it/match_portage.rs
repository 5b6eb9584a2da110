//! What this machine can use: the index of its binhost against the choice that the real Portage makes of all packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use tempfile::tempdir;
use tree::gpkg::Gpkg;
use tree::packages::{PackageEntry, PackageFile, PackagesIndex};

use crate::builder::{Builder, binpkgs, planned};
use crate::peer::{TestPeer, both};
use crate::wait;

const FLAG: &str = "SLOT=\"0\"\nIUSE=\"+color debug\"\nsrc_install() {\n\tuse color && echo color > flag || echo plain > flag\n\
                    \tinsinto /opt/flag\n\tdoins flag\n}\n";
const SLOT: &str = "SLOT=\"${PV%.*}\"\nsrc_install() { keepdir /opt/slot${SLOT}; }\n";
/// Instructions that no processor of today has all of.
const MANY: &str = "-O2 -march=bdver4 -mamx-fp16 -mavx512vp2intersect";

fn make_conf(machine: &Builder, flags: &str) {
    machine.etc("make.conf", &format!("GENTOO_MIRRORS=\"\"\nCFLAGS=\"{flags}\"\nCXXFLAGS=\"${{CFLAGS}}\"\n"));
}

fn binhost(peer: &TestPeer) -> String {
    peer.status()["binhost"].as_str().unwrap().to_owned()
}

fn get(peer: &TestPeer, path: &str) -> Vec<u8> {
    let url = binhost(peer);
    let reply = peer.get(&format!("{}/{path}", url.trim_start_matches(&peer.url())));
    assert_eq!(reply.status, 200, "{url}/{path}");
    reply.body
}

fn index(peer: &TestPeer) -> PackagesIndex {
    PackagesIndex::parse(&get(peer, "Packages")).unwrap()
}

/// A binhost on the disk that lists every package the daemon holds, whatever it thinks of them.
fn unfiltered(machine: &Builder, peer: &TestPeer, atoms: &[&str]) -> String {
    let packages: Vec<Value> = atoms.iter().flat_map(|atom| binpkgs(peer, atom)).collect();
    let entry = |package: &Value| {
        let digest = package["digest"].as_str().unwrap();
        let path = format!("{}/{digest}.gpkg.tar", &digest[..2]);
        let gpkg = Gpkg::read(Cursor::new(get(peer, &path))).unwrap();
        let size = package["size"].as_u64().unwrap();
        // Pretending fetches nothing, so that nothing compares the sums.
        let file = PackageFile {
            path,
            size,
            md5: "0".repeat(32),
            sha1: "0".repeat(40),
            mtime: package["added_at"].as_u64().unwrap(),
        };
        PackageEntry::from_metadata(&gpkg.metadata, &file).unwrap()
    };
    let own = index(peer);
    let all = PackagesIndex::new(own.header(), own.timestamp().unwrap(), packages.iter().map(entry).collect());
    assert_eq!(all.entries().len(), packages.len());
    let dir = machine.dir.join("unfiltered");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Packages"), all.to_string()).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    format!("file://{}", dir.display())
}

/// What emerge would do about one package: `binary CPV-BUILD_ID` or `ebuild CPV`.
fn choice(machine: &Builder, client: &str, package_use: &str, binhost: &str, atom: &str) -> String {
    let etc = machine.dir.join(client).join("etc/portage");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("package.use"), package_use).unwrap();
    let output = machine.emerge(client, binhost, &["--pretend", "--verbose", "--getbinpkg", atom]);
    assert!(output.status.success(), "{}", both(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("[ebuild") || line.starts_with("[binary"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    let (kind, rest) = line.trim_start_matches('[').split_once(']').unwrap();
    let cpv = rest.trim().split(':').next().unwrap();
    format!("{} {cpv}", kind.split(' ').next().unwrap())
}

/// The packages of an atom by their BUILD_ID and CPV that this machine can use.
fn usable(peer: &TestPeer, atom: &str) -> BTreeSet<String> {
    binpkgs(peer, atom).iter().filter(|package| package["usable"] == true).map(name).collect()
}

fn name(package: &Value) -> String {
    format!("{}-{}", package["cpv"].as_str().unwrap(), package["build_id"])
}

/// Builds what the configuration says now; the name of the new package.
fn build(peer: &TestPeer, atom: &str) -> String {
    let names = || binpkgs_or_none(peer, atom).iter().map(name).collect::<BTreeSet<_>>();
    let before = names();
    let said = peer.does(&["build", atom]);
    assert!(said.starts_with("built "), "{said}");
    let new: Vec<String> = names().difference(&before).cloned().collect();
    assert_eq!(new.len(), 1, "one package more: {new:?}");
    new[0].clone()
}

fn binpkgs_or_none(peer: &TestPeer, atom: &str) -> Vec<Value> {
    if peer.verb(&["show", atom]).status.success() { binpkgs(peer, atom) } else { Vec::new() }
}

#[test]
fn of_all_packages_portage_chooses_what_it_chooses_of_those_that_this_machine_can_use() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/flag-1.0", FLAG, &[]);
    machine.ebuild("app-misc/slot-1.0", SLOT, &[]);
    machine.ebuild("app-misc/slot-2.0", SLOT, &[]);
    let peer = machine.start();
    let flag = "app-misc/flag";

    let color = build(&peer, flag);
    machine.etc("package.use", "app-misc/flag -color\n");
    let plain = build(&peer, flag);
    machine.etc("package.use", "app-misc/flag debug\n");
    let debug = build(&peer, flag);
    machine.etc("package.use", "");
    make_conf(&machine, "-O3 -pipe");
    let color_again = build(&peer, flag);
    let (slot1, slot2) = (build(&peer, "=app-misc/slot-1.0"), build(&peer, "=app-misc/slot-2.0"));
    let all = unfiltered(&machine, &peer, &[flag, "app-misc/slot"]);
    let names = BTreeMap::from([(&color, 1), (&plain, 2), (&debug, 3), (&color_again, 4)]);
    assert_eq!(names.len(), 4, "each has a number of its own: {names:?}");

    // What is set, what can be used, and what is chosen of one atom.
    let flags: [(&str, &str, &[&String], Option<&String>); 8] = [
        ("", flag, &[&color, &color_again], Some(&color_again)),
        ("app-misc/flag -color\n", flag, &[&plain], Some(&plain)),
        ("app-misc/flag debug\n", flag, &[&debug], Some(&debug)),
        ("app-misc/flag debug -color\n", flag, &[], None),
        ("*/* -color\n", flag, &[&plain], Some(&plain)),
        ("", "app-misc/slot:1", &[&slot1], Some(&slot1)),
        ("", "app-misc/slot:2", &[&slot2], Some(&slot2)),
        ("app-misc/slot nosuchflag\n", "app-misc/slot", &[&slot1, &slot2], Some(&slot2)),
    ];
    for (number, (package_use, atom, expected, chosen)) in flags.into_iter().enumerate() {
        machine.etc("package.use", package_use);
        planned(&peer, &[atom]);
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).clone()).collect();
        wait::until(&format!("{package_use:?}: {expected:?}"), || (usable(&peer, atom) == expected).then_some(()));
        let of = |kind: &str, url: &str| choice(&machine, &format!("{kind}-{number}"), package_use, url, atom);
        let (ours, theirs) = (of("ours", &binhost(&peer)), of("all", &all));
        assert_eq!(ours, theirs, "{package_use:?} {atom}");
        let expected = chosen.map_or("ebuild app-misc/flag-1.0".to_owned(), |name| format!("binary {name}"));
        assert_eq!(ours, expected, "{package_use:?} {atom}");
    }
}

#[test]
fn a_package_for_another_processor_or_other_flags_is_kept_and_not_listed_and_show_says_why() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/flag-1.0", FLAG, &[]);
    let peer = machine.start();
    let good = build(&peer, "app-misc/flag");
    make_conf(&machine, MANY);
    let strange = build(&peer, "app-misc/flag");
    let listed =
        || index(&peer).entries().iter().map(|entry| entry.get("BUILD_ID").unwrap().to_owned()).collect::<Vec<_>>();
    let number = |name: &str| name.rsplit('-').next().unwrap().to_owned();
    assert_eq!(listed(), [number(&good)], "at once, without asking Portage");
    let shown = binpkgs(&peer, "app-misc/flag");
    let of = |wanted: &str| shown.iter().find(|package| name(package) == wanted).unwrap();
    assert_eq!((&of(&good)["usable"], &of(&good)["rejects"]), (&true.into(), &Value::Array(Vec::new())));
    assert_eq!((&of(&strange)["usable"], &of(&strange)["rejects"][0]["kind"]), (&false.into(), &"cpu".into()));
    let text = peer.does(&["show", "app-misc/flag"]);
    let line = format!(
        "unusable app-misc/flag-1.0 {} cpu: this processor does not have ",
        of(&strange)["digest"].as_str().unwrap()
    );
    assert!(text.lines().any(|found| found.starts_with(&line)), "{text}");
    // Portage, given both, takes the newer one: it knows nothing of processors.
    let all = unfiltered(&machine, &peer, &["app-misc/flag"]);
    assert_eq!(choice(&machine, "all", "", &all, "app-misc/flag"), format!("binary {strange}"));
    assert_eq!(choice(&machine, "ours", "", &binhost(&peer), "app-misc/flag"), format!("binary {good}"));

    // The flags are others now; what was said is known after a restart too, before Portage is asked.
    machine.etc("package.use", "app-misc/flag -color\n");
    planned(&peer, &["app-misc/flag"]);
    wait::until("both to be refused", || usable(&peer, "app-misc/flag").is_empty().then_some(()));
    let said = peer.does(&["show", "app-misc/flag"]);
    assert!(
        said.contains(
            " use: its USE flags are not those of this machine's configuration: color is on in it and off here"
        ),
        "{said}"
    );
    assert_eq!(listed(), Vec::<String>::new());
    let (_ended, start) = peer.terminate();
    let peer = start.start();
    assert_eq!(usable(&peer, "app-misc/flag"), BTreeSet::new());
}
