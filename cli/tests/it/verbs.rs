//! The verbs: what they print, and the codes they end with, against a running daemon and without one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::gentoo::{Ebuild, Repo, Source};
use crate::noise::noise;
use crate::peer::{Start, TestPeer, both, peer};
use crate::upstream::Nginx;
use crate::wait;

const DONE: Option<i32> = Some(0);
const NO: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);
const UNREACHABLE: Option<i32> = Some(3);
const UNVERIFIED: Option<i32> = Some(5);

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

#[test]
fn without_a_daemon_every_verb_that_needs_one_ends_with_3_and_says_how_to_start_it() {
    let dir = tempdir().unwrap();
    let control = dir.path().join("nobody.sock");
    let control = control.to_str().unwrap();
    for verb in [
        vec!["status"],
        vec!["fetch", "x.tar"],
        vec!["import", "/etc/hostname"],
        vec!["pin", "list"],
        vec!["gc"],
        vec!["verify"],
        vec!["peers"],
        vec!["build", "app-misc/hello", "--pretend"],
        vec!["jobs"],
        vec!["logs", "1"],
        vec!["logs", "1", "--follow"],
        vec!["cancel", "1"],
        vec!["show", "app-misc/hello"],
        vec!["challenge", "app-misc/hello"],
        vec!["trust", "list"],
        vec!["trust", "explain", "app-misc/hello"],
        vec!["invite"],
        vec!["invite", "--list"],
        vec!["join", "peer1aaaa"],
    ] {
        for json in [false, true] {
            let mut words = verb.clone();
            words.extend(["--control", control]);
            words.extend(json.then_some("--json"));
            let output = peer(dir.path(), &words);
            assert_eq!(output.status.code(), UNREACHABLE, "{words:?}: {}", both(&output));
            assert!(output.stdout.is_empty(), "{words:?}: standard output is data");
            assert!(!output.stderr.is_empty(), "{words:?}: it says why");
        }
    }
}

