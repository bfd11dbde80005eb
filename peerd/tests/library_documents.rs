//! Documents of peers inside a program, through the public interface for embedders only.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of a test are small")]

mod support;

use p2pdi::v1::get_rfc_response::Part;
use peerd::{
    GetOptions, JobOptions, JobPriority, JobState, Peer, PeerError, RegistrationState,
    transfer::{PieceReader, STALL_TIMEOUT},
};
use std::{fs, path::Path};
use support::{bytes, document::Sample, eventually, holder::Holder, within};

/// A peer that shares a folder, and one that knows it.
async fn sharer_and_reader(folder: &Path) -> (Peer, Peer) {
    let sharer = Peer::builder("sharer").share(folder).build().await.unwrap();
    let reader = Peer::builder("reader").build().await.unwrap();
    within("what is shared", sharer.shared()).await;
    reader.join(sharer.endpoint()).await.unwrap();
    (sharer, reader)
}

#[tokio::test]
async fn documents_are_listed_fetched_with_progress_and_read_in_ranges() {
    let (shared, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(shared.path().join("models")).unwrap();
    let large = bytes(3_000_001);
    fs::write(shared.path().join("models/large.bin"), &large).unwrap();
    for number in 0..20 {
        fs::write(shared.path().join(format!("models/{number}.txt")), format!("Small text {number}\n")).unwrap();
    }
    let (_sharer, reader) = sharer_and_reader(shared.path()).await;

    let listed = reader.documents(Some("models/**"), &[]).await.unwrap();
    assert_eq!((listed.offers.len(), listed.answered), (21, 1));
    assert_eq!(reader.search("large", &["sharer".to_owned()]).await.unwrap().offers.len(), 1);

    let get = reader.get(["models/**"], GetOptions::new(out.path())).unwrap();
    within("the end of the fetch", get.ended()).await;
    let progress = get.progress();
    assert_eq!((progress.documents, progress.documents_done, progress.ended), (21, 21, true));
    assert_eq!((progress.bytes, progress.bytes_done), (progress.bytes, progress.bytes));
    let fetched = get.result().await.unwrap();
    assert_eq!(fetched.len(), 21);
    assert!(fetched.is_sorted_by_key(|one| one.document.name.clone()));
    assert_eq!(fs::read(out.path().join("models/large.bin")).unwrap(), large);

    let mut open = reader.open("models/large.bin", &[]).await.unwrap();
    assert_eq!(open.document().size(), large.len() as u64);
    let mut read = Vec::new();
    while read.len() < large.len() {
        let some = open.read_at(read.len() as u64, 700_000).await.unwrap();
        assert!(!some.is_empty() && some.len() <= 700_000);
        read.extend_from_slice(&some);
    }
    assert_eq!(read, large);
    assert_eq!(open.read_at(1_000_000, 10).await.unwrap(), &large[1_000_000..1_000_010]);
    assert!(open.read_at(large.len() as u64, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_without_a_folder_can_be_given_one_once() {
    let (shared, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(shared.path().join("a.txt"), "text").unwrap();
    let peer = Peer::builder("A").build().await.unwrap();
    assert!(within("an empty share", peer.shared()).await.is_empty());
    peer.share(shared.path()).await.unwrap();
    assert_eq!(within("what is shared", peer.shared()).await.len(), 1);
    peer.share(shared.path()).await.unwrap();
    let refused = peer.share(other.path()).await.unwrap_err().to_string();
    assert!(refused.contains("a peer shares one folder"), "{refused}");
    fs::write(shared.path().join("b.txt"), "more").unwrap();
    eventually("the new file", async || (peer.offered().len() == 2).then_some(())).await;
    assert!(!peer.pin("a.txt", true).await.unwrap());
    assert!(peer.pin("a.txt", true).await.unwrap());
}

#[tokio::test]
async fn a_job_fetches_into_the_share_and_is_listed_and_cancelled() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a.txt", "b.txt", "c.bin"] {
        fs::write(from.path().join(name), name).unwrap();
    }
    let modified = fs::metadata(from.path().join("a.txt")).unwrap().modified().unwrap();
    let (sharer, reader) = sharer_and_reader(from.path()).await;
    assert!(sharer.offered().iter().any(|document| document.modified == Some(modified)));
    assert_eq!(reader.registration().state, RegistrationState::None);
    let refused = reader.fetch(["a.txt"], JobOptions::default()).await.unwrap_err();
    assert!(matches!(refused, PeerError::Jobs(_)), "{refused}");
    reader.share(into.path()).await.unwrap();

    let options = JobOptions {
        exclude: vec!["*.bin".to_owned()],
        from: vec!["sharer".to_owned()],
        priority: JobPriority::High,
        ..JobOptions::default()
    };
    let mut job = reader.fetch(["*"], options).await.unwrap();
    let ended = within("the end of the job", job.ended()).await.unwrap();
    assert_eq!((ended.state, ended.priority, ended.documents, ended.documents_done), (JobState::Done, JobPriority::High, 2, 2));
    assert_eq!((ended.bytes, ended.bytes_done, ended.wanted.as_slice()), (10, 10, &["*".to_owned()][..]));
    let sources: Vec<_> = ended.sources.iter().map(|holder| (holder.name.as_deref(), holder.bytes)).collect();
    assert_eq!(sources, [(Some("sharer"), 10)]);
    assert!(ended.ended_at >= ended.created_at && ended.created_at.is_some());
    assert_eq!(fs::read_to_string(into.path().join("a.txt")).unwrap(), "a.txt");

    let waiting = reader.fetch(["absent.txt"], JobOptions::default()).await.unwrap();
    assert_eq!(reader.jobs().len(), 2);
    assert_eq!(reader.cancel_job(&waiting.id()).await.unwrap().state, JobState::Cancelled);
    assert_eq!(waiting.status().unwrap().state, JobState::Cancelled);
    assert!(matches!(reader.cancel_job("77").await, Err(PeerError::Jobs(_))));
    let invalid = reader.fetch(["["], JobOptions::default()).await.unwrap_err();
    assert!(matches!(invalid, PeerError::Invalid(_)), "{invalid}");
}

#[tokio::test]
async fn what_nobody_has_and_what_differs_is_told_apart() {
    let (one, two, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("a.txt"), "one").unwrap();
    fs::write(two.path().join("a.txt"), "two").unwrap();
    let (first, reader) = sharer_and_reader(one.path()).await;
    let second = Peer::builder("second").share(two.path()).build().await.unwrap();
    within("what is shared", second.shared()).await;
    reader.join(second.endpoint()).await.unwrap();

    let found = reader.find_document("nothing.txt", &[]).await;
    assert!(matches!(&found, Err(PeerError::NotFound(why)) if why.contains("nobody has nothing.txt")), "{found:?}");
    let get = reader.get(["none*"], GetOptions::new(out.path())).unwrap();
    assert!(matches!(get.result().await, Err(PeerError::NotFound(_))));
    let found = reader.find_document("a.txt", &[]).await;
    assert!(matches!(&found, Err(PeerError::Ambiguous(why)) if why.contains("2 different documents")), "{found:?}");
    let found = reader.find_document("a.txt", &["second".to_owned()]).await.unwrap();
    assert_eq!(found.document.size(), 3);
    let get = reader.get(["a.txt"], GetOptions { from: vec!["second".to_owned()], ..GetOptions::new(out.path()) }).unwrap();
    assert_eq!(fs::read(&get.result().await.unwrap()[0].path).unwrap(), b"two");
    let get = reader.get(["a.txt"], GetOptions { from: vec!["sharer".to_owned()], ..GetOptions::new(out.path()) }).unwrap();
    let exists = get.result().await.unwrap_err().to_string();
    assert!(exists.contains("exists with other content"), "{exists}");
    within("its end", first.shutdown()).await.unwrap();
}

#[tokio::test]
async fn messages_are_read_until_the_peer_stops() {
    let (a, b) = (Peer::builder("A").build().await.unwrap(), Peer::builder("B").build().await.unwrap());
    let mut messages = b.messages(&["text"]).unwrap();
    a.join(b.endpoint()).await.unwrap();
    assert!(a.whisper("B", "NEWS", "x").await.unwrap().unclaimed);
    a.whisper("B", "text", "one").await.unwrap();
    messages.widen();
    a.whisper("B", "NEWS", "two").await.unwrap();
    assert_eq!((b.message_counts().received, b.message_counts().unclaimed), (3, 1));
    for expected in ["one", "two"] {
        assert_eq!(within("a message", messages.next()).await.unwrap().0.text(), expected);
    }
    within("its end", b.shutdown()).await.unwrap();
    assert!(within("the end", messages.next()).await.is_none());
}

#[tokio::test]
async fn who_sent_wrong_bytes_is_named_with_the_piece_and_none_of_them_is_read() {
    let (sample, out) = (Sample::rfc48(4), tempfile::tempdir().unwrap());
    let wrong = 2 * 256 * 1024;
    let liar = Holder::tampering(&sample, move |_, mut messages| {
        for message in &mut messages {
            if let Some(Part::Chunk(chunk)) = &mut message.part
                && chunk.offset == wrong
            {
                let mut data = chunk.data.to_vec();
                data[77] ^= 1;
                chunk.data = data.into();
            }
        }
        messages
    })
    .await;
    let honest = Holder::honest(&sample).await;
    let reader = Peer::builder("reader").build().await.unwrap();
    let document = sample.document().try_into().unwrap();
    let open = async |sources| {
        let channels = reader.node().channels().clone();
        PieceReader::open(channels, Clone::clone(&document), sources, reader.id(), STALL_TIMEOUT).await.unwrap()
    };
    let mut from_liar = open(vec![liar.source("liar")]).await;
    assert_eq!(from_liar.read_at(0, 1_000).await.unwrap().len(), 1_000);
    let error = PeerError::from(from_liar.read_at(wrong, 1_000).await.unwrap_err());
    assert_eq!(error.corrupt(), Some(("liar".to_owned(), 2)), "{error}");
    // Somebody else has it.
    let mut from_both = open(vec![liar.source("liar"), honest.source("honest")]).await;
    assert_eq!(from_both.read_at(wrong, 1_000).await.unwrap().len(), 1_000);
    assert_eq!(from_both.sources()[0].wrong_piece(), Some(2));

    let options = GetOptions { from: vec![liar.address.to_string()], ..GetOptions::new(out.path()) };
    let get = reader.get([format!("b3:{}", sample.hash())], options).unwrap();
    let error = within("the end of the fetch", get.result()).await.unwrap_err();
    assert_eq!(error.corrupt(), Some((liar.address.to_string(), 2)), "{error}");
}

#[tokio::test]
async fn a_folder_that_is_shared_again_waits_for_what_is_new_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.txt"), "old").unwrap();
    let peer = Peer::builder("sharer").build().await.unwrap();
    for (number, name) in ["old.txt", "new.txt", "newer.txt"].into_iter().enumerate() {
        fs::write(folder.path().join(name), name).unwrap();
        peer.share(folder.path()).await.unwrap();
        let shared = within("what is shared", peer.shared()).await;
        assert_eq!(shared.len(), number + 1, "{name} is not there yet");
    }
}
