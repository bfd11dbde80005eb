//! Looks for documents that match patterns: a job asks the peers, all or those that are named; a mirror, which looks again and again, goes by
//! what this peer learned of others, and now and then asks some of those of which it learned nothing.

use super::{
    beyond::{Beyond, unlearned},
    items::Key,
    mirror::Listing,
    offers::{Chosen, Offer, Offers, Prefer},
    request::JobRequest,
    shared::Shared,
};
use crate::{
    config::Mirror,
    documents::{pattern::DocumentPattern, remote_index::RemoteIndex, selector::DocumentSelector},
    holders::{
        find_peers::{FindPeers as _, PeerSample},
        listing::{ListingFilter, Offer as Listed, Offers as Listings, shared_by},
        rfc_query::{Limits, query},
        source::Source,
    },
};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    phrases::{counted, first_of},
    status,
    v1::RfcQueryRequest,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// How long a look of a peer that knows nobody yet waits for others: a peer that has just started knows some within seconds.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Once this time passes without another one, those that can be found at once are known.
const KNOWN_QUIET: Duration = Duration::from_secs(1);
/// How often it looks whether there are more.
const KNOWN_EVERY: Duration = Duration::from_millis(200);
/// Most peers asked for what they share. Of more, a random sample of this size is asked.
const ASKED_MAX: usize = 1_000;
/// Most peers that are named because they do not answer.
const SILENT_SHOWN_MAX: usize = 4;
/// How long a peer may take to list its documents.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a mirror compares what was learned with what is there.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// How often a mirror asks the peer that it follows. An answer without changes costs some hundred bytes.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// How far ahead of this machine's the clock of another one may be before its times are not believed.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(24 * 3600);

/// The result of a look.
pub(super) enum Look {
    Found(Found),
    /// Why it could not look, as text.
    Failed(String),
}

/// What was found.
pub(super) struct Found {
    pub(super) offers: BTreeMap<Key, Chosen>,
    /// Whom the answer comes from, as text.
    pub(super) asked: String,
    /// What may be missing from it, and why, as text; empty: nothing.
    pub(super) missed: String,
    /// Of a mirror that follows one peer: that peer's listing.
    pub(super) listing: Option<Listing>,
    /// Of a mirror of everybody: what peers share of which nothing is learned.
    pub(super) beyond: Option<Beyond>,
}

/// Documents for a job's patterns.
pub(super) async fn look_for_job(shared: &Arc<Shared>, request: JobRequest) -> Look {
    let matches = request.matcher();
    if request.from.is_empty() {
        until_known(shared).await;
        return Look::Found(ask_all(shared, &request).await);
    }
    let (sources, missing) = shared.peers.find(&request.from);
    let (mut offers, mut asked) = (Offers::default(), Vec::new());
    let mut silent: BTreeMap<String, String> = missing.map(|name| (name, "not known now".to_owned())).into_iter().collect();
    for peer in sources {
        match list(shared, &peer, None).await {
            Ok(listing) => {
                asked.push(peer.label().to_owned());
                let matching = listing.documents.iter().filter(|document| matches(&document.name));
                matching.for_each(|document| offers.add(document, peer.clone()));
            }
            Err(why) => drop(silent.insert(peer.label().to_owned(), why)),
        }
    }
    let asked = if asked.is_empty() { "no peer answered".to_owned() } else { format!("asked {}", asked.join(", ")) };
    let missed = unanswered(&silent).unwrap_or_default();
    Look::Found(Found { offers: offers.choose(Prefer::MostHeld, latest()), asked, missed, listing: None, beyond: None })
}

