//! Two machines on one local network, with all defaults: they find each other by multicast DNS and feed each other, and
//! nobody named anybody. The machines are network namespaces of this test's own.

use std::process::Command;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::noise::noise;
use crate::peer::Start;
use crate::wait;

/// Two namespaces joined by one cable; gone when dropped.
struct Lan {
    machines: [String; 2],
}

impl Lan {
    /// None where this system lets the test make none.
    fn new() -> Option<Self> {
        let machines = [1, 2].map(|number| format!("peerage-{}-{number}", std::process::id()));
        let lan = Self { machines };
        let [one, two] = &lan.machines;
        let made = ip(&["netns", "add", one])
            && ip(&["netns", "add", two])
            && ip(&["link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", two]);
        let up = lan.machines.iter().zip(["10.77.0.1/24", "10.77.0.2/24"]).all(|(machine, address)| {
            ip(&["-n", machine, "addr", "add", address, "dev", "cable"])
                && ip(&["-n", machine, "link", "set", "lo", "up"])
                && ip(&["-n", machine, "link", "set", "cable", "up"])
        });
        (made && up).then_some(lan)
    }

    fn inside(&self, machine: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.machines[machine]]
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in &self.machines {
            // One that was never made is gone already.
            let _gone = ip(&["netns", "del", machine]);
        }
    }
}

fn ip(words: &[&str]) -> bool {
    wait::run(Command::new("ip").args(words)).status.success()
}

#[test]
fn two_machines_with_all_defaults_find_each_other_and_one_gets_what_the_other_has() {
    let Some(lan) = crate::upstream::is_root().then(Lan::new).flatten() else {
        eprintln!("skipped: network namespaces need root, and a system that lets it make them");
        return;
    };
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let source = Source::new(&dir.path().join("sources"), "near-1.0.bin", &noise(1, 300_000));
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let [one, two] = [0, 1].map(|machine| {
        let start = Start::new(&dir.path().join(format!("node{machine}"))).repo(&repo);
        start.through(&lan.inside(machine)).with_default_swarm().start()
    });
    one.wait_for_peers(1);
    two.wait_for_peers(1);
    one.import(&source.path);
    wait::until("the news of what the other one has", || {
        (two.json(&["peers"])["peers"][0]["holdings"] == 1).then_some(())
    });
    let said = two.does(&["fetch", "near-1.0.bin"]);
    assert!(said.starts_with("peer near-1.0.bin "), "{said}");
    let peers = two.json(&["peers"]);
    assert_eq!(peers["peers"][0]["lan"], true, "{peers}");
    two.must_verify();
}
