//! The fetch with its search for holders, as a job.

use super::*;
use crate::support::holder::{Step, sending};
use p2pdi::{
    document::DocumentName,
    v1::{self, Holding},
};
use peerd::{
    holders::search::{Freshness, HolderSearch, SearchError},
    transfer::fetch::job::{FetchJob, FetchRequest, FindPeers, JobError, PeerSample},
};
use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};
use tonic::Status;

/// Always the same peers.
pub(crate) struct Fixed(pub(crate) Vec<Source>);

impl FindPeers for Fixed {
    type Error = Infallible;

    async fn sample(&self, count: usize) -> Result<PeerSample, Infallible> {
        Ok(PeerSample { peers: self.0.iter().take(count).cloned().collect(), are_all: self.0.len() <= count })
    }
}

/// Peers that cannot be listed for the first few times.
struct Away {
    peers: Fixed,
    times: AtomicUsize,
    passes: bool,
}

/// Why they cannot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unlisted {
    #[error("the registry is being restarted")]
    Passing,
    #[error("the registry refuses")]
    Lasting,
}

impl FindPeers for Away {
    type Error = Unlisted;

    fn may_pass(error: &Unlisted) -> bool {
        *error == Unlisted::Passing
    }

    async fn sample(&self, count: usize) -> Result<PeerSample, Unlisted> {
        if self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(if self.passes { Unlisted::Passing } else { Unlisted::Lasting });
        }
        self.peers.sample(count).await.map_err(|never| match never {})
    }
}

#[tokio::test]
async fn a_job_that_waits_for_holders_waits_for_a_registry_that_is_restarted_but_not_for_one_that_refuses() {
    let sample = Sample::rfc48(2);
    let honest = Holder::honest(&sample).await;
    let holder = Holder::naming(sample.document(), honest.address).await;
    for (passes, patience) in [(true, Duration::from_secs(30)), (true, Duration::ZERO), (false, Duration::from_secs(30))] {
        let target = Target::new();
        let mut request = request(&target, hash(&sample), Vec::new());
        request.options.wait_for_holders = patience;
        let peers = Away { peers: Fixed(vec![holder.source("lister")]), times: AtomicUsize::new(2), passes };
        let (job, _) = FetchJob::new(request, target.channels.clone(), Arc::new(peers));
        let ended = within("the job", job.run()).await;
        if passes && patience > Duration::ZERO {
            ended.unwrap();
            target.assert_holds_only(&sample);
        } else {
            assert!(matches!(ended, Err(JobError::Search(SearchError::Peers(_)))), "{ended:?}");
        }
    }
}

pub(crate) fn request(target: &Target, wanted: DocumentSelector, from: Vec<Source>) -> FetchRequest {
    let options = target.options();
    FetchRequest { wanted, from, options }
}

#[tokio::test]
async fn a_job_without_peers_or_holders_fails_and_names_the_peers_asked() {
    let sample = Sample::rfc48(2);
    let target = Target::new();
    let wanted = DocumentSelector::Number(48);
    let (job, _) = FetchJob::new(request(&target, wanted.clone(), Vec::new()), target.channels.clone(), Arc::new(Fixed(vec![])));
    assert!(matches!(within("the job", job.run()).await, Err(JobError::Search(SearchError::NoPeers { .. }))));
    // It serves the document but does not list it.
    let unlisted = Holder::honest(&sample).await;
    let peers = Arc::new(Fixed(vec![unlisted.source("unlisted")]));
    let (job, mut watch) = FetchJob::new(request(&target, wanted, Vec::new()), target.channels.clone(), peers);
    let error = within("the job", job.run()).await.unwrap_err();
    assert_eq!(error.to_string(), "nobody has RFC 48; asked unlisted");
    assert!(watch.event().await.is_none());
}

