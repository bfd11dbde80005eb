//! How many peers a search asks, and the searches of a running peer without a registry.

use super::{hash, job::Fixed};
use crate::support::{document::Sample, eventually, holder::Holder, peer::Peer, within};
use p2pdi::{
    document::DocumentName,
    v1::{RfcQueryRequest, RfcQueryResponse},
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        find_peers::{Asked, FindPeers, PeerSample},
        rfc_query::Listed,
        search::{Freshness, HolderSearch, SearchError},
        source::Source,
        through_peers::ask_mesh_through,
    },
};
use std::{convert::Infallible, fs, sync::Arc, time::Duration};

#[tokio::test]
async fn a_search_asks_no_more_peers_than_it_needs() {
    let sample = Sample::rfc48(1);
    // Of the peers asked first, one holds it.
    let mut peers = vec![Holder::holding("holder", &sample, Duration::ZERO).await];
    for _ in 1..40 {
        peers.push(Holder::answering(Vec::new()).await);
    }
    let sources = peers.iter().enumerate().map(|(at, peer)| peer.source(if at == 0 { "holder" } else { "other" })).collect();
    let search = HolderSearch::new(ChannelPool::new(None), Arc::new(Fixed(sources)));
    let settled = within("the search", search.settle(&hash(&sample), Freshness::Asked)).await.unwrap();
    assert_eq!(settled.found.holders, [peers[0].source("holder")]);
    let queries = || peers.iter().map(Holder::queries).sum::<usize>();
    // The first round has too few holders; with the second, one is enough.
    let asked = queries();
    assert!(asked > 8 && asked <= 24, "{asked} of 40 peers were asked");
    // Nobody has this one: all are asked, once.
    let error = within("the search", search.settle(&wanted("nowhere.txt"), Freshness::Asked)).await.unwrap_err();
    assert!(matches!(error, SearchError::NotFound { .. }), "{error}");
    assert_eq!(queries() - asked, 40);
}

/// A peer of this name with this text as `über.txt`, or with nothing, that has the other as its bootnode.
async fn peer(name: &str, text: Option<&str>, bootnode: Option<&Peer>) -> Peer {
    let files: Vec<_> = text.map(|text| ("Über.txt", text.as_bytes())).into_iter().collect();
    let bootnode = bootnode.map(|peer| format!("{}:{}", peer.handle.identity().name(), peer.address.port()).parse().unwrap());
    Peer::configured(&files, |config| {
        config.name = name.parse().unwrap();
        config.bootnodes = bootnode.into_iter().collect();
    })
    .await
}

fn wanted(name: &str) -> DocumentSelector {
    DocumentSelector::Name(DocumentName::parse(name).unwrap())
}

