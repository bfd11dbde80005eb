//! Lists the documents of many peers, or of all that one peer knows of, by name and content.

use super::{
    rfc_query::{Answer, Limits, query},
    source::Source,
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, pattern::DocumentPattern, search_words::SearchWords},
};
use p2pdi::{content::ContentHash, document::DocumentName, fan_out::FanOut, field::InvalidField, status, v1::RfcQueryRequest};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Peers asked at the same time: enough to hide their latency, and each may hold a whole listing in memory.
const ASKED_AT_ONCE: usize = 16;
/// Time limit of one peer's answer: 100,000 documents over a slow link.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Of several peers, one that takes longer than this, and [`SLOWER_MAX`] times as long as the slowest that answered, is not waited for: one that
/// hangs must not hold up what all others said.
const PATIENCE_MIN: Duration = Duration::from_secs(3);
/// As much longer as the slowest of the others a listing may take: listings differ by their length.
const SLOWER_MAX: u32 = 4;
/// How often it is looked whether others answered meanwhile.
const PATIENCE_STEP: Duration = Duration::from_millis(250);
/// Most documents kept, whatever peers invent: what one peer may list, and some more.
const DOCUMENTS_MAX: usize = 200_000;
/// Most holders kept for one document; all are counted.
const HOLDERS_MAX: usize = 64;

/// Which documents are listed.
#[derive(Debug, Clone, Default)]
pub struct ListingFilter {
    /// Only names that match.
    pattern: Option<DocumentPattern>,
    /// Only documents whose name or title contains all of these.
    words: SearchWords,
    /// The same words as the user gave them.
    text: String,
}

/// A document, and who has it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The document.
    pub document: DocumentInfo,
    /// Some of its holders, by name.
    pub holders: Vec<Source>,
    /// How many peers hold it, as far as that is known.
    pub held_by: usize,
}

/// What was listed.
#[derive(Debug, Default)]
pub struct Offers {
    /// By name, and of one name by content.
    pub offers: Vec<Offer>,
    /// How many peers answered.
    pub answered: usize,
    /// Peers that failed, each with the reason, by name.
    pub failed: Vec<(String, String)>,
    /// A limit was reached: there are more documents.
    pub is_cut: bool,
}

impl ListingFilter {
    /// Names that match; without a pattern all.
    pub fn of_pattern(pattern: Option<DocumentPattern>) -> Self {
        Self { pattern, ..Self::default() }
    }

