//! The programs under test.

use crate::time;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that ends with the benchmark.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("{command:?} did not say where it listens")) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Programs {
    pub(crate) registry: Server,
    pub(crate) peer: Server,
    pub(crate) raw: SocketAddr,
    _raw: Server,
    nginx: Option<Server>,
    folder: PathBuf,
}

impl Programs {
    pub(crate) fn start(folder: &Path, share: &Path, raw_bytes: u64) -> Self {
        let registry =
            Server::start(program("registry").args(["--listen", "127.0.0.1:0", "--state"]).arg(folder.join("registry")));
        let peer = Server::start(
            program("peerd")
                .args(["--name", "fff-c", "--listen", "127.0.0.1:0", "--no-lan", "--registry"])
                .arg(registry.address.to_string())
                .arg("--share")
                .arg(share)
                .arg("--state")
                .arg(folder.join("peer")),
        );
        let raw = Server::start(Command::new(env::current_exe().unwrap()).args(["--serve-raw", &raw_bytes.to_string()]));
        let programs =
            Self { registry, peer, raw: raw.address, _raw: raw, nginx: nginx(folder, share), folder: folder.to_owned() };
        let begun = Instant::now();
        while !programs
            .p2pctl(&["get", "large.bin", "--out", "warm"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
        {
            assert!(begun.elapsed() < START_TIMEOUT, "the peer does not share the large document");
            std::thread::yield_now();
        }
        fs::remove_dir_all(folder.join("warm")).unwrap();
        programs
    }

    fn p2pctl(&self, args: &[&str]) -> Command {
        let mut command = program("p2pctl");
        command
            .args(args)
            .args(["--registry", &self.registry.address.to_string()])
            .current_dir(&self.folder)
            .env("XDG_STATE_HOME", &self.folder);
        command
    }

    /// A fetch into an empty folder.
    pub(crate) fn get(&self, args: &[&str]) -> Duration {
        let took = time(&mut self.p2pctl(args));
        fs::remove_dir_all(self.folder.join("out")).unwrap();
        took
    }

    /// The same file unverified, if nginx and curl are installed.
    pub(crate) fn curl(&self, name: &str) -> Option<Duration> {
        let nginx = self.nginx.as_ref()?;
        let to = self.folder.join("curl.out");
        let took = time(Command::new("curl").args(["-s", "-f", "-o"]).arg(&to).arg(format!("http://{}/{name}", nginx.address)));
        fs::remove_file(to).unwrap();
        Some(took)
    }
}

/// A program of this workspace, in the folder above this one.
fn program(name: &str) -> Command {
    let beside = env::current_exe().unwrap().parent().and_then(Path::parent).map(|target| target.join(name));
    let path =
        beside.filter(|path| path.is_file()).unwrap_or_else(|| panic!("{name} is not built; run `cargo build --release` first"));
    let mut command = Command::new(path);
    for (key, _) in env::vars().filter(|(key, _)| key.starts_with("P2PDI_") || key.starts_with("OTEL_") || key == "RUST_LOG") {
        command.env_remove(key);
    }
    command
}

/// nginx with one worker and sendfile, a common configuration.
fn nginx(folder: &Path, share: &Path) -> Option<Server> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = folder.join("nginx");
    fs::create_dir(&folder).unwrap();
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error; events {{}}\n\
         http {{ access_log off; sendfile on; {temporary} server {{ listen {address}; root {}; }} }}\n",
        share.display()
    );
    fs::write(folder.join("conf"), config).unwrap();
    let child = Command::new("nginx").arg("-c").arg(folder.join("conf")).stderr(Stdio::null()).spawn();
    let Ok(child) = child else {
        println!("nginx is not installed: curl's figures are left out");
        return None;
    };
    let server = Server { child, address };
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < START_TIMEOUT, "nginx does not listen");
        std::thread::yield_now();
    }
    Some(server)
}

/// Resident memory of a process (Linux).
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
