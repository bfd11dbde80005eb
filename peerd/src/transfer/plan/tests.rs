//! One fetch, step by step.

use super::{Action, EndedBy, Event, Has, HolderId, PieceSet, PlanConfig, Planner, RequestId, Waiting};
use p2pdi::content::{PIECE_SIZE_MIN, Pieces};
use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

struct Fetch {
    planner: Planner,
    now: Instant,
    requests: BTreeMap<RequestId, (HolderId, Range<usize>)>,
    actions: Vec<Action>,
}

impl Fetch {
    fn new(pieces: u64) -> Self {
        let pieces = Pieces::of_size(pieces * PIECE_SIZE_MIN).unwrap();
        let planner = Planner::new(pieces, 1, PlanConfig::default());
        Self { planner, now: Instant::now(), requests: BTreeMap::new(), actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        self.planner.handle(event, self.now);
        self.act();
    }

    fn act(&mut self) {
        for action in self.planner.next_actions(self.now) {
            match &action {
                Action::Request { request, holder, pieces, .. } => {
                    self.requests.insert(*request, (*holder, pieces.clone()));
                }
                Action::Shorten { request, end } => {
                    if let Some((_, pieces)) = self.requests.get_mut(request) {
                        pieces.end = *end;
                    }
                }
                Action::Cancel { request } => drop(self.requests.remove(request)),
                Action::Drop { holder, .. } => self.requests.retain(|_, (other, _)| other != holder),
                Action::Search => {}
            }
            self.actions.push(action);
        }
        assert!(self.planner.next_timer().is_none_or(|at| at > self.now));
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now += Duration::from_millis(10);
            self.act();
        }
    }

    fn add(&mut self, holder: u32, has: Has, in_swarm: bool) {
        self.tell(Event::HolderAdded { holder: HolderId(holder), near: false, has, in_swarm });
    }

    /// All of a request arrives.
    fn deliver(&mut self, request: RequestId) {
        let (_, pieces) = self.requests.remove(&request).unwrap();
        self.planner.handle(Event::Began { request }, self.now);
        for piece in pieces {
            self.planner.handle(Event::Arrived { request, bytes: PIECE_SIZE_MIN }, self.now);
            self.planner.handle(Event::Verified { piece, request: Some(request) }, self.now);
        }
        self.tell(Event::Ended { request, by: EndedBy::Completion });
    }

    fn end(&mut self, request: RequestId, by: EndedBy) {
        self.requests.remove(&request);
        self.tell(Event::Ended { request, by });
    }

    /// The requests to a holder.
    fn asked(&self, holder: u32) -> Vec<(RequestId, Range<usize>)> {
        let to = self.requests.iter().filter(|(_, (other, _))| *other == HolderId(holder));
        to.map(|(request, (_, pieces))| (*request, pieces.clone())).collect()
    }

    fn searches(&self) -> usize {
        self.actions.iter().filter(|action| **action == Action::Search).count()
    }
}

fn pieces(count: usize, some: impl IntoIterator<Item = usize>) -> Has {
    let mut set = PieceSet::empty(count);
    for piece in some {
        set.insert(piece);
    }
    Has::Pieces(set)
}

#[test]
fn a_run_over_everything_is_shared_when_another_holder_appears() {
    let mut fetch = Fetch::new(1_000);
    fetch.add(1, Has::All, false);
    let runs: Vec<_> = fetch.asked(1).into_iter().map(|(_, run)| run).collect();
    assert_eq!(runs, [0..999, 999..1_000]);
    fetch.add(2, Has::All, false);
    assert!(fetch.asked(1)[0].1.end < 100);
    assert_eq!(fetch.asked(2).len(), 1);
}

#[test]
fn a_path_that_is_known_to_be_long_is_filled_at_once_with_windows_in_order() {
    let mut fetch = Fetch::new(1_000);
    let (holder, delay) = (HolderId(1), Duration::from_millis(150));
    fetch.planner.handle(Event::HolderAdded { holder, near: false, has: Has::All, in_swarm: false }, fetch.now);
    fetch.planner.handle(Event::Delay { holder, delay }, fetch.now);
    fetch.tell(Event::AskFor { holder, pieces: vec![700, 701] });
    let runs: Vec<_> = fetch.asked(1).into_iter().map(|(_, run)| run).collect();
    let windows: Vec<_> = (0..32).map(|window| 16 * window..16 * (window + 1)).collect();
    assert_eq!(runs, windows, "what the holder would like to send does not matter to who is alone");
    let in_turn = |action: &Action| matches!(action, Action::Request { in_turn: true, .. } | Action::Search);
    assert!(fetch.actions.iter().all(in_turn), "{:?}", fetch.actions);
    // Each window that arrives makes room for the next.
    fetch.now += delay;
    let (first, _) = fetch.asked(1)[0];
    fetch.deliver(first);
    assert_eq!(fetch.asked(1).last().unwrap().1, 512..528);
}