    /// Names and titles with all words of `text`.
    ///
    /// # Errors
    /// When it is too long.
    pub fn of_words(text: String) -> Result<Self, InvalidField> {
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

/// What all of `peers` share themselves. Answers are merged as they arrive.
pub async fn shared_by(channels: &ChannelPool, peers: Vec<Source>, filter: &ListingFilter) -> Offers {
    let request = filter.request(true);
    let pace = Arc::<Pace>::default();
    let mut calls = peers.into_iter().map(|peer| {
        let (channels, request, pace) = (channels.clone(), request.clone(), Arc::clone(&pace));
        async move { (pace.bounded(ask(&channels, &peer, request)).await, peer) }
    });
    let mut fan_out = FanOut::new(ASKED_AT_ONCE);
    let mut merged = Merged::default();
    while let Some((answer, peer)) = fan_out.next(&mut calls).await {
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
    merged.finished()
}

/// What one peer knows of, its own documents and those of others.
///
/// # Errors
/// Why it does not answer, as text.
pub async fn known_to(channels: &ChannelPool, peer: &Source, filter: &ListingFilter) -> Result<Offers, String> {
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
    Ok(merged.finished())
}

/// How long the slowest of several peers took that answered.
#[derive(Debug, Default)]
struct Pace {
    slowest: Mutex<Option<Duration>>,
}

impl Pace {
    /// Awaits an answer, for as long as the other answers say.
    async fn bounded(&self, answer: impl Future<Output = Result<Answer, String>>) -> Result<Answer, String> {
        let (mut answer, begun) = (pin!(answer), Instant::now());
        loop {
            if let Ok(answered) = timeout(PATIENCE_STEP, &mut answer).await {
                if answered.is_ok() {
                    let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
                    *slowest = (*slowest).max(Some(begun.elapsed()));
                }
                return answered;
            }
            let slowest = *self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = begun.elapsed();
            if slowest.is_some_and(|slowest| waited >= PATIENCE_MIN.max(slowest * SLOWER_MAX)) {
                return Err(format!("no answer within {} s, when others had answered", waited.as_secs()));
            }
        }
    }
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
    /// A hash has one size; who says another one lies. Told apart until all have answered.
    by_name: BTreeMap<(DocumentName, ContentHash, u64), Offer>,
    offers: Offers,
}

impl Merged {
    /// Adds a document of one answer with the holders that it names.
    fn add(&mut self, filter: &ListingFilter, document: DocumentInfo, holders: impl IntoIterator<Item = Source>) {
        if !filter.selects(&document) {
            return;
        }
        let is_full = self.by_name.len() >= DOCUMENTS_MAX;
        let offer = match self.by_name.entry((document.name.clone(), document.hash, document.size())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.offers.is_cut = true;
                return;
            }
            Entry::Vacant(new) => new.insert(Offer { document, holders: Vec::new(), held_by: 0 }),
        };
        for holder in holders {
            if offer.holders.contains(&holder) {
                continue;
            }
            // Past the limit a holder that an answer names twice counts twice; no peer lists a file twice.
            offer.held_by += 1;
            if offer.holders.len() < HOLDERS_MAX {
                offer.holders.push(holder);
            }
        }
    }

    fn finished(self) -> Offers {
        let mut offers: Vec<Offer> = Vec::new();
        for offer in self.by_name.into_values().filter(|offer| !offer.holders.is_empty()) {
            match offers.last_mut() {
                // The size that most say; of as many the smaller one, for which less room is set aside.
                Some(known) if (&known.document.name, known.document.hash) == (&offer.document.name, offer.document.hash) => {
                    if offer.held_by > known.held_by {
                        *known = offer;
                    }
                }
                _ => offers.push(offer),
            }
        }
        for offer in &mut offers {
            offer.holders.sort_by(|a, b| a.label().cmp(b.label()));
        }
        let mut failed = self.offers.failed;
        failed.sort();
        Offers { offers, failed, ..self.offers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::Document;

    fn document(name: &str, title: &str, text: &[u8]) -> DocumentInfo {
        let (blake3, size) = (ContentHash::of(text).to_field(), text.len() as u64);
        Document { name: name.into(), title: title.into(), size, blake3, ..Default::default() }.try_into().unwrap()
    }

    fn peer(port: u16) -> Source {
        Source::new(format!("p{port}").parse().ok(), format!("127.0.0.1:{port}").parse().unwrap())
    }

    #[test]
    fn equal_contents_under_one_name_are_one_document_and_all_holders_are_counted() {
        let (mut merged, all) = (Merged::default(), ListingFilter::default());
        merged.add(&all, document("b.txt", "", b"other"), [peer(3)]);
        for port in [9, 1, 1] {
            merged.add(&all, document("b.txt", "", b"b"), [peer(port)]);
        }
        for port in 1..=100 {
            merged.add(&all, document("a.txt", "", b"a"), [peer(port)]);
        }
        let offers = merged.finished().offers;
        let mut listed: Vec<_> =
            offers.iter().map(|offer| (offer.document.name.as_str(), offer.held_by, offer.holders.len())).collect();
        listed.sort_unstable();
        assert_eq!(listed, [("a.txt", 100, HOLDERS_MAX), ("b.txt", 1, 1), ("b.txt", 2, 2)]);
        assert_eq!(offers[0].document.name.as_str(), "a.txt");
    }

    #[test]
    fn a_peer_that_states_another_size_for_a_hash_is_outvoted_and_never_makes_it_larger() {
        let (mut merged, all) = (Merged::default(), ListingFilter::default());
        let stated = |size| {
            let blake3 = ContentHash::of(b"a").to_field();
            DocumentInfo::try_from(Document { name: "a.txt".into(), size, blake3, ..Default::default() }).unwrap()
        };
        merged.add(&all, stated(1 << 40), [peer(66)]);
        merged.add(&all, stated(1), [peer(1)]);
        let size = |merged: &Merged| merged.by_name.values().map(|offer| offer.document.size()).collect::<Vec<_>>();
        assert_eq!(size(&merged), [1, 1 << 40]);
        let offers = merged.finished().offers;
        assert_eq!((offers.len(), offers[0].document.size(), offers[0].held_by), (1, 1, 1));
        let mut merged = Merged::default();
        merged.add(&all, stated(1), [peer(66)]);
        for port in [1, 2] {
            merged.add(&all, stated(5_000), [peer(port)]);
        }
        assert_eq!(merged.finished().offers[0].document.size(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_hangs_is_waited_for_in_proportion_to_the_others() {
        let pace = Pace::default();
        let answers = async || Ok(Answer::default());
        let hangs = std::future::pending::<Result<Answer, String>>;
        // Alone it has all the time of its call.
        assert!(timeout(ANSWER_TIMEOUT, pace.bounded(hangs())).await.is_err());
        pace.bounded(answers()).await.unwrap();
        let begun = Instant::now();
        let why = pace.bounded(hangs()).await.unwrap_err();
        assert!(why.contains("others had answered") && begun.elapsed() < PATIENCE_MIN + PATIENCE_STEP, "{why}");
    }

    #[test]
    fn only_what_was_asked_for_is_listed_whatever_a_peer_answers() {
        let filter = |pattern: Option<&str>, words: &str| ListingFilter {
            pattern: pattern.map(|pattern| DocumentPattern::parse(pattern).unwrap()),
            ..ListingFilter::of_words(words.to_owned()).unwrap()
        };
        let tcp = document("rfc/rfc793.txt", "Transmission Control Protocol", b"x");
        assert!(filter(Some("rfc/*"), "CONTROL 793").selects(&tcp));
        assert!(filter(None, "control protocol").selects(&tcp));
        assert!(!filter(Some("models/*"), "").selects(&tcp) && !filter(None, "control udp").selects(&tcp));
    }
}
