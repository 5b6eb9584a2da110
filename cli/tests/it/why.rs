//! `peer why ATOM`: for each state of a package the kind of reason, the reason, and what to do next.

use serde_json::Value;
use tempfile::tempdir;

use crate::answers::{NOTE, STRONG, enrol, is_plain, package_env, rejects};
use crate::builder::Builder;
use crate::peer::{TestPeer, both};

fn why(peer: &TestPeer, atom: &str) -> Value {
    let said = peer.json(&["why", atom]);
    for key in ["instances", "claims", "builders"] {
        assert!(said[key].is_array(), "{key}: {said}");
    }
    said
}

/// What people read, which ends well and has these words.
fn tells(peer: &TestPeer, atom: &str, words: &[&str]) {
    let output = peer.verb(&["why", atom]);
    let told = both(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    is_plain(&told);
    for word in words {
        assert!(told.contains(word), "{word:?} in {told}");
    }
}

fn one_of<'a>(said: &'a Value, list: &str, key: &str, value: &str) -> &'a Value {
    let all = said[list].as_array().unwrap();
    all.iter().find(|one| one[key] == value).unwrap_or_else(|| panic!("{list} has {key} {value}: {said}"))
}

#[test]
fn a_package_that_is_here_and_one_that_is_nowhere() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/note-1.0", &format!("{NOTE}IUSE=\"+color\"\n"), &[]);
    let peer = machine.start();
    let said = why(&peer, "app-misc/note");
    assert_eq!(
        (&said["cpv"], &said["state"], &said["kind"]),
        (&"app-misc/note-1.0".into(), &"build".into(), &"nobody".into())
    );
    assert_eq!(said["instances"].as_array().map(Vec::len), Some(0));
    tells(&peer, "app-misc/note", &["app-misc/note-1.0", "nobody", "hint: "]);

    peer.does(&["build", "app-misc/note"]);
    let said = why(&peer, "app-misc/note");
    assert_eq!((&said["state"], &said["kind"]), (&"have".into(), &Value::Null), "{said}");
    assert_eq!(rejects(&said["instances"][0]), []);
    let shown = peer.json(&["show", "app-misc/note"]);
    for key in ["digest", "build_id", "cpv"] {
        assert_eq!(said["instances"][0][key], shown["binpkgs"][0][key], "{key}");
    }
    machine.etc("package.use", "app-misc/note -color\n");
    let said = why(&peer, "app-misc/note");
    assert_eq!((&said["state"], &said["kind"]), (&"build".into(), &"use".into()), "{said}");
    let reasons = rejects(&said["instances"][0]);
    assert!(reasons.len() == 1 && reasons[0].0 == "use" && reasons[0].1.contains("color"), "{said}");
    tells(&peer, "app-misc/note", &["color"]);

    let output = peer.verb(&["why", "app-misc/nothing"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{}", both(&output));
    // Of a version that is not there, what is there is told; in Portage's words, not in its colours.
    let said = why(&peer, ">=app-misc/note-2");
    assert_eq!(said["instances"][0]["cpv"], "app-misc/note-1.0", "{said}");
    assert!(said["state"].is_null() && said["cause"].as_str().is_some_and(|cause| cause.contains("note-2")), "{said}");
    assert!(!said.to_string().contains("[32;01m"), "{said}");
    assert_eq!(peer.verb(&["why"]).status.code(), Some(2));
}

#[test]
fn a_package_for_another_machine_is_told_with_what_it_lacks() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let ahead = "SLOT=\"0\"\nsrc_compile() {\n\techo 'GLIBC_2.99 { global: future; };' > map\n\techo 'int future(void) { \
                 return 1; }' > stub.c\n\tmkdir stub; gcc -shared -fPIC -nostdlib -Wl,-soname,libc.so.6 \
                 -Wl,--version-script=map -o stub/libc.so.6 stub.c || die\n\techo 'int future(void); int call(void) { \
                 return future(); }' > call.c\n\tgcc -shared -fPIC -nostdlib -o libahead.so call.c stub/libc.so.6 || \
                 die\n}\nsrc_install() { exeinto /usr/lib64; doexe libahead.so; }\n";
    machine.ebuild("app-misc/ahead-1.0", ahead, &[]);
    let dozer = "SLOT=\"0\"\nsrc_compile() { echo 'int main(void) { return 0; }' > main.c; gcc ${CFLAGS} -o prog main.c \
                 || die; }\nsrc_install() { dobin prog; }\n";
    machine.ebuild("app-misc/dozer-1.0", dozer, &[]);
    // No processor has both: AMD's FMA4 and Intel's AMX.
    package_env(&machine, &[("app-misc/dozer", "CFLAGS=\"-O2 -mfma4 -mamx-tile\"\n")]);
    let peer = machine.start();
    peer.does(&["build", "app-misc/ahead", "app-misc/dozer"]);
    let said = why(&peer, "app-misc/ahead");
    assert_eq!(said["kind"], "symbol", "{said}");
    assert_ne!(said["state"], "have", "{said}");
    let reasons = rejects(&said["instances"][0]);
    assert!(reasons.iter().any(|(kind, text)| kind == "symbol" && text.contains("GLIBC_2.99")), "{said}");
    tells(&peer, "app-misc/ahead", &["GLIBC_2.99", "libc.so.6"]);
    let said = why(&peer, "app-misc/dozer");
    assert_eq!(said["kind"], "cpu", "{said}");
    let reasons = rejects(&said["instances"][0]);
    let lacks = |text: &str| text.contains("fma4") || text.contains("amx");
    assert!(reasons.iter().any(|(kind, text)| kind == "cpu" && lacks(text)), "{said}");
    let told = peer.does(&["why", "app-misc/dozer"]);
    assert!(lacks(&told), "{told}");
}

