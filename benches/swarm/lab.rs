//! Machines: a network namespace each, joined by a bridge in another one. No packet leaves them.

use crate::{
    janitor::{self, Janitor},
    links::Rate,
};
use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

/// Bytes that a link may send at once: the longest packet that the kernel hands down unsplit.
const BURST: &str = "64kb";
/// Longest wait in the queue of a link. At 50 Mbit/s it holds 312 KB, as home routers do.
const QUEUE: &str = "50ms";
/// Port of the relay that delays what arrives at a machine.
const RELAY_PORT: u16 = 7700;
/// Bytes that a relay holds, as a multiple of rate times delay.
const RELAY_WINDOWS: u64 = 2;

pub(crate) struct Machine {
    namespace: String,
    pub(crate) address: Ipv4Addr,
    /// The bridge's end of its link.
    pub(crate) interface: String,
    /// Of its uplink and downlink; `None`: not limited.
    pub(crate) rate: Option<Rate>,
}

pub(crate) struct Lab {
    prefix: String,
    hub: String,
    /// A process in the hub: its `/proc/PID/net` is the hub's.
    witness: Child,
    pub(crate) machines: Vec<Machine>,
}

impl Lab {
    pub(crate) fn new(janitor: &Janitor) -> Self {
        let prefix = janitor.prefix.clone();
        let hub = format!("{prefix}hub");
        must(Command::new("ip").args(["netns", "add", &hub]));
        must(Command::new("ip").args(["-n", &hub, "link", "add", "br0", "type", "bridge"]));
        must(Command::new("ip").args(["-n", &hub, "link", "set", "br0", "up"]));
        let mut witness = Command::new("ip");
        witness.args(["netns", "exec", &hub, "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { prefix, hub, witness: witness.spawn().unwrap(), machines: Vec::new() }
    }

    /// Adds a machine whose link has this rate in each direction. Gives its index.
    pub(crate) fn add(&mut self, rate: Option<Rate>) -> usize {
        let index = self.machines.len();
        let (namespace, interface) = (format!("{}{index}", self.prefix), format!("v{index}"));
        let address = Ipv4Addr::new(10, 77, (index / 200) as u8, (index % 200 + 1) as u8);
        must(Command::new("ip").args(["netns", "add", &namespace]));
        let ip = |arguments: &[&str]| must(Command::new("ip").args(arguments));
        ip(&["-n", &self.hub, "link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["-n", &self.hub, "link", "set", &interface, "master", "br0", "up"]);
        ip(&["-n", &namespace, "address", "add", &format!("{address}/16"), "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        if let Some(rate) = rate {
            for (namespace, interface) in [(&namespace, "eth0"), (&self.hub, interface.as_str())] {
                let mut tc = Command::new("tc");
                tc.args(["-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf", "rate", &format!("{}bit", rate.0)]);
                must(tc.args(["burst", BURST, "latency", QUEUE]));
            }
        }
        self.machines.push(Machine { namespace, address, interface, rate });
        index
    }

    /// Delays each direction of every TCP connection that the machine accepts by `milliseconds`.
    pub(crate) fn delay(&self, machine: usize, milliseconds: u64) -> Child {
        let rules = format!(
            "table ip delay {{\nchain arriving {{\ntype nat hook prerouting priority dstnat\n\
             iifname \"eth0\" tcp dport != {RELAY_PORT} redirect to :{RELAY_PORT}\n}}\n}}\n"
        );
        must(self.run(machine, "nft").arg(rules));
        let rate = self.machines[machine].rate.map_or(1 << 30, |rate| rate.0 / 8);
        let window = (RELAY_WINDOWS * rate * milliseconds / 1000).max(256 * 1024);
        let mut relay = self.run(machine, &env::current_exe().unwrap().display().to_string());
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, RELAY_PORT));
        relay.args(["relay", &listen.to_string(), &milliseconds.to_string(), &window.to_string()]).stdout(Stdio::null());
        relay.spawn().unwrap()
    }

    /// A command on one machine.
    pub(crate) fn run(&self, machine: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machines[machine].namespace, program]).stdin(Stdio::null());
        command
    }

    /// `/proc/net/dev` of the hub.
    pub(crate) fn counters(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/net/dev", self.witness.id())).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        janitor::remove_namespaces(&self.prefix);
        let _ = self.witness.wait();
    }
}

fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {} (root is needed)", String::from_utf8_lossy(&output.stderr).trim());
}
