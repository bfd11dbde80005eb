//! The programs under test.

use crate::{certificates::Authority, figure::time};
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
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

/// A registry and the peers that are started for it. `p2pctl` runs in its folder.
pub(crate) struct Network {
    pub(crate) registry: Server,
    folder: PathBuf,
    authority: Option<Authority>,
}

impl Network {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::with_certificates_of(folder, None)
    }

    /// The same; with a CA all connections have TLS.
    pub(crate) fn with_certificates_of(folder: &Path, authority: Option<Authority>) -> Self {
        let mut command = program("registry");
        command.args(["--listen", "127.0.0.1:0", "--state"]).arg(folder.join("registry"));
        certify(authority.as_ref(), &mut command, "REGISTRY", &folder.join("registry-files"), "127.0.0.1");
        Self { registry: Server::start(&mut command), folder: folder.to_owned(), authority }
    }

    /// A peer that shares this folder. Unless the options say otherwise it listens on a free port of loopback.
    pub(crate) fn peer(&self, name: &str, share: &Path, options: &[&str]) -> Server {
        let mut command = program("peerd");
        command.args(["--name", name, "--no-lan", "--registry", &self.registry.address.to_string()]).args(options);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        certify(self.authority.as_ref(), &mut command, "PEER", &self.folder.join(format!("{name}-files")), name);
        Server::start(command.arg("--share").arg(share).arg("--state").arg(self.folder.join(name)))
    }

    pub(crate) fn p2pctl(&self, args: &[&str]) -> Command {
        let mut command = program("p2pctl");
        command
            .args(args)
            .args(["--registry", &self.registry.address.to_string()])
            .current_dir(&self.folder)
            .env("XDG_STATE_HOME", &self.folder)
            .env("P2PDI_CTL_PROGRESS", "none");
        certify(self.authority.as_ref(), &mut command, "CTL", &self.folder.join("p2pctl-files"), "p2pctl");
        command
    }

    /// Where `p2pctl get` saves.
    pub(crate) fn out(&self) -> PathBuf {
        self.folder.join("out")
    }

    /// Removes what was fetched.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.out()).unwrap();
    }

    /// Waits until a peer is registered and has hashed this document.
    pub(crate) fn wait_for(&self, peer: &str, document: &str) {
        self.wait_until(peer, |listing| listing.contains(document));
    }

    /// Waits until a peer is registered and has hashed this many documents.
    pub(crate) fn wait_for_count(&self, peer: &str, documents: usize) {
        // JSON has one name for each document.
        self.wait_until(peer, |listing| listing.matches("\"name\"").count() >= documents);
    }

    fn wait_until(&self, peer: &str, is_ready: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let output = self.p2pctl(&["rfc-query", peer, "--output", "json"]).output().unwrap();
            if is_ready(&String::from_utf8_lossy(&output.stdout)) {
                return;
            }
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(begun.elapsed() < START_TIMEOUT, "{peer} does not share all documents: {problem}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Gives a program a certificate, whose files are made the first time.
fn certify(authority: Option<&Authority>, command: &mut Command, program: &str, folder: &Path, name: &str) {
    let Some(authority) = authority else { return };
    if !folder.exists() {
        authority.files(folder, &[name]);
    }
    for (kind, file) in [("CERT", "cert.pem"), ("KEY", "key.pem"), ("CA", "ca.pem")] {
        command.env(format!("P2PDI_{program}_TLS_{kind}"), folder.join(file));
    }
}

/// What the figures of one stream need.
pub(crate) struct Programs {
    network: Network,
    pub(crate) peer: Server,
    pub(crate) raw: SocketAddr,
    _raw: Server,
    nginx: Option<Server>,
}

impl Programs {
    pub(crate) fn start(folder: &Path, share: &Path, raw_bytes: u64) -> Self {
        let network = Network::start(folder);
        let peer = network.peer("fff-c", share, &[]);
        let raw = Server::start(Command::new(env::current_exe().unwrap()).args(["--serve-raw", &raw_bytes.to_string()]));
        network.wait_for("fff-c", "large.bin");
        Self { network, peer, raw: raw.address, _raw: raw, nginx: nginx(folder, share) }
    }

    pub(crate) fn registry_pid(&self) -> u32 {
        self.network.registry.pid()
    }

    pub(crate) fn p2pctl(&self, args: &[&str]) -> Command {
        self.network.p2pctl(args)
    }

    /// A fetch into an empty folder.
    pub(crate) fn get(&self, args: &[&str]) -> Duration {
        let took = time(&mut self.p2pctl(args));
        self.network.forget();
        took
    }

    /// The same file unverified, if nginx is installed.
    pub(crate) fn curl(&self, name: &str) -> Option<Duration> {
        self.nginx.as_ref().map(|nginx| curl(nginx.address, name, &self.network.folder.join("curl.out")))
    }
}

/// A file from a web server, with curl.
pub(crate) fn curl(server: SocketAddr, name: &str, to: &Path) -> Duration {
    let took = time(Command::new("curl").args(["-s", "-f", "-o"]).arg(to).arg(format!("http://{server}/{name}")));
    fs::remove_file(to).unwrap();
    took
}

/// An address of loopback with a port that was free just now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A relay to this address that delays each direction.
pub(crate) fn relay(to: SocketAddr, delay_ms: u32) -> Server {
    let mut command = Command::new(env::current_exe().unwrap());
    Server::start(command.args(["--serve-relay", &to.to_string(), "--delay-ms", &delay_ms.to_string()]))
}

/// A program of this workspace, in the folder above this one.
pub(crate) fn program(name: &str) -> Command {
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
pub(crate) fn nginx(folder: &Path, share: &Path) -> Option<Server> {
    let address = free_address();
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
    listening(Command::new("nginx").arg("-c").arg(folder.join("conf")), address)
}

/// A daemon of rsync with one module, `all`.
pub(crate) fn rsync_daemon(folder: &Path, share: &Path) -> Option<Server> {
    let address = free_address();
    let config = folder.join("rsyncd.conf");
    let (port, path) = (address.port(), share.display());
    fs::write(&config, format!("address = 127.0.0.1\nport = {port}\nuse chroot = no\n[all]\npath = {path}\nread only = yes\n"))
        .unwrap();
    listening(Command::new("rsync").args(["--daemon", "--no-detach", "--config"]).arg(config), address)
}

/// A baseline's server once it listens; `None` if it is not installed.
fn listening(command: &mut Command, address: SocketAddr) -> Option<Server> {
    let Ok(child) = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("{} is not installed: its figures are left out", command.get_program().display());
        return None;
    };
    let server = Server { child, address };
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < START_TIMEOUT, "{command:?} does not listen");
        thread::park_timeout(Duration::from_millis(5));
    }
    Some(server)
}

/// The most memory that a process had resident at once (Linux); 0 once it has ended.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
