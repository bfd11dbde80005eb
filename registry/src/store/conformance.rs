//! What every store must do, run over each of them.

use super::{Embedded, Memory, Store, StoreError, Write};
use crate::table::{Labels, PackedStrings, Peer, Registrations};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    id::PeerId,
};
use std::{collections::BTreeMap, fs, net::Ipv6Addr, path::Path};

/// A store to try, which can be closed and opened again.
struct Subject<'a> {
    open: Box<dyn Fn() -> Box<dyn Store> + 'a>,
    /// Whether it keeps anything when closed.
    keeps: bool,
}

fn peer(number: u64, active: bool) -> Peer {
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

fn contents(store: &mut dyn Store) -> (BTreeMap<u32, Peer>, u64) {
    let mut peers = BTreeMap::new();
    let ceiling = store.load(&mut |slot, peer| {
        assert!(peers.insert(slot, peer).is_none(), "slot {slot} came twice");
        Ok(())
    });
    (peers, ceiling.unwrap())
}

fn a_new_store_is_empty(subject: &Subject<'_>) {
    assert_eq!(contents(&mut *(subject.open)()), (BTreeMap::new(), 0));
}

fn what_was_committed_is_there_when_opened_again(subject: &Subject<'_>) {
    let (one, two, gone) = (peer(1, true), peer(2, false), peer(3, true));
    let mut store = (subject.open)();
    store.commit(&[Write::Put { slot: 0, peer: &one }, Write::Ceiling(7), Write::Put { slot: 70_000, peer: &gone }]).unwrap();
    store.commit(&[Write::Remove { slot: 70_000 }, Write::Remove { slot: 5 }, Write::Put { slot: 3, peer: &two }]).unwrap();
    store.commit(&[]).unwrap();
    drop(store);
    let expected = if subject.keeps { (BTreeMap::from([(0, one), (3, two)]), 7) } else { (BTreeMap::new(), 0) };
    assert_eq!(contents(&mut *(subject.open)()), expected);
}

fn the_latest_write_of_a_slot_counts_within_a_batch_and_between_batches(subject: &Subject<'_>) {
    let mut store = (subject.open)();
    let peers: Vec<_> = (0..5).map(|number| peer(number, number % 2 == 0)).collect();
    store.commit(&[Write::Put { slot: 1, peer: &peers[0] }, Write::Put { slot: 1, peer: &peers[1] }]).unwrap();
    store.commit(&[Write::Put { slot: 1, peer: &peers[2] }, Write::Ceiling(8), Write::Ceiling(9)]).unwrap();
    store.commit(&[Write::Put { slot: 2, peer: &peers[3] }, Write::Remove { slot: 2 }]).unwrap();
    drop(store);
    let (found, ceiling) = contents(&mut *(subject.open)());
    if subject.keeps {
        assert_eq!(found.get(&1), Some(&peers[2]));
        assert!(!found.contains_key(&2));
        assert_eq!(ceiling, 9);
    }
}

fn a_large_batch_is_written_whole(subject: &Subject<'_>) {
    let peers: Vec<_> = (0..3_000).map(|number| peer(number, true)).collect();
    let batch: Vec<_> = peers.iter().zip(0..).map(|(peer, slot)| Write::Put { slot, peer }).collect();
    let mut store = (subject.open)();
    store.commit(&batch).unwrap();
    drop(store);
    assert_eq!(contents(&mut *(subject.open)()).0.len(), if subject.keeps { peers.len() } else { 0 });
}

fn conforms(new: impl Fn(&Path) -> Box<dyn Store>, keeps: bool) {
    for check in [
        a_new_store_is_empty,
        what_was_committed_is_there_when_opened_again,
        the_latest_write_of_a_slot_counts_within_a_batch_and_between_batches,
        a_large_batch_is_written_whole,
    ] {
        let folder = tempfile::tempdir().unwrap();
        check(&Subject { open: Box::new(|| new(folder.path())), keeps });
    }
}

#[test]
fn the_embedded_store_conforms() {
    conforms(|folder| Box::new(Embedded::open(folder).unwrap()), true);
}

#[test]
fn the_memory_store_conforms() {
    conforms(|_| Box::new(Memory), false);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let mut junk = vec![0; 100_000];
    junk.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte = at.to_le_bytes()[0]);
    for content in [b"not a database\n".to_vec(), junk] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(super::FILE_NAME);
        fs::write(&path, &content).unwrap();
        let error = Embedded::open(folder.path()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.hint().contains("move it away"), "{}", error.hint());
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_damaged_file_is_refused_or_repaired_but_never_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let peers: Vec<_> = (0..500).map(|number| peer(number, true)).collect();
    let batch: Vec<_> = peers.iter().zip(0..).map(|(peer, slot)| Write::Put { slot, peer }).collect();
    Embedded::open(folder.path()).unwrap().commit(&batch).unwrap();
    let path = folder.path().join(super::FILE_NAME);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, &damaged).unwrap();
        let opened = std::panic::catch_unwind(|| {
            let mut found = 0;
            let loaded = Embedded::open(folder.path()).and_then(|mut store| {
                store.load(&mut |_, _| {
                    found += 1;
                    Ok(())
                })
            });
            loaded.map(|_| found)
        });
        match opened.expect("an error, not a panic") {
            Ok(found) => assert_eq!(found, peers.len(), "damage at {at} lost records in silence"),
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
    let database = redb::Database::open(folder.path().join(super::FILE_NAME)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<&str, u64>::new("numbers")).unwrap().insert("schema", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Embedded::open(folder.path()).err(), Some(StoreError::Newer { found: 99, .. })));
}

#[test]
fn cookies_are_kept_hashed_only() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = Cookie::generate().unwrap();
    let kept = Peer { cookie: cookie.hash(), ..peer(1, true) };
    Embedded::open(folder.path()).unwrap().commit(&[Write::Put { slot: 0, peer: &kept }]).unwrap();
    let file = fs::read(folder.path().join(super::FILE_NAME)).unwrap();
    let hash: CookieHash = cookie.hash();
    assert!(file.windows(16).any(|bytes| bytes == hash.as_bytes()));
    let secret = cookie.reveal();
    let raw: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
    assert!(!file.windows(16).any(|bytes| bytes == raw) && !file.windows(32).any(|bytes| bytes == secret.as_bytes()));
}