#[test]
fn who_built_it_and_whether_their_word_counts() {
    let dir = tempdir().unwrap();
    let machine = |name: &str| {
        let machine = Builder::new(&dir.path().join(name));
        machine.ebuild("app-misc/note-1.0", NOTE, &[]);
        machine.ebuild("app-misc/else-1.0", NOTE, &[]);
        machine
    };
    let (at_a, at_b, at_c) = (machine("a"), machine("b"), machine("c"));
    let a = at_a.start_with(STRONG).start();
    let c = at_c.start_with("").knows(&a).start();
    let b = at_b.start_with("").knows(&a).knows(&c).start();
    b.wait_for_peers(2);
    enrol(&a, &b, "weak", "build");
    enrol(&a, &c, "doubtful", "build");
    a.does(&["build", "app-misc/note"]);
    c.does(&["build", "app-misc/else"]);

    let said = why(&b, "app-misc/note");
    assert_eq!((&said["state"], &said["kind"]), (&"substitute".into(), &Value::Null), "{said}");
    let claim = one_of(&said, "claims", "builder", &a.peer_id());
    assert_eq!((&claim["name"], &claim["counts"]), (&"strong".into(), &true.into()), "{said}");
    let builder = one_of(&said, "builders", "peer", &a.peer_id());
    assert_eq!(builder["name"], "strong", "{said}");
    tells(&b, "app-misc/note", &["strong"]);

    let said = why(&b, "app-misc/else");
    assert_eq!((&said["state"], &said["kind"]), (&"build".into(), &"trust".into()), "{said}");
    let claim = one_of(&said, "claims", "builder", &c.peer_id());
    assert_eq!((&claim["name"], &claim["counts"]), (&"doubtful".into(), &false.into()), "{said}");
    assert!(claim["why"].as_str().is_some_and(|why| !why.is_empty()), "{said}");
    tells(&b, "app-misc/else", &["doubtful", "peer trust add"]);
    // The step that is proposed helps, word for word.
    let told = both(&b.verb(&["why", "app-misc/else"]));
    let step = told.split_once("peer trust add ").map(|(_, rest)| rest.lines().next().unwrap_or_default());
    let words: Vec<&str> = step.unwrap().split(['`', '\'', ' ']).take_while(|word| !word.is_empty()).collect();
    b.does(&[&["trust", "add"], &words[..]].concat());
    assert_eq!(why(&b, "app-misc/else")["state"], "substitute");
    b.does(&["trust", "remove", &c.peer_id()]);
    assert_eq!(why(&b, "app-misc/else")["state"], "build", "and it can be taken back");
}
