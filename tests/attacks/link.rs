//! A link that the attacker opens under a name and an id of its choice.

use crate::connect;
use p2pdi::{
    id::PeerId,
    link::LinkMessage,
    tls::Tls,
    v1::{Contact, LinkFrame, LinkHello, LinkPong, NeighbourRequest, link_frame::Body, peer_client::PeerClient},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Longest wait for what happens at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Link {
    out: mpsc::Sender<LinkMessage>,
    incoming: Streaming<LinkMessage>,
}

impl Link {
    /// Opens a link and asks to be a neighbour. `None`: the other side ends it before it says hello.
    pub(crate) async fn open(to: SocketAddr, tls: Option<&Tls>, name: &str, id: PeerId) -> Option<Self> {
        let channel = connect(to, tls).await.ok()?;
        let (out, queue) = mpsc::channel(1_024);
        let peer = Contact { id: id.to_field(), name: name.to_owned(), endpoint: "10.77.0.4:9".to_owned() };
        let hello = LinkHello { peer: Some(peer), incarnation: 1, ..LinkHello::default() };
        out.send(message(Body::Hello(hello))).await.ok()?;
        let incoming = PeerClient::new(channel).link(ReceiverStream::new(queue)).await.ok()?.into_inner();
        let mut link = Self { out, incoming };
        let first = timeout(PATIENCE, link.incoming.message()).await.expect("an end or a hello");
        let Ok(Some(LinkMessage { frame: Some(LinkFrame { body: Some(Body::Hello(_)) }), .. })) = first else { return None };
        link.send(Body::NeighbourRequest(NeighbourRequest { urgent: true })).await;
        Some(link)
    }

    /// Sends a frame; lost if the link has ended.
    pub(crate) async fn send(&self, body: Body) {
        let _lost = self.out.send(message(body)).await;
    }

    /// Frames that arrive until nothing new does for a moment, with pings answered.
    pub(crate) async fn heard(&mut self) -> Vec<Body> {
        let mut heard = Vec::new();
        while let Ok(Ok(Some(next))) = timeout(Duration::from_millis(500), self.incoming.message()).await {
            match next.frame.unwrap_or_default().body {
                Some(Body::Ping(ping)) => self.send(Body::Pong(LinkPong { nonce: ping.nonce })).await,
                body => heard.extend(body),
            }
        }
        heard
    }
}

fn message(body: Body) -> LinkMessage {
    LinkMessage::new(LinkFrame { body: Some(body) })
}
