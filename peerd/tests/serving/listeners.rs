//! Many subscribers of one inbox, one of which never reads.

use super::*;
use crate::support::{peer::Peer, within};
use p2pdi::v1::{SubscribeRequest, SubscribeResponse, WhisperRequest, control_client::ControlClient};
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Channel};

/// More streams than one connection carries.
const LISTENERS: usize = 300;
const CONNECTIONS: usize = 3;
/// The inbox keeps 4 MiB, so a subscriber that does not read loses many of these.
const BULK: usize = 400;
const BULK_BYTES: usize = 16 * 1024;
/// Bulk messages between two messages that all other subscribers want.
const EVERY: usize = 20;

async fn connected(peer: &Peer) -> ControlClient<Channel> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", peer.address)).unwrap();
    // Small windows, so that a stream that is not read stops soon.
    let channel = channel.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    ControlClient::new(within("a connection", channel.connect()).await.unwrap())
}

async fn subscribed(client: &mut ControlClient<Channel>, kinds: &[&str]) -> Streaming<SubscribeResponse> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut messages = within("an answer", client.subscribe(SubscribeRequest { kinds })).await.unwrap().into_inner();
    assert_eq!(within("the first", messages.message()).await.unwrap(), Some(SubscribeResponse::default()));
    messages
}

#[tokio::test]
async fn a_subscriber_that_never_reads_delays_no_other_and_learns_how_many_messages_it_lost() {
    let peer = Peer::sharing(&[SMALL]).await;
    let (heard, mut hearing) = mpsc::unbounded_channel();
    for _ in 0..CONNECTIONS {
        let mut client = connected(&peer).await;
        for _ in 0..LISTENERS / CONNECTIONS {
            let (mut messages, heard) = (subscribed(&mut client, &["text"]).await, heard.clone());
            tokio::spawn(async move {
                while let Ok(Some(SubscribeResponse { message: Some(message), dropped })) = messages.message().await {
                    heard.send((message.body, dropped)).unwrap();
                }
            });
        }
    }
    let mut silent = subscribed(&mut connected(&peer).await, &[]).await;
    let mut client = peer.client();
    let mut whisper = async |kind: &str, body: Vec<u8>| {
        let request = WhisperRequest { to: "sharer".into(), kind: kind.into(), body: body.into(), ..Default::default() };
        within("an answer", client.whisper(request)).await.unwrap();
    };
    for number in 0..BULK {
        whisper("bulk", vec![0; BULK_BYTES]).await;
        if number % EVERY == 0 {
            whisper("text", number.to_string().into_bytes()).await;
            for _ in 0..LISTENERS {
                let (body, dropped) = within("every subscriber", hearing.recv()).await.unwrap();
                assert_eq!((body, dropped), (number.to_string().into(), 0));
            }
        }
    }
    let sent = (BULK + BULK / EVERY) as u64;
    let status = peer.handle.inbox().status();
    assert_eq!((status.received, status.messages + status.dropped, status.unclaimed), (sent, sent, 0), "{status:?}");
    assert!(status.messages <= (4 << 20) as u64 / BULK_BYTES as u64 + (BULK / EVERY) as u64, "{status:?}");

    // The messages that were already sent to it, those still in the inbox, and the number lost in between.
    let (mut read, mut lost) = (0, 0);
    while read + lost < sent {
        let response = within("the remaining messages", silent.message()).await.unwrap().unwrap();
        assert!(response.message.is_some());
        read += 1;
        lost += response.dropped;
    }
    assert_eq!(read + lost, sent);
    assert!(lost > BULK as u64 / 4, "{lost} lost of {sent}");
    peer.assert_serves(SMALL.0, SMALL.1).await;
}