#[test]
fn a_member_that_also_fetches_ends_the_run_over_everything() {
    let mut fetch = Fetch::new(1_000);
    fetch.add(1, Has::All, false);
    fetch.add(2, pieces(1_000, []), true);
    assert!(fetch.asked(1)[0].1.end < 100 && fetch.asked(2).is_empty());
}

#[test]
fn a_fetch_whose_company_is_gone_takes_everything_in_one_run_again() {
    let mut fetch = Fetch::new(1_000);
    fetch.tell(Event::Company(true));
    fetch.add(1, Has::All, false);
    assert!(fetch.asked(1).iter().all(|(_, run)| run.len() < 100));
    fetch.tell(Event::Company(false));
    let (request, _) = fetch.asked(1)[0].clone();
    fetch.deliver(request);
    assert!(fetch.asked(1).iter().any(|(_, run)| run.len() > 100), "{:?}", fetch.asked(1));
}

#[test]
fn what_a_holder_asks_for_comes_first_and_in_its_order() {
    let mut fetch = Fetch::new(100);
    fetch.tell(Event::HolderAdded { holder: HolderId(1), near: false, has: Has::All, in_swarm: true });
    let (first, run) = fetch.asked(1)[0].clone();
    let list: Vec<_> = [70, 3, 44, 12].into_iter().filter(|piece| *piece != run.start).collect();
    fetch.tell(Event::AskFor { holder: HolderId(1), pieces: list.clone() });
    fetch.deliver(first);
    for expected in list {
        let (request, run) = fetch.asked(1)[0].clone();
        assert_eq!(run.start, expected);
        fetch.deliver(request);
    }
}

#[test]
fn the_rarest_piece_comes_first() {
    let mut fetch = Fetch::new(40);
    (0..5).for_each(|piece| fetch.tell(Event::Verified { piece, request: None }));
    fetch.add(1, pieces(40, 0..39), true);
    fetch.add(2, pieces(40, 0..39), true);
    fetch.add(3, pieces(40, 0..40), true);
    assert_eq!(fetch.asked(3)[0].1, 39..40);
}

#[test]
fn pieces_of_a_silent_holder_are_requested_elsewhere_and_the_loser_is_cancelled() {
    let mut fetch = Fetch::new(8);
    fetch.add(1, pieces(8, [5]), true);
    let (silent, _) = fetch.asked(1)[0].clone();
    fetch.add(2, Has::All, true);
    for _ in 0..7 {
        fetch.wait(50);
        let (request, run) = fetch.asked(2)[0].clone();
        assert!(!run.contains(&5));
        fetch.deliver(request);
    }
    fetch.wait(900);
    let (second, run) = fetch.asked(2)[0].clone();
    assert_eq!(run, 5..6);
    assert!(fetch.requests.contains_key(&silent), "it may answer still");
    fetch.deliver(second);
    assert!(fetch.actions.contains(&Action::Cancel { request: silent }) && fetch.planner.is_complete());
}

#[test]
fn a_holder_that_sends_a_wrong_piece_is_dropped_for_good() {
    let mut fetch = Fetch::new(8);
    fetch.add(1, Has::All, true);
    let (request, run) = fetch.asked(1)[0].clone();
    let by = EndedBy::WrongPiece(run.start);
    fetch.end(request, by);
    assert!(fetch.actions.contains(&Action::Drop { holder: HolderId(1), by }));
    fetch.wait(60_000);
    assert!(fetch.requests.is_empty());
    assert_eq!(fetch.planner.why_waiting(fetch.now), Some(Waiting::NoHolder));
}

#[test]
fn a_holder_that_fails_is_asked_again_and_dropped_in_the_end() {
    let mut fetch = Fetch::new(8);
    fetch.add(1, Has::All, false);
    let begun = fetch.now;
    for _ in 0..10 {
        if let Some((request, _)) = fetch.asked(1).first().cloned() {
            fetch.end(request, EndedBy::TransientFault);
            assert!(fetch.requests.is_empty());
        }
        fetch.wait(1_000);
    }
    let dropped = Action::Drop { holder: HolderId(1), by: EndedBy::TransientFault };
    assert!(fetch.actions.contains(&dropped) && fetch.now - begun <= Duration::from_secs(10));
}

#[test]
fn holders_are_searched_at_once_and_then_from_time_to_time() {
    let mut fetch = Fetch::new(8);
    fetch.act();
    assert_eq!(fetch.searches(), 1);
    fetch.wait(2_500);
    assert_eq!(fetch.searches(), 3, "each second while there is none");
    fetch.add(1, pieces(8, [0]), true);
    fetch.wait(20_500);
    assert_eq!(fetch.searches(), 5, "each ten seconds while there are few");
    (2..20).for_each(|holder| fetch.add(holder, Has::All, true));
    fetch.wait(30_000);
    assert_eq!(fetch.searches(), 5);
}

