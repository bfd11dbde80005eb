//! The search for the holders of a document: what is known without asking, then samples of peers that grow, then one question to all.
//!
//! A search costs the network little: it stops as soon as it knows enough, and never asks everybody in a large network. Each peer also knows
//! what some others share, so a sample finds far more than the peers in it hold.

use super::{
    asking_order::AskingOrder,
    find_peers::{Asked, FindPeers, Learned},
    rfc_query::Answer,
    settlement::{Settled, Settlement},
    source::Source,
};
use crate::{connections::channels::ChannelPool, documents::selector::DocumentSelector};
use p2pdi::{
    content::ContentHash,
    log_limit::{Line, LogLimit},
    phrases::counted,
};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use super::{evidence::Found, round::Answers};

/// Peers asked in the first round; each further round asks twice as many as the one before.
const FIRST_ROUND: usize = 8;
/// Most peers asked in all: with five rounds. In a network of 1,000 peers, of which each knows the documents of 64 others, a document that one
/// peer holds is missed by all of them once in millions of searches; at 10,000 peers once in five, and then all are asked at once.
const ASKED_MAX: usize = FIRST_ROUND * 31;
/// As many holders are enough to begin with; the fetch learns of more from them.
const HOLDERS_ENOUGH: usize = 3;
/// Of so many peers asked, one holder is enough.
const ASKED_ENOUGH: usize = 24;
/// A name or a number is settled after so many answers at least, or when there are no more peers to ask.
const ANSWERS_TO_SETTLE: usize = 16;
/// Peers drawn at random for one that was not asked before: the sample of a small network has many that were.
const DRAWN_FOR_ONE: usize = 2;
/// Peers drawn at least: of so many, some hundred that one address made up leave room for those of other addresses.
const DRAWN_MIN: usize = 128;

/// Searches for holders in one network. Cheap to clone.
pub struct HolderSearch<F> {
    channels: ChannelPool,
    peers: Arc<F>,
    order: Arc<Mutex<AskingOrder>>,
    asked_max: usize,
}

impl<F> Clone for HolderSearch<F> {
    fn clone(&self) -> Self {
        let (peers, order) = (Arc::clone(&self.peers), Arc::clone(&self.order));
        Self { channels: self.channels.clone(), peers, order, asked_max: self.asked_max }
    }
}

/// Whether a search may use what was learned a while ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may, where that settles nothing: who has a hash. Which content a name or a number means is asked in any case, since another peer
    /// may have another one by now.
    Learned,
    /// Peers are asked now: what was learned turned out to be out of date.
    Asked,
}

/// Why a search found no document. `E`: why peers could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError<E: fmt::Display> {
    /// Peers could not be listed.
    #[error("{0}")]
    Peers(E),
    /// There is no peer to ask.
    #[error("nobody has {wanted}: there are no peers to ask")]
    NoPeers {
        /// The document asked for.
        wanted: DocumentSelector,
    },
    /// No peer that was asked knows a holder.
    #[error("nobody has {wanted}; {asked}")]
    NotFound {
        /// The document asked for.
        wanted: DocumentSelector,
        /// The peers asked, and those that did not answer, as text.
        asked: String,
    },
    /// Several contents have that name or number, and none is clearly meant.
    #[error("{wanted} is ambiguous: {}", contents(.found))]
    Ambiguous {
        /// The document asked for.
        wanted: DocumentSelector,
        /// The contents and their holders, those that most peers hold first.
        found: Vec<Found>,
    },
}

/// Most contents, and most holders of each, that an error names.
const SHOWN_MAX: usize = 8;

fn contents(found: &[Found]) -> String {
    let each = |found: &Found| {
        format!("b3:{} ({}), held by {}", found.document.hash, found.document.name, found.held_by_text(SHOWN_MAX))
    };
    let shown: Vec<_> = found.iter().take(SHOWN_MAX).map(each).collect();
    format!("{} have that name: {}", counted(found.len() as u64, "document"), shown.join("; "))
}

impl<F: FindPeers> HolderSearch<F> {
    /// Searches among the peers that `peers` finds, which it asks through `channels`.
    pub fn new(channels: ChannelPool, peers: Arc<F>) -> Self {
        Self { channels, peers, order: Arc::default(), asked_max: ASKED_MAX }
    }

    /// The same search, which asks all at once after it asked about `peers` of them in rounds.
    #[must_use]
    pub fn asking_at_most(self, peers: usize) -> Self {
        Self { asked_max: peers, ..self }
    }

    fn order(&self) -> MutexGuard<'_, AskingOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document that `wanted` means, and its holders.
    ///
    /// # Errors
    /// When nobody who was asked knows a holder, or it is not clear which of several contents is meant.
    pub async fn settle(&self, wanted: &DocumentSelector, freshness: Freshness) -> Result<Settled, SearchError<F::Error>> {
        let (answers, met) = self.answers(wanted, freshness).await.map_err(SearchError::Peers)?;
        match answers.settle() {
            Settlement::Settled(settled) => Ok(settled),
            Settlement::Ambiguous(found) => Err(SearchError::Ambiguous { wanted: wanted.clone(), found }),
            Settlement::Nobody if met == 0 => Err(SearchError::NoPeers { wanted: wanted.clone() }),
            Settlement::Nobody => Err(SearchError::NotFound { wanted: wanted.clone(), asked: answers.summary() }),
        }
    }