#[tokio::test]
async fn a_job_whose_name_is_settled_asks_nobody_again_what_it_means() {
    let sample = Sample::rfc48(3);
    let holder = Holder::holding("holder", &sample, Duration::ZERO).await;
    let target = Target::new();
    let wanted = DocumentSelector::Name(DocumentName::parse(&sample.name).unwrap());
    let peers = Arc::new(Fixed(vec![holder.source("holder")]));
    let search = HolderSearch::new(target.channels.clone(), Arc::clone(&peers));
    let settled = within("the search", search.settle(&wanted, Freshness::Asked)).await.unwrap();
    let asked = holder.queries();
    assert_eq!(asked, 1);
    let (job, _) = FetchJob::new(request(&target, wanted, Vec::new()), target.channels.clone(), peers);
    within("the job", job.beginning_with(settled).run()).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(holder.queries(), asked);
}

#[tokio::test]
async fn a_spawned_job_fetches_and_shows_its_progress() {
    let sample = Sample::rfc48(3);
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let request = request(&target, hash(&sample), vec![honest.source("honest")]);
    let (job, mut watch) = FetchJob::new(request, target.channels.clone(), Arc::new(Fixed(vec![])));
    let fetched = within("the job", tokio::spawn(job.run())).await.unwrap().unwrap();
    assert!(watch.event().await.is_none());
    assert_eq!((watch.progress().size(), watch.progress().verified()), (sample.size(), sample.size()));
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    target.assert_holds_only(&sample);
}

#[tokio::test]
async fn documents_that_were_not_asked_for_are_never_delivered() {
    let (wanted, other) = (Sample::rfc48(2), Sample::new("other.txt", 0, vec![7; 1_000]));
    let holder = Holder::honest(&other).await;
    let liar = Holder::naming(other.document(), holder.address).await;
    let target = Target::new();
    let name = DocumentName::parse(&wanted.name).unwrap();
    for selector in [hash(&wanted), DocumentSelector::Number(48), DocumentSelector::Name(name)] {
        let peers = Arc::new(Fixed(vec![liar.source("liar")]));
        let (job, _) = FetchJob::new(request(&target, selector, Vec::new()), target.channels.clone(), peers);
        let error = within("the job", job.run()).await.unwrap_err();
        assert!(matches!(error, JobError::Search(SearchError::NotFound { .. })), "{error}");
    }
    // It does not keep an honest peer's answer from being used either.
    let honest = Holder::honest(&wanted).await;
    let lister = Holder::naming(wanted.document(), honest.address).await;
    let peers = Arc::new(Fixed(vec![liar.source("liar"), lister.source("lister")]));
    let (job, _) = FetchJob::new(request(&target, hash(&wanted), Vec::new()), target.channels.clone(), peers);
    within("the job", job.run()).await.unwrap();
    target.assert_holds_only(&wanted);
}

/// A document and its holders, as a peer lists them.
fn holding(sample: &Sample, holders: &[&Holder]) -> Holding {
    let holder = |holder: &&Holder| v1::Holder { endpoint: holder.address.to_string(), ..Default::default() };
    Holding { document: Some(sample.document()), holders: holders.iter().map(holder).collect() }
}

#[tokio::test]
async fn a_job_searches_again_once_all_known_holders_failed() {
    let sample = Sample::rfc48(3);
    let breaks_off = {
        let sample = sample.clone();
        // The header and the first piece, and nothing after that.
        Holder::start(move |call, request| match call {
            0 => {
                let mut steps = sending(sample.answer(request));
                steps.truncate(2);
                steps.push(Step::Fail(Status::unavailable("stopping")));
                steps
            }
            _ => vec![Step::Fail(Status::not_found("not here any more"))],
        })
        .await
    };
    let honest = Holder::honest(&sample).await;
    let index = Holder::answering(vec![holding(&sample, &[&honest])]).await;
    let target = Target::new();
    let request = request(&target, hash(&sample), vec![breaks_off.source("quitter")]);
    let peers = Arc::new(Fixed(vec![index.source("index")]));
    let (job, _) = FetchJob::new(request, target.channels.clone(), peers);
    let fetched = within("the job", job.run()).await.unwrap();
    assert!(dropped(&fetched.sources, "quitter").contains("not here any more"), "{:?}", fetched.sources);
    assert_eq!(kept(&fetched.sources, &honest.address.to_string()), sample.size() - PIECE);
    target.assert_holds_only(&sample);
}
