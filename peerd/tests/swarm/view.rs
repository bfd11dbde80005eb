//! What a peer says of its swarms.

use super::support::{
    bytes,
    peer::{Peer, by_name},
    within,
};
use p2pdi::{
    content::ContentHash,
    id::PeerId,
    v1::{
        AvailabilityRequest, AvailabilityStart, AvailabilityUpdate, Contact, GetRfcRequest, SwarmRequest, get_rfc_response::Part,
    },
};
use tokio_stream::{StreamExt as _, iter, pending};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_counts_for_a_peer_that_joins_while_it_is_answered() {
    // Far more than fits between the two while nobody reads.
    let data = bytes(4 << 20);
    let seed = Peer::sharing(&[("doc.bin", &data)]).await;
    let id = PeerId::from_u128(7).to_field();
    let mut client = seed.client();
    let request = GetRfcRequest { from_peer: id.clone(), ..by_name("doc.bin") };
    let mut answer = client.get_rfc(request).await.unwrap().into_inner();
    assert!(matches!(answer.message().await.unwrap().unwrap().part, Some(Part::Header(_))));

    let peer = Some(Contact { id, name: "joins".to_owned(), ..Default::default() });
    let start =
        AvailabilityStart { blake3: ContentHash::of(&data).to_field(), size: data.len() as u64, peer, ..Default::default() };
    let update = Some(AvailabilityUpdate { start: Some(start), ..Default::default() });
    // The stream stays open: the peer is a member until it ends.
    let updates = iter([AvailabilityRequest { update }]).chain(pending());
    let mut joined = seed.client().availability(updates).await.unwrap().into_inner();
    within("the seed's start", joined.message()).await.unwrap().unwrap();

    let mut got = 0;
    while let Some(message) = within("the rest", answer.message()).await.unwrap() {
        let Some(Part::Chunk(chunk)) = message.part else { panic!("not a chunk") };
        got += chunk.data.len();
    }
    assert_eq!(got, data.len());
    let swarms = seed.client().swarm(SwarmRequest::default()).await.unwrap().into_inner().swarms;
    let [swarm] = swarms.as_slice() else { panic!("{swarms:?}") };
    let [connection] = swarm.connections.as_slice() else { panic!("{swarm:?}") };
    // What went out before it joined is not in it.
    assert!(connection.sent > data.len() as u64 / 2 && connection.sent <= data.len() as u64, "{swarm:?}");
    assert!(swarm.upload_bytes_per_second > 0, "{swarm:?}");
}