#[tokio::test]
async fn holders_in_the_mesh_answer_a_question_to_all() {
    let hub = peer("hub", None, None).await;
    let (holder, asker) = (peer("holder", Some("text"), Some(&hub)).await, peer("asker", None, Some(&hub)).await);
    eventually("links to the hub", async || {
        let linked = [&holder, &asker].iter().all(|peer| !peer.handle.mesh().view().neighbours.is_empty());
        (linked && hub.handle.mesh().view().neighbours.len() == 2).then_some(())
    })
    .await;
    assert!(within("no answer", asker.handle.network().ask_all(&wanted("unknown.txt"), Asked::default())).await.is_empty());
    let answers = within("an answer", asker.handle.network().ask_all(&wanted("über.txt"), Asked::default())).await;
    let [(source, listed)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((source.label(), source.endpoint.port()), ("holder", holder.address.port()));
    assert_eq!((listed[0].document.name.as_str(), listed[0].document.size()), ("Über.txt", 4));
    // All peers hear a question, so the same one is not asked again at once.
    assert!(asker.handle.network().ask_all(&wanted("über.txt"), Asked::default()).await.is_empty());
    // Who reads all messages does not see those between peers.
    for peer in [&hub, &holder, &asker] {
        assert_eq!(peer.handle.inbox().latest(10).len(), 0);
    }
}

#[tokio::test]
async fn a_peer_finds_a_document_among_the_peers_it_knows() {
    let hub = peer("hub", Some("text"), None).await;
    let asker = peer("asker", None, Some(&hub)).await;
    eventually("a link", async || (!asker.handle.mesh().view().neighbours.is_empty()).then_some(())).await;
    let search = asker.handle.holders();
    let settled = within("the search", search.settle(&wanted("ÜBER.TXT"), Freshness::Asked)).await.unwrap();
    assert_eq!((settled.found.confirmed, settled.found.holders[0].label()), (1, "hub"));
    let hash = settled.found.document.hash;
    assert_eq!(within("the holders", search.holders(hash, Freshness::Learned)).await.unwrap(), settled.found.holders);
    let error = within("the search", search.settle(&wanted("nowhere.txt"), Freshness::Asked)).await.unwrap_err();
    assert!(matches!(&error, SearchError::NotFound { asked, .. } if asked.contains("hub")), "{error}");
}

/// What a client that is in no mesh can do: it knows the hub, of more peers than it can ask.
struct OnlyHub {
    hub: Source,
    channels: ChannelPool,
}

impl FindPeers for OnlyHub {
    type Error = Infallible;

    async fn sample(&self, _: usize) -> Result<PeerSample, Infallible> {
        Ok(PeerSample { peers: vec![self.hub.clone()], are_all: false })
    }

    async fn ask_all(&self, wanted: &DocumentSelector, asked: Asked) -> Vec<(Source, Vec<Listed>)> {
        assert!(!asked.all && asked.answered == [self.hub.clone()], "{asked:?}");
        ask_mesh_through(&self.channels, &asked.answered, wanted).await
    }
}

/// Adds a file that nobody has heard of.
async fn share_now(holder: &Peer, name: &str) {
    fs::write(holder.share().join(name), name).unwrap();
    eventually("the file in the index", async || holder.handle.share().index().by_name(name).map(|_| ())).await;
}

/// The answer of `peer` to a client that would have it ask its mesh.
async fn ask_through(peer: &Peer, name: &str) -> RfcQueryResponse {
    let request = RfcQueryRequest { name: name.to_owned(), ask_mesh: true, ..Default::default() };
    let mut answer = within("an answer", peer.client().rfc_query(request)).await.unwrap().into_inner();
    let first = within("the message", answer.message()).await.unwrap().unwrap();
    assert!(within("the end", answer.message()).await.unwrap().is_none());
    first
}

#[tokio::test]
async fn a_client_that_is_in_no_mesh_has_a_peer_ask_it_and_finds_what_none_of_those_it_asked_knows() {
    let hub = peer("hub", None, None).await;
    let holder = peer("holder", None, Some(&hub)).await;
    eventually("a link", async || (!hub.handle.mesh().view().neighbours.is_empty()).then_some(())).await;
    // The hub may list what the holder has at any time, and then knows without asking.
    let mut asked = false;
    for number in 0..5 {
        let name = format!("new{number}.txt");
        share_now(&holder, &name).await;
        let answer = ask_through(&hub, &name).await;
        let [holding] = answer.holdings.as_slice() else { panic!("{answer:?}") };
        let [named] = holding.holders.as_slice() else { panic!("{answer:?}") };
        assert_eq!((named.peer_name.as_str(), named.endpoint.as_str()), ("holder", holder.address.to_string().as_str()));
        // It is the word of another peer.
        assert_ne!(named.age, Some(prost_types::Duration::default()), "{answer:?}");
        asked = answer.asked_mesh;
        if asked {
            break;
        }
    }
    assert!(asked, "the hub never asked its mesh");
    let nobody = ask_through(&hub, "nowhere.txt").await;
    assert!(nobody.asked_mesh && nobody.holdings.is_empty(), "{nobody:?}");
    // All peers heard the question: it is not repeated at once.
    assert!(!ask_through(&hub, "nowhere.txt").await.asked_mesh);

    let channels = ChannelPool::new(None);
    let peers = Arc::new(OnlyHub { hub: hub.source("hub"), channels: channels.clone() });
    let search = HolderSearch::new(channels, peers).asking_at_most(1);
    share_now(&holder, "rare.txt").await;
    let settled = within("the search", search.settle(&wanted("rare.txt"), Freshness::Asked)).await.unwrap();
    assert_eq!((settled.found.confirmed, settled.found.holders), (0, vec![holder.source("holder")]));
}
