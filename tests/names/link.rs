//! A link on which a test sends any frames, with a certificate of its choice.

use crate::{
    dial,
    support::{PATIENCE, peer::Peer},
};
use p2pdi::{
    id::PeerId,
    link::LinkMessage,
    tls::{Expected, Tls},
    v1::{Contact, LinkFrame, LinkHello, LinkPong, NeighbourRequest, link_frame::Body, peer_client::PeerClient},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A link to a peer.
pub(crate) struct Link {
    out: mpsc::Sender<LinkMessage>,
    incoming: Streaming<LinkMessage>,
}

impl Link {
    /// Opens a link to `to` with the certificate of `tls`, and says hello as the peer `name` with this id.
    pub(crate) async fn open(to: &Peer, tls: &Tls, name: &str, id: PeerId) -> Self {
        let channel = dial(tls).connect(&to.address.into(), Expected::Anyone).await.unwrap();
        let (out, queue) = mpsc::channel(1_024);
        let peer = Contact { id: id.to_field(), name: name.to_owned(), endpoint: "127.0.0.1:9".to_owned() };
        let hello = LinkHello { peer: Some(peer), incarnation: 1, ..LinkHello::default() };
        out.send(LinkMessage::new(frame(Body::Hello(hello)))).await.unwrap();
        let incoming = PeerClient::new(channel).link(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { out, incoming }
    }

    /// Opens a link as the peer of the certificate, and becomes a neighbour.
    pub(crate) async fn neighbour(to: &Peer, tls: &Tls) -> Self {
        let name = tls.identity().unwrap().name().unwrap().clone();
        let mut link = Self::open(to, tls, name.as_str(), PeerId::of_name(&name)).await;
        link.send(Body::NeighbourRequest(NeighbourRequest { urgent: true })).await;
        link.find("the answer of the neighbour", |body| matches!(body, Body::NeighbourReply(reply) if reply.accepted)).await;
        link
    }

    pub(crate) async fn send(&self, body: Body) {
        self.out.send(LinkMessage::new(frame(body))).await.expect("the link ended");
    }

    /// Reads frames until one is as wanted, answering pings.
    pub(crate) async fn find(&mut self, what: &str, is_it: impl Fn(&Body) -> bool) -> Body {
        loop {
            let next = timeout(PATIENCE, self.incoming.message()).await.unwrap_or_else(|_| panic!("timed out: {what}"));
            let message = next.unwrap().unwrap_or_else(|| panic!("the link ended before {what}"));
            match message.frame.unwrap_or_default().body {
                Some(Body::Ping(ping)) => self.send(Body::Pong(LinkPong { nonce: ping.nonce })).await,
                Some(body) if is_it(&body) => return body,
                _ => {}
            }
        }
    }

    /// Whether the peer ends the link before it says hello.
    pub(crate) async fn ends_unheard(mut self) -> bool {
        let first = timeout(PATIENCE, self.incoming.message()).await.expect("an end or a hello");
        !matches!(first, Ok(Some(LinkMessage { frame: Some(LinkFrame { body: Some(Body::Hello(_)) }), .. })))
    }
}

fn frame(body: Body) -> LinkFrame {
    LinkFrame { body: Some(body) }
}
