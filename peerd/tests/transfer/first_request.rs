//! The first request of a fetch: what it brings, and what is requested with it.

use super::{job::Fixed, *};
use crate::support::holder::{Step, sending};
use p2pdi::{document::DocumentName, status::Reason, v1::GetRfcRequest};
use peerd::{
    holders::{
        candidate::Candidate,
        tracker::{Announced, Announcement, Tracker},
    },
    session::AnnounceError,
    transfer::fetch::job::{FetchJob, FetchRequest},
};
use std::sync::atomic::{AtomicUsize, Ordering};

impl Target {
    fn options_for(&self, sample: &Sample) -> FetchOptions {
        let name = DocumentName::parse(&sample.name).unwrap();
        FetchOptions { expected_size: Some(sample.size()), save_as: Some(name), ..self.options() }
    }

    async fn fetch_known(&self, sample: &Sample, sources: Vec<Source>) -> Result<Fetched, FetchError> {
        let (options, wanted) = (self.options_for(sample), hash(sample));
        let fetching = fetch(&self.channels, &wanted, sources, Arc::new(NoMoreHolders), &options, &self.progress);
        within("the fetch", Box::pin(fetching)).await
    }
}

fn asks_for_all(request: &GetRfcRequest) -> bool {
    request.offset == 0 && request.length == 0
}

#[tokio::test]
async fn of_a_document_of_known_size_the_first_request_brings_one_piece_that_counts() {
    let sample = Sample::rfc48(8);
    let (a, b) = (Holder::honest(&sample).await, Holder::honest(&sample).await);
    let target = Target::new();
    let fetched = target.fetch_known(&sample, vec![a.source("a"), b.source("b")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
    let requests = [a.requests(), b.requests()].concat();
    assert!(!requests.iter().any(asks_for_all), "{requests:?}");
    let first = &a.requests()[0];
    assert!(first.offset % PIECE == 0 && (PIECE / 2..=PIECE).contains(&first.length), "{first:?}");
    let again = requests.iter().filter(|request| sample.range(request).contains(&first.offset)).count();
    assert_eq!(again, 1, "the piece of the first request is not requested again: {requests:?}");
}

#[tokio::test]
async fn what_is_here_already_is_not_asked_for_again_by_the_first_request() {
    let sample = Sample::rfc48(4);
    let first_piece = {
        let sample = sample.clone();
        Holder::start(move |_, request| {
            let mut steps = sending(sample.answer(request));
            steps.truncate(2);
            steps.push(Step::Fail(tonic::Status::not_found("gone")));
            steps
        })
        .await
    };
    let target = Target::new();
    target.fetch(&hash(&sample), vec![first_piece.source("first")]).await.unwrap_err();
    let honest = Holder::honest(&sample).await;
    let fetched = target.fetch_known(&sample, vec![honest.source("honest")]).await.unwrap();
    assert_eq!(fetched.resumed_bytes, PIECE);
    assert_eq!(honest.requests()[0].offset, sample.size(), "the header only: {:?}", honest.requests());
    assert_eq!(asked_pieces(&honest), [1, 2, 3]);
}

#[tokio::test]
async fn over_a_long_path_the_pieces_that_follow_are_requested_before_the_answer() {
    let (sample, asked) = (Sample::rfc48(80), Arc::new(AtomicUsize::new(0)));
    let holder = Holder::start({
        let (sample, asked) = (sample.clone(), Arc::clone(&asked));
        move |_, request| {
            let before = asked.fetch_add(1, Ordering::SeqCst);
            let mut steps = sending(sample.answer(request));
            if before == 0 {
                let asked = Arc::clone(&asked);
                steps.insert(0, Step::Until(Box::new(move || asked.load(Ordering::SeqCst) >= 5)));
            }
            steps
        }
    })
    .await;
    let target = Target::new();
    let fetched = target.fetch_known(&sample, vec![holder.source("far")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_fetched_once(&target, &fetched, &sample, 0);
}

#[tokio::test]
async fn a_wrong_size_is_not_the_fault_of_a_holder() {
    let sample = Sample::rfc48(3);
    for wrong in [sample.size() - 5, sample.size() + 5, 40 * PIECE] {
        let honest = {
            let sample = sample.clone();
            Holder::start(move |_, request| match sample.range(request).end > sample.size() {
                true => vec![Step::Fail(Reason::RangeBeyondEnd.status("the range ends beyond the end"))],
                false => sending(sample.answer(request)),
            })
            .await
        };
        let target = Target::new();
        let options = FetchOptions { expected_size: Some(wrong), ..target.options_for(&sample) };
        let (wanted, sources) = (hash(&sample), vec![honest.source("honest")]);
        let fetching = fetch(&target.channels, &wanted, sources, Arc::new(NoMoreHolders), &options, &target.progress);
        let fetched = within("the fetch", Box::pin(fetching)).await.unwrap();
        target.assert_holds_only(&sample);
        assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    }
}

/// Names these for every announce, and records them.
struct Names {
    others: Vec<Candidate>,
    size: u64,
    announced: Mutex<Vec<Announcement>>,
}

#[tonic::async_trait]
impl Tracker for Names {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        self.announced.lock().unwrap().push(announcement);
        let (others, interval) = (self.others.clone(), Duration::from_secs(60));
        Ok(Announced { others, interval, search: true, size: self.size, ..Default::default() })
    }
}

#[tokio::test]
async fn a_fetch_by_hash_announces_itself_and_asks_nobody_else_who_has_the_document() {
    let sample = Sample::rfc48(6);
    let honest = Holder::honest(&sample).await;
    let others = vec![Candidate::found(honest.source("honest"), sample.size())];
    let tracker = Arc::new(Names { others, size: sample.size(), announced: Mutex::default() });
    let target = Target::new();
    let swarms = Swarms::of_a_client("tester".parse().unwrap(), Arc::<Names>::clone(&tracker));
    let options = FetchOptions { swarms, ..target.options() };
    // There is no peer that could be asked.
    let request = FetchRequest { wanted: hash(&sample), from: Vec::new(), options };
    let (job, _) = FetchJob::new(request, target.channels.clone(), Arc::new(Fixed(vec![])));
    within("the job", job.run()).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(honest.queries(), 0);
    let announced = tracker.announced.lock().unwrap();
    assert!((announced[0].size, announced[0].had, announced[0].done) == (0, 0, false), "{announced:?}");
    let later = announced.iter().skip(1).all(|announcement| announcement.size == sample.size());
    assert!(later, "one by hash alone is enough: {announced:?}");
}

#[tokio::test]
async fn a_fetch_by_hash_searches_if_the_tracker_names_nobody() {
    let sample = Sample::rfc48(2);
    let holder = Holder::holding("holder", &sample, Duration::ZERO).await;
    let tracker = Arc::new(Names { others: Vec::new(), size: 0, announced: Mutex::default() });
    let target = Target::new();
    let swarms = Swarms::of_a_client("tester".parse().unwrap(), Arc::<Names>::clone(&tracker));
    let request = FetchRequest { wanted: hash(&sample), from: Vec::new(), options: FetchOptions { swarms, ..target.options() } };
    let (job, _) = FetchJob::new(request, target.channels.clone(), Arc::new(Fixed(vec![holder.source("holder")])));
    within("the job", job.run()).await.unwrap();
    target.assert_holds_only(&sample);
    assert!(!tracker.announced.lock().unwrap()[0].done);
}
