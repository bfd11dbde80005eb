//! A TCP proxy in front of a peer that simulates network failures: it stops forwarding without closing connections, or ends them.

use socket2::SockRef;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Bytes forwarded at a time.
const CHUNK: usize = 64 * 1024;
/// Bytes that the kernel takes and nobody has read: a link that stands still is full soon.
const BUFFER: usize = 64 * 1024;

/// Accepts connections for a peer and forwards bytes both ways.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    callers: Arc<Mutex<Vec<IpAddr>>>,
    ends: watch::Sender<()>,
}

/// The address that the peer `index` of a `side` dials from: all of 127.0.0.0/8 is loopback.
pub(crate) fn source(side: u8, index: usize) -> IpAddr {
    Ipv4Addr::new(127, 100 + side, u8::try_from(index / 200).unwrap(), u8::try_from(1 + index % 200).unwrap()).into()
}

fn side_of(source: IpAddr) -> Option<u8> {
    match source {
        IpAddr::V4(ip) => ip.octets()[1].checked_sub(100),
        IpAddr::V6(_) => None,
    }
}

impl Proxy {
    /// While `cut`, nothing is forwarded between this peer and those that dial it from another side than `side`. Without a `side`, nothing
    /// is forwarded at all.
    pub(crate) async fn start(side: Option<u8>, cut: watch::Receiver<bool>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Those that are accepted have the same.
        SockRef::from(&listener).set_recv_buffer_size(BUFFER).unwrap();
        let address = listener.local_addr().unwrap();
        let (target, leads_to) = watch::channel(None);
        let callers = Arc::<Mutex<Vec<IpAddr>>>::default();
        let accepted = Arc::clone(&callers);
        let (ends, ended) = watch::channel(());
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                accepted.lock().unwrap().push(from.ip());
                let same_side = side.is_some() && side_of(from.ip()) == side;
                let gate = Gate { same_side, cut: cut.clone() };
                // It does not see what ended others before.
                let mut ended = ended.clone();
                ended.mark_unchanged();
                let forwarding = forward(stream, leads_to.clone(), gate);
                tokio::spawn(async move {
                    tokio::select! {
                        () = forwarding => {}
                        Ok(()) = ended.changed() => {}
                    }
                });
            }
        });
        Self { address, target, callers, ends }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses of all connections so far.
    pub(crate) fn callers(&self) -> Arc<Mutex<Vec<IpAddr>>> {
        Arc::clone(&self.callers)
    }

    /// What ends all connections that there are; others may be opened then.
    pub(crate) fn ends(&self) -> watch::Sender<()> {
        self.ends.clone()
    }

    /// Sets the peer to forward to.
    pub(crate) fn leads_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }
}

/// Whether one connection forwards.
#[derive(Clone)]
struct Gate {
    same_side: bool,
    cut: watch::Receiver<bool>,
}

impl Gate {
    /// Waits until it forwards; false if it never will.
    async fn open(&mut self) -> bool {
        self.same_side || self.cut.wait_for(|cut| !cut).await.is_ok()
    }
}

async fn forward(near: TcpStream, mut leads_to: watch::Receiver<Option<SocketAddr>>, mut gate: Gate) {
    if !gate.open().await {
        return;
    }
    let target = leads_to.wait_for(Option::is_some).await.ok().and_then(|target| *target);
    let Some(target) = target else { return };
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(pass(near_in, far_out, gate.clone()), pass(far_in, near_out, gate));
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if !gate.open().await || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    if gate.open().await {
        // The other end may be gone.
        let _ = to.shutdown().await;
    }
}
