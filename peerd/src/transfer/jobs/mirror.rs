//! A pattern whose documents are kept present: what to fetch, and what to remove.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::{
    beyond::Beyond,
    items::{Items, Key, Outcome, Target},
    offers::{Chosen, Offer, with_own},
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
use p2pdi::{document::DocumentName, id::PeerId, v1::MirrorStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// More than half of the documents, and at least this many, removed at once may be a folder that is not mounted at the followed peer.
const MOST_GONE_MIN: usize = 3;
/// How long they stay then: time to notice, and to mount it.
const MOST_GONE_DELAY: Duration = Duration::from_secs(600);

/// A mirror looks at least this often although nothing changed: what it goes by besides, such as which documents were fetched, has no version.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);

/// What a look of a mirror of everybody goes by: versions of what was learned of others, and of the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) remote: u64,
    pub(super) own: u64,
}

/// A mirror, and how far its documents are.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) config: Config,
    pub(super) items: Items,
    /// What it waits for; empty: nothing.
    pub(super) detail: String,
    /// The last answer of the peer that it follows.
    pub(super) listing: Option<Listing>,
    /// Of a mirror of everybody: what peers share of which nothing is learned.
    pub(super) beyond: Option<Beyond>,
    /// What its latest look goes by, and when that began.
    looked: Option<(Seen, Instant)>,
    /// Since when that peer lists most of the documents no more.
    most_gone_since: Option<Instant>,
}

/// The last answer of the peer that a mirror follows.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// Who answered; `None`: its id is not known.
    pub(super) peer: Option<PeerId>,
    pub(super) version: u64,
    pub(super) documents: Arc<Vec<DocumentInfo>>,
    /// All of the answer was read and valid.
    pub(super) sound: bool,
    /// Every file of that peer is listed.
    pub(super) complete: bool,
}

/// What a listing of the followed peer says about the names that a mirror fetched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Who listed them.
    pub(super) peer: Option<PeerId>,
    /// Names that another peer, or nobody, listed before.
    pub(super) newly_listed: Vec<Box<str>>,
    /// Names to be removed.
    pub(super) gone: Vec<Box<str>>,
}

/// The names of a listing.
struct Listed<'a> {
    exact: BTreeSet<&'a str>,
    /// Without regard to case: those that are listed in one spelling only, under which nothing was fetched.
    any_case: BTreeSet<String>,
}

impl<'a> Listed<'a> {
    fn of(listing: &'a Listing, fetched: &[(Box<str>, Option<PeerId>)]) -> Self {
        let exact: BTreeSet<&str> = listing.documents.iter().map(|document| document.name.as_str()).collect();
        let mut spellings: BTreeMap<String, usize> = BTreeMap::new();
        // What was fetched under a listed name is that document, and no other one.
        let names = exact.iter().copied().chain(fetched.iter().map(|(name, _)| &**name).filter(|name| exact.contains(name)));
        for name in names {
            *spellings.entry(name_key(name)).or_default() += 1;
        }
        Self { exact, any_case: spellings.into_iter().filter(|(_, count)| *count == 1).map(|(key, _)| key).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.exact.contains(name) || self.any_case.contains(&name_key(name))
    }
}

/// What to do about a document that others offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The share has it, or a newer one.
    Present(u64),
    Fetch,
    /// The user has other content under this name.
    Refuse(String),
}

/// Takes an offer as a document to fetch, or as one that needs no fetch. `own`: the file of the share that it is compared with; `fetched` and
/// `newer_only` are those of [`decide`].
pub(super) fn take_offer(
    items: &mut Items,
    key: Key,
    (offer, own): (Offer, Option<&Arc<SharedDocument>>),
    fetched: impl Fn(&SharedDocument) -> bool,
    newer_only: bool,
    now: Instant,
) {
    let decision = decide(&offer, own.map(AsRef::as_ref), own.is_some_and(|own| fetched(own)), newer_only);
    let target = offer.target();
    // The file in the share keeps its name.
    let target = Target { save_as: own.map(|own| own.name.clone()).or(target.save_as), ..target };
    decision.apply(items, key, target, now);
}

impl Decision {
    /// Records what follows from it.
    pub(super) fn apply(self, items: &mut Items, key: Key, target: Target, now: Instant) {
        match self {
            Self::Present(size) => items.settle(key, target, Outcome::Present(size), now),
            Self::Refuse(why) => items.settle(key, target, Outcome::Failed(why), now),
            Self::Fetch => items.want(key, target),
        }
    }
}

/// Compares an offer with what the share has under its name. `fetched`: this peer fetched that, and nobody changed it. `newer_only`: only
/// a newer version replaces it.
pub(super) fn decide(offer: &Offer, own: Option<&SharedDocument>, fetched: bool, newer_only: bool) -> Decision {
    let Some(own) = own else { return Decision::Fetch };
    if own.hash == offer.document.hash {
        return Decision::Present(own.size);
    }
    if !fetched {
        return Decision::Refuse(other_content(&own.name));
    }
    let is_newer = offer.document.modified.is_some_and(|modified| modified > own.modified);
    if newer_only && !is_newer { Decision::Present(own.size) } else { Decision::Fetch }
}

