//! A `kill -9` at any moment loses nothing that was acknowledged.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use store::{IncomingError, Store};
use tempfile::TempDir;
use tree::digest::Digest;

use crate::stage::{options, scratch, verify, wanted};

/// Says to the test binary that it is the process to be killed, and where its store is.
const VICTIM: &str = "STORE_TEST_VICTIM";

/// Blobs that are ingested in all while processes are killed.
const INGESTS: u32 = 200;

fn nth_blob(number: u32) -> Vec<u8> {
    let size = 1 + usize::try_from(number % 7).unwrap() * 9000;
    number.to_le_bytes().iter().copied().cycle().take(size).collect()
}

/// Ingests from a number on and says after each what it has; is killed at some moment.
#[expect(clippy::print_stdout, reason = "the process to be killed says how far it came")]
fn ingest_until_killed(dir: &Path, first: u32) {
    let store = Store::open(dir, options()).expect("the store opens after a kill");
    for number in first..INGESTS {
        let bytes = nth_blob(number);
        match store.incoming(&wanted(&bytes)) {
            Err(IncomingError::AlreadyHeld(_)) => {}
            incoming => {
                let mut incoming = incoming.expect("an incoming begins");
                let len = usize::try_from(incoming.len()).expect("a small partial");
                for piece in bytes[len..].chunks(4000) {
                    incoming.append(piece).expect("bytes are taken");
                }
                drop(incoming.finish().expect("the bytes are right"));
            }
        }
        println!("\nheld {number}");
        io::stdout().flush().expect("the test reads");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the process to be killed is this test again")]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    if let Ok(victim) = std::env::var(VICTIM) {
        let (first, dir) = victim.split_once(' ').expect("a number and a directory");
        return ingest_until_killed(Path::new(dir), first.parse().expect("a number"));
    }
    let dir = scratch();
    let (mut next, mut round, mut kills) = (0, 0_u32, 0);
    while next < INGESTS {
        round += 1;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_kill_at_any_moment_loses_nothing_that_was_acknowledged", "--nocapture"])
            .env(VICTIM, format!("{next} {}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // After some acknowledgements and a little more, which differs from round to round.
        let lives = 1 + round.wrapping_mul(2_654_435_761) % 17;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let held = lines.by_ref().filter_map(|line| line.strip_prefix("held ")?.parse::<u32>().ok());
        let last = held.take(usize::try_from(lives).unwrap()).last();
        for _ in 0..round.wrapping_mul(40_503) % 2_000_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
        // What it said while it was being killed counts too.
        let late = lines.filter_map(|line| line.strip_prefix("held ")?.parse::<u32>().ok()).last();
        let acknowledged = late.or(last).map_or(next, |last| last + 1);
        assert!(acknowledged > next, "round {round} got nowhere");
        next = acknowledged;
        check_after_kill(&dir, next, round);
    }
    assert!(kills >= 10, "only {kills} were killed before their end");
}

fn check_after_kill(dir: &TempDir, acknowledged: u32, round: u32) {
    let store = Store::open(dir.path(), options()).unwrap();
    for number in 0..acknowledged {
        assert!(store.contains(&Digest::of(&nth_blob(number))), "round {round}: blob {number} was acknowledged");
    }
    let report = verify(&store);
    assert!(report.is_sound() && report.adopted.is_empty(), "round {round}: {report:?}");
    assert!(report.checked <= u64::from(acknowledged) + 1);
    assert_eq!(store.stats().blobs, report.checked);
}
