//! RFCQuery on the peer's own share.

use super::*;
use crate::support::{
    eventually,
    peer::{self, Peer},
    within,
};
use p2pdi::{
    content::ContentHash,
    v1::{Holding, RfcQueryRequest, RfcQueryResponse},
};
use prost::Message as _;
use std::{collections::BTreeSet, fs};

async fn messages(peer: &Peer, request: RfcQueryRequest) -> Result<Vec<RfcQueryResponse>, Status> {
    let mut stream = within("an answer", peer.client().rfc_query(request)).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = within("a batch", stream.message()).await? {
        messages.push(message);
    }
    Ok(messages)
}

async fn query(peer: &Peer, request: RfcQueryRequest) -> Vec<Holding> {
    messages(peer, request).await.unwrap().into_iter().flat_map(|message| message.holdings).collect()
}

async fn names(peer: &Peer, request: RfcQueryRequest) -> Vec<String> {
    let mut names: Vec<_> = query(peer, request).await.into_iter().map(|holding| holding.document.unwrap().name).collect();
    names.sort();
    names
}

const FILES: [(&str, &[u8]); 4] =
    [SMALL, ("sub/rfc48.html", b"<title>RFC 48</title>"), ("rfc1.txt", b"Host Software\n"), ("notes.txt", b"notes")];

fn any() -> RfcQueryRequest {
    RfcQueryRequest::default()
}

#[tokio::test]
async fn a_document_must_match_all_filters() {
    let peer = Peer::sharing(&FILES).await;
    assert_eq!(names(&peer, any()).await, ["notes.txt", "rfc1.txt", "rfc48.txt", "sub/rfc48.html"]);
    assert_eq!(names(&peer, RfcQueryRequest { number: 48, ..any() }).await, ["rfc48.txt", "sub/rfc48.html"]);
    assert_eq!(names(&peer, RfcQueryRequest { name: "SUB/rfc48.HTML".into(), ..any() }).await, ["sub/rfc48.html"]);
    let hash = ContentHash::of(b"notes").to_field();
    assert_eq!(names(&peer, RfcQueryRequest { blake3: hash.clone(), ..any() }).await, ["notes.txt"]);
    assert!(names(&peer, RfcQueryRequest { blake3: hash, number: 48, ..any() }).await.is_empty());
    assert!(names(&peer, RfcQueryRequest { number: u32::MAX, ..any() }).await.is_empty());
    assert_eq!(names(&peer, RfcQueryRequest { title: "NOTES".into(), ..any() }).await, ["notes.txt"]);
    assert!(names(&peer, RfcQueryRequest { title: "notes nowhere".into(), ..any() }).await.is_empty());
    assert_eq!(names(&peer, RfcQueryRequest { number: 48, name: "rfc48.txt".into(), ..any() }).await, ["rfc48.txt"]);
    assert_eq!(names(&peer, RfcQueryRequest { limit: 3, ..any() }).await.len(), 3);
    assert_eq!(names(&peer, RfcQueryRequest { limit: u32::MAX, own_only: true, ..any() }).await.len(), 4);
}

#[tokio::test]
async fn a_pattern_selects_by_name_and_words_by_name_and_title() {
    let peer = Peer::sharing(&FILES).await;
    let pattern = |pattern: &str| RfcQueryRequest { pattern: pattern.into(), ..any() };
    assert_eq!(names(&peer, pattern("/RFC*")).await, ["rfc1.txt", "rfc48.txt"]);
    assert_eq!(names(&peer, pattern("**/rfc48.*")).await, ["rfc48.txt", "sub/rfc48.html"]);
    assert_eq!(names(&peer, RfcQueryRequest { number: 48, ..pattern("sub/*") }).await, ["sub/rfc48.html"]);
    let words = |words: &str| RfcQueryRequest { words: words.into(), ..any() };
    let peer = Peer::sharing(&[("plan/a.html", b"<title>Quarterly report</title>"), SMALL]).await;
    assert_eq!(names(&peer, words("REPORT plan/A.html")).await, ["plan/a.html"]);
    assert!(names(&peer, words("report rfc48")).await.is_empty());
}

#[tokio::test]
async fn a_name_in_another_case_is_the_same_name_for_queries_and_fetches() {
    let peer = Peer::sharing(&[("Über.txt", b"over"), ("ΟΔΟΣ.txt", b"road")]).await;
    for (asked, name) in [("über.txt", "Über.txt"), ("u\u{308}ber.TXT", "Über.txt"), ("οδος.txt", "ΟΔΟΣ.txt")] {
        assert_eq!(names(&peer, RfcQueryRequest { name: asked.into(), ..any() }).await, [name]);
        let (header, _) = within("an answer", peer::get(&mut peer.client(), peer::by_name(asked))).await.unwrap();
        assert_eq!(header.document.unwrap().name, name);
    }
}

