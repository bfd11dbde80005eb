//! Callers that do not read the answers, or read them slowly.

use super::*;
use crate::support::{
    eventually,
    peer::{Peer, by_name, get},
    within,
};
use p2pdi::v1::{GetRfcResponse, PingRequest, RfcQueryRequest, WhisperRequest};
use peerd::{
    connections::channels::ChannelPool,
    documents::catalog::{LISTINGS_MAX, LISTINGS_PER_ADDRESS},
    holders::rfc_query::{Limits, query},
    transfer::{UPLOADS_MAX, UPLOADS_PER_ADDRESS},
};
use std::{net::Ipv4Addr, time::Duration};
use tonic::Streaming;

/// A second loopback address.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Streams of which only the header is read. Each has its own connection, since a stream that is not read blocks the others of its
/// connection.
async fn unread(peer: &Peer, count: usize) -> Vec<Streaming<GetRfcResponse>> {
    unread_from(peer, Ipv4Addr::LOCALHOST, count).await
}

async fn unread_from(peer: &Peer, from: Ipv4Addr, count: usize) -> Vec<Streaming<GetRfcResponse>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut client = peer.client_from(from.into());
        let mut stream = within("an answer", client.get_rfc(by_name("large.bin"))).await.unwrap().into_inner();
        within("a header", stream.message()).await.unwrap().unwrap();
        streams.push(stream);
    }
    streams
}

async fn uploads(peer: &Peer) -> u32 {
    peer.client().ping(PingRequest {}).await.unwrap().into_inner().load.unwrap().uploads
}

