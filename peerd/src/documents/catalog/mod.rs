//! The peer's own share and the remote index, queried as one.

mod query;

pub use query::{Filter, LISTINGS_MAX, LISTINGS_PER_ADDRESS, LOOKUPS_MAX, LOOKUPS_PER_ADDRESS, answer};

use crate::documents::{
    confidential::Confidential,
    remote_index::RemoteIndex,
    remote_listing::{RemoteListing, SortedListing},
    restrictions::{Audience, Restrictions},
    share::{Share, SharedDocument},
};
use p2pdi::{contact::Contact, content::ContentHash, document::DocumentName};
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Instant, SystemTime},
};

/// The peer's own share and the documents that other peers list. Clones are handles to the same catalog.
#[derive(Clone)]
pub struct Catalog {
    share: Share,
    restrictions: Arc<Restrictions>,
    /// What was fetched from holders that have it for some only.
    confidential: Arc<Confidential>,
    remote: Arc<Remote>,
}

/// The index that queries read, which an update replaces: no query waits while an update is prepared.
struct Remote {
    current: RwLock<Arc<RemoteIndex>>,
    /// Held from the copy of the current index until the changed copy is in its place.
    update: Mutex<()>,
}

impl Catalog {
    /// A catalog of `share` and an empty remote index.
    pub fn new(share: Share) -> Self {
        let current = RwLock::new(Arc::new(RemoteIndex::new(SystemTime::now())));
        Self {
            share,
            restrictions: Arc::default(),
            confidential: Arc::default(),
            remote: Arc::new(Remote { current, update: Mutex::default() }),
        }
    }

    /// The same catalog, of which some folders are for some peers only.
    #[must_use]
    pub fn restricted(self, restrictions: Restrictions) -> Self {
        Self { restrictions: Arc::new(restrictions), ..self }
    }

    /// The same catalog, with what was fetched from holders that have it for some only.
    #[must_use]
    pub(crate) fn with_confidential(self, confidential: Arc<Confidential>) -> Self {
        Self { confidential, ..self }
    }

    /// Whether content that is called `name` here is for everyone of the network.
    fn is_public(&self, name: &DocumentName, hash: &ContentHash) -> bool {
        self.restrictions.is_public(name) && !self.confidential.has(hash)
    }

    /// Whether `audience` may know of content that is called `name` here. What was fetched from a holder that has it for some only is for
    /// those that a rule of this peer names, without one for nobody.
    pub(crate) fn allows(&self, name: &DocumentName, hash: &ContentHash, audience: &Audience) -> bool {
        self.restrictions.allow(name, audience)
            && (audience.is_owner() || !self.confidential.has(hash) || !self.restrictions.is_public(name))
    }

    /// Whether the share has a copy of the content for everyone.
    pub(crate) fn has_public(&self, hash: &ContentHash) -> bool {
        self.any_public(self.share.index().by_hash(hash), hash)
    }

    /// Whether the share has the content, and no copy of it for everyone: whoever gets it is not to pass it on.
    pub(crate) fn is_restricted(&self, hash: &ContentHash) -> bool {
        if self.all_public() {
            return false;
        }
        let index = self.share.index();
        let copies = index.by_hash(hash);
        !copies.is_empty() && !self.any_public(copies, hash)
    }

    fn any_public(&self, copies: &[Arc<SharedDocument>], hash: &ContentHash) -> bool {
        copies.iter().any(|own| self.is_public(&own.name, hash))
    }

    fn all_public(&self) -> bool {
        self.restrictions.is_empty() && self.confidential.is_empty()
    }

    /// How many documents the share has for everyone.
    pub fn public_documents(&self) -> u64 {
        self.public_totals().0
    }

    /// How many documents the share has for everyone, and how many bytes they are.
    pub(crate) fn public_totals(&self) -> (u64, u64) {
        let index = self.share.index();
        if self.all_public() {
            return (index.len() as u64, index.bytes());
        }
        let public = index.documents().iter().filter(|own| self.is_public(&own.name, &own.hash));
        public.fold((0, 0), |(documents, bytes), own| (documents + 1, bytes + own.size))
    }

    /// Whether the share has the content, and only where `audience` may not know of it.
    pub(crate) fn hides(&self, hash: &ContentHash, audience: &Audience) -> bool {
        if self.all_public() {
            return false;
        }
        let index = self.share.index();
        let copies = index.by_hash(hash);
        !copies.is_empty() && !copies.iter().any(|own| self.allows(&own.name, hash, audience))
    }

