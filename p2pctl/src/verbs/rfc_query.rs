//! rfc-query: lists the documents a peer knows, with their holders.

use crate::{
    args::{Global, OptionalVia, RfcQuery},
    call::to_peer,
    failure::{Failure, Outcome},
    printer::{Printer, bytes},
    registry_client::{RegistrySession, direct},
    via,
};
use p2pdi::{
    document::DocumentName,
    endpoint::Endpoint,
    json,
    name::PeerName,
    v1::{Document, Holder, Holding, RfcQueryRequest},
};
use peerd::{
    connections::channels::ChannelPool,
    holders::{
        rfc_query::{Limits, Listed, query},
        source::Source,
    },
};
use std::time::Duration;
use tonic::Response;

pub(super) async fn rfc_query(global: &Global, channels: &ChannelPool, args: RfcQuery, printer: Printer) -> Outcome {
    let name = args.name.as_deref().map(DocumentName::parse).transpose()?;
    let request = RfcQueryRequest {
        number: args.number.unwrap_or(0),
        title: args.title.unwrap_or_default(),
        name: name.map(|name| name.to_string()).unwrap_or_default(),
        blake3: args.hash.map(p2pdi::content::ContentHash::to_field).unwrap_or_default(),
        own_only: args.own,
        limit: args.limit.unwrap_or(0),
        ..Default::default()
    };
    let peer = resolve(global, channels, &args.via, &args.peer).await?;
    let client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    let call = async { Ok(Response::new(query(client, request, Limits::LISTING).await?)) };
    let answer = to_peer(&peer.to_string(), &peer.endpoint, channels.dial(), LISTING_TIMEOUT, call).await?;
    if answer.invalid > 0 {
        printer.note(&format!("warning: {} invalid documents in the answer of {peer} are left out", answer.invalid));
    }
    let holdings: Vec<_> = answer.documents.into_iter().map(checked).collect();
    if printer.is_json() {
        for holding in &holdings {
            printer.json(&json::value(holding))?;
        }
    }
    if holdings.is_empty() {
        return Err(Failure::refused(format!("{peer} knows of no such document"))
            .hint(format!("`p2pctl rfc-query {}` lists all that it knows, `p2pctl ls` what all peers have", args.peer)));
    }
    if printer.is_json() {
        return Ok(());
    }
    let rows: Vec<_> = holdings.iter().map(row).collect();
    printer.table(&["RFC", "NAME", "SIZE", "TITLE", "HOLDERS"], &rows)?;
    Ok(())
}

/// Time limit of a whole listing: 100,000 documents over a slow link.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a peer's id.
const ID_BYTES: usize = 16;

/// A holding with the valid holders only.
fn checked(listed: Listed) -> Holding {
    let can_be = |holder: &Holder| {
        holder.endpoint.parse::<Endpoint>().is_ok()
            && holder.peer_name.parse::<PeerName>().is_ok()
            && holder.peer_id.len() == ID_BYTES
    };
    let holders = listed.holders.into_iter().filter(can_be).collect();
    Holding { document: Some(Document::from(&listed.document)), holders }
}

fn row(holding: &Holding) -> Vec<String> {
    let document = holding.document.clone().unwrap_or_default();
    let holders: Vec<_> = holding.holders.iter().map(|holder| holder.peer_name.clone()).collect();
    vec![
        if document.number == 0 { "-".to_owned() } else { document.number.to_string() },
        document.name,
        bytes(document.size),
        document.title,
        holders.join(","),
    ]
}

/// The peer that the user gives; the registry, or the peer of --via, is asked only for a name.
pub(super) async fn resolve(global: &Global, channels: &ChannelPool, via: &OptionalVia, peer: &str) -> Outcome<Source> {
    if let Some(direct) = direct(peer) {
        return Ok(direct);
    }
    if let Some(via) = &via.via {
        return via::find(channels, &global.network, via, peer).await;
    }
    let mut session = RegistrySession::connect(&global.access(), global.state.as_deref()).await?;
    session.find(peer).await
}
