//! `peer weather` among several machines: what is ready, from whom, and the cause of each miss; and that the sums are
//! right.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::answers::{NOTE, STRONG, adds_up, enrol, of_weather, package_env, state_of};
use crate::builder::{Builder, jobs, of_cpv};
use crate::peer::{Start, TestPeer, both};

/// A machine that has these ebuilds, all of them notes: `category/name-version`, and lines more.
fn machine(dir: &std::path::Path, ebuilds: &[(&str, &str)]) -> Builder {
    let machine = Builder::new(dir);
    for (cpv, more) in ebuilds {
        machine.ebuild(cpv, &format!("{NOTE}{more}"), &[]);
    }
    machine
}

fn weather(peer: &TestPeer, atoms: &[&str]) -> Value {
    let said = peer.json(&[&["weather"], atoms].concat());
    adds_up(&said);
    said
}

/// State and kind, as two words.
fn two(state: &str, kind: &str) -> (String, String) {
    (state.to_owned(), kind.to_owned())
}

/// What all machines of the group have ebuilds of.
const EBUILDS: &[(&str, &str)] = &[
    ("app-misc/here-1.0", ""),
    ("app-misc/there-1.0", ""),
    ("app-misc/nobody-1.0", ""),
    ("app-misc/older-1.0", ""),
    ("app-misc/coloured-1.0", "IUSE=\"+color\"\n"),
    ("app-misc/tuned-1.0", "src_compile() { :; }\n"),
    ("app-misc/doubted-1.0", ""),
];

#[test]
fn what_a_member_has_is_ready_and_each_miss_has_its_cause() {
    let dir = tempdir().unwrap();
    let at_a = machine(&dir.path().join("a"), EBUILDS);
    at_a.etc("package.use", "app-misc/coloured -color\n");
    package_env(&at_a, &[("app-misc/tuned", "CFLAGS=\"-O1\"\n")]);
    let a = at_a.start_with(STRONG).start();
    let at_b = machine(&dir.path().join("b"), EBUILDS);
    at_b.ebuild("app-misc/older-2.0", NOTE, &[]);
    let at_c = machine(&dir.path().join("c"), EBUILDS);
    let c = at_c.start_with("").knows(&a).start();
    let b = at_b.start_with("").knows(&a).knows(&c).start();
    at_b.import(&b);
    b.wait_for_peers(2);
    enrol(&a, &b, "weak", "build");
    // The word of C, which may build and not sign, counts for nobody.
    enrol(&a, &c, "doubtful", "build");
    a.does(&["build", "app-misc/there", "app-misc/older", "app-misc/coloured", "app-misc/tuned"]);
    c.does(&["build", "app-misc/doubted"]);
    b.does(&["build", "app-misc/here"]);

    let atoms: Vec<String> = ["here", "there", "nobody", "older", "coloured", "tuned", "doubted"]
        .iter()
        .map(|name| format!("app-misc/{name}"))
        .collect();
    let atoms: Vec<&str> = atoms.iter().map(String::as_str).collect();
    let before = jobs(&b);
    let said = weather(&b, &atoms);
    assert_eq!(jobs(&b), before, "asking begins nothing");
    let of = |cpv: &str| state_of(&said, cpv);
    assert_eq!(of("app-misc/here-1.0"), two("have", ""));
    assert_eq!(of("app-misc/there-1.0"), two("substitute", ""));
    assert_eq!(of("app-misc/nobody-1.0"), two("build", "nobody"));
    assert_eq!(of("app-misc/older-2.0"), two("build", "version"));
    assert_eq!(of("app-misc/coloured-1.0"), two("build", "use"));
    assert_eq!(of("app-misc/tuned-1.0"), two("build", "recipe"));
    assert_eq!(of("app-misc/doubted-1.0"), two("build", "trust"));
    let cause = |cpv: &str| of_weather(&said, cpv)["cause"].as_str().unwrap().to_owned();
    for (cpv, words) in [
        ("app-misc/older-2.0", &["1.0"][..]),
        ("app-misc/coloured-1.0", &["color", "strong"]),
        ("app-misc/doubted-1.0", &["doubtful"]),
    ] {
        let cause = cause(cpv);
        assert!(words.iter().all(|word| cause.contains(word)), "{cpv}: {words:?} in {cause:?}");
    }
    let there = of_weather(&said, "app-misc/there-1.0");
    assert_eq!(there["from"], serde_json::json!(["strong"]), "{there}");
    let theirs = a.json(&["show", "app-misc/there"])["binpkgs"][0]["size"].as_u64().unwrap();
    assert!(there["bytes"].as_u64().unwrap() > theirs / 2, "{there}: a package of {theirs} bytes");

    // How long another took is what it will take here, where nobody here knows; what nobody built is not guessed.
    let seconds = |cpv: &str| of_weather(&said, cpv)["build_s"].as_u64();
    assert!(seconds("app-misc/coloured-1.0").is_some(), "{said}");
    assert_eq!(seconds("app-misc/nobody-1.0"), None);

    let told = b.verb(&[&["weather"], &atoms[..]].concat());
    let text = both(&told);
    assert_eq!(told.status.code(), Some(0), "{text}");
    for cpv in ["app-misc/there-1.0", "app-misc/nobody-1.0", "app-misc/older-2.0", "app-misc/doubted-1.0"] {
        assert!(text.contains(cpv), "{cpv} in {text}");
    }
    for cpv in ["app-misc/nobody-1.0", "app-misc/older-2.0", "app-misc/doubted-1.0"] {
        assert!(text.contains(&cause(cpv)), "the cause of {cpv} in {text}");
    }
    assert!(text.contains("strong"), "{text}");
    // What is there now is taken as foreseen.
    b.does(&["build", "app-misc/there"]);
    assert_eq!(of_cpv(&jobs(&b), "app-misc/there-1.0")["source"], "substitute");
    assert_eq!(state_of(&weather(&b, &["app-misc/there"]), "app-misc/there-1.0"), two("have", ""));
    // What a member can no longer be asked for is not foreseen.
    a.kill();
    let said = weather(&b, &["app-misc/coloured"]);
    assert_eq!(state_of(&said, "app-misc/coloured-1.0").0, "build");
}

