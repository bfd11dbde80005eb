//! Our overlay as a simulated peer.

use std::time::Duration;

use bytes::Bytes;
use peerd::overlay::{Action, Config, Contact, Event, Message, Overlay, PeerId, plumtree, wire};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Index, Input, Kind, Micros, Node, Output};

/// The id of the peer at an index. Ids are scattered, so that their order is not the order of starts.
pub fn id(index: Index) -> PeerId {
    let scattered = u128::from(index.wrapping_mul(2_654_435_769));
    PeerId::from_u128(scattered << 96 | u128::from(index))
}

/// The index of a peer.
pub fn index(id: PeerId) -> Index {
    Index::try_from(id.as_u128() & u128::from(Index::MAX)).expect("masked")
}

/// The contact of the peer at an index.
pub fn contact(index: Index) -> Contact {
    let (high, low) = (index >> 8, index & 255);
    let endpoint = format!("10.{}.{}.{low}:7801", high >> 8, high & 255);
    Contact::parse(id(index), &format!("peer-{index}"), &endpoint).expect("a valid contact")
}

/// A peer of this overlay.
pub struct Ours {
    pub overlay: Overlay<ChaCha8Rng>,
    scheduled: Option<Micros>,
}

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}

fn micros(duration: Duration) -> Micros {
    duration.as_micros() as Micros
}

impl Ours {
    fn carry_out(&mut self, actions: Vec<Action>, out: &mut Vec<Output<Message>>) {
        for action in actions {
            match action {
                Action::Dial(contact) => out.push(Output::Dial(index(contact.id()))),
                Action::Close(peer, _) => out.push(Output::Close(index(peer))),
                Action::Send(to, message) => out.push(Output::Send(index(to), message)),
                Action::Pause(peer, wait) => out.push(Output::Pause(index(peer), micros(wait))),
                Action::AskForPeers(count) => out.push(Output::Ask(count)),
                Action::Deliver { gossip, .. } => {
                    let mut number = [0; 8];
                    if gossip.payload.len() >= 8 {
                        number.copy_from_slice(&gossip.payload[..8]);
                    }
                    out.push(Output::Delivered { broadcast: u64::from_be_bytes(number), hops: gossip.hops });
                }
                Action::Misbehaved(peer, _) => out.push(Output::Misbehaved(index(peer))),
                Action::NeighbourUp(_) | Action::NeighbourDown(_) => {}
            }
        }
    }
}

impl Node for Ours {
    type Message = Message;
    const DIALS: bool = true;

    fn new(me: Index, incarnation: u64, seed: u64, now: Micros) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let overlay = Overlay::new(contact(me), incarnation, Config::default(), rng, duration(now));
        Self { overlay, scheduled: None }
    }

    fn handle(&mut self, input: Input<Message>, now: Micros, out: &mut Vec<Output<Message>>) {
        let time = duration(now);
        let event = match input {
            // The sample of the registry follows when the peer asks for it.
            Input::Start(_) => Event::Tick,
            Input::LinkUp { peer, incarnation, dialled } => Event::LinkUp { peer: contact(peer), incarnation, dialled },
            Input::LinkDown(peer) => Event::LinkDown { peer: id(peer) },
            Input::DialFailed(peer) => Event::DialFailed { peer: id(peer) },
            Input::Received { from, message } => Event::Received { from: id(from), message: Some(message), bytes: 100 },
            Input::Found(peers) => Event::PeersFound(peers.into_iter().map(contact).collect()),
            Input::Broadcast(number) => {
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                if let Ok((_, actions)) = self.overlay.broadcast(payload, time) {
                    self.carry_out(actions, out);
                }
                self.wake(now, out);
                return;
            }
            Input::Timer(_) if self.scheduled != Some(now) => return,
            Input::Timer(_) => {
                self.scheduled = None;
                Event::Tick
            }
            Input::Leave => Event::Leave,
        };
        let actions = self.overlay.handle(event, time);
        self.carry_out(actions, out);
        self.wake(now, out);
    }

    fn neighbours(&self) -> Vec<Index> {
        let neighbours = self.overlay.membership().neighbours();
        neighbours.map(|(contact, _)| index(contact.id())).collect()
    }

    fn kind(message: &Message) -> Kind {
        match message {
            Message::Plumtree(plumtree::Message::Gossip(_)) => Kind::Payload,
            _ => Kind::Control,
        }
    }

    fn size(message: &Message) -> usize {
        wire::encode(message).len()
    }

    fn recode(message: Message) -> Message {
        wire::decode(wire::encode(&message)).expect("what was encoded can be decoded")
    }
}

impl Ours {
    fn wake(&mut self, now: Micros, out: &mut Vec<Output<Message>>) {
        // The timers of a driver have a resolution of one millisecond.
        let due = micros(self.overlay.next_deadline(duration(now))).max(now + 1_000);
        if self.scheduled.is_none_or(|scheduled| due < scheduled) {
            self.scheduled = Some(due);
            out.push(Output::Timer(due, 0));
        }
    }
}
