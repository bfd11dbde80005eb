//! Which messages reached whom, and how soon: the same for all sides.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest wait for what is still under way at the end of a round.
const LAST: Duration = Duration::from_secs(20);

/// Messages under way, each to the same number of receivers.
pub(crate) struct Tally {
    receivers: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    under_way: std::collections::HashMap<u64, UnderWay>,
    /// Microseconds until the last receiver had it.
    took: Vec<f64>,
}

struct UnderWay {
    begun: Instant,
    /// Receivers that do not have it yet.
    missing: usize,
    _place: OwnedSemaphorePermit,
}

/// What a round came to.
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

    /// Counts what one receiver hears.
    pub(crate) fn receiver(self: &Arc<Self>) -> Receiver {
        Receiver { tally: Arc::clone(self), heard: HashSet::new() }
    }

    /// Sends for `duration`, at most `window` messages at once that not everybody has. `send` gets each one's place in the row.
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
        assert!(all.is_ok(), "{} messages did not reach everybody; how many each lacks: {missing:?}", missing.len());
        let took = std::mem::take(&mut state.took);
        Round { rate: took.len() as f64 / begun.elapsed().as_secs_f64(), took }
    }
}

/// One receiver.
pub(crate) struct Receiver {
    tally: Arc<Tally>,
    heard: HashSet<u64>,
}

impl Receiver {
    /// A message came. It counts once, and must not come again.
    pub(crate) fn heard(&mut self, body: &[u8]) {
        let number = number(body);
        assert!(self.heard.insert(number), "message {number} came twice");
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

/// A body of `size` bytes that says its number.
pub(crate) fn body(number: u64, size: usize) -> bytes::Bytes {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size, b'x');
    body.into()
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().unwrap())
}
