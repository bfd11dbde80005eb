//! A channel to the registries: each call goes to the one in use, and to another one when that fails.

use super::{
    choice::Place,
    connections::{Connection, Connections, Failed, nobody_answered},
    lookup::{Lookup, by_the_system},
    repeat::Repeat,
};
use crate::{
    channel::{Channel, Dial, REGISTRY_RESPONSE_MAX_BYTES},
    endpoint::Endpoint,
    status::retry_after,
};
use http_body_util::{BodyExt as _, Full, Limited};
use std::{
    error::Error,
    fmt,
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{
    Code, ConnectError, Status,
    body::Body,
    codegen::{
        Service,
        http::{Request, Response, StatusCode},
    },
};
use tracing::Instrument as _;

/// Most registries that one call is made at: who has more of them is better off with an error than with a call that lasts.
const TRIES_MAX: usize = 8;
/// A call that is given up after so long leaves its connection: the other machine may be gone, and behind one address (a Kubernetes Service)
/// a new connection may lead to another replica.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Largest answer that is kept until it is whole, in bytes: a message of the largest size, its frame's header and some room.
const ANSWER_MAX_BYTES: usize = REGISTRY_RESPONSE_MAX_BYTES + 64 * 1024;

/// A channel to the registries of a network, for the generated clients. It connects at the first call, to one of them at random, and keeps that
/// connection while it works. A call that may be repeated is made at another one when it fails there or takes long; the others, if they were not sent.
/// Of a name with several addresses each address counts as a registry; the name is resolved anew when one fails. Clones share the connection.
#[derive(Clone)]
pub struct RegistryChannel(Arc<Connections>);

impl RegistryChannel {
    /// A channel to one of `registries`.
    pub fn new(registries: &[Endpoint], dial: Dial) -> Self {
        Self::with_lookup(registries, dial, by_the_system())
    }

    /// A channel to one of `registries`, whose names `lookup` resolves.
    pub fn with_lookup(registries: &[Endpoint], dial: Dial, lookup: Lookup) -> Self {
        Self(Arc::new(Connections::new(registries, dial, lookup)))
    }

    /// All registries.
    pub fn registries(&self) -> &[Endpoint] {
        self.0.registries()
    }

    /// Where the latest call was answered; `None` before the first answer.
    pub fn in_use(&self) -> Option<Place> {
        self.0.in_use()
    }
}

/// The registry in use, or all of them before the first answer.
impl fmt::Display for RegistryChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.described())
    }
}

impl fmt::Debug for RegistryChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryChannel").field("registries", &self.registries()).field("in_use", &self.in_use()).finish()
    }
}

impl Service<Request<Body>> for RegistryChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call(Arc::clone(&self.0), request))
    }
}

/// What became of a call at one registry.
enum Outcome {
    Answered(Response<Body>),
    /// It cannot be served there now.
    Refused(Response<Body>, Option<Duration>),
    /// There is no answer. `unsent`: nor was there a call.
    Broken {
        status: Status,
        unsent: bool,
    },
}

type Connecting = Pin<Box<dyn Future<Output = Result<(Connection, bool), Vec<Failed>>> + Send>>;

async fn call(connections: Arc<Connections>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let repeat = Repeat::of(request.uri().path());
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = || Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));

    let mut round = Round::new(connections, repeat);
    let mut answers = JoinSet::new();
    let mut connecting = Some(round.connect());
    loop {
        tokio::select! {
            connected = connected(&mut connecting) => {
                connecting = None;
                match connected {
                    Ok((connection, is_new)) => {
                        answers.spawn(ask(connection.clone(), request(), repeat).in_current_span());
                        round.asked(connection, is_new);
                    }
                    Err(failed) => round.end_of_places(failed),
                }
            }
            Some(ended) = answers.join_next() => match ended {
                Ok((connection, Outcome::Answered(response))) => {
                    round.answered(&connection);
                    return Ok(response);
                }
                Ok((connection, outcome)) => {
                    let goes_on = round.failed(&connection, outcome);
                    if goes_on && connecting.is_none() {
                        connecting = Some(round.connect());
                    }
                }
                Err(panicked) => return Err(Status::from_error(Box::new(panicked))),
            },
            () = until(round.patience_ends()), if connecting.is_none() => connecting = Some(round.connect()),
        }
        if connecting.is_none() && answers.is_empty() {
            return round.end();
        }
    }
}

/// The connection that is being made, if one is.
async fn connected(connecting: &mut Option<Connecting>) -> Result<(Connection, bool), Vec<Failed>> {
    match connecting {
        Some(connecting) => connecting.await,
        None => pending().await,
    }
}

/// Ends at that time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// One call, at one registry after the other.
struct Round {
    connections: Arc<Connections>,
    repeat: Repeat,
    /// Places where it failed.
    tried: Vec<Place>,
    /// Places where a connection broke that was made before this call. It is made again, once: it may have been idle for long.
    broken: Vec<Place>,
    /// Where no answer came yet, and since when.
    waiting: Vec<Asked>,
    failed: Vec<Failed>,
    /// The refusal with the shortest pause until the call may be made again.
    refused: Option<(Response<Body>, Option<Duration>)>,
    /// There is no other place.
    no_more: bool,
}

struct Asked {
    connection: Connection,
    /// The connection was made for this call.
    is_new: bool,
    at: Instant,
}