/// What all peers share themselves now, or a sample of the peers of a large network.
async fn ask_all(shared: &Arc<Shared>, request: &JobRequest) -> Found {
    let sample = match shared.network.sample(ASKED_MAX).await {
        Ok(sample) => sample,
        Err(never) => match never {},
    };
    let sampled = sample.missing();
    let PeerSample { peers, .. } = sample;
    let (matches, asked) = (request.matcher(), peers.len());
    // Several patterns may match one document: it counts once, with the holders of the fullest listing.
    let mut listed: BTreeMap<(DocumentName, ContentHash), Listed> = BTreeMap::new();
    let (mut silent, mut cut) = (BTreeMap::new(), Vec::new());
    for pattern in request.wanted_patterns() {
        let filter = ListingFilter::of_pattern(Some(pattern.clone()));
        let Listings { offers, failed, is_cut, .. } = shared_by(&shared.channels, peers.clone(), &filter).await;
        silent.extend(failed);
        cut.extend(is_cut.then(|| pattern.to_string()));
        for offer in offers.into_iter().filter(|offer| matches(&offer.document.name)) {
            let key = (offer.document.name.clone(), offer.document.hash);
            match listed.get(&key) {
                Some(known) if known.held_by >= offer.held_by => {}
                _ => drop(listed.insert(key, offer)),
            }
        }
    }
    let mut offers = Offers::default();
    for Listed { document, holders, held_by } in listed.into_values() {
        offers.add_held(&document, holders, held_by);
    }
    let answered = format!("{} answered", counted(asked.saturating_sub(silent.len()) as u64, "peer"));
    let not_cut = |cut: Vec<String>| (!cut.is_empty()).then(|| format!("more documents match {} than peers list", cut.join(" ")));
    let missed: Vec<_> = sampled.into_iter().chain(unanswered(&silent)).chain(not_cut(cut)).collect();
    Found {
        offers: offers.choose(Prefer::MostHeld, latest()),
        asked: answered,
        missed: missed.join("; "),
        listing: None,
        beyond: None,
    }
}

/// Says of peers that did not answer that what they share is missing.
fn unanswered(silent: &BTreeMap<String, String>) -> Option<String> {
    let shown = first_of(silent.iter().map(|(peer, why)| format!("{peer} ({why})")), SILENT_SHOWN_MAX, ", ");
    (!silent.is_empty()).then(|| format!("what these peers share is not known: {shown}"))
}

/// Documents for a mirror.
pub(super) async fn look_for_mirror(shared: &Arc<Shared>, config: Mirror, last: Option<Listing>, beyond: Option<Beyond>) -> Look {
    let pattern = config.pattern.clone();
    let Some(name) = config.from else {
        let now = Instant::now();
        let mut beyond = beyond.unwrap_or_else(|| Beyond::new(now, rand::random()));
        if beyond.is_due(now) {
            let offers = ask_unlearned(shared, &pattern).await;
            beyond.add(offers, Instant::now(), rand::random());
        }
        return learned(shared, move |name| pattern.matches(name), beyond).await;
    };
    let Some(contact) = shared.peers.contact(&name) else {
        return Look::Failed(format!("{name}, which is mirrored, is not known now; nothing is removed"));
    };
    let peer = Source::from(&contact);
    // What another peer of that name listed says nothing about this one.
    let last = last.filter(|last| last.peer == Some(contact.id()));
    match list(shared, &peer, last.as_ref()).await {
        Ok(listing) => {
            let listing = Listing { peer: Some(contact.id()), ..listing };
            let mut offers = Offers::default();
            let matching = listing.documents.iter().filter(|document| pattern.matches(&document.name));
            matching.for_each(|document| offers.add(document, peer.clone()));
            let asked = format!("asked {name}");
            Look::Found(Found {
                offers: offers.choose(Prefer::Newest, latest()),
                asked,
                missed: String::new(),
                listing: Some(listing),
                beyond: None,
            })
        }
        Err(why) => Look::Failed(format!("{name}, which is mirrored, does not answer: {why}; nothing is removed")),
    }
}

/// What some of the peers share of which nothing is learned.
async fn ask_unlearned(shared: &Shared, pattern: &DocumentPattern) -> Vec<Offer> {
    // All that there are to choose from: most may be learned of.
    let PeerSample { peers, .. } = match shared.network.sample(ASKED_MAX).await {
        Ok(sample) => sample,
        Err(never) => match never {},
    };
    let asked = unlearned(peers, &shared.catalog.remote(Instant::now()));
    if asked.is_empty() {
        return Vec::new();
    }
    let listed = shared_by(&shared.channels, asked, &ListingFilter::of_pattern(Some(pattern.clone()))).await;
    listed.offers.into_iter().map(|Listed { document, holders, held_by }| Offer::new(document, holders, held_by)).collect()
}

