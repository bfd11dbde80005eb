//! Routes a message to one named peer: this one, or another by link, by dial or along a route of the mesh.

use super::senders::unsigned;
use crate::{
    connections::channels::ChannelPool,
    inbox::{LocalDelivery, MessageKind, REPLY_TIMEOUT, Whisper},
    mesh::{Mesh, WhisperError},
    session::{RegistryUnavailable, Session},
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

/// Timeout of a delivery and its reply, over all ways tried.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of one try by link or by dial, so that time is left for the next way.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(2);
// A slow handler must not make the router try another way.
const _: () = assert!(REPLY_TIMEOUT.as_millis() * 2 <= DIRECT_TIMEOUT.as_millis());
/// How long the registry may take to say who a linked peer is. Without an answer its link is used.
const LINKED_TIMEOUT: Duration = Duration::from_millis(500);
/// Peers that may forward a message by a dial: only the one that was asked. Along links, `routing::HOPS_MAX` is the limit.
const DIALS_MAX: u32 = 1;
/// How long the mesh is tried before a dial for a peer that only the mesh could reach: behind a NAT, a dial may take all of
/// [`DIRECT_TIMEOUT`] before it fails.
const DETOUR_LIFETIME: Duration = Duration::from_secs(30);
/// Such peers remembered, some 100 bytes each. A guess: more than one peer writes to within that time.
const DETOURS_MAX: usize = 1_024;

/// Delivers messages for this peer, and finds the way for those to others.
pub(crate) struct MessageRouter {
    me: Contact,
    delivery: LocalDelivery,
    session: Session,
    channels: ChannelPool,
    mesh: Mesh,
    detours: Detours,
}

/// Peers that only the mesh could reach recently.
#[derive(Default)]
struct Detours(Mutex<BTreeMap<PeerName, Instant>>);

impl Detours {
    fn remember(&self, name: &PeerName) {
        let mut detours = self.lock();
        detours.retain(|_, at| at.elapsed() < DETOUR_LIFETIME);
        if detours.len() < DETOURS_MAX {
            detours.insert(name.clone(), Instant::now());
        }
    }

    fn forget(&self, name: &PeerName) {
        self.lock().remove(name);
    }

    fn has(&self, name: &PeerName) -> bool {
        self.lock().get(name).is_some_and(|at| at.elapsed() < DETOUR_LIFETIME)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageRouter {
    /// A router that delivers messages for this peer to `delivery`, and finds other peers through `session` and `mesh`.
    pub(crate) fn new(me: Contact, delivery: LocalDelivery, session: Session, channels: ChannelPool, mesh: Mesh) -> Self {
        Self { me, delivery, session, channels, mesh, detours: Detours::default() }
    }

    /// Delivers a message: here, on a link, by a dial, or along a route of the mesh. Who it is from was checked ([`Sender::check`]), or it
    /// is this peer's own.
    ///
    /// [`Sender::check`]: super::Sender::check
    ///
    /// # Errors
    /// When a field is invalid, or the receiver cannot be reached.
    pub(crate) async fn deliver(&self, request: WhisperRequest) -> Result<WhisperResponse, Status> {
        let mut whisper = Whisper::try_from(request)?;
        // Whoever asks this peer itself means it, whatever other peers say of the name.
        if whisper.to == *self.me.name() {
            return Ok(self.delivery.whisper(whisper).wait().await.into());
        }
        let is_own = whisper.from.eq_ignore_ascii_case(self.me.name().as_str());
        if self.mesh.signatures().is_some() && whisper.signature.is_none() && !is_own {
            return Err(unsigned(&whisper.from, &whisper.to));
        }
        if whisper.message_id.is_empty() {
            whisper.message_id = Bytes::copy_from_slice(&rand::random::<u128>().to_be_bytes());
        }
        let started = Instant::now();
        let response = self.forward(&whisper, started).await?;
        Ok(WhisperResponse { round_trip: prost_types::Duration::try_from(started.elapsed()).ok(), ..response })
    }

    async fn forward(&self, whisper: &Whisper, started: Instant) -> Result<WhisperResponse, Status> {
        let no_route =
            |why: &str| Reason::NoRoute.status(format!("request cannot be fulfilled: no route to {}{why}", whisper.to));
        let unknown = |why: &str| format!("it is unknown whether there is a route to {}: {why}", whisper.to);
        if whisper.hops >= DIALS_MAX {
            return Err(no_route(": it was forwarded as often as it may be"));
        }
        let deadline = started + DELIVERY_TIMEOUT;
        let direct = || deadline.min(Instant::now() + DIRECT_TIMEOUT);
        // First, since the registry's word decides which of those with the name is meant. A registry that hangs does not delay by much.
        let is_linked = self.mesh.view().is_linked(&whisper.to);
        let (record, unavailable) = self.record(&whisper.to, if is_linked { started + LINKED_TIMEOUT } else { direct() }).await;
        let record = record.as_ref();
        if let Ok(Ok(delivered)) = within(direct(), self.mesh.whisper_linked(whisper, record)).await {
            return Ok(delivered.into());
        }
        let too_many_seeks = || {
            let why = "the mesh searches as many routes as it may; try again in a second";
            Reason::TooManySeeks.status(unknown(why))
        };
        if self.detours.has(&whisper.to) {
            match within(direct(), self.mesh.whisper_routed(whisper, record)).await {
                Ok(Ok(delivered)) => return Ok(delivered.into()),
                // That does not mean that the route is gone.
                Ok(Err(WhisperError::TooManySeeks)) => return Err(too_many_seeks()),
                _ => self.detours.forget(&whisper.to),
            }
        }
        let mut why = "";
        let endpoint =
            record.cloned().or_else(|| self.mesh.view().find(&whisper.to).cloned()).map(|contact| contact.endpoint().clone());
        if let Some(endpoint) = endpoint {
            // Boxed: the state of a call is large, and few messages need one.
            match within(direct(), Box::pin(self.dial(&endpoint, whisper))).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) if Reason::of(&error).is_some_and(|reason| reason != Reason::NoRoute) => return Err(error),
                // Its text is of the other peer; `dial` uses this reason when another peer answers.
                Ok(Err(error)) if Reason::of(&error).is_some() => why = ": another peer answers at its address",
                Ok(Err(_)) => why = ": it is known but does not answer",
                Err(_) => why = ": it is known but does not answer in time",
            }
            self.session.forget(&whisper.to);
        }
        // The registry may know the peer at another address.
        let no_route = |why: &str| match &unavailable {
            Some(error) => Reason::RegistryUnavailable.status(unknown(&format!("{error}; try again in a few seconds"))),
            None => no_route(why),
        };
        match within(deadline, self.mesh.whisper_routed(whisper, record)).await {
            Ok(Ok(delivered)) => {
                self.detours.remember(&whisper.to);
                Ok(delivered.into())
            }
            Ok(Err(WhisperError::NoRoute)) => Err(no_route(why)),
            Ok(Err(WhisperError::Congested)) => Err(Reason::TooManyStreams
                .status(format!("too many messages are queued on the link towards {}; try again later", whisper.to))),
            Ok(Err(WhisperError::TooManySeeks)) => Err(too_many_seeks()),
            Ok(Err(WhisperError::Stopping)) => Err(Reason::ShuttingDown.status("this peer is stopping; ask another")),
            Err(_) => Err(no_route(": the mesh did not find a route in time")),
        }
    }

    /// What the registry says of a peer, and why it could not be asked until `deadline`.
    async fn record(&self, name: &PeerName, deadline: Instant) -> (Option<Contact>, Option<RegistryUnavailable>) {
        let found = within(deadline, self.session.find(name)).await;
        match found.unwrap_or_else(|_| Err(RegistryUnavailable::no_answer("not in time"))) {
            Ok(record) => (record, None),
            Err(error) => (None, Some(error)),
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
            signature: whisper.signature.clone(),
        };
        let response = self.channels.peer(endpoint, Some(&whisper.to)).whisper(request).await?.into_inner();
        if !response.delivered_by.parse::<PeerName>().is_ok_and(|by| by == whisper.to) {
            return Err(Reason::NoRoute.status("another peer answers at its address"));
        }
        // The reply is passed to the caller, so its kind must be valid.
        if !response.reply_kind.is_empty() && response.reply_kind.parse::<MessageKind>().is_err() {
            return Err(Reason::NoRoute.status("the answer from its address is invalid"));
        }
        Ok(response)
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    timeout_at(deadline.into(), work).await
}