    /// Whether content that is fetched as `name` is for others than `audience` only. A copy in the share decides for itself: [`Self::hides`].
    pub(crate) fn hides_fetched(&self, hash: &ContentHash, name: &DocumentName, audience: &Audience) -> bool {
        !self.allows(name, hash, audience) && self.share.index().by_hash(hash).is_empty()
    }

    /// The peer's own share.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// How many documents other peers list; equal contents count once.
    pub fn remote_documents(&self) -> usize {
        self.remote(Instant::now()).len()
    }

    /// How many documents other peers list that are not kept.
    pub fn remote_left_out(&self) -> usize {
        self.remote(Instant::now()).left_out()
    }

    /// The remote index as it is now. An update leaves it as it is.
    pub(crate) fn remote(&self, now: Instant) -> Arc<RemoteIndex> {
        let current = self.remote.current();
        if !current.has_expired(now) {
            return current;
        }
        // While another update goes on, peers that expired now are listed for a moment longer.
        if let Ok(_update) = self.remote.update.try_lock() {
            self.remote.replace(|index| index.expire(now));
        }
        self.remote.current()
    }

    /// Changes the remote index.
    pub(crate) fn update_remote(&self, change: impl FnOnce(&mut RemoteIndex)) {
        let _update = self.remote.update.lock().unwrap_or_else(PoisonError::into_inner);
        self.remote.replace(change);
    }

    /// Replaces a peer's listing. Blocking: sorts it.
    pub(crate) fn replace_listing(&self, peer: Contact, listing: RemoteListing, now: Instant) {
        let sorted = SortedListing::new(listing);
        self.update_remote(|index| index.replace(peer, sorted, now, SystemTime::now()));
    }
}

