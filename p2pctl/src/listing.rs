//! Lists the documents of many peers: asks each of them what it shares, and merges the answers.

use alphanumeric_sort::compare_str;
use p2pdi::{fan_out::FanOut, field::InvalidField, status, v1::RfcQueryRequest};
use peerd::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, pattern::DocumentPattern, search_words::SearchWords},
    holders::{
        rfc_query::{Answer, Limits, query},
        source::Source,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};
use tokio::time::timeout;

/// Peers asked at the same time: enough to hide their latency, few enough for the connections of one client.
const ASKED_AT_ONCE: usize = 32;
/// Time limit of one peer's answer: 100,000 documents over a slow link.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most documents kept, whatever peers invent: what one peer may list, and some more.
const DOCUMENTS_MAX: usize = 200_000;

/// Which documents are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only names that match.
    pub(crate) pattern: Option<DocumentPattern>,
    /// Only documents whose name or title contains all of these.
    pub(crate) words: SearchWords,
    /// The same words as the user gave them.
    pub(crate) text: String,
}

/// A document, and who has it.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) document: DocumentInfo,
    /// By name.
    pub(crate) holders: Vec<Source>,
}

/// What was listed.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// By name, and of one name the one with the most holders first.
    pub(crate) offers: Vec<Offer>,
    /// How many peers answered.
    pub(crate) answered: usize,
    /// Peers that failed, each with the reason.
    pub(crate) failed: Vec<(String, String)>,
    /// A limit was reached: there are more documents.
    pub(crate) is_cut: bool,
}

impl Filter {
    /// Names that match.
    pub(crate) fn of_pattern(pattern: Option<DocumentPattern>) -> Self {
        Self { pattern, ..Self::default() }
    }

    /// Names and titles with all words of `text`.
    ///
    /// # Errors
    /// When it is too long.
    pub(crate) fn of_words(text: String) -> Result<Self, InvalidField> {
        Ok(Self { words: SearchWords::parse("words", &text)?, text, ..Self::default() })
    }

    /// The query for it. Peers of an earlier version do not know its last two fields and answer with more.
    fn request(&self, own_only: bool) -> RfcQueryRequest {
        RfcQueryRequest {
            own_only,
            pattern: self.pattern.as_ref().map(|pattern| pattern.as_str().to_owned()).unwrap_or_default(),
            words: self.text.clone(),
            ..Default::default()
        }
    }

    fn selects(&self, document: &DocumentInfo) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&document.name))
            && self.words.are_in(&[document.name.as_str(), &document.title])
    }
}

/// What all of `peers` share themselves.
pub(crate) async fn shared_by(channels: &ChannelPool, peers: Vec<Source>, filter: &Filter) -> Offers {
    let request = filter.request(true);
    let mut calls = peers.into_iter().enumerate().map(|(index, peer)| {
        let (channels, request) = (channels.clone(), request.clone());
        async move { (index, ask(&channels, &peer, request).await, peer) }
    });
    let mut fan_out = FanOut::new(ASKED_AT_ONCE);
    let mut answers = BTreeMap::new();
    while let Some((index, answer, peer)) = fan_out.next(&mut calls).await {
        answers.insert(index, (peer, answer));
    }
    let mut merged = Merged::default();
    for (peer, answer) in answers.into_values() {
        match answer {
            Ok(answer) => {
                merged.offers.answered += 1;
                merged.offers.is_cut |= answer.truncated;
                for listed in answer.documents {
                    merged.add(filter, listed.document, [peer.clone()]);
                }
            }
            Err(why) => merged.offers.failed.push((peer.label().to_owned(), why)),
        }
    }
    merged.sorted()
}

/// What one peer knows of, its own documents and those of others.
///
/// # Errors
/// Why it does not answer, as text.
pub(crate) async fn known_to(channels: &ChannelPool, peer: &Source, filter: &Filter) -> Result<Offers, String> {
    let answer = ask(channels, peer, filter.request(false)).await?;
    let mut merged = Merged::default();
    (merged.offers.answered, merged.offers.is_cut) = (1, answer.truncated);
    for listed in answer.documents {
        let named = listed
            .holders
            .into_iter()
            .filter_map(|holder| Some(Source::new(Some(holder.peer_name.parse().ok()?), holder.endpoint.parse().ok()?)));
        merged.add(filter, listed.document, named);
    }
    Ok(merged.sorted())
}

