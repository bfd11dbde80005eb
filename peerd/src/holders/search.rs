//! Asks peers who has a document.

use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::source::Source,
};
use p2pdi::{
    content::ContentHash,
    endpoint::Endpoint,
    fan_out::FanOut,
    name::PeerName,
    status,
    v1::{Holding, RfcQueryRequest},
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;
use tonic::Status;

/// Peers asked at once: enough to hide their latency, few enough for one client's connections.
const ASKED_AT_ONCE: usize = 32;
/// How long one peer may take to say what it knows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long further answers are waited for once there is one: more holders are better, but the first one can begin.
const AFTER_FIRST_ANSWER: Duration = Duration::from_millis(30);

/// A document that somebody has.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which.
    pub document: DocumentInfo,
    /// Who, as far as is known: those that said so of themselves first.
    pub holders: Vec<Source>,
    /// How many peers said that they hold it themselves. What one stranger says of others is no second voice.
    pub vouchers: usize,
}

/// Most holders taken for one document: enough to choose from, too few for a liar to drown the honest ones.
const HOLDERS_MAX: usize = 64;

/// What came of asking.
#[derive(Debug, Default)]
pub struct Answers {
    /// Documents that fit, those that most peers hold themselves first.
    pub found: Vec<Found>,
    /// Peers that answered, in the order they were given.
    pub asked: Vec<String>,
    /// Peers that did not, and why; in that order too.
    pub failed: Vec<(String, String)>,
}

impl Answers {
    /// Who was asked, in words: for the error when nobody has it.
    pub fn summary(&self) -> String {
        let names = |names: &[String]| match names {
            [] => "nobody".to_owned(),
            few if few.len() <= 8 => few.join(", "),
            many => format!("{} and {} more", many[..8].join(", "), many.len() - 8),
        };
        let mut text = format!("asked {}", names(&self.asked));
        if !self.failed.is_empty() {
            let failed: Vec<_> = self.failed.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            text += &format!("; no answer from {}", names(&failed));
        }
        text
    }
}

/// Asks each of `peers` for what fits `request`, and merges what they say.
pub async fn ask(channels: &ChannelPool, peers: &[Source], request: &RfcQueryRequest) -> Answers {
    let mut found: BTreeMap<ContentHash, Found> = BTreeMap::new();
    // By place among `peers`: whoever is quicker, the same answers read the same.
    let (mut asked, mut failed) = (BTreeMap::new(), BTreeMap::new());
    let mut calls = peers.iter().enumerate().map(|(place, peer)| ask_one(channels.clone(), place, peer.clone(), request.clone()));
    let mut fan_out = FanOut::new(ASKED_AT_ONCE);
    let mut deadline: Option<tokio::time::Instant> = None;
    loop {
        let next = match deadline {
            // After the first answer nobody else is asked.
            Some(deadline) => timeout_at(deadline, fan_out.next(&mut calls.by_ref().take(0))).await.unwrap_or(None),
            None => fan_out.next(&mut calls).await,
        };
        let Some((place, peer, answer)) = next else { break };
        match answer {
            Ok(holdings) => {
                asked.insert(place, peer.name.clone());
                for holding in holdings {
                    merge(&mut found, &peer, holding);
                }
                if !found.is_empty() && deadline.is_none() {
                    deadline = Some((Instant::now() + AFTER_FIRST_ANSWER).into());
                }
            }
            Err(why) => drop(failed.insert(place, (peer.name.clone(), why))),
        }
    }
    let mut found: Vec<_> = found.into_values().filter(|found| !found.holders.is_empty()).collect();
    found.sort_by_key(|found| std::cmp::Reverse((found.vouchers, found.holders.len())));
    Answers { found, asked: asked.into_values().collect(), failed: failed.into_values().collect() }
}

type Asked = (usize, Source, Result<Vec<Holding>, String>);

async fn ask_one(channels: ChannelPool, place: usize, peer: Source, request: RfcQueryRequest) -> Asked {
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    let answer = timeout_at(deadline, list(&channels, &peer.endpoint, request)).await;
    let answer = match answer {
        Ok(Ok(holdings)) => Ok(holdings),
        Ok(Err(status)) => Err(status::describe(&status)),
        Err(_) => Err("no answer in time".to_owned()),
    };
    (place, peer, answer)
}

