//! Answers RFCQuery: filters the merged index and cuts the answer into messages.

use super::Catalog;
use crate::documents::remote_index::Claim;
use crate::{
    documents::info::DocumentInfo,
    documents::share::{Index, SharedDocument},
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

/// Bytes of one message of an answer, about: a batch is cut where it passes this. Far below the largest message taken.
const BATCH_BYTES: usize = 128 * 1024;
/// Longest title filter, in bytes.
const TITLE_FILTER_MAX_BYTES: usize = 256;
/// Most holders listed for one document: enough to choose from.
const HOLDERS_MAX: usize = 64;

/// Listings answered at once, to whomever: queries that may select the whole index. One of the fullest index (`learned::LEARNED_BYTES_MAX`)
/// holds some 20 MB until its caller has read it, and this many 640 MB.
pub const LISTINGS_MAX: usize = 32;
/// Of those, for callers from one address: the others of a network behind one address come through, and one machine cannot take all.
pub const LISTINGS_PER_ADDRESS: usize = LISTINGS_MAX / 4 * 3;

/// What an RFCQuery asks for, checked.
#[derive(Debug, Default)]
pub struct Filter {
    number: Option<u32>,
    words: Vec<String>,
    name: Option<DocumentName>,
    hash: Option<ContentHash>,
    own_only: bool,
    limit: usize,
}

impl TryFrom<&RfcQueryRequest> for Filter {
    type Error = InvalidField;

    fn try_from(request: &RfcQueryRequest) -> Result<Self, InvalidField> {
        if request.title.len() > TITLE_FILTER_MAX_BYTES {
            return Err(InvalidField::new(
                "title",
                format!("{} bytes long; at most {TITLE_FILTER_MAX_BYTES} fit", request.title.len()),
            ));
        }
        Ok(Self {
            number: (request.number != 0).then_some(request.number),
            words: request.title.split_whitespace().map(str::to_lowercase).collect(),
            name: (!request.name.is_empty()).then(|| DocumentName::parse(&request.name)).transpose()?,
            hash: (!request.blake3.is_empty()).then(|| ContentHash::from_field(&request.blake3)).transpose()?,
            own_only: request.own_only,
            limit: if request.limit == 0 { usize::MAX } else { usize::try_from(request.limit).unwrap_or(usize::MAX) },
        })
    }
}

impl Filter {
    /// Whether the answer may be the whole index.
    pub fn is_listing(&self) -> bool {
        self.number.is_none() && self.hash.is_none() && self.name.is_none()
    }

    fn selects(&self, number: Option<u32>, title: &str, name: &DocumentName, hash: &ContentHash) -> bool {
        self.number.is_none_or(|wanted| number == Some(wanted))
            && self.hash.is_none_or(|wanted| *hash == wanted)
            && self.name.as_ref().is_none_or(|wanted| same_name(wanted, name))
            && (self.words.is_empty() || {
                let title = title.to_lowercase();
                self.words.iter().all(|claim| title.contains(claim))
            })
    }

    fn selects_info(&self, info: &DocumentInfo) -> bool {
        self.selects(info.number, &info.title, &info.name, &info.hash)
    }

    fn selects_own(&self, own: &SharedDocument) -> bool {
        self.selects(own.number, &own.title, &own.name, &own.hash)
    }
}

fn same_name(a: &DocumentName, b: &DocumentName) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str()) || a.as_str().to_lowercase() == b.as_str().to_lowercase()
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
        }
    }
}

/// A document that was selected, with its holders.
enum Selected {
    Own(Arc<SharedDocument>, Vec<Held>),
    Remote(Arc<DocumentInfo>, Vec<Held>),
}

/// A peer that said it holds a document, and how long ago.
struct Held(Arc<Contact>, Duration);

impl From<Held> for Holder {
    fn from(Held(peer, age): Held) -> Self {
        peer.holder(age)
    }
}

impl Selected {
    fn holding(self, me: &Contact) -> Holding {
        match self {
            Self::Own(document, others) => {
                let holders = std::iter::once(me.holder(Duration::ZERO)).chain(others.into_iter().map(Holder::from)).collect();
                Holding { document: Some(document.as_ref().into()), holders }
            }
            Self::Remote(document, holders) => {
                let holders = holders.into_iter().map(Holder::from).collect();
                Holding { document: Some(document.as_ref().into()), holders }
            }
        }
    }
}

/// The messages of one RFCQuery answer, the first of which always comes.
pub fn answer(
    catalog: &Catalog,
    me: &Contact,
    filter: &Filter,
    if_version: u64,
    now: Instant,
) -> impl Iterator<Item = RfcQueryResponse> + use<> {
    let index = catalog.share.index();
    // All others who ask, and whoever learns, wait for the lock: under it, words are only copied. They are compared and spelled out after.
    let (learned_version, words) =
        if filter.own_only { (0, Vec::new()) } else { learned_words(catalog, filter, &index, if_version, now) };
    // Both only grow, so their sum does whenever either does. Their maximum would not: a change of the lesser one does not show.
    let version = index.version().saturating_add(learned_version);
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
        for document in own.into_iter().filter(|own| filter.selects_own(own)).take(filter.limit) {
            by_hash.entry(document.hash).or_insert(selected.len());
            selected.push(Selected::Own(document, Vec::new()));
        }
        for (document, held) in words.into_iter().filter(|(document, _)| filter.selects_info(document)) {
            match by_hash.get(&document.hash) {
                Some(at) => {
                    let (Selected::Own(_, holders) | Selected::Remote(_, holders)) = &mut selected[*at];
                    if holders.len() < HOLDERS_MAX {
                        holders.push(held);
                    }
                }
                None if selected.len() < filter.limit => {
                    by_hash.insert(document.hash, selected.len());
                    selected.push(Selected::Remote(document, vec![held]));
                }
                None => {}
            }
        }
    }
    batches(version, unchanged, selected, me.clone())
}

/// The version of what was learned, and all words on what `filter` asks for; none if that sum of versions is `if_version`.
fn learned_words(
    catalog: &Catalog,
    filter: &Filter,
    index: &Index,
    if_version: u64,
    now: Instant,
) -> (u64, Vec<(Arc<DocumentInfo>, Held)>) {
    let mut learned = catalog.learned();
    learned.expire(now);
    let version = learned.version();
    if if_version != 0 && if_version == index.version().saturating_add(version) {
        return (version, Vec::new());
    }
    let copied = |claim: Claim<'_>| (Arc::clone(claim.document), Held(Arc::clone(claim.peer), claim.age));
    let words = match (&filter.hash, filter.number, &filter.name) {
        (Some(hash), _, _) => learned.by_hash(*hash, now).map(copied).collect(),
        (None, Some(number), _) => learned.by_number(number, now).map(copied).collect(),
        (None, None, Some(name)) => learned.by_name(name.as_str(), now).map(copied).collect(),
        (None, None, None) => learned.all(now).map(copied).collect(),
    };
    (version, words)
}

/// Cuts an answer into messages, made one by one as they are sent.
fn batches(version: u64, unchanged: bool, selected: Vec<Selected>, me: Contact) -> impl Iterator<Item = RfcQueryResponse> {
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
        Some(RfcQueryResponse { version, unchanged, holdings })
    })
}
