//! A chat. In one terminal, then in another:
//!
//!     cargo run --example chat -- --name alice --port 8001
//!     cargo run --example chat -- --name bob --join 127.0.0.1:8001
//!
//! A line goes to all peers; `@bob hello` goes to bob only. Ctrl-C or Ctrl-D ends it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chat prints")]

use clap::Parser;
use peerd::{Peer, PeerError};
use std::{io::stdin, process::ExitCode, thread};
use tokio::{signal::ctrl_c, sync::mpsc};

#[derive(Parser)]
struct Args {
    /// Your name
    #[arg(long)]
    name: String,
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// HOST:PORT of a peer of the chat; may be given several times
    #[arg(long)]
    join: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let chatted = chat(Args::parse()).await;
    chatted.inspect_err(|error| eprintln!("error: {error}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

async fn chat(args: Args) -> Result<(), PeerError> {
    let peer = Peer::builder(args.name).port(args.port).build().await?;
    peer.on("chat", |message| async move {
        let to = if message.broadcast { "" } else { " (to you)" };
        println!("{}{to}: {}", message.from, message.text());
    })?;
    println!("{} listens on {}", peer.name(), peer.endpoint());
    if !args.join.is_empty() {
        for other in peer.bootstrap(args.join).await? {
            println!("joined {other}");
        }
    }
    // Its own thread, because a blocking read of the terminal cannot be interrupted.
    let (typed, mut lines) = mpsc::channel(1);
    thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|line| typed.blocking_send(line)));
    while let Some(line) = tokio::select! { line = lines.recv() => line, _ = ctrl_c() => None } {
        let sent = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some((name, text)) => peer.whisper(name, "chat", text.to_owned()).await.map(drop),
            None => peer.broadcast("chat", line).await,
        };
        sent.unwrap_or_else(|error| println!("not sent: {error}"));
    }
    peer.shutdown().await
}