impl Remote {
    fn current(&self) -> Arc<RemoteIndex> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The caller holds `update`.
    fn replace(&self, change: impl FnOnce(&mut RemoteIndex)) {
        let mut next = RemoteIndex::clone(&self.current());
        change(&mut next);
        // The index before, if this was its last user, is dropped after the lock.
        let next = Arc::new(next);
        let _before = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{
        info::DocumentInfo,
        restrictions::{ShareTo, Who},
        share::ShareConfig,
    };
    use p2pdi::{
        content::Pieces, document::DocumentName, id::PeerId, metrics::Metrics, selector::NamePattern, v1::RfcQueryRequest,
    };
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    #[test]
    fn queries_go_on_while_a_listing_of_40000_documents_is_replaced() {
        const DOCUMENTS: u32 = 40_000;
        let state = tempfile::tempdir().unwrap();
        let (share, _indexer) = Share::open(ShareConfig::new(None, state.path().to_owned()), &Metrics::default()).unwrap();
        let catalog = Catalog::new(share);
        let contact = |n: u8| {
            Contact::new(PeerId::from_bytes([n; 16]), format!("p{n}").parse().unwrap(), "127.0.0.1:7801".parse().unwrap())
        };
        let document = |n: u32| DocumentInfo {
            name: DocumentName::parse(&format!("rfc{n}.txt")).unwrap(),
            number: Some(n),
            title: format!("Title {n}"),
            pieces: Pieces::of_size(9).unwrap(),
            hash: ContentHash::of(&n.to_be_bytes()),
            modified: None,
            restricted: false,
        };
        let listing = |version| RemoteListing { version, documents: (1..=DOCUMENTS).map(document).collect() };
        let now = Instant::now();
        catalog.replace_listing(contact(1), listing(1), now);
        let filter = Filter::try_from(&RfcQueryRequest { number: 48, ..Default::default() }).unwrap();
        let done = AtomicBool::new(false);
        let (update, mut queries) = thread::scope(|scope| {
            let update = scope.spawn(|| {
                let listing = listing(2);
                let started = Instant::now();
                catalog.replace_listing(contact(1), listing, now);
                done.store(true, Ordering::Release);
                started.elapsed()
            });
            let mut queries: Vec<Duration> = Vec::new();
            while !done.load(Ordering::Acquire) {
                let started = Instant::now();
                let messages: Vec<_> = answer(&catalog, &contact(9), &filter, 0, now).collect();
                queries.push(started.elapsed());
                assert_eq!(messages.iter().map(|message| message.holdings.len()).sum::<usize>(), 1);
            }
            (update.join().unwrap(), queries)
        });
        queries.sort_unstable();
        println!("update {update:?}, {} queries meanwhile, slowest {:?}", queries.len(), queries.last());
        // A query that waited for the update would be the only one. The scheduler may hold up one or two, so the slowest do not count.
        assert!(queries.len() > 20, "{queries:?}");
        assert!(queries[queries.len() * 9 / 10] < Duration::from_millis(5), "{queries:?}");
    }

    #[tokio::test]
    async fn what_is_for_some_is_as_if_it_were_not_there_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, state) = (folder.path().join("share"), folder.path().join("state"));
        std::fs::create_dir_all(shared.join("team")).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        for (name, content) in
            [("open.txt", "open"), ("team/rfc48.txt", "secret"), ("team/copy.txt", "both"), ("copy.txt", "both")]
        {
            std::fs::write(shared.join(name), content).unwrap();
        }
        let (share, indexer) = Share::open(ShareConfig::new(Some(shared.clone()), state), &Metrics::default()).unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let indexing = tokio::spawn(indexer.run(stop.clone()));
        share.settled().await;
        let rule = ShareTo { folder: shared.join("team"), who: Who::Name(NamePattern::parse("team-*").unwrap().unwrap()) };
        let catalog = Catalog::new(share).restricted(Restrictions::new(&shared, [rule]).unwrap());
        let me = Contact::new(PeerId::from_bytes([9; 16]), "me".parse().unwrap(), "127.0.0.1:7801".parse().unwrap());
        let names = |request: RfcQueryRequest, audience: &Audience| {
            let filter = Filter::try_from(&request).unwrap().of(audience.clone());
            let holdings = answer(&catalog, &me, &filter, 0, Instant::now()).flat_map(|message| message.holdings);
            holdings.map(|holding| holding.document.unwrap().name).collect::<Vec<_>>()
        };
        let team = Audience::proven(&["team-a".parse().unwrap()], &Default::default());
        let all = || RfcQueryRequest::default();
        let secret = ContentHash::of(b"secret");
        for (audience, sees) in [(Audience::owner(), true), (team, true), (Audience::anyone(), false)] {
            let secrets: &[&str] = if sees { &["team/rfc48.txt"] } else { &[] };
            assert_eq!(names(all(), &audience).len(), if sees { 4 } else { 2 });
            for request in [
                RfcQueryRequest { number: 48, ..all() },
                RfcQueryRequest { name: "team/rfc48.txt".into(), ..all() },
                RfcQueryRequest { blake3: secret.to_field(), ..all() },
                RfcQueryRequest { pattern: "team/rfc*".into(), ..all() },
                RfcQueryRequest { words: "48".into(), ..all() },
            ] {
                assert_eq!(names(request, &audience), secrets);
            }
            // What it may pass on is the same for all.
            assert_eq!(names(RfcQueryRequest { public_only: true, ..all() }, &audience).len(), 2);
            assert_eq!(catalog.hides(&secret, &audience), !sees);
            // What is not in the share yet goes by the name that it is fetched as.
            let fetched = |content: &[u8], name: &str| {
                catalog.hides_fetched(&ContentHash::of(content), &DocumentName::parse(name).unwrap(), &audience)
            };
            assert_eq!(fetched(b"new", "team/new.bin"), !sees);
            assert!(!fetched(b"new", "new.bin") && !fetched(b"both", "team/new.bin"));
            assert!(
                !catalog.hides(&ContentHash::of(b"both"), &audience) && !catalog.hides(&ContentHash::of(b"nobody"), &audience)
            );
        }
        assert_eq!(catalog.public_totals(), (2, 8));
        stop.cancel();
        indexing.await.unwrap();
    }

    #[test]
    fn an_update_does_not_change_the_index_that_a_query_reads() {
        let state = tempfile::tempdir().unwrap();
        let (share, _indexer) = Share::open(ShareConfig::new(None, state.path().to_owned()), &Metrics::default()).unwrap();
        let catalog = Catalog::new(share);
        let before = catalog.remote(Instant::now());
        let version = before.version();
        let update = catalog.remote.update.lock().unwrap();
        // An update is under way; a query does not wait for it.
        assert_eq!(catalog.remote(Instant::now()).version(), version);
        drop(update);
        let peer = Contact::new(PeerId::from_bytes([1; 16]), "p1".parse().unwrap(), "127.0.0.1:7801".parse().unwrap());
        catalog.replace_listing(peer, RemoteListing { version: 1, documents: Vec::new() }, Instant::now());
        assert!(before.version() == version && catalog.remote(Instant::now()).version() > version);
    }
}
