//! What every store does, tested on each of them.

use super::{
    backend::{Loaded, Store, WriteError},
    embedded::Embedded,
    error::StoreError,
    file::FILE_NAME,
    memory::Memory,
};
use crate::table::{Change, Labels, PackedStrings, Peer, Registrations};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    id::PeerId,
};
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv6Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::park_timeout,
    time::{Duration, Instant},
};

/// Longest wait for a store to recover.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store under test, which can be closed and opened again.
struct Subject<'a> {
    open: Box<dyn Fn() -> Box<dyn Store> + 'a>,
    /// Commits fail while it is set.
    failing: Arc<AtomicBool>,
    /// Whether it keeps records.
    keeps: bool,
}

/// A store that does not fail by itself, or not within a moment: this one stands for one that does.
struct MadeToFail<S> {
    store: S,
    failing: Arc<AtomicBool>,
}

impl<S> MadeToFail<S> {
    fn check(&self) -> Result<(), StoreError> {
        let error = || StoreError::Failed { doing: "write", problem: "the test makes it fail".into() };
        if self.failing.load(Ordering::Relaxed) { Err(error()) } else { Ok(()) }
    }
}

impl<S: Store> Store for MadeToFail<S> {
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        self.store.load(each)
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        match self.check().map_err(Arc::new) {
            Ok(()) => self.store.commit(batch),
            Err(error) => batch.iter().map(|_| Err(WriteError::Failed(Arc::clone(&error)))).collect(),
        }
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        self.check()?;
        self.store.latest()
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        self.check()?;
        self.store.recover()
    }
}

pub(super) fn peer(number: u64, active: bool) -> Peer {
    let mut registrations = Registrations::default();
    for time in [5, number * 1_000_000_000, number * 1_000_000_000 + 7] {
        registrations.add(time);
    }
    let labels = BTreeMap::from([("zone".to_owned(), format!("eu-{number}")), ("empty".to_owned(), String::new())]);
    Peer {
        strings: PackedStrings::new(&format!("Peer-{number}"), &format!("[2001:db8::{number}]:7801"), &Labels::pack(&labels)),
        id: PeerId::from_bytes([9; 16]),
        cookie: Cookie::from_bytes(u128::from(number).to_be_bytes()).hash(),
        address: Ipv6Addr::from_bits(u128::from(number)),
        first_registered_ms: number,
        last_registered_ms: u64::MAX,
        last_active_ms: 0,
        registrations,
        active,
    }
}

/// All records by their key, with their revisions.
pub(super) fn contents(store: &mut dyn Store) -> BTreeMap<String, (Peer, u64)> {
    let mut found = BTreeMap::new();
    let mut add = |peer: Peer, revision| {
        let key = peer.strings.name().to_lowercase();
        assert!(found.insert(key.clone(), (peer, revision)).is_none(), "{key} came twice");
    };
    let complete_to = store.load(&mut add).unwrap().revision;
    assert!(found.values().all(|(_, revision)| *revision <= complete_to));
    found
}

/// Commits changes that must all be accepted. Gives their revisions.
fn accepted(store: &mut dyn Store, batch: &[Change]) -> Vec<u64> {
    store.commit(batch).into_iter().map(|outcome| outcome.expect("accepted")).collect()
}

fn a_new_store_is_empty(subject: &Subject<'_>) {
    assert_eq!(contents(&mut *(subject.open)()), BTreeMap::new());
}

fn committed_records_are_there_when_it_is_opened_again(subject: &Subject<'_>) {
    let mut store = (subject.open)();
    let batch = [1, 2, 3].map(|number| Change::put(peer(number, true), 0));
    let first = accepted(&mut *store, &batch);
    let second = accepted(
        &mut *store,
        &[Change::put(peer(1, false), first[0]), Change::remove("PEER-3", first[2]), Change::put(peer(4, false), 0)],
    );
    assert!(store.commit(&[]).is_empty());
    drop(store);
    let expected = BTreeMap::from([
        ("peer-1".to_owned(), (peer(1, false), second[0])),
        ("peer-2".to_owned(), (peer(2, true), first[1])),
        ("peer-4".to_owned(), (peer(4, false), second[2])),
    ]);
    assert_eq!(contents(&mut *(subject.open)()), if subject.keeps { expected } else { BTreeMap::new() });
}

fn every_change_has_a_higher_revision_than_the_one_before_also_after_a_restart(subject: &Subject<'_>) {
    let mut latest = 0;
    for round in 0..3 {
        let mut store = (subject.open)();
        let complete_to = store.load(&mut |_, _| {}).unwrap().revision;
        assert!(complete_to >= latest, "{complete_to} after {latest}");
        latest = complete_to;
        for batch in [0, 10].map(|from| (from..from + 5).map(|n| Change::put(peer(100 * round + n, true), 0)).collect::<Vec<_>>())
        {
            for revision in accepted(&mut *store, &batch) {
                assert!(revision > latest, "{revision} after {latest}");
                latest = revision;
            }
        }
    }
}

