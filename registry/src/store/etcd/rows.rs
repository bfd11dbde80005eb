//! Rows that several certificate authorities share, below `ca/`, and followed by a watch of their own. Every write writes `ca/turn`, too, on
//! condition that it is the one that its writer has seen: so there is one order, and nobody writes on top of what it does not know.

use super::{
    client::{Calls, revision},
    layout::{CHANGES_MAX, Keys},
    runtime::IoThread,
};
use crate::{
    ca::{News, Row, SharedRows},
    store::StoreError,
};
use etcd_client::{Compare, CompareOp, Event, EventType, KeyValue, Txn, TxnOp, TxnOpResponse};
use prost::Message;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Rows of one page: they fit an answer of 4 MiB with all labels at their longest.
const PAGE: i64 = 512;
/// Pause before the watch is begun again after it failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long it is waited for what others wrote. A guess: a watch is some milliseconds behind, unless etcd has no leader.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Writers whose latest write the turn names: many more than there are replicas, some of which were started anew.
const WRITERS_NAMED: usize = 64;
/// Changed keys that are heard and not given yet; past that all rows are read again. A guess: some 30 MB.
const SAID_MAX: usize = 100_000;

/// The value of `ca/turn`.
#[derive(Clone, PartialEq, Message)]
struct Turn {
    /// The latest write of each writer, the newest last: a writer whose answer was lost looks whether its write was made.
    #[prost(message, repeated, tag = "1")]
    writes: Vec<Write>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Write {
    /// Random.
    #[prost(fixed64, tag = "1")]
    writer: u64,
    /// Counts the writes of that writer.
    #[prost(uint64, tag = "2")]
    number: u64,
}

/// See the module.
pub(crate) struct EtcdRows {
    io: Arc<IoThread>,
    calls: Calls,
    /// What the keys begin with.
    prefix: String,
    heard: Arc<Heard>,
    /// Etcd's revision up to which rows were given, or written here.
    known_to: i64,
    /// Etcd's revision of the turn that was seen; 0: there was none.
    turn_at: i64,
    turn: Turn,
    /// The latest write from here.
    write: Write,
    /// Ends the watch.
    following: Option<DropGuard>,
}

/// What the watch said and was not given yet.
struct Heard {
    said: Mutex<Said>,
    more: Condvar,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Said {
    /// Changed keys, whose revisions are not below those before.
    keys: Vec<(i64, Row)>,
    /// Etcd's revision up to which everything was heard.
    at: i64,
    /// Changes are missing: all rows are to be read again.
    is_lost: bool,
}

impl EtcdRows {
    /// `writer`: random.
    pub(super) fn new(io: &Arc<IoThread>, calls: Calls, keys: &Keys, writer: u64) -> Self {
        let heard = Heard { said: Mutex::default(), more: Condvar::new(), changes: watch::Sender::new(()) };
        Self {
            io: Arc::clone(io),
            calls,
            prefix: keys.authority(),
            heard: Arc::new(heard),
            known_to: 0,
            turn_at: 0,
            turn: Turn::default(),
            write: Write { writer, number: 0 },
            following: None,
        }
    }

    fn turn_key(&self) -> String {
        format!("{}{TURN}", self.prefix)
    }

    /// Reads all rows, and follows them from there.
    fn read(&mut self) -> Result<News, StoreError> {
        self.following = None;
        let (calls, prefix) = (self.calls.clone(), self.prefix.clone());
        let (found, at) = self.io.wait(async move { all(&calls, &prefix).await })??;
        (self.turn_at, self.turn, self.known_to) = (0, Turn::default(), at);
        let mut rows = Vec::with_capacity(found.len());
        for key in &found {
            match self.name(key) {
                Some(TURN) => (self.turn_at, self.turn) = (key.mod_revision(), read_turn(key.value())),
                Some(name) => rows.push((name.to_owned(), Some(key.value().to_vec()))),
                None => {}
            }
        }
        *self.heard.lock() = Said { at, ..Said::default() };
        let stop = CancellationToken::new();
        let follower = Follower {
            calls: self.calls.clone(),
            prefix: self.prefix.clone(),
            heard: Arc::clone(&self.heard),
            stop: stop.clone(),
        };
        if let Some(handle) = self.io.handle() {
            handle.spawn(follower.run(at + 1));
        }
        self.following = Some(stop.drop_guard());
        Ok(News::All(rows))
    }

