//! A pattern whose documents are kept present: what to fetch, and what to remove.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    items::{Items, Key, Outcome, Target},
    offers::{Ambiguous, Offer},
};
use crate::{
    config::Mirror as Config,
    documents::{
        info::DocumentInfo,
        name_match::name_key,
        selector::DocumentSelector,
        share::{Index, SharedDocument},
    },
};
use p2pdi::v1::MirrorStatus;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

/// A mirror, and how far its documents are.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) config: Config,
    pub(super) items: Items,
    /// What it waits for; empty: nothing.
    pub(super) detail: String,
    /// The last answer of the peer that it follows.
    pub(super) listing: Option<Listing>,
}

/// The last answer of the peer that a mirror follows.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) version: u64,
    pub(super) documents: Arc<Vec<DocumentInfo>>,
    /// All of the answer was read and valid.
    pub(super) sound: bool,
    /// Every file of that peer is listed.
    pub(super) complete: bool,
}

/// What to do about a document that others offer.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The share has it, or a newer one.
    Present(u64),
    Fetch,
    /// The user has other content under this name.
    Refuse(String),
}

/// Takes an offer as a document to fetch, or as one that needs no fetch. `fetched` and `newer_only` are those of [`decide`].
pub(super) fn take_offer(
    items: &mut Items,
    key: Key,
    offer: Offer,
    index: &Index,
    fetched: impl Fn(&SharedDocument) -> bool,
    newer_only: bool,
    now: Instant,
) {
    let own = index.by_name(offer.document.name.as_str());
    let decision = decide(&offer, own.map(AsRef::as_ref), own.is_some_and(|own| fetched(own)), newer_only);
    let target = offer.target();
    // The file in the share keeps its name.
    let target = Target { save_as: own.map(|own| own.name.clone()).or(target.save_as), ..target };
    match decision {
        Decision::Present(size) => items.settle(key, target, Outcome::Present(size), now),
        Decision::Refuse(why) => items.settle(key, target, Outcome::Failed(why), now),
        Decision::Fetch => items.want(key, target),
    }
}

/// Compares an offer with what the share has under its name. `fetched`: this peer fetched that, and nobody changed it. `newer_only`: only
/// a newer version replaces it.
fn decide(offer: &Offer, own: Option<&SharedDocument>, fetched: bool, newer_only: bool) -> Decision {
    let Some(own) = own else { return Decision::Fetch };
    if own.hash == offer.document.hash {
        return Decision::Present(own.size);
    }
    if !fetched {
        return Decision::Refuse(format!(
            "the share has {} with other content, which this peer did not fetch; rename or remove that file to have the other one",
            own.name
        ));
    }
    let is_newer = offer.modified().is_some_and(|modified| modified > own.modified);
    if newer_only && !is_newer { Decision::Present(own.size) } else { Decision::Fetch }
}

impl Mirror {
    pub(super) fn new(config: Config) -> Self {
        Self { config, items: Items::default(), detail: String::new(), listing: None }
    }

    /// What the ledger calls it.
    pub(super) fn id(&self) -> String {
        let from = self.config.from.as_ref().map_or("", |from| from.as_str());
        format!("{from} {}", self.config.pattern)
    }

    /// Takes what others offer now. `fetched`: whether this peer fetched a document of the share, and nobody changed it.
    pub(super) fn update(
        &mut self,
        offers: BTreeMap<Key, Result<Offer, Ambiguous>>,
        index: &Index,
        fetched: impl Fn(&SharedDocument) -> bool,
        now: Instant,
    ) {
        let newer_only = self.config.from.is_none();
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        for (key, offer) in offers {
            wanted.insert(key.clone());
            let Ok(offer) = offer else { continue };
            take_offer(&mut self.items, key, offer, index, &fetched, newer_only, now);
        }
        // What others have no more stays in the share, and matches as long as it is there.
        for own in index.documents().iter().filter(|own| self.config.pattern.matches(&own.name)) {
            let key: Key = name_key(own.name.as_str()).into();
            if wanted.insert(key.clone()) {
                self.items.settle(key, present(own), Outcome::Present(own.size), now);
            }
        }
        self.items.retain(|key| wanted.contains(key));
    }

    /// Of the names that this mirror fetched, those that the peer it follows has no more. Empty unless that peer listed every file it has:
    /// a listing without any may come from a folder that is not mounted.
    pub(super) fn removed(&self, fetched: &[Box<str>], listing: &Listing) -> Vec<Box<str>> {
        if !self.config.delete || !listing.complete || !listing.sound || listing.documents.is_empty() {
            return Vec::new();
        }
        let listed: BTreeSet<_> = listing.documents.iter().map(|document| name_key(document.name.as_str())).collect();
        fetched.iter().filter(|name| !listed.contains(&name_key(name))).cloned().collect()
    }

    pub(super) fn status(&self) -> MirrorStatus {
        let items = &self.items;
        let detail = match items.longest_wait() {
            Some((why, _)) if self.detail.is_empty() => why,
            _ => self.detail.clone(),
        };
        MirrorStatus {
            pattern: self.config.pattern.to_string(),
            from: self.config.from.as_ref().map(ToString::to_string).unwrap_or_default(),
            delete: self.config.delete,
            present: items.present() as u64,
            missing: (items.len() - items.present() - items.failed()) as u64,
            failed: items.failures(),
            detail,
        }
    }
}

fn present(own: &SharedDocument) -> Target {
    Target {
        selector: DocumentSelector::Hash(own.hash),
        save_as: Some(own.name.clone()),
        label: own.name.to_string(),
        size: own.size,
        holders: Vec::new(),
        modified: Some(own.modified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::pattern::DocumentPattern;
    use p2pdi::{
        content::{ContentHash, Pieces},
        document::DocumentName,
    };

    fn info(name: &str) -> DocumentInfo {
        DocumentInfo {
            name: DocumentName::parse(name).unwrap(),
            number: None,
            title: String::new(),
            pieces: Pieces::of_size(1).unwrap(),
            hash: ContentHash::of(name.as_bytes()),
            modified: None,
        }
    }

    #[test]
    fn only_a_complete_listing_that_is_not_empty_removes_what_it_lacks() {
        let config = |delete| Config { pattern: DocumentPattern::parse("**").unwrap(), from: "p1".parse().ok(), delete };
        let mirror = Mirror::new(config(true));
        let fetched: Vec<Box<str>> = vec!["a".into(), "B".into(), "c".into()];
        let listing = Listing { version: 1, documents: Arc::new(vec![info("A"), info("b")]), sound: true, complete: true };
        assert_eq!(mirror.removed(&fetched, &listing), ["c".into()]);
        for (mirror, listing) in [
            (Mirror::new(config(false)), listing.clone()),
            (Mirror::new(config(true)), Listing { complete: false, ..listing.clone() }),
            (Mirror::new(config(true)), Listing { documents: Arc::default(), ..listing }),
        ] {
            assert!(mirror.removed(&fetched, &listing).is_empty());
        }
    }
}
