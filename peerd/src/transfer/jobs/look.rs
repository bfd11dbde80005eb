//! Looks for documents that match patterns: a job asks the peers, all or those that are named; a mirror, which looks again and again, goes by
//! what this peer learned of others.

use super::{
    items::Key,
    mirror::Listing,
    offers::{Ambiguous, Offer, Offers, Prefer},
    request::JobRequest,
    shared::Shared,
};
use crate::{
    config::Mirror,
    documents::{remote_index::RemoteIndex, selector::DocumentSelector},
    holders::{
        find_peers::{FindPeers as _, PeerSample},
        listing::{ListingFilter, Offer as Listed, Offers as Listings, shared_by},
        rfc_query::{Limits, query},
        source::Source,
    },
};
use p2pdi::{
    document::DocumentName,
    log_limit::{Line, LogLimit},
    phrases::counted,
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

/// How long a look waits for the first peer that is known: a peer that has just started knows others within seconds.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it looks whether there is one.
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
    pub(super) offers: BTreeMap<Key, Result<Offer, Ambiguous>>,
    /// Whom the answer comes from, as text.
    pub(super) asked: String,
    /// Of a mirror that follows one peer: that peer's listing.
    pub(super) listing: Option<Listing>,
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
    for peer in sources {
        match list(shared, &peer, None).await {
            Ok(listing) => {
                asked.push(format!("asked {}", peer.label()));
                let matching = listing.documents.iter().filter(|document| matches(&document.name));
                matching.for_each(|document| offers.add(document, peer.clone()));
            }
            Err(why) => asked.push(format!("{} does not answer: {why}", peer.label())),
        }
    }
    asked.extend(missing.map(|name| format!("{name} is not known now")));
    Look::Found(Found { offers: offers.choose(Prefer::MostHeld, latest()), asked: asked.join(", "), listing: None })
}

/// What all peers share themselves now, or a sample of the peers of a large network.
async fn ask_all(shared: &Arc<Shared>, request: &JobRequest) -> Found {
    let PeerSample { peers, .. } = match shared.network.sample(ASKED_MAX).await {
        Ok(sample) => sample,
        Err(never) => match never {},
    };
    let (matches, patterns) = (request.matcher(), request.wanted_patterns());
    let (mut offers, mut asked) = (Offers::default(), String::new());
    for (place, pattern) in patterns.iter().enumerate() {
        let filter = ListingFilter::of_pattern(Some(pattern.clone()));
        let Listings { offers: listed, answered, failed, is_cut } = shared_by(&shared.channels, peers.clone(), &filter).await;
        if is_cut {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::warn!(%pattern, suppressed, "too many documents match a job's pattern; some are left out");
            }
        }
        for Listed { document, holders, held_by } in listed {
            // What an earlier pattern matches is counted already.
            let is_new = !patterns[..place].iter().any(|earlier| earlier.matches(&document.name));
            if is_new && matches(&document.name) {
                offers.add_held(&document, holders, held_by);
            }
        }
        asked = format!("{} answered", counted(answered as u64, "peer"));
        let silent: Vec<_> = failed.iter().take(SILENT_SHOWN_MAX).map(|(peer, why)| format!("{peer} ({why})")).collect();
        if !silent.is_empty() {
            asked += &format!(", and {} did not, such as {}", failed.len(), silent.join(", "));
        }
    }
    Found { offers: offers.choose(Prefer::MostHeld, latest()), asked, listing: None }
}

/// Documents for a mirror.
pub(super) async fn look_for_mirror(shared: &Arc<Shared>, config: Mirror, last: Option<Listing>) -> Look {
    let pattern = config.pattern.clone();
    let Some(name) = config.from else {
        return learned(shared, move |name| pattern.matches(name), Prefer::Newest).await;
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
            Look::Found(Found { offers: offers.choose(Prefer::Newest, latest()), asked, listing: Some(listing) })
        }
        Err(why) => Look::Failed(format!("{name}, which is mirrored, does not answer: {why}; nothing is removed")),
    }
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
    let chosen = offers.choose(Prefer::MostHeld, latest());
    let (_, offer) = chosen.into_iter().next()?;
    offer.ok()
}

/// What this peer learned of others.
async fn learned(shared: &Arc<Shared>, matches: impl Fn(&DocumentName) -> bool + Send + 'static, prefer: Prefer) -> Look {
    let shared = Arc::clone(shared);
    // It goes through the whole index, which takes up to some 100 ms.
    let looked = spawn_blocking(move || {
        let now = Instant::now();
        let (remote, mut offers) = (shared.catalog.remote(now), Offers::default());
        let matching = remote.all(now).filter(|claim| matches(&claim.document.info.name));
        matching.for_each(|claim| offers.add(&claim.document.info, Source::from(&**claim.peer)));
        let asked = format!("this peer learned {} documents of {} known peers", remote.len(), shared.peers.count());
        Found { offers: offers.choose(prefer, latest()), asked, listing: None }
    });
    match looked.await {
        Ok(found) => Look::Found(found),
        Err(error) => Look::Failed(format!("a bug: looking through the index failed: {error}")),
    }
}

/// Waits until a peer is known, for a bounded time.
async fn until_known(shared: &Shared) {
    let until = Instant::now() + KNOWN_TIMEOUT;
    while shared.peers.count() == 0 && Instant::now() < until {
        sleep(KNOWN_EVERY).await;
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