async fn ask(channels: &ChannelPool, peer: &Source, request: RfcQueryRequest) -> Result<Answer, String> {
    let client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    match timeout(ANSWER_TIMEOUT, query(client, request, Limits::LISTING)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(status::describe(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

/// Answers of several peers, by name and content.
#[derive(Default)]
struct Merged {
    by_name: BTreeMap<(String, p2pdi::content::ContentHash), Offer>,
    offers: Offers,
}

impl Merged {
    fn add(&mut self, filter: &Filter, document: DocumentInfo, holders: impl IntoIterator<Item = Source>) {
        if !filter.selects(&document) {
            return;
        }
        let is_full = self.by_name.len() >= DOCUMENTS_MAX;
        let known = match self.by_name.entry((document.name.to_string(), document.hash)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.offers.is_cut = true;
                return;
            }
            Entry::Vacant(new) => new.insert(Offer { document, holders: Vec::new() }),
        };
        for holder in holders {
            if !known.holders.contains(&holder) {
                known.holders.push(holder);
            }
        }
    }

    fn sorted(self) -> Offers {
        let mut offers: Vec<_> = self.by_name.into_values().filter(|offer| !offer.holders.is_empty()).collect();
        let by_name = |a: &Offer, b: &Offer| compare_str(a.document.name.as_str(), b.document.name.as_str());
        for offer in &mut offers {
            offer.holders.sort_by(|a, b| compare_str(a.label(), b.label()));
        }
        // Stable: documents of one name and as many holders stay in the order of their hashes.
        offers.sort_by(|a, b| by_name(a, b).then_with(|| Reverse(a.holders.len()).cmp(&Reverse(b.holders.len()))));
        Offers { offers, ..self.offers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::ContentHash, v1::Document};

    fn document(name: &str, title: &str, text: &[u8]) -> DocumentInfo {
        let (blake3, size) = (ContentHash::of(text).to_field(), text.len() as u64);
        Document { name: name.into(), title: title.into(), size, blake3, ..Default::default() }.try_into().unwrap()
    }

    fn peer(port: u16) -> Source {
        Source::new(format!("p{port}").parse().ok(), format!("127.0.0.1:{port}").parse().unwrap())
    }

    #[test]
    fn documents_are_sorted_as_people_count_and_the_one_with_most_holders_is_first() {
        let (mut merged, all) = (Merged::default(), Filter::default());
        merged.add(&all, document("rfc10.txt", "", b"ten"), [peer(1)]);
        merged.add(&all, document("rfc9.txt", "", b"other"), [peer(3)]);
        for port in [1, 2, 2] {
            merged.add(&all, document("rfc9.txt", "", b"nine"), [peer(port)]);
        }
        let offers = merged.sorted().offers;
        let names: Vec<_> = offers.iter().map(|offer| (offer.document.name.as_str(), offer.holders.len())).collect();
        assert_eq!(names, [("rfc9.txt", 2), ("rfc9.txt", 1), ("rfc10.txt", 1)]);
    }

    #[test]
    fn only_what_was_asked_for_is_listed_whatever_a_peer_answers() {
        let filter = |pattern: Option<&str>, words: &str| Filter {
            pattern: pattern.map(|pattern| DocumentPattern::parse(pattern).unwrap()),
            ..Filter::of_words(words.to_owned()).unwrap()
        };
        let tcp = document("rfc/rfc793.txt", "Transmission Control Protocol", b"x");
        assert!(filter(Some("rfc/*"), "CONTROL 793").selects(&tcp));
        assert!(filter(None, "control protocol").selects(&tcp));
        assert!(!filter(Some("models/*"), "").selects(&tcp) && !filter(None, "control udp").selects(&tcp));
    }
}
