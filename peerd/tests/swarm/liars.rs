//! Holders that send wrong bytes, and members that say wrong things.

use super::{
    Fetcher,
    support::{
        bytes,
        document::{PIECE, Sample},
        holder::Holder,
        peer::Peer,
        within,
    },
};
use bytes::Bytes;
use p2pdi::{contact::Contact, content::ContentHash, id::PeerId, v1::get_rfc_response::Part};
use peerd::{
    documents::selector::DocumentSelector,
    fetcher::Fetcher as OneFetch,
    holders::{
        candidate::Candidate,
        search::{Freshness, SearchHolders},
        source::Source,
        tracker::{Announced, Announcement, Tracker},
    },
    session::AnnounceError,
    transfer::{FetchOptions, fetch},
};
use std::{sync::Arc, time::Duration};

fn flipped(sample: &Sample) -> impl Future<Output = Holder> {
    Holder::tampering(sample, |_, mut messages| {
        for message in &mut messages {
            if let Some(Part::Chunk(chunk)) = &mut message.part {
                let mut data = chunk.data.to_vec();
                data[0] ^= 1;
                chunk.data = Bytes::from(data);
            }
        }
        messages
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_wrong_bytes_is_named_and_none_of_its_bytes_arrive_by_any_way() {
    let sample = Sample::new("doc.bin", 0, bytes((24 * PIECE) as usize));
    let liar = flipped(&sample).await;
    let honest = Peer::configured(&[("doc.bin", &sample.data)], |config| config.upload_limit = Some(4 * PIECE)).await;
    let (first, second) = (Fetcher::new().await, Fetcher::new().await);
    let sources = || vec![liar.source("liar"), honest.source("sharer")];
    let (one, other) = tokio::join!(first.fetch(sample.hash(), sources()), second.fetch(sample.hash(), sources()));
    for (fetcher, fetched) in [(&first, one.unwrap()), (&second, other.unwrap())] {
        fetcher.assert_has(&fetched, &sample.data);
        let report = fetched.sources.iter().find(|report| report.source.label() == "liar").unwrap();
        assert_eq!(report.bytes, 0);
        assert!(report.dropped.as_ref().unwrap().contains("wrong bytes in piece"), "{report:?}");
    }
}

/// A tracker that knows nobody but one that lies, and says who is to search only if that one is of no use.
struct KnowsALiar(Source);

#[tonic::async_trait]
impl Tracker for KnowsALiar {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        let liar =
            Candidate { source: self.0.clone(), zone: String::new(), had: announcement.size, complete: true, reported: false };
        let interval = Duration::from_secs(60);
        Ok(Announced { others: vec![liar], interval, search: announcement.starved, ..Announced::default() })
    }
}

struct Finds(Source);

impl SearchHolders for Finds {
    async fn search(&self, _: ContentHash, _: Freshness) -> Vec<Source> {
        vec![self.0.clone()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_whose_only_listed_holder_lies_finds_another_one() {
    let sample = Sample::new("doc.bin", 0, bytes((24 * PIECE) as usize));
    let liar = flipped(&sample).await;
    let honest = Peer::sharing(&[("doc.bin", &sample.data)]).await;
    let contact = Contact::new(PeerId::from_bytes([7; 16]), "one".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
    let tracker = Arc::new(KnowsALiar(liar.source("liar")));
    let fetcher = OneFetch::new(contact, String::new(), None, tracker);
    let out = tempfile::tempdir().unwrap();
    // It fails after this without a byte: long before an interval of the tracker.
    let options = FetchOptions { stall: Duration::from_secs(20), ..FetchOptions::new(out.path(), fetcher.swarms().clone()) };
    let (wanted, finds) = (DocumentSelector::Hash(sample.hash()), Arc::new(Finds(honest.source("sharer"))));
    let (channels, progress) = (honest.handle.channels(), Arc::default());
    let fetching = fetch(channels, &wanted, vec![liar.source("liar")], finds, &options, &progress);
    let fetched = within("the fetch", fetching).await.unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == sample.data);
    let liar = fetched.sources.iter().find(|report| report.source.label() == "liar").unwrap();
    assert!(liar.dropped.as_ref().unwrap().contains("wrong bytes in piece"), "{liar:?}");
}
