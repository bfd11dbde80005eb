//! Three members of etcd, one of which can be cut off from the two others while its clients still reach it.

use crate::{etcd::Etcd, support::eventually};
use std::time::Duration;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// The header with which a member says who it is, in hexadecimal digits, when it dials another one.
const FROM_HEADER: &str = "X-Server-From: ";
/// Longest wait for the first request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The member that is cut off: its index and its id.
type Isolated = Option<(usize, u64)>;

/// The members, whose connections to each other pass through this process.
pub(crate) struct Members {
    pub(crate) etcd: Etcd,
    isolated: watch::Sender<Isolated>,
    serving: Vec<JoinHandle<()>>,
}

impl Members {
    /// `None` where etcd is missing.
    pub(crate) async fn start() -> Option<Self> {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<_> = listeners.iter().map(|listener| Some(listener.local_addr().unwrap().port())).collect();
        let etcd = Etcd::spawn_members(&ports)?;
        let (isolated, _) = watch::channel(None);
        let serving = listeners.into_iter().enumerate().map(|(to, listener)| {
            let (port, isolated) = (etcd.peer_port(to), isolated.subscribe());
            tokio::spawn(async move {
                while let Ok((from, _)) = listener.accept().await {
                    tokio::spawn(forward(from, to, port, isolated.clone()));
                }
            })
        });
        let serving = serving.collect();
        tokio::task::block_in_place(|| etcd.await_health());
        Some(Self { etcd, isolated, serving })
    }

    /// The member that leads, once all agree: there may be an election now.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader", async || {
            let ids = [0, 1, 2].map(|index| self.etcd.ids(index));
            let (_, leader) = ids[0];
            let agree = leader != 0 && ids.iter().all(|(_, theirs)| *theirs == leader);
            ids.iter().position(|(id, _)| *id == leader).filter(|_| agree)
        })
        .await
    }

    /// Nothing passes between this member and the others, and nobody is told: packets are lost.
    pub(crate) fn isolate(&self, index: usize) {
        self.isolated.send_replace(Some((index, self.etcd.ids(index).0)));
    }

    /// All reach each other again.
    pub(crate) fn mend(&self) {
        self.isolated.send_replace(None);
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// A connection of one member to the member `to`.
async fn forward(mut from: TcpStream, to: usize, port: u16, mut isolated: watch::Receiver<Isolated>) {
    let dialer = dialer(&from).await;
    let is_cut = move |isolated: &Isolated| isolated.is_some_and(|(index, id)| index == to || Some(id) == dialer);
    if isolated.wait_for(|now| !is_cut(now)).await.is_err() {
        return;
    }
    let Ok(mut other) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let cut = async {
        let _cut = isolated.wait_for(&is_cut).await;
    };
    let ended = tokio::select! {
        _ = copy_bidirectional(&mut from, &mut other) => true,
        () = cut => false,
    };
    if !ended {
        // Both ends stay open, and hear nothing, until it is mended.
        let _mended = isolated.wait_for(|now| !is_cut(now)).await;
    }
}

/// The member that dials, as the head of its first request says; `None`: it does not say.
async fn dialer(from: &TcpStream) -> Option<u64> {
    let mut head = vec![0; 4096];
    let mut seen = 0;
    let until = Instant::now() + HEAD_TIMEOUT;
    loop {
        timeout_at(until, from.readable()).await.ok()?.ok()?;
        let length = timeout_at(until, from.peek(&mut head)).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&head[..length]);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let (_, rest) = head.split_once(FROM_HEADER)?;
            return u64::from_str_radix(rest.lines().next()?, 16).ok();
        }
        if length == 0 || length == 4096 || Instant::now() >= until {
            return None;
        }
        if length == seen {
            // The rest of the head is under way.
            tokio::task::yield_now().await;
        }
        seen = length;
    }
}
