//! Members of a swarm that say what is not so.

use super::{
    Fetcher,
    support::{document::Sample, holder::Holder, peer::Peer},
};
use p2pdi::v1::{AskFor, AvailabilityStart, AvailabilityUpdate, Contact, SwarmPeer};
use peerd::transfer::Fetched;
use std::net::SocketAddr;

const PIECE: u64 = 256 * 1024;
const PIECES: u64 = 12;

/// What a member sends.
type Says = Box<dyn FnOnce(&Sample, SocketAddr) -> Vec<AvailabilityUpdate>>;

fn sample() -> Sample {
    Sample::new("doc.bin", 0, super::support::bytes((PIECES * PIECE) as usize))
}

/// The first message of a member that has nothing yet.
fn start(sample: &Sample, address: SocketAddr) -> AvailabilityUpdate {
    let peer = Contact { id: vec![7; 16].into(), name: "hostile".to_owned(), endpoint: address.to_string() };
    let (blake3, size) = (sample.hash().to_field(), sample.size());
    let start = AvailabilityStart { blake3, size, peer: Some(peer), ..Default::default() };
    AvailabilityUpdate { start: Some(start), ..Default::default() }
}

/// Fetches the sample from an honest peer, for a second or more, while this one is a member.
async fn fetch_beside(fetcher: &Fetcher, sample: &Sample, hostile: &Holder) -> Fetched {
    let honest = Peer::configured(&[("doc.bin", &sample.data)], |config| config.upload_limit = Some(4 * PIECE)).await;
    let fetched = fetcher.fetch(sample.hash(), vec![honest.source("sharer"), hostile.source("hostile")]).await.unwrap();
    fetcher.assert_has(&fetched, &sample.data);
    let report = fetched.sources.iter().find(|report| report.source.label() == "sharer").unwrap();
    assert_eq!((report.bytes, report.dropped.as_deref()), (sample.size(), None));
    fetched
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_break_the_contract_are_named_and_the_fetch_goes_on() {
    let sample = sample();
    let beyond = PIECES as u32;
    let later = |update: AvailabilityUpdate| move |sample: &Sample, address| vec![start(sample, address), update];
    let changed = |change: fn(&mut AvailabilityStart)| {
        move |sample: &Sample, address| {
            let mut update = start(sample, address);
            change(update.start.as_mut().unwrap());
            vec![update]
        }
    };
    let hostile: [(&str, Says); 6] = [
        ("piece 12", Box::new(later(AvailabilityUpdate { gained: vec![0, beyond], ..Default::default() }))),
        (
            "piece 4294967295",
            Box::new(later(AvailabilityUpdate { ask_for: Some(AskFor { pieces: vec![u32::MAX] }), ..Default::default() })),
        ),
        ("was sent already", Box::new(|sample: &Sample, address| vec![start(sample, address), start(sample, address)])),
        ("another document", Box::new(changed(|start| start.blake3 = vec![1; 32].into()))),
        ("another document", Box::new(changed(|start| start.size += PIECE))),
        ("pieces", Box::new(changed(|start| start.pieces = vec![0xff; 3].into()))),
    ];
    for (expected, says) in hostile {
        let hostile = Holder::saying(|address| says(&sample, address)).await;
        let fetched = fetch_beside(&Fetcher::new().await, &sample, &hostile).await;
        let report = fetched.sources.iter().find(|report| report.source.label() == "hostile").unwrap();
        assert_eq!(report.bytes, 0);
        let why = report.dropped.as_deref().unwrap();
        assert!(why.contains("broke the protocol") && why.contains(expected), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn named_members_that_cannot_be_dialled_or_are_this_peer_are_not_asked() {
    let sample = sample();
    let fetcher = Fetcher::new().await;
    let own = fetcher.peer.address;
    let named = |endpoint: String, complete| SwarmPeer {
        peer: Some(Contact { name: "named".to_owned(), endpoint, ..Default::default() }),
        complete,
        ..Default::default()
    };
    let hostile = Holder::saying(|address| {
        let endpoints = [own.to_string(), "0.0.0.0:7801".to_owned(), "127.0.0.1:0".to_owned(), String::new(), "a b".to_owned()];
        let peers = endpoints.into_iter().flat_map(|endpoint| [named(endpoint.clone(), true), named(endpoint, false)]).collect();
        vec![start(&sample, address), AvailabilityUpdate { peers, ..Default::default() }]
    })
    .await;
    let fetched = fetch_beside(&fetcher, &sample, &hostile).await;
    let others: Vec<_> = fetched.sources.iter().map(|report| report.source.label()).collect();
    assert_eq!(others, ["sharer", "hostile"]);
}
