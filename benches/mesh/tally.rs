//! Records which messages reached which receivers, and when; the same for both sides.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest wait for messages in flight at the end of a round.
const LAST: Duration = Duration::from_secs(20);

/// Messages in flight, each to the same number of receivers.
pub(crate) struct Tally {
    receivers: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    under_way: std::collections::HashMap<u64, UnderWay>,
    /// Microseconds until the last receiver had each message.
    took: Vec<f64>,
}

struct UnderWay {
    begun: Instant,
    /// Receivers that do not have it yet.
    missing: usize,
    _place: OwnedSemaphorePermit,
}

/// The result of a round.
#[derive(Clone)]
pub(crate) struct Round {
    /// Messages a second that all receivers got.
    pub(crate) rate: f64,
    /// Microseconds until the last receiver had each, in any order.
    pub(crate) took: Vec<f64>,
}

impl Tally {
    pub(crate) fn new(receivers: usize) -> Arc<Self> {
        Arc::new(Self { receivers, state: Mutex::default() })
    }

    /// Counts what one receiver gets.
    pub(crate) fn receiver(self: &Arc<Self>) -> Receiver {
        Receiver { tally: Arc::clone(self), seen: HashSet::new() }
    }

    /// Sends for `duration`, with at most `window` messages in flight. `send` gets the number of each message.
    pub(crate) async fn round<F>(self: &Arc<Self>, duration: Duration, window: usize, send: impl Fn(u64) -> F) -> Round
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(window));
        let begun = Instant::now();
        while begun.elapsed() < duration {
            let Ok(place) = timeout(LAST, Arc::clone(&places).acquire_owned()).await else { break };
            let number = {
                let mut state = self.state.lock().unwrap();
                state.next += 1;
                let number = state.next;
                let under_way = UnderWay { begun: Instant::now(), missing: self.receivers, _place: place.unwrap() };
                state.under_way.insert(number, under_way);
                number
            };
            tokio::spawn(send(number));
        }
        let all = timeout(LAST, places.acquire_many(u32::try_from(window).unwrap())).await;
        let mut state = self.state.lock().unwrap();
        let missing: Vec<_> = state.under_way.values().map(|under_way| under_way.missing).collect();
        assert!(all.is_ok(), "{} messages did not reach all receivers; receivers missing for each: {missing:?}", missing.len());
        let took = std::mem::take(&mut state.took);
        Round { rate: took.len() as f64 / begun.elapsed().as_secs_f64(), took }
    }
}

/// One receiver.
pub(crate) struct Receiver {
    tally: Arc<Tally>,
    seen: HashSet<u64>,
}

impl Receiver {
    /// A message arrived. A second time is an error.
    pub(crate) fn received(&mut self, body: &[u8]) {
        let number = number(body);
        assert!(self.seen.insert(number), "message {number} arrived twice");
        let mut state = self.tally.state.lock().unwrap();
        let Some(under_way) = state.under_way.get_mut(&number) else { panic!("message {number} was not sent") };
        under_way.missing -= 1;
        if under_way.missing == 0 {
            let took = under_way.begun.elapsed().as_secs_f64() * 1e6;
            state.took.push(took);
            state.under_way.remove(&number);
        }
    }
}

/// A body of `size` bytes that begins with its number.
pub(crate) fn body(number: u64, size: usize) -> bytes::Bytes {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size, b'x');
    body.into()
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().unwrap())
}
