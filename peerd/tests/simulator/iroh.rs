//! iroh-gossip's state machine as a simulated peer.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use iroh_gossip::proto::{
    self, Command, DeliveryScope, Event, InEvent, OutEvent, PeerData, Scope, State, TopicId, state::MessageKind,
};
use n0_future::time::Instant;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Index, Input, Kind, Micros, Node, Output};

/// Sizes of the active and passive view of [`IrohWide`]: the average number of links of ours (`links_per_peer` of the benchmark), and
/// the size of our passive view.
const WIDE: (usize, usize) = (8, 48);

/// A peer of iroh-gossip, with its default configuration.
pub type Iroh = Peer<false>;
/// A peer of iroh-gossip with views as large as ours, and otherwise its default configuration.
pub type IrohWide = Peer<true>;

/// A peer of iroh-gossip.
pub struct Peer<const WIDE_VIEWS: bool> {
    state: State<Index, ChaCha8Rng>,
    timers: BTreeMap<u64, proto::Timer<Index>>,
    next_timer: u64,
    neighbours: Vec<Index>,
    epoch: Instant,
}

fn topic() -> TopicId {
    TopicId::from([7; 32])
}

/// Links travelled: iroh-gossip counts from 0 and exposes the number only in its debug output.
fn hops(scope: DeliveryScope) -> u32 {
    let text = format!("{scope:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u32>().map_or(1, |round| round + 1)
}

impl<const WIDE_VIEWS: bool> Node for Peer<WIDE_VIEWS> {
    type Message = proto::Message<Index>;
    const DIALS: bool = false;

    fn new(me: Index, _incarnation: u64, seed: u64, _now: Micros) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let data = PeerData::new(Bytes::from_static(b"10.0.0.1:7801"));
        let mut config = proto::Config::default();
        if WIDE_VIEWS {
            (config.membership.active_view_capacity, config.membership.passive_view_capacity) = WIDE;
        }
        Self {
            state: State::new(me, data, config, rng),
            timers: BTreeMap::new(),
            next_timer: 0,
            neighbours: Vec::new(),
            epoch: epoch(),
        }
    }

    fn handle(&mut self, input: Input<Self::Message>, now: Micros, out: &mut Vec<Output<Self::Message>>) {
        let event = match input {
            Input::Start(contacts) => InEvent::Command(topic(), Command::Join(contacts)),
            Input::LinkDown(peer) | Input::DialFailed(peer) => InEvent::PeerDisconnected(peer),
            Input::Received { from, message } => InEvent::RecvMessage(from, message),
            Input::Broadcast(number) => {
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                InEvent::Command(topic(), Command::Broadcast(payload, Scope::Swarm))
            }
            Input::Timer(number) => match self.timers.remove(&number) {
                Some(timer) => InEvent::TimerExpired(timer),
                None => return,
            },
            Input::Leave => InEvent::Command(topic(), Command::Quit),
            Input::LinkUp { .. } | Input::Found(_) => return,
        };
        let time = self.epoch + Duration::from_micros(now);
        for event in self.state.handle(event, time, None) {
            match event {
                OutEvent::SendMessage(to, message) => out.push(Output::Send(to, message)),
                OutEvent::DisconnectPeer(peer) => out.push(Output::Close(peer)),
                OutEvent::ScheduleTimer(wait, timer) => {
                    self.timers.insert(self.next_timer, timer);
                    let at = now + wait.as_micros() as Micros;
                    out.push(Output::Timer(at, self.next_timer));
                    self.next_timer += 1;
                }
                OutEvent::EmitEvent(_, Event::NeighborUp(peer)) => self.neighbours.push(peer),
                OutEvent::EmitEvent(_, Event::NeighborDown(peer)) => {
                    self.neighbours.retain(|other| *other != peer);
                }
                OutEvent::EmitEvent(_, Event::Received(gossip)) => {
                    let mut number = [0; 8];
                    number.copy_from_slice(&gossip.content[..8]);
                    out.push(Output::Delivered { broadcast: u64::from_be_bytes(number), hops: hops(gossip.scope) });
                }
                OutEvent::PeerData(..) => {}
            }
        }
    }

    fn neighbours(&self) -> Vec<Index> {
        self.neighbours.clone()
    }

    fn kind(message: &Self::Message) -> Kind {
        match message.kind() {
            MessageKind::Data => Kind::Payload,
            MessageKind::Control => Kind::Control,
        }
    }

    fn size(message: &Self::Message) -> usize {
        message.size().unwrap_or(0)
    }

    fn recode(message: Self::Message) -> Self::Message {
        message
    }
}

/// One start instant for all peers: iroh-gossip needs instants, and only their differences matter.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
