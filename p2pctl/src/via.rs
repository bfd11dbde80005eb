//! Finds peers by asking one peer (`--via`), for networks without a registry.

use crate::{
    call::{CALL_TIMEOUT, to_peer},
    failure::{Failure, Outcome},
    registry_client::direct,
};
use p2pdi::{
    channel::Dial,
    endpoint::Endpoint,
    name::PeerName,
    network::NetworkName,
    v1::{Contact, ListPeersRequest, WhisperRequest},
};
use peerd::{
    connections::channels::ChannelPool,
    holders::{find_peers::PeerSample, source::Source},
    inbox::{KIND_PING, KIND_PONG},
    mesh::Signatures,
};
use std::time::Duration;
use tonic::{Response, Status};

/// The peer called `peer`, at the endpoint that it answers a PING with. The peer at `via` itself is reached there first: what it advertises may
/// not be reachable from here.
pub(crate) async fn find(channels: &ChannelPool, network: &NetworkName, via: &Endpoint, peer: &str) -> Outcome<Source> {
    if let Some(direct) = direct(peer) {
        return Ok(direct);
    }
    let name: PeerName = peer.parse()?;
    let ping = WhisperRequest { to: name.to_string(), kind: KIND_PING.to_owned(), ..Default::default() };
    let ping = signed(channels.dial(), network, ping);
    let answer = call(channels, via, CALL_TIMEOUT, channels.peer(via, None).whisper(ping)).await?;
    let endpoint = (answer.reply_kind == KIND_PONG).then(|| std::str::from_utf8(&answer.reply).ok()?.parse().ok()).flatten();
    if answer.hops == 0 && answer.delivered_by.parse().is_ok_and(|by: PeerName| by == name) {
        let itself = Source::new(Some(name), via.clone());
        return Ok(endpoint.into_iter().fold(itself, Source::also_at));
    }
    let endpoint = endpoint.ok_or_else(|| Failure::refused(format!("{name} answers, but not with its address")))?;
    Ok(Source::new(Some(name), endpoint))
}

/// The message with this program's signature, if it has a certificate: others pass on what is signed only.
pub(crate) fn signed(dial: &Dial, network: &NetworkName, request: WhisperRequest) -> WhisperRequest {
    match (&dial.tls, dial.certified_name()) {
        (Some(tls), Some(name)) => Signatures::new(tls.clone(), network.as_str(), name).sign_whisper(request),
        _ => request,
    }
}

/// The peer at `via`, then its neighbours and the others it knows, at most `count` in all.
pub(crate) async fn sample(channels: &ChannelPool, via: &Endpoint, count: usize) -> Outcome<PeerSample> {
    let listed = call(channels, via, CALL_TIMEOUT, channels.peer(via, None).list_peers(ListPeersRequest {})).await?;
    let others = listed.neighbours.into_iter().filter_map(|neighbour| neighbour.peer).chain(listed.others);
    let source = |contact: Contact| Some(Source::new(Some(contact.name.parse().ok()?), contact.endpoint.parse().ok()?));
    let me = listed.peer.unwrap_or_default();
    let itself = Source::new(me.name.parse().ok(), via.clone());
    let itself = me.endpoint.parse().into_iter().fold(itself, Source::also_at);
    let mut peers: Vec<_> = std::iter::once(itself).chain(others.filter_map(source)).collect();
    let are_all = peers.len() <= count;
    peers.truncate(count);
    Ok(PeerSample { peers, are_all })
}

/// One call to the peer at `via`.
///
/// # Errors
/// When the call fails, or takes longer than `limit`.
pub(crate) async fn call<T>(
    channels: &ChannelPool,
    via: &Endpoint,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Outcome<T> {
    let answered = to_peer(via.as_str(), via, channels.dial(), limit, call).await;
    answered.map_err(|failure| failure.hint_if_unanswered("--via HOST:PORT names the peer to ask"))
}
