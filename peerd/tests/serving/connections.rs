//! Connections that send another protocol, nothing, or too much; and too many connections.

use super::*;
use crate::support::{
    PATIENCE,
    peer::{Peer, by_name, get},
    within,
};
use p2pdi::v1::{WhisperRequest, peer_client::PeerClient};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Sends these bytes and returns what the server sends until it closes the connection or is silent for a second.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // The server can close before everything is written.
    let _ = stream.write_all(bytes).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_or_a_closed_connection() {
    let peer = Peer::sharing(&[SMALL]).await;
    let mut preface_and_noise = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface_and_noise.extend(support::bytes(4096));
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    for bytes in [support::bytes(64 * 1024), vec![0; 5], vec![0xff; 100_000], preface_and_noise, tls, b"\r\n\r\n\r\n".to_vec()] {
        let answer = say(peer.address, &bytes).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("200 OK"), "{text}");
        peer.assert_serves(SMALL.0, SMALL.1).await;
    }
}

#[tokio::test]
async fn http_1_is_answered_in_http_1() {
    let peer = Peer::sharing(&[SMALL]).await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("BREW / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "HTTP/1.1 403"),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let answer = say(peer.address, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(expected), "{request}: {text}");
    }
    let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "h".repeat(2 << 20));
    let answer = say(peer.address, header.as_bytes()).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test]
async fn a_message_over_the_size_limit_is_refused() {
    let peer = Peer::sharing(&[SMALL]).await;
    let whisper = WhisperRequest { to: "sharer".into(), body: vec![0; 1 << 20].into(), ..Default::default() };
    let status = within("a refusal", peer.client().whisper(whisper)).await.unwrap_err();
    assert!(status.message().contains("message length too large"), "{status:?}");
    let long = by_name(&"n".repeat(8 << 20));
    let status = within("a refusal", get(&mut peer.client(), long)).await.unwrap_err();
    assert!(status.message().contains("message length too large"), "{status:?}");
    assert_eq!(peer.handle.inbox().status().received, 0);
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_the_connection_stays() {
    let peer = Peer::sharing(&[SMALL]).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", peer.address)).unwrap().connect_lazy();
    let mut registry = p2pdi::v1::registry_client::RegistryClient::new(channel.clone());
    let status = registry.p_query(p2pdi::v1::PQueryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    // The same connection still works.
    get(&mut PeerClient::new(channel), by_name(SMALL.0)).await.unwrap();
}

#[tokio::test]
async fn a_connection_without_a_complete_request_is_closed() {
    let limit = Duration::from_millis(700);
    let peer = Peer::configured(&[SMALL], |config| config.limits.first_byte = limit).await;
    let wait = async |sent: &'static [u8]| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(peer.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "still open after {sent:?}");
        begun.elapsed()
    };
    // Nothing, one byte, part of an HTTP/2 preface, part of an HTTP/1 request.
    let took = tokio::join!(wait(b""), wait(b"P"), wait(b"PRI * HTTP/2.0\r\n"), wait(b"GET / HT"));
    for took in [took.0, took.1, took.2, took.3] {
        assert!(took >= limit, "{took:?}");
    }
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_immediately_and_a_closed_one_frees_its_slot() {
    let peer = Peer::configured(&[SMALL], |config| {
        (config.limits.connections, config.limits.connections_per_address) = (2, Some(2));
    })
    .await;
    let first = TcpStream::connect(peer.address).await.unwrap();
    let mut second = TcpStream::connect(peer.address).await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within("an answer", second.read_exact(&mut answer)).await.unwrap();
    let mut third = TcpStream::connect(peer.address).await.unwrap();
    // Closed or reset, at once.
    let refused = within("the end", third.read(&mut answer)).await;
    assert!(!refused.is_ok_and(|bytes| bytes > 0));
    drop(first);
    support::eventually("a free place", async || get(&mut peer.client(), by_name(SMALL.0)).await.ok()).await;
}
