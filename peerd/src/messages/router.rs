//! One message to one named peer: this one, or any that there is a way to.

use crate::{
    connections::channels::ChannelPool,
    inbox::{LocalDelivery, MessageKind, REPLY_TIMEOUT, Whisper},
    mesh::{Mesh, WhisperError},
    session::Session,
};
use bytes::Bytes;
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    name::PeerName,
    status::Reason,
    v1::{self, WhisperRequest, WhisperResponse},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::{error::Elapsed, timeout_at};
use tonic::Status;

/// How long a message may take to arrive and its answer to come back, whichever way.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of that a peer that is linked or dialled may take, so that there is time for the next way.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(2);
// A handler that takes its time is no reason to try another way.
const _: () = assert!(REPLY_TIMEOUT.as_millis() * 2 <= DIRECT_TIMEOUT.as_millis());
/// How many peers may pass a message on by dialling: the one that was asked. Along links: `routing::HOPS_MAX`.
const DIALS_MAX: u32 = 1;
/// How long a peer that only the mesh could reach is not dialled first: behind a NAT, each dial in vain may take all of
/// [`DIRECT_TIMEOUT`].
const DETOUR_LIFETIME: Duration = Duration::from_secs(30);
/// Such peers remembered, some 100 bytes each. A guess: more than one writes to within that time.
const DETOURS_MAX: usize = 1_024;

/// Takes messages for this peer and finds the way for those to others.
pub(crate) struct MessageRouter {
    me: Contact,
    post: LocalDelivery,
    session: Session,
    channels: ChannelPool,
    mesh: Mesh,
    detours: Detours,
}

/// Peers that only the mesh could reach lately.
#[derive(Default)]
struct Detours(Mutex<BTreeMap<PeerName, Instant>>);

impl Detours {
    fn remember(&self, name: &PeerName) {
        let mut taken = self.taken();
        taken.retain(|_, at| at.elapsed() < DETOUR_LIFETIME);
        if taken.len() < DETOURS_MAX {
            taken.insert(name.clone(), Instant::now());
        }
    }

    fn forget(&self, name: &PeerName) {
        self.taken().remove(name);
    }

