//! A TCP connection between two programs under test that can be cut.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards connections to a port. While it is cut, nothing passes, and nobody is told: packets are lost.
pub struct Cable {
    pub address: SocketAddr,
    /// Where new connections lead.
    port: Arc<AtomicU16>,
    cut: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Cable {
    /// To 127.0.0.1:`port`; 0: to where [`Cable::plug`] says.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::over(listener, port)
    }

    /// With a listener of the caller's.
    pub fn over(listener: TcpListener, port: u16) -> Self {
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        let port = Arc::new(AtomicU16::new(port));
        let leads_to = Arc::clone(&port);
        let serving = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(forward(from, Arc::clone(&leads_to), is_cut.clone()));
            }
        });
        Self { address, port, cut, serving }
    }

    /// New connections lead to 127.0.0.1:`port`.
    pub fn plug(&self, port: u16) {
        self.port.store(port, Ordering::Release);
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A connection that was cut does not come back; its ends find out by themselves. A new one waits while it is cut.
async fn forward(mut from: TcpStream, port: Arc<AtomicU16>, mut is_cut: watch::Receiver<bool>) {
    if is_cut.wait_for(|cut| !cut).await.is_err() {
        return;
    }
    let Ok(mut to) = TcpStream::connect(("127.0.0.1", port.load(Ordering::Acquire))).await else { return };
    let cut = async {
        let _cut = is_cut.wait_for(|cut| *cut).await;
    };
    let ended = tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => true,
        () = cut => false,
    };
    if !ended {
        // Both ends stay open, and hear nothing, until it is mended.
        let _mended = is_cut.wait_for(|cut| !cut).await;
    }
}