#[test]
fn pieces_that_are_being_checked_are_not_requested() {
    let mut fetch = Fetch::new(8);
    let Has::Pieces(checking) = pieces(8, 2..5) else { unreachable!() };
    fetch.tell(Event::Checking { pieces: checking });
    fetch.add(1, Has::All, true);
    let mut asked = Vec::new();
    while let Some((request, run)) = fetch.asked(1).first().cloned() {
        asked.extend(run);
        fetch.deliver(request);
    }
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 5, 6, 7]);
    fetch.tell(Event::Verified { piece: 2, request: None });
    fetch.tell(Event::Lost { piece: 3 });
    assert_eq!(fetch.asked(1)[0].1, 3..4);
    fetch.tell(Event::Verified { piece: 4, request: None });
    assert!(!fetch.planner.is_complete());
    let (request, _) = fetch.asked(1)[0].clone();
    fetch.deliver(request);
    assert!(fetch.planner.is_complete());
}

#[test]
fn a_run_ends_before_pieces_that_turn_out_to_be_there() {
    let mut fetch = Fetch::new(8);
    fetch.add(1, Has::All, false);
    let (request, run) = fetch.asked(1)[0].clone();
    assert_eq!(run, 0..8);
    fetch.tell(Event::Began { request });
    fetch.tell(Event::Arrived { request, bytes: 10 });
    (4..8).for_each(|piece| fetch.tell(Event::Verified { piece, request: None }));
    assert_eq!(fetch.asked(1)[0], (request, 0..4));
    fetch.deliver(request);
    assert!(fetch.planner.is_complete() && fetch.requests.is_empty());
}

#[test]
fn a_holder_is_not_asked_again_for_pieces_that_it_does_not_have() {
    let mut fetch = Fetch::new(4);
    fetch.add(1, Has::All, false);
    let (request, _) = fetch.asked(1)[0].clone();
    fetch.tell(Event::Verified { piece: 0, request: Some(request) });
    fetch.end(request, EndedBy::PiecesMissing);
    fetch.wait(5_000);
    assert!(fetch.requests.is_empty() && fetch.planner.useful_holders() == 0);
    fetch.tell(Event::Gained { holder: HolderId(1), pieces: vec![2] });
    assert_eq!(fetch.asked(1)[0].1, 2..3);
}

#[test]
fn requests_that_were_sent_before_the_plan_are_part_of_it() {
    let mut fetch = Fetch::new(8);
    fetch.planner.handle(Event::HolderAdded { holder: HolderId(1), near: false, has: Has::All, in_swarm: false }, fetch.now);
    let sent = fetch.now;
    let mut adopt = |holder: u32, run: Range<usize>| {
        let adopted = fetch.planner.adopt(HolderId(holder), run, sent)?;
        fetch.requests.insert(adopted.0, (HolderId(holder), adopted.1.clone()));
        Some(adopted)
    };
    let (first, run) = adopt(1, 3..4).unwrap();
    assert_eq!(run, 3..4);
    let (ahead, run) = adopt(1, 0..6).unwrap();
    assert_eq!(run, 0..3, "of a longer one, what is not requested yet");
    assert!(adopt(1, 3..8).is_none() && adopt(2, 5..6).is_none());
    fetch.act();
    fetch.deliver(first);
    fetch.deliver(ahead);
    let requested: Vec<_> = fetch
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Request { pieces, .. } => Some(pieces.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(requested.len(), 1);
    assert_eq!(requested[0], 4..8);
}

#[test]
fn a_long_path_to_an_only_holder_is_filled_from_the_first_answer_on() {
    const DELAY_MS: u64 = 150;
    let window = PlanConfig::default().stream_window;
    let mut fetch = Fetch::new(4 * 256);
    fetch.planner.handle(Event::HolderAdded { holder: HolderId(1), near: false, has: Has::All, in_swarm: false }, fetch.now);
    let (first, run) = fetch.planner.adopt(HolderId(1), 0..1, fetch.now).unwrap();
    fetch.requests.insert(first, (HolderId(1), run));
    fetch.now += Duration::from_millis(DELAY_MS);
    fetch.deliver(first);
    let in_flight: u64 = fetch.asked(1).iter().map(|(_, run)| (run.len() as u64 * PIECE_SIZE_MIN).min(window)).sum();
    let first = super::first_bytes(Duration::from_millis(DELAY_MS), window);
    assert!(first - window <= in_flight && in_flight <= PlanConfig::default().in_flight_long_max_bytes, "{in_flight}");
}
