//! One address that forwards to a registry, to another one, or to none, as a test wants.

use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Connections are closed at once.
    Closed,
    /// Connections are accepted, and nothing is answered.
    Nowhere,
    To(SocketAddr),
}

impl Gate {
    pub(crate) async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, way) = (listener.local_addr().unwrap(), watch::Sender::new(Way::Closed));
        let ways = way.subscribe();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, ways.clone()));
            }
        });
        Self { address, way, serving }
    }

    pub(crate) async fn to(registry: SocketAddr) -> Self {
        let gate = Self::closed().await;
        gate.open(registry);
        gate
    }

    pub(crate) fn open(&self, registry: SocketAddr) {
        self.way.send_replace(Way::To(registry));
    }

    /// Breaks open connections, and closes new ones.
    pub(crate) fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// Breaks open connections, and answers nothing on new ones.
    pub(crate) fn swallow(&self) {
        self.way.send_replace(Way::Nowhere);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(mut stream: TcpStream, mut ways: watch::Receiver<Way>) {
    let way = *ways.borrow_and_update();
    let passing = async {
        match way {
            Way::Closed => {}
            Way::Nowhere => std::future::pending().await,
            Way::To(registry) => {
                if let Ok(mut to) = TcpStream::connect(registry).await {
                    let _ = copy_bidirectional(&mut stream, &mut to).await;
                }
            }
        }
    };
    tokio::select! {
        () = passing => {}
        _ = ways.changed() => {}
    }
}
