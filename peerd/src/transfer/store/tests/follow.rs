//! Following the changes of a store.

use super::*;
use crate::transfer::store::piece_table::PieceChange;

#[tokio::test]
async fn a_slow_reader_misses_nothing_and_the_end_of_the_store_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(30 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    fill(&store, &data, 0..1);
    let mut changes = store.subscribe();
    assert_eq!(changes.verified(), &set(30, [0]));
    assert_eq!(changes.take(), None);
    for piece in [3, 20, 9] {
        fill(&store, &data, piece..piece + 1);
    }
    assert_eq!(changes.next().await, Some(PieceChange { verified: vec![3, 9, 20], ..Default::default() }));
    let writing = thread::spawn({
        let (store, data) = (Arc::clone(&store), data.clone());
        move || fill(&store, &data, 4..5)
    });
    assert_eq!(changes.next().await, Some(PieceChange { verified: vec![4], ..Default::default() }));
    writing.join().unwrap();
    fill(&store, &data, 5..6);
    drop(store);
    assert_eq!(changes.next().await, Some(PieceChange { verified: vec![5], ..Default::default() }));
    assert_eq!(changes.next().await, None);
    assert_eq!(changes.verified(), &set(30, [0, 3, 4, 5, 9, 20]));
}

#[tokio::test]
async fn the_results_of_checks_are_reported_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(40 * PIECE);
    let store = open(folder.path(), &data).unwrap();
    fill(&store, &data, 0..40);
    let path = store.path().to_owned();
    drop(store);
    write_all_at(&File::options().write(true).open(path).unwrap(), b"!", 7 * PIECE as u64).unwrap();
    let store = open_at_once(folder.path(), &data);
    let mut changes = store.subscribe();
    while !changes.pending().is_empty() {
        let before = changes.pending().clone();
        let change = changes.next().await.unwrap();
        assert!(change.verified.iter().chain(&change.missing).all(|piece| before.contains(*piece)), "{change:?}");
        assert!(change.lost.is_empty() && change.pending.is_empty());
    }
    assert_eq!(changes.verified(), &set(40, (0..40).filter(|piece| *piece != 7)));
}
