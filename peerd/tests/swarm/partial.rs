//! What a peer serves of a document that is not whole.

use super::{
    Fetcher,
    support::{
        bytes, eventually,
        peer::{Peer, get},
    },
};
use p2pdi::{
    content::ContentHash,
    status::Reason,
    v1::{GetRfcRequest, SwarmRequest, get_rfc_request::Document},
};

const PIECE: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn verified_pieces_are_served_by_hash_before_the_document_is_whole_and_missing_ones_are_refused() {
    let data = bytes(16 * PIECE as usize);
    let seed = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(PIECE)).await;
    let hash = ContentHash::of(&data);
    let fetcher = Fetcher::new().await;
    let fetching = fetcher.fetch(hash, vec![seed.source("sharer")]);
    let looking = async {
        let mut client = fetcher.peer.client();
        let had = eventually("a verified piece", async || {
            let request = SwarmRequest { blake3: hash.to_field() };
            let swarms = client.swarm(request).await.unwrap().into_inner().swarms;
            swarms.first().map(|swarm| swarm.had).filter(|had| *had > 0)
        })
        .await;
        assert!(had < data.len() as u64);
        let range = |offset, length| GetRfcRequest {
            document: Some(Document::Blake3(hash.to_field())),
            offset,
            length,
            ..Default::default()
        };
        let mut served = 0;
        for piece in 0..16 {
            match get(&mut client, range(piece * PIECE, PIECE)).await {
                Ok((header, got)) => {
                    let start = (piece * PIECE) as usize;
                    assert!(got == data[start..start + PIECE as usize]);
                    assert_eq!(header.document.unwrap().size, data.len() as u64);
                    served += 1;
                }
                Err(status) => assert_eq!(Reason::of(&status), Some(Reason::PiecesMissing), "{status}"),
            }
        }
        assert!(served > 0);
        let whole = get(&mut client, range(0, 0)).await;
        assert_eq!(Reason::of(&whole.unwrap_err()), Some(Reason::PiecesMissing));
    };
    tokio::select! {
        () = looking => {}
        fetched = fetching => panic!("the fetch ended first: {fetched:?}"),
    }
}