/// Most holdings taken from one peer by one question.
const HOLDINGS_MAX: usize = 100_000;
/// Most bytes taken: so many holdings with names and titles of ordinary length, and one holder each.
const HOLDINGS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// All holdings of one peer's answer.
///
/// # Errors
/// When the peer cannot be reached or refuses.
pub async fn list(channels: &ChannelPool, endpoint: &Endpoint, request: RfcQueryRequest) -> Result<Vec<Holding>, Status> {
    let mut stream = channels.peer(endpoint).rfc_query(request).await?.into_inner();
    let (mut holdings, mut bytes) = (Vec::new(), 0);
    while let Some(message) = stream.message().await? {
        bytes += message.encoded_len();
        holdings.extend(message.holdings);
        if holdings.len() > HOLDINGS_MAX || bytes > HOLDINGS_MAX_BYTES {
            break;
        }
    }
    Ok(holdings)
}

/// Takes a stranger's holding, as far as it can be.
fn merge(found: &mut BTreeMap<ContentHash, Found>, from: &Source, holding: Holding) {
    let Some(document) = holding.document else { return };
    let document = match DocumentInfo::try_from(document) {
        Ok(document) => document,
        Err(error) => {
            tracing::warn!(peer = %from, %error, "a peer lists a document that cannot be");
            return;
        }
    };
    let entry = found.entry(document.hash).or_insert(Found { document, holders: Vec::new(), vouchers: 0 });
    for holder in holding.holders {
        let Ok(endpoint) = holder.endpoint.parse::<Endpoint>() else { continue };
        if endpoint == from.endpoint {
            if entry.holders[..entry.vouchers].iter().any(|known| known.endpoint == endpoint) {
                continue;
            }
            // Its word of itself counts, and takes the place of what others said of it.
            entry.holders.retain(|known| known.endpoint != endpoint);
            entry.holders.insert(entry.vouchers, from.clone());
            entry.vouchers += 1;
        } else if entry.holders.len() < HOLDERS_MAX && !entry.holders.iter().any(|known| known.endpoint == endpoint) {
            let name = holder.peer_name.parse::<PeerName>().map_or_else(|_| endpoint.to_string(), |name| name.to_string());
            entry.holders.push(Source { name, endpoint });
        }
    }
}

/// The query that finds `wanted`.
pub fn query_for(wanted: &DocumentSelector) -> RfcQueryRequest {
    match wanted {
        DocumentSelector::Number(number) => RfcQueryRequest { number: *number, ..Default::default() },
        DocumentSelector::Name(name) => RfcQueryRequest { name: name.to_string(), ..Default::default() },
        DocumentSelector::Hash(hash) => RfcQueryRequest { blake3: hash.to_field(), ..Default::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Document, Holder};

    fn source(port: u16) -> Source {
        Source { name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}").parse().unwrap() }
    }

    fn holding(text: &[u8], ports: impl IntoIterator<Item = u16>) -> Holding {
        let holder = |port| Holder { peer_name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}"), ..Default::default() };
        let document = Document { name: "a".into(), size: 1, blake3: ContentHash::of(text).to_field(), ..Default::default() };
        Holding { document: Some(document), holders: ports.into_iter().map(holder).collect() }
    }

    #[test]
    fn invented_holders_do_not_outvote_two_peers_that_speak_for_themselves() {
        let mut found = BTreeMap::new();
        merge(&mut found, &source(66), holding(b"lie", 66..1066));
        merge(&mut found, &source(1), holding(b"true", [1, 2]));
        merge(&mut found, &source(2), holding(b"true", [2, 2, 1]));
        let (lie, truth) = (&found[&ContentHash::of(b"lie")], &found[&ContentHash::of(b"true")]);
        assert_eq!((lie.vouchers, lie.holders.len()), (1, HOLDERS_MAX));
        assert_eq!((truth.vouchers, truth.holders.len()), (2, 2));
    }
}
