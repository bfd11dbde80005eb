//! NATS as the baseline: its server with defaults, and its Rust client.

use crate::programs::{Process, START_TIMEOUT, poll, workspace_program};
use async_nats::{Client, ConnectOptions, RequestErrorKind};
use std::{
    process::{Command, Stdio},
    time::Instant,
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

/// First argument of the process that answers requests.
pub(crate) const RESPOND: &str = "--respond";
/// Subject of the requests.
pub(crate) const ASKED: &str = "whisper";

/// A nats-server with its defaults: no storage, no log line for each message.
pub(crate) struct NatsServer {
    pub(crate) process: Process,
    pub(crate) url: String,
    _ports: TempDir,
}

impl NatsServer {
    /// Starts it. The error says why it cannot.
    pub(crate) fn start() -> Result<Self, String> {
        let ports = tempfile::tempdir().unwrap();
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(ports.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = Process(child.map_err(|error| format!("nats-server cannot be started: {error}"))?);
        let file = ports.path().join(format!("nats-server_{}.ports", process.pid()));
        let url = poll("nats-server to print its address", || {
            let said: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).ok()?).ok()?;
            said["nats"][0].as_str().map(str::to_owned)
        });
        Ok(Self { process, url, _ports: ports })
    }

    /// Its name and version.
    pub(crate) fn version(&self) -> String {
        let said = Command::new("nats-server").arg("--version").output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// A client that does not receive its own messages, as a peer does not.
    pub(crate) async fn client(&self) -> Client {
        ConnectOptions::new().no_echo().connect(&self.url).await.unwrap()
    }

    /// Starts a process that answers requests on [`ASKED`].
    pub(crate) async fn responder(&self, client: &Client) -> Process {
        let child = workspace_program(&std::env::current_exe().unwrap()).args([RESPOND, &self.url]).spawn().unwrap();
        let process = Process(child);
        // Fails immediately until the responder is subscribed.
        let begun = Instant::now();
        while client.request(ASKED, "ready".into()).await.is_err() {
            assert!(begun.elapsed() < START_TIMEOUT, "the responder does not listen");
            tokio::task::yield_now().await;
        }
        process
    }
}

/// Waits until the server has read all that the client sent, its subscriptions among them: it reads a connection in order, and a flush does
/// not wait for it.
pub(crate) async fn answered(client: &Client) {
    let refused = client.request("nobody-listens-here", "".into()).await.expect_err("nobody answers");
    assert_eq!(refused.kind(), RequestErrorKind::NoResponders);
}

/// Answers with a name, as the receiver of a whisper does.
pub(crate) async fn respond(url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let mut asked = client.subscribe(ASKED).await.unwrap();
    while let Some(message) = asked.next().await {
        if let Some(reply) = message.reply {
            client.publish(reply, "right".into()).await.unwrap();
        }
    }
}