#[tokio::test]
async fn the_peer_is_the_holder_of_its_own_documents() {
    let peer = Peer::sharing(&FILES).await;
    for holding in query(&peer, any()).await {
        let [holder] = holding.holders.as_slice() else { panic!("{holding:?}") };
        assert_eq!(holder.endpoint, peer.address.to_string());
        assert_eq!(holder.peer_name, "sharer");
        assert_eq!(holder.peer_id, peer.handle.identity().id().to_field());
        assert_eq!(holder.age, Some(prost_types::Duration::default()));
    }
}

#[tokio::test]
async fn an_unchanged_index_is_reported_as_unchanged_until_it_changes() {
    let peer = Peer::sharing(&FILES).await;
    let version = messages(&peer, any()).await.unwrap()[0].version;
    assert_ne!(version, 0);
    let again = messages(&peer, RfcQueryRequest { if_version: version, ..any() }).await.unwrap();
    assert_eq!(again, [RfcQueryResponse { version, unchanged: true, complete: true, ..Default::default() }]);
    // Neither an older nor a newer version counts as unchanged.
    for other in [1, version - 1, version + 1, u64::MAX] {
        let answer = messages(&peer, RfcQueryRequest { if_version: other, ..any() }).await.unwrap();
        assert!(!answer[0].unchanged && answer[0].holdings.len() == 4);
    }
    fs::write(peer.share().join("new.txt"), "new").unwrap();
    let changed = eventually("the change", async || {
        let answer = messages(&peer, RfcQueryRequest { if_version: version, ..any() }).await.unwrap();
        (!answer[0].unchanged).then_some(answer)
    })
    .await;
    assert!(changed[0].version > version && changed[0].holdings.len() == 5);
}

#[tokio::test]
async fn an_empty_answer_is_one_message() {
    let peer = Peer::sharing(&[]).await;
    let answer = messages(&peer, any()).await.unwrap();
    assert_eq!(answer.len(), 1);
    assert!(answer[0].holdings.is_empty() && !answer[0].unchanged);
}

#[tokio::test]
async fn many_documents_are_sent_in_batches_of_one_version() {
    const COUNT: usize = 5_000;
    let files: Vec<(String, String)> = (1..=COUNT).map(|n| (format!("rfc{n}.txt"), format!("text {n}"))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let peer = Peer::sharing(&files).await;
    let answer = messages(&peer, any()).await.unwrap();
    assert!(answer.len() > 2, "{} messages", answer.len());
    assert!(answer.iter().all(|message| message.version == answer[0].version && !message.unchanged));
    for message in &answer {
        assert!(message.encoded_len() < 256 * 1024 && !message.holdings.is_empty());
    }
    let numbers: BTreeSet<u32> =
        answer.iter().flat_map(|message| &message.holdings).map(|holding| holding.document.as_ref().unwrap().number).collect();
    assert_eq!(numbers.len(), COUNT);
    assert_eq!(query(&peer, RfcQueryRequest { limit: 7, ..any() }).await.len(), 7);
    assert_eq!(query(&peer, RfcQueryRequest { number: 4711, ..any() }).await.len(), 1);
}

#[tokio::test]
async fn invalid_filters_are_refused_with_the_field() {
    let peer = Peer::sharing(&FILES).await;
    invalid(messages(&peer, RfcQueryRequest { title: "t".repeat(257), ..any() }).await, "title");
    for name in ["..", "/etc/passwd", "a\\b", "a\0b", &"n".repeat(2000)] {
        invalid(messages(&peer, RfcQueryRequest { name: name.into(), ..any() }).await, "name");
    }
    for pattern in ["[a", "a\\", &"p".repeat(2000)] {
        invalid(messages(&peer, RfcQueryRequest { pattern: pattern.into(), ..any() }).await, "pattern");
    }
    invalid(messages(&peer, RfcQueryRequest { words: "w".repeat(257), ..any() }).await, "words");
    for length in [1, 31, 33, 1000] {
        invalid(messages(&peer, RfcQueryRequest { blake3: vec![1; length].into(), ..any() }).await, "blake3");
    }
    let status = messages(&peer, RfcQueryRequest { title: "t".repeat(10 << 20), ..any() }).await.unwrap_err();
    assert!(status.message().contains("message length too large"), "{status:?}");
    assert_eq!(query(&peer, any()).await.len(), 4);
}
