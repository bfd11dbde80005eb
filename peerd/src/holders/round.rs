//! One round of a search: asks several peers at once which of them have a document.

use super::{
    evidence::{Evidence, Found, Ignored},
    patience::Patience,
    rfc_query::{Answer, Limits, query},
    settlement::{Settlement, settle},
    source::Source,
};
use crate::{connections::channels::ChannelPool, documents::selector::DocumentSelector};
use p2pdi::{
    endpoint::Endpoint,
    fan_out::FanOut,
    log_limit::{Line, LogLimit},
    phrases::first_of,
    retry::when_told,
    status::{self, Reason},
    v1::RfcQueryRequest,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// Peers asked at the same time: enough to hide their latency, few enough for the connections of one client.
const ASKED_AT_ONCE: usize = 32;
/// Time limit of one peer's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What peers answered about one document, over all rounds.
#[derive(Debug)]
pub struct Answers {
    wanted: DocumentSelector,
    pub(super) evidence: Evidence,
    /// Peers that answered, in the order in which they were given.
    asked: Vec<String>,
    /// Peers that failed, each with the reason, in the same order.
    failed: Vec<(String, String)>,
    /// Peers that had not answered when the round ended.
    late: Vec<String>,
    /// Where somebody answered (true), or nobody did, in the rounds since [`Self::take_reached`].
    reached: Vec<(Endpoint, bool)>,
}

impl Answers {
    /// No answers yet.
    pub(super) fn about(wanted: DocumentSelector) -> Self {
        let evidence = Evidence::about(wanted.clone());
        Self { wanted, evidence, asked: Vec::new(), failed: Vec::new(), late: Vec::new(), reached: Vec::new() }
    }

    /// Which content is meant.
    pub fn settle(&self) -> Settlement {
        settle(&self.wanted, self.evidence.found())
    }

    /// All contents that were named and have a holder, by hash.
    pub fn found(&self) -> Vec<Found> {
        self.evidence.found()
    }

    /// Whether every peer that was asked answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.failed.is_empty() && self.late.is_empty()
    }

    /// Which peers were asked, for the error when none has the document.
    pub fn summary(&self) -> String {
        let names = |names: &[String]| match names {
            [] => "nobody".to_owned(),
            some => first_of(some.iter(), 8, ", "),
        };
        let mut text = format!("asked {}", names(&self.asked));
        if !self.failed.is_empty() {
            let failed: Vec<_> = self.failed.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            text += &format!("; no answer from {}", names(&failed));
        }
        if !self.late.is_empty() {
            text += &format!("; not in time {}", names(&self.late));
        }
        text
    }

    /// Where somebody answered (true), or nobody did, since the last call of this.
    pub(super) fn take_reached(&mut self) -> Vec<(Endpoint, bool)> {
        std::mem::take(&mut self.reached)
    }

    /// Takes what a peer said, now or earlier.
    pub(super) fn take(&mut self, from: &Source, answer: Answer) {
        // Whoever is asked can repeat both with each answer.
        static INVALID_LOG: LogLimit = LogLimit::new(1);
        static IGNORED_LOG: LogLimit = LogLimit::new(1);
        if answer.invalid > 0
            && let Some(Line { suppressed }) = INVALID_LOG.line()
        {
            tracing::warn!(%from, invalid = answer.invalid, suppressed, "a peer lists invalid documents; they are ignored");
        }
        let ignored = self.evidence.add(from, answer.documents);
        if ignored != Ignored::default()
            && let Some(Line { suppressed }) = IGNORED_LOG.line()
        {
            tracing::warn!(%from, ?ignored, suppressed, wanted = %self.wanted, "a peer lists documents that were not asked for, or too many; they are ignored");
        }
    }

    /// Asks each of `peers`. Ends when all have answered, or some time after the first answer that has the document; see [`Patience`].
    pub(super) async fn ask(&mut self, channels: &ChannelPool, peers: &[Source]) {
        let request = query_for(&self.wanted);
        let begun = Instant::now();
        let mut patience = Patience::new(!matches!(self.wanted, DocumentSelector::Hash(_)));
        // By index in `peers`, so that the words do not depend on who answers first.
        let (mut asked, mut failed, mut started) = (BTreeMap::new(), BTreeMap::new(), 0);
        let mut calls = peers.iter().enumerate().map(|(index, peer)| {
            started = index + 1;
            ask_peer(channels.clone(), index, peer.clone(), request.clone())
        });
        let mut fan_out = FanOut::new(ASKED_AT_ONCE);
        loop {
            let next = match patience.ends_after() {
                Some(end) => timeout_at(begun + end, fan_out.next(&mut calls)).await.unwrap_or(None),
                None => fan_out.next(&mut calls).await,
            };
            let Some((index, peer, answer)) = next else { break };
            match answer {
                Ok(answer) => {
                    self.reached.push((peer.endpoint.clone(), true));
                    asked.insert(index, peer.label().to_owned());
                    self.take(&peer, answer);
                    patience.answered(begun.elapsed(), self.evidence.holders() > 0);
                }
                Err(Unanswered { why, reached }) => {
                    self.reached.push((peer.endpoint.clone(), reached));
                    failed.insert(index, (peer.label().to_owned(), why));
                }
            }
        }
        drop(calls);
        let late = peers.iter().take(started).enumerate();
        let late = late.filter(|(index, _)| !asked.contains_key(index) && !failed.contains_key(index));
        self.late.extend(late.map(|(_, peer)| peer.label().to_owned()));
        self.asked.extend(asked.into_values());
        self.failed.extend(failed.into_values());
    }
}

/// A peer did not say what was asked.
struct Unanswered {
    why: String,
    /// It answers: with a refusal.
    reached: bool,
}

async fn ask_peer(
    channels: ChannelPool,
    index: usize,
    mut peer: Source,
    request: RfcQueryRequest,
) -> (usize, Source, Result<Answer, Unanswered>) {
    let limits = Limits::of(&request);
    let asked_at = Instant::now();
    let client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    let asked = when_told(ANSWER_TIMEOUT / 2, || query(client.clone(), request.clone(), limits));
    let answer = match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(answer)) => {
            peer.answered_in = Some(asked_at.elapsed());
            Ok(answer)
        }
        Ok(Err(status)) => Err(Unanswered { why: status::describe(&status), reached: Reason::of(&status).is_some() }),
        Err(_) => Err(Unanswered { why: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()), reached: false }),
    };
    (index, peer, answer)
}

/// The query that finds `selector`.
pub(super) fn query_for(selector: &DocumentSelector) -> RfcQueryRequest {
    match selector {
        DocumentSelector::Number(number) => RfcQueryRequest { number: *number, ..Default::default() },
        DocumentSelector::Name(name) => RfcQueryRequest { name: name.to_string(), ..Default::default() },
        DocumentSelector::Hash(hash) => RfcQueryRequest { blake3: hash.to_field(), ..Default::default() },
    }
}
