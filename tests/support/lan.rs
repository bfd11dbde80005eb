//! Machines of one LAN, each a network namespace on one bridge.

use super::{
    process::{Ended, Running, Server},
    tools,
    world::World,
};
use std::{
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// A bridge and the machines on it. The bridge has its own namespace, so that it is invisible outside and disappears with the
/// namespaces.
pub struct Lan {
    ip: PathBuf,
    /// The first has the bridge.
    pub namespaces: Vec<String>,
    pub world: World,
}

impl Lan {
    /// `None` if there is no `ip`, or namespaces are not permitted.
    pub fn new(machines: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ip = tools::ip()?;
        let lan = format!("p2pdi-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let namespaces = (0..=machines).map(|number| format!("{lan}-{number}")).collect();
        let lan = Self { ip, namespaces, world: World::new() };
        let set_up = || {
            for namespace in &lan.namespaces {
                lan.ip(&["netns", "add", namespace])?;
                lan.ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            }
            let switch = &lan.namespaces[0];
            lan.ip(&["-n", switch, "link", "add", "bridge", "type", "bridge"])?;
            lan.ip(&["-n", switch, "link", "set", "bridge", "up"])?;
            for (number, namespace) in lan.namespaces.iter().enumerate().skip(1) {
                let port = format!("port{number}");
                let cable = ["type", "veth", "peer", "name", "eth0", "netns", namespace];
                lan.ip(&[["-n", switch, "link", "add", port.as_str()].as_slice(), &cable].concat())?;
                lan.ip(&["-n", switch, "link", "set", &port, "master", "bridge", "up"])?;
                lan.ip(&["-n", namespace, "address", "add", &format!("10.77.0.{number}/24"), "dev", "eth0"])?;
                lan.ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
            }
            Ok::<_, String>(())
        };
        match set_up() {
            Ok(()) => Some(lan),
            Err(error) => {
                // The environment does not permit it; no package would help.
                tools::skipped(&format!("network namespaces are not available: {error}"));
                None
            }
        }
    }

    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        let done = Command::new(&self.ip).args(arguments).output().map_err(|error| error.to_string())?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
    }

    /// One of the programs on one machine (the first is 1).
    pub fn on(&self, machine: usize, program: &str, arguments: &[&str]) -> Command {
        let program = self.world.command(program, arguments);
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.namespaces[machine]]).arg(program.get_program()).args(program.get_args());
        command.current_dir(self.world.path("")).env_clear();
        let set =
            program.get_envs().filter_map(|(name, value)| Some((name, value?))).filter(|(name, _)| *name != "P2PDI_PEER_NO_LAN");
        command.envs(set);
        command
    }

    pub fn peer(&self, machine: usize, name: &str) -> Server {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "0.0.0.0:0", "--no-registry", "--state", &state];
        Server::start(self.on(
            machine,
            "peerd",
            &[arguments.as_slice(), &["--log", "info,peerd::discovery=debug,peerd::inbox=debug"]].concat(),
        ))
    }

    /// The same, with more flags.
    pub fn peer_with(&self, machine: usize, name: &str, flags: &[&str]) -> Server {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "0.0.0.0:0", "--no-registry", "--state", &state];
        Server::start(self.on(
            machine,
            "peerd",
            &[arguments.as_slice(), flags, &["--log", "info,peerd::discovery=debug"]].concat(),
        ))
    }

    pub fn p2pctl(&self, machine: usize, peer: &Server, arguments: &[&str]) -> Ended {
        let via = format!("127.0.0.1:{}", peer.address.port());
        Running::run_to_end(self.on(machine, "p2pctl", &[arguments, &["--via", &via]].concat()))
    }

    /// What `curl` prints on one machine: the body, then the status code on a line of its own.
    pub fn curl(&self, curl: &Path, machine: usize, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.ip);
        command
            .args(["netns", "exec", &self.namespaces[machine]])
            .arg(curl)
            .args(["-sS", "-w", "\n%{http_code}"])
            .args(arguments);
        // Headers end with carriage returns, which programs of ours must not print.
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Peers that answer the one on `machine`.
    pub fn count(&self, machine: usize, peer: &Server) -> usize {
        let counted = self.p2pctl(machine, peer, &["peer-count", "--wait", "1s"]).exits(0);
        counted.stdout.trim_end().parse().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Fails if it was not created.
            let _deleted = self.ip(&["netns", "delete", namespace]);
        }
    }
}
