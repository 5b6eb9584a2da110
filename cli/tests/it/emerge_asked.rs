//! `peer emerge --ask` on a terminal, with a machine that builds for this one: one question, before anything is made; then
//! fetched, built elsewhere, merged.

use serde_json::Value;

use crate::builder::{Builder, came, jobs};
use crate::members::enrol;
use crate::peer::{TestPeer, both};
use crate::terminal::{Seen, on_terminal};
use crate::workshop::{MINE, Workshop, job_if};
use crate::wrapper::Wrapped;

const TWO: &str = "dev-libs/two-1.0";
const QUESTION: &str = "Would you like to merge these packages?";

/// A weak machine whose world is two packages, of which a strong one has one and builds the other.
struct Two {
    weak: (Builder, TestPeer),
    strong: (Builder, TestPeer),
    workshop: Workshop,
}

impl Two {
    fn new(config: &str) -> Self {
        let workshop = Workshop::new();
        let world = |machine: &Builder| machine.repo.write("profiles/base/packages", "*dev-libs/two\n*app-misc/mine\n");
        let strong = workshop.node("strong");
        world(&strong.0);
        strong.1.does(&["build", "dev-libs/two"]);
        let weak = workshop.node_with("weak", config);
        world(&weak.0);
        enrol(&strong.1, &weak.1, "build");
        Self { weak, strong, workshop }
    }

    fn emerge(&self) -> Wrapped<'_> {
        Wrapped::new(&self.weak.0, &self.weak.1)
    }

    /// Lantage's line, and an answer to the question.
    fn asked(&self, wrapped: &Wrapped<'_>, words: &[&str], answer: &str) -> Seen {
        let mut command = wrapped.command(words);
        command.env("TERM", "dumb");
        let seen = on_terminal(&command, &[(QUESTION, answer)]);
        assert_eq!(seen.said.matches(QUESTION).count(), 1, "one question: {}", seen.said);
        assert_eq!(seen.left, 0, "{}", seen.said);
        seen
    }

    /// What each of both has done and has.
    fn state(&self) -> (Vec<Value>, Vec<Value>, Value, Value) {
        let (weak, strong) = (&self.weak.1, &self.strong.1);
        (jobs(weak), jobs(strong), weak.status()["blobs"].clone(), strong.status()["blobs"].clone())
    }
}

/// Whether emerge runs, and not only a log of it is shown.
fn merges(said: &str) -> bool {
    said.lines().any(|line| line.starts_with(">>> Emerging"))
}

fn at(said: &str, words: &str) -> usize {
    said.find(words).unwrap_or_else(|| panic!("{words:?} is not in {said}"))
}

#[test]
fn lantages_line_asks_once_before_anything_is_made_and_after_yes_it_is_fetched_built_elsewhere_and_merged() {
    let machines = Two::new("[offload]\nbuilds = \"misses\"");
    let wrapped = machines.emerge();
    let seen = machines.asked(&wrapped, &["-auvDN", "@world"], "yes\n");
    let said = &seen.said;
    eprintln!("--- yes ---\n{said}\n--- exit code {:?} ---", seen.code);
    assert_eq!(seen.code, Some(0), "{said}");
    // Emerge's list, once; the weather, the question; then what was promised, then emerge's merge of just that.
    assert_eq!(said.matches("These are the packages that would be merged").count(), 1, "{said}");
    assert_eq!(said.matches("[ebuild").count() + said.matches("[binary").count(), 2, "{said}");
    let steps = [
        "[ebuild",
        "peer: 2 packages: 0 here, 1 from others, 1 to build by others, 0 to build here",
        QUESTION,
        &format!("substituted {TWO} "),
        ">>> Emerging binary",
    ];
    let places: Vec<usize> = steps.iter().map(|words| at(said, words)).collect();
    assert!(places.is_sorted(), "{places:?}: {said}");
    assert!(at(said, &format!("offloaded {MINE} ")) < at(said, ">>> Emerging binary"), "{said}");
    assert_eq!(said.matches(">>> Emerging binary").count(), 2, "{said}");
    assert!(
        !said.contains("Compiling source") && !said.contains("Emerging (1 of 2)"),
        "nothing is compiled here: {said}"
    );
    let (weak, strong) = (&machines.weak.1, &machines.strong.1);
    assert_eq!(came(weak, TWO), ("substitute".into(), strong.peer_id().into()));
    assert_eq!(came(weak, MINE), ("offload".into(), strong.peer_id().into()));
    assert!(wrapped.has("usr/bin/mine") && wrapped.has("usr/lib/libtwo.a"));

    // There is nothing to be made any more: the question is emerge's own, and it has none.
    let mut command = wrapped.command(&["-auvDN", "@world"]);
    command.env("TERM", "dumb");
    let again = on_terminal(&command, &[]);
    assert_eq!((again.code, again.said.contains("Nothing to merge")), (Some(0), true), "{}", again.said);
}

