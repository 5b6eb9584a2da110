//! `peer search` over this machine and its group, and `--domain NAME`: another member's answer for its own machine.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::answers::{NOTE, STRONG, adds_up, enrol, is_plain, state_of};
use crate::builder::Builder;
use crate::gentoo::Repo;
use crate::peer::{Start, TestPeer, both};
use crate::wait;

/// An ebuild of a note with this description.
fn described(machine: &Builder, cpv: &str, description: &str) {
    machine.ebuild(cpv, &format!("{NOTE}DESCRIPTION=\"{description}\"\n"), &[]);
    cached(&machine.repo, cpv, description, "");
}

/// Its md5-cache entry, as a synced repository has it.
fn cached(repo: &Repo, cpv: &str, description: &str, iuse: &str) {
    let (category, pf) = cpv.split_once('/').unwrap();
    let (name, _version) = pf.rsplit_once('-').unwrap();
    let ebuild = repo.dir.join(category).join(name).join(format!("{pf}.ebuild"));
    let md5 = md5_of(&ebuild);
    let text = format!(
        "DEFINED_PHASES=install\nDESCRIPTION={description}\nEAPI=8\nHOMEPAGE=https://example.invalid/\nIUSE={iuse}\n\
         KEYWORDS=amd64\nLICENSE=Example\nSLOT=0\n_md5_={md5}\n"
    );
    repo.write(&format!("metadata/md5-cache/{cpv}"), &text);
}

fn md5_of(file: &Path) -> String {
    let sum = wait::run(std::process::Command::new("md5sum").arg(file));
    String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap().to_owned()
}

fn found(peer: &TestPeer, words: &[&str]) -> Vec<Value> {
    let said = peer.json(&[&["search"], words].concat());
    said["rows"].as_array().unwrap_or_else(|| panic!("a search has rows: {said}")).clone()
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["cpv"].as_str().unwrap()).collect()
}

fn sorted(rows: &[Value]) -> Vec<&str> {
    let mut all = names(rows);
    all.sort_unstable();
    all
}

#[test]
fn all_words_must_be_there_in_any_case_in_name_or_description() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    described(&machine, "app-misc/lamp-1.0", "Shines in the Dark");
    described(&machine, "app-misc/lamp-1.2", "Shines in the Dark");
    described(&machine, "app-misc/lampshade-2.0", "Keeps light from the eye");
    described(&machine, "app-misc/torch-0.9", "A lamp to carry, made of C++ [sic] (.*)");
    let peer = machine.start_with("").start();
    assert_eq!(found(&peer, &["lamp"]).len(), 3);
    assert_eq!(
        names(&found(&peer, &["lamp"]))[0],
        "app-misc/lamp-1.2",
        "the one of that name first, its newest version"
    );
    assert_eq!(names(&found(&peer, &["LAMP", "dark"])), ["app-misc/lamp-1.2"]);
    assert_eq!(names(&found(&peer, &["dark", "LaMp", "shines in"])), ["app-misc/lamp-1.2"]);
    assert_eq!(names(&found(&peer, &["app-misc/torch"])), ["app-misc/torch-0.9"]);
    for literal in ["c++", "[sic]", "(.*)"] {
        assert_eq!(names(&found(&peer, &[literal])), ["app-misc/torch-0.9"], "{literal}: words are no patterns");
    }
    let row = &found(&peer, &["torch"])[0];
    assert_eq!((&row["repo"], &row["binary"]), (&"main".into(), &false.into()), "{row}");
    assert_eq!(row["description"], "A lamp to carry, made of C++ [sic] (.*)");
    peer.does(&["build", "app-misc/torch"]);
    assert_eq!(found(&peer, &["torch"])[0]["binary"], true);
    let told = peer.does(&["search", "dark"]);
    assert!(told.contains("app-misc/lamp-1.2") && told.contains("Shines in the Dark"), "{told}");
    // An ebuild without sources needs no Manifest, as in virtual/ and acct-user/.
    described(&machine, "app-misc/bare-1.0", "Without sources");
    fs::remove_file(machine.repo.dir.join("app-misc/bare/Manifest")).unwrap();
    wait::until("a package without a Manifest", || {
        (peer.verb(&["search", "bare"]).status.code() == Some(0)).then_some(())
    });
    // What changes is seen.
    described(&machine, "app-misc/lampshade-2.1", "Keeps all light in the dark");
    wait::until("the new version", || (found(&peer, &["dark"]).len() == 2).then_some(()));

    for words in [&["nothing-has-this"][..], &["lamp", "nothing-has-this"]] {
        let output = peer.verb(&[&["search"], words].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", both(&output));
        assert!(!output.stderr.is_empty());
    }
    let long = "x".repeat(100_000);
    let many = vec!["lamp"; 2000];
    for words in [&[][..], &[""], &[long.as_str()], &many] {
        let output = peer.verb(&[&["search"], words].concat());
        assert!(matches!(output.status.code(), Some(1 | 2)), "{} words: {}", words.len(), both(&output));
    }
}