    fn name<'a>(&self, key: &'a KeyValue) -> Option<&'a str> {
        std::str::from_utf8(key.key()).ok()?.strip_prefix(&self.prefix)
    }

    /// What was heard and is not known.
    fn take(&mut self) -> News {
        let said = {
            let mut said = self.heard.lock();
            std::mem::take(&mut said.keys)
        };
        let mut rows = Vec::new();
        for (at, (name, value)) in said {
            // What was written here comes back.
            if at <= self.known_to {
                continue;
            }
            if name == TURN {
                // Without one, the next write must find none.
                self.turn_at = if value.is_some() { at } else { 0 };
                self.turn = read_turn(&value.unwrap_or_default());
            } else {
                rows.push((at, (name, value)));
            }
        }
        if let Some((at, _)) = rows.last() {
            self.known_to = self.known_to.max(*at);
        }
        self.known_to = self.known_to.max(self.turn_at);
        News::Changed(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn is_lost(&self) -> bool {
        self.following.is_none() || self.heard.lock().is_lost
    }

    fn news_or_all(&mut self) -> Result<News, StoreError> {
        if self.is_lost() { self.read() } else { Ok(self.take()) }
    }

    fn caught_up(&mut self) -> Result<News, StoreError> {
        let (calls, key) = (self.calls.clone(), self.turn_key());
        let (turn, _) = self.io.wait(async move { calls.get(key).await })??;
        let wanted = turn.map_or(0, |turn| turn.mod_revision());
        let until = Instant::now() + CATCH_UP;
        let mut said = self.heard.lock();
        while said.at < wanted && !said.is_lost {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Failed { doing: "follow etcd", problem: "it does not say what others wrote".into() });
            }
            said = self.heard.more.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(said);
        self.news_or_all()
    }

    fn put(&mut self, rows: &[Row]) -> Result<bool, StoreError> {
        self.write.number += 1;
        let write = self.write;
        let mut turn = self.turn.clone();
        turn.writes.retain(|other| other.writer != write.writer);
        turn.writes.push(write);
        let forgotten = turn.writes.len().saturating_sub(WRITERS_NAMED);
        turn.writes.drain(..forgotten);
        let key = self.turn_key();
        let mut operations = vec![TxnOp::put(key.clone(), turn.encode_to_vec(), None)];
        operations.extend(rows.iter().map(|(name, value)| {
            let key = format!("{}{name}", self.prefix);
            match value {
                Some(value) => TxnOp::put(key, value.clone(), None),
                None => TxnOp::delete(key, None),
            }
        }));
        // 0: there is none.
        let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, self.turn_at);
        let txn = Txn::new().when([unchanged]).and_then(operations).or_else([TxnOp::get(key, None)]);
        let calls = self.calls.clone();
        let answer = self.io.wait(async move { calls.txn(txn).await })??;
        if answer.succeeded() {
            (self.turn_at, self.turn) = (revision(answer.header()), turn);
            self.known_to = self.turn_at;
            return Ok(true);
        }
        let found = answer.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        // An earlier try may have been made though its answer was lost. The watch says it once more then.
        if found.as_ref().is_some_and(|found| read_turn(found.value()).writes.contains(&write)) {
            return Ok(true);
        }
        // What is there is not newer than what was seen: etcd went back, or the keys were removed by hand.
        if found.is_none_or(|found| found.mod_revision() <= self.turn_at) {
            self.following = None;
        }
        Ok(false)
    }
}

/// The key that every write writes.
const TURN: &str = "turn";

fn read_turn(value: &[u8]) -> Turn {
    Turn::decode(value).unwrap_or_default()
}

impl SharedRows for EtcdRows {
    fn news(&mut self) -> Result<News, String> {
        self.news_or_all().map_err(|error| error.to_string())
    }

    fn catch_up(&mut self) -> Result<News, String> {
        self.caught_up().map_err(|error| error.to_string())
    }

