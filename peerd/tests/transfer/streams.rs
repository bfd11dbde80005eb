//! Holders that fail or misbehave after the header.

use super::*;
use crate::support::{
    document::{chunk, header},
    holder::{Step, sending},
};
use p2pdi::v1::{GetRfcRequest, GetRfcResponse, get_rfc_response::Part};
use std::{sync::OnceLock, time::Instant};
use tonic::Status;

const PIECES: u64 = 5;

/// The answer with each chunk in two halves, so that one piece has an order.
fn in_halves(messages: Vec<GetRfcResponse>) -> Vec<GetRfcResponse> {
    let halves = |message: GetRfcResponse| match message.part {
        Some(Part::Chunk(mut first)) => {
            let second = first.data.split_off(first.data.len() / 2);
            let at = first.offset + first.data.len() as u64;
            vec![chunk(first.offset, first.data), chunk(at, second)]
        }
        _ => vec![message],
    };
    messages.into_iter().flat_map(halves).collect()
}

/// Fetches from a holder that tampers with the first piece of each of its answers, which have two chunks for each piece: first alone, then
/// together with an honest one. Returns why it was dropped.
async fn fetch_tampered(tamper: impl Fn(Vec<GetRfcResponse>) -> Vec<GetRfcResponse> + Clone + Send + Sync + 'static) -> String {
    let sample = Sample::rfc48(PIECES);
    let liar = Holder::tampering(&sample, move |_, messages| tamper(in_halves(messages))).await;
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
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    // What the document is, and for a piece; one more may have been on its way when the liar was caught.
    assert!(liar.requests().len() <= 1 + 3, "{:?}", liar.requests());
    dropped(&fetched.sources, "liar").to_owned()
}

