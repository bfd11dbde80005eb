//! The programs under test, and their memory and CPU time as Linux reports them.

use p2pdi::endpoint::Endpoint;
use peerd::connections::channels::ChannelPool;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Ticks of /proc/PID/stat in a second, on every Linux in use.
const TICKS: f64 = 100.0;

/// A process that ends with the benchmark.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Resident memory in MiB: all of it, and the part that no other process has as well.
    pub(crate) fn resident_mib(&self) -> (f64, f64) {
        let kib = |file: &str, name: &str| {
            let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
        };
        (kib("status", "VmRSS:"), kib("smaps_rollup", "Pss:"))
    }

    /// Processor time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Fields 14 and 15 (proc(5)), counted after the name in parentheses.
        let after = stat.rsplit_once(')').unwrap().1;
        after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / TICKS).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `peerd` process without a registry.
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _state: TempDir,
}

impl Peer {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let beside = env::current_exe().unwrap().parent().and_then(Path::parent).map(|target| target.join("peerd"));
        let path = beside.filter(|path| path.is_file()).expect("peerd is not built; run `cargo build --release` first");
        let mut command = workspace_program(&path);
        command.args(["--no-registry", "--name", name, "--listen", "127.0.0.1:0", "--state"]).arg(state.path().join("state"));
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut process = Process(child);
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        Self { address: address.expect("peerd says where it listens"), process, _state: state }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address.into()
    }

    /// Waits until it is linked to `count` others.
    pub(crate) async fn until_linked(&self, count: usize) {
        let begun = Instant::now();
        let mut client = ChannelPool::new(None).peer(&self.endpoint(), None);
        while client.list_peers(p2pdi::v1::ListPeersRequest {}).await.unwrap().into_inner().neighbours.len() < count {
            assert!(begun.elapsed() < START_TIMEOUT, "a peer is not linked to {count} others");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A command without inherited settings and without LAN discovery.
pub(crate) fn workspace_program(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (key, _) in env::vars().filter(|(key, _)| key.starts_with("P2PDI_") || key.starts_with("OTEL_") || key == "RUST_LOG") {
        command.env_remove(key);
    }
    command.env("P2PDI_PEER_NO_LAN", "true");
    command
}

/// Polls `look` until it gives a value.
pub(crate) fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < START_TIMEOUT, "timed out waiting for {what}");
        std::thread::yield_now();
    }
}
