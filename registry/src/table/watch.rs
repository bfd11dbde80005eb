//! WatchPeers: the list or what changed since a revision, then each change.

use super::{
    change_log::encode,
    listing::SCAN_MAX,
    moment::Now,
    record::{Record, RecordState},
    refusal::Refusal,
    state::Table,
    view,
};
use bytes::Bytes;
use p2pdi::{
    cookie::CookieHash,
    v1::{WatchPeersResponse, peer_event::Change},
};

/// Most events in one message.
const EVENTS_MAX: usize = 256;
/// A message takes no further event after this many bytes: of 256 usual events it has less.
const MESSAGE_BYTES: usize = 64 * 1024;

/// How far one watcher has been told.
#[derive(Debug)]
pub struct Watch {
    caller: CookieHash,
    position: Position,
    start_over: bool,
    caught_up: bool,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    /// In the list, at this slot. What changed after `revision` follows it.
    List { slot: u32, revision: u64 },
    /// In what changed after this revision.
    Delta { since: u64 },
    /// In the log of changes, at this number.
    Log { number: u64 },
}

/// What a watcher is told next.
#[derive(Debug)]
pub struct Told {
    /// The message.
    pub message: WatchPeersResponse,
    /// There is more to tell at once.
    pub more: bool,
    /// Bytes of the events.
    bytes: usize,
}

impl Told {
    fn is_full(&self) -> bool {
        self.message.events.len() >= EVENTS_MAX || self.bytes >= MESSAGE_BYTES
    }

    fn add(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.message.events.push(event);
    }
}

impl Table {
    /// Begins to watch what changes after `since` (0: the whole list first), and extends the caller's lease.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`.
    pub fn watch(&mut self, caller: &CookieHash, since: u64, now: Now) -> Result<Watch, Refusal> {
        self.refresh(caller, now)?;
        self.log.start(self.revision);
        let is_known = (self.compacted_revision..=self.revision).contains(&since);
        let position = if is_known { Position::Delta { since } } else { Position::List { slot: 0, revision: self.revision } };
        Ok(Watch { caller: *caller, position, start_over: since > 0 && !is_known, caught_up: false })
    }

    /// What to tell next; `None`: nothing, unless `idle` asks for a sign of life.
    ///
    /// # Errors
    /// `CookieUnknown`, `LeaseExpired`: the caller has no lease any more. `Lagged`: changes that it was not told are not kept any more.
    pub fn watched(&mut self, watch: &mut Watch, idle: bool, now: Now) -> Result<Option<Told>, Refusal> {
        let caller = self.records.by_cookie(&watch.caller).ok_or(Refusal::CookieUnknown)?;
        let own = self.records.get(caller).filter(|record| record.is_live(now.mono_ms)).ok_or(Refusal::LeaseExpired)?;
        // An observer is in no list; a peer may have its name.
        let own_name = if own.is_observer() { "" } else { own.peer.strings.name() };
        let start_over = std::mem::take(&mut watch.start_over);
        let mut told = Told { message: WatchPeersResponse { start_over, ..Default::default() }, more: false, bytes: 0 };
        if let Position::List { slot, revision } = watch.position {
            watch.position = match self.tell_list(slot, caller, now, &mut told) {
                Some(slot) => Position::List { slot, revision },
                None => Position::Delta { since: revision },
            };
            told.more = true;
            return Ok(Some(told));
        }
        if let Position::Delta { since } = watch.position {
            match self.log.after(since) {
                Some(number) => watch.position = Position::Log { number },
                None if since < self.compacted_revision => return Err(Refusal::Lagged),
                None => self.tell_delta(since, caller, now, &mut told, &mut watch.position),
            }
        }
        if let Position::Log { number } = watch.position
            && !told.more
        {
            watch.position = Position::Log { number: self.tell_log(number, own_name, &mut told)? };
        }
        let reached = !told.more && !watch.caught_up;
        watch.caught_up |= reached;
        told.message.caught_up = reached;
        let is_news = idle || reached || start_over || !told.message.events.is_empty();
        Ok(is_news.then_some(told))
    }

    /// Active peers from `slot` on. Gives the slot where it continues.
    fn tell_list(&self, slot: u32, caller: u32, now: Now, told: &mut Told) -> Option<u32> {
        let end = u32::try_from(self.records.slots()).unwrap_or(u32::MAX);
        for (scanned, slot) in (slot..end).enumerate() {
            if scanned >= SCAN_MAX || told.is_full() {
                return Some(slot);
            }
            let listed = |record: &&Record| record.state == RecordState::Active && record.is_live(now.mono_ms) && slot != caller;
            if let Some(record) = self.records.get(slot).filter(listed) {
                told.add(encode(Change::Joined(view::peer(record, now))));
            }
        }
        None
    }

    /// What changed after `since` and is not in the log.
    fn tell_delta(&self, since: u64, caller: u32, now: Now, told: &mut Told, position: &mut Position) {
        let mut until = since;
        for (scanned, (revision, slot)) in self.changes(since.saturating_add(1), self.revision).enumerate() {
            if scanned >= SCAN_MAX || told.is_full() {
                *position = Position::Delta { since: until };
                (told.message.revision, told.more) = (until, true);
                return;
            }
            until = revision;
            let Some(record) = self.records.get(slot).filter(|_| slot != caller) else { continue };
            let change = match record.state {
                RecordState::Active => Change::Changed(view::peer(record, now)),
                _ => Change::Left(view::gone(record, revision)),
            };
            told.add(encode(change));
        }
        *position = Position::Log { number: self.log.end() };
    }

    /// The log from `number` on. Gives the number where it continues.
    fn tell_log(&self, number: u64, own_name: &str, told: &mut Told) -> Result<u64, Refusal> {
        let mut entries = self.log.from(number).ok_or(Refusal::Lagged)?;
        let (mut next, mut until) = (number, None);
        while let Some(entry) = entries.next() {
            if told.is_full() {
                told.more = true;
                // Changes of one commit may have one revision, and after records were read again later entries may have lower ones.
                let untold = entries.map(|entry| entry.revision).fold(entry.revision, u64::min);
                told.message.revision = until.map_or(0, |until: u64| until.min(untold.saturating_sub(1)));
                return Ok(next);
            }
            next += 1;
            until = until.max(Some(entry.revision));
            if !entry.key.eq_ignore_ascii_case(own_name) {
                told.add(entry.event.clone());
            }
        }
        told.message.revision = self.revision;
        Ok(next)
    }

    /// Keeps a change of an active peer for those who watch. `key`: its name in lower case.
    pub(super) fn log_change(&mut self, key: &str, slot: u32, was_active: bool, revision: u64, now: Now) {
        if !self.log.is_kept() {
            return;
        }
        let Some(record) = self.records.get(slot) else { return };
        let change = match (was_active, record.state == RecordState::Active) {
            (false, true) => Change::Joined(view::peer(record, now)),
            (true, true) => Change::Changed(view::peer(record, now)),
            (true, false) => Change::Left(view::gone(record, revision)),
            (false, false) => return,
        };
        self.log.push(revision, key, change);
    }
}
