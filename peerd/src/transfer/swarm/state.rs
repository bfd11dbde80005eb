//! One swarm, as this peer sees it: what it has itself, the members it exchanges availability with, and others it heard of.
//!
//! Whoever waits for news keeps a cursor and reads what is new since. So nothing is queued, a slow reader loses nothing, and the memory is
//! bounded by the numbers of pieces and of members.

use super::{
    me::Me,
    named::NamedMembers,
    news::{MemberNews, News, Seen, Told},
    traffic::Traffic,
    update::{Member, Start},
};
use crate::{
    holders::{
        announcer::{AnnouncerHandle, CONNECTIONS_MAX},
        candidate::Candidate,
        source::Source,
    },
    transfer::{
        piece_set::PieceSet,
        plan::{Has, MemberId, Offers},
    },
};
use p2pdi::{
    content::{ContentHash, Pieces},
    document::DocumentName,
    endpoint::Endpoint,
    id::PeerId,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Shortest pause between two choices of what members shall ask for: what is chosen is sent with the next message, 20 a second.
const OFFER_INTERVAL: Duration = Duration::from_millis(40);

/// Why somebody does not become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotJoined {
    /// It is this peer.
    #[error("this peer dialled itself")]
    Itself,
    /// There is a stream with it already, and that one stays.
    #[error("availability is exchanged with this peer on another stream already")]
    Connected,
    /// The swarm has as many members as it keeps.
    #[error("availability is exchanged with {CONNECTIONS_MAX} peers already; ask another member")]
    Full,
}

/// One swarm.
pub(crate) struct Swarm {
    hash: ContentHash,
    pieces: Pieces,
    name: DocumentName,
    me: Me,
    state: Mutex<State>,
    /// Counts what members are told: own pieces, wishes, other members.
    own_news: watch::Sender<u64>,
    /// Counts what the fetch is told: other members and their pieces.
    member_news: watch::Sender<u64>,
    pub(super) traffic: Traffic,
    /// Why the fetch does not progress, as text.
    waiting: Mutex<String>,
    /// What the tracker said: whether others fetch too; `None` before its first answer.
    company: watch::Sender<Option<bool>>,
    /// Announces this peer to the tracker while the swarm exists.
    announcer: Mutex<Option<AnnouncerHandle>>,
}

struct State {
    own: PieceSet,
    /// Own pieces in the order they were verified.
    gained: Vec<usize>,
    members: BTreeMap<MemberId, Connected>,
    next_member: u32,
    named: NamedMembers,
    offers: Offers,
    /// When the offers were last chosen.
    offered: Option<Instant>,
}

/// A member that availability is exchanged with.
pub(super) struct Connected {
    pub(super) member: Member,
    pub(super) has: PieceSet,
    /// Its pieces in the order it named them, since it joined.
    gained: Vec<usize>,
    /// What it would like to be asked for, and how often that changed.
    ask_for: (u64, Vec<usize>),
    /// What it shall be asked to request here, and how often that changed.
    offer: (u64, Vec<usize>),
    dialled_by_us: bool,
    close: CancellationToken,
}