    fn write(&mut self, rows: &[Row]) -> Result<bool, String> {
        self.put(rows).map_err(|error| error.to_string())
    }

    fn rows_max(&self) -> usize {
        CHANGES_MAX
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.heard.changes.subscribe()
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        self.lock().is_lost = true;
        self.told(true);
    }

    fn told(&self, is_news: bool) {
        self.more.notify_all();
        if is_news {
            self.changes.send_replace(());
        }
    }
}

/// All keys, at one revision.
async fn all(calls: &Calls, prefix: &str) -> Result<(Vec<KeyValue>, i64), StoreError> {
    // The sign after `/`.
    let end = format!("{}0", prefix.trim_end_matches('/')).into_bytes();
    let (mut from, mut at, mut found) = (prefix.as_bytes().to_vec(), 0, Vec::new());
    loop {
        let mut page = calls.range(from, end.clone(), PAGE, at).await?;
        if at == 0 {
            at = revision(page.header());
        }
        found.extend(page.take_kvs());
        match found.last() {
            Some(last) if page.more() => from = [last.key(), &[0]].concat(),
            _ => return Ok((found, at)),
        }
    }
}

struct Follower {
    calls: Calls,
    prefix: String,
    heard: Arc<Heard>,
    stop: CancellationToken,
}

