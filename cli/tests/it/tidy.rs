//! The shape of the workspace, held by a test: who may depend on whom, how long a room may be, and what is not written
//! anywhere. The rules and their reasons are in `docs/ARCHITECTURE.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::gentoo::checkout;

/// Each crate, the crates of this workspace below it, and the foreign ones it may hold.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    ("tree", &[], &["blake2b_simd", "cid", "md-5", "multihash", "object", "ruzstd", "sha2", "tar", "thiserror"]),
    ("store", &["tree"], &["rocksdb", "rustix", "thiserror", "tracing"]),
    (
        "mirrors",
        &["tree"],
        &["bytes", "futures", "httpdate", "percent-encoding", "reqwest", "thiserror", "tokio", "tracing", "url"],
    ),
    ("sandbox", &["tree"], &["command-fds", "rustix", "thiserror", "tokio", "tracing"]),
    (
        "daemon",
        &["tree", "store", "mirrors", "sandbox"],
        &[
            "askama",
            "axum",
            "bytes",
            "ed25519-dalek",
            "flate2",
            "futures",
            "futures-rustls",
            "http-body-util",
            "httpdate",
            "hyper",
            "hyper-util",
            "libp2p",
            "md-5",
            "percent-encoding",
            "pgp",
            "prometheus-client",
            "rand",
            "rustix",
            "rustls",
            "sd-notify",
            "serde",
            "serde_bytes",
            "serde_ipld_dagcbor",
            "serde_json",
            "sha1",
            "thiserror",
            "tokio",
            "tokio-util",
            "toml",
            "tower",
            "tracing",
            "url",
            "utoipa",
        ],
    ),
    (
        "cli",
        &["tree", "daemon"],
        &[
            "anyhow",
            "clap",
            "clap_complete",
            "clap_mangen",
            "http-body-util",
            "hyper",
            "hyper-util",
            "indicatif",
            "qrcodegen",
            "rustix",
            "serde",
            "serde_json",
            "thiserror",
            "tikv-jemallocator",
            "tokio",
            "tracing",
            "tracing-subscriber",
        ],
    ),
];

/// What any crate's tests may use besides.
const FOR_TESTS: &[&str] = &["insta", "proptest", "tempfile", "futures", "tar", "tokio"];

/// The files where a call is lawful that `clippy.toml` forbids elsewhere.
const LAWFUL_SITES: &[&str] = &[
    "cli/src/deliver.rs",
    "cli/src/main.rs",
    "daemon/src/blocking.rs",
    "daemon/src/http/date.rs",
    "daemon/src/panics.rs",
    "daemon/src/tasks.rs",
    "sandbox/examples/start.rs",
    "sandbox/src/spawn.rs",
    "store/src/atomic.rs",
    "store/src/disk.rs",
];

/// Words that name no idea.
const BANNED_WORDS: &[&str] =
    &["manager", "service", "handler", "helper", "helpers", "util", "utils", "common", "misc", "info", "process"];

/// Lines of code in a room, without blank lines, comments and its own tests.
const LINES_MAX: usize = 400;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All files of the checkout that could be committed, by their path in it.
fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![checkout()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("the checkout can be read").map_while(Result::ok) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !matches!(name.as_str(), ".git" | "target" | "corpus" | "artifacts") {
                    open.push(path);
                }
            } else {
                let short = path.strip_prefix(checkout()).expect("it lies in the checkout").display().to_string();
                found.push((short, path));
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|(short, _)| {
            short.ends_with(".rs") && CRATES.iter().any(|(name, ..)| short.starts_with(&format!("{name}/")))
        })
        .map(|(short, path)| (short, read(&path)))
        .collect()
}

