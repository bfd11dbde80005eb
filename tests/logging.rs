//! Logs: a standard error that nobody reads stops nothing, filters are checked, lines may be JSON; standard output may be closed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::{
    io::ioctl_fionread,
    process::{Pid, Signal, kill_process},
};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::fd::AsFd as _,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};
use support::{
    http::get,
    process::{Running, Server},
    wait::{WAIT_TIMEOUT, eventually, until},
    world::World,
};
use tokio::{runtime::Runtime, time::timeout};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Bytes that a pipe holds when no log line fits any more: 64 KiB, less a page (`pipe(7)`).
const FULL_PIPE_BYTES: u64 = 60 * 1024;
/// Calls past the point at which the pipe is full. Each logs some dozen lines at `trace`, so all of them more than the 8,192 that wait.
const CALLS: usize = 1_000;

/// A server whose standard error nobody reads.
struct Unread {
    child: Child,
    stderr: Option<ChildStderr>,
    runtime: Runtime,
    client: HealthClient<Channel>,
}

impl Unread {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let runtime = Runtime::new().unwrap();
        let client = runtime
            .block_on(async { HealthClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()) });
        let stderr = child.stderr.take();
        Self { child, stderr, runtime, client }
    }

    /// One call, which is answered.
    fn call(&mut self) {
        let checked = async { timeout(WAIT_TIMEOUT, self.client.check(HealthCheckRequest::default())).await };
        self.runtime.block_on(checked).expect("it answers in time").unwrap();
    }

    /// Calls it until it has logged more than its pipe holds, and further.
    fn fill(&mut self) {
        let stderr = self.stderr.take().unwrap();
        until("the pipe is full", || {
            self.call();
            ioctl_fionread(stderr.as_fd()).unwrap() > FULL_PIPE_BYTES
        });
        self.stderr = Some(stderr);
        (0..CALLS).for_each(|_| self.call());
    }

    fn stops(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = eventually("its end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn servers_whose_log_nobody_reads_answer_calls_and_stop() {
    let world = World::new();
    let peer = world.peer_command("A", "http://127.0.0.1:1", &["--no-registry", "--log", "trace"]);
    for command in [peer, world.registry_command("127.0.0.1:0", &["--log", "trace"])] {
        let mut server = Unread::start(command);
        server.fill();
        server.stops();
    }
}

#[test]
fn dropped_log_lines_are_counted_in_one_line_once_the_log_is_read_again() {
    let world = World::new();
    let peer = world.peer_command("A", "http://127.0.0.1:1", &["--no-registry", "--log", "trace", "--log-format", "json"]);
    let mut server = Unread::start(peer);
    server.fill();
    let mut stderr = server.stderr.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    // Its end comes after it has written what waits.
    server.stops();
    let text = reader.join().unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let dropped: Vec<_> = lines.iter().filter_map(|line| line["fields"]["dropped"].as_u64()).collect();
    assert!(dropped.len() == 1 && dropped[0] > 0, "{dropped:?} of {}", lines.len());
}

#[test]
fn a_misspelt_level_is_refused_with_the_right_one() {
    let world = World::new();
    let registry = world.registry(&[]);
    for mut command in [
        world.registry_command("127.0.0.1:0", &["--state", "memory"]),
        world.peer_command("A", &registry.url(), &[]),
        world.p2pctl_command(&registry, &["peers"]),
    ] {
        command.args(["--log", "infoo"]);
        Running::run_to_end(command).exits(2).stdout_is_empty().stderr_has(&["infoo", "did you mean info?"]);
    }
}

#[test]
fn log_lines_are_json_objects_when_asked_for() {
    let world = World::new();
    let mut command = world.registry_command("127.0.0.1:0", &[]);
    command.env("P2PDI_REGISTRY_LOG_FORMAT", "json");
    let registry = Server::start(command);
    let peer = Server::start(world.peer_command("A", &registry.url(), &["--log-format", "json"]));
    let mut command = world.p2pctl_command(&registry, &["peers", "--log", "debug"]);
    command.env("P2PDI_CTL_LOG_FORMAT", "json");
    let said = [
        Running::run_to_end(command).exits(0),
        {
            peer.signal(Signal::TERM);
            peer.ended().exits(0)
        },
        {
            registry.signal(Signal::TERM);
            registry.ended().exits(0)
        },
    ];
    for ended in said {
        assert!(!ended.stderr.is_empty(), "{ended:#?}");
        for line in ended.stderr.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
            assert!(line["level"].is_string() && line["timestamp"].is_string() && line["fields"].is_object(), "{line}");
        }
    }
    world.run("registry", &["--log-format", "xml"]).exits(2).stderr_has(&["text or json"]);
}

/// A registry and a peer on free ports, which log to their standard error and write to `stdout`.
fn on_stdout(stdout: impl Fn() -> Stdio) {
    let world = World::new();
    let peer = world.peer_command("A", "http://127.0.0.1:1", &["--no-registry"]);
    for mut command in [peer, world.registry_command("127.0.0.1:0", &[])] {
        let mut child = command.stdin(Stdio::null()).stdout(stdout()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let warning = lines.find(|line| line.contains("cannot write the line")).expect("it warns");
        let address = warning.split("address=").nth(1).unwrap().trim().parse().unwrap();
        assert_eq!(get(address, "/healthz", &[]).status, 200);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(lines.any(|line| line.contains("stopping")));
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_full_standard_output_is_a_warning() {
    on_stdout(|| File::options().write(true).open("/dev/full").unwrap().into());
}

#[test]
fn a_closed_standard_output_is_a_warning() {
    // The reading end is gone at once, as with `| true`.
    on_stdout(|| std::io::pipe().unwrap().1.into());
}

#[test]
fn host_names_are_listened_on_and_a_port_alone_is_refused_with_the_right_form() {
    let world = World::new();
    for (name, fixed) in [("registry", &[][..]), ("peerd", &["--no-registry", "--name", "A", "--state", "s"])] {
        let listening = |address| world.command(name, &[fixed, &["--listen", address]].concat());
        let server = Server::start(listening("localhost:0"));
        assert!(server.address.ip().is_loopback());
        server.kill();
        for address in ["7900", ":7900"] {
            Running::run_to_end(listening(address)).exits(2).stdout_is_empty().stderr_has(&["127.0.0.1:7900"]);
        }
        Running::run_to_end(listening("localhost")).exits(2).stderr_has(&["localhost:7900"]);
    }
}