fn a_change_decided_on_another_revision_is_refused_and_the_others_are_accepted(subject: &Subject<'_>) {
    if !subject.keeps {
        // No other registry can have changed it.
        return;
    }
    let mut store = (subject.open)();
    let first = [1, 2].map(|number| accepted(&mut *store, &[Change::put(peer(number, true), 0)])[0]);
    let mut conflicts = |batch: &[Change]| -> Vec<bool> {
        let outcomes = store.commit(batch);
        outcomes.iter().map(|outcome| matches!(outcome, Err(WriteError::Conflict { .. }))).collect()
    };
    // It is there already, it is not there, it is new, it is there as expected.
    let batch = [
        Change::put(peer(1, false), 0),
        Change::put(peer(3, true), first[1]),
        Change::put(peer(4, true), 0),
        Change::remove("peer-2", first[1]),
    ];
    assert_eq!(conflicts(&batch), [true, true, false, false]);
    // It is another by now, it was removed.
    assert_eq!(conflicts(&[Change::remove("peer-1", first[1]), Change::put(peer(2, false), first[1])]), [true, true]);
    drop(store);
    let found = contents(&mut *(subject.open)());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["peer-1", "peer-4"]);
    assert_eq!(found["peer-1"], (peer(1, true), first[0]));
}

fn the_latest_revision_is_not_behind_what_any_registry_was_told(subject: &Subject<'_>) {
    let mut store = (subject.open)();
    let revision = accepted(&mut *store, &[Change::put(peer(1, true), 0)])[0];
    assert!(store.latest().unwrap() >= revision);
    if subject.keeps {
        drop(store);
        let mut again = (subject.open)();
        contents(&mut *again);
        assert!(again.latest().unwrap() >= revision);
    }
}

fn a_large_batch_is_written_whole(subject: &Subject<'_>) {
    let batch: Vec<_> = (0..3_000).map(|number| Change::put(peer(number, true), 0)).collect();
    let mut store = (subject.open)();
    accepted(&mut *store, &batch);
    drop(store);
    assert_eq!(contents(&mut *(subject.open)()).len(), if subject.keeps { batch.len() } else { 0 });
}

fn a_store_that_did_not_fail_recovers_and_loses_nothing(subject: &Subject<'_>) {
    let mut store = (subject.open)();
    accepted(&mut *store, &[Change::put(peer(1, true), 0)]);
    let before = contents(&mut *store);
    store.recover().unwrap();
    assert_eq!(contents(&mut *store), before);
}

fn a_failed_commit_changes_nothing_and_after_recovery_the_next_one_succeeds(subject: &Subject<'_>) {
    let mut store = (subject.open)();
    let first = accepted(&mut *store, &[1, 2].map(|number| Change::put(peer(number, true), 0)));
    let before = contents(&mut *store);
    let batch = [Change::put(peer(1, false), first[0]), Change::remove("peer-2", first[1]), Change::put(peer(3, true), 0)];
    subject.failing.store(true, Ordering::Relaxed);
    let outcomes = store.commit(&batch);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::Failed(_)))), "{outcomes:?}");
    store.recover().unwrap_err();
    subject.failing.store(false, Ordering::Relaxed);
    let failing_since = Instant::now();
    while let Err(error) = store.recover() {
        // A store may wait between two attempts.
        assert!(failing_since.elapsed() < PATIENCE, "{error}");
        park_timeout(Duration::from_millis(10));
    }
    assert_eq!(contents(&mut *store), before);
    let next = accepted(&mut *store, &batch);
    assert!(next[0] > first[1], "{next:?} after {first:?}");
    drop(store);
    let expected =
        BTreeMap::from([("peer-1".to_owned(), (peer(1, false), next[0])), ("peer-3".to_owned(), (peer(3, true), next[2]))]);
    assert_eq!(contents(&mut *(subject.open)()), if subject.keeps { expected } else { BTreeMap::new() });
}

fn conforms(new: impl Fn(&Path, &Arc<AtomicBool>) -> Box<dyn Store>, keeps: bool) {
    for check in [
        a_new_store_is_empty,
        committed_records_are_there_when_it_is_opened_again,
        every_change_has_a_higher_revision_than_the_one_before_also_after_a_restart,
        a_change_decided_on_another_revision_is_refused_and_the_others_are_accepted,
        the_latest_revision_is_not_behind_what_any_registry_was_told,
        a_large_batch_is_written_whole,
        a_store_that_did_not_fail_recovers_and_loses_nothing,
        a_failed_commit_changes_nothing_and_after_recovery_the_next_one_succeeds,
    ] {
        let (folder, failing) = (tempfile::tempdir().unwrap(), Arc::<AtomicBool>::default());
        check(&Subject { open: Box::new(|| new(folder.path(), &failing)), failing: Arc::clone(&failing), keeps });
    }
}

#[test]
fn the_embedded_store_conforms() {
    let open = |folder: &Path, failing: &Arc<AtomicBool>| -> Box<dyn Store> {
        let mut store = Embedded::open(folder).unwrap();
        store.failing = Arc::clone(failing);
        Box::new(store)
    };
    conforms(open, true);
}