#[test]
fn a_build_that_took_some_seconds_is_foreseen_to_take_them_again() {
    let dir = tempdir().unwrap();
    let slow = "src_compile() { timeout 4 tail -f /dev/null; true; }\n";
    let machine = machine(dir.path(), &[("app-misc/slow-1.0", slow), ("app-misc/new-1.0", "")]);
    let peer = machine.start();
    let said = weather(&peer, &["app-misc/slow", "app-misc/new"]);
    assert_eq!((&said["totals"]["unknown_times"], &said["totals"]["build_s"]), (&2.into(), &0.into()), "{said}");
    peer.does(&["build", "app-misc/slow"]);
    let job = of_cpv(&jobs(&peer), "app-misc/slow-1.0").clone();
    let took = job["ended_at"].as_u64().unwrap() - job["started_at"].as_u64().unwrap();
    assert!(took >= 3, "{job}");

    // Another version of the same package takes as long, as far as anybody knows.
    machine.ebuild("app-misc/slow-1.1", &format!("{NOTE}{slow}"), &[]);
    let said = weather(&peer, &["app-misc/slow", "app-misc/new"]);
    let foreseen = of_weather(&said, "app-misc/slow-1.1")["build_s"].as_u64().unwrap();
    assert!(foreseen.abs_diff(took) <= 1, "{foreseen} s foreseen, {took} s taken");
    assert_eq!((&said["totals"]["unknown_times"], &said["totals"]["build_s"]), (&1.into(), &foreseen.into()), "{said}");
    assert_eq!(state_of(&said, "app-misc/slow-1.1"), two("build", "version"));
    let told = both(&peer.verb(&["weather", "app-misc/slow", "app-misc/new"]));
    assert!(told.to_lowercase().contains("unknown"), "how many times are unknown is told: {told}");
    // It is known after a restart too.
    let peer = peer.kill().start();
    assert_eq!(of_weather(&weather(&peer, &["app-misc/slow"]), "app-misc/slow-1.1")["build_s"], foreseen);
}

