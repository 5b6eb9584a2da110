//! Canaries: secrets in the configuration and in the environment of a machine, looked for everywhere at the one that
//! builds for it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::builder::Builder;
use crate::members::enrol;
use crate::peer::TestPeer;
use crate::wait;
use crate::workshop::{Request, SLOW, Workshop, came_from, held_at};

/// What every canary begins with. Letters that no digest and no text has in this order, so that compression leaves
/// them as they are.
const CANARY: &str = "qZxWvKjYgQpXzHkJ";
/// What is no secret and must arrive: were it not found, nothing would have been looked at.
const MARKER: &str = "jQzXkVwYhGqKpZxJ";
const PIECE: usize = 512;

/// Puts secrets wherever users keep them, and what must arrive.
fn plant(machine: &Builder) -> usize {
    let mut count = 0;
    let mut canary = || {
        count += 1;
        format!("{CANARY}{count:02}")
    };
    let etc = machine.dir.join("root/etc/portage");
    machine.etc(
        "repos.conf/there.conf",
        &format!(
            "# {}\n[there]\nlocation = {}\nsync-uri = https://me:{}@example.invalid/r.git\n\
                 sync-type = git\nsync-git-env = TOKEN={}\nauto-sync = no\n",
            canary(),
            machine.dir.join("there").display(),
            canary(),
            canary()
        ),
    );
    fs::create_dir_all(machine.dir.join("there/profiles")).unwrap();
    fs::create_dir_all(machine.dir.join("there/metadata")).unwrap();
    fs::write(machine.dir.join("there/profiles/repo_name"), "there\n").unwrap();
    fs::write(machine.dir.join("there/metadata/layout.conf"), "masters = main\n").unwrap();
    machine.etc("binrepos.conf/there.conf", &format!("[there]\nsync-uri = https://me:{}@example.invalid/\n", canary()));
    machine.etc("gnupg/private-keys-v1.d/key", &canary());
    machine.etc(
        "make.conf",
        &format!(
            "# {}\nGENTOO_MIRRORS=\"\"\nCFLAGS=\"-O2 -pipe\"\nCXXFLAGS=\"${{CFLAGS}}\"\nGITHUB_TOKEN=\"{}\"\nMY_PASSWORD='{}'\n\
             FETCHCOMMAND=\"wget --header=Authorization:{} -O \\\"\\${{DISTDIR}}/\\${{FILE}}\\\" \\\"\\${{URI}}\\\"\"\n\
             PORTAGE_BINHOST=\"https://me:{}@example.invalid/\"\nhttp_proxy=\"http://me:{}@127.0.0.1:1\"\nPORTAGE_GPG_KEY=\"{}\"\n\
             ANYTHING=\"{}\"\n",
            canary(), canary(), canary(), canary(), canary(), canary(), canary(), canary()
        ),
    );
    machine.etc("package.env", &format!("# {}\napp-misc/slow slow # {}\n", canary(), canary()));
    machine.etc(
        "env/slow",
        &format!(
            "# {}\nEXTRA_ECONF=\"--with-{MARKER}-env\"\nGITHUB_TOKEN=\"{}\"\nAPI_KEY=\"{}\"\nOTHER=\"{}\"\n",
            canary(),
            canary(),
            canary(),
            canary()
        ),
    );
    machine.etc("env/unused", &format!("EXTRA_ECONF=\"{}\"\n", canary()));
    machine.etc("env/app-misc/other", &format!("export TOKEN={}\n", canary()));
    machine.etc("package.use/mine", &format!("# {}\napp-misc/slow debug # {}\n", canary(), canary()));
    machine.etc("package.use/.hidden", &format!("app-misc/slow {}\n", canary()));
    machine.etc("package.use/mine~", &format!("app-misc/slow {}\n", canary()));
    machine.etc("package.accept_keywords", &format!("# {}\n", canary()));
    machine.etc("package.license", &format!("# {}\napp-misc/slow Example\n", canary()));
    machine.etc("sets/mine", &format!("# {}\napp-misc/slow\n", canary()));
    machine.etc(
        "patches/app-misc/slow/marker.patch",
        &format!("--- /dev/null\n+++ b/marker\n@@ -0,0 +1 @@\n+{MARKER}-patch\n"),
    );
    for stray in [
        "notes.txt",
        "make.conf.bak",
        ".git/config",
        "make.conf.d/token",
        "savedconfig/app-misc/other",
        "postsync.d/push",
    ] {
        machine.etc(stray, &canary());
    }
    let outside = machine.dir.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), canary()).unwrap();
    fs::create_dir_all(etc.join("patches/app-misc/other")).unwrap();
    for link in ["sets/leak", "patches/app-misc/other/leak.patch", "package.mask"] {
        // Portage reads a link to a comment as an empty list.
        fs::write(outside.join("comment"), format!("# {}\n", canary())).unwrap();
        let to = if link == "package.mask" { outside.join("comment") } else { outside.join("secret") };
        std::os::unix::fs::symlink(to, etc.join(link)).unwrap();
    }
    count
}

/// How often these bytes are in a file or below a directory, and where first.
fn found_below(path: &Path, needle: &str, found: &mut Vec<String>) {
    let Ok(data) = fs::symlink_metadata(path) else { return };
    if data.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(needle) {
                found.push(entry.path().display().to_string());
            }
            found_below(&entry.path(), needle, found);
        }
    } else if data.is_file() {
        let mut bytes = Vec::new();
        // A file that goes away meanwhile, such as a log of the database, had its turn.
        let _read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        found.extend(excerpts(&bytes, needle).into_iter().map(|text| format!("{}: {text}", path.display())));
    }
}