#[test]
fn the_memory_store_conforms() {
    let open = |_: &Path, failing: &Arc<AtomicBool>| -> Box<dyn Store> {
        Box::new(MadeToFail { store: Memory::default(), failing: Arc::clone(failing) })
    };
    conforms(open, false);
}

#[cfg(feature = "etcd")]
#[path = "../../tests/support/etcd.rs"]
pub(super) mod real_etcd;

#[cfg(feature = "etcd")]
pub(super) fn etcd_below(etcd: &real_etcd::Etcd, prefix: &str) -> Result<super::Etcd, StoreError> {
    let address = super::EtcdAddress {
        endpoints: etcd.endpoints(),
        prefix: prefix.to_owned(),
        files: super::EtcdFiles::default(),
        user: None,
    };
    super::Etcd::open(&address, &"default".parse().unwrap(), Duration::from_secs(30))
}

#[cfg(feature = "etcd")]
#[test]
fn the_etcd_store_conforms() {
    let Some(etcd) = real_etcd::Etcd::start() else { return };
    let open = |folder: &Path, failing: &Arc<AtomicBool>| -> Box<dyn Store> {
        let store = etcd_below(&etcd, &folder.display().to_string()).unwrap();
        Box::new(MadeToFail { store, failing: Arc::clone(failing) })
    };
    conforms(open, true);
}

#[cfg(feature = "etcd")]
#[test]
fn a_removal_is_known_to_whoever_reads_later() {
    let Some(etcd) = real_etcd::Etcd::start() else { return };
    let mut store = etcd_below(&etcd, "/removals").unwrap();
    let first = accepted(&mut store, &[1, 2].map(|number| Change::put(peer(number, true), 0)));
    let before = etcd_below(&etcd, "/removals").unwrap().load(&mut |_, _| {}).unwrap();
    assert!(before.complete_since < first[0] && before.revision == first[1], "{before:?}");
    let removed = accepted(&mut store, &[Change::remove("peer-2", first[1])]);
    let after = etcd_below(&etcd, "/removals").unwrap().load(&mut |_, _| {}).unwrap();
    assert_eq!((after.complete_since, after.revision), (removed[0], removed[0]));
}

#[cfg(feature = "etcd")]
#[test]
fn keys_of_another_network_are_refused() {
    let Some(etcd) = real_etcd::Etcd::start() else { return };
    etcd_below(&etcd, "/one").unwrap();
    let address = super::EtcdAddress {
        endpoints: etcd.endpoints(),
        prefix: "/one/".into(),
        files: super::EtcdFiles::default(),
        user: None,
    };
    let error = super::Etcd::open(&address, &"other".parse().unwrap(), Duration::from_secs(30)).err().unwrap();
    assert!(error.to_string().contains("network default, not of other"), "{error}");
}

#[test]
fn a_file_that_is_not_a_store_is_refused_and_left_unchanged() {
    let mut junk = vec![0; 100_000];
    junk.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte = at.to_le_bytes()[0]);
    for content in [b"not a database\n".to_vec(), junk] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, &content).unwrap();
        let error = Embedded::open(folder.path()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.hint().contains("move it away"), "{}", error.hint());
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_damaged_file_is_refused_or_repaired_and_never_loses_records_without_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let batch: Vec<_> = (0..500).map(|number| Change::put(peer(number, true), 0)).collect();
    accepted(&mut Embedded::open(folder.path()).unwrap(), &batch);
    let path = folder.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, &damaged).unwrap();
        let opened = std::panic::catch_unwind(|| {
            let mut store = Embedded::open(folder.path())?;
            let mut found = 0;
            store.load(&mut |_, _| found += 1).map(|loaded| found + usize::try_from(loaded.skipped.count).unwrap())
        });
        match opened.expect("an error, not a panic") {
            Ok(found) => assert_eq!(found, batch.len(), "damage at {at} lost records without an error"),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        }
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Embedded::open(folder.path()).unwrap();
    assert!(matches!(Embedded::open(folder.path()).err(), Some(StoreError::Locked(_))));
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(folder.path()).unwrap());
    let database = redb::Database::open(folder.path().join(FILE_NAME)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<&str, u64>::new("numbers")).unwrap().insert("schema", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Embedded::open(folder.path()).err(), Some(StoreError::Newer { found: 99, .. })));
}

#[test]
fn only_hashes_of_cookies_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = Cookie::generate().unwrap();
    let kept = Peer { cookie: cookie.hash(), ..peer(1, true) };
    accepted(&mut Embedded::open(folder.path()).unwrap(), &[Change::put(kept, 0)]);
    let file = fs::read(folder.path().join(FILE_NAME)).unwrap();
    let hash: CookieHash = cookie.hash();
    assert!(file.windows(16).any(|bytes| bytes == hash.as_bytes()));
    let secret = cookie.reveal();
    let raw: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
    assert!(!file.windows(16).any(|bytes| bytes == raw) && !file.windows(32).any(|bytes| bytes == secret.as_bytes()));
}