/// Time between two looks of a mirror.
pub(super) fn mirror_pause(config: &Mirror) -> Duration {
    if config.from.is_some() { FOLLOW_EVERY } else { MIRROR_EVERY }
}

/// What is known of the document that `selector` selects, if one content is clearly meant. Of a name or a number it is a hint only.
pub(super) fn known(remote: &RemoteIndex, selector: &DocumentSelector, now: Instant) -> Option<Offer> {
    let mut offers = Offers::default();
    let mut add =
        |claim: crate::documents::remote_index::Claim<'_>| offers.add(&claim.document.info, Source::from(&**claim.peer));
    match selector {
        DocumentSelector::Hash(hash) => remote.by_hash(*hash, now).for_each(&mut add),
        DocumentSelector::Number(number) => remote.by_number(*number, now).for_each(&mut add),
        DocumentSelector::Name(name) => remote.by_name(name.as_str(), now).for_each(&mut add),
    }
    let mut chosen = offers.choose(Prefer::MostHeld, latest());
    let exact = match selector {
        DocumentSelector::Name(name) => chosen.remove(name.as_str()),
        DocumentSelector::Hash(_) | DocumentSelector::Number(_) => None,
    };
    exact.or_else(|| chosen.into_values().next())?.ok()
}

/// What this peer learned of others, and what was found beyond that.
async fn learned(shared: &Arc<Shared>, matches: impl Fn(&DocumentName) -> bool + Send + 'static, beyond: Beyond) -> Look {
    let shared = Arc::clone(shared);
    // It goes through the whole index, which takes up to some 100 ms.
    let looked = spawn_blocking(move || {
        let now = Instant::now();
        let (remote, mut offers) = (shared.catalog.remote(now), Offers::default());
        let matching = remote.all(now).filter(|claim| matches(&claim.document.info.name));
        matching.for_each(|claim| offers.add(&claim.document.info, Source::from(&**claim.peer)));
        beyond.offers().filter(|offer| matches(&offer.document.name)).for_each(|offer| offers.add_found(offer));
        let asked = format!("this peer learned {} documents of {} known peers", remote.len(), shared.peers.count());
        let offers = offers.choose(Prefer::Newest, latest());
        Found { offers, asked, missed: String::new(), listing: None, beyond: Some(beyond) }
    });
    match looked.await {
        Ok(found) => Look::Found(found),
        Err(error) => Look::Failed(format!("a bug: looking through the index failed: {error}")),
    }
}

/// Of a peer that knows nobody yet: waits until it knows those that it finds at once, for a bounded time.
async fn until_known(shared: &Shared) {
    if shared.peers.count() > 0 {
        return;
    }
    let until = Instant::now() + KNOWN_TIMEOUT;
    let (mut known, mut since) = (0, Instant::now());
    while Instant::now() < until && (known == 0 || since.elapsed() < KNOWN_QUIET) {
        sleep(KNOWN_EVERY).await;
        let count = shared.peers.count();
        if count > known {
            (known, since) = (count, Instant::now());
        }
    }
}

/// A peer's own documents. `last`: its last answer, which is kept if nothing changed.
async fn list(shared: &Shared, peer: &Source, last: Option<&Listing>) -> Result<Listing, String> {
    let client = shared.channels.peer_once(&peer.endpoint, peer.name.as_ref());
    let if_version = last.map_or(0, |last| last.version);
    let request = RfcQueryRequest { own_only: true, if_version, ..Default::default() };
    let answer = match timeout(LISTING_TIMEOUT, query(client, request, Limits::LISTING)).await {
        Ok(answer) => answer.map_err(|status| status::describe(&status))?,
        Err(_) => return Err(format!("no listing within {} s", LISTING_TIMEOUT.as_secs())),
    };
    if let Some(last) = last.filter(|_| answer.unchanged) {
        return Ok(Listing { complete: answer.complete, ..last.clone() });
    }
    let sound = answer.invalid == 0 && !answer.truncated && !answer.unchanged;
    let documents = answer.documents.into_iter().map(|listed| listed.document).collect();
    Ok(Listing { peer: None, version: answer.version, documents: Arc::new(documents), sound, complete: answer.complete })
}

/// Modification times after this are not believed.
fn latest() -> SystemTime {
    SystemTime::now() + CLOCK_SKEW_MAX
}
