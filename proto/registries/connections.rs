//! The connection to the registry in use, and how another one is made.

use super::{
    choice::{Choice, Place},
    lookup::{self, Lookup},
};
use crate::{
    channel::{Channel, Dial},
    endpoint::Endpoint,
    first_address::ATTEMPT_DELAY,
    log_limit::{Line, LogLimit},
    platform::uptime,
    status,
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync, task::JoinSet, time::sleep};
use tonic::Status;
use tracing::Instrument as _;

/// Moves that are logged in a minute: more than registries that are restarted one by one cause.
const LOGGED_MAX: u32 = 10;

/// The registries of a client.
pub(super) struct Connections {
    registries: Box<[Endpoint]>,
    dial: Dial,
    lookup: Lookup,
    state: Mutex<State>,
    /// Held by who connects: others wait for that connection.
    connecting: sync::Mutex<()>,
    log: LogLimit,
}

#[derive(Default)]
struct State {
    choice: Choice,
    current: Option<Current>,
    /// Where the latest call was answered.
    in_use: Option<Place>,
    /// Connections made so far.
    made: u64,
}

/// The connection for the next call.
struct Current {
    connection: Connection,
    /// It proved to work.
    has_answered: bool,
}

/// A connection to one place. It is made again when it breaks.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) place: Place,
    pub(super) channel: Channel,
    number: u64,
}

/// A place where a call failed, and how.
pub(super) struct Failed {
    pub(super) place: String,
    pub(super) status: Status,
}

impl Connections {
    pub(super) fn new(registries: &[Endpoint], dial: Dial, lookup: Lookup) -> Self {
        let mut distinct: Vec<Endpoint> = Vec::with_capacity(registries.len());
        for registry in registries {
            if !distinct.contains(registry) {
                distinct.push(registry.clone());
            }
        }
        Self {
            registries: distinct.into(),
            dial,
            lookup,
            state: Mutex::default(),
            connecting: sync::Mutex::default(),
            log: LogLimit::new(LOGGED_MAX),
        }
    }

    pub(super) fn registries(&self) -> &[Endpoint] {
        &self.registries
    }

    /// Where the latest call was answered; `None` before the first answer.
    pub(super) fn in_use(&self) -> Option<Place> {
        self.state().in_use.clone()
    }

    /// The registry in use as text for people, or all of them before the first answer.
    pub(super) fn described(&self) -> String {
        let state = self.state();
        match &state.in_use {
            Some(place) if state.choice.is_only_one(place) => place.registry.to_string(),
            Some(place) => place.to_string(),
            None => self.registries.iter().map(Endpoint::as_str).collect::<Vec<_>>().join(", "),
        }
    }

    /// A connection to a place that is not in `tried`, and whether it was made just now: the current one, or else the first that comes about.
    ///
    /// # Errors
    /// All that failed; nothing if there is no other place.
    pub(super) async fn get(&self, tried: &[Place]) -> Result<(Connection, bool), Vec<Failed>> {
        if let Some(current) = self.current(tried) {
            return Ok((current, false));
        }
        let _turn = self.connecting.lock().await;
        if let Some(current) = self.current(tried) {
            return Ok((current, true));
        }
        let known = self.state().choice.places();
        let (places, unresolved) = lookup::places(&self.registries, known, &self.lookup).await;
        let mut failed: Vec<_> = unresolved
            .into_iter()
            .map(|(registry, error)| Failed { place: registry.to_string(), status: Status::from_error(Box::new(error)) })
            .collect();
        let order = {
            let mut state = self.state();
            state.choice.set_places(&places, random);
            state.choice.order(uptime(), tried)
        };
        match self.first_of(order, &mut failed).await {
            Some((place, channel)) => Ok((self.set_current(place, channel), true)),
            None => Err(failed),
        }
    }

    /// Connects to the first place that accepts: the next one is tried when one fails or takes long.
    async fn first_of(&self, order: Vec<Place>, failed: &mut Vec<Failed>) -> Option<(Place, Channel)> {
        let mut attempts = JoinSet::new();
        let mut waiting = order.into_iter().peekable();
        loop {
            if let Some(place) = waiting.next() {
                let dial = self.dial.clone();
                let attempt = async move {
                    let connected = dial.connect_registry(&place.registry, place.address).await;
                    (place, connected)
                };
                attempts.spawn(attempt.in_current_span());
            }
            tokio::select! {
                ended = attempts.join_next() => match ended {
                    Some(Ok((place, Ok(channel)))) => return Some((place, channel)),
                    Some(Ok((place, Err(error)))) => {
                        self.rest(&place, None);
                        failed.push(Failed { place: place.to_string(), status: Status::from_error(Box::new(error)) });
                    }
                    // The runtime reports a panic.
                    Some(Err(_)) => {}
                    None => return None,
                },
                () = sleep(ATTEMPT_DELAY), if waiting.peek().is_some() => {}
            }
        }
    }

    fn current(&self, tried: &[Place]) -> Option<Connection> {
        let state = self.state();
        let connection = &state.current.as_ref()?.connection;
        (!tried.contains(&connection.place)).then(|| connection.clone())
    }

    fn set_current(&self, place: Place, channel: Channel) -> Connection {
        let mut state = self.state();
        state.made += 1;
        let connection = Connection { place, channel, number: state.made };
        state.current = Some(Current { connection: connection.clone(), has_answered: false });
        connection
    }

    fn rest(&self, place: &Place, asked: Option<Duration>) {
        let random = random_fraction();
        self.state().choice.failed(place, uptime(), asked, random);
    }

    /// A call failed on this connection, or was not answered in time: the next one goes elsewhere, if there is another place, and otherwise
    /// on a new connection. `asked`: for how long the registry asked to be left alone.
    pub(super) fn failed(&self, connection: &Connection, asked: Option<Duration>) {
        self.rest(&connection.place, asked);
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| current.connection.number == connection.number) {
            state.current = None;
        }
    }

    /// A call was answered on this connection. It is kept, unless another one is in use that works, too.
    pub(super) fn answered(&self, connection: &Connection) {
        let mut state = self.state();
        state.choice.answered(&connection.place);
        if state.current.as_ref().is_some_and(|current| current.has_answered && current.connection.number != connection.number) {
            return;
        }
        state.current = Some(Current { connection: connection.clone(), has_answered: true });
        let before = state.in_use.replace(connection.place.clone()).filter(|before| *before != connection.place);
        drop(state);
        if let Some(before) = before
            && let Some(Line { suppressed }) = self.log.line()
        {
            tracing::info!(suppressed, "calls go to the registry at {} now, no longer to {before}", connection.place);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to say when nobody answered: of several different failures all of them.
pub(super) fn nobody_answered(all: Vec<Failed>) -> Status {
    // Of a place that was dialled again the latest.
    let mut failed: Vec<Failed> = Vec::with_capacity(all.len());
    for one in all {
        failed.retain(|before| before.place != one.place);
        failed.push(one);
    }
    let reasons: Vec<_> = failed.iter().map(|failed| status::describe(&failed.status)).collect();
    let differ = reasons.iter().any(|reason| reasons.first() != Some(reason));
    match failed.pop() {
        None => Status::unavailable("no registry is given"),
        Some(last) if !differ => last.status,
        Some(last) => {
            failed.push(last);
            let all = failed.iter().zip(reasons).map(|(failed, reason)| format!("{}: {reason}", failed.place));
            Status::unavailable(all.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Without randomness from the system all clients have the same order, which is no error.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// In `0.0..1.0`.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / (f64::from(u32::MAX) + 1.0))
}
