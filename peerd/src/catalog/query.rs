//! Answers RFCQuery: filters the merged index and cuts the answer into messages.

use super::Catalog;
use crate::{document::DocumentInfo, identity::Identity, share::SharedDocument};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    field::InvalidField,
    v1::{Document, Holder, Holding, RfcQueryRequest, RfcQueryResponse},
};
use prost::Message as _;
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Bytes of one message of an answer, about: a batch is cut where it passes this. Far below the largest message taken.
const BATCH_BYTES: usize = 128 * 1024;
/// Longest title filter, in bytes.
const TITLE_FILTER_MAX_BYTES: usize = 256;
/// Most holders listed for one document: enough to choose from.
const HOLDERS_MAX: usize = 64;

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
    fn selects(&self, number: Option<u32>, title: &str, name: &DocumentName, hash: &ContentHash) -> bool {
        self.number.is_none_or(|wanted| number == Some(wanted))
            && self.hash.is_none_or(|wanted| *hash == wanted)
            && self.name.as_ref().is_none_or(|wanted| same_name(wanted, name))
            && (self.words.is_empty() || {
                let title = title.to_lowercase();
                self.words.iter().all(|word| title.contains(word))
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
    Own(Arc<SharedDocument>, Vec<Holder>),
    Learned(Arc<DocumentInfo>, Vec<Holder>),
}

impl Selected {
    fn holding(self, me: &Identity) -> Holding {
        match self {
            Self::Own(document, mut holders) => {
                holders.insert(0, me.holder());
                Holding { document: Some(document.as_ref().into()), holders }
            }
            Self::Learned(document, holders) => Holding { document: Some(document.as_ref().into()), holders },
        }
    }
}

/// The messages of one RFCQuery answer, the first of which always comes.
pub fn answer(
    catalog: &Catalog,
    me: &Identity,
    filter: &Filter,
    if_version: u64,
    now: Instant,
) -> impl Iterator<Item = RfcQueryResponse> + use<> {
    let index = catalog.share.index();
    let learned = (!filter.own_only).then(|| {
        let mut learned = catalog.learned();
        learned.expire(now);
        learned
    });
    // Both only grow, so their sum does whenever either does. Their maximum would not: a change of the lesser one does not show.
    let version = index.version().saturating_add(learned.as_ref().map_or(0, |learned| learned.version()));
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
        if let Some(learned) = &learned {
            let words: Box<dyn Iterator<Item = super::learned::Word<'_>>> = match (&filter.hash, filter.number, &filter.name) {
                (Some(hash), _, _) => Box::new(learned.by_hash(*hash, now)),
                (None, Some(number), _) => Box::new(learned.by_number(number, now)),
                (None, None, Some(name)) => Box::new(learned.by_name(name.as_str(), now)),
                (None, None, None) => Box::new(learned.all(now)),
            };
            for word in words.filter(|word| filter.selects_info(word.document)) {
                let holder = Holder {
                    peer_id: word.peer.id.to_field(),
                    peer_name: word.peer.name.to_string(),
                    endpoint: word.peer.endpoint.to_string(),
                    age: prost_types::Duration::try_from(word.age).ok(),
                };
                match by_hash.get(&word.document.hash) {
                    Some(at) => {
                        let (Selected::Own(_, holders) | Selected::Learned(_, holders)) = &mut selected[*at];
                        if holders.len() < HOLDERS_MAX {
                            holders.push(holder);
                        }
                    }
                    None if selected.len() < filter.limit => {
                        by_hash.insert(word.document.hash, selected.len());
                        selected.push(Selected::Learned(Arc::clone(word.document), vec![holder]));
                    }
                    None => {}
                }
            }
        }
    }
    drop(learned);
    batches(version, unchanged, selected, me.clone())
}

/// Cuts an answer into messages, made one by one as they are sent.
fn batches(version: u64, unchanged: bool, selected: Vec<Selected>, me: Identity) -> impl Iterator<Item = RfcQueryResponse> {
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