#[tokio::test]
async fn a_wrong_byte_discards_its_piece_and_drops_its_sender() {
    const WRONG: u64 = 2;
    let sample = Sample::rfc48(PIECES);
    // When the wrong piece was asked for.
    let sent = Arc::new(OnceLock::new());
    let liar = Holder::tampering(&sample, {
        let sent = Arc::clone(&sent);
        move |request, mut messages| {
            for message in &mut messages {
                if let Some(Part::Chunk(chunk)) = &mut message.part
                    && chunk.offset == WRONG * PIECE
                {
                    let mut data = chunk.data.to_vec();
                    data[77] ^= 1;
                    chunk.data = data.into();
                    if request.length > 0 {
                        sent.get_or_init(Instant::now);
                    }
                }
            }
            messages
        }
    })
    .await;
    // Waits until the liar would have been asked again.
    let honest = Holder::start({
        let (sample, sent) = (sample.clone(), Arc::clone(&sent));
        move |_, request| {
            let sent = Arc::clone(&sent);
            let is_time = move || sent.get().is_some_and(|at| at.elapsed() > Duration::from_millis(1500));
            let mut steps = sending(sample.answer(request));
            steps.insert(0, Step::Until(Box::new(is_time)));
            steps
        }
    })
    .await;
    let target = Target::new();
    let fetched = target.fetch(&hash(&sample), vec![liar.source("liar"), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(dropped(&fetched.sources, "liar"), "sent wrong bytes in piece 2");
    // What it was asked for before it was caught.
    assert!(liar.requests().len() <= 4, "{:?}", liar.requests());
    let asks_for_wrong = |request: &&GetRfcRequest| request.length > 0 && sample.range(request).contains(&(WRONG * PIECE));
    assert_eq!(liar.requests().iter().filter(asks_for_wrong).count(), 1, "{:?}", liar.requests());
    // Its valid pieces count, and are not fetched again.
    assert!(fetched.sources[0].bytes >= PIECE, "{:?}", fetched.sources);
    assert_eq!(kept(&fetched.sources, "honest"), sample.size() - fetched.sources[0].bytes);
    assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
    assert_eq!(target.progress.verified(), sample.size());
}

#[tokio::test]
async fn chunks_with_gaps_overlaps_or_out_of_order_break_the_protocol() {
    let swap = |mut messages: Vec<GetRfcResponse>| {
        messages.swap(1, 2);
        messages
    };
    let why = fetch_tampered(swap).await;
    assert!(why.contains("broke the protocol: a chunk of"), "{why}");
    for shift in [-1, 1, i64::MIN] {
        let why = fetch_tampered(move |mut messages| {
            if let Some(Part::Chunk(chunk)) = &mut messages[1].part {
                chunk.offset = chunk.offset.wrapping_add_signed(shift);
            }
            messages
        })
        .await;
        assert!(why.contains("expected "), "{why}");
    }
    let twice = |mut messages: Vec<GetRfcResponse>| {
        messages.insert(2, messages[1].clone());
        messages
    };
    assert!(fetch_tampered(twice).await.contains("expected "));
    let empty = |mut messages: Vec<GetRfcResponse>| {
        messages.insert(1, chunk(0, ""));
        messages
    };
    assert!(fetch_tampered(empty).await.contains("a chunk of 0 bytes"));
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
async fn chunks_need_not_end_where_pieces_do() {
    const ODD: u64 = 100_003;
    let sample = Sample::rfc48(PIECES);
    let odd = || {
        let sample = sample.clone();
        Holder::start(move |_, request| {
            let range = sample.range(request);
            let mut messages = vec![header(sample.header(request))];
            messages.extend(range.clone().step_by(ODD as usize).map(|start| {
                let end = range.end.min(start + ODD);
                chunk(start, sample.data.slice(start as usize..end as usize))
            }));
            sending(messages)
        })
    };
    let (one, other) = (odd().await, odd().await);
    for sources in [vec![one.source("one")], vec![one.source("one"), other.source("other")]] {
        let target = Target::new();
        let fetched = target.fetch(&hash(&sample), sources).await.unwrap();
        target.assert_holds_only(&sample);
        assert!(fetched.sources.iter().all(|report| report.dropped.is_none()), "{:?}", fetched.sources);
        assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
    }
}

#[tokio::test]
async fn bytes_after_the_end_are_ignored() {
    let sample = Sample::rfc48(PIECES);
    let talkative = Holder::tampering(&sample, |_, mut messages| {
        messages.push(chunk(3 * PIECE / 2, "more"));
        messages
    })
    .await;
    let honest = Holder::honest(&sample).await;
    for sources in [vec![talkative.source("talkative")], vec![talkative.source("talkative"), honest.source("honest")]] {
        let target = Target::new();
        let fetched = target.fetch(&hash(&sample), sources).await.unwrap();
        target.assert_holds_only(&sample);
        assert!(kept(&fetched.sources, "talkative") > 0, "what it sent before is used");
        assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
    }
}

#[tokio::test]
async fn messages_in_the_wrong_place_break_the_protocol() {
    let why = fetch_tampered(|mut messages| {
        messages.remove(0);
        messages
    })
    .await;
    assert!(why.contains("a chunk before the header"), "{why}");
    let why = fetch_tampered(|mut messages| {
        messages.insert(2, messages[0].clone());
        messages
    })
    .await;
    assert!(why.contains("a second header"), "{why}");
    for at in [0, 2] {
        let why = fetch_tampered(move |mut messages| {
            messages.insert(at, GetRfcResponse { part: None });
            messages
        })
        .await;
        assert!(why.contains("an empty message"), "{why}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_and_not_the_fetch() {
    let why = fetch_tampered(|mut messages| {
        messages[1] = chunk(0, vec![0; 2 << 20]);
        messages
    })
    .await;
    assert!(why.contains("message length"), "{why}");
}

#[tokio::test]
async fn an_answer_with_another_document_to_a_request_for_pieces_is_refused() {
    let sample = Sample::rfc48(PIECES);
    let first = sample.clone();
    let other = Sample::new("rfc48.txt", 48, crate::support::bytes(sample.data.len() + 1));
    // It says what the document is, and then has it no more.
    let quitter = Holder::start(move |call, request| {
        let mut steps = if call == 0 { sending(first.answer(request)) } else { Vec::new() };
        steps.truncate(1);
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
    assert!(dropped(&fetched.sources, "quitter").contains("it is gone"), "{:?}", fetched.sources);
    assert!(dropped(&fetched.sources, "swapper").contains("another document"), "{:?}", fetched.sources);
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    assert_eq!(swapper.requests().len(), 1, "{:?}", swapper.requests());
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
