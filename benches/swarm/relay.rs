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
    io::AsyncWriteExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};

/// Bytes read at once, of a window that is large enough.
const READ_BYTES: usize = 256 * 1024;
/// Reads that a window holds at least.
const READS_PER_WINDOW: usize = 8;

pub(crate) fn delay(milliseconds: &str) -> Duration {
    Duration::from_millis(milliseconds.parse().unwrap())
}

/// Relays until it is killed. `to`: where; `None`: where each connection was going before a rule of the firewall redirected it here. At
/// most `window` bytes of a direction are under way in the relay, of all connections together: what a path of some rate and delay holds.
/// More would be a queue that delays further.
pub(crate) fn run(listen: SocketAddr, to: Option<SocketAddr>, delay: Duration, window: usize) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        let read = READ_BYTES.min(window / READS_PER_WINDOW);
        let (there, back) = (Arc::new(Semaphore::new(window)), Arc::new(Semaphore::new(window)));
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let (there, back) = (Arc::clone(&there), Arc::clone(&back));
            tokio::spawn(async move {
                // A connection that cannot be made is closed, which the client notices.
                if let Ok(server) = dial(&client, to).await {
                    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                    tokio::join!(
                        one_way(from_client, to_server, delay, there, read),
                        one_way(from_server, to_client, delay, back, read)
                    );
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

async fn one_way(from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, room: Arc<Semaphore>, read_bytes: usize) {
    // Bounded by `room`.
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let reading = async move {
        loop {
            // What has no room is not read.
            if from.readable().await.is_err() {
                return;
            }
            let Ok(mut permit) = Arc::clone(&room).acquire_many_owned(u32::try_from(read_bytes).unwrap()).await else { return };
            let mut buffer = Vec::with_capacity(read_bytes);
            let read = match from.try_read_buf(&mut buffer) {
                Ok(read @ 1..) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(_) | Err(_) => return,
            };
            drop(permit.split(read_bytes - read));
            if sender.send((Instant::now() + delay, buffer, permit)).is_err() {
                return;
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