#[test]
fn after_no_nothing_was_made_or_fetched_and_the_exit_code_is_emerges() {
    let machines = Two::new("on_miss = \"sandbox\"\n[offload]\nbuilds = \"misses\"");
    let wrapped = machines.emerge();
    let before = machines.state();
    for (answer, code) in [("no\n", 130), ("\u{4}", 130), ("\u{3}", 130), ("what\nn\n", 130)] {
        let seen = machines.asked(&wrapped, &["-auvDN", "@world"], answer);
        if answer == "no\n" {
            eprintln!("--- no ---\n{}\n--- exit code {:?} ---", seen.said, seen.code);
            assert!(seen.said.contains("Quitting."), "{}", seen.said);
        }
        assert_eq!(seen.code, Some(code), "{answer:?}: {}", seen.said);
        assert_eq!(machines.state(), before, "{answer:?}: {}", seen.said);
        assert!(!wrapped.has("usr/bin/mine") && !seen.said.contains(">>> "), "{}", seen.said);
    }
    // Emerge's own exit code.
    let mut plain = wrapped.plain(&["-auvDN", "@world"]);
    plain.env("TERM", "dumb");
    let seen = on_terminal(&plain, &[(QUESTION, "no\n")]);
    assert_eq!((seen.code, seen.left), (Some(130), 0), "{}", seen.said);
    assert!(jobs(&machines.weak.1).is_empty());
}

#[test]
fn the_question_is_asked_wherever_emerge_would_ask_and_nowhere_else() {
    let machines = Two::new("[offload]\nbuilds = \"misses\"");
    let wrapped = machines.emerge();
    let before = machines.state();
    // Of the environment, in quotes, and with a tree, which cannot be unsaid.
    for (default, words) in [
        ("'--ask' --exclude \"x/y z/z\"", &["-uDN", "@world"][..]),
        ("--ask --tree", &["-uvDN", "@world"]),
        ("-a --columns", &["-uDN", "@world"]),
    ] {
        let mut command = wrapped.command(words);
        command.env("TERM", "dumb").env("EMERGE_DEFAULT_OPTS", default);
        let seen = on_terminal(&command, &[(QUESTION, "no\n")]);
        assert_eq!((seen.code, seen.left), (Some(130), 0), "{default}: {}", seen.said);
        assert_eq!(seen.said.matches(QUESTION).count(), 1, "{default}: {}", seen.said);
        assert_eq!(machines.state(), before, "{default}");
    }
    // Without a terminal emerge says that nobody can be asked.
    let mut command = wrapped.command(&["-auDN", "@world"]);
    let output = crate::wait::run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(both(&output).contains("should only be used in a terminal"), "{}", both(&output));
    assert_eq!(machines.state(), before);
    // The command line has the last word.
    let mut command = wrapped.command(&["--ask=n", "-uDNt", "dev-libs/two"]);
    command.env("TERM", "dumb").env("EMERGE_DEFAULT_OPTS", "--ask");
    let seen = on_terminal(&command, &[]);
    assert_eq!((seen.code, seen.said.contains(QUESTION)), (Some(0), false), "{}", seen.said);
    assert_eq!(came(&machines.weak.1, TWO).0, "substitute");
}

#[test]
fn on_names_the_machine_that_builds_and_emerge_does_not_build_in_its_place() {
    let machines = Two::new("");
    let wrapped = machines.emerge();
    let (weak, strong) = (&machines.weak.1, &machines.strong.1);
    let seen = machines.asked(&wrapped, &["--on", "strong", "-av", "app-misc/mine"], "y\n");
    assert_eq!(seen.code, Some(0), "{}", seen.said);
    assert!(seen.said.contains("1 to build by others"), "{}", seen.said);
    assert_eq!(came(weak, MINE), ("offload".into(), strong.peer_id().into()));
    assert!(wrapped.has("usr/bin/mine"));
    // What it does not build is not compiled here instead.
    let said = both(&wrapped.emerge(&["--oneshot", "app-misc/broken", "--on=strong"]));
    assert!(said.contains("emerge is not run") && said.contains("--on any"), "{said}");
    assert!(!merges(&said) && job_if(weak, "app-misc/broken-1.0").is_some(), "{said}");
    let said = both(&wrapped.emerge(&["--oneshot", "app-misc/large", "--on", "nobody-of-this-name"]));
    assert!(said.contains("nobody-of-this-name") && !merges(&said), "{said}");
    // Any machine, or emerge.
    let said = wrapped.does(&["app-misc/large", "--on", "any"]);
    assert!(said.contains("offloaded app-misc/large-1.0") && said.contains("Emerging binary"), "{said}");
}

#[test]
fn what_changed_after_the_answer_is_not_merged_without_another_question() {
    let machines = Two::new("[offload]\nbuilds = \"misses\"");
    let wrapped = machines.emerge();
    machines.workshop.hold();
    let machine = &machines.weak.0;
    for machine in [machine, &machines.strong.0] {
        machine.ebuild("app-misc/slow-1.0", &machines.workshop.waiting(""), &[]);
    }
    let command = wrapped.command(&["-av", "app-misc/slow"]);
    let seen = std::thread::scope(|scope| {
        let seen = scope.spawn(|| on_terminal(&command, &[(QUESTION, "yes\n"), (QUESTION, "no\n")]));
        crate::workshop::held_at(&machines.strong.1);
        // While it is built elsewhere a new version comes into the repository.
        machine.ebuild("app-misc/slow-1.1", "SLOT=\"0\"\n", &[]);
        machines.workshop.go_on();
        seen.join().unwrap()
    });
    assert_eq!((seen.code, seen.left), (Some(130), 0), "{}", seen.said);
    assert!(seen.said.contains("+app-misc/slow-1.1 -app-misc/slow-1.0"), "it says what is new: {}", seen.said);
    assert!(!wrapped.has("opt/slow/slow") && !seen.said.contains(">>> Emerging"), "{}", seen.said);
}
