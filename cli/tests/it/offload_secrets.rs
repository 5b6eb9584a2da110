//! Canaries: secrets in the configuration and in the environment of a machine, looked for everywhere at the one that
//! builds for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::builder::{Builder, jobs};
use crate::canaries::{family, found_at, found_below, found_in_process};
use crate::members::enrol;
use crate::peer::both;
use crate::wait;
use crate::workshop::{Request, SLOW, Workshop, came_from, held_at};

/// What every canary begins with. Letters that no digest and no text has in this order, so that compression leaves
/// them as they are.
const CANARY: &str = "qZxWvKjYgQpXzHkJ";
/// What is no secret and must arrive: were it not found, nothing would have been looked at.
const MARKER: &str = "jQzXkVwYhGqKpZxJ";

/// Puts secrets wherever users keep them, and what must arrive.
fn plant(machine: &Builder) -> usize {
    let mut count = 0;
    let mut canary = || {
        count += 1;
        format!("{CANARY}{count:02}")
    };
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
    count
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

#[test]
fn what_links_lead_to_is_given_as_far_as_portage_reads_it_and_nothing_else_of_it() {
    let workshop = Workshop::new();
    let [(at_weak, weak), (at_strong, strong)] = workshop.pair();
    let (etc, outside) = (at_weak.dir.join("root/etc/portage"), at_weak.dir.join("outside"));
    fs::create_dir_all(outside.join("folder")).unwrap();
    for file in ["secret", "folder/secret.conf", "folder/secret"] {
        fs::write(outside.join(file), format!("# {CANARY}\n{CANARY}\n{CANARY}=\"{CANARY}\"\n")).unwrap();
    }
    at_weak.etc("package.env", "app-misc/other leak\n");
    for (link, to) in [
        ("sets/leak", "secret"),
        ("sets", "folder"),
        ("package.use", "folder"),
        ("package.mask", "secret"),
        ("package.provided", "secret"),
        ("patches/app-misc/other/leak", "folder/secret"),
        ("patches/app-misc/other", "folder"),
        ("patches", "folder"),
        ("env/leak", "secret"),
        ("env", "folder"),
        ("profile", "folder"),
        ("profile/package.use", "secret"),
        ("bashrc", "secret"),
        ("gnupg", "folder"),
        ("binrepos.conf", "secret"),
        ("unknown", "secret"),
    ] {
        let path = etc.join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(outside.join(to), &path).unwrap();
        // Built there without what is secret or not at all.
        let output = weak.verb(&["build", "app-misc/mine", "--on", "strong"]);
        let said = both(&output);
        assert_eq!(found_at(&at_strong, &strong, CANARY), Vec::<String>::new(), "{link}: {said}");
        fs::remove_file(&path).unwrap();
        let made = path.ancestors().skip(1).take_while(|folder| *folder != etc);
        made.for_each(|folder| fs::remove_dir(folder).unwrap());
    }
    // What Portage reads goes along: it is the recipe's.
    fs::write(outside.join("flags.conf"), format!("CFLAGS=\"-O1 -DLINKED\"\nGITHUB_TOKEN=\"{CANARY}\"\n")).unwrap();
    fs::create_dir_all(etc.join("env")).unwrap();
    symlink(outside.join("flags.conf"), etc.join("env/flags.conf")).unwrap();
    at_weak.etc("package.env", "app-misc/mine flags.conf\n");
    weak.does(&["build", "app-misc/mine", "--on", "strong"]);
    assert!(!found_at(&at_strong, &strong, "-DLINKED").is_empty());
    assert_eq!(found_at(&at_strong, &strong, CANARY), Vec::<String>::new());
    assert!(jobs(&strong).iter().all(|job| job["state"] == "done"));
}
