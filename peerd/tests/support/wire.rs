//! A relay that counts what passes it from the server to the client.

use super::pause;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Counts the bytes that servers sent through its relays.
#[derive(Clone, Default)]
pub struct Wire(Arc<AtomicU64>);

/// A relay to one server, whose address it has for others. It ends when this is dropped.
pub struct Relay {
    pub address: SocketAddr,
    wire: Wire,
    listener: Option<TcpListener>,
    serving: JoinSet<()>,
}

impl Wire {
    /// A relay that accepts connections, and serves them once it knows the server.
    pub async fn listen(&self) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Relay { address, wire: self.clone(), listener: Some(listener), serving: JoinSet::new() }
    }

    async fn relay(&self, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
        let down = async {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                self.0.fetch_add(read as u64, Ordering::Relaxed);
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        let up = async { drop(copy(&mut from_client, &mut to_server).await) };
        tokio::join!(down, up);
    }

    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Bytes a second in `time`, from the first kilobyte on.
    pub async fn rate_over(&self, time: Duration) -> f64 {
        while self.bytes() < 1024 {
            pause().await;
        }
        let begun = Instant::now();
        while begun.elapsed() < time {
            pause().await;
        }
        self.bytes() as f64 / begun.elapsed().as_secs_f64()
    }
}

impl Relay {
    pub fn serve(&mut self, server: SocketAddr) {
        let Some(listener) = self.listener.take() else { return };
        let wire = self.wire.clone();
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let wire = wire.clone();
                connections.spawn(async move { wire.relay(client, server).await });
            }
        });
    }
}