/// A repository of so many packages with long descriptions.
fn crowd(dir: &Path, count: usize) -> Repo {
    let repo = Repo::new(dir, "crowd");
    repo.write("profiles/categories", "app-crowd\n");
    let description = format!("Crowded {}", "word ".repeat(200));
    // One text for all, so one sum.
    let mut md5 = String::new();
    for number in 0..count {
        let cpv = format!("app-crowd/one{number}-1.0");
        let ebuild = format!("EAPI=8\nDESCRIPTION=\"{description}\"\nSLOT=\"0\"\nKEYWORDS=\"amd64\"\n");
        repo.write(&format!("app-crowd/one{number}/one{number}-1.0.ebuild"), &ebuild);
        repo.write(&format!("app-crowd/one{number}/Manifest"), "");
        if md5.is_empty() {
            md5 = md5_of(&repo.dir.join(format!("app-crowd/one{number}/one{number}-1.0.ebuild")));
        }
        let entry = format!("DESCRIPTION={description}\nEAPI=8\nKEYWORDS=amd64\nSLOT=0\n_md5_={md5}\n");
        repo.write(&format!("metadata/md5-cache/{cpv}"), &entry);
    }
    repo
}

#[test]
fn an_answer_has_at_most_500_packages_and_says_when_there_are_more() {
    let dir = tempdir().unwrap();
    let repo = crowd(dir.path(), 700);
    let peer = Start::new(&dir.path().join("node")).repo(&repo).start();
    let rows = found(&peer, &["app-crowd"]);
    assert_eq!(rows.len(), 500);
    let output = peer.verb(&["search", "app-crowd"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("500") && told.contains("more"), "{told}");
    assert!(output.stdout.len() < 500 * 600, "a description is a line, not a book: {} bytes", output.stdout.len());
    assert_eq!(found(&peer, &["one42"]).len(), 11, "what is asked more closely is found whole: 42, 420 to 429");
}

/// The machine of the founder, called strong, and a weak one that knows it.
struct Two {
    strong: Builder,
    weak: Builder,
    a: TestPeer,
    b: TestPeer,
}

fn two(dir: &Path, role: &str) -> Two {
    let (strong, weak) = (Builder::new(&dir.join("a")), Builder::new(&dir.join("b")));
    strong.etc("package.use", "app-misc/note debug\n");
    for machine in [&strong, &weak] {
        described(machine, "app-misc/shared-1.0", "On both");
        machine.ebuild("app-misc/note-1.0", &format!("{NOTE}IUSE=\"debug\"\n"), &[]);
        cached(&machine.repo, "app-misc/note-1.0", "A note", "debug");
    }
    described(&strong, "app-misc/rare-3.0", "Only on the strong one");
    let a = strong.start_with(STRONG).start();
    let b = weak.start_with("").knows(&a).start();
    b.wait_for_peers(1);
    enrol(&a, &b, "weak", role);
    Two { strong, weak, a, b }
}

#[test]
fn what_members_have_is_found_and_another_machine_answers_for_itself() {
    let dir = tempdir().unwrap();
    let Two { a, b, strong, weak } = two(dir.path(), "build");
    a.does(&["build", "app-misc/rare", "app-misc/note"]);
    let rows = found(&b, &["rare"]);
    assert_eq!(names(&rows), ["app-misc/rare-3.0"]);
    assert_eq!((&rows[0]["domain"], &rows[0]["binary"]), (&"strong".into(), &true.into()), "{rows:?}");
    let both_have = found(&b, &["on", "both"]);
    assert!(both_have.iter().any(|row| row["domain"].is_null()), "{both_have:?}");
    assert_eq!(found(&a, &["rare"])[0]["domain"], Value::Null, "for itself it is here");

    // The other machine's view: its repositories, its packages, its USE.
    let theirs = b.json(&["search", "shared", "--domain", "strong"]);
    assert_eq!(sorted(theirs["rows"].as_array().unwrap()), ["app-misc/shared-1.0"], "{theirs}");
    assert!(found(&b, &["rare", "--domain", "strong"]).len() == 1);
    let mine = b.verb(&["show", "app-misc/rare"]);
    assert_eq!(mine.status.code(), Some(1), "{}", both(&mine));
    let shown = b.json(&["show", "app-misc/note", "--domain", "strong"]);
    let at_a = a.json(&["show", "app-misc/note"]);
    assert_eq!(shown["binpkgs"][0]["digest"], at_a["binpkgs"][0]["digest"], "{shown}");
    assert_eq!(b.verb(&["show", "app-misc/note"]).status.code(), Some(1), "here there is none");
    let weather = b.json(&["weather", "app-misc/note", "app-misc/rare", "--domain", "strong"]);
    adds_up(&weather);
    assert_eq!(state_of(&weather, "app-misc/note-1.0").0, "have", "as the strong one would have it: {weather}");
    assert_eq!(state_of(&b.json(&["weather", "app-misc/note"]), "app-misc/note-1.0").0, "build");
    // Named by its id it is the same machine; a question it answers with no is a no.
    assert_eq!(b.json(&["weather", "app-misc/note", "--domain", &a.peer_id()])["totals"]["have"], 1);
    for words in [["show", "app-misc/nothing"], ["weather", "app-misc/nothing"], ["search", "nothing-has-this"]] {
        let output = b.verb(&[&words[..], &["--domain", "strong"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", both(&output));
    }
    for domain in ["nobody", "", "../strong", "12D3KooWelsewhere", "\u{1b}[2J"] {
        for words in [["search", "shared"], ["weather", "app-misc/note"], ["show", "app-misc/note"]] {
            let output = b.verb(&[&words[..], &["--domain", domain]].concat());
            assert!(matches!(output.status.code(), Some(1 | 2)), "{domain:?}: {}", both(&output));
            assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{domain:?}: {}", both(&output));
            is_plain(&both(&output));
        }
    }
    // A member that is gone is said to be, and what is here is found all the same.
    a.kill();
    let output = b.verb(&["search", "rare", "--domain", "strong"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(both(&output).contains("strong"), "{}", both(&output));
    assert_eq!(found(&b, &["shared"]).len(), 1);
    drop((strong, weak));
}

#[test]
fn a_member_that_may_only_fetch_gets_no_weather_and_a_revoked_one_gets_nothing() {
    let dir = tempdir().unwrap();
    let Two { a, b, .. } = two(dir.path(), "fetch");
    a.does(&["build", "app-misc/note"]);
    assert_eq!(found(&b, &["rare", "--domain", "strong"]).len(), 1, "any member may search");
    b.json(&["show", "app-misc/note", "--domain", "strong"]);
    let refused = b.verb(&["weather", "app-misc/note", "--domain", "strong"]);
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    assert!(both(&refused).contains("fetch"), "it says which role is too little: {}", both(&refused));

    a.does(&["trust", "remove", &b.peer_id()]);
    wait::until("the roster to reach the one who was removed", || {
        let output = b.verb(&["search", "rare", "--domain", "strong"]);
        (output.status.code() != Some(0)).then_some(())
    });
    for words in [["search", "rare"], ["show", "app-misc/note"], ["weather", "app-misc/note"]] {
        let output = b.verb(&[&words[..], &["--domain", &a.peer_id()]].concat());
        assert!(matches!(output.status.code(), Some(1 | 2)), "{words:?}: {}", both(&output));
    }
    assert!(b.verb(&["search", "rare"]).status.code() == Some(1), "nor is it found in passing");
}

#[test]
fn a_members_answer_is_bounded_and_its_words_are_no_commands_for_a_terminal() {
    let dir = tempdir().unwrap();
    let (strong, weak) = (Builder::new(&dir.path().join("a")), Builder::new(&dir.path().join("b")));
    let crowd = crowd(&dir.path().join("a"), 700);
    let evil = "\u{1b}[2J\u{7}\u{202e}evil \u{9b}31m";
    strong.ebuild("app-misc/evil-1.0", NOTE, &[]);
    cached(&strong.repo, "app-misc/evil-1.0", evil, "");
    let a = strong.start_with(STRONG).repo(&crowd).start();
    let b = weak.start_with("").knows(&a).start();
    b.wait_for_peers(1);
    enrol(&a, &b, "weak", "fetch");
    for words in [&["search", "evil"][..], &["search", "evil", "--domain", "strong"]] {
        let output = b.verb(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", both(&output));
        assert!(both(&output).contains("app-misc/evil-1.0"));
        is_plain(&both(&output));
    }
    for peer in [&a, &b] {
        let json = peer.does(&["search", "evil", "--json"]);
        assert!(!json.contains('\u{1b}') && !json.contains('\u{7}'), "{json:?}");
    }
    is_plain(&both(&a.verb(&["search", "evil"])));
    let json = b.does(&["search", "app-crowd", "--domain", "strong", "--json"]);
    let said: Value = serde_json::from_str(&json).unwrap();
    let count = said["rows"].as_array().unwrap().len();
    assert!(count > 100 && count <= 500 && json.len() < 512 << 10, "{count} rows, {} bytes", json.len());
    assert_eq!(said["more"], true);
    // Its own and the member's together are no more than one answer has.
    let all = b.json(&["search", "app-crowd"]);
    assert!(all["rows"].as_array().unwrap().len() <= 500);
    let output: Vec<u8> = fs::read(b.dir().join("log")).unwrap();
    assert!(!String::from_utf8_lossy(&output).contains("panicked"));
}
