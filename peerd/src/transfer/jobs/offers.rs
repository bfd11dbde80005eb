//! What other peers offer under names that match: of each name one content.
//!
//! Names that differ in case are two documents, as they are in a share. A name that is offered in one spelling only is compared with the file
//! of the share that differs from it in case.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::items::{Key, Target};
use crate::{
    documents::{
        info::DocumentInfo,
        name_match::name_key,
        selector::DocumentSelector,
        share::{Index, SharedDocument},
    },
    holders::{settlement::is_clear, source::Source},
};
use p2pdi::content::ContentHash;
use std::{cmp::Reverse, collections::BTreeMap, iter, sync::Arc, time::SystemTime};

/// Most holders kept for one content: a fetch searches for more if it needs them.
const HOLDERS_MAX: usize = 16;

/// Which content counts where several have one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefer {
    /// The one that most peers hold, if it is clearly meant; else the name is ambiguous. See [`is_clear`].
    MostHeld,
    /// The one that was modified last; of those the one that most peers hold.
    Newest,
}

/// A document that others offer.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) document: DocumentInfo,
    pub(super) holders: Vec<Source>,
    /// How many peers list it.
    count: usize,
}

/// Why no content was chosen for a name, as text.
pub(super) type Ambiguous = String;

/// Offers of documents.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// By name and content. One map: maps of contents within one of names take 2 KiB for each name, which mostly has one content.
    by_name: BTreeMap<(Key, ContentHash), Offer>,
}

impl Offers {
    /// Adds what a peer lists.
    pub(super) fn add(&mut self, document: &DocumentInfo, holder: Source) {
        self.add_held(document, [holder], 1);
    }

    /// Adds what was found before.
    pub(super) fn add_found(&mut self, offer: &Offer) {
        self.add_held(&offer.document, offer.holders.iter().cloned(), offer.count);
    }

    /// Adds what several peers list. `held_by`: how many, those that are not in `holders` included.
    pub(super) fn add_held(&mut self, document: &DocumentInfo, holders: impl IntoIterator<Item = Source>, held_by: usize) {
        let key = (document.name.as_str().into(), document.hash);
        let new = || Offer { document: document.clone(), holders: Vec::new(), count: 0 };
        let offer = self.by_name.entry(key).or_insert_with(new);
        offer.count += held_by;
        // Copies keep the time of their original; where a peer lost it, the earliest is nearest to it.
        offer.document.modified = match (offer.document.modified, document.modified) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        offer.holders.extend(holders.into_iter().take(HOLDERS_MAX.saturating_sub(offer.holders.len())));
    }

    /// One content for each name. Modification times after `latest` are not believed.
    pub(super) fn choose(self, prefer: Prefer, latest: SystemTime) -> BTreeMap<Key, Chosen> {
        let rank = |offer: &Offer| {
            let newest = offer.document.modified.filter(|at| *at <= latest);
            match prefer {
                Prefer::MostHeld => Reverse((None, offer.count)),
                Prefer::Newest => Reverse((newest, offer.count)),
            }
        };
        let choose = |mut offers: Vec<Offer>| {
            offers.sort_by_key(rank);
            let counts: Vec<_> = offers.iter().map(|offer| offer.count).collect();
            if prefer == Prefer::MostHeld && !is_clear(&counts) {
                return Some(Err(ambiguous(&offers)));
            }
            offers.into_iter().next().map(Ok)
        };
        let mut left = self.by_name.into_iter().peekable();
        let names = iter::from_fn(|| {
            let ((key, _), offer) = left.next()?;
            let mut offers = vec![offer];
            while let Some((_, other)) = left.next_if(|((name, _), _)| *name == key) {
                offers.push(other);
            }
            Some((key, offers))
        });
        names.filter_map(|(key, offers)| Some((key, choose(offers)?))).collect()
    }
}

/// A content that was chosen for a name, or why none was.
pub(super) type Chosen = Result<Offer, Ambiguous>;

