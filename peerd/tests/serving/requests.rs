//! GetRFC with all kinds of ranges and names.

use super::*;
use crate::support::peer::{Peer, by_name, by_number, get};
use p2pdi::{
    content::ContentHash,
    v1::{GetRfcRequest, get_rfc_request::Document as DocumentSelector},
};

#[tokio::test]
async fn ranges_within_the_document_are_served() {
    let data = support::bytes(1_000_000);
    let peer = Peer::sharing(&[("doc.bin", &data), SMALL]).await;
    let mut client = peer.client();
    for (offset, length, expected) in [
        (0, 0, 0..1_000_000),
        (0, 1, 0..1),
        (1, 262_144, 1..262_145),
        (262_143, 2, 262_143..262_145),
        (999_999, 1, 999_999..1_000_000),
        (999_999, 0, 999_999..1_000_000),
        (0, 1_000_000, 0..1_000_000),
        (1_000_000, 0, 1_000_000..1_000_000),
    ] {
        let (header, got) = get(&mut client, GetRfcRequest { offset, length, ..by_name("doc.bin") }).await.unwrap();
        assert!(got == data[expected.clone()], "{offset}+{length}");
        assert_eq!((header.offset, header.served_length), (expected.start as u64, expected.len() as u64));
        assert_eq!(header.document.unwrap().blake3, ContentHash::of(&data).to_field());
        assert_eq!((header.piece_size, header.piece_hashes.len()), (262_144, 4 * 32));
    }
    let bare = GetRfcRequest { without_piece_hashes: true, length: 1, ..by_name("doc.bin") };
    assert!(get(&mut client, bare).await.unwrap().0.piece_hashes.is_empty());
}

#[tokio::test]
async fn ranges_beyond_the_end_are_refused_with_the_size() {
    let peer = Peer::sharing(&[SMALL]).await;
    let mut client = peer.client();
    let size = SMALL.1.len() as u64;
    for (offset, length) in [
        (size + 1, 0),
        (u64::MAX, 0),
        (0, size + 1),
        (size, 1),
        (1, size),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
        (u64::MAX, 1),
        (0, u64::MAX),
    ] {
        let request = GetRfcRequest { offset, length, ..by_number(48) };
        let status = refused(get(&mut client, request).await, Reason::RangeBeyondEnd);
        assert_eq!(status::metadata(&status, "size"), Some(size.to_string()));
        assert!(status.message().contains(&size.to_string()), "{}", status.message());
    }
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test]
async fn an_empty_document_is_served_as_a_header_only() {
    let peer = Peer::sharing(&[("empty", b"")]).await;
    let (header, data) = get(&mut peer.client(), by_name("empty")).await.unwrap();
    assert_eq!((header.served_length, data.len()), (0, 0));
    assert_eq!(header.piece_hashes, ContentHash::of(b"").to_field());
    let request = GetRfcRequest { length: 1, ..by_name("empty") };
    refused(get(&mut peer.client(), request).await, Reason::RangeBeyondEnd);
}

#[tokio::test]
async fn documents_are_found_by_number_name_and_hash() {
    let peer = Peer::sharing(&[SMALL]).await;
    let mut client = peer.client();
    let hash =
        |hash: ContentHash| GetRfcRequest { document: Some(DocumentSelector::Blake3(hash.to_field())), ..Default::default() };
    for request in [by_number(48), by_name("RFC48.TXT"), hash(ContentHash::of(SMALL.1))] {
        assert_eq!(get(&mut client, request).await.unwrap().1, SMALL.1);
    }
    for (request, expected) in [
        (by_number(49), "RFC 49"),
        (by_number(u32::MAX), "RFC 4294967295"),
        (by_name("rfc48.txt.txt"), "rfc48.txt.txt"),
        (by_name("sub/rfc48.txt"), "sub/rfc48.txt"),
        (hash(ContentHash::of(b"")), "b3:af1349"),
    ] {
        let status = refused(get(&mut client, request).await, Reason::DocumentUnknown);
        assert!(status.message().contains("sharer") && status.message().contains(expected), "{}", status.message());
    }
}

#[tokio::test]
async fn invalid_selectors_are_refused_with_the_field() {
    let peer = Peer::sharing(&[SMALL]).await;
    let mut client = peer.client();
    invalid(get(&mut client, by_number(0)).await, "number");
    invalid(get(&mut client, GetRfcRequest::default()).await, "document");
    let long = "x/".repeat(5000);
    for name in ["", "..", "../rfc48.txt", "a/../rfc48.txt", "/etc/passwd", "..\\x", "C:\\x", "a\0b", "a\nb", ".state/id", &long]
    {
        invalid(get(&mut client, by_name(name)).await, "name");
    }
    for length in [0, 1, 31, 33, 4096] {
        let wanted = DocumentSelector::Blake3(vec![7; length].into());
        invalid(get(&mut client, GetRfcRequest { document: Some(wanted), ..Default::default() }).await, "blake3");
    }
    peer.assert_serves(SMALL.0, SMALL.1).await;
}