/// Where the needle is in these bytes, with what is around it.
fn excerpts(bytes: &[u8], needle: &str) -> Vec<String> {
    let needle = needle.as_bytes();
    let mut found = Vec::new();
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        // Most memory is empty, and this looks at many bytes at once.
        if !piece.contains(&needle[0]) {
            continue;
        }
        for (at, _) in piece.iter().enumerate().filter(|(_, byte)| **byte == needle[0]) {
            let at = number * PIECE + at;
            if bytes[at..].starts_with(needle) {
                let around = &bytes[at.saturating_sub(40)..bytes.len().min(at + 40)];
                found.push(String::from_utf8_lossy(around).into_owned());
            }
        }
    }
    found.truncate(5);
    found
}

/// A process and all that it started, and they.
fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit(')').next().unwrap_or_default();
        if let Some(parent) = after.split_whitespace().nth(1).and_then(|word| word.parse::<u32>().ok()) {
            parents.push((id, parent));
        }
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    all
}

/// Where in the readable memory, environment or command line of a process the needle is.
fn found_in_process(id: u32, needle: &str) -> Vec<String> {
    let read = |name: &str| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
    let mut found: Vec<String> = ["environ", "cmdline"]
        .iter()
        .flat_map(|name| excerpts(&read(name), needle))
        .map(|text| format!("{id}: {text}"))
        .collect();
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
    let Ok(memory) = File::open(format!("/proc/{id}/mem")) else { return found };
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { continue };
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut at = from;
        let mut bytes = vec![0; 1 << 20];
        while at < to {
            let length = bytes.len().min(usize::try_from(to - at).unwrap());
            // What is not there is no place for a secret. The overlap is for one that lies across two pieces.
            if memory.read_exact_at(&mut bytes[..length], at).is_ok() {
                found.extend(excerpts(&bytes[..length], needle).into_iter().map(|text| format!("{id} {line}: {text}")));
            }
            at += length.saturating_sub(64).max(64) as u64;
        }
    }
    found
}

/// Everything that is at a node: what it keeps, what it says, and what its processes have in their memory.
fn found_at(machine: &Builder, node: &TestPeer, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    found_below(&node.store_dir(), needle, &mut found);
    found_below(&machine.dir.join("log"), needle, &mut found);
    for id in family(node.pid()) {
        found.extend(found_in_process(id, needle));
    }
    found
}

#[test]
fn no_secret_of_the_configuration_or_the_environment_reaches_the_builder() {
    let workshop = Workshop::new();
    let (at_weak, at_strong) = (workshop.machine("weak"), workshop.machine("strong"));
    let planted = plant(&at_weak);
    let mut outside = Vec::new();
    found_below(&at_weak.dir.join("root"), CANARY, &mut outside);
    assert!(outside.len() >= 20 && planted >= 30, "the secrets are where they were put: {outside:?}");
    let strong = workshop.start(&at_strong, "").start();
    let secret = |name: &str| format!("{name}={CANARY}-{name}");
    let environment = ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "EXTRA_ECONF", "ANYTHING"].map(secret);
    let words: Vec<&str> = ["env"].into_iter().chain(environment.iter().map(String::as_str)).collect();
    let weak = workshop.start(&at_weak, "").through(&words).start();
    assert!(!found_in_process(weak.pid(), CANARY).is_empty(), "the client's daemon has the secrets");
    enrol(&strong, &weak, "build");

    workshop.hold();
    let request = Request::new(&weak, &["app-misc/slow", "--on", "strong"]);
    held_at(&strong);
    // What must arrive is found, in what is kept and in what runs; so the search finds what is there.
    let family = family(strong.pid());
    assert!(family.len() > 3, "the build runs: {family:?}");
    let arrived = found_at(&at_strong, &strong, MARKER);
    assert!(arrived.iter().any(|line| line.contains("patch")), "{arrived:?}");
    assert!(family[1..].iter().any(|id| !found_in_process(*id, &format!("{MARKER}-env")).is_empty()), "{arrived:?}");

    assert_eq!(found_at(&at_strong, &strong, CANARY), Vec::<String>::new());
    workshop.go_on();
    request.does();
    came_from(&weak, SLOW, &strong);
    assert_eq!(found_at(&at_strong, &strong, CANARY), Vec::<String>::new());
    // Nor in what only the disk remembers: the database writes what it has in memory when it ends.
    let (status, _start) = strong.terminate();
    assert!(status.is_some_and(|status| status.success()));
    let mut left = Vec::new();
    found_below(&at_strong.dir, CANARY, &mut left);
    assert_eq!(left, Vec::<String>::new());
    let compressed = wait::run(Command::new("sh").args(["-c", "find \"$1\" -type f -exec sh -c 'zstd -dcqf -- \"$1\" 2>/dev/null || xz -dcqf -- \"$1\" 2>/dev/null || gzip -dcqf -- \"$1\" 2>/dev/null || :' sh {} \\; | grep -aoc \"$2\"", "sh"]).arg(&at_strong.dir).arg(CANARY));
    assert_eq!(String::from_utf8_lossy(&compressed.stdout).trim(), "0");
}