impl Swarm {
    /// The swarm of a document of which this peer has `own`.
    pub(crate) fn new(hash: ContentHash, pieces: Pieces, name: DocumentName, own: PieceSet, me: Me) -> Self {
        let seed = u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i] ^ me.id.as_bytes()[i]));
        let offers = Offers::of_part(pieces, &own, seed);
        let state = State {
            own,
            gained: Vec::new(),
            members: BTreeMap::new(),
            next_member: 0,
            named: NamedMembers::default(),
            offers,
            offered: None,
        };
        Self {
            hash,
            pieces,
            name,
            me,
            state: Mutex::new(state),
            own_news: watch::Sender::new(0),
            member_news: watch::Sender::new(0),
            traffic: Traffic::new(),
            waiting: Mutex::default(),
            company: watch::Sender::new(None),
            announcer: Mutex::default(),
        }
    }

    /// The document's hash.
    pub(crate) fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// How the document is divided.
    pub(crate) fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// The document's name here.
    pub(crate) fn name(&self) -> &DocumentName {
        &self.name
    }

    /// This peer's zone.
    pub(crate) fn zone(&self) -> &str {
        &self.me.zone
    }

    /// Where this peer serves, if it does.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.me.endpoint()
    }

    /// This peer's id.
    pub(crate) fn own_id(&self) -> PeerId {
        self.me.id
    }

    /// Bytes of pieces that this peer has.
    pub(crate) fn had_bytes(&self) -> u64 {
        self.state().own.bytes(self.pieces)
    }

    /// Whether this peer has all pieces.
    pub(crate) fn is_whole(&self) -> bool {
        self.state().own.is_full()
    }

    /// This peer verified a piece.
    pub(crate) fn gained(&self, piece: usize) {
        {
            let mut state = self.state();
            if !state.own.insert(piece) {
                return;
            }
            state.gained.push(piece);
            state.offers.verified(piece);
        }
        self.own_news.send_modify(|count| *count += 1);
        if let Some(announcer) = &*self.announcer() {
            announcer.had(self.had_bytes());
        }
    }

    /// The tracker answered: others fetch too, or not.
    pub(super) fn set_company(&self, others: bool) {
        self.company.send_if_modified(|known| {
            let is_new = *known != Some(true) && *known != Some(others);
            if is_new {
                *known = Some(others);
            }
            is_new
        });
    }

    /// Whether others fetch too, by the tracker; notified when it says so.
    pub(crate) fn company(&self) -> watch::Receiver<Option<bool>> {
        self.company.subscribe()
    }

    /// Tells the tracker of this peer from now on, by `announcer`.
    pub(super) fn announce(&self, announcer: AnnouncerHandle) {
        *self.announcer() = Some(announcer);
    }

    /// The fetch wants to know more members: the tracker is asked, or a search begins. `starved`: nobody known has what is missing.
    pub(crate) fn want_more(&self, starved: bool) {
        if let Some(announcer) = &*self.announcer() {
            announcer.want_more(starved);
        }
    }

    /// A peer is of no use: it is not reported to the tracker any more.
    pub(crate) fn useless(&self, source: Source) {
        if let Some(announcer) = &*self.announcer() {
            announcer.useless(source);
        }
    }

    fn announcer(&self) -> MutexGuard<'_, Option<AnnouncerHandle>> {
        self.announcer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why the fetch does not progress; empty if it does.
    pub(crate) fn set_waiting(&self, why: String) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn waiting(&self) -> String {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A member says that these are members, too. The fetch may ask them. Other members are not told before this peer has met them.
    pub(super) fn heard_of(&self, mut named: Vec<Source>) {
        let own = self.me.endpoint();
        named.retain(|source| Some(&source.endpoint) != own.as_ref());
        if self.state().named.add(named) {
            self.member_news.send_modify(|count| *count += 1);
        }
    }

    /// This side's first message.
    pub(super) fn start(&self) -> (Start, Told) {
        let state = self.state();
        let has = Has::Pieces(state.own.clone());
        let told = Told { gained: state.gained.len(), complete: state.own.is_full(), offer: 0, members: MemberId(0) };
        (Start { hash: self.hash, pieces: self.pieces, member: self.me.member(), has }, told)
    }

    /// Makes the sender of `start` a member. `close` ends its stream if another one takes its place.
    pub(super) fn join(&self, start: Start, dialled_by_us: bool, close: CancellationToken) -> Result<MemberId, NotJoined> {
        let Start { member, has, .. } = start;
        let own_id = self.own_id();
        if member.id == own_id {
            return Err(NotJoined::Itself);
        }
        let mut state = self.state();
        if let Some((id, other)) = state.members.iter().find(|(_, other)| other.member.id == member.id) {
            // Of two peers that dialled each other, the stream that the lower id dialled stays; of two dialled by one side the later one,
            // because the earlier one may be dead.
            let stays = if dialled_by_us { own_id < member.id } else { member.id < own_id };
            if other.dialled_by_us != dialled_by_us && !stays {
                return Err(NotJoined::Connected);
            }
            let id = *id;
            state.remove(id);
        }
        if state.members.len() >= CONNECTIONS_MAX {
            return Err(NotJoined::Full);
        }
        let id = MemberId(state.next_member);
        state.next_member += 1;
        let has = match has {
            Has::All => PieceSet::full(self.pieces.count()),
            Has::Pieces(set) => set,
        };
        state.offers.joined(id, has.clone());
        let connected =
            Connected { member, has, gained: Vec::new(), ask_for: (0, Vec::new()), offer: (0, Vec::new()), dialled_by_us, close };
        state.members.insert(id, connected);
        drop(state);
        self.own_news.send_modify(|count| *count += 1);
        self.member_news.send_modify(|count| *count += 1);
        Ok(id)
    }

    /// A member verified pieces; `complete`: all.
    pub(super) fn member_gained(&self, id: MemberId, pieces: &[usize], complete: bool) {
        {
            let mut state = self.state();
            let State { members, offers, .. } = &mut *state;
            let Some(connected) = members.get_mut(&id) else { return };
            let before = connected.gained.len();
            for piece in pieces.iter().copied() {
                if connected.has.insert(piece) {
                    connected.gained.push(piece);
                }
            }
            if complete {
                let rest: Vec<_> = connected.has.missing().collect();
                for piece in rest {
                    connected.has.insert(piece);
                    connected.gained.push(piece);
                }
            }
            if connected.gained.len() == before {
                return;
            }
            for piece in &connected.gained[before..] {
                offers.gained(id, *piece);
            }
        }
        self.member_news.send_modify(|count| *count += 1);
    }

    /// A member would like to be asked for these pieces.
    pub(super) fn member_asks_for(&self, id: MemberId, pieces: Vec<usize>) {
        if let Some(connected) = self.state().members.get_mut(&id) {
            connected.ask_for = (connected.ask_for.0 + 1, pieces);
        }
        self.member_news.send_modify(|count| *count += 1);
    }

    /// A member's stream ended.
    pub(super) fn leave(&self, id: MemberId) {
        self.state().remove(id);
        self.member_news.send_modify(|count| *count += 1);
    }

    /// A peer requested pieces of this one: they are not offered to others. Returns its number if it is a member.
    pub(super) fn requested(&self, by: PeerId, pieces: Range<usize>) -> Option<MemberId> {
        let id = {
            let mut state = self.state();
            let State { members, offers, .. } = &mut *state;
            let id = members.iter().find(|(_, other)| other.member.id == by).map(|(id, _)| *id)?;
            offers.requested(id, pieces);
            id
        };
        self.own_news.send_modify(|count| *count += 1);
        Some(id)
    }

    /// A request of a member ended before these pieces were sent.
    pub(super) fn unsent(&self, id: MemberId, pieces: Range<usize>) {
        self.state().offers.ended(id, pieces);
    }

    /// Chooses anew what each member shall ask for, at most once in [`OFFER_INTERVAL`].
    pub(super) fn refresh_offers(&self, now: Instant) {
        let mut state = self.state();
        if state.offered.is_some_and(|at| now.saturating_duration_since(at) < OFFER_INTERVAL) {
            return;
        }
        state.offered = Some(now);
        let State { members, offers, .. } = &mut *state;
        for (id, other) in members.iter() {
            #[expect(clippy::cast_precision_loss, reason = "a rate is measured, not exact")]
            offers.rate(*id, self.traffic.upload_rate(other.member.id, now) as f64);
        }
        for (id, list) in offers.lists() {
            if let Some(connected) = members.get_mut(&id) {
                connected.offer = (connected.offer.0 + 1, list);
            }
        }
    }

    /// What is new for a member since it was told last. `peers_max`: most other members to name.
    pub(super) fn news_for(&self, id: MemberId, told: &mut Told, peers_max: usize) -> News {
        let state = self.state();
        let Some(connected) = state.members.get(&id) else { return News::default() };
        let mut news = News::default();
        if !told.complete {
            news.complete = state.own.is_full();
            if !news.complete {
                news.gained = state.gained[told.gained..].to_vec();
            }
            (told.gained, told.complete) = (state.gained.len(), news.complete);
        }
        if told.offer != connected.offer.0 {
            told.offer = connected.offer.0;
            news.ask_for = Some(connected.offer.1.clone());
        }
        // Only those that are there now, and speak for themselves: what others named may be made up.
        for (other, there) in state.members.range(told.members..) {
            if news.peers.len() == peers_max {
                break;
            }
            told.members = MemberId(other.0 + 1);
            news.peers.extend(there.as_candidate(self.pieces).filter(|_| *other != id));
        }
        news
    }

    /// Notified when there may be news for members.
    pub(super) fn own_news(&self) -> watch::Receiver<u64> {
        self.own_news.subscribe()
    }

    /// Notified when there may be news for the fetch.
    pub(crate) fn member_news(&self) -> watch::Receiver<u64> {
        self.member_news.subscribe()
    }

    /// What is new for the fetch since `seen`.
    pub(crate) fn news(&self, seen: &mut Seen) -> Vec<MemberNews> {
        let state = self.state();
        let mut news = Vec::new();
        seen.members.retain(|id, _| {
            let is_there = state.members.contains_key(id);
            if !is_there {
                news.push(MemberNews::Left(*id));
            }
            is_there
        });
        for (id, connected) in &state.members {
            let (gained, asked) = match seen.members.get(id) {
                Some(known) => *known,
                None => {
                    let has = if connected.has.is_full() { Has::All } else { Has::Pieces(connected.has.clone()) };
                    news.push(MemberNews::Joined { id: *id, member: connected.member.clone(), has });
                    (connected.gained.len(), 0)
                }
            };
            if gained < connected.gained.len() {
                news.push(MemberNews::Gained(*id, connected.gained[gained..].to_vec()));
            }
            if asked != connected.ask_for.0 {
                news.push(MemberNews::AskFor(*id, connected.ask_for.1.clone()));
            }
            seen.members.insert(*id, (connected.gained.len(), connected.ask_for.0));
        }
        let named = state.named.since(&mut seen.named);
        if !named.is_empty() {
            news.push(MemberNews::Named(named));
        }
        news
    }

    /// Ends the stream with a member: it broke the contract, or sent wrong bytes.
    pub(crate) fn expel(&self, id: MemberId) {
        self.state().remove(id);
        self.member_news.send_modify(|count| *count += 1);
    }

    /// Ends the streams with all members, and tells the tracker that this peer is done.
    pub(super) fn end(&self) {
        self.state().members.values().for_each(|connected| connected.close.cancel());
        *self.announcer() = None;
    }

    /// Calls `view` with this peer's pieces and the members.
    pub(super) fn with<T>(&self, view: impl FnOnce(&PieceSet, &mut dyn Iterator<Item = &Connected>) -> T) -> T {
        let state = self.state();
        view(&state.own, &mut state.members.values())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    /// As other members are told of it; `None` if it cannot be dialled.
    fn as_candidate(&self, pieces: Pieces) -> Option<Candidate> {
        let (had, complete) = (self.has.bytes(pieces), self.has.is_full());
        let zone = self.member.zone.clone();
        self.member.source().map(|source| Candidate { source, zone, had, complete, reported: false })
    }
}

impl State {
    fn remove(&mut self, id: MemberId) {
        if let Some(connected) = self.members.remove(&id) {
            connected.close.cancel();
            self.offers.left(id);
        }
    }
}

/// Swarms are shared by streams and fetches.
pub(crate) type SharedSwarm = Arc<Swarm>;
