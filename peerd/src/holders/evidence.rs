//! What peers said about one search: which contents they named, who holds each itself, and whom else they reported.
//!
//! A peer has one voice for each content, whatever number of holders it reports: reports are worth asking, and count as the word of the peer
//! that makes them.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{listed::Listed, source::Source};
use crate::documents::{info::DocumentInfo, name_match::name_match, selector::DocumentSelector};
use p2pdi::{content::ContentHash, endpoint::Endpoint, name::PeerName, phrases::first_of, v1::Holder};
use std::collections::{BTreeMap, BTreeSet};

/// Most holders kept for one content: enough to choose from, whatever a malicious peer invents. Peers that hold it themselves come on top.
const REPORTED_MAX: usize = 64;
/// Most contents taken from one answer. A peer holds few files of one name or number; what it learned from others may have more.
const CONTENTS_OF_PEER_MAX: usize = 32;

/// A document that at least one peer names.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its metadata, with the name that is closest to the one asked for.
    pub document: DocumentInfo,
    /// Its holders. The first [`Self::confirmed`] of them said so themselves; the others are reported by other peers.
    pub holders: Vec<Source>,
    /// How many peers said that they hold it themselves.
    pub confirmed: usize,
    /// How many peers named it, as a document of their own or of others.
    pub named_by: usize,
}

/// All that peers said about one document.
#[derive(Debug)]
pub(crate) struct Evidence {
    wanted: DocumentSelector,
    contents: BTreeMap<ContentHash, Found>,
    voices: usize,
}

/// What one answer had besides the document asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// Other documents.
    pub(crate) others: usize,
    /// Documents past [`CONTENTS_OF_PEER_MAX`].
    pub(crate) too_many: usize,
}

impl Evidence {
    /// About the document that `wanted` selects. Peers may answer with any document; only those that it selects count.
    pub(crate) fn about(wanted: DocumentSelector) -> Self {
        Self { wanted, contents: BTreeMap::new(), voices: 0 }
    }

    /// How many peers answered.
    pub(crate) fn voices(&self) -> usize {
        self.voices
    }

    /// The holders of all contents, those that were only reported included.
    pub(crate) fn holders(&self) -> usize {
        self.contents.values().map(|found| found.holders.len()).sum()
    }

    /// Takes the answer of `from`: once for each peer.
    pub(crate) fn add(&mut self, from: &Source, answer: Vec<Listed>) -> Ignored {
        self.voices += 1;
        let mut ignored = Ignored::default();
        let mut named = BTreeSet::new();
        for listed in answer {
            let hash = listed.document.hash;
            if !self.wanted.selects(&listed.document) {
                ignored.others += 1;
            } else if named.len() >= CONTENTS_OF_PEER_MAX && !named.contains(&hash) {
                ignored.too_many += 1;
            } else {
                let is_first = named.insert(hash);
                self.merge(from, listed, is_first);
            }
        }
        ignored
    }

    fn merge(&mut self, from: &Source, listed: Listed, is_first: bool) {
        let Listed { document, holders } = listed;
        let new = || Found { document: document.clone(), holders: Vec::new(), confirmed: 0, named_by: 0 };
        let found = self.contents.entry(document.hash).or_insert_with(new);
        found.named_by += usize::from(is_first);
        if closeness(&self.wanted, &document) < closeness(&self.wanted, &found.document) {
            found.document = document;
        }
        for holder in holders {
            let Ok(endpoint) = holder.endpoint.parse::<Endpoint>() else { continue };
            if is_itself(from, &holder, &endpoint) {
                found.confirm(from, endpoint);
            } else {
                found.report(Source::new(holder.peer_name.parse().ok(), endpoint));
            }
        }
    }

    /// The contents that have a holder.
    pub(crate) fn found(&self) -> Vec<Found> {
        self.contents.values().filter(|found| !found.holders.is_empty()).cloned().collect()
    }
}

impl Found {
    /// The first `most` of the peers that hold it, as text. Those that only others named are counted apart: anybody can name any number.
    pub fn held_by_text(&self, most: usize) -> String {
        let (by_own_word, named) = self.holders.split_at(self.confirmed.min(self.holders.len()));
        let shown = if by_own_word.is_empty() { named } else { by_own_word };
        let names = first_of(shown.iter().map(Source::label), most, ", ");
        let rest = match (by_own_word.len(), named.len()) {
            (0, _) => ", as others say".to_owned(),
            (_, 0) => String::new(),
            (_, named) => format!(", and {named} more as others say"),
        };
        format!("{names}{rest}")
    }

    /// `from` holds it. It answered where it was asked; what it advertises may not be reachable from here.
    fn confirm(&mut self, from: &Source, advertised: Endpoint) {
        let itself = from.clone().also_at(advertised.clone());
        let is_it = |known: &Source| known == from || (known.name == from.name && known.has_address(&advertised));
        if self.holders[..self.confirmed].iter().any(is_it) {
            return;
        }
        // Its own word replaces the reports of others.
        self.holders.retain(|known| !is_it(known));
        self.holders.insert(self.confirmed, itself);
        self.confirmed += 1;
    }

    /// Another peer says that `named` holds it.
    fn report(&mut self, named: Source) {
        let is_it = |known: &Source| known.name == named.name && known.has_address(&named.endpoint);
        if self.holders.len() - self.confirmed < REPORTED_MAX && !self.holders.iter().any(is_it) {
            self.holders.push(named);
        }
    }
}

/// How close the name of a document that was selected is to the one asked for; the closest first.
pub(super) fn closeness(wanted: &DocumentSelector, document: &DocumentInfo) -> usize {
    match wanted {
        DocumentSelector::Name(name) => name_match(name.as_str(), document.name.as_str()).map_or(usize::MAX, |at| at as usize),
        DocumentSelector::Number(_) => format(document.name.file_name()),
        DocumentSelector::Hash(_) => 0,
    }
}

