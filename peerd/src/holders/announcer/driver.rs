//! Calls the tracker and searches, as the decisions say.

use super::decisions::{self, Action, Decisions, Event, TrackerFailure};
use crate::{
    holders::{
        candidate::Candidate,
        search::{Freshness, SearchHolders},
        source::Source,
        tracker::{self, Announced, Announcement, Tracker},
    },
    session::AnnounceError,
};
use p2pdi::content::ContentHash;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{future::pending, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

/// Notices that wait for the announcer: holders that are of no use, at most the few that were found.
const NOTICES_MAX: usize = 16;
/// Lists of candidates that wait for the fetch: it takes them as they come.
const CANDIDATES_WAITING: usize = 4;
/// Time limit of the last announce: a registry that misses it forgets this peer after some intervals.
const DONE_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(decisions::REPORTED_MAX <= tracker::REPORTED_MAX, "what is reported fits an announce");

/// What is announced.
pub struct Announcing {
    /// Hash of the document.
    pub hash: ContentHash,
    /// Its size, in bytes.
    pub size: u64,
    /// Verified bytes that this peer has.
    pub had: u64,
    /// Whole holders that were found before; repeated while they are of use.
    pub reported: Vec<Source>,
}

/// Announces one document. It ends with its handle.
pub struct Announcer<S> {
    hash: ContentHash,
    size: u64,
    reported: Vec<Source>,
    tracker: Arc<dyn Tracker>,
    /// `None` once nothing is searched for any more: a search holds the parts of the peer.
    search: Option<Arc<S>>,
    had: watch::Receiver<u64>,
    notices: mpsc::Receiver<Notice>,
    candidates: mpsc::Sender<Vec<Candidate>>,
}

/// What the fetch tells its announcer. Dropping it ends the announces: the tracker is told that this peer is done.
pub struct AnnouncerHandle {
    had: watch::Sender<u64>,
    notices: mpsc::Sender<Notice>,
}

enum Notice {
    WantMore { starved: bool },
    Useless(Source),
}

impl AnnouncerHandle {
    /// This peer has so many verified bytes. Cheap: call it as often as it changes.
    pub fn had(&self, bytes: u64) {
        self.had.send_replace(bytes);
    }

    /// More others are wanted. It announces early, at most every 5 s; without a tracker it searches. `starved`: nobody who is known has what
    /// is missing; then it announces after a second.
    pub fn want_more(&self, starved: bool) {
        // With others waiting, one is on its way already.
        let _full = self.notices.try_send(Notice::WantMore { starved });
    }

    /// A candidate does not answer, does not have the document, or sends wrong bytes: it is not reported to others any more.
    pub fn useless(&self, source: Source) {
        // A later announce repeats it, and the caller notices that again.
        let _full = self.notices.try_send(Notice::Useless(source));
    }
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The output of what is under way; never, if nothing is.
async fn output<T>(under_way: &mut Option<Pending<T>>) -> T {
    match under_way {
        Some(future) => {
            let output = future.await;
            *under_way = None;
            output
        }
        None => pending().await,
    }
}

impl<S: SearchHolders> Announcer<S> {
    /// An announcer for the document, its handle, and the candidates that it learns of: lists of peers that may be asked, as they come; the
    /// same peer comes again with what it has by then.
    pub fn new(
        announcing: Announcing,
        tracker: Arc<dyn Tracker>,
        search: Arc<S>,
    ) -> (Self, AnnouncerHandle, mpsc::Receiver<Vec<Candidate>>) {
        let Announcing { hash, size, had, reported } = announcing;
        let (had, had_changes) = watch::channel(had);
        let (notices, noticed) = mpsc::channel(NOTICES_MAX);
        let (candidates, learned) = mpsc::channel(CANDIDATES_WAITING);
        let announcer =
            Self { hash, size, reported, tracker, search: Some(search), had: had_changes, notices: noticed, candidates };
        (announcer, AnnouncerHandle { had, notices }, learned)
    }

    /// Announces until the handle is dropped, then tells the tracker that this peer is done.
    pub async fn run(mut self) {
        let announced = self.announce_while_wanted().await;
        self.search = None;
        if announced {
            let had = *self.had.borrow();
            let last = Announcement { done: true, ..self.announcement(had, Vec::new()) };
            // A registry that does not hear it forgets this peer by itself.
            let _left = timeout(DONE_TIMEOUT, self.tracker.announce(last)).await;
        }
    }

    /// Says whether the tracker may list this peer.
    async fn announce_while_wanted(&mut self) -> bool {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let started = Instant::now();
        let first_had = *self.had.borrow_and_update();
        let mut decisions = Decisions::new(self.size, first_had, std::mem::take(&mut self.reported), Duration::ZERO);
        let (mut announcing, mut searching) = (None, None);
        let mut announced = false;
        loop {
            let due = decisions.next();
            let time = async {
                match due {
                    Some(due) => sleep_until(started + due).await,
                    None => pending().await,
                }
            };
            let event = tokio::select! {
                answer = output(&mut announcing) => match answer {
                    Ok(Announced { others, interval, search, .. }) => {
                        announced = true;
                        let count = others.len();
                        tracing::debug!(document = %self.hash, others = count, ?interval, search, "announced");
                        self.pass_on(others).await;
                        Event::Answered { interval, search, others: count }
                    }
                    Err(error) => {
                        tracing::debug!(document = %self.hash, %error, "a document is not announced");
                        // It may be listed although the answer was lost.
                        announced |= matches!(error, AnnounceError::Unavailable(_));
                        Event::Failed(match error {
                            AnnounceError::NoTracker => TrackerFailure::NoTracker,
                            AnnounceError::Refused(_) => TrackerFailure::Refused,
                            AnnounceError::Unavailable(_) => TrackerFailure::Unavailable,
                        })
                    }
                },
                found = output(&mut searching) => {
                    let found: Vec<Source> = found;
                    tracing::debug!(document = %self.hash, holders = found.len(), "a search for holders ended");
                    let candidates = found.iter().map(|source| Candidate::found(source.clone(), self.size)).collect();
                    self.pass_on(candidates).await;
                    Event::Found(found)
                }
                changed = self.had.changed() => match changed {
                    Ok(()) => Event::Had(*self.had.borrow_and_update()),
                    Err(_) => return announced,
                },
                notice = self.notices.recv() => match notice {
                    Some(Notice::WantMore { starved }) => Event::WantMore { starved },
                    Some(Notice::Useless(source)) => Event::Useless(source),
                    None => return announced,
                },
                () = time => Event::Time,
            };
            for action in decisions.handle(event, started.elapsed(), &mut rng) {
                match action {
                    Action::Announce { had, holders, searched, starved } => {
                        let announcement = Announcement { searched, starved, ..self.announcement(had, holders) };
                        let tracker = Arc::clone(&self.tracker);
                        let call: Pending<_> = Box::pin(async move { tracker.announce(announcement).await });
                        announcing = Some(call);
                    }
                    Action::Search => {
                        tracing::debug!(document = %self.hash, "searching for holders");
                        let (Some(search), hash) = (self.search.clone(), self.hash) else { continue };
                        let call: Pending<_> = Box::pin(async move { search.search(hash, Freshness::Learned).await });
                        searching = Some(call);
                    }
                }
            }
        }
    }

    async fn pass_on(&self, candidates: Vec<Candidate>) {
        if !candidates.is_empty() {
            // Once the document is here nobody takes them any more; this peer stays announced, so that others find it.
            let _untaken = self.candidates.send(candidates).await;
        }
    }

    fn announcement(&self, had: u64, holders: Vec<Source>) -> Announcement {
        let (hash, size) = (self.hash, self.size);
        Announcement { hash, size, had, done: false, holders, searched: false, starved: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::{advance, pause};

    const SIZE: u64 = 100;

    /// Keeps what was announced, and answers from a list; at its end there is no tracker.
    #[derive(Default)]
    struct Script {
        announced: Mutex<Vec<Announcement>>,
        answers: Mutex<Vec<Announced>>,
    }

    #[tonic::async_trait]
    impl Tracker for Script {
        async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
            self.announced.lock().unwrap().push(announcement);
            self.answers.lock().unwrap().pop().ok_or(AnnounceError::NoTracker)
        }
    }

    /// Finds these.
    struct Finds(Vec<Source>);

    impl SearchHolders for Finds {
        async fn search(&self, _: ContentHash, _: Freshness) -> Vec<Source> {
            self.0.clone()
        }
    }

    fn source(port: u16) -> Source {
        Source::new(None, format!("10.0.0.1:{port}").parse().unwrap())
    }

    fn member(port: u16) -> Candidate {
        Candidate { source: source(port), zone: "z".into(), had: 5, complete: false, reported: false }
    }

    type Started = (Arc<Script>, AnnouncerHandle, mpsc::Receiver<Vec<Candidate>>, tokio::task::JoinHandle<()>);

    fn start(answers: Vec<Announced>, finds: Vec<Source>) -> Started {
        let script = Arc::new(Script { answers: Mutex::new(answers), ..Script::default() });
        let tracker: Arc<dyn Tracker> = Arc::<Script>::clone(&script);
        let announcing = Announcing { hash: ContentHash::of(b"x"), size: SIZE, had: 0, reported: Vec::new() };
        let (announcer, handle, candidates) = Announcer::new(announcing, tracker, Arc::new(Finds(finds)));
        (script, handle, candidates, tokio::spawn(announcer.run()))
    }

    #[tokio::test]
    async fn members_come_from_the_tracker_and_found_holders_are_reported_to_it_until_it_is_done() {
        pause();
        let interval = Duration::from_secs(15);
        let answers = vec![
            Announced { interval, ..Default::default() },
            Announced { interval, ..Default::default() },
            Announced { interval, search: true, ..Default::default() },
            Announced { interval, others: vec![member(1)], ..Default::default() },
        ];
        let (script, handle, mut candidates, running) = start(answers, vec![source(9)]);
        assert_eq!(candidates.recv().await.unwrap(), [member(1)]);
        assert_eq!(candidates.recv().await.unwrap(), [Candidate::found(source(9), SIZE)], "it was told to search");
        handle.had(40);
        advance(interval).await;
        handle.want_more(false);
        drop(handle);
        running.await.unwrap();
        let announced = script.announced.lock().unwrap();
        let (last, others) = announced.split_last().unwrap();
        assert!(last.done && last.had == 40 && others.iter().all(|announcement| !announcement.done), "{announced:?}");
        assert!(others[0].holders.is_empty() && others.iter().any(|announcement| announcement.holders == [source(9)]));
    }

    #[tokio::test]
    async fn without_a_tracker_it_searches_and_tells_nobody_that_it_is_done() {
        pause();
        let (script, handle, mut candidates, running) = start(vec![], vec![source(9)]);
        assert_eq!(candidates.recv().await.unwrap(), [Candidate::found(source(9), SIZE)]);
        drop(handle);
        running.await.unwrap();
        assert_eq!(script.announced.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn it_stays_announced_when_nobody_takes_what_it_learns_until_its_handle_is_dropped() {
        pause();
        let interval = Duration::from_secs(15);
        let answer = || Announced { interval, others: vec![member(1)], ..Default::default() };
        let (script, handle, candidates, running) = start(vec![answer(), answer(), answer()], vec![]);
        drop(candidates);
        handle.had(SIZE);
        while script.announced.lock().unwrap().len() < 3 {
            advance(interval).await;
        }
        assert!(!running.is_finished() && script.announced.lock().unwrap().iter().all(|announcement| !announcement.done));
        drop(handle);
        running.await.unwrap();
        assert!(script.announced.lock().unwrap().last().unwrap().done);
    }
}
