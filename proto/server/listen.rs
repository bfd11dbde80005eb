//! Binding the address that a server listens on.

use crate::endpoint::ListenAddress;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, lookup_host};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address that was given.
    pub address: ListenAddress,
    /// What the system or its resolver says.
    pub source: io::Error,
}

impl ListenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root; choose another address with --listen",
            io::ErrorKind::AddrNotAvailable => "choose an address of this machine with --listen; 0.0.0.0 is all of them",
            _ => {
                "stop what listens there, or choose another address with --listen (--health-listen for health and metrics); port 0 picks a free one"
            }
        }
    }
}

/// Binds `address`. Of the addresses of a host name, loopback comes first, then IPv4; the first that this machine has is taken.
///
/// # Errors
/// When the name has no address, or none of its addresses can be bound.
pub async fn listen(address: &ListenAddress) -> Result<TcpListener, ListenError> {
    let bound = async {
        let mut found: Vec<SocketAddr> = lookup_host((address.host(), address.port())).await?.collect();
        found.sort_by_key(|address| (!address.ip().is_loopback(), address.is_ipv6()));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in found {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    bound.await.map_err(|source| ListenError { address: address.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_name_is_resolved_and_ipv4_loopback_preferred() {
        let listener = listen(&"localhost:0".parse().unwrap()).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip().to_string(), "127.0.0.1");
        let taken = listener.local_addr().unwrap().to_string().parse().unwrap();
        let error = listen(&taken).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    }
}