    fn has(&self, name: &PeerName) -> bool {
        self.taken().get(name).is_some_and(|at| at.elapsed() < DETOUR_LIFETIME)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<PeerName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageRouter {
    /// Delivers to `post`, and finds others through `session` and `mesh`.
    pub(crate) fn new(me: Contact, post: LocalDelivery, session: Session, channels: ChannelPool, mesh: Mesh) -> Self {
        Self { me, post, session, channels, mesh, detours: Detours::default() }
    }

    /// Delivers a message: here, along a link, one dial away, or along a way that the mesh finds.
    ///
    /// # Errors
    /// When a field is wrong, or there is no way to the receiver.
    pub(crate) async fn deliver(&self, request: WhisperRequest) -> Result<WhisperResponse, Status> {
        let mut whisper = Whisper::try_from(request)?;
        // Of several peers with one name, that with the lowest id gets the messages, wherever they come in.
        let yields = self.mesh.view().yields_to().is_some();
        if whisper.to == *self.me.name() && !yields {
            return Ok(self.post.whisper(whisper).wait().await.into());
        }
        if whisper.message_id.is_empty() {
            whisper.message_id = Bytes::copy_from_slice(&rand::random::<u128>().to_be_bytes());
        }
        let begun = Instant::now();
        let answer = self.pass_on(&whisper, begun).await?;
        Ok(WhisperResponse { round_trip: prost_types::Duration::try_from(begun.elapsed()).ok(), ..answer })
    }

    async fn pass_on(&self, whisper: &Whisper, begun: Instant) -> Result<WhisperResponse, Status> {
        let no_route =
            |why: &str| Reason::NoRoute.status(format!("request cannot be fulfilled: no route to {}{why}", whisper.to));
        // A peer that yields its name passes on even what was dialled to it; ids only fall on the way, so there is no circle.
        let dials = DIALS_MAX + u32::from(whisper.to == *self.me.name());
        if whisper.hops >= dials {
            return Err(no_route(": passed on often enough"));
        }
        let deadline = begun + DELIVERY_TIMEOUT;
        let direct = || deadline.min(Instant::now() + DIRECT_TIMEOUT);
        if let Ok(Ok(delivered)) = within(direct(), self.mesh.whisper_linked(whisper)).await {
            return Ok(delivered.into());
        }
        let too_many_seeks = || {
            let why = "the mesh is asked for more ways than it looks for; try again in a second";
            Reason::TooManySeeks.status(format!("whether there is a way to {} is not known: {why}", whisper.to))
        };
        if self.detours.has(&whisper.to) {
            match within(direct(), self.mesh.whisper_routed(whisper)).await {
                Ok(Ok(delivered)) => return Ok(delivered.into()),
                // Which says nothing of the way.
                Ok(Err(WhisperError::TooManySeeks)) => return Err(too_many_seeks()),
                _ => self.detours.forget(&whisper.to),
            }
        }
        let mut why = "";
        if let Ok(Some(endpoint)) = within(direct(), self.address(&whisper.to)).await {
            match within(direct(), self.dial(&endpoint, whisper)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if Reason::of(&error).is_some_and(|reason| reason != Reason::NoRoute) => return Err(error),
                // Its own words: somebody else answers at its address.
                Ok(Err(error)) if Reason::of(&error).is_some() => why = ": somebody else answers at its address",
                Ok(Err(_)) => why = ": it is known but does not answer",
                Err(_) => why = ": it is known but does not answer in time",
            }
        }
        match within(deadline, self.mesh.whisper_routed(whisper)).await {
            Ok(Ok(delivered)) => {
                self.detours.remember(&whisper.to);
                Ok(delivered.into())
            }
            Ok(Err(WhisperError::NoRoute)) => Err(no_route(why)),
            Ok(Err(WhisperError::Congested)) => Err(Reason::TooManyStreams
                .status(format!("too many messages wait on the link that leads to {}; try again later", whisper.to))),
            Ok(Err(WhisperError::TooManySeeks)) => Err(too_many_seeks()),
            Ok(Err(WhisperError::Stopping)) => Err(Reason::ShuttingDown.status("this peer is stopping; ask another")),
            Err(_) => Err(no_route(": the mesh did not find one in time")),
        }
    }

    /// Where a peer can be dialled: as the registry, a bootnode or the mesh says.
    async fn address(&self, name: &PeerName) -> Option<Endpoint> {
        if name == self.me.name() {
            return self.mesh.view().yields_to().map(|contact| contact.endpoint().clone());
        }
        match self.session.find(name).await {
            Some(known) => Some(known.endpoint().clone()),
            None => self.mesh.view().find(name).map(|contact| contact.endpoint().clone()),
        }
    }

    async fn dial(&self, endpoint: &Endpoint, whisper: &Whisper) -> Result<WhisperResponse, Status> {
        let request = v1::WhisperRequest {
            to: whisper.to.to_string(),
            kind: whisper.kind.as_str().to_owned(),
            body: whisper.body.clone(),
            from: whisper.from.clone(),
            hops: whisper.hops + 1,
            message_id: whisper.message_id.clone(),
        };
        let answer = self.channels.peer(endpoint, Some(&whisper.to)).whisper(request).await?.into_inner();
        if !answer.delivered_by.parse::<PeerName>().is_ok_and(|by| by == whisper.to) {
            return Err(Reason::NoRoute.status("somebody else answers at its address"));
        }
        // A receiver's words go on to whoever asked.
        if !answer.reply_kind.is_empty() && answer.reply_kind.parse::<MessageKind>().is_err() {
            return Err(Reason::NoRoute.status("who answers at its address is no peer"));
        }
        Ok(answer)
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    timeout_at(deadline.into(), work).await
}