/// Why the user's own file stays.
pub(super) fn other_content(name: &DocumentName) -> String {
    format!(
        "the share has {name} with other content, which this peer did not fetch; rename or remove that file to have the other one"
    )
}

impl Mirror {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            items: Items::default(),
            detail: String::new(),
            listing: None,
            beyond: None,
            looked: None,
            most_gone_since: None,
        }
    }

    /// Whether a look can find something new; if so, it begins now. While documents are fetched the share changes all the time.
    pub(super) fn begins_look(&mut self, seen: Seen, now: Instant) -> bool {
        let is_fetching = self.items.running() > 0;
        let knows = |(last, at): (Seen, Instant)| {
            last.remote == seen.remote
                && (last.own == seen.own || is_fetching)
                && now.saturating_duration_since(at) < LOOK_ANYWAY
                && !self.beyond.as_ref().is_some_and(|beyond| beyond.is_due(now))
        };
        if self.config.from.is_none() && self.looked.is_some_and(knows) {
            return false;
        }
        self.looked = Some((seen, now));
        true
    }

    /// The look found nothing out.
    pub(super) fn look_failed(&mut self, why: String) {
        (self.looked, self.detail) = (None, why);
    }

    /// What the ledger calls it.
    pub(super) fn id(&self) -> String {
        let from = self.config.from.as_ref().map_or("", |from| from.as_str());
        format!("{from} {}", self.config.pattern)
    }

    /// Takes what others offer now. `fetched`: whether this peer fetched a document of the share, and nobody changed it.
    pub(super) fn update(
        &mut self,
        offers: BTreeMap<Key, Chosen>,
        index: &Index,
        fetched: impl Fn(&SharedDocument) -> bool,
        now: Instant,
    ) {
        let newer_only = self.config.from.is_none();
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        for (key, (offer, own)) in with_own(offers, index) {
            wanted.insert(key.clone());
            let Ok(offer) = offer else { continue };
            take_offer(&mut self.items, key, (offer, own), &fetched, newer_only, now);
        }
        // What others have no more stays in the share, and matches as long as it is there.
        for own in index.documents().iter().filter(|own| self.config.pattern.matches(&own.name)) {
            let key: Key = own.name.as_str().into();
            if wanted.insert(key.clone()) {
                self.items.settle(key, present(own), Outcome::Present(own.size), now);
            }
        }
        self.items.retain(|key| wanted.contains(key));
    }

    /// Takes the listing of the peer that this mirror follows. `fetched`: the names that this mirror fetched, each with the peer that listed it
    /// last. What goes is what this very peer, by its id, listed earlier and has no more: another peer of its name removes nothing. None goes
    /// unless the peer listed every file it has: a listing without any may come from a folder that is not mounted. One that lacks most
    /// documents may, too: those are kept for a while.
    pub(super) fn take_listing(
        &mut self,
        listing: Option<Listing>,
        fetched: &[(Box<str>, Option<PeerId>)],
        now: Instant,
    ) -> Compared {
        let compared = listing.as_ref().map(|listing| self.compare(listing, fetched, now)).unwrap_or_default();
        self.listing = listing;
        compared
    }

    fn compare(&mut self, listing: &Listing, fetched: &[(Box<str>, Option<PeerId>)], now: Instant) -> Compared {
        let Some(peer) = listing.peer.filter(|_| self.config.delete && listing.complete && listing.sound) else {
            return Compared::default();
        };
        let listed = Listed::of(listing, fetched);
        let mut compared = Compared { peer: Some(peer), ..Compared::default() };
        for (name, by) in fetched {
            match (listed.has(name), *by == Some(peer)) {
                (true, false) => compared.newly_listed.push(name.clone()),
                (false, true) => compared.gone.push(name.clone()),
                (true, true) | (false, false) => {}
            }
        }
        let gone = compared.gone.len();
        if listing.documents.is_empty() {
            compared.gone.clear();
        } else if gone < MOST_GONE_MIN || gone * 2 <= fetched.len() {
            self.most_gone_since = None;
        } else {
            let since = *self.most_gone_since.get_or_insert(now);
            let left = MOST_GONE_DELAY.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                self.most_gone_since = None;
            } else {
                let from = self.config.from.as_ref().map_or("", |from| from.as_str());
                self.detail = format!(
                    "{from} lists {gone} of {} mirrored documents no more; they are removed in {} s unless it lists them again",
                    fetched.len(),
                    left.as_secs(),
                );
                compared.gone.clear();
            }
        }
        compared
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
        restricted: false,
        found_by: None,
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
            restricted: false,
        }
    }

    const P1: PeerId = PeerId::from_bytes([1; 16]);
    const P2: PeerId = PeerId::from_bytes([2; 16]);

    fn mirror(delete: bool) -> Mirror {
        Mirror::new(Config { pattern: DocumentPattern::parse("**").unwrap(), from: "p1".parse().ok(), delete })
    }

    fn fetched(names: &[&str], by: PeerId) -> Vec<(Box<str>, Option<PeerId>)> {
        names.iter().map(|name| ((*name).into(), Some(by))).collect()
    }

    fn listing(names: &[&str]) -> Listing {
        let documents = names.iter().map(|name| info(name)).collect();
        Listing { peer: Some(P1), version: 1, documents: Arc::new(documents), sound: true, complete: true }
    }

    #[test]
    fn only_a_complete_listing_that_is_not_empty_removes_what_it_lacks() {
        let (now, fetched) = (Instant::now(), fetched(&["a", "B", "c", "d"], P1));
        let lacks_c = listing(&["A", "b", "d"]);
        assert_eq!(mirror(true).take_listing(Some(lacks_c.clone()), &fetched, now).gone, ["c".into()]);
        for (delete, listing) in [
            (false, lacks_c.clone()),
            (true, Listing { complete: false, ..lacks_c.clone() }),
            (true, Listing { sound: false, ..lacks_c.clone() }),
            (true, Listing { documents: Arc::default(), ..lacks_c.clone() }),
            (true, Listing { peer: None, ..lacks_c }),
        ] {
            assert!(mirror(delete).take_listing(Some(listing), &fetched, now).gone.is_empty());
        }
    }

    #[test]
    fn a_mirror_of_everybody_looks_when_something_changed_and_now_and_then() {
        let now = Instant::now();
        let seen = Seen { remote: 1, own: 1 };
        let later = now + Duration::from_secs(2);
        let mut everybody = Mirror::new(Config { from: None, ..mirror(false).config });
        assert!(everybody.begins_look(seen, now) && !everybody.begins_look(seen, later));
        let others_changed = Seen { remote: 2, ..seen };
        assert!(everybody.begins_look(others_changed, later) && !everybody.begins_look(others_changed, later));
        let share_changed = Seen { own: 2, ..others_changed };
        assert!(everybody.begins_look(share_changed, later));
        // What arrives changes the share too, and needs no look.
        everybody.items.want("a".into(), present_target("a"));
        assert!(everybody.items.start(|_, _| true).is_some());
        assert!(!everybody.begins_look(Seen { own: 3, ..share_changed }, later));
        assert!(everybody.begins_look(share_changed, later + LOOK_ANYWAY));
        everybody.look_failed("a bug".into());
        assert!(everybody.begins_look(share_changed, later + LOOK_ANYWAY));
        let mut of_one = mirror(false);
        assert!(of_one.begins_look(seen, now) && of_one.begins_look(seen, now), "who is followed is asked each time");
    }

    fn present_target(name: &str) -> Target {
        Target {
            selector: DocumentSelector::Hash(ContentHash::of(name.as_bytes())),
            save_as: DocumentName::parse(name).ok(),
            label: name.into(),
            found_by: None,
            size: 1,
            holders: Vec::new(),
            modified: None,
            restricted: false,
        }
    }

    #[test]
    fn of_names_that_differ_in_case_the_one_that_is_listed_no_more_goes() {
        let (now, both) = (Instant::now(), fetched(&["README", "Readme", "x"], P1));
        let gone = |names: &[&str], fetched: &[(Box<str>, Option<PeerId>)]| {
            mirror(true).take_listing(Some(listing(names)), fetched, now).gone
        };
        assert_eq!(gone(&["README", "x"], &both), ["Readme".into()]);
        assert!(gone(&["README", "Readme", "x"], &both).is_empty());
        // Another spelling of what was fetched is the same document.
        assert!(gone(&["readme", "x"], &fetched(&["README", "x"], P1)).is_empty());
    }

    #[test]
    fn a_peer_that_took_the_name_of_the_followed_one_removes_only_what_it_listed_itself() {
        let now = Instant::now();
        let other = Listing { peer: Some(P2), ..listing(&["a", "b", "c"]) };
        let compared = mirror(true).take_listing(Some(other.clone()), &fetched(&["a", "b", "c", "d"], P1), now);
        assert_eq!(
            compared,
            Compared { peer: Some(P2), newly_listed: vec!["a".into(), "b".into(), "c".into()], gone: Vec::new() }
        );
        assert_eq!(mirror(true).take_listing(Some(other), &fetched(&["a", "b", "c", "d"], P2), now).gone, ["d".into()]);
    }

    #[test]
    fn most_documents_at_once_are_removed_only_after_a_while() {
        let (mut mirror, now, fetched) = (mirror(true), Instant::now(), fetched(&["a", "b", "c", "d"], P1));
        assert!(mirror.take_listing(Some(listing(&["stray"])), &fetched, now).gone.is_empty());
        assert!(mirror.detail.contains("4 of 4 mirrored documents"), "{}", mirror.detail);
        let later = now + MOST_GONE_DELAY;
        assert!(mirror.take_listing(Some(listing(&["a", "b", "c", "d"])), &fetched, later).gone.is_empty());
        assert!(mirror.take_listing(Some(listing(&["d"])), &fetched, later).gone.is_empty(), "the time begins anew");
        assert_eq!(mirror.take_listing(Some(listing(&["d"])), &fetched, later + MOST_GONE_DELAY).gone.len(), 3);
    }
}
