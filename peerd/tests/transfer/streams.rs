//! Holders that fail or misbehave after the header.

use super::*;
use crate::support::{
    document::{PIECE, chunk, header},
    holder::{Holder, Step, sending},
};
use p2pdi::v1::{GetRfcRequest, GetRfcResponse, get_rfc_response::Part};
use tonic::Status;

const PIECES: u64 = 5;

/// Fetches from a holder that tampers with its answers, first alone, then with an honest one behind it. Returns why the first was
/// dropped, and how many bytes the honest one sent.
async fn fetch_tampered(
    tamper: impl Fn(&GetRfcRequest, Vec<GetRfcResponse>) -> Vec<GetRfcResponse> + Clone + Send + Sync + 'static,
) -> (String, u64) {
    let sample = Sample::rfc48(PIECES);
    let liar = Holder::tampering(&sample, tamper).await;
    let target = Target::new();
    let error = target.fetch(&hash(&sample), vec![liar.source("liar")]).await.unwrap_err();
    assert!(error.to_string().contains("liar ("), "{error}");
    target.assert_nothing_visible();
    assert_eq!(liar.requests().len(), 1, "a malicious holder is asked once");

    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let fetched = target.fetch(&hash(&sample), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!((fetched.fetched_bytes, fetched.resumed_bytes), (sample.size(), 0));
    assert_eq!(liar.requests().len(), 2, "a malicious holder is asked once");
    (dropped(&fetched.sources, "liar").to_owned(), honest.sent_bytes())
}

#[tokio::test]
async fn a_wrong_byte_discards_its_piece_and_drops_its_sender() {
    let sample = Sample::rfc48(PIECES);
    let liar = Holder::tampering(&sample, |request, mut messages| {
        for message in &mut messages {
            if let Some(Part::Chunk(chunk)) = &mut message.part
                && (chunk.offset..chunk.offset + chunk.data.len() as u64).contains(&(2 * PIECE + 77))
            {
                let mut data = chunk.data.to_vec();
                data[(2 * PIECE + 77 - chunk.offset) as usize] ^= 1;
                chunk.data = data.into();
            }
        }
        assert!(!request.without_piece_hashes, "it is asked once");
        messages
    })
    .await;
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let fetched = target.fetch(&hash(&sample), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(dropped(&fetched.sources, "liar"), "sent wrong bytes in piece 2");
    assert_eq!(liar.requests().len(), 1);
    // The two pieces before it were valid and are not fetched again.
    assert_eq!(kept(&fetched.sources, "honest"), sample.size() - 2 * PIECE);
    assert_eq!(honest.sent_bytes(), sample.size() - 2 * PIECE);
    assert_eq!(fetched.sources[0].bytes, 2 * PIECE);
    assert_eq!(target.progress.verified(), sample.size());
}

#[tokio::test]
async fn chunks_with_gaps_overlaps_or_out_of_order_break_the_protocol() {
    let swap = |_: &GetRfcRequest, mut messages: Vec<GetRfcResponse>| {
        messages.swap(2, 3);
        messages
    };
    let (why, honest) = fetch_tampered(swap).await;
    assert!(why.contains("broke the protocol: a chunk of"), "{why}");
    assert_eq!(honest, (PIECES - 1) * PIECE - PIECE / 2, "one piece was received before the fault");
    for shift in [-1, 1, i64::MIN] {
        let (why, _) = fetch_tampered(move |_, mut messages| {
            if let Some(Part::Chunk(chunk)) = &mut messages[1].part {
                chunk.offset = chunk.offset.wrapping_add_signed(shift);
            }
            messages
        })
        .await;
        assert!(why.contains("expected "), "{why}");
    }
    let twice = |_: &GetRfcRequest, mut messages: Vec<GetRfcResponse>| {
        messages.insert(2, messages[1].clone());
        messages
    };
    assert!(fetch_tampered(twice).await.0.contains("expected "));
    let empty = |_: &GetRfcRequest, mut messages: Vec<GetRfcResponse>| {
        messages.insert(1, chunk(0, ""));
        messages
    };
    assert!(fetch_tampered(empty).await.0.contains("a chunk of 0 bytes"));
}

#[tokio::test]
async fn more_bytes_than_announced_break_the_protocol() {
    let sample = Sample::new("small.txt", 0, b"twelve bytes".to_vec());
    let liar = Holder::tampering(&sample, |_, mut messages| {
        messages[1] = chunk(0, "twelve bytes and more");
        messages
    })
    .await;
    let target = Target::new();
    let error = target.fetch(&hash(&sample), vec![liar.source("liar")]).await.unwrap_err();
    assert!(error.to_string().contains("more bytes than its header announces"), "{error}");
    target.assert_nothing_visible();
}

#[tokio::test]
async fn bytes_after_the_end_are_ignored() {
    let sample = Sample::rfc48(2);
    let liar = Holder::tampering(&sample, |_, mut messages| {
        messages.push(chunk(3 * PIECE / 2, "more"));
        messages
    })
    .await;
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    target.fetch(&hash(&sample), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(honest.sent_bytes(), 0, "every piece was verified");
}

#[tokio::test]
async fn messages_in_the_wrong_place_break_the_protocol() {
    let (why, _) = fetch_tampered(|_, mut messages| {
        messages.remove(0);
        messages
    })
    .await;
    assert!(why.contains("a chunk before the header"), "{why}");
    let (why, _) = fetch_tampered(|_, mut messages| {
        messages.insert(2, messages[0].clone());
        messages
    })
    .await;
    assert!(why.contains("a second header"), "{why}");
    for at in [0, 2] {
        let (why, _) = fetch_tampered(move |_, mut messages| {
            messages.insert(at, GetRfcResponse { part: None });
            messages
        })
        .await;
        assert!(why.contains("an empty message"), "{why}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_and_not_the_fetch() {
    let (why, _) = fetch_tampered(|_, mut messages| {
        messages[1] = chunk(0, vec![0; 2 << 20]);
        messages
    })
    .await;
    assert!(why.contains("message length"), "{why}");
}

#[tokio::test]
async fn an_answer_with_another_document_to_a_resumed_fetch_is_refused() {
    let sample = Sample::rfc48(PIECES);
    let first = sample.clone();
    let other = Sample::new("rfc48.txt", 48, crate::support::bytes(sample.data.len() + 1));
    let quitter = Holder::start(move |_, request| {
        let mut steps = sending(first.answer(request));
        steps.truncate(2);
        steps.push(Step::Fail(Status::not_found("it is gone")));
        steps
    })
    .await;
    let swapper = Holder::start(move |_, request| {
        let mut answer = other.answer(request);
        if let Some(Part::Header(header)) = &mut answer[0].part {
            header.piece_hashes = bytes::Bytes::new();
        }
        sending(answer)
    })
    .await;
    let honest = Holder::honest(&sample).await;
    let target = Target::new();
    let sources = vec![quitter.source("quitter"), swapper.source("swapper"), honest.source("honest")];
    let fetched = target.fetch(&DocumentSelector::Number(48), sources).await.unwrap();
    target.assert_holds_only(&sample);
    assert!(dropped(&fetched.sources, "quitter").contains("it is gone"));
    assert!(dropped(&fetched.sources, "swapper").contains("another document"));
    assert_eq!(honest.sent_bytes(), sample.size() - PIECE);
}

#[tokio::test]
async fn a_header_alone_is_an_early_end() {
    let sample = Sample::rfc48(2);
    let quitter = Holder::start({
        let sample = sample.clone();
        move |_, request| vec![Step::Send(header(sample.header(request)))]
    })
    .await;
    let silent = Holder::start(|_, _| Vec::new()).await;
    let target = Target::new();
    let error = target.fetch(&hash(&sample), vec![quitter.source("quitter"), silent.source("silent")]).await.unwrap_err();
    let text = error.to_string();
    let FetchError::Sources { sources, kept_bytes: 0, .. } = error else { panic!("{text}") };
    assert!(dropped(&sources, "quitter").contains("ended early: received 0 of"), "{text}");
    assert!(dropped(&sources, "silent").contains("ended early"), "{text}");
    target.assert_nothing_visible();
}