#[test]
fn wrong_words_and_wrong_configuration_end_with_2_and_point_at_the_word() {
    let dir = tempdir().unwrap();
    let conf = dir.path().join("peer.toml");
    fs::write(&conf, "data_dri = \"/tmp/x\"\n").unwrap();
    let conf = conf.to_str().unwrap();
    let missing = dir.path().join("missing.toml");
    for (words, said) in [
        (vec!["statsu"], "statsu"),
        (vec!["status", "--jsn"], "--jsn"),
        (vec!["fetch"], "TARGET"),
        (vec!["import"], "PATH"),
        (vec!["build"], "ATOM"),
        (vec!["logs", "seven"], "seven"),
        (vec!["cancel"], "JOB"),
        (vec!["trust", "add", "12D3KooWsomebody"], "--packages"),
        (vec!["invite", "--role", "root"], "root"),
        (vec!["invite", "--expires", "8d"], "7d"),
        (vec!["invite", "--list", "--qr"], "--qr"),
        (vec!["join"], "TICKET"),
        (vec!["daemon", "--config", conf], "data_dri"),
        (vec!["daemon", "--config", missing.to_str().unwrap()], "missing.toml"),
        (vec!["daemon", "--http", "nowhere"], "nowhere"),
        (vec!["daemon", "--p2p", "/ip4/300.1.1.1/tcp/1"], "300.1.1.1"),
        (vec!["daemon", "--peer", "elsewhere"], "elsewhere"),
        (vec!["daemon", "--mirror", "gopher://mirror.invalid"], "gopher://mirror.invalid"),
    ] {
        let mut command = words.clone();
        let (store, control) = (dir.path().join("store"), dir.path().join("control.sock"));
        if words.len() > 1 && words[0] == "daemon" {
            // Should it start after all, it must not touch this machine.
            command.extend(["--data-dir", store.to_str().unwrap(), "--no-mdns"]);
            command.extend(["--control", control.to_str().unwrap()]);
            for (flag, value) in [("--http", "127.0.0.1:0"), ("--p2p", "/ip4/127.0.0.1/tcp/0")] {
                command.extend((!words.contains(&flag)).then_some([flag, value]).into_iter().flatten());
            }
        }
        let output = peer(dir.path(), &command);
        assert_eq!(output.status.code(), USAGE, "{words:?}: {}", both(&output));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(said), "{words:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn help_and_version_are_data_and_end_with_0() {
    let dir = tempdir().unwrap();
    for words in [vec!["--help"], vec!["--version"], vec!["fetch", "--help"], vec!["daemon", "--help"]] {
        let output = peer(dir.path(), &words);
        assert_eq!(output.status.code(), DONE, "{words:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn status_says_what_the_interface_promises() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "counted-1.0.bin", &noise(1, 12_345));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    assert!(node.get(&source.sums.path()).is(&source.content()));
    node.get("/distfiles/unknown.bin");
    let status = node.status();
    for name in ["peer_id", "http", "binhost"] {
        assert_eq!(status[name], node.ready[name], "{name}");
    }
    assert_eq!(status["peers"], 0);
    assert_eq!(status["blobs"], 1);
    assert_eq!(status["bytes"], 12_345);
    assert_eq!(status["distfiles_indexed"], 1);
    assert_eq!(status["served"]["store"]["answers"], 1, "{status}");
    let over_http: Value = serde_json::from_slice(&node.get("/api/v1/status").body).unwrap();
    assert_eq!(over_http["peer_id"], status["peer_id"]);
    assert!(node.does(&["status"]).contains(&node.peer_id()));
    assert!(node.ready["binhost"].as_str().unwrap().contains(&node.http()));
}

#[test]
fn fetch_takes_names_atoms_and_digests_and_says_where_each_came_from() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let sources: Vec<Source> = (0..3)
        .map(|number| Source::new(&nginx.distfiles(), &format!("fetch{number}.bin"), &noise(number, 5_000)))
        .collect();
    let repo = Repo::new(dir.path(), "main");
    repo.add(&Ebuild {
        name: "pair",
        src_uri: "http://127.0.0.1:1/fetch0.bin http://127.0.0.1:1/fetch1.bin",
        restrict: "",
        sources: &[&sources[0], &sources[1]],
    });
    repo.add_plain("single", "http://127.0.0.1:1", &sources[2]);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &nginx.url());

    let out = dir.path().join("out");
    let told = node.does(&["fetch", "fetch0.bin", "-o", out.to_str().unwrap()]);
    assert!(told.contains("fetch0.bin") && told.contains("mirror"), "{told}");
    assert_eq!(fs::read(out.join("fetch0.bin")).unwrap(), sources[0].content());
    let told = lines(&node.does(&["fetch", "app-misc/pair", "--json"]));
    let source_of = |name: &str| {
        told.iter().find(|line| line["event"] == "have" && line["name"] == name).map(|line| line["source"].clone())
    };
    assert_eq!(source_of("fetch0.bin"), Some("store".into()), "{told:?}");
    assert_eq!(source_of("fetch1.bin"), Some("mirror".into()), "{told:?}");
    node.does(&["fetch", &sources[2].sums.blake2b]);
    node.holds_only(3);
    for (words, code) in [
        (vec!["fetch", "nobody-knows.bin"], NO),
        (vec!["fetch", "app-misc/nothing"], NO),
        (vec!["fetch", "fetch0.bin", "nobody-knows.bin"], NO),
    ] {
        let output = node.verb(&words);
        assert_eq!(output.status.code(), code, "{words:?}: {}", both(&output));
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
    let strange = "0".repeat(128);
    for target in ["../../etc/passwd", "a/b/c", "", "@nosuchset", &"x".repeat(5_000), strange.as_str(), "bafy!"] {
        let output = node.verb(&["fetch", target]);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{target:?}: {:?} {}", output.status, both(&output));
    }
}

#[test]
fn import_takes_only_what_a_manifest_names_and_says_what_it_passed_over() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let good = Source::new(&sources, "good-1.0.bin", &noise(1, 5_000));
    let spoilt = Source::new(&sources, "spoilt-1.0.bin", &noise(2, 5_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("good", "http://127.0.0.1:1", &good);
    repo.add_plain("spoilt", "http://127.0.0.1:1", &spoilt);
    fs::write(&spoilt.path, noise(3, 5_000)).unwrap();
    Source::new(&sources, "stranger-1.0.bin", b"no Manifest knows me");
    fs::create_dir_all(sources.join("git3-src")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", sources.join("link-1.0.bin")).unwrap();
    std::os::unix::fs::symlink("nowhere", sources.join("dangling-1.0.bin")).unwrap();
    let pipe = wait::run(Command::new("mkfifo").arg(sources.join("pipe-1.0.bin")));
    assert!(pipe.status.success());

    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    let output = node.verb(&["import", sources.to_str().unwrap()]);
    assert_eq!(output.status.code(), UNVERIFIED, "one has other bytes than its line: {}", both(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("good-1.0.bin"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("spoilt-1.0.bin"));
    node.holds_only(1);
    assert_eq!(good.content(), noise(1, 5_000), "the user's own file is as it was");

    let again = lines(&node.does(&["import", good.path.to_str().unwrap(), "--json"]));
    assert!(again.iter().any(|line| line["event"] == "imported" && line["how"] == "present"), "{again:?}");
    let nothing = node.verb(&["import", sources.join("stranger-1.0.bin").to_str().unwrap()]);
    assert_eq!(nothing.status.code(), NO, "{}", both(&nothing));
    let missing = node.verb(&["import", "/nonexistent/file"]);
    assert!(matches!(missing.status.code(), Some(1 | 2)), "{}", both(&missing));
}

#[test]
fn a_file_changed_after_its_import_does_not_change_what_is_served() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "changed-1.0.bin", &noise(1, 50_000));
    let content = source.content();
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    // In place, as an editor or a download that goes on would do it: a hard link would show it.
    fs::write(&source.path, noise(2, 50_000)).unwrap();
    let reply = node.get(&source.sums.path());
    assert!(reply.is(&content) || reply.status == 404 || !reply.complete, "wrong bytes with a clean end");
}

#[test]
fn pins_are_listed_survive_a_restart_and_gc_never_takes_them() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let kept = Source::new(&sources, "kept-1.0.bin", &noise(1, 300_000));
    let loose = Source::new(&sources, "loose-1.0.bin", &noise(2, 300_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("kept", "http://127.0.0.1:1", &kept);
    repo.add_plain("loose", "http://127.0.0.1:1", &loose);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&sources);
    node.does(&["pin", "add", "app-misc/kept"]);
    let listed = node.json(&["pin", "list"]);
    assert_eq!(listed["pins"][0]["target"], "app-misc/kept", "{listed}");
    assert_eq!(listed["pins"][0]["held_bytes"], 300_000, "{listed}");
    assert_eq!(node.verb(&["pin", "add", "app-misc/nothing"]).status.code(), NO);

    let pretended = node.json(&["gc", "--pretend", "--size", "1 B"]);
    assert_eq!(node.number("blobs"), 2, "only pretended");
    assert_eq!(pretended["pinned_bytes"], 300_000, "{pretended}");
    let node = node.kill().start();
    let done = node.json(&["gc", "--size", "1 B"]);
    assert_eq!(done["removed"], pretended["removed"], "what was pretended is what is done");
    assert!(node.get(&kept.sums.path()).is(&kept.content()), "the pin survived the restart");
    node.must_verify();
    node.does(&["pin", "remove", "app-misc/kept"]);
    assert_eq!(node.json(&["pin", "list"])["pins"].as_array().map(Vec::len), Some(0));
    assert_eq!(node.verb(&["pin", "remove", "app-misc/kept"]).status.code(), NO);
}

/// Every file under a directory with its bytes.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        if entry.path().is_dir() {
            files.extend(snapshot(&entry.path()));
        } else {
            files.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[test]
fn setup_shows_writes_and_takes_back_its_lines_to_the_byte() {
    let before: [&[u8]; 4] = [
        b"CFLAGS=\"-O2\"\nGENTOO_MIRRORS=\"https://one.example.invalid/ \\\n    https://two.example.invalid/\"\n\n# end",
        b"",
        b"# no mirrors here\r\nMAKEOPTS=\"-j4\"\r\n",
        b"GENTOO_MIRRORS='http://a.example.invalid'  # mine\nGENTOO_MIRRORS=\"${GENTOO_MIRRORS} http://b.example.invalid\"\nUSE=\"\xc3\xa9\"",
    ];
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    for (number, make_conf) in before.into_iter().enumerate() {
        let root = dir.path().join(format!("machine{number}"));
        let etc = root.join("etc/portage");
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("make.conf"), make_conf).unwrap();
        if number == 1 {
            fs::write(etc.join("mirrors"), "shelf\thttp://shelf.example.invalid\n").unwrap();
        }
        let was = snapshot(&root);
        let flags = ["--config-root", root.to_str().unwrap(), "--http", "127.0.0.1:0"];
        let words = |more: &[&'static str]| [&["setup"], more, &flags[..]].concat();

        assert!(node.does(&words(&["--pretend"])).contains(&node.url()), "it shows the address");
        assert_eq!(snapshot(&root), was, "only shown");
        assert_eq!(node.verb(&words(&[])).status.code(), USAGE, "nobody is there to say yes");
        assert_eq!(snapshot(&root), was, "nobody said yes");
        node.does(&words(&["--yes"]));
        assert_eq!(mirrors_of(&etc).first(), Some(&node.url()), "make.conf {number}: first of all");
        let own = number == 0;
        assert!(!own || mirrors_of(&etc).contains(&"https://two.example.invalid/".to_owned()), "the user's own stay");
        assert!(fs::read_to_string(etc.join("mirrors")).unwrap().contains(&node.url()), "local, for RESTRICT=fetch");
        let once = snapshot(&root);
        node.does(&words(&["--yes"]));
        assert_eq!(snapshot(&root), once, "once is enough");
        node.does(&words(&["--undo", "--yes"]));
        assert_eq!(snapshot(&root), was, "make.conf {number} is as it was");
        node.does(&words(&["--undo", "--yes"]));
        assert_eq!(snapshot(&root), was, "there is nothing more to undo");
    }
}

/// What bash, which Portage's syntax is a part of, makes of `GENTOO_MIRRORS`.
fn mirrors_of(etc: &Path) -> Vec<String> {
    let script = "set -e; source <(tr -d '\\r' <\"$1\"); echo \"$GENTOO_MIRRORS\"";
    let output = wait::run(Command::new("bash").args(["-c", script, "bash"]).arg(etc.join("make.conf")));
    assert!(output.status.success(), "{}", both(&output));
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn doctor_finds_no_fault_with_a_machine_in_order_and_names_the_mend_for_another() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    let root = dir.path().join("machine");
    let etc = root.join("etc/portage");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("make.conf"), format!("GENTOO_MIRRORS=\"{}\"\n", node.url())).unwrap();
    let flags =
        ["--config-root", root.to_str().unwrap(), "--http", "127.0.0.1:0", "--repo", repo.dir.to_str().unwrap()];
    let healthy = node.verb(&[&["doctor"], &flags[..]].concat());
    assert_eq!(healthy.status.code(), DONE, "{}", both(&healthy));
    let checks = node.json(&[&["doctor"], &flags[..]].concat());
    assert!(checks.to_string().contains("ok"), "{checks}");
    for (name, found) in
        [("sandbox", "a trial"), ("sandbox", "layers"), ("daemon user", "open files"), ("builds", "Portage")]
    {
        let about = |check: &&Value| check["name"] == name && check["finding"].as_str().unwrap().contains(found);
        assert!(checks["checks"].as_array().unwrap().iter().any(|check| about(&check)), "{found}: {checks}");
    }

    let (_, _again) = node.terminate();
    let control = dir.path().join("node/control.sock");
    let words = [&["doctor", "--control", control.to_str().unwrap()], &flags[..]].concat();
    let sick = peer(dir.path(), &words);
    assert_eq!(sick.status.code(), NO, "{}", both(&sick));
    assert!(String::from_utf8_lossy(&sick.stdout).contains("mend"), "{}", both(&sick));
}

#[test]
fn standard_output_of_json_verbs_is_json_only_and_quiet_says_nothing() {
    let dir = tempdir().unwrap();
    let sources = dir.path().join("sources");
    let source = Source::new(&sources, "talk-1.0.bin", &noise(1, 5_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    for verb in [
        vec!["import", sources.to_str().unwrap()],
        vec!["status"],
        vec!["fetch", "talk-1.0.bin"],
        vec!["pin", "add", "talk-1.0.bin"],
        vec!["pin", "list"],
        vec!["gc"],
        vec!["verify"],
        vec!["peers"],
    ] {
        let mut words = verb.clone();
        words.extend(["--json", "--quiet"]);
        let output = node.verb(&words);
        assert_eq!(output.status.code(), DONE, "{words:?}: {}", both(&output));
        assert!(output.stderr.is_empty(), "{words:?}: {}", both(&output));
        assert!(!lines(&String::from_utf8(output.stdout).unwrap()).is_empty(), "{words:?}");
    }
}