/// Offers with the files of the share that they are compared with, by the names of these files, and where there is none by the offered names.
pub(super) fn with_own(offers: BTreeMap<Key, Chosen>, index: &Index) -> BTreeMap<Key, (Chosen, Option<&Arc<SharedDocument>>)> {
    let mut spellings: BTreeMap<String, usize> = BTreeMap::new();
    for name in offers.keys() {
        *spellings.entry(name_key(name)).or_default() += 1;
    }
    let with_own = |(name, chosen): (Key, Chosen)| {
        let is_sole = spellings.get(&name_key(&name)) == Some(&1);
        let own = index.by_name(&name).filter(|own| is_sole || own.name.as_str() == &*name);
        (own.map_or(name, |own| own.name.as_str().into()), (chosen, own))
    };
    offers.into_iter().map(with_own).collect()
}

impl Offer {
    /// A document that `held_by` peers list, of which some are in `holders`.
    pub(super) fn new(document: DocumentInfo, holders: Vec<Source>, held_by: usize) -> Self {
        Self { document, holders, count: held_by }
    }

    /// What to fetch.
    pub(super) fn target(self) -> Target {
        Target {
            selector: DocumentSelector::Hash(self.document.hash),
            label: self.document.name.to_string(),
            size: self.document.size(),
            modified: self.document.modified,
            restricted: self.document.restricted,
            found_by: Some(self.document.name.clone()),
            save_as: Some(self.document.name),
            holders: self.holders,
        }
    }
}

fn ambiguous(offers: &[Offer]) -> Ambiguous {
    let each = |offer: &Offer| {
        let holders: Vec<_> = offer.holders.iter().map(Source::label).collect();
        format!("b3:{} ({})", offer.document.hash, holders.join(", "))
    };
    let all: Vec<_> = offers.iter().take(4).map(each).collect();
    format!(
        "AMBIGUOUS: several contents have this name: {}; choose by its b3: hash, or by the holder to fetch from",
        all.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::Pieces, document::DocumentName};
    use std::time::Duration;

    fn add(offers: &mut Offers, name: &str, content: &[u8], peer: &str, modified_s: u64) {
        let document = DocumentInfo {
            name: DocumentName::parse(name).unwrap(),
            number: None,
            title: String::new(),
            pieces: Pieces::of_size(content.len() as u64).unwrap(),
            hash: ContentHash::of(content),
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(modified_s)),
            restricted: false,
        };
        offers.add(&document, Source::new(peer.parse().ok(), "127.0.0.1:7801".parse().unwrap()));
    }

    fn chosen(offers: Offers, prefer: Prefer) -> Result<ContentHash, Ambiguous> {
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let (_, offer) = offers.choose(prefer, latest).pop_first().unwrap();
        offer.map(|offer| offer.document.hash)
    }

    #[test]
    fn the_newest_or_the_one_that_most_hold() {
        let all = || {
            let mut offers = Offers::default();
            add(&mut offers, "a.txt", b"old", "p1", 10);
            add(&mut offers, "a.txt", b"old", "p2", 12);
            add(&mut offers, "a.txt", b"old", "p5", 12);
            add(&mut offers, "a.txt", b"old", "p6", 12);
            add(&mut offers, "a.txt", b"new", "p3", 11);
            add(&mut offers, "a.txt", b"from the future", "p4", 5_000);
            offers
        };
        assert_eq!(chosen(all(), Prefer::MostHeld), Ok(ContentHash::of(b"old")));
        // The time of the copy on p2 does not make the old content new.
        assert_eq!(chosen(all(), Prefer::Newest), Ok(ContentHash::of(b"new")));
    }

    #[test]
    fn names_that_differ_in_case_are_two_documents() {
        let mut offers = Offers::default();
        add(&mut offers, "README", b"one", "p1", 10);
        add(&mut offers, "Readme", b"two", "p1", 10);
        let chosen = offers.choose(Prefer::MostHeld, SystemTime::now());
        let names: Vec<_> = chosen.iter().map(|(key, offer)| (&**key, offer.is_ok())).collect();
        assert_eq!(names, [("README", true), ("Readme", true)]);
    }

    #[test]
    fn contents_that_about_as_many_hold_are_ambiguous() {
        let mut offers = Offers::default();
        add(&mut offers, "a.txt", b"one", "p1", 10);
        add(&mut offers, "a.txt", b"two", "p2", 10);
        add(&mut offers, "a.txt", b"two", "p3", 10);
        let why = chosen(offers, Prefer::MostHeld).unwrap_err();
        for part in ["AMBIGUOUS", "p1", "p2", &ContentHash::of(b"one").to_string()] {
            assert!(why.contains(part), "{why}");
        }
    }
}
