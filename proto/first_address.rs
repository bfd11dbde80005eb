//! Connects to a peer at the first of its addresses that accepts.

use crate::{
    coalesced::Coalesced,
    endpoint::{Endpoint, is_metadata_service},
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    task::JoinSet,
    time::sleep,
};
use tonic::{codegen::Service, transport::Uri};

/// How long an address may take before the next one is tried beside it: the recommended delay of RFC 8305, section 5.
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects, for a channel. The addresses are tried in order, the next one when one fails or takes long; the first connection wins.
#[derive(Debug, Clone)]
pub(crate) struct FirstAddress {
    to: To,
    from: Option<IpAddr>,
}

#[derive(Debug, Clone)]
enum To {
    /// Addresses or names, which are resolved anew for each connection.
    FirstOf(Arc<[Endpoint]>),
    One(SocketAddr),
}

impl FirstAddress {
    /// Of these addresses, from the local address `from`; `None`: the one the system chooses.
    pub(crate) fn of(addresses: &[Endpoint], from: Option<IpAddr>) -> Self {
        Self { to: To::FirstOf(addresses.into()), from }
    }

    /// Of this one, which was resolved and checked.
    pub(crate) fn at(address: SocketAddr, from: Option<IpAddr>) -> Self {
        Self { to: To::One(address), from }
    }

    /// Connects now.
    pub(crate) async fn connect(self) -> io::Result<TcpStream> {
        let none = io::Error::new(io::ErrorKind::InvalidInput, "the peer has no address");
        let addresses = match &self.to {
            To::One(address) => return dial(*address, self.from).await,
            To::FirstOf(addresses) => addresses.to_vec(),
        };
        first(addresses.into_iter().map(move |address| connect(address, self.from)), none).await
    }
}

/// The first connection that one of these attempts makes: the next one begins when one fails or takes long. Without any it is `none`.
async fn first<F>(attempts: impl Iterator<Item = F>, none: io::Error) -> io::Result<TcpStream>
where
    F: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    let mut begun = JoinSet::new();
    let (mut waiting, mut failed) = (attempts.peekable(), none);
    loop {
        if let Some(next) = waiting.next() {
            begun.spawn(next);
        }
        tokio::select! {
            ended = begun.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failed = error,
                Some(Err(error)) => failed = io::Error::other(error),
                None => return Err(failed),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.peek().is_some() => {}
        }
    }
}

impl Service<Uri> for FirstAddress {
    type Response = TokioIo<Coalesced<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async move { Ok(TokioIo::new(Coalesced::new(connecting.await?))) })
    }
}

/// Connects to one address; of a host with several, to the first that accepts.
async fn connect(address: Endpoint, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let resolved: Vec<_> = lookup_host((address.host(), address.port())).await?.collect();
    // A name can resolve to anything.
    let none = match resolved.is_empty() {
        true => io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")),
        false => io::Error::new(io::ErrorKind::PermissionDenied, format!("{address} is a cloud's metadata service, and no peer")),
    };
    let peers = resolved.into_iter().filter(|resolved| !is_metadata_service(resolved.ip()));
    first(peers.map(move |resolved| dial(resolved, from)), none).await
}

async fn dial(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from.filter(|from| from.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::{net::TcpListener, time::timeout};

    /// An address of a network for documentation (RFC 5737): nothing answers there.
    const SILENT: &str = "192.0.2.1:7801";

    async fn reached(addresses: &[Endpoint]) -> io::Result<TcpStream> {
        let connecting = FirstAddress::of(addresses, None).connect();
        timeout(Duration::from_secs(20), connecting).await.expect("it connects or fails")
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_stays_silent_does_not_hold_up_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open: Endpoint = listener.local_addr().unwrap().into();
        let closed: Endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        for first in [SILENT.parse().unwrap(), closed.clone()] {
            let stream = reached(&[first, open.clone()]).await.unwrap();
            assert_eq!(Endpoint::from(stream.peer_addr().unwrap()), open);
        }
        assert_eq!(reached(&[closed]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(reached(&[]).await.is_err());
    }

    #[tokio::test]
    async fn a_metadata_service_is_not_dialled() {
        let address = SocketAddr::from(([169, 254, 169, 254], 80)).into();
        let refused = timeout(ATTEMPT_DELAY * 20, connect(address, None)).await.expect("it is refused at once").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn the_first_address_is_used_if_it_accepts() {
        let [first, second] = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let addresses = [&first, &second].map(|listener| Endpoint::from(listener.local_addr().unwrap()));
        let begun = Instant::now();
        let stream = reached(&addresses).await.unwrap();
        assert_eq!(Endpoint::from(stream.peer_addr().unwrap()), addresses[0]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