impl Round {
    fn new(connections: Arc<Connections>, repeat: Repeat) -> Self {
        Self {
            connections,
            repeat,
            tried: Vec::new(),
            broken: Vec::new(),
            waiting: Vec::new(),
            failed: Vec::new(),
            refused: None,
            no_more: false,
        }
    }

    /// Connects to a place where the call was not made yet.
    fn connect(&self) -> Connecting {
        let connections = Arc::clone(&self.connections);
        let tried: Vec<_> = self.tried.iter().chain(self.waiting.iter().map(|asked| &asked.connection.place)).cloned().collect();
        Box::pin(async move { connections.get(&tried).await })
    }

    fn asked(&mut self, connection: Connection, is_new: bool) {
        self.waiting.push(Asked { connection, is_new, at: Instant::now() });
    }

    /// There is nothing else to connect to.
    fn end_of_places(&mut self, failed: Vec<Failed>) {
        self.no_more = true;
        self.failed.extend(failed);
    }

    /// When the latest registry has had enough time to answer. `None`: the call is not made elsewhere meanwhile.
    fn patience_ends(&self) -> Option<Instant> {
        let patience = self.repeat.patience().filter(|_| self.may_go_on())?;
        Some(self.waiting.last()?.at + patience)
    }

    fn may_go_on(&self) -> bool {
        !self.no_more && self.tried.len() + self.waiting.len() < TRIES_MAX
    }

    fn answered(&mut self, by: &Connection) {
        self.connections.answered(by);
        let late = self.repeat.patience().unwrap_or(SILENCE_MAX);
        for asked in std::mem::take(&mut self.waiting) {
            if asked.connection.place != by.place && asked.at.elapsed() >= late {
                self.connections.failed(&asked.connection, None);
            }
        }
    }

    /// Whether the call is to be made elsewhere, or again.
    fn failed(&mut self, connection: &Connection, outcome: Outcome) -> bool {
        let is_it = |asked: &mut Asked| asked.connection.place == connection.place;
        let is_new = self.waiting.extract_if(.., is_it).any(|asked| asked.is_new);
        let place = connection.place.clone();
        let (is_over, asked) = match outcome {
            Outcome::Answered(_) => return false,
            Outcome::Refused(response, asked) => {
                let is_sooner =
                    self.refused.as_ref().is_none_or(|(_, before)| asked.unwrap_or_default() < before.unwrap_or_default());
                if is_sooner {
                    self.refused = Some((response, asked));
                }
                (true, asked)
            }
            Outcome::Broken { status, unsent } => {
                self.failed.push(Failed { place: place.to_string(), status });
                if !unsent && self.repeat == Repeat::Unsent {
                    self.no_more = true;
                }
                (is_new || self.broken.contains(&place), None)
            }
        };
        self.connections.failed(connection, asked);
        if is_over {
            self.tried.push(place)
        } else {
            self.broken.push(place)
        }
        self.may_go_on()
    }

    fn end(&mut self) -> Result<Response<Body>, Status> {
        match self.refused.take() {
            Some((response, _)) => Ok(response),
            None => Err(nobody_answered(std::mem::take(&mut self.failed))),
        }
    }
}

/// The caller gave up.
impl Drop for Round {
    fn drop(&mut self) {
        for asked in &self.waiting {
            if asked.at.elapsed() >= SILENCE_MAX {
                self.connections.failed(&asked.connection, None);
            }
        }
    }
}

/// Makes the call on this connection.
async fn ask(connection: Connection, request: Request<Body>, repeat: Repeat) -> (Connection, Outcome) {
    let outcome = match send(connection.channel.clone(), request).await {
        Ok(response) => classify(response, repeat).await,
        Err(error) => {
            let unsent = is_connect_error(error.as_ref());
            Outcome::Broken { status: Status::from_error(error), unsent }
        }
    };
    (connection, outcome)
}

async fn send(mut channel: Channel, request: Request<Body>) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
    poll_fn(|cx| channel.poll_ready(cx)).await?;
    Ok(channel.call(request).await?.map(Body::new))
}

fn is_connect_error(error: &(dyn Error + 'static)) -> bool {
    error.is::<ConnectError>() || error.source().is_some_and(is_connect_error)
}

/// What this response says. A single answer is read to its end: its status may come last, and the connection may break before.
async fn classify(response: Response<Body>, repeat: Repeat) -> Outcome {
    if let Some(status) = Status::from_header_map(response.headers()) {
        return of_status(response, &status, repeat);
    }
    if repeat != Repeat::Unsent && is_passing(response.status()) {
        return Outcome::Refused(response, None);
    }
    if !matches!(repeat, Repeat::Unary(_)) {
        return Outcome::Answered(response);
    }
    let (parts, body) = response.into_parts();
    match Limited::new(body, ANSWER_MAX_BYTES).collect().await {
        Ok(whole) => {
            let status = whole.trailers().and_then(Status::from_header_map);
            let response = Response::from_parts(parts, Body::new(whole));
            match status {
                Some(status) => of_status(response, &status, repeat),
                None => Outcome::Answered(response),
            }
        }
        Err(error) => Outcome::Broken { status: Status::from_error(error), unsent: false },
    }
}

fn of_status(response: Response<Body>, status: &Status, repeat: Repeat) -> Outcome {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded if repeat != Repeat::Unsent => Outcome::Refused(response, retry_after(status)),
        _ => Outcome::Answered(response),
    }
}

/// What proxies answer while there is nobody behind them ("HTTP to gRPC Status Code Mapping" in the gRPC specification).
fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}