#[test]
fn what_is_held_but_not_for_this_machine_is_a_miss() {
    let dir = tempdir().unwrap();
    let orphan = "src_compile() {\n\techo 'int lost(void) { return 1; }' > stub.c\n\tgcc -shared -fPIC -nostdlib \
                  -Wl,-soname,libnowhere.so.7 -o libnowhere.so stub.c || die\n\techo 'int lost(void); int call(void) { \
                  return lost(); }' > call.c\n\tgcc -shared -fPIC -nostdlib -o liborphan.so call.c libnowhere.so || \
                  die\n}\nsrc_install() { exeinto /usr/lib64; doexe liborphan.so; }\n";
    let foreign = "src_compile() { echo 'int main(void) { return 0; }' > main.c; gcc ${CFLAGS} -o prog main.c || die; \
                   }\nsrc_install() { dobin prog; }\n";
    let machine = machine(dir.path(), &[("app-misc/orphan-1.0", orphan), ("app-misc/dozer-1.0", foreign)]);
    package_env(&machine, &[("app-misc/dozer", "CFLAGS=\"-O2 -mfma4 -m3dnow\"\n")]);
    let peer = machine.start();
    peer.does(&["build", "app-misc/orphan", "app-misc/dozer"]);
    let said = weather(&peer, &["app-misc/orphan", "app-misc/dozer"]);
    assert_eq!(state_of(&said, "app-misc/orphan-1.0").1, "soname", "{said}");
    assert_eq!(state_of(&said, "app-misc/dozer-1.0").1, "cpu", "{said}");
    assert_eq!(said["totals"]["have"], 0, "emerge finds neither in the binhost: {said}");
    let cause = |cpv: &str| of_weather(&said, cpv)["cause"].as_str().unwrap().to_owned();
    assert!(cause("app-misc/orphan-1.0").contains("libnowhere.so.7"), "{said}");
    assert!(cause("app-misc/dozer-1.0").contains("fma4") || cause("app-misc/dozer-1.0").contains("3dnow"), "{said}");
}

#[test]
fn the_world_is_asked_for_when_nothing_is_named() {
    let dir = tempdir().unwrap();
    let ebuilds = [
        ("app-misc/wanted-1.0", "RDEPEND=\"app-misc/below\"\n"),
        ("app-misc/below-1.0", ""),
        ("app-misc/other-1.0", ""),
    ];
    let machine = machine(dir.path(), &ebuilds);
    let chosen = machine.dir.join("chosen");
    fs::create_dir_all(&chosen).unwrap();
    fs::write(chosen.join("world"), "app-misc/wanted\n").unwrap();
    machine.etc("sets/mine", "app-misc/other\n");
    let portage = crate::builder::portage();
    let portage = portage.display();
    let config = format!(
        "[build]\nbinds = [\"{portage}\", \"{portage}/share/portage:/share/portage\", \"{}:/var/lib/portage\"]\n",
        chosen.display()
    );
    let root = machine.dir.join("root");
    let start = Start::new(&machine.dir).config(&config).repo(&machine.repo);
    let peer = start.flag("--config-root", root.to_str().unwrap()).start();
    for words in [&[][..], &["@world"]] {
        let said = weather(&peer, words);
        let cpvs: Vec<&Value> = said["packages"].as_array().unwrap().iter().map(|one| &one["cpv"]).collect();
        assert_eq!(cpvs, ["app-misc/below-1.0", "app-misc/wanted-1.0"], "{said}");
    }
    let said = weather(&peer, &["@mine"]);
    assert_eq!((said["packages"].as_array().unwrap().len(), &said["totals"]["build"]), (1, &1.into()), "{said}");
    let both_asked = weather(&peer, &["@world", "app-misc/other", "@mine"]);
    assert_eq!(both_asked["packages"].as_array().unwrap().len(), 3, "each once: {both_asked}");
    for wrong in ["@nosuchset", "app-misc/nothing", "not an atom", "@../../etc/passwd", ""] {
        let output = peer.verb(&["weather", wrong]);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{wrong:?}: {:?} {}", output.status, both(&output));
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }
}
