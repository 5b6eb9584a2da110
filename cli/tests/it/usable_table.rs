//! The real emerge chooses the same from what the binhost lists as it would from all that was ever built: leaving out
//! what does not fit hides nothing that Portage would have taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tempfile::tempdir;

use crate::answers::{Entry, NOTE, index, package_env, until_listed};
use crate::builder::Builder;
use crate::peer::{TestPeer, both};

const MARKER: &str = "app-misc/marker-1.0";

/// A configuration: its name, and files below /etc/portage.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    ("nothing said", &[]),
    ("a default off", &[("package.use", "app-misc/flags -color\n")]),
    ("a mix that nobody built", &[("package.use", "app-misc/flags -color debug doc\n")]),
    ("USE that undoes an IUSE default only here", &[("package.use", "*/* -color\napp-misc/flags color\n")]),
    (
        "a forced flag",
        &[("profile/package.use.force", "app-misc/flags debug\n"), ("package.use", "app-misc/flags -debug\n")],
    ),
    (
        "a masked flag",
        &[("profile/package.use.mask", "app-misc/flags color\n"), ("package.use", "app-misc/flags color\n")],
    ),
    ("a newer version unmasked", &[("package.unmask", "=app-misc/flags-1.1\n")]),
    ("a flag of one version", &[("package.use", "=app-misc/several-2.0 extra\n")]),
    ("another sub-slot below", &[("package.unmask", "=dev-libs/low-2.0\n")]),
    ("a flag that the ebuild has since", &[("package.use", "app-misc/changed since\n")]),
];

fn flagged(iuse: &str) -> String {
    format!("{NOTE}IUSE=\"{iuse}\"\n")
}

fn repository(machine: &Builder) {
    machine.ebuild(MARKER, &flagged("mark"), &[]);
    machine.ebuild("app-misc/flags-1.0", &flagged("+color debug -doc"), &[]);
    machine.ebuild("app-misc/flags-1.1", &flagged("+color debug -doc"), &[]);
    machine.ebuild("app-misc/slotted-1.0", &NOTE.replace("SLOT=\"0\"", "SLOT=\"1\""), &[]);
    machine.ebuild("app-misc/slotted-2.0", &NOTE.replace("SLOT=\"0\"", "SLOT=\"2/7\""), &[]);
    machine.ebuild("app-misc/several-1.0", &flagged("extra"), &[]);
    machine.ebuild("app-misc/several-2.0", &flagged("extra"), &[]);
    machine.ebuild("app-misc/changed-1.0", &flagged("gone"), &[]);
    machine.ebuild("app-misc/twice-1.0", NOTE, &[]);
    machine.ebuild("dev-libs/low-1.0", &NOTE.replace("SLOT=\"0\"", "SLOT=\"0/1\""), &[]);
    machine.ebuild("dev-libs/low-2.0", &NOTE.replace("SLOT=\"0\"", "SLOT=\"0/2\""), &[]);
    let upper = format!("{NOTE}DEPEND=\"dev-libs/low:=\"\nRDEPEND=\"dev-libs/low:=\"\n");
    machine.ebuild("app-misc/upper-1.0", &upper, &[]);
    machine.repo.write("profiles/package.mask", "=dev-libs/low-2.0\n=app-misc/flags-1.1\n");
}

/// Everything that was listed at any time, by where it is.
#[derive(Default)]
struct All(BTreeMap<String, Entry>);

impl All {
    fn builds(&mut self, peer: &TestPeer, atoms: &[&str]) {
        for some in atoms.chunks(4) {
            peer.does(&[&["build"], some].concat());
        }
        self.0.extend(index(peer).into_iter().map(|entry| (entry["PATH"].clone(), entry)));
    }

    fn instances(&self, cpv: &str) -> Vec<&Entry> {
        self.0.values().filter(|entry| entry["CPV"] == cpv).collect()
    }

    /// One like another, with the last build number of all, that says something else of itself.
    fn invent(&mut self, cpv: &str, key: &str, value: &str) {
        let mut entry = (*self.instances(cpv).first().expect("it was built")).clone();
        let path = format!("invented/{key}.gpkg.tar");
        entry.extend([
            (key.to_owned(), value.to_owned()),
            ("BUILD_ID".into(), "99".into()),
            ("PATH".into(), path.clone()),
        ]);
        self.0.insert(path, entry);
    }
}

