//! A client from before swarms at a registry and a peer of today. Its messages are written down here as its version of the contract had them: what
//! was added since is not known to it.

use super::*;
use p2pdi::{
    channel::RESPONSE_MAX_BYTES,
    content::{ContentHash, PieceHashes, Pieces},
};
use prost::Message;
use std::sync::Arc;
use tokio::task::JoinSet;
use tonic::{Streaming, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct RegisterObserver {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    observer: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Registered {
    #[prost(string, tag = "2")]
    cookie: String,
}

#[derive(Clone, PartialEq, Message)]
struct PQuery {
    #[prost(uint32, tag = "5")]
    sample: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Peers {
    #[prost(message, repeated, tag = "1")]
    peers: Vec<PeerRecord>,
    #[prost(uint64, tag = "6")]
    active_peers: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RfcQuery {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bytes = "vec", tag = "4")]
    blake3: Vec<u8>,
    #[prost(bool, tag = "6")]
    own_only: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Listed {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(message, repeated, tag = "3")]
    holdings: Vec<p2pdi::v1::Holding>,
}

#[derive(Clone, PartialEq, Message)]
struct GetRfc {
    #[prost(oneof = "Wanted", tags = "1, 2, 3")]
    document: Option<Wanted>,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(uint64, tag = "5")]
    length: u64,
    #[prost(bool, tag = "6")]
    without_piece_hashes: bool,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Wanted {
    #[prost(uint32, tag = "1")]
    Number(u32),
    #[prost(string, tag = "2")]
    Name(String),
    #[prost(bytes = "vec", tag = "3")]
    Hash(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
struct Got {
    #[prost(oneof = "Part", tags = "1, 2")]
    part: Option<Part>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Part {
    #[prost(message, tag = "1")]
    Header(Header),
    #[prost(message, tag = "2")]
    Chunk(Chunk),
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(message, optional, tag = "1")]
    document: Option<p2pdi::v1::Document>,
    #[prost(uint64, tag = "2")]
    piece_size: u64,
    #[prost(bytes = "vec", tag = "3")]
    piece_hashes: Vec<u8>,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(uint64, tag = "5")]
    served_length: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Chunk {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// A client of that version.
#[derive(Clone)]
struct OldClient(Grpc<Channel>);

impl OldClient {
    fn of(address: SocketAddr) -> Self {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self(Grpc::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES))
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Request<Q>) -> A
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let answer = self.0.unary(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await;
        answer.unwrap().into_inner()
    }

    async fn stream<Q, A>(&mut self, path: &'static str, request: Q) -> Streaming<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        self.0.server_streaming(Request::new(request), path, ProstCodec::<Q, A>::default()).await.unwrap().into_inner()
    }

    /// The holdings of an answer.
    async fn holdings(&mut self, query: RfcQuery) -> Vec<p2pdi::v1::Holding> {
        let mut stream = self.stream::<_, Listed>("/p2pdi.v1.Peer/RFCQuery", query).await;
        let mut holdings = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            assert!(message.version > 0);
            holdings.extend(message.holdings);
        }
        holdings
    }

    /// The header and the bytes of an answer: first one header, then chunks without gaps, and nothing else.
    async fn get(&mut self, request: GetRfc) -> (Header, Vec<u8>) {
        let mut stream = self.stream::<_, Got>("/p2pdi.v1.Peer/GetRFC", request).await;
        let Some(Part::Header(header)) = stream.message().await.unwrap().and_then(|message| message.part) else {
            panic!("no header first");
        };
        let mut data = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            let Some(Part::Chunk(chunk)) = message.part else { panic!("neither a header nor a chunk: {message:?}") };
            assert_eq!(chunk.offset, header.offset + data.len() as u64);
            assert!(chunk.data.len() <= 256 * 1024);
            data.extend(chunk.data);
        }
        assert_eq!(data.len() as u64, header.served_length);
        (header, data)
    }
}

fn whole(document: Wanted) -> GetRfc {
    GetRfc { document: Some(document), ..GetRfc::default() }
}

/// Checks what a header says with nothing but that version's rules.
fn assert_is(header: &Header, data: &[u8]) {
    let document = header.document.as_ref().unwrap();
    let hash = ContentHash::of(data);
    assert_eq!((document.size, &document.blake3), (data.len() as u64, &hash.to_field()));
    let pieces = Pieces::of_size(document.size).unwrap();
    assert_eq!(header.piece_size, pieces.piece_size());
    PieceHashes::verified(pieces, &header.piece_hashes, &hash).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_before_swarms_finds_fetches_and_resumes_at_peers_of_today() {
    let registry = Running::in_memory().await;
    let (text, large) = (support::bytes(40_000), support::bytes(5 * 256 * 1024 + 7));
    let peer = member("holder", registry.address, &[("rfc48.txt", &text), ("Sub/Large.bin", &large)]).await;
    until(&peer, SessionState::Registered).await;

    let mut old = OldClient::of(registry.address);
    let observer = RegisterObserver { name: "old-client".into(), observer: true };
    let cookie = old.unary::<_, Registered>("/p2pdi.v1.Registry/Register", Request::new(observer)).await.cookie;
    let mut query = Request::new(PQuery { sample: 1_000 });
    query.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
    let peers: Peers = old.unary("/p2pdi.v1.Registry/PQuery", query).await;
    assert_eq!((peers.active_peers, peers.peers[0].name.as_str()), (1, "holder"));

    let mut old = OldClient::of(peers.peers[0].endpoint.parse().unwrap());
    let large_hash = ContentHash::of(&large).to_field().to_vec();
    for (query, content) in [
        (RfcQuery { number: 48, ..RfcQuery::default() }, &text),
        (RfcQuery { name: "sub/large.BIN".into(), ..RfcQuery::default() }, &large),
        (RfcQuery { blake3: large_hash.clone(), own_only: true, ..RfcQuery::default() }, &large),
    ] {
        let holdings = old.holdings(query).await;
        let [holding] = holdings.as_slice() else { panic!("{holdings:?}") };
        assert_eq!(holding.document.as_ref().unwrap().blake3, ContentHash::of(content).to_field());
        assert_eq!((holding.holders.len(), holding.holders[0].endpoint.as_str()), (1, peers.peers[0].endpoint.as_str()));
    }
    assert_eq!(old.holdings(RfcQuery::default()).await.len(), 2);

    for (wanted, content) in
        [(Wanted::Number(48), &text), (Wanted::Name("sub/large.BIN".into()), &large), (Wanted::Hash(large_hash.clone()), &large)]
    {
        let (header, data) = old.get(whole(wanted)).await;
        assert!(data == *content);
        assert_is(&header, &data);
    }
    // It goes on by the hash, from the offset that it has, with and without the hashes that it knows.
    for (offset, without_piece_hashes) in [(256 * 1024, true), (1_000_001, false), (large.len() as u64, true)] {
        let request = GetRfc { offset, without_piece_hashes, ..whole(Wanted::Hash(large_hash.clone())) };
        let (header, data) = old.get(request).await;
        assert!(data == large[usize::try_from(offset).unwrap()..], "from {offset}");
        assert_eq!((header.offset, header.piece_hashes.is_empty()), (offset, without_piece_hashes));
    }
    let (_, piece) = old.get(GetRfc { offset: 10, length: 20, ..whole(Wanted::Number(48)) }).await;
    assert!(piece == text[10..30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_from_before_swarms_wait_for_their_turn_without_a_message_that_they_do_not_know() {
    let data = Arc::new(support::bytes(3 * 256 * 1024));
    let peer = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_slots = Some(1);
        config.upload_limit = Some(1024 * 1024);
    })
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (mut old, data) = (OldClient::of(peer.address), Arc::clone(&data));
        clients.spawn(async move {
            let (header, got) = within("its turn", old.get(whole(Wanted::Name("doc.bin".into())))).await;
            assert!(got == *data);
            assert_is(&header, &got);
        });
    }
    clients.join_all().await;
}