/// The names under a `[section]` of a Cargo.toml.
fn names(manifest: &str, section: &str) -> Vec<String> {
    let header = format!("[{section}]");
    manifest
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_crate_depends_only_on_those_below_it_and_holds_only_its_own_foreign_crates() {
    let mut wrong = Vec::new();
    for (name, below, foreign) in CRATES {
        let manifest = read(&checkout().join(name).join("Cargo.toml"));
        for dependency in names(&manifest, "dependencies") {
            if !below.contains(&dependency.as_str()) && !foreign.contains(&dependency.as_str()) {
                wrong.push(format!("{name} may not use {dependency}: see the crate graph in docs/ARCHITECTURE.md"));
            }
        }
        for dependency in names(&manifest, "dev-dependencies") {
            let known = [*below, *foreign, FOR_TESTS].iter().any(|list| list.contains(&dependency.as_str()));
            if !known {
                wrong.push(format!("the tests of {name} may not use {dependency}"));
            }
        }
        for section in ["build-dependencies", "features"] {
            if !names(&manifest, section).is_empty() {
                wrong.push(format!("{name} has [{section}], which nobody has decided on"));
            }
        }
        for line in ["version.workspace = true", "publish.workspace = true", "[lints]\nworkspace = true"] {
            if !manifest.contains(line) {
                wrong.push(format!("{name}/Cargo.toml has no line {line:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_workspace_has_exactly_these_crates() {
    let manifest = read(&checkout().join("Cargo.toml"));
    let line = manifest.lines().find(|line| line.starts_with("members")).expect("there are members");
    let mut members: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    members.sort_unstable();
    let mut crates: Vec<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    crates.sort_unstable();
    assert_eq!(members, crates);
}

#[test]
fn every_room_says_first_what_it_is_for() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 10))
        .map(|(short, _)| short)
        .collect();
    assert!(silent.is_empty(), "no `//!` on the first line: {silent:?}");
}

/// The lines that count towards a room's length.
fn code_lines(text: &str) -> usize {
    let own_tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..own_tests].lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn no_room_is_too_long_to_read_at_once() {
    let rooms = rust_files();
    let texts: BTreeMap<&str, &str> = rooms.iter().map(|(short, text)| (short.as_str(), text.as_str())).collect();
    let only_for_tests = |short: &str| {
        let (dir, file) = short.rsplit_once('/').expect("a room lies in a crate");
        let stem = file.trim_end_matches(".rs");
        let parents = [format!("{dir}/mod.rs"), format!("{dir}/lib.rs"), format!("{dir}.rs")];
        let declared = |text: &&str| text.contains(&format!("#[cfg(test)]\nmod {stem};"));
        parents.iter().filter_map(|parent| texts.get(parent.as_str())).any(declared)
    };
    let long: Vec<String> = rooms
        .iter()
        .filter(|(short, _)| !only_for_tests(short))
        .map(|(short, text)| (code_lines(text), short))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, short)| format!("{short}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines of code: {long:?}");
}

#[test]
fn no_room_is_named_with_a_word_that_names_no_idea() {
    let vague: Vec<String> = files()
        .into_iter()
        .map(|(short, _)| short)
        .filter(|short| {
            let stem = Path::new(short).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            let rust = short.ends_with(".rs");
            rust && stem.split(['_', '-', '.']).any(|word| BANNED_WORDS.contains(&word))
        })
        .collect();
    assert!(vague.is_empty(), "{vague:?}");
}

#[test]
fn forbidden_calls_are_excused_only_where_they_are_lawful() {
    let mut wrong = Vec::new();
    for (short, text) in rust_files() {
        let is_test = short.contains("/tests/") || short.contains("/benches/");
        let own_tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        if !is_test
            && text[..own_tests].contains("clippy::disallowed_methods")
            && !LAWFUL_SITES.contains(&short.as_str())
        {
            wrong.push(format!("{short} excuses a call that clippy.toml forbids there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later_and_no_test_sleeps_or_is_switched_off() {
    // Spelt in pieces, so that this file does not find itself.
    let everywhere =
        [["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"], ["should_", "panic"], ["todo", "!("], ["unimple", "mented!("]];
    let in_tests = [["thread::", "sleep"], ["time::", "sleep("]];
    let mut wrong = Vec::new();
    for (short, text) in rust_files() {
        let mut look = |words: &[[&str; 2]], text: &str| {
            for word in words.iter().map(|pieces| pieces.concat()).filter(|word| text.contains(word)) {
                wrong.push(format!("{short}: {word}"));
            }
        };
        look(&everywhere, &text);
        if short.contains("/tests/") {
            look(&in_tests, &text);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_names_a_place_of_the_machine_it_was_written_on() {
    let places = [
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["~/.car", "go"],
        ["index.cra", "tes.io"],
        ["static.cra", "tes.io"],
        ["registry.npm", "js.org"],
        ["files.python", "hosted.org"],
        ["pypi", ".org"],
        ["proxy.gol", "ang.org"],
        ["deb.deb", "ian.org"],
    ];
    let mut wrong = Vec::new();
    for (short, path) in files() {
        if short == "Cargo.lock" {
            continue;
        }
        // What is not text has no paths to read in it.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for place in places.iter().map(|pieces| pieces.concat()) {
            let named = text.match_indices(&place).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(|character| character.is_alphanumeric() || "._-/}".contains(character))
            });
            if named {
                wrong.push(format!("{short}: {place}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scripts_at_the_root_can_be_run() {
    for script in ["run", "test", ".ci/run", "examples/portage", "examples/distfiles", "examples/make"] {
        let mode = fs::metadata(checkout().join(script)).expect(script).permissions();
        assert!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111 != 0, "{script} is executable");
    }
    assert!(read(&checkout().join(".ci/run")).contains("/../test"), "the two run the same");
}
