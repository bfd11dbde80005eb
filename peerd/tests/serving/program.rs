//! The `peerd` program: memory, signals, folders.

use super::*;
use crate::support::{
    eventually,
    peer::{by_name, client, get},
    within,
};
use p2pdi::v1::{GetRfcRequest, PingRequest, get_rfc_response::Part};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

/// `peerd`, killed when dropped.
pub(super) struct Program {
    child: Child,
    pub(super) address: SocketAddr,
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerd"));
    command.env_clear().args(["--name", "sharer", "--listen", "127.0.0.1:0", "--no-lan", "--share"]);
    command.arg(folder.join("share")).arg("--state").arg(folder.join("state"));
    command
}

pub(super) fn alone(folder: &Path) -> Command {
    let mut command = command(folder);
    command.arg("--no-registry");
    command
}

impl Program {
    fn start(folder: &Path) -> Self {
        Self::spawn(alone(folder))
    }

    pub(super) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("it printed {line:?}"));
        Self { address: address.trim().parse().unwrap(), child }
    }

    /// Resident memory in bytes, without mapped files.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn ended(mut self) -> ExitStatus {
        eventually("the end of the program", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It can have ended before.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[tokio::test]
async fn memory_stays_bounded_while_slow_callers_take_a_large_file() {
    const GIB: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    // A sparse file takes no space on the disk.
    fs::File::create(folder.path().join("share/sparse.bin")).unwrap().set_len(GIB).unwrap();
    let program = Program::start(folder.path());
    let mut callers: Vec<_> = (0..8).map(|_| client(program.address)).collect();
    let hash = eventually("the file in the index", async || {
        let request = GetRfcRequest { length: 1, ..by_name("sparse.bin") };
        get(&mut callers[0], request).await.ok()?.0.document
    })
    .await
    .blake3;
    assert_eq!(hash.len(), 32);
    let before = program.memory();
    let mut streams = Vec::new();
    for caller in &mut callers {
        let request = GetRfcRequest { without_piece_hashes: true, ..by_name("sparse.bin") };
        streams.push(within("an answer", caller.get_rfc(request)).await.unwrap().into_inner());
    }
    let mut most = 0;
    // Each reads 24 MiB and then stops.
    for _ in 0..96 {
        for stream in &mut streams {
            let message = within("a chunk", stream.message()).await.unwrap().unwrap();
            assert!(matches!(message.part, Some(Part::Header(_) | Part::Chunk(_))));
        }
        most = most.max(program.memory());
    }
    let grown = most.saturating_sub(before) / (1 << 20);
    assert!(grown < 8 * 8, "{grown} MiB more for 8 streams, {} MiB before", before >> 20);
    drop(streams);
    eventually("the end of all uploads", async || {
        (callers[0].ping(PingRequest {}).await.unwrap().into_inner().load.unwrap().uploads == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_peer_with_few_descriptors_stays_reachable_while_others_hold_many_connections() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    let mut limited = Command::new("/bin/sh");
    limited.env_clear().args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_peerd")]);
    let program = Program::spawn({
        limited.args(alone(folder.path()).get_args());
        limited
    });
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(within("a connection", tokio::net::TcpStream::connect(program.address)).await);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", program.child.id())).unwrap().count();
        assert!(descriptors < 230, "{descriptors}");
    }
    for _ in 0..20 {
        let mut caller = client(program.address);
        eventually("an answer", async || caller.ping(PingRequest {}).await.ok()).await;
        held.push(within("a connection", tokio::net::TcpStream::connect(program.address)).await);
    }
}

#[tokio::test]
async fn a_state_folder_in_use_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    let first = Program::start(folder.path());
    let mut second = alone(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the end of the program", async || second.try_wait().unwrap()).await;
    let mut output = String::new();
    second.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("in use by another process") && output.contains("hint: ") && output.contains("--state"), "{output}");
    client(first.address).ping(PingRequest {}).await.unwrap();
    // A killed process leaves no lock, and the next process has the same peer id.
    let id = client(first.address).ping(PingRequest {}).await.unwrap().into_inner().id;
    drop(first);
    let next = Program::start(folder.path());
    assert_eq!(client(next.address).ping(PingRequest {}).await.unwrap().into_inner().id, id);
}

#[tokio::test]
async fn a_signal_lets_streams_finish_and_a_second_one_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    let data = support::bytes(6 << 20);
    fs::write(folder.path().join("share/large.bin"), &data).unwrap();
    for twice in [false, true] {
        let program = Program::start(folder.path());
        let mut caller = client(program.address);
        eventually("the file in the index", async || get(&mut caller, by_name("large.bin")).await.ok()).await;
        let mut stream = caller.get_rfc(by_name("large.bin")).await.unwrap().into_inner();
        let mut got = 0;
        within("a header", stream.message()).await.unwrap();
        program.signal(Signal::TERM);
        if twice {
            // Wait until the first signal is handled, or both count as one.
            eventually("the closed port", async || tokio::net::TcpStream::connect(program.address).await.err()).await;
            program.signal(Signal::INT);
            assert_eq!(program.ended().await.code(), Some(130));
            continue;
        }
        while let Some(message) = within("a chunk", stream.message()).await.unwrap() {
            let Some(Part::Chunk(chunk)) = message.part else { panic!("not a chunk") };
            got += chunk.data.len();
        }
        assert_eq!(got, data.len());
        drop((stream, caller));
        assert_eq!(program.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_signal_makes_the_peer_leave_its_registry() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    let registry = support::registry::CountingRegistry::start().await;
    for (signal, times) in [(Signal::TERM, 1), (Signal::INT, 2)] {
        let mut command = command(folder.path());
        command.arg("--registry").arg(format!("http://{}", registry.address));
        let program = Program::spawn(command);
        eventually("the registration", async || (registry.registered() == times).then_some(())).await;
        // The peer can still be waiting for the registry's answer.
        eventually("readiness", async || {
            let status = p2pdi::v1::StatusRequest::default();
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", program.address)).unwrap();
            let mut control = p2pdi::v1::control_client::ControlClient::new(channel.connect_lazy());
            let session = control.status(status).await.ok()?.into_inner().registry?;
            (session.state() == p2pdi::v1::SessionState::Registered).then_some(())
        })
        .await;
        program.signal(signal);
        assert_eq!(program.ended().await.code(), Some(0));
        assert_eq!(registry.left(), times);
    }
}
