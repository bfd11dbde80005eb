//! Fetches that are interrupted and resumed.

use super::*;
use crate::support::{
    eventually,
    holder::{Step, sending},
    peer::Peer,
};
use std::os::unix::fs::FileExt as _;
use tonic::Status;

const PIECES: u64 = 8;

/// Sends the first `count` chunks of each answer, then `end`.
async fn quitter(sample: &Sample, count: usize, end: impl Fn() -> Step + Send + Sync + 'static) -> Holder {
    let sample = sample.clone();
    Holder::start(move |_, request| {
        let mut steps = sending(sample.answer(request));
        steps.truncate(1 + count);
        steps.push(end());
        steps
    })
    .await
}

#[tokio::test]
async fn a_fetch_whose_source_fails_is_resumed() {
    let sample = Sample::rfc48(PIECES);
    let gone = quitter(&sample, 5, || Step::Fail(Status::aborted("it changed"))).await;
    let target = Target::new();
    let error = target.fetch(&hash(&sample), vec![gone.source("gone")]).await.unwrap_err();
    let FetchError::Sources { kept_bytes, .. } = error else { panic!("{error}") };
    assert_eq!(kept_bytes, 5 * PIECE);
    target.assert_nothing_visible();

    let honest = Holder::honest(&sample).await;
    let fetched = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!((fetched.resumed_bytes, fetched.fetched_bytes), (5 * PIECE, sample.size() - 5 * PIECE));
    assert_eq!(asked_pieces(&honest), [5, 6, 7], "what is missing, and no more");
    assert_fetched_once(&target, &fetched, &sample, 0);
    assert!(kept(&fetched.sources, "honest") == fetched.fetched_bytes);
}