impl Follower {
    /// Follows the rows from etcd's revision `from` until changes are missing.
    async fn run(self, mut from: i64) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            while !Box::pin(self.follow(&mut from)).await {
                sleep(RETRY_AFTER).await;
            }
        })
        .await;
    }

    /// Whether changes are missing.
    async fn follow(&self, from: &mut i64) -> bool {
        let mut watch = match self.calls.watch(&self.prefix, *from).await {
            Ok(watch) => watch,
            Err(error) => {
                tracing::debug!(%error, "the shared ledger cannot be followed; trying again");
                return false;
            }
        };
        loop {
            match watch.message().await {
                Ok(Some(answer)) if answer.compact_revision() > 0 => {
                    tracing::warn!("etcd dropped changes of the shared ledger that were not read here; it is read again");
                    self.heard.lose();
                    return true;
                }
                Ok(Some(answer)) if !answer.canceled() => {
                    let keys: Vec<_> = answer.events().iter().filter_map(|event| self.row(event)).collect();
                    let at = match keys.last() {
                        Some((at, _)) => *at,
                        // Progress: nothing of these keys changed up to here.
                        None if !answer.created() => revision(answer.header()),
                        None => continue,
                    };
                    *from = (*from).max(at + 1);
                    self.hear(keys, at);
                }
                Ok(_) => return false,
                Err(error) => {
                    tracing::debug!(%error, "the watch of the shared ledger ended; it begins again");
                    return false;
                }
            }
        }
    }

    fn hear(&self, keys: Vec<(i64, Row)>, at: i64) {
        let is_news = !keys.is_empty();
        {
            let mut said = self.heard.lock();
            // Of a watch that was ended meanwhile.
            if self.stop.is_cancelled() {
                return;
            }
            said.keys.extend(keys);
            said.at = said.at.max(at);
            if said.keys.len() > SAID_MAX {
                *said = Said { is_lost: true, ..Said::default() };
            }
        }
        self.heard.told(is_news);
    }

    fn row(&self, event: &Event) -> Option<(i64, Row)> {
        let key = event.kv()?;
        let name = std::str::from_utf8(key.key()).ok()?.strip_prefix(&self.prefix)?.to_owned();
        let value = (event.event_type() == EventType::Put).then(|| key.value().to_vec());
        Some((key.mod_revision(), (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{etcd_below, real_etcd::Etcd};

    fn put(name: &str, value: u8) -> Row {
        (name.to_owned(), Some(vec![value]))
    }

    /// Two that share rows, and the way to a third.
    fn two(etcd: &Etcd) -> [EtcdRows; 3] {
        let mut all = [(); 3].map(|()| etcd_below(etcd, "/shared").unwrap().rows());
        for rows in &mut all[..2] {
            assert_eq!(rows.news(), Ok(News::All(Vec::new())));
        }
        all
    }

    #[test]
    fn whoever_does_not_know_what_others_wrote_writes_nothing() {
        let Some(etcd) = Etcd::start() else { return };
        let [mut one, mut other, mut late] = two(&etcd);
        assert_eq!(one.write(&[put("a", 1), put("b", 1)]), Ok(true));
        assert_eq!(other.write(&[put("a", 2)]), Ok(false));
        assert_eq!(other.catch_up(), Ok(News::Changed(vec![put("a", 1), put("b", 1)])));
        assert_eq!(other.write(&[put("a", 2), ("b".to_owned(), None)]), Ok(true));
        assert_eq!(one.write(&[put("c", 3)]), Ok(false));
        // In the order of the transaction, or of the keys.
        let News::Changed(mut rows) = one.catch_up().unwrap() else { panic!("not all of them") };
        rows.sort();
        assert_eq!(rows, [put("a", 2), ("b".to_owned(), None)]);
        assert_eq!(one.write(&[put("c", 3)]), Ok(true));
        // What was written here is not news.
        assert_eq!(one.catch_up(), Ok(News::Changed(Vec::new())));
        assert_eq!(late.news(), Ok(News::All(vec![put("a", 2), put("c", 3)])));
    }

    #[test]
    fn what_others_write_is_heard_without_asking() {
        let Some(etcd) = Etcd::start() else { return };
        let [mut one, mut other, _] = two(&etcd);
        let mut changes = other.changes();
        assert_eq!(one.write(&[put("a", 1)]), Ok(true));
        let heard = async { tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.expect("it is heard") };
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(heard).unwrap();
        assert_eq!(other.news(), Ok(News::Changed(vec![put("a", 1)])));
        assert_eq!(other.write(&[put("a", 2)]), Ok(true));
    }

    #[test]
    fn after_changes_were_missed_all_rows_are_given() {
        let Some(etcd) = Etcd::start() else { return };
        let [mut one, mut other, _] = two(&etcd);
        // As the watch says when etcd has dropped what it should begin with.
        other.heard.lose();
        let mut rows = Vec::new();
        for number in 0..700 {
            rows.push(put(&format!("row-{number:04}"), 1));
        }
        for some in rows.chunks(one.rows_max()) {
            assert_eq!(one.write(some), Ok(true));
        }
        assert_eq!(other.catch_up(), Ok(News::All(rows)));
        assert_eq!(other.write(&[put("a", 2)]), Ok(true));
        assert_eq!(one.catch_up(), Ok(News::Changed(vec![put("a", 2)])));
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_found_to_be_made_also_after_others_wrote() {
        let Some(etcd) = Etcd::start() else { return };
        let [mut one, mut other, _] = two(&etcd);
        for number in 0..200 {
            assert_eq!(one.write(&[put("a", number)]), Ok(true));
        }
        assert_eq!(one.turn.writes.len(), 1, "the latest of each writer");
        let (before, seen) = (one.turn_at, one.turn.clone());
        assert_eq!(one.write(&[put("b", 1)]), Ok(true));
        other.catch_up().unwrap();
        assert_eq!(other.write(&[put("c", 1)]), Ok(true));
        // As if the first had no answer, and the client tried again.
        (one.turn_at, one.turn, one.write.number) = (before, seen, one.write.number - 1);
        assert_eq!(one.write(&[put("b", 1)]), Ok(true));
        // A write that was not made is not taken for one.
        assert_eq!(one.write(&[put("d", 1)]), Ok(false));
        assert_eq!(read_turn(b"\xff"), Turn::default());
    }

    #[test]
    fn after_the_keys_were_removed_by_hand_writing_goes_on() {
        let Some(etcd) = Etcd::start() else { return };
        let [mut one, mut other, _] = two(&etcd);
        assert_eq!(one.write(&[put("a", 1)]), Ok(true));
        let (calls, key) = (one.calls.clone(), one.turn_key());
        one.io.wait(async move { calls.txn(Txn::new().and_then([TxnOp::delete(key, None)])).await }).unwrap().unwrap();
        for rows in [&mut one, &mut other] {
            let written = (0..3).any(|_| rows.write(&[put("b", 1)]).unwrap() || rows.catch_up().is_err());
            assert!(written);
        }
    }
}
