//! `Network`: machines joined by a bridge, each a network namespace with an address of its own. A cable can be cut and
//! mended; several daemons may run on one machine, and then share its address.

use std::process::{Command, Output};

use crate::peer::{Start, both};
use crate::wait;

/// The name of every machine's end of its cable.
const CABLE: &str = "cable";
const BRIDGE: &str = "bridge";
/// Where a daemon listens by default. It is free: the machine is the test's own.
const PORT: &str = "8421";

/// Machines 0 to N-1, and a switch; gone when dropped.
pub(crate) struct Network {
    machines: Vec<String>,
    switch: String,
}

impl Network {
    /// None, and a word about it, where this system lets the test make none.
    pub(crate) fn of(count: usize) -> Option<Self> {
        let network = crate::upstream::is_root().then(|| Self::try_new(count)).flatten();
        if network.is_none() {
            eprintln!("skipped: network namespaces need root, and a system that lets it make them");
        }
        network
    }

    fn try_new(count: usize) -> Option<Self> {
        let name = |what: &str| format!("peerage-{}-{what}", std::process::id());
        let network =
            Self { machines: (0..count).map(|machine| name(&machine.to_string())).collect(), switch: name("switch") };
        network.make().then_some(network)
    }

    fn make(&self) -> bool {
        let switch = &self.switch;
        ip(&["netns", "add", switch])
            && ip(&["-n", switch, "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"])
            && ip(&["-n", switch, "link", "set", BRIDGE, "up"])
            && (0..self.machines.len()).all(|machine| self.attach(machine))
    }

    fn attach(&self, machine: usize) -> bool {
        let (switch, name, port) = (self.switch.as_str(), self.machines[machine].as_str(), port(machine));
        let address = format!("{}/24", Self::address(machine));
        ip(&["netns", "add", name])
            && ip(&["link", "add", CABLE, "netns", name, "type", "veth", "peer", "name", &port, "netns", switch])
            && ip(&["-n", switch, "link", "set", &port, "master", BRIDGE, "up"])
            && ip(&["-n", name, "addr", "add", &address, "dev", CABLE])
            && ip(&["-n", name, "link", "set", "lo", "up"])
            && ip(&["-n", name, "link", "set", CABLE, "up"])
    }

    /// A machine's address, as the others see it.
    pub(crate) fn address(machine: usize) -> String {
        format!("10.77.0.{}", machine + 1)
    }

    /// The words before a command that make it run on this machine.
    pub(crate) fn inside(&self, machine: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.machines[machine]]
    }

    /// A daemon of this machine that finds its neighbours by itself.
    pub(crate) fn finding(&self, machine: usize, start: Start) -> Start {
        start.through(&self.inside(machine)).with_default_swarm().flag("--p2p", &listens(machine, PORT))
    }

    /// A daemon of this machine that looks for nobody.
    pub(crate) fn quiet(&self, machine: usize, start: Start) -> Start {
        start.through(&self.inside(machine)).at(&listens(machine, PORT))
    }

    /// One more daemon of this machine, on a port of its own choice.
    pub(crate) fn second(&self, machine: usize, start: Start) -> Start {
        start.through(&self.inside(machine)).at(&listens(machine, "0"))
    }

    /// From now on nothing passes to this machine or from it, and nobody is told.
    pub(crate) fn cut(&self, machine: usize) {
        assert!(ip(&["-n", &self.switch, "link", "set", &port(machine), "nomaster"]), "the cable can be cut");
    }

    /// It is as it was before.
    pub(crate) fn mend(&self, machine: usize) {
        assert!(ip(&["-n", &self.switch, "link", "set", &port(machine), "master", BRIDGE]), "it can be mended");
    }

    /// How fast this machine's cable is from now on, in Mbit/s in the direction to the machine.
    pub(crate) fn slow(&self, machine: usize, rate: u32) -> bool {
        let rate = format!("{rate}mbit");
        let (switch, port) = (self.switch.as_str(), port(machine));
        let words = ["-n", switch, "qdisc", "replace", "dev", &port, "root", "tbf", "rate", &rate];
        let limits = ["burst", "16kb", "latency", "400ms"];
        wait::run(Command::new("tc").args(words).args(limits)).status.success()
    }

    /// Runs a program on this machine.
    pub(crate) fn run(&self, machine: usize, words: &[&str]) -> Output {
        let [program, before @ ..] = self.inside(machine);
        wait::run(Command::new(program).args(before).args(words))
    }

    /// What a HTTP server of this machine answers, such as its daemon.
    pub(crate) fn get(&self, machine: usize, url: &str) -> Vec<u8> {
        let output = self.run(machine, &["curl", "-sSf", "--noproxy", "*", url]);
        assert!(output.status.success(), "{url}: {}", both(&output));
        output.stdout
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.machines.iter().chain([&self.switch]) {
            // One that was never made is gone already.
            let _gone = ip(&["netns", "del", name]);
        }
    }
}

/// The switch's end of a machine's cable.
fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn listens(machine: usize, port: &str) -> String {
    format!("/ip4/{}/tcp/{port}", Network::address(machine))
}

fn ip(words: &[&str]) -> bool {
    wait::run(Command::new("ip").args(words)).status.success()
}
