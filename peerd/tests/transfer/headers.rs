//! Holders with invalid or false headers.

use super::*;
use crate::support::document::header;
use bytes::Bytes;
use p2pdi::v1::{GetRfcHeader, get_rfc_response::Part};

/// Fetches from a holder that tampers with its header, first alone, then together with an honest one. Returns why it was dropped.
async fn fetch_tampered(
    sample: &Sample,
    wanted: &DocumentSelector,
    tamper: impl Fn(&mut GetRfcHeader) + Clone + Send + Sync + 'static,
) -> String {
    let liar = Holder::tampering(sample, move |_, mut messages| {
        if let Some(Part::Header(header)) = &mut messages[0].part {
            tamper(header);
        }
        messages
    })
    .await;
    let target = Target::new();
    let error = target.fetch(wanted, vec![liar.source("liar")]).await.unwrap_err();
    let text = error.to_string();
    let FetchError::Sources { sources, kept_bytes: 0, .. } = error else { panic!("{text}") };
    let why = dropped(&sources, "liar").to_owned();
    assert!(text.contains("liar") && text.contains(&why), "{text}");
    assert_eq!(target.files(), []);
    assert_eq!(liar.requests().len(), 1, "a malicious holder is asked once");

    let honest = Holder::honest(sample).await;
    let fetched = target.fetch(wanted, vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(sample);
    assert_eq!(dropped(&fetched.sources, "liar"), why);
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    why
}

async fn bent_document(
    wanted: &DocumentSelector,
    tamper: impl Fn(&mut p2pdi::v1::Document) + Clone + Send + Sync + 'static,
) -> String {
    fetch_tampered(&Sample::rfc48(3), wanted, move |header| tamper(header.document.as_mut().unwrap())).await
}

#[tokio::test]
async fn names_that_lead_outside_the_folder_are_refused() {
    let wanted = hash(&Sample::rfc48(3));
    for name in
        ["../rfc48.txt", "a/../../rfc48.txt", "/tmp/rfc48.txt", "..\\rfc48.txt", "C:rfc48.txt", "rfc\n48.txt", "a\0b", "", "."]
    {
        let why = bent_document(&wanted, move |document| document.name = name.into()).await;
        assert!(why.starts_with("sent an invalid header: name: document name"), "{why}");
        assert!(!why.contains('\n') && !why.contains('\0'), "{why:?}");
    }
    for name in [".ssh/authorized_keys", ".bashrc", "a//b", "a/", "\u{202e}txt.exe"] {
        bent_document(&wanted, move |document| document.name = name.into()).await;
    }
    let long = "n".repeat(2000);
    let why = bent_document(&wanted, move |document| document.name.clone_from(&long)).await;
    assert!(why.len() < 300, "{why}");
}

#[tokio::test]
async fn piece_hashes_must_merge_to_the_hash_and_match_the_number_of_pieces() {
    let sample = Sample::rfc48(3);
    let joined = sample.hashes.joined();
    let mut swapped = joined.to_vec();
    swapped.rotate_left(32);
    let mut more = joined.to_vec();
    more.extend([0; 32]);
    for (hashes, expected) in [
        (swapped, "merge to"),
        (vec![0; 96], "merge to"),
        (more, "128 bytes of piece hashes"),
        (joined[..64].to_vec(), "64 bytes of piece hashes"),
        (joined[..95].to_vec(), "95 bytes of piece hashes"),
        (Vec::new(), "0 bytes of piece hashes"),
    ] {
        let hashes = Bytes::from(hashes);
        let why = fetch_tampered(&sample, &hash(&sample), move |header| header.piece_hashes = hashes.clone()).await;
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn the_piece_size_follows_from_the_size() {
    let sample = Sample::rfc48(3);
    for piece_size in [0, 1, 128 * 1024, 512 * 1024, u64::MAX] {
        let why = fetch_tampered(&sample, &hash(&sample), move |header| header.piece_size = piece_size).await;
        assert!(why.contains("in pieces of"), "{why}");
    }
}

#[tokio::test]
async fn the_range_served_is_the_one_asked_for() {
    let sample = Sample::rfc48(3);
    fetch_tampered(&sample, &hash(&sample), |header| header.offset = 1).await;
    for length in [0, 1, u64::MAX] {
        fetch_tampered(&sample, &hash(&sample), move |header| header.served_length = length).await;
    }
    fetch_tampered(&sample, &hash(&sample), |header| header.document = None).await;
}

#[tokio::test]
async fn a_document_that_was_not_asked_for_is_refused() {
    let other = || Sample::new("rfc49.txt", 49, b"another".to_vec());
    for wanted in [DocumentSelector::Number(48), DocumentSelector::Name("RFC48.txt".parse_name()), hash(&Sample::rfc48(3))] {
        let sample = Sample::rfc48(3);
        let liar = Holder::start(move |_, request| crate::support::holder::sending(other().answer(request))).await;
        let honest = Holder::honest(&sample).await;
        let target = Target::new();
        let fetched = target.fetch(&wanted, vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
        assert!(dropped(&fetched.sources, "liar").contains("answered with rfc49.txt instead of"), "{:?}", fetched.sources);
        target.assert_holds_only(&sample);
    }
}

#[tokio::test]
async fn impossible_sizes_are_refused_before_anything_is_written() {
    let wanted = hash(&Sample::rfc48(3));
    for size in [u64::MAX, i64::MAX as u64, 100 << 40] {
        let why = bent_document(&wanted, move |document| document.size = size).await;
        assert!(why.contains("size:"), "{why}");
    }
    // A possible size, with the hashes of another.
    let why = bent_document(&wanted, |document| document.size = 1).await;
    assert!(why.contains("pieces of") || why.contains("bytes"), "{why}");
}

#[tokio::test]
async fn a_document_larger_than_any_disk_is_refused_before_anything_is_written() {
    // The piece hashes of 20 TB merge to a hash, so the header is valid; no disk here has the space.
    let size: u64 = 20 << 40;
    let pieces = p2pdi::content::Pieces::of_size(size).unwrap();
    let joined: Bytes = crate::support::bytes(pieces.count() * 32).into();
    let merged = match p2pdi::content::PieceHashes::verified(pieces, &joined, &ContentHash::of(b"")).unwrap_err() {
        p2pdi::content::PieceHashesError::Mismatch { merged, .. } => merged,
        other => panic!("{other}"),
    };
    let liar = Holder::start(move |_, _| {
        let document =
            p2pdi::v1::Document { name: "rfc48.txt".into(), number: 48, size, blake3: merged.to_field(), ..Default::default() };
        let tampered = GetRfcHeader {
            document: Some(document),
            piece_size: pieces.piece_size(),
            piece_hashes: joined.clone(),
            offset: 0,
            served_length: size,
        };
        crate::support::holder::sending(vec![header(tampered)])
    })
    .await;
    let target = Target::new();
    let error = target.fetch(&DocumentSelector::Number(48), vec![liar.source("liar")]).await.unwrap_err();
    assert!(error.to_string().contains("not enough space for rfc48.txt"), "{error}");
    target.assert_nothing_visible();
    for (name, data) in target.files() {
        assert!(data.is_empty(), "{name}");
    }
    // Asked by hash, the malicious holder cannot choose the document.
    let sample = Sample::rfc48(2);
    let honest = Holder::honest(&sample).await;
    let fetched = target.fetch(&hash(&sample), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    assert!(dropped(&fetched.sources, "liar").contains("instead of"));
    assert_eq!(target.visible().len(), 1);
}

#[tokio::test]
async fn oversized_titles_and_hashes_of_odd_lengths_are_refused() {
    let wanted = hash(&Sample::rfc48(3));
    // More than a message may have: the stream itself fails.
    bent_document(&wanted, |document| document.title = "t".repeat(10 << 20)).await;
    let why = bent_document(&wanted, |document| document.title = "t".repeat(600)).await;
    assert!(why.contains("title: 600 bytes long"), "{why}");
    for length in [0, 31, 33] {
        let why = bent_document(&wanted, move |document| document.blake3 = vec![1; length].into()).await;
        assert!(why.contains("blake3"), "{why}");
    }
}

#[tokio::test]
async fn a_title_with_terminal_controls_arrives_without_them() {
    let sample = Sample::rfc48(1);
    let liar = Holder::tampering(&sample, |_, mut messages| {
        if let Some(Part::Header(header)) = &mut messages[0].part {
            header.document.as_mut().unwrap().title = "\u{1b}[2Jgone\u{7}".into();
        }
        messages
    })
    .await;
    let target = Target::new();
    let fetched = target.fetch(&hash(&sample), vec![liar.source("liar")]).await.unwrap();
    assert_eq!(fetched.document.title, " [2Jgone ");
}

#[tokio::test]
async fn a_holder_that_sends_wrong_bytes_does_not_decide_which_document_is_fetched() {
    // A valid header with consistent but invented hashes, and bytes that do not match them.
    let forged = Sample::new("rfc48.txt", 48, crate::support::bytes(700_000));
    let liar = Holder::tampering(&forged, |_, mut messages| {
        for message in &mut messages {
            if let Some(Part::Chunk(chunk)) = &mut message.part {
                chunk.data = vec![0; chunk.data.len()].into();
            }
        }
        messages
    })
    .await;
    let sample = Sample::rfc48(2);
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let fetched = target.fetch(&DocumentSelector::Number(48), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    assert!(dropped(&fetched.sources, "liar").starts_with("sent wrong bytes in piece "), "{:?}", fetched.sources);
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    target.assert_holds_only(&sample);
}

/// A valid name.
trait ParseName {
    fn parse_name(&self) -> p2pdi::document::DocumentName;
}

impl ParseName for str {
    fn parse_name(&self) -> p2pdi::document::DocumentName {
        p2pdi::document::DocumentName::parse(self).unwrap()
    }
}