    /// Holders of the content `hash`, those that said so themselves first.
    ///
    /// # Errors
    /// When peers cannot be listed.
    pub async fn holders(&self, hash: ContentHash, freshness: Freshness) -> Result<Vec<Source>, F::Error> {
        let (answers, _) = self.answers(&DocumentSelector::Hash(hash), freshness).await?;
        Ok(answers.found().into_iter().flat_map(|found| found.holders).collect())
    }

    /// What peers say about `wanted`, and how many there were to ask.
    async fn answers(&self, wanted: &DocumentSelector, freshness: Freshness) -> Result<(Answers, usize), F::Error> {
        let mut answers = Answers::about(wanted.clone());
        let mut known: Vec<Source> = Vec::new();
        let Learned { answers: mut learned, are_all } = self.peers.learned(wanted);
        // Also those that are out of date are the first to ask.
        let has_it = learned.iter().filter(|(_, documents)| !documents.is_empty());
        let holders: Vec<Source> = has_it.map(|(peer, _)| peer.clone()).take(ANSWERS_TO_SETTLE).collect();
        let is_hash = matches!(wanted, DocumentSelector::Hash(_));
        let may_use = is_hash && freshness == Freshness::Learned;
        if !may_use {
            learned.clear();
        }
        let mut met = learned.len();
        for (peer, documents) in learned {
            answers.take(&peer, Answer { documents, ..Answer::default() });
        }
        if may_use && is_enough(wanted, &answers, met, are_all) {
            return Ok((answers, met));
        }
        // Each peer has one voice: what it says now replaces what was learned of it.
        let mut answers = Answers::about(wanted.clone());
        let (mut round, mut asked_all, mut answered) = (FIRST_ROUND, false, Vec::new());
        while !asked_all && known.len() < self.asked_max {
            let sample = match self.peers.sample(DRAWN_MIN.max((known.len() + round) * DRAWN_FOR_ONE)).await {
                Ok(sample) => sample,
                // Some were asked already.
                Err(error) if !known.is_empty() => {
                    tracing::debug!(%error, "cannot list further peers to ask");
                    break;
                }
                Err(error) => return Err(error),
            };
            let mut new = sample.peers;
            new.extend(holders.iter().filter(|holder| !new.contains(holder)).cloned().collect::<Vec<_>>());
            new.retain(|peer| !known.contains(peer));
            self.order().sort(&mut new, |peer| holders.contains(peer), Instant::now());
            // A small network is asked at once.
            let most = if sample.are_all && new.len() <= ANSWERS_TO_SETTLE { ANSWERS_TO_SETTLE } else { round };
            asked_all = sample.are_all && new.len() <= most;
            new.truncate(most);
            if new.is_empty() {
                break;
            }
            known.extend(new.iter().cloned());
            met = met.max(known.len());
            answers.ask(&self.channels, &new).await;
            for (endpoint, reached) in answers.take_reached() {
                match reached {
                    true => {
                        self.order().answered(&endpoint);
                        answered.extend(new.iter().find(|peer| peer.endpoint == endpoint).cloned());
                    }
                    false => self.order().failed(&endpoint, Instant::now()),
                }
            }
            if is_enough(wanted, &answers, known.len(), asked_all) {
                return Ok((answers, met));
            }
            round *= 2;
        }
        if answers.evidence.holders() == 0 {
            let asked = Asked { answered, all: asked_all };
            for (peer, documents) in self.peers.ask_all(wanted, asked).await {
                answers.take(&peer, Answer { documents, ..Answer::default() });
                met += 1;
            }
        }
        Ok((answers, met))
    }
}

/// Whether the search may end, with so many peers asked.
fn is_enough(wanted: &DocumentSelector, answers: &Answers, asked: usize, asked_all: bool) -> bool {
    let (voices, holders) = (answers.evidence.voices(), answers.evidence.holders());
    match wanted {
        DocumentSelector::Hash(_) => holders >= HOLDERS_ENOUGH || (holders > 0 && asked >= ASKED_ENOUGH),
        DocumentSelector::Name(_) | DocumentSelector::Number(_) => {
            (asked_all || voices >= ANSWERS_TO_SETTLE) && matches!(answers.settle(), Settlement::Settled(_))
        }
    }
}

/// Asks each of `peers` once for the document that `wanted` selects.
pub async fn ask(channels: &ChannelPool, peers: &[Source], wanted: &DocumentSelector) -> Answers {
    let mut answers = Answers::about(wanted.clone());
    answers.ask(channels, peers).await;
    answers
}

/// Finds holders of a content by other ways than the registry's swarm.
pub trait SearchHolders: Send + Sync + 'static {
    /// Holders of the content `hash`; without any if nobody who was asked knows one.
    fn search(&self, hash: ContentHash, freshness: Freshness) -> impl Future<Output = Vec<Source>> + Send;
}

impl<F: FindPeers> SearchHolders for HolderSearch<F> {
    async fn search(&self, hash: ContentHash, freshness: Freshness) -> Vec<Source> {
        match self.holders(hash, freshness).await {
            Ok(holders) => holders,
            Err(error) => {
                static LOG: LogLimit = LogLimit::new(1);
                if let Some(Line { suppressed }) = LOG.line() {
                    tracing::info!(%error, suppressed, "cannot search for holders");
                }
                Vec::new()
            }
        }
    }
}
