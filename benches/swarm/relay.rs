//! A relay for TCP that delays each direction: every byte leaves it a fixed time after it came, at no limit of rate.
//!
//! The kernel of a test machine may lack `netem`; this needs nothing of it.

use socket2::SockRef;
use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

pub(crate) fn delay(milliseconds: &str) -> Duration {
    Duration::from_millis(milliseconds.parse().unwrap())
}

/// Relays until it is killed. `to`: where; `None`: where each connection was going before a rule of the firewall redirected it here. At
/// most `window` bytes of a direction are under way in the relay, as the product of a path's rate and delay.
pub(crate) fn run(listen: SocketAddr, to: Option<SocketAddr>, delay: Duration, window: usize) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                // A connection that cannot be made is closed, which the client notices.
                if let Ok(server) = dial(&client, to).await {
                    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                    tokio::join!(one_way(from_client, to_server, delay, window), one_way(from_server, to_client, delay, window));
                }
            });
        }
    });
}

async fn dial(client: &TcpStream, to: Option<SocketAddr>) -> io::Result<TcpStream> {
    let original = || SockRef::from(client).original_dst_v4().map(|address| address.as_socket_ipv4());
    let to = match to {
        Some(to) => to,
        None => original()?.map(|address: SocketAddrV4| address.into()).ok_or(io::ErrorKind::AddrNotAvailable)?,
    };
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok(server)
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, window: usize) {
    let room = Arc::new(Semaphore::new(window));
    // Bounded by `room`.
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let reading = async move {
        loop {
            let mut buffer = Vec::with_capacity(READ_BYTES.min(window));
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    let due = Instant::now() + delay;
                    let Ok(permit) = Arc::clone(&room).acquire_many_owned(u32::try_from(read).unwrap()).await else { return };
                    if sender.send((due, buffer, permit)).is_err() {
                        return;
                    }
                }
            }
        }
    };
    let writing = async move {
        while let Some((due, data, permit)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&data).await.is_err() {
                return;
            }
            drop(permit);
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
