//! Which content a name or a number means, when peers have different ones or change it.

use super::{
    job::{Fixed, request},
    *,
};
use crate::support::{document::PIECE, holder::Holder, source};
use p2pdi::{
    document::DocumentName,
    v1::{self, Holding},
};
use peerd::{
    holders::{
        search::{Freshness, HolderSearch, SearchError},
        settlement::Settled,
    },
    transfer::fetch::job::{FetchEvent, FetchJob, JobError},
};
use std::convert::Infallible;

const AT_ONCE: Duration = Duration::ZERO;
/// Longer than a peer on the other side of the world takes.
const FAR: Duration = Duration::from_millis(300);

/// Versions of a document: the same name, other content.
fn version(number: u8) -> Sample {
    Sample::new("notes.txt", 0, vec![number; 1_000 + usize::from(number)])
}

fn name() -> DocumentSelector {
    DocumentSelector::Name(DocumentName::parse("Notes.txt").unwrap())
}

async fn settle(peers: &[(&str, &Holder)]) -> Result<Settled, SearchError<Infallible>> {
    let peers = peers.iter().map(|(name, holder)| holder.source(name)).collect();
    let search = HolderSearch::new(ChannelPool::new(None), Arc::new(Fixed(peers)));
    within("the search", search.settle(&name(), Freshness::Learned)).await
}

#[tokio::test]
async fn a_holder_that_answers_late_counts_as_much_as_the_fastest() {
    let (lie, truth) = (version(1), version(2));
    let near = Holder::holding("near", &lie, AT_ONCE).await;
    let alone = settle(&[("near", &near)]).await.unwrap();
    assert_eq!((alone.found.document.hash, alone.contents), (lie.hash(), 1));
    let far = [
        Holder::holding("a", &truth, FAR).await,
        Holder::holding("b", &truth, FAR).await,
        Holder::holding("c", &truth, FAR).await,
    ];
    let settled = settle(&[("near", &near), ("a", &far[0]), ("b", &far[1]), ("c", &far[2])]).await.unwrap();
    assert_eq!(settled.found.document.hash, truth.hash());
    assert_eq!((settled.votes, settled.all_votes, settled.contents), (3, 4, 2));
}

#[tokio::test]
async fn what_is_not_clear_is_not_fetched_and_each_content_is_named_with_its_holders() {
    let (first, second) = (version(1), version(2));
    let holders = [Holder::holding("a", &first, AT_ONCE).await, Holder::holding("b", &second, FAR).await];
    let target = Target::new();
    let peers = Arc::new(Fixed(vec![holders[0].source("a"), holders[1].source("b")]));
    let (job, mut watch) = FetchJob::new(request(&target, name(), Vec::new()), target.channels.clone(), Arc::clone(&peers));
    let error = within("the job", job.run()).await.unwrap_err();
    let words = error.to_string();
    for part in
        ["Notes.txt is ambiguous", &format!("b3:{}", first.hash()), &format!("b3:{}", second.hash()), "held by a", "held by b"]
    {
        assert!(words.contains(part), "{part} is missing in: {words}");
    }
    assert!(matches!(error, JobError::Search(SearchError::Ambiguous { found, .. }) if found.len() == 2));
    assert!(watch.event().await.is_none());
    assert_eq!(target.files(), []);
    // The hash decides.
    let (job, _) = FetchJob::new(request(&target, hash(&second), Vec::new()), target.channels.clone(), peers);
    within("the job", job.run()).await.unwrap();
    target.assert_holds_only(&second);
}

#[tokio::test]
async fn ten_invented_holders_do_not_outvote_two_that_have_the_document() {
    let (lie, truth) = (version(1), version(2));
    let invented =
        (1..=10).map(|n| v1::Holder { peer_name: format!("x{n}"), endpoint: format!("192.0.2.{n}:1"), ..Default::default() });
    let liar = Holder::answering(vec![Holding { document: Some(lie.document()), holders: invented.collect() }]).await;
    let honest = [Holder::holding("a", &truth, AT_ONCE).await, Holder::holding("b", &truth, FAR).await];
    let settled = settle(&[("liar", &liar), ("a", &honest[0]), ("b", &honest[1])]).await.unwrap();
    assert_eq!((settled.found.document.hash, settled.votes, settled.all_votes), (truth.hash(), 2, 2));
}

#[tokio::test]
async fn a_document_that_changes_between_search_and_fetch_is_settled_anew() {
    // What it serves is one version ahead of what it lists, the first two times.
    let served = |query: usize| version(u8::try_from(query.min(2)).unwrap());
    let listed_before = Holder::changing_ahead("a", served, AT_ONCE).await;
    let target = Target::impatient();
    let peers = Arc::new(Fixed(vec![listed_before.source("a")]));
    let (job, mut watch) = FetchJob::new(request(&target, name(), Vec::new()), target.channels.clone(), peers);
    let fetched = within("the job", job.run()).await.unwrap();
    assert_eq!(fetched.document.hash, version(2).hash());
    target.assert_holds_only(&version(2));
    let Some(FetchEvent::Changed { before, now }) = watch.event().await else {
        panic!("it does not say that the document changed")
    };
    assert_eq!((before, now.hash), (version(0).hash(), version(2).hash()));
}

#[tokio::test]
async fn a_holder_whose_advertised_address_is_unreachable_serves_where_it_answered() {
    let sample = Sample::rfc48(2);
    let honest = Holder::holding("a", &sample, AT_ONCE).await;
    let unreachable = Source::new("a".parse().ok(), "192.0.2.1:7801".parse().unwrap()).also_at(honest.address.into());
    let target = Target::new();
    let fetched = target.fetch(&hash(&sample), vec![unreachable]).await.unwrap();
    assert_eq!(fetched.fetched_bytes, sample.size());
    assert!(sample.size() > PIECE);
    target.assert_holds_only(&sample);
    let silent = source("silent", "192.0.2.1:7801".parse().unwrap());
    assert_eq!(silent.addresses().len(), 1);
}