/// A binhost of files with an index of these entries under the header of the daemon's.
fn binhost(dir: &Path, peer: &TestPeer, entries: &[Entry]) -> String {
    let url = peer.status()["binhost"].as_str().unwrap().to_owned();
    let text = String::from_utf8(peer.get(&format!("{}/Packages", url.trim_start_matches(&peer.url()))).body).unwrap();
    let header = text.split("\n\n").next().unwrap();
    let header: Vec<&str> = header.lines().filter(|line| !line.starts_with("PACKAGES: ")).collect();
    let mut index = format!("{}\nPACKAGES: {}\n\n", header.join("\n"), entries.len());
    for entry in entries {
        entry.iter().for_each(|(key, value)| index += &format!("{key}: {value}\n"));
        index.push('\n');
    }
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("Packages"), index).unwrap();
    format!("file://{}", dir.display())
}

/// What emerge would do with a binhost, on a machine with the configuration of the node: a line a package.
fn choice(machine: &Builder, name: &str, url: &str, files: &[(&str, &str)], atoms: &[&str]) -> BTreeSet<String> {
    for (path, content) in files {
        let path = machine.dir.join(name).join("etc/portage").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let words = ["--pretend", "--verbose", "--getbinpkg", "--usepkg"];
    let output = machine.emerge(name, url, &[&words[..], atoms].concat());
    let said = both(&output);
    assert!(output.status.success(), "{name}: {said}");
    // Where it goes is no part of what is chosen.
    let root = format!(" to {}/", machine.dir.join(name).join("root").display());
    let chosen = said.lines().filter(|line| line.starts_with("[ebuild") || line.starts_with("[binary"));
    let lines: BTreeSet<String> = chosen.map(|line| line.replace(&root, "")).collect();
    assert!(lines.len() >= atoms.len(), "{name}: {said}");
    lines
}

#[test]
fn emerge_chooses_the_same_from_what_is_listed_as_from_all_that_was_built() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    repository(&machine);
    let peer = machine.start();
    let mut all = All::default();
    let atoms = ["app-misc/flags", "app-misc/slotted:1", "app-misc/slotted:2", "app-misc/changed", "app-misc/twice"];
    all.builds(&peer, &["app-misc/marker", "=app-misc/several-1.0", "app-misc/upper"]);
    all.builds(&peer, &["=app-misc/several-2.0"]);
    all.builds(&peer, &atoms);
    machine.etc("package.use", "app-misc/flags debug\n");
    package_env(&machine, &[("app-misc/twice", "CFLAGS=\"-O1\"\n")]);
    all.builds(&peer, &["app-misc/flags", "app-misc/twice"]);
    machine.etc("package.use", "app-misc/flags -color\n");
    all.builds(&peer, &["app-misc/flags"]);
    machine.ebuild("app-misc/changed-1.0", &flagged("since"), &[]);
    assert_eq!((all.instances("app-misc/flags-1.0").len(), all.instances("app-misc/twice-1.0").len()), (3, 2));
    all.invent("app-misc/several-2.0", "CHOST", "i686-pc-linux-gnu");
    let everything: Vec<Entry> = all.0.values().cloned().collect();

    let asked: Vec<String> =
        ["flags", "slotted", "changed", "twice", "several", "upper"].map(|name| format!("app-misc/{name}")).to_vec();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let mut outcomes = BTreeSet::new();
    for (number, (what, files)) in CASES.iter().enumerate() {
        let etc = machine.dir.join("root/etc/portage");
        for gone in ["package.use", "package.mask", "package.unmask", "profile"] {
            let path = etc.join(gone);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { drop(fs::remove_file(path)) }
        }
        // Said anew by each case: when it is followed, so is the rest of the configuration.
        let marked = number % 2 == 0;
        let mut files: Vec<(&str, &str)> = files.to_vec();
        files.push(("profile/package.use", if marked { "app-misc/marker mark\n" } else { "app-misc/marker -mark\n" }));
        files.iter().for_each(|(path, content)| machine.etc(path, content));
        until_listed(&peer, &[MARKER], if marked { &[] } else { &[MARKER] });
        let ours = index(&peer);
        let places = machine.dir.join(format!("binhosts{number}"));
        let [of_all, of_ours] = [("all", &everything), ("ours", &ours)].map(|(kind, entries)| {
            let url = binhost(&places.join(kind), &peer, entries);
            choice(&machine, &format!("client{number}-{kind}"), &url, &files, &asked)
        });
        assert_eq!(of_ours, of_all, "{what}");
        outcomes.insert(of_all.into_iter().collect::<Vec<_>>().join("\n"));
    }
    assert!(outcomes.len() >= 6, "the cases are cases: {outcomes:#?}");
    assert!(outcomes.iter().all(|lines| lines.contains("[binary") || lines.contains("[ebuild")));
    assert!(outcomes.iter().any(|lines| lines.matches("[ebuild").count() >= 2), "some have to be built");
}
