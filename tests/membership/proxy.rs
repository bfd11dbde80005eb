//! A TCP proxy whose target a test can change: a registry, another registry, or none.

use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    target: watch::Sender<Target>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Connections are closed at once.
    Closed,
    /// Connections are accepted and get no answer.
    Silent,
    Registry(SocketAddr),
}

impl Proxy {
    pub(crate) async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), watch::Sender::new(Target::Closed));
        let targets = target.subscribe();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, targets.clone()));
            }
        });
        Self { address, target, serving }
    }

    pub(crate) async fn to(registry: SocketAddr) -> Self {
        let proxy = Self::closed().await;
        proxy.open(registry);
        proxy
    }

    pub(crate) fn open(&self, registry: SocketAddr) {
        self.target.send_replace(Target::Registry(registry));
    }

    /// Breaks open connections and closes new ones.
    pub(crate) fn close(&self) {
        self.target.send_replace(Target::Closed);
    }

    /// Breaks open connections and does not answer on new ones.
    pub(crate) fn stop_answering(&self) {
        self.target.send_replace(Target::Silent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(mut stream: TcpStream, mut targets: watch::Receiver<Target>) {
    let target = *targets.borrow_and_update();
    let forwarding = async {
        match target {
            Target::Closed => {}
            Target::Silent => std::future::pending().await,
            Target::Registry(registry) => {
                if let Ok(mut to) = TcpStream::connect(registry).await {
                    let _ = copy_bidirectional(&mut stream, &mut to).await;
                }
            }
        }
    };
    tokio::select! {
        () = forwarding => {}
        _ = targets.changed() => {}
    }
}
