//! One question to all peers of the mesh: who holds this document? A few holders answer, each with a whisper.

use super::{
    answer_choice::{Estimate, QUESTION_BYTES, SPREAD, answers_after},
    evidence::closeness,
    find_peers::Learned,
    listed::Listed,
    round::query_for,
    source::Source,
};
use crate::{
    documents::{
        catalog::{self, Catalog, Filter},
        info::DocumentInfo,
        selector::DocumentSelector,
    },
    inbox::{Message, MessageKind},
    mesh::Mesh,
};
use p2pdi::{
    contact::Contact,
    content::ContentHash,
    document::DocumentName,
    endpoint::client_network,
    field::InvalidField,
    log_limit::{Line, LogLimit},
    v1::{Holding, WhisperRequest, WhoHas, WhoHasReply, who_has::Document as Asked},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout_at},
};
use tonic::Status;

/// Kind of the broadcast.
pub(crate) const KIND_WHO_HAS: &str = "p2pdi.who-has";
/// Kind of the whisper that answers it.
pub(crate) const KIND_HAS: &str = "p2pdi.has";
/// Answers that a question asks for: some of the holders may be gone or slow.
const ANSWERS_WANTED: u32 = 5;
/// How long answers are awaited: across the mesh and back, and the time that they are spread over. A dial that fails takes a whisper two
/// seconds before it goes another way.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How long further answers are awaited after the first.
const AFTER_FIRST_ANSWER: Duration = Duration::from_millis(500);
const _: () = assert!(AFTER_FIRST_ANSWER.as_millis() > SPREAD.as_millis());
/// Shortest time between two questions of this peer for the same document: all peers hear each of them.
const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Documents whose last question is remembered. Past that, the oldest is forgotten.
const REMEMBERED_MAX: usize = 1_024;
/// Questions of this peer at the same time; further ones are not asked.
const OPEN_MAX: usize = 64;
/// Time that questions for others are counted over.
const FOR_OTHERS_PERIOD: Duration = Duration::from_secs(60);
/// Most questions for others in that time: all peers hear each of them, and whoever reaches this peer can have one asked. A member of the mesh may
/// broadcast far more.
const FOR_OTHERS_MAX: usize = 12;
/// Of those, most for one client network, so that one stranger leaves some for others: with a thousand peers, it causes 67 a second.
const FOR_ONE_MAX: usize = 4;
/// Answers that this peer sends at the same time; further questions are left to other holders.
const ANSWERING_MAX: usize = 8;
/// Most documents in one answer: a peer has few of one name.
const DOCUMENTS_MAX: usize = 8;

type Question = [u8; QUESTION_BYTES];
type Answers = (Source, Vec<Listed>);

/// The questions of this peer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Questions(Arc<Shared>);

struct Shared {
    mesh: Mesh,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that answers are awaited for.
    open: BTreeMap<Question, mpsc::Sender<Answers>>,
    /// When each document was last asked for, and whether for others: this peer's own questions do not depend on what strangers want.
    asked: BTreeMap<(bool, String), Instant>,
    /// The latest questions for others: when, and for which client network.
    for_others: VecDeque<(Instant, IpAddr)>,
}

/// Whom a question is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    /// A caller from this client network; `None`: one that may have it asked as often as this peer itself.
    Others(Option<IpAddr>),
}

/// Ends a question when it is dropped.
struct Open<'a> {
    questions: &'a Questions,
    question: Question,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.questions.lock().open.remove(&self.question);
    }
}

impl State {
    /// Whether `wanted` may be asked for now; if so, it counts as asked.
    fn may_ask(&mut self, whose: Whose, wanted: String, now: Instant) -> bool {
        self.asked.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL_MIN);
        let asked = (whose != Whose::Own, wanted);
        if self.open.len() >= OPEN_MAX || self.asked.contains_key(&asked) {
            return false;
        }
        // Last, so that a question that is not asked takes nothing from others.
        if let Whose::Others(Some(network)) = whose
            && !self.may_ask_for(network, now)
        {
            return false;
        }
        if self.asked.len() >= REMEMBERED_MAX {
            let oldest = self.asked.iter().min_by_key(|(_, at)| **at).map(|(asked, _)| asked.clone());
            oldest.and_then(|oldest| self.asked.remove(&oldest));
        }
        self.asked.insert(asked, now);
        true
    }

    /// Whether a question may be asked for the client network `network` now; if so, it counts as asked.
    fn may_ask_for(&mut self, network: IpAddr, now: Instant) -> bool {
        self.for_others.retain(|(at, _)| now.saturating_duration_since(*at) < FOR_OTHERS_PERIOD);
        let of_it = self.for_others.iter().filter(|(_, of)| *of == network).count();
        let may = self.for_others.len() < FOR_OTHERS_MAX && of_it < FOR_ONE_MAX;
        if may {
            self.for_others.push_back((now, network));
        }
        may
    }
}