#[tokio::test]
async fn a_source_that_keeps_breaking_off_delivers_every_byte_once() {
    let sample = Sample::rfc48(PIECES);
    let flaky = quitter(&sample, 1, || Step::Fail(Status::unavailable("bad line"))).await;
    let target = Target::new();
    target.fetch(&hash(&sample), vec![flaky.source("flaky")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(flaky.sent_bytes(), sample.size());
    assert_eq!(flaky.requests().len() as u64, PIECES);
}

#[tokio::test]
async fn a_cancelled_fetch_is_resumed() {
    let sample = Sample::rfc48(PIECES);
    let staller = quitter(&sample, 4, || Step::Stall).await;
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let wanted = hash(&sample);
    tokio::select! {
        fetched = target.fetch(&wanted, vec![staller.source("staller")]) => panic!("{fetched:?}"),
        () = eventually("four pieces", async || (target.progress.verified() == 4 * PIECE).then_some(())) => {}
    }
    target.assert_nothing_visible();
    // Immediately: the cancelled fetch may still be closing its file.
    let fetched = target.fetch(&wanted, vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!((fetched.resumed_bytes, fetched.fetched_bytes), (4 * PIECE, sample.size() - 4 * PIECE));
}

#[tokio::test]
async fn a_large_cancelled_fetch_can_be_restarted_immediately() {
    // Enough data that the system is still writing it out when the fetch is cancelled.
    let sample = Sample::new("large.bin", 0, crate::support::bytes(80 << 20));
    let (honest, staller) = (Holder::honest(&sample).await, quitter(&sample, 4 * 66, || Step::Stall).await);
    let (target, wanted) = (Target::new(), hash(&sample));
    tokio::select! {
        fetched = target.fetch(&wanted, vec![staller.source("staller")]) => panic!("{fetched:?}"),
        () = eventually("most of it", async || (target.progress.verified() >= 65 << 20).then_some(())) => {}
    }
    let fetched = target.fetch(&wanted, vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert!(fetched.resumed_bytes >= 65 << 20, "{fetched:?}");
}

#[tokio::test]
async fn damaged_pieces_of_a_partial_file_are_fetched_again_and_only_those() {
    let sample = Sample::rfc48(PIECES);
    let gone = quitter(&sample, 6, || Step::Fail(Status::aborted("it changed"))).await;
    let target = Target::new();
    target.fetch(&hash(&sample), vec![gone.source("gone")]).await.unwrap_err();
    let file = fs::File::options().write(true).open(target.partial_path()).unwrap();
    file.write_all_at(b"!", PIECE + 9).unwrap();
    file.write_all_at(b"!", 5 * PIECE).unwrap();
    drop(file);
    let honest = Holder::honest(&sample).await;
    let fetched = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!((fetched.resumed_bytes, fetched.fetched_bytes), (4 * PIECE, sample.size() - 4 * PIECE));
    assert_eq!(asked_pieces(&honest), [1, 5, 6, 7], "what is missing, and no more");
    // The damaged ones arrived twice.
    assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
}

#[tokio::test]
async fn a_truncated_or_extended_partial_file_is_resumed() {
    for length in [0, 1, 3 * PIECE + 5, 100 * PIECE] {
        let sample = Sample::rfc48(PIECES);
        let gone = quitter(&sample, 6, || Step::Fail(Status::aborted("it changed"))).await;
        let target = Target::new();
        target.fetch(&hash(&sample), vec![gone.source("gone")]).await.unwrap_err();
        fs::File::options().write(true).open(target.partial_path()).unwrap().set_len(length).unwrap();
        let honest = Holder::honest(&sample).await;
        let fetched = target.fetch(&hash(&sample), vec![honest.source("honest")]).await.unwrap();
        target.assert_holds_only(&sample);
        assert_eq!(fetched.resumed_bytes, (length / PIECE).min(6) * PIECE);
    }
}

#[tokio::test]
async fn a_second_fetch_of_the_same_document_into_the_same_folder_is_refused() {
    let sample = Sample::rfc48(PIECES);
    let staller = quitter(&sample, 4, || Step::Stall).await;
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let wanted = hash(&sample);
    tokio::select! {
        fetched = target.fetch(&wanted, vec![staller.source("staller")]) => panic!("{fetched:?}"),
        () = async {
            eventually("four pieces", async || (target.progress.verified() == 4 * PIECE).then_some(())).await;
            let second = Target { progress: Arc::default(), out: target.out.clone(), ..Target::new() };
            let error = second.fetch(&wanted, vec![honest.source("honest")]).await.unwrap_err();
            assert!(error.to_string().starts_with("another fetch is writing "), "{error}");
        } => {}
    }
    target.fetch(&wanted, vec![honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    let again = target.fetch(&wanted, vec![honest.source("honest")]).await.unwrap();
    assert!(again.already_there && again.fetched_bytes == 0);
}

#[tokio::test]
async fn further_holders_are_searched_for_when_all_known_ones_failed() {
    let sample = Sample::rfc48(PIECES);
    let gone = quitter(&sample, 3, || Step::Fail(Status::aborted("it changed"))).await;
    let honest = Holder::honest(&sample).await;
    let finder = Arc::new(Finds { sources: vec![gone.source("gone"), honest.source("found")], ..Default::default() });
    let target = Target::new();
    let fetched = target.fetch_with(&DocumentSelector::Number(48), vec![gone.source("gone")], Arc::clone(&finder)).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(*finder.asked.lock().unwrap(), [sample.hash()]);
    assert_eq!(gone.requests().len(), 1, "found again, it stays dropped");
    assert_eq!(kept(&fetched.sources, "found"), sample.size() - 3 * PIECE);

    let target = Target::new();
    let finder = Arc::new(Finds { sources: vec![gone.source("gone")], ..Default::default() });
    target.fetch_with(&hash(&sample), vec![gone.source("gone")], Arc::clone(&finder)).await.unwrap_err();
    assert_eq!(finder.asked.lock().unwrap().len(), 1, "a search that finds only known holders is the last");
}

#[tokio::test]
async fn a_holder_that_stops_during_the_fetch_is_replaced() {
    let data = crate::support::bytes(6 << 20);
    let sample = Sample::new("large.bin", 0, data.clone());
    // Both so slow that both are still sending when one stops.
    let slow = |config: &mut peerd::config::NodeConfig| {
        config.upload_limit = Some(1 << 20);
        config.limits.grace = Duration::from_millis(1);
    };
    let first = Peer::configured(&[("large.bin", &data)], slow).await;
    let second = Peer::configured(&[("other name.bin", &data)], slow).await;
    let (target, wanted) = (Target::new(), hash(&sample));
    let sources = vec![first.source("first"), second.source("second")];
    let (fetched, _) = tokio::join!(target.fetch(&wanted, sources), async {
        eventually("a piece from the first", async || {
            let holders = target.progress.snapshot().holders;
            holders.iter().any(|holder| holder.source.label() == "first" && holder.bytes >= PIECE).then_some(())
        })
        .await;
        first.stop().await
    });
    let fetched = fetched.unwrap();
    target.assert_holds_only(&sample);
    assert!(fetched.sources.iter().all(|report| report.bytes >= PIECE), "{:?}", fetched.sources);
    let why = dropped(&fetched.sources, "first");
    assert!(!why.is_empty());
    // What the first one was sending when it stopped, and one piece asked for twice at the end.
    assert_fetched_once(&target, &fetched, &sample, 6 * PIECE);
    second.stop().await;
}
