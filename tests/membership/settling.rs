//! Which content a name means, where a peer has learned of one and others have another one since.

use super::*;
use crate::support::{document::Sample, holder::Holder};
use p2pdi::{
    content::ContentHash,
    v1::{FetchRequest, Job, JobState, RfcQueryRequest},
};
use peerd::{
    documents::wanted::Wanted,
    holders::{
        rfc_query::{Limits, query},
        search::{Freshness, SearchError},
    },
    transfer::jobs::JobRequest,
};

const NAME: &str = "notes.txt";

/// Names of the documents that a peer lists, those that it learned of others included.
async fn listed(peer: &Peer) -> usize {
    let client = peer.handle.channels().peer(&peer.address.into(), None);
    query(client, RfcQueryRequest::default(), Limits::LISTING).await.unwrap().documents.len()
}

/// Puts a document into a peer's share, and waits until it is offered.
async fn put(peer: &Peer, content: &[u8]) {
    fs::write(peer.share().join(NAME), content).unwrap();
    let hash = ContentHash::of(content);
    eventually("the new document", async || {
        let index = peer.handle.share().index();
        (index.by_name(NAME)?.hash == hash).then_some(())
    })
    .await;
}

async fn fetch(peer: &Peer, wanted: &str) -> Job {
    let request = FetchRequest { wanted: vec![wanted.to_owned()], ..Default::default() };
    let mut job = peer.handle.jobs().submit(JobRequest::try_from(request).unwrap()).await.unwrap();
    within("the job's end", job.ended()).await.unwrap()
}

async fn settle(peer: &Peer) -> Result<(ContentHash, usize, usize), Vec<ContentHash>> {
    let Ok(Wanted::One(name)) = Wanted::parse(NAME) else { panic!("it is a name") };
    match within("the search", peer.handle.holders().settle(&name, Freshness::Learned)).await {
        Ok(settled) => Ok((settled.found.document.hash, settled.votes, settled.all_votes)),
        Err(SearchError::Ambiguous { found, .. }) => Err(found.iter().map(|found| found.document.hash).collect()),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until all peers are heard: one that answers a second after the others, as on a busy machine, is not.
async fn settles(peer: &Peer, expected: Result<(ContentHash, usize, usize), Vec<ContentHash>>) {
    eventually("that votes", async || (settle(peer).await == expected).then_some(())).await;
}

#[tokio::test]
async fn a_name_that_was_learned_is_settled_among_all_peers() {
    let registry = Running::in_memory().await;
    let (learned, new) = (&b"the one that was learned"[..], &b"the one that others have since"[..]);
    let (old, now) = (ContentHash::of(learned), ContentHash::of(new));
    let a = member("a", registry.address, &[(NAME, learned)]).await;
    let others = [
        member("b", registry.address, &[("b.txt", b"b")]).await,
        member("c", registry.address, &[("c.txt", b"c")]).await,
        member("d", registry.address, &[("d.txt", b"d")]).await,
    ];
    let asker = member("asker", registry.address, &[]).await;
    eventually("what all have", async || (listed(&asker).await == 4).then_some(())).await;
    settles(&asker, Ok((old, 1, 1))).await;

    // Peers are polled every twenty seconds: this is not learned yet.
    put(&others[0], new).await;
    eventually("two contents", async || settle(&asker).await.is_err_and(|found| found.len() == 2).then_some(())).await;
    for wanted in [NAME, "notes*"] {
        let job = fetch(&asker, wanted).await;
        let why = job.failed.first().map_or(&job.detail, |failed| &failed.why);
        assert!(job.state() == JobState::Failed && why.contains("AMBIGUOUS"), "{job:?}");
        for part in [old.to_string(), now.to_string()] {
            assert!(why.contains(&part), "{part} is missing in: {why}");
        }
    }
    assert!(!asker.share().join(NAME).exists());

    // Three of four peers are clear.
    put(&others[1], new).await;
    put(&others[2], new).await;
    settles(&asker, Ok((now, 3, 4))).await;
    let job = fetch(&asker, NAME).await;
    assert_eq!(job.state(), JobState::Done, "{job:?}");
    assert_eq!(fs::read(asker.share().join(NAME)).unwrap(), new);

    // What this peer has fetched is replaced by a newer version, also one that it has not learned of.
    let newer = b"the newest";
    for peer in [&a, &others[0], &others[1], &others[2]] {
        put(peer, newer).await;
    }
    let job = fetch(&asker, NAME).await;
    assert_eq!(job.state(), JobState::Done, "{job:?}");
    assert_eq!(fs::read(asker.share().join(NAME)).unwrap(), newer);
    for peer in others.into_iter().chain([a, asker]) {
        peer.stop().await;
    }
    registry.stop().await;
}

#[tokio::test]
async fn a_job_for_a_name_does_not_wait_long_for_a_peer_that_is_silent() {
    let registry = Running::in_memory().await;
    let sample = Sample::new(NAME, 0, b"text".to_vec());
    let holder = Holder::holding("holder", &sample, Duration::ZERO).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, address) in [("holder", holder.address), ("silent", silent.local_addr().unwrap())] {
        let endpoint = address.to_string();
        let request = RegisterRequest { name: name.into(), endpoint, id: vec![7; 16].into(), ..Default::default() };
        register(registry.address, request).await;
    }
    let asker = member("asker", registry.address, &[]).await;
    let job = fetch(&asker, NAME).await;
    assert_eq!((job.state(), job.documents_done), (JobState::Done, 1), "{job:?}");
    asker.stop().await;
    registry.stop().await;
}
