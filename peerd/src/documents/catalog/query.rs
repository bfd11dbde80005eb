//! Answers RFCQuery: selects documents of the share and of the remote index, and splits the answer into messages.

use super::Catalog;
use crate::documents::{
    info::DocumentInfo,
    name_match::{name_key, name_match},
    pattern::DocumentPattern,
    remote_index::Claim,
    remote_listing::RemoteDocument,
    restrictions::Audience,
    search_words::SearchWords,
    share::{Index, SharedDocument},
};
use p2pdi::{
    contact::Contact,
    content::ContentHash,
    document::DocumentName,
    field::InvalidField,
    v1::{Document, Holder, Holding, RfcQueryRequest, RfcQueryResponse},
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A message of an answer is sent once it has this many bytes. Far below the limit of a message, so that one more holding fits.
const BATCH_BYTES: usize = 128 * 1024;
/// Most holders listed for one document: enough to choose from, and it bounds the message.
const HOLDERS_MAX: usize = 64;

/// Most documents in an answer about one number, name or content. Such a query is counted apart from the listings, so it must not become one:
/// a malicious peer can list, and a share can have, any number of copies.
const COPIES_MAX: usize = 1_000;

/// Most listings answered at the same time: a listing is a query that can select the whole index. With a full remote index (100 MiB)
/// each holds about 20 MB until its caller has read it, so this many hold 640 MB.
pub const LISTINGS_MAX: usize = 32;
/// Of those, most for callers from one address: several peers behind one address get through, and one machine cannot take them all.
pub const LISTINGS_PER_ADDRESS: usize = LISTINGS_MAX / 4 * 3;

/// Most queries for one number, name or hash answered at the same time. With `ENTRIES_MAX` entries each holds some 100 KB until its caller
/// has read it, so this many hold 50 MB.
pub const LOOKUPS_MAX: usize = 512;
/// Of those, most for callers from one address.
pub const LOOKUPS_PER_ADDRESS: usize = LOOKUPS_MAX / 4 * 3;
/// Most entries of other peers that such a query goes through: 64 peers with 64 files of that number each. A peer can list any number of
/// files under one number, and going through them all would keep the caller's thread busy.
const ENTRIES_MAX: usize = 4_096;

/// A validated RFCQuery.
#[derive(Debug, Default)]
pub struct Filter {
    number: Option<u32>,
    title: SearchWords,
    words: SearchWords,
    pattern: Option<DocumentPattern>,
    name: Option<DocumentName>,
    hash: Option<ContentHash>,
    own_only: bool,
    public_only: bool,
    limit: usize,
    /// Who asks.
    audience: Audience,
}

impl TryFrom<&RfcQueryRequest> for Filter {
    type Error = InvalidField;

    fn try_from(request: &RfcQueryRequest) -> Result<Self, InvalidField> {
        let filter = Self {
            number: (request.number != 0).then_some(request.number),
            title: SearchWords::parse("title", &request.title)?,
            words: SearchWords::parse("words", &request.words)?,
            pattern: (!request.pattern.is_empty()).then(|| DocumentPattern::parse(&request.pattern)).transpose()?,
            name: (!request.name.is_empty()).then(|| DocumentName::parse(&request.name)).transpose()?,
            hash: (!request.blake3.is_empty()).then(|| ContentHash::from_field(&request.blake3)).transpose()?,
            own_only: request.own_only,
            public_only: request.public_only,
            audience: Audience::anyone(),
            limit: if request.limit == 0 { usize::MAX } else { usize::try_from(request.limit).unwrap_or(usize::MAX) },
        };
        let most = if filter.is_listing() { usize::MAX } else { COPIES_MAX };
        Ok(Self { limit: filter.limit.min(most), ..filter })
    }
}

impl Filter {
    /// The same query of `audience`. Without it the query is of somebody unknown.
    #[must_use]
    pub fn of(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// Whether the answer can be the whole index.
    pub fn is_listing(&self) -> bool {
        self.number.is_none() && self.hash.is_none() && self.name.is_none()
    }

    /// Whether it selects the document. The keys are those of its name and title, which few filters need.
    fn selects<T: AsRef<str>>(
        &self,
        number: Option<u32>,
        name: &DocumentName,
        hash: &ContentHash,
        name_key: impl FnOnce() -> T,
        title_key: impl FnOnce() -> T,
    ) -> bool {
        let is_it = self.number.is_none_or(|wanted| number == Some(wanted))
            && self.hash.is_none_or(|wanted| *hash == wanted)
            && self.name.as_ref().is_none_or(|wanted| name_match(wanted.as_str(), name.as_str()).is_some());
        if !is_it || (self.pattern.is_none() && self.words.is_empty() && self.title.is_empty()) {
            return is_it;
        }
        let name_key = name_key();
        let name_key = name_key.as_ref();
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches_key(name_key)) {
            return false;
        }
        (self.words.is_empty() && self.title.is_empty()) || {
            let title_key = title_key();
            let title_key = title_key.as_ref();
            self.title.are_in_keys(&[title_key]) && self.words.are_in_keys(&[name_key, title_key])
        }
    }

    fn selects_remote(&self, remote: &RemoteDocument) -> bool {
        let info = &remote.info;
        self.selects(info.number, &info.name, &info.hash, || &*remote.name_key, || &*remote.title_key)
    }

    fn selects_own(&self, own: &SharedDocument) -> bool {
        self.selects(own.number, &own.name, &own.hash, || name_key(own.name.as_str()), || name_key(&own.title))
    }

    /// Whether it selects a document of another peer's answer. A peer of an earlier version ignores filters that it does not know.
    pub fn selects_document(&self, document: &DocumentInfo) -> bool {
        self.selects(
            document.number,
            &document.name,
            &document.hash,
            || name_key(document.name.as_str()),
            || name_key(&document.title),
        )
    }
}

impl From<&SharedDocument> for Document {
    fn from(own: &SharedDocument) -> Self {
        Self {
            name: own.name.to_string(),
            number: own.number.unwrap_or(0),
            title: own.title.to_string(),
            size: own.size,
            blake3: own.hash.to_field(),
            modified_at: Some(own.modified.into()),
            restricted: false,
        }
    }
}

/// A selected document with its holders.
enum Selected {
    /// Of the peer's own share, and whether it is for some only; the holders are the others.
    Own(Arc<SharedDocument>, bool, Vec<HolderAge>),
    Remote(Arc<RemoteDocument>, Vec<HolderAge>),
}

/// A peer that lists a document, and how long ago it confirmed that.
struct HolderAge(Arc<Contact>, Duration);

impl From<HolderAge> for Holder {
    fn from(HolderAge(peer, age): HolderAge) -> Self {
        peer.holder(age)
    }
}

impl Selected {
    fn holding(self, me: &Contact) -> Holding {
        match self {
            Self::Own(document, restricted, others) => {
                let holders = std::iter::once(me.holder(Duration::ZERO)).chain(others.into_iter().map(Holder::from)).collect();
                Holding { document: Some(Document { restricted, ..document.as_ref().into() }), holders }
            }
            Self::Remote(document, holders) => {
                let holders = holders.into_iter().map(Holder::from).collect();
                Holding { document: Some((&document.info).into()), holders }
            }
        }
    }
}

/// The messages of one RFCQuery answer: at least one, also for an empty answer.
pub fn answer(
    catalog: &Catalog,
    me: &Contact,
    filter: &Filter,
    if_version: u64,
    now: Instant,
) -> impl Iterator<Item = RfcQueryResponse> + use<> {
    let index = catalog.share.index();
    let (remote_version, claims) =
        if filter.own_only { (0, Vec::new()) } else { selected_claims(catalog, filter, &index, if_version, now) };
    // Both versions only grow, so their sum grows with either. Their maximum would hide a change of the smaller one.
    let version = index.version().saturating_add(remote_version);
    let unchanged = if_version != 0 && if_version == version;
    let mut selected: Vec<Selected> = Vec::new();
    if !unchanged {
        let mut by_hash: BTreeMap<ContentHash, usize> = BTreeMap::new();
        let own: Vec<Arc<SharedDocument>> = match (&filter.hash, filter.number, &filter.name) {
            (Some(hash), _, _) => index.by_hash(hash).to_vec(),
            (None, Some(number), _) => index.by_number(number).to_vec(),
            (None, None, Some(name)) => index.by_name(name.as_str()).into_iter().cloned().collect(),
            (None, None, None) => index.documents().to_vec(),
        };
        let audience = if filter.public_only { &Audience::anyone() } else { &filter.audience };
        let allowed = |own: &Arc<SharedDocument>| catalog.allows(&own.name, &own.hash, audience) && filter.selects_own(own);
        for document in own.into_iter().filter(allowed).take(filter.limit) {
            let first = *by_hash.entry(document.hash).or_insert(selected.len());
            // Once for all copies of a content: there may be thousands.
            let restricted = match selected.get(first) {
                Some(Selected::Own(_, restricted, _)) => *restricted,
                _ => catalog.is_restricted(&document.hash),
            };
            selected.push(Selected::Own(document, restricted, Vec::new()));
        }
        for (document, holder) in claims {
            match by_hash.get(&document.info.hash) {
                Some(at) => {
                    let (Selected::Own(_, _, holders) | Selected::Remote(_, holders)) = &mut selected[*at];
                    if holders.len() < HOLDERS_MAX {
                        holders.push(holder);
                    }
                }
                None if selected.len() < filter.limit => {
                    by_hash.insert(document.info.hash, selected.len());
                    selected.push(Selected::Remote(document, vec![holder]));
                }
                None => {}
            }
        }
    }
    batches(version, unchanged, index.is_complete(), selected, me.clone())
}

/// The remote index's version, and its claims that `filter` selects; no claims if the sum of both versions is `if_version`.
fn selected_claims(
    catalog: &Catalog,
    filter: &Filter,
    index: &Index,
    if_version: u64,
    now: Instant,
) -> (u64, Vec<(Arc<RemoteDocument>, HolderAge)>) {
    let remote = catalog.remote(now);
    let version = remote.version();
    if if_version != 0 && if_version == index.version().saturating_add(version) {
        return (version, Vec::new());
    }
    let copied = |claim: Claim<'_>| {
        let selected = filter.selects_remote(claim.document);
        selected.then(|| (Arc::clone(claim.document), HolderAge(Arc::clone(claim.peer), claim.age)))
    };
    let claims = match (&filter.hash, filter.number, &filter.name) {
        (Some(hash), _, _) => remote.by_hash(*hash, now).take(ENTRIES_MAX).filter_map(copied).collect(),
        (None, Some(number), _) => remote.by_number(number, now).take(ENTRIES_MAX).filter_map(copied).collect(),
        (None, None, Some(name)) => remote.by_name(name.as_str(), now).take(ENTRIES_MAX).filter_map(copied).collect(),
        (None, None, None) => remote.all(now).filter_map(copied).collect(),
    };
    (version, claims)
}

/// Splits an answer into messages. Each is built when it is sent, so that only one is in memory.
fn batches(
    version: u64,
    unchanged: bool,
    complete: bool,
    selected: Vec<Selected>,
    me: Contact,
) -> impl Iterator<Item = RfcQueryResponse> {
    let mut selected = selected.into_iter().peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        if !first && selected.peek().is_none() {
            return None;
        }
        first = false;
        let (mut holdings, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(next) = selected.next()
        {
            let holding = next.holding(&me);
            bytes += holding.encoded_len();
            holdings.push(holding);
        }
        Some(RfcQueryResponse { version, unchanged, holdings, complete, asked_mesh: false })
    })
}