#[tokio::test]
async fn a_caller_that_stops_reading_delays_no_other_and_its_stream_is_ended() {
    let large = support::bytes(8 << 20);
    let peer = Peer::configured(&[("large.bin", &large), SMALL], |config| config.limits.unread = Duration::from_secs(2)).await;
    let mut streams = unread(&peer, 3).await;
    assert_eq!(uploads(&peer).await, 3);
    peer.assert_serves("large.bin", &large).await;
    eventually("the end of the uploads", async || (uploads(&peer).await == 0).then_some(())).await;
    // A caller that reads again gets an error after the bytes that had arrived.
    let ended = within("the end", async {
        loop {
            match streams[0].message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    })
    .await;
    assert!(ended.is_err(), "a stream that was cut off ended without an error");
    peer.assert_serves("large.bin", &large).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_and_other_calls_of_its_connection_go_on() {
    const UNREAD: Duration = Duration::from_secs(1);
    let large = support::bytes(8 << 20);
    let peer = Peer::configured(&[("large.bin", &large), SMALL], |config| config.limits.unread = UNREAD).await;
    // The connection's window is larger than a stream's, as in our own clients.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", peer.address)).unwrap();
    let channel = channel.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20).connect_lazy();
    let mut client = p2pdi::v1::peer_client::PeerClient::new(channel);
    let mut unread = within("an answer", client.get_rfc(by_name("large.bin"))).await.unwrap().into_inner();
    within("a header", unread.message()).await.unwrap().unwrap();
    eventually("the end of the upload", async || {
        // The same connection goes on.
        let got = get(&mut client, by_name(SMALL.0)).await.unwrap();
        assert_eq!(got.1, SMALL.1);
        (uploads(&peer).await == 0).then_some(())
    })
    .await;
    let ended = within("the end", async {
        loop {
            match unread.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    })
    .await;
    refused(ended, Reason::Overloaded);
    get(&mut client, by_name(SMALL.0)).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_reads_slowly_is_served_to_the_end() {
    let large = support::bytes(3 << 20);
    let peer = Peer::configured(&[("large.bin", &large)], |config| config.limits.unread = Duration::from_secs(2)).await;
    let mut stream = peer.client().get_rfc(by_name("large.bin")).await.unwrap().into_inner();
    let mut got = 0;
    // Longer than the limit in total, but no single pause reaches it.
    while let Some(message) = within("a chunk", stream.message()).await.unwrap() {
        if let Some(p2pdi::v1::get_rfc_response::Part::Chunk(chunk)) = message.part {
            got += chunk.data.len();
        }
        tokio::time::sleep(Duration::from_millis(330)).await;
    }
    assert_eq!(got, large.len());
}

#[tokio::test]
async fn a_rate_limit_does_not_count_as_a_caller_that_does_not_read() {
    let large = support::bytes(1 << 20);
    let peer = Peer::configured(&[("large.bin", &large)], |config| {
        config.upload_limit = Some(200 * 1024);
        config.limits.unread = Duration::from_millis(600);
    })
    .await;
    peer.assert_serves("large.bin", &large).await;
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_until_one_ends() {
    let large = support::bytes(2 << 20);
    let peer = Peer::sharing(&[("large.bin", &large), SMALL]).await;
    // The limit of one address.
    let mut streams = unread(&peer, UPLOADS_PER_ADDRESS).await;
    let status = refused(within("a refusal", get(&mut peer.client(), by_name(SMALL.0))).await, Reason::TooManyStreams);
    assert!(
        status.message().contains(&format!("{UPLOADS_PER_ADDRESS} documents are sent to your address")),
        "{}",
        status.message()
    );
    let others = unread_from(&peer, OTHER, UPLOADS_MAX - UPLOADS_PER_ADDRESS).await;
    assert_eq!(uploads(&peer).await as usize, UPLOADS_MAX);
    let status = refused(within("a refusal", get(&mut peer.client(), by_name(SMALL.0))).await, Reason::TooManyStreams);
    assert!(status.message().contains(&UPLOADS_PER_ADDRESS.to_string()), "{}", status.message());
    let mut other = peer.client_from(OTHER.into());
    let status = refused(within("a refusal", get(&mut other, by_name(SMALL.0))).await, Reason::TooManyStreams);
    assert!(status.message().contains(&UPLOADS_MAX.to_string()), "{}", status.message());
    // Other calls are still answered.
    peer.client().rfc_query(p2pdi::v1::RfcQueryRequest::default()).await.unwrap();
    streams.pop();
    eventually("a free place", async || get(&mut peer.client(), by_name(SMALL.0)).await.ok()).await;
    drop((streams, others));
    peer.until_idle().await;
}

#[tokio::test]
async fn sixty_four_downloads_from_one_address_are_admitted() {
    let large = support::bytes(2 << 20);
    let peer = Peer::sharing(&[("large.bin", &large), SMALL]).await;
    let streams = unread(&peer, 64).await;
    peer.assert_serves(SMALL.0, SMALL.1).await;
    drop(streams);
}

#[tokio::test]
async fn listings_are_limited_in_all_and_per_address() {
    let files: Vec<(String, Vec<u8>)> = (0..3000).map(|n| (format!("{n:0190}.txt"), n.to_string().into_bytes())).collect();
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let peer = Peer::sharing(&borrowed).await;
    let listing = async |from: Ipv4Addr| {
        let mut client = peer.client_from(from.into());
        within("an answer", client.rfc_query(RfcQueryRequest::default())).await.map(tonic::Response::into_inner)
    };
    let mut open = Vec::new();
    for number in 0..LISTINGS_MAX {
        let from = if number < LISTINGS_PER_ADDRESS { Ipv4Addr::LOCALHOST } else { OTHER };
        let mut stream = listing(from).await.unwrap();
        within("a batch", stream.message()).await.unwrap().unwrap();
        open.push(stream);
    }
    for (from, expected) in [(Ipv4Addr::LOCALHOST, "24 listings for your address"), (OTHER, "32 listings are being sent")] {
        let status = refused(listing(from).await, Reason::TooManyStreams);
        assert!(status.message().contains(expected), "{}", status.message());
    }
    // A query for one document does not count as a listing.
    let one = RfcQueryRequest { name: files[0].0.clone(), ..RfcQueryRequest::default() };
    let mut found = within("an answer", peer.client().rfc_query(one)).await.unwrap().into_inner();
    assert_eq!(within("one", found.message()).await.unwrap().unwrap().holdings.len(), 1);
    drop(open);
    eventually("a free place", async || listing(OTHER).await.ok()).await;
}

#[tokio::test]
async fn a_caller_that_disconnects_leaves_no_upload_behind() {
    let large = support::bytes(8 << 20);
    let peer = Peer::sharing(&[("large.bin", &large)]).await;
    for _ in 0..3 {
        drop(unread(&peer, 20).await);
    }
    peer.until_idle().await;
    peer.assert_serves("large.bin", &large).await;
}

#[tokio::test]
async fn a_listing_that_is_not_read_is_ended() {
    let files: Vec<(String, Vec<u8>)> = (0..3000).map(|n| (format!("{n:0190}.txt"), n.to_string().into_bytes())).collect();
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let peer = Peer::configured(&borrowed, |config| config.limits.unread = Duration::from_secs(1)).await;
    let mut stream = peer.client().rfc_query(p2pdi::v1::RfcQueryRequest::default()).await.unwrap().into_inner();
    within("a batch", stream.message()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ended = within("the end", async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    })
    .await;
    assert!(ended.is_err(), "a listing that was cut off ended without an error");
    let found = within("a listing", listed(&peer)).await;
    assert_eq!(found, 3000);
}

/// How many documents a peer lists.
async fn listed(peer: &Peer) -> usize {
    let channels = ChannelPool::new(None);
    let answer = query(channels.peer(&peer.address.into(), None), RfcQueryRequest::default(), Limits::LISTING).await.unwrap();
    assert!(!answer.truncated && answer.invalid == 0);
    answer.documents.len()
}

#[tokio::test]
async fn a_page_that_is_not_read_is_cut_off() {
    use tokio::io::AsyncWriteExt as _;
    let peer = Peer::configured(&[SMALL], |config| config.limits.unread = Duration::from_secs(1)).await;
    // A small receive buffer, so that a stream that is not read stops soon.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(peer.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // Each message makes the page's stream send the latest messages again, up to 400 KB.
    let body = "\u{1f980}".repeat(2_000);
    eventually("the closed connection", async || {
        let message = WhisperRequest { to: "sharer".into(), body: body.clone().into(), ..Default::default() };
        peer.client().whisper(message).await.unwrap();
        // Bytes after a request wait in the server's buffer; writing to a closed connection fails.
        stream.write_all(b" ").await.is_err().then_some(())
    })
    .await;
    peer.assert_serves(SMALL.0, SMALL.1).await;
}
