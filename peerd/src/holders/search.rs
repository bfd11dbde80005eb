//! Asks peers which of them hold a document.

use super::{
    rfc_query::{Answer, Limits, Listed, query},
    source::Source,
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, name_match::name_match, selector::DocumentSelector},
};
use p2pdi::{
    content::ContentHash,
    endpoint::Endpoint,
    fan_out::FanOut,
    name::PeerName,
    status,
    v1::{Holder, RfcQueryRequest},
};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::time::{timeout, timeout_at};

/// Peers asked at the same time: enough to hide their latency, few enough for the connections of one client.
const ASKED_AT_ONCE: usize = 32;
/// Time limit of one peer's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long further answers are awaited after the first one that has a document: more holders are better, but the fetch can begin
/// with one.
const AFTER_FIRST_ANSWER: Duration = Duration::from_millis(30);
/// Most holders kept for one document: enough to choose from, and [`ASKED_AT_ONCE`] honest peers fit whatever a malicious one invents.
const HOLDERS_MAX: usize = 64;

/// A document that at least one peer has.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its metadata.
    pub document: DocumentInfo,
    /// Its holders. The first [`Self::confirmed`] of them answered themselves; the others are named by other peers.
    pub holders: Vec<Source>,
    /// How many peers answered that they hold it themselves. Their reports of other holders do not count.
    pub confirmed: usize,
}

/// The result of a search.
#[derive(Debug, Default)]
pub struct Answers {
    /// Documents that match: of a name the closest first, then those that most peers hold themselves.
    pub found: Vec<Found>,
    /// Peers that answered, in the order in which they were given.
    pub asked: Vec<String>,
    /// Peers that failed, each with the reason, in the same order.
    pub failed: Vec<(String, String)>,
}

impl Answers {
    /// Which peers were asked, for the error when none has the document.
    pub fn summary(&self) -> String {
        let names = |names: &[String]| match names {
            [] => "nobody".to_owned(),
            few if few.len() <= 8 => few.join(", "),
            many => format!("{} and {} more", many[..8].join(", "), many.len() - 8),
        };
        let mut text = format!("asked {}", names(&self.asked));
        if !self.failed.is_empty() {
            let failed: Vec<_> = self.failed.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            text += &format!("; no answer from {}", names(&failed));
        }
        text
    }
}

/// Asks each of `peers` for the document that `wanted` selects and merges their answers. After the first answer that has it no further
/// peer is asked. Peers may answer with any document; only those that `wanted` selects count.
pub async fn ask(channels: &ChannelPool, peers: &[Source], wanted: &DocumentSelector) -> Answers {
    let request = query_for(wanted);
    let mut found: BTreeMap<ContentHash, Found> = BTreeMap::new();
    // By index in `peers`, so that the result does not depend on who answers first.
    let (mut asked, mut failed) = (BTreeMap::new(), BTreeMap::new());
    let mut calls =
        peers.iter().enumerate().map(|(index, peer)| ask_peer(channels.clone(), index, peer.clone(), request.clone()));
    let mut fan_out = FanOut::new(ASKED_AT_ONCE);
    let mut deadline: Option<tokio::time::Instant> = None;
    loop {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, fan_out.next(&mut calls.by_ref().take(0))).await.unwrap_or(None),
            None => fan_out.next(&mut calls).await,
        };
        let Some((index, peer, answer)) = next else { break };
        match answer {
            Ok(answer) => {
                asked.insert(index, peer.label().to_owned());
                if answer.invalid > 0 {
                    tracing::warn!(%peer, invalid = answer.invalid, "a peer lists invalid documents; they are ignored");
                }
                let (selected, others): (Vec<_>, Vec<_>) =
                    answer.documents.into_iter().partition(|listed| wanted.selects(&listed.document));
                if !others.is_empty() {
                    tracing::warn!(%peer, others = others.len(), %wanted, "a peer lists documents that were not asked for; they are ignored");
                }
                for listed in selected {
                    merge(&mut found, &peer, listed);
                }
                if !found.is_empty() && deadline.is_none() {
                    deadline = Some((Instant::now() + AFTER_FIRST_ANSWER).into());
                }
            }
            Err(reason) => drop(failed.insert(index, (peer.label().to_owned(), reason))),
        }
    }
    let mut found: Vec<_> = found.into_values().filter(|found| !found.holders.is_empty()).collect();
    // Of a name the exact one first, then one that differs in case.
    let closeness = |found: &Found| name_match(&request.name, found.document.name.as_str());
    found.sort_by_key(|found| (closeness(found).is_none(), closeness(found), Reverse((found.confirmed, found.holders.len()))));
    Answers { found, asked: asked.into_values().collect(), failed: failed.into_values().collect() }
}

