//! Our system: a registry, a seed, and leechers that are `p2pctl get` or have a `peerd`.

use crate::{
    lab::Lab,
    programs::{self, Process},
    race::{Progress, SEED, System, liar, machine_of, tracker},
    scenario::{Scenario, With},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const REGISTRY_PORT: u16 = 7800;
const PEER_PORT: u16 = 7801;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a leecher with `--seed` stays; longer than any run.
const STAY: &str = "1h";

pub(crate) struct Ours {
    with: With,
    registry: String,
    hash: String,
    place: PathBuf,
    seed: Process,
    /// The `peerd` of each leecher, if they have one.
    daemons: Vec<Process>,
    /// The `p2pctl` of each leecher that began.
    leechers: Vec<Option<Process>>,
    /// Options of `p2pctl get` that this version has.
    has_seed: bool,
    has_progress: bool,
    servers: Vec<Process>,
}

impl Ours {
    pub(crate) fn start(lab: &Lab, scenario: &Scenario, content: &Path, place: &Path) -> Self {
        let hash = format!("b3:{}", programs::hash(content).unwrap());
        let address = lab.machines[tracker(scenario)].address;
        let registry = format!("{address}:{REGISTRY_PORT}");
        let mut command = lab.run(tracker(scenario), &programs::path("registry"));
        command.args(["--listen", &registry, "--state", "memory"]);
        let mut servers = vec![spawn(&mut command, place, "registry")];

        let share = place.join("seed");
        fs::create_dir(&share).unwrap();
        fs::copy(content, share.join("content.bin")).unwrap();
        let seed = daemon(lab, SEED, "seed", &share, &registry, place);
        let mut with_seed = vec!["seed"];
        if scenario.liar {
            let listen = format!("{}:{PEER_PORT}", lab.machines[liar(scenario)].address);
            let mut command = lab.run(liar(scenario), &env::current_exe().unwrap().display().to_string());
            command.arg("liar").arg(content).args([&listen, &registry]);
            servers.push(spawn(&mut command, place, "liar"));
            with_seed.push("liar");
        }
        for name in with_seed {
            wait_for(lab, tracker(scenario), name, &registry, place);
        }
        let mut daemons = Vec::new();
        if scenario.with == With::Daemon {
            for leecher in 0..scenario.peers {
                let share = place.join(format!("out-{leecher}"));
                fs::create_dir(&share).unwrap();
                let name = format!("leecher-{leecher}");
                daemons.push(daemon(lab, machine_of(leecher), &name, &share, &registry, place));
            }
            (0..scenario.peers).for_each(|leecher| wait_for_control(lab, machine_of(leecher), place));
        }
        let help = Command::new(programs::path("p2pctl")).args(["get", "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        Self {
            with: scenario.with,
            registry,
            hash,
            place: place.to_owned(),
            seed,
            daemons,
            leechers: (0..scenario.peers).map(|_| None).collect(),
            has_seed: help.contains("--seed "),
            has_progress: help.contains("--progress "),
            servers,
        }
    }

    fn log_of(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("get-{leecher}.log"))
    }
}

impl System for Ours {
    fn begin(&mut self, lab: &Lab, leecher: usize) {
        let mut command = lab.run(machine_of(leecher), &programs::path("p2pctl"));
        if self.with == With::Daemon {
            command.args(["fetch", &self.hash, "--wait", "--at", &format!("127.0.0.1:{PEER_PORT}")]);
        } else {
            command
                .args(["get", &self.hash, "--registry", &self.registry, "--out"])
                .arg(self.place.join(format!("out-{leecher}")));
            command.arg("--state").arg(self.place.join(format!("state-{leecher}")));
            if self.with == With::Seed && self.has_seed {
                command.args(["--seed", STAY]);
            }
            if self.has_progress {
                command.args(["--progress", "plain"]);
            }
        }
        self.leechers[leecher] = Some(spawn(&mut command, &self.place, &format!("get-{leecher}")));
    }

    fn progress(&mut self, leecher: usize) -> Progress {
        let file = self.file(leecher);
        let log = self.log_of(leecher);
        let Some(process) = self.leechers[leecher].as_mut() else { return Progress::Failed("did not begin".into()) };
        match process.0.try_wait().unwrap() {
            Some(status) if status.success() => Progress::Done,
            Some(_) => Progress::Failed(programs::last_line(&log)),
            // The file has its name when it is whole, verified and synced.
            None if file.exists() => Progress::Done,
            None => Progress::Running,
        }
    }

    fn kill(&mut self, leecher: usize) {
        if let Some(process) = self.leechers[leecher].as_mut() {
            process.kill();
        }
        if let Some(daemon) = self.daemons.get_mut(leecher) {
            daemon.kill();
        }
    }

    fn processes(&mut self) -> (&mut Process, Vec<&mut Process>) {
        let fetching = if self.daemons.is_empty() {
            self.leechers.iter_mut().flatten().collect()
        } else {
            self.daemons.iter_mut().collect()
        };
        (&mut self.seed, fetching)
    }

    fn end(&mut self) {
        self.leechers.iter_mut().flatten().chain(&mut self.daemons).chain(&mut self.servers).for_each(Process::kill);
        self.seed.kill();
    }

    fn file(&self, leecher: usize) -> PathBuf {
        self.place.join(format!("out-{leecher}")).join("content.bin")
    }

    fn remarks(&self) -> Vec<String> {
        let names_liar = |leecher: &usize| fs::read_to_string(self.log_of(*leecher)).is_ok_and(|text| text.contains("liar"));
        let naming = (0..self.leechers.len()).filter(names_liar).count();
        if self.servers.len() > 1 { vec![format!("{naming} of {} name the liar", self.leechers.len())] } else { Vec::new() }
    }
}

fn spawn(command: &mut Command, place: &Path, name: &str) -> Process {
    let (log, _) = programs::log(place, name);
    let home = place.join(format!("home-{name}"));
    programs::clean(command, &home).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

fn daemon(lab: &Lab, machine: usize, name: &str, share: &Path, registry: &str, place: &Path) -> Process {
    let mut command = lab.run(machine, &programs::path("peerd"));
    command.args(["--name", name, "--no-lan", "--registry", registry, "--listen", &format!("0.0.0.0:{PEER_PORT}")]);
    command.args(["--advertise", &format!("{}:{PEER_PORT}", lab.machines[machine].address)]);
    command.arg("--share").arg(share).arg("--state").arg(place.join(format!("state-{name}")));
    spawn(&mut command, place, name)
}

/// Waits until a peer that is registered names the document.
fn wait_for(lab: &Lab, from: usize, name: &str, registry: &str, place: &Path) {
    let begun = Instant::now();
    loop {
        let mut command = lab.run(from, &programs::path("p2pctl"));
        command.args(["rfc-query", name, "--registry", registry]);
        let output = programs::clean(&mut command, place).output().unwrap();
        if String::from_utf8_lossy(&output.stdout).contains("content.bin") {
            return;
        }
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(begun.elapsed() < START_TIMEOUT, "{name} does not share the document: {problem}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn wait_for_control(lab: &Lab, machine: usize, place: &Path) {
    let begun = Instant::now();
    let reached = || {
        let mut command = lab.run(machine, &programs::path("p2pctl"));
        command.args(["status", &format!("127.0.0.1:{PEER_PORT}")]);
        programs::clean(&mut command, place).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    while !reached() {
        assert!(begun.elapsed() < START_TIMEOUT, "a leecher's peer does not answer");
        thread::park_timeout(Duration::from_millis(50));
    }
}