/// The formats of an RFC, in the order in which they are meant by its number. The RFC Editor publishes most RFCs in several; the text is the
/// one that all have.
const FORMATS: [&str; 4] = ["txt", "html", "xml", "pdf"];

fn format(file_name: &str) -> usize {
    let extension = file_name.rsplit_once('.').map_or("txt", |(_, extension)| extension);
    FORMATS.iter().position(|format| extension.eq_ignore_ascii_case(format)).unwrap_or(FORMATS.len())
}

/// Whether `holder`, in an answer of `from`, is that peer itself: by its name, or, of a peer that was asked without a name, by its address or
/// its word that it is (an age of zero).
fn is_itself(from: &Source, holder: &Holder, endpoint: &Endpoint) -> bool {
    match &from.name {
        Some(name) => holder.peer_name.parse().is_ok_and(|named: PeerName| named == *name),
        None => from.has_address(endpoint) || holder.age.is_some_and(|age| age == prost_types::Duration::default()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use p2pdi::v1::Document;

    pub(in super::super) fn source(port: u16) -> Source {
        Source::new(format!("p{port}").parse().ok(), format!("127.0.0.1:{port}").parse().unwrap())
    }

    /// A document of this name and content, held by the peers of these ports.
    pub(in super::super) fn listed(name: &str, text: &[u8], ports: impl IntoIterator<Item = u16>) -> Listed {
        let holder = |port| Holder { peer_name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}"), ..Default::default() };
        let number = crate::documents::rfc_number::rfc_number(name).unwrap_or(0);
        let document =
            Document { name: name.into(), number, size: 1, blake3: ContentHash::of(text).to_field(), ..Default::default() };
        Listed { document: document.try_into().unwrap(), holders: ports.into_iter().map(holder).collect() }
    }

    pub(in super::super) fn named(name: &str) -> DocumentSelector {
        DocumentSelector::Name(p2pdi::document::DocumentName::parse(name).unwrap())
    }

    fn of(evidence: &Evidence, text: &[u8]) -> Found {
        let hash = ContentHash::of(text);
        evidence.found().into_iter().find(|found| found.document.hash == hash).unwrap()
    }

    #[test]
    fn the_holders_that_a_peer_reports_are_its_word_only() {
        let mut evidence = Evidence::about(named("a"));
        evidence.add(&source(66), vec![listed("a", b"lie", 66..1066)]);
        evidence.add(&source(1), vec![listed("a", b"true", [1, 2])]);
        evidence.add(&source(2), vec![listed("a", b"true", [2, 2, 1]), listed("a", b"true", [2])]);
        let (lie, truth) = (of(&evidence, b"lie"), of(&evidence, b"true"));
        assert_eq!((lie.confirmed, lie.named_by, lie.holders.len()), (1, 1, 1 + REPORTED_MAX));
        assert_eq!((truth.confirmed, truth.named_by, truth.holders.len()), (2, 2, 2));
        assert_eq!(evidence.voices(), 3);
    }

    #[test]
    fn a_wrong_name_for_an_endpoint_does_not_hide_the_right_one() {
        let mut evidence = Evidence::about(named("a"));
        let mut lie = listed("a", b"x", [66, 1]);
        lie.holders[1].peer_name = "wrong".into();
        evidence.add(&source(66), vec![lie]);
        evidence.add(&source(2), vec![listed("a", b"x", [2, 1])]);
        let wrong = Source::new("wrong".parse().ok(), source(1).endpoint);
        assert_eq!(of(&evidence, b"x").holders, [source(66), source(2), wrong.clone(), source(1)]);
        evidence.add(&source(1), vec![listed("a", b"x", [1])]);
        let found = of(&evidence, b"x");
        assert_eq!((found.confirmed, &found.holders[..]), (3, &[source(66), source(2), source(1), wrong][..]));
    }

    #[test]
    fn a_peer_is_reached_where_it_answered_and_else_where_it_advertises() {
        let unreachable: Endpoint = "192.0.2.1:7801".parse().unwrap();
        let mut own = listed("a", b"x", [5]);
        own.holders[0].endpoint = unreachable.to_string();
        own.holders[0].age = Some(prost_types::Duration::default());
        let forward: Endpoint = "127.0.0.1:9901".parse().unwrap();
        for name in [None, "p5".parse().ok()] {
            let mut evidence = Evidence::about(named("a"));
            // Another peer reports it at the address that it advertises.
            evidence.add(&source(7), vec![Listed { holders: own.holders.clone(), document: own.document.clone() }]);
            evidence.add(&Source::new(name.clone(), forward.clone()), vec![own.clone()]);
            let found = of(&evidence, b"x");
            assert_eq!(found.confirmed, 1);
            assert_eq!(found.holders[0].addresses(), [forward.clone(), unreachable.clone()]);
            assert_eq!(found.holders.len(), if name.is_some() { 1 } else { 2 });
        }
    }

    #[test]
    fn only_some_of_many_contents_of_one_answer_are_taken_and_none_that_were_not_asked_for() {
        let mut evidence = Evidence::about(named("a"));
        let answer = (0..100_u8).map(|n| listed("A", &[n], [66])).chain([listed("b", b"b", [66])]).collect();
        let ignored = evidence.add(&source(66), answer);
        assert_eq!(ignored, Ignored { others: 1, too_many: 100 - CONTENTS_OF_PEER_MAX });
        assert_eq!(evidence.found().len(), CONTENTS_OF_PEER_MAX);
    }
}
