//! Floods of listings and whispers of one address: others are served, and their messages stay.

use super::*;
use crate::support::{peer::Peer, within};
use p2pdi::{
    server::{CallLimits, Limits},
    v1::{RfcQueryRequest, WhisperRequest, peer_client::PeerClient},
};
use std::time::Instant;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// A peer that limits callers of its own machine as it does others.
async fn limiting() -> Peer {
    let calls = CallLimits::default().limiting_local();
    Peer::configured(&[SMALL], |config| config.limits = Limits { calls, ..Limits::default() }).await
}

/// A client that calls from this address of the machine.
fn from(peer: &Peer, last: u8) -> PeerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", peer.address)).unwrap();
    PeerClient::new(endpoint.local_address(Some([127, 0, 0, last].into())).connect_lazy())
}

async fn list(client: &mut PeerClient<Channel>) -> Result<(), Status> {
    let mut stream = within("an answer", client.rfc_query(RfcQueryRequest::default())).await?.into_inner();
    while within("a batch", stream.message()).await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_listings_is_refused_with_the_time_to_wait_and_others_list() {
    let peer = limiting().await;
    let begun = Instant::now();
    let mut flood = JoinSet::new();
    for _ in 0..10 {
        let mut client = from(&peer, 66);
        flood.spawn(async move {
            let mut listed = 0;
            for _ in 0..50 {
                match list(&mut client).await {
                    Ok(()) => listed += 1,
                    Err(refused) => {
                        assert_eq!(Reason::of(&refused), Some(Reason::RateLimited), "{refused:?}");
                        assert!(status::retry_after(&refused).is_some());
                    }
                }
            }
            listed
        });
    }
    for _ in 0..5 {
        list(&mut from(&peer, 1)).await.expect("another address lists");
    }
    let listed: u64 = flood.join_all().await.into_iter().sum();
    // The burst of one address, and its rate: see `CallClass`.
    let most = 100 + 20 * (begun.elapsed().as_secs() + 1);
    assert!(listed <= most, "{listed} of 500, at most {most}");
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_whispers_is_limited_and_leaves_the_messages_of_others() {
    let peer = limiting().await;
    let whisper =
        |sender: &str| WhisperRequest { to: "sharer".into(), body: "hello".into(), from: sender.into(), ..Default::default() };
    from(&peer, 1).whisper(whisper("honest")).await.expect("the first message");
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        let (mut client, message) = (from(&peer, 66), whisper("flood"));
        flood.spawn(async move {
            let mut refused = 0;
            for _ in 0..1_500 {
                if let Err(status) = client.whisper(message.clone()).await {
                    assert_eq!(Reason::of(&status), Some(Reason::RateLimited), "{status:?}");
                    refused += 1;
                }
            }
            refused
        });
    }
    for _ in 0..5 {
        within("an answer", from(&peer, 1).whisper(whisper("honest"))).await.expect("others whisper");
    }
    let _refused: u32 = flood.join_all().await.into_iter().sum();
    let kept = peer.handle.inbox().latest(1_000);
    assert_eq!(kept.len(), 1_000, "the inbox is full");
    assert_eq!(kept.iter().filter(|message| message.from == "honest").count(), 6, "the messages of others are kept");
    peer.assert_serves(SMALL.0, SMALL.1).await;
}
