//! Members of a swarm that say what is not so.

use super::{
    Fetcher,
    support::{document::Sample, eventually, holder::Holder, peer::Peer, within},
};
use p2pdi::{
    content::ContentHash,
    v1::{AskFor, AvailabilityRequest, AvailabilityStart, AvailabilityUpdate, Contact, SwarmPeer},
};
use peerd::{
    documents::selector::DocumentSelector,
    holders::{
        search::{Freshness, SearchHolders},
        source::Source,
    },
    transfer::{Fetched, fetch},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt as _, iter, pending};

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

/// Finds one holder.
struct Finds(Source);

impl SearchHolders for Finds {
    async fn search(&self, _: ContentHash, _: Freshness) -> Vec<Source> {
        vec![self.0.clone()]
    }
}

/// Members that this peer names to one that joins it, until `end`.
async fn named_by(peer: &Peer, sample: &Sample, end: impl Future<Output = ()>) -> Vec<String> {
    let joined = eventually("a stream with the fetcher", async || {
        let update = start(sample, "127.0.0.1:9".parse().unwrap());
        let id = vec![8; 16].into();
        let start = update.start.map(|start| AvailabilityStart { peer: start.peer.map(|peer| Contact { id, ..peer }), ..start });
        let update = Some(AvailabilityUpdate { start, ..Default::default() });
        peer.client().availability(iter([AvailabilityRequest { update }]).chain(pending())).await.ok()
    });
    let mut messages = joined.await.into_inner();
    let (mut named, mut end) = (Vec::new(), std::pin::pin!(end));
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = &mut end => return named,
        };
        let Ok(Some(message)) = message else { return named };
        named.extend(message.update.unwrap().peers.into_iter().map(|named| named.peer.unwrap().endpoint));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_made_up_holders_of_one_member_are_not_believed_and_crowd_out_nobody() {
    let sample = Sample::new("doc.bin", 0, super::support::bytes((2 * PIECES * PIECE) as usize));
    // Whoever connects there waits for an answer.
    let silent = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let made_up = |number: u16| SocketAddr::from((Ipv4Addr::from([127, 1, (number >> 8) as u8, number as u8]), port));
    let liar = Holder::saying(|address| {
        let named = |number| SwarmPeer {
            peer: Some(Contact { endpoint: made_up(number).to_string(), ..Default::default() }),
            complete: true,
            ..Default::default()
        };
        let lists = (0..12).map(|list| (list * 50..(list + 1) * 50).map(named).collect());
        let updates = lists.map(|peers| AvailabilityUpdate { peers, ..Default::default() });
        std::iter::once(start(&sample, address)).chain(updates).collect()
    })
    .await;
    let slow = Peer::configured(&[("doc.bin", &sample.data)], |config| config.upload_limit = Some(PIECE)).await;
    let later = Peer::sharing(&[("doc.bin", &sample.data)]).await;
    let fetcher = Fetcher::new().await;
    let (wanted, options) = (DocumentSelector::Hash(sample.hash()), fetcher.options());
    let sources = vec![slow.source("sharer"), liar.source("hostile")];
    let (ended, is_over) = tokio::sync::oneshot::channel::<()>();
    let fetching = async {
        let finds = Arc::new(Finds(later.source("sharer")));
        let fetched = fetch(fetcher.peer.handle.channels(), &wanted, sources, finds, &options, &fetcher.progress).await;
        drop(ended);
        fetched
    };
    let named = named_by(&fetcher.peer, &sample, async { drop(is_over.await) });
    let (fetched, named) = Box::pin(within("the fetch", async { tokio::join!(fetching, named) })).await;
    let fetched = fetched.unwrap();
    fetcher.assert_has(&fetched, &sample.data);
    let from = |peer: &Peer| fetched.sources.iter().find(|report| report.source.endpoint == peer.address.into()).unwrap().bytes;
    assert!(from(&later) > 0, "found after the liar spoke: {:?}", fetched.sources);
    assert_eq!(from(&slow) + from(&later), sample.size());
    let made_up = fetched.sources.iter().filter(|report| report.source.endpoint.port() == port);
    assert!(made_up.clone().count() <= 100, "of one stream");
    assert!(made_up.clone().all(|report| report.bytes == 0 && report.dropped.is_none()), "nothing is asked of them");
    // Those that it met, and nobody else.
    let honest = [slow.address, later.address, liar.address].map(|address| address.to_string());
    assert!(named.contains(&honest[0]) && named.iter().all(|endpoint| honest.contains(endpoint)), "{named:?}");
}