impl Questions {
    /// Questions through `mesh`.
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self(Arc::new(Shared { mesh, state: Mutex::default() }))
    }

    /// Asks all peers who holds `wanted`. Returns what some holders answer; nothing if there is no other peer, or the same was asked a moment
    /// ago.
    pub(crate) async fn ask(&self, wanted: &DocumentSelector) -> Vec<Answers> {
        self.ask_now(Whose::Own, wanted).await.unwrap_or_default()
    }

    /// The same for a caller from `address` that is no peer of the mesh; `None`: on this machine. A few times a minute only: `None` if it is not
    /// asked now.
    pub(crate) async fn ask_for(&self, address: Option<IpAddr>, wanted: &DocumentSelector) -> Option<Vec<Answers>> {
        self.ask_now(Whose::Others(address.map(client_network)), wanted).await
    }

    /// `None`: nobody is asked.
    async fn ask_now(&self, whose: Whose, wanted: &DocumentSelector) -> Option<Vec<Answers>> {
        if self.0.mesh.view().linked.is_empty() {
            return None;
        }
        let question: Question = rand::random();
        let (sender, mut receiver) = mpsc::channel(ANSWERS_WANTED as usize);
        {
            let mut state = self.lock();
            if !state.may_ask(whose, wanted.to_string(), Instant::now()) {
                return None;
            }
            state.open.insert(question, sender);
        }
        let _open = Open { questions: self, question };
        let document = match wanted {
            DocumentSelector::Hash(hash) => Asked::Blake3(hash.to_field()),
            DocumentSelector::Name(name) => Asked::Name(name.to_string()),
            DocumentSelector::Number(number) => Asked::Number(*number),
        };
        let body = WhoHas { question: question.to_vec().into(), document: Some(document), answers: ANSWERS_WANTED };
        let Ok(kind) = KIND_WHO_HAS.parse::<MessageKind>() else { return None };
        if let Err(error) = self.0.mesh.broadcast(&kind, body.encode_to_vec().into(), Duration::ZERO).await {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::info!(%error, %wanted, suppressed, "cannot ask all peers");
            }
            return None;
        }
        let mut end = tokio::time::Instant::now() + ANSWER_TIME;
        let mut answers: Vec<Answers> = Vec::new();
        while answers.len() < ANSWERS_WANTED as usize
            && let Ok(Some(answer)) = timeout_at(end, receiver.recv()).await
        {
            end = end.min(tokio::time::Instant::now() + AFTER_FIRST_ANSWER);
            // One voice for each peer.
            if !answers.iter().any(|(known, _)| *known == answer.0) {
                answers.push(answer);
            }
        }
        Some(answers)
    }

    /// Takes a message of [`KIND_HAS`].
    pub(crate) fn take(&self, message: &Message) {
        let Ok(reply) = WhoHasReply::decode(message.body.clone()) else { return };
        let Ok(question) = Question::try_from(&reply.question[..]) else { return };
        let Some(answer) = answer_of(reply) else { return };
        // Nobody answers for another.
        if answer.0.name.as_ref().is_none_or(|holder| !message.from.eq_ignore_ascii_case(holder.as_str())) {
            return;
        }
        if let Some(open) = self.lock().open.get(&question) {
            // As many as were asked for wait already.
            let _ = open.try_send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The holder that a reply names, and its documents. A reply speaks for one peer.
fn answer_of(reply: WhoHasReply) -> Option<Answers> {
    let first = reply.holdings.first()?.holders.first()?;
    let source = Source::new(Some(first.peer_name.parse().ok()?), first.endpoint.parse().ok()?);
    let mut listed = Vec::new();
    for Holding { document, holders } in reply.holdings.into_iter().take(DOCUMENTS_MAX) {
        let Ok(document) = DocumentInfo::try_from(document?) else { continue };
        listed.push(Listed { document, holders: holders.into_iter().take(1).collect() });
    }
    Some((source, listed))
}

/// The document that a question asks for.
fn asked_for(question: &WhoHas) -> Result<DocumentSelector, InvalidField> {
    match &question.document {
        Some(Asked::Blake3(hash)) => Ok(DocumentSelector::Hash(ContentHash::from_field(hash)?)),
        Some(Asked::Name(name)) => Ok(DocumentSelector::Name(DocumentName::parse(name)?)),
        Some(Asked::Number(number)) => Ok(DocumentSelector::Number(*number)),
        None => Err(InvalidField::new("document", "is missing")),
    }
}

/// Sends a message to one peer.
pub(crate) trait SendWhisper: Send + Sync + 'static {
    /// Sends it by whatever way there is.
    fn send(&self, request: WhisperRequest) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Answers the questions of others.
pub(crate) struct Answering<S> {
    catalog: Catalog,
    mesh: Mesh,
    send: Arc<S>,
    slots: Arc<Semaphore>,
}

impl<S> Clone for Answering<S> {
    fn clone(&self) -> Self {
        Self {
            catalog: self.catalog.clone(),
            mesh: self.mesh.clone(),
            send: Arc::clone(&self.send),
            slots: Arc::clone(&self.slots),
        }
    }
}

impl<S: SendWhisper> Answering<S> {
    /// Answers for the share of `catalog`, through `send`.
    pub(crate) fn new(catalog: Catalog, mesh: Mesh, send: S) -> Self {
        Self { catalog, mesh, send: Arc::new(send), slots: Arc::new(Semaphore::new(ANSWERING_MAX)) }
    }

    /// Answers a message of [`KIND_WHO_HAS`] for the peer `me`, if it holds the document and is one of those that answer. `peers`: how many
    /// peers the network has. Returns at once; the answer follows.
    pub(crate) fn take(&self, message: &Message, me: &Contact, peers: usize) {
        if let Some((after, reply, slot)) = self.answer(message, me, peers) {
            let sending = self.send.clone();
            tokio::spawn(async move {
                let _slot: OwnedSemaphorePermit = slot;
                sleep(after).await;
                if let Err(error) = sending.send(reply).await {
                    tracing::debug!(%error, "cannot answer who has a document");
                }
            });
        }
    }

    fn answer(&self, message: &Message, me: &Contact, peers: usize) -> Option<(Duration, WhisperRequest, OwnedSemaphorePermit)> {
        let body = WhoHas::decode(message.body.clone()).ok().filter(|_| message.broadcast)?;
        let question = Question::try_from(&body.question[..]).ok()?;
        let wanted = asked_for(&body).ok()?;
        let filter = Filter::try_from(&p2pdi::v1::RfcQueryRequest { own_only: true, ..query_for(&wanted) }).ok()?;
        let now = Instant::now();
        let mut holdings: Vec<Holding> =
            catalog::answer(&self.catalog, me, &filter, 0, now).flat_map(|message| message.holdings).collect();
        if holdings.is_empty() {
            return None;
        }
        let learned = learned(&self.catalog, &wanted, now);
        let holding = learned.iter().filter(|(_, listed)| !listed.is_empty()).count();
        let peers = peers.max(self.mesh.view().known().count() + 1);
        let after = answers_after(&question, me.id(), body.answers, Estimate { peers, known: learned.len(), holding })?;
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        // The closest names first; the others may not fit.
        holdings.sort_by_cached_key(|holding| {
            let document = holding.document.clone().and_then(|document| DocumentInfo::try_from(document).ok());
            document.map_or(usize::MAX, |document| closeness(&wanted, &document))
        });
        holdings.truncate(DOCUMENTS_MAX);
        let reply = WhoHasReply { question: body.question, holdings };
        let request = WhisperRequest {
            to: message.from.clone(),
            kind: KIND_HAS.to_owned(),
            body: reply.encode_to_vec().into(),
            from: me.name().to_string(),
            ..Default::default()
        };
        Some((after, request, slot))
    }
}

/// For each peer whose documents are known: those that `wanted` selects.
pub(super) fn learned(catalog: &Catalog, wanted: &DocumentSelector, now: Instant) -> Vec<Answers> {
    let index = catalog.remote(now);
    let mut answers: BTreeMap<_, Answers> = BTreeMap::new();
    for (peer, _) in index.peers(now) {
        answers.insert(peer.name().clone(), (Source::from(&**peer), Vec::new()));
    }
    let claims: Vec<_> = match wanted {
        DocumentSelector::Hash(hash) => index.by_hash(*hash, now).collect(),
        DocumentSelector::Name(name) => index.by_name(name.as_str(), now).collect(),
        DocumentSelector::Number(number) => index.by_number(*number, now).collect(),
    };
    for claim in claims {
        if let Some((_, listed)) = answers.get_mut(claim.peer.name()) {
            listed.push(Listed { document: claim.document.info.clone(), holders: vec![claim.peer.holder(claim.age)] });
        }
    }
    answers.into_values().collect()
}

/// What is known of `wanted` without asking; `are_all`: whether these are all peers of the network.
pub(super) fn learned_of(catalog: &Catalog, wanted: &DocumentSelector, are_all: impl FnOnce(&[Answers]) -> bool) -> Learned {
    let answers = learned(catalog, wanted, Instant::now());
    Learned { are_all: are_all(&answers), answers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_asked_again_only_after_a_while() {
        let (mut state, now) = (State::default(), Instant::now());
        let may_ask = |state: &mut State, wanted: &str, at| state.may_ask(Whose::Own, wanted.into(), at);
        assert!(may_ask(&mut state, "a", now) && !may_ask(&mut state, "a", now) && may_ask(&mut state, "b", now));
        assert!(!may_ask(&mut state, "a", now + INTERVAL_MIN / 2) && may_ask(&mut state, "a", now + INTERVAL_MIN));
        for n in 0..REMEMBERED_MAX {
            assert!(state.may_ask(Whose::Own, n.to_string(), now + INTERVAL_MIN));
        }
        assert_eq!(state.asked.len(), REMEMBERED_MAX);
    }

    #[test]
    fn strangers_have_few_questions_asked_whatever_they_do() {
        let (mut state, now) = (State::default(), Instant::now());
        let from = |n: u8| IpAddr::from([10, 0, n, 1]);
        let asked = |state: &mut State, n, now| (0..100).filter(|_| state.may_ask_for(from(n), now)).count();
        assert_eq!(asked(&mut state, 0, now), FOR_ONE_MAX);
        assert_eq!((1..100).map(|n| asked(&mut state, n, now)).sum::<usize>(), FOR_OTHERS_MAX - FOR_ONE_MAX);
        assert_eq!(state.for_others.len(), FOR_OTHERS_MAX);
        assert!(!state.may_ask_for(from(200), now + FOR_OTHERS_PERIOD / 2));
        assert!(state.may_ask_for(from(200), now + FOR_OTHERS_PERIOD));
    }

    #[test]
    fn what_strangers_ask_for_neither_keeps_this_peer_from_asking_nor_uses_up_their_questions_twice() {
        let (mut state, now) = (State::default(), Instant::now());
        let from = |n: u8| Whose::Others(Some([10, 0, n, 1].into()));
        assert!(state.may_ask(from(1), "rare".into(), now));
        assert!((1..100).all(|n| !state.may_ask(from(n), "rare".into(), now)));
        assert_eq!(state.for_others.len(), 1);
        assert!(state.may_ask(Whose::Own, "rare".into(), now));
    }

    #[test]
    fn a_reply_speaks_for_one_peer() {
        let holder =
            |name: &str| p2pdi::v1::Holder { peer_name: name.into(), endpoint: "127.0.0.1:7801".into(), ..Default::default() };
        let document =
            p2pdi::v1::Document { name: "a".into(), size: 1, blake3: ContentHash::of(b"a").to_field(), ..Default::default() };
        let holdings = vec![Holding { document: Some(document), holders: vec![holder("a"), holder("b"), holder("c")] }];
        let (source, listed) = answer_of(WhoHasReply { question: vec![1; 16].into(), holdings }).unwrap();
        assert_eq!((source.label(), listed[0].holders.len()), ("a", 1));
        assert!(answer_of(WhoHasReply::default()).is_none());
    }
}