async fn ask_peer(
    channels: ChannelPool,
    index: usize,
    peer: Source,
    request: RfcQueryRequest,
) -> (usize, Source, Result<Answer, String>) {
    let limits = Limits::of(&request);
    let client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    let answer = match timeout(ANSWER_TIMEOUT, query(client, request, limits)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(status::describe(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    };
    (index, peer, answer)
}

/// Adds one document of the answer of `from`.
fn merge(found: &mut BTreeMap<ContentHash, Found>, from: &Source, listed: Listed) {
    let Listed { document, holders } = listed;
    let entry = found.entry(document.hash).or_insert(Found { document, holders: Vec::new(), confirmed: 0 });
    for holder in holders {
        let Ok(endpoint) = holder.endpoint.parse::<Endpoint>() else { continue };
        let is_itself = is_itself(from, &holder, &endpoint);
        let named = Source::new(holder.peer_name.parse().ok(), endpoint);
        if is_itself {
            if entry.holders[..entry.confirmed].contains(from) {
                continue;
            }
            // The peer's own answer replaces the reports of others. It answered where it was asked; what it advertises may not be reachable
            // from here.
            entry.holders.retain(|known| known != from && *known != named);
            entry.holders.insert(entry.confirmed, from.clone().also_at(named.endpoint));
            entry.confirmed += 1;
        } else if entry.holders.len() < HOLDERS_MAX && !entry.holders.contains(&named) {
            entry.holders.push(named);
        }
    }
}

/// Whether `holder`, in an answer of `from`, is that peer itself: by its name, or, of a peer that was asked without a name, by its address or
/// its word that it is.
fn is_itself(from: &Source, holder: &Holder, endpoint: &Endpoint) -> bool {
    match &from.name {
        Some(name) => holder.peer_name.parse().is_ok_and(|named: PeerName| named == *name),
        None => from.has_address(endpoint) || holder.age.is_some_and(|age| age == prost_types::Duration::default()),
    }
}

/// The query that finds `selector`.
fn query_for(selector: &DocumentSelector) -> RfcQueryRequest {
    match selector {
        DocumentSelector::Number(number) => RfcQueryRequest { number: *number, ..Default::default() },
        DocumentSelector::Name(name) => RfcQueryRequest { name: name.to_string(), ..Default::default() },
        DocumentSelector::Hash(hash) => RfcQueryRequest { blake3: hash.to_field(), ..Default::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::Document;

    fn source(port: u16) -> Source {
        Source::new(format!("p{port}").parse().ok(), format!("127.0.0.1:{port}").parse().unwrap())
    }

    fn listed(text: &[u8], ports: impl IntoIterator<Item = u16>) -> Listed {
        let holder = |port| Holder { peer_name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}"), ..Default::default() };
        let document = Document { name: "a".into(), size: 1, blake3: ContentHash::of(text).to_field(), ..Default::default() };
        Listed { document: document.try_into().unwrap(), holders: ports.into_iter().map(holder).collect() }
    }

    #[test]
    fn invented_holders_do_not_outvote_two_peers_that_hold_the_document_themselves() {
        let mut found = BTreeMap::new();
        merge(&mut found, &source(66), listed(b"lie", 66..1066));
        merge(&mut found, &source(1), listed(b"true", [1, 2]));
        merge(&mut found, &source(2), listed(b"true", [2, 2, 1]));
        let (lie, truth) = (&found[&ContentHash::of(b"lie")], &found[&ContentHash::of(b"true")]);
        assert_eq!((lie.confirmed, lie.holders.len()), (1, HOLDERS_MAX));
        assert_eq!((truth.confirmed, truth.holders.len()), (2, 2));
    }

    #[test]
    fn a_wrong_name_for_an_endpoint_does_not_hide_the_right_one() {
        let mut found = BTreeMap::new();
        let mut lie = listed(b"x", [66, 1]);
        lie.holders[1].peer_name = "wrong".into();
        merge(&mut found, &source(66), lie);
        merge(&mut found, &source(2), listed(b"x", [2, 1]));
        let wrong = Source::new("wrong".parse().ok(), source(1).endpoint);
        let document = &found[&ContentHash::of(b"x")];
        assert_eq!(document.holders, [source(66), source(2), wrong.clone(), source(1)]);
        merge(&mut found, &source(1), listed(b"x", [1]));
        let document = &found[&ContentHash::of(b"x")];
        assert_eq!((document.confirmed, &document.holders[..]), (3, &[source(66), source(2), source(1), wrong][..]));
    }
}
