//! Interprets any bytes as a sequence of events for the state machines, and checks their invariants after each event.
//!
//! Used by the property tests (`tests/overlay_properties.rs`) and by the fuzz targets (`fuzz/`).

pub mod liar;

use std::time::Duration;

use bytes::Bytes;
use p2pdi::{
    link::LinkMessage,
    name::PeerName,
    v1::{self, Announcement, link_frame::Body},
};
use peerd::overlay::{
    Action, Config, Contact, Event, Message, Overlay, PeerId, Time, link,
    membership::{self, Membership},
    partitions,
    plumtree::{self, Advert, Beacon, Gossip, MAX_IDS, MAX_MISSING, MAX_ORIGINS, MAX_STORED, MessageId, Plumtree, Root},
    wire,
};
use peerd::{
    Bootnode,
    inbox::MessageKind,
    overlay::routing::{self, ROUTES_MAX, Relay, RelayReply, Routing},
};
use prost::Message as _;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A source of arbitrary values, read from bytes; zeros when they are used up.
pub struct Source<'a>(pub &'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 0
    }

    /// Small, close to a limit, or close to the maximum.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => u64::from(byte),
            byte @ 200..=219 => u64::from(byte - 200) << 9,
            byte @ 220..=239 => 1 << (byte - 200),
            byte => u64::MAX - u64::from(byte - 240),
        }
    }

    /// Mostly one of 16 peers, the first of which is this one; sometimes one of more than a view holds.
    fn id(&mut self) -> PeerId {
        PeerId::from_u128(u128::from(match self.byte() {
            byte @ 0..=159 => byte % 16,
            byte => byte,
        }))
    }

    fn contact(&mut self) -> Contact {
        contact(self.id())
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = match self.byte() {
            byte @ 0..=250 => byte % 20,
            byte => byte,
        };
        (0..length).map(|_| item(self)).collect()
    }

    fn duration(&mut self) -> Duration {
        Duration::from_millis(self.number().saturating_mul(100))
    }

    fn root(&mut self) -> Root {
        Root { incarnation: self.number(), id: self.id() }
    }

    fn message_id(&mut self) -> MessageId {
        MessageId { origin: self.id(), incarnation: self.number(), sequence: self.number() }
    }

    fn membership(&mut self) -> membership::Message {
        use membership::Message as M;
        match self.byte() % 7 {
            0 => M::Join,
            1 => M::ForwardJoin { newcomer: self.contact(), ttl: self.number() as u32 },
            2 => M::Request { urgent: self.flag() },
            3 => M::Reply { accepted: self.flag() || self.flag(), peers: self.list(Self::contact) },
            4 => M::Disconnect { alive: self.flag(), peers: self.list(Self::contact) },
            5 => M::Shuffle {
                nonce: self.number(),
                path: self.list(Self::id),
                ttl: self.number() as u32,
                peers: self.list(Self::contact),
            },
            _ => M::ShuffleReply { nonce: self.number(), path: self.list(Self::id), peers: self.list(Self::contact) },
        }
    }

    fn plumtree(&mut self) -> plumtree::Message {
        use plumtree::Message as M;
        match self.byte() % 5 {
            0 => {
                M::Beacon(Beacon { root: self.root(), sequence: self.number(), hops: self.number() as u32, parent: self.flag() })
            }
            1 => {
                let length = match self.byte() {
                    255 => plumtree::MAX_PAYLOAD + 1,
                    byte => usize::from(byte),
                };
                M::Gossip(Gossip {
                    id: self.message_id(),
                    hops: self.number() as u32,
                    age: self.duration(),
                    payload: Bytes::from(vec![0; length]),
                    signature: None,
                })
            }
            2 => {
                let mut adverts = self.list(|source| Advert { id: source.message_id(), age: source.duration() });
                if self.byte() == 255 && !adverts.is_empty() {
                    adverts = adverts.iter().copied().cycle().take(MAX_IDS + 1).collect();
                }
                M::Advertise(adverts)
            }
            3 => M::Graft { ids: self.list(Self::message_id), push: self.flag() },
            _ => M::Prune,
        }
    }

    fn message(&mut self) -> Message {
        match self.byte() % 8 {
            0 => Message::Link(link::Message::Ping(self.number())),
            1 => Message::Link(link::Message::Pong(self.number())),
            2 => Message::Partitions(partitions::Message::Probe(self.root(), self.number())),
            3 => Message::Partitions(partitions::Message::Reply(self.root(), self.number())),
            4 | 5 => Message::Membership(self.membership()),
            _ => Message::Plumtree(self.plumtree()),
        }
    }

    fn wait(&mut self) -> Duration {
        match self.byte() {
            byte @ 0..=239 => Duration::from_millis(u64::from(byte) * 3),
            byte => Duration::from_secs(u64::from(byte - 239) * 3),
        }
    }
}

fn contact(id: PeerId) -> Contact {
    Contact::parse(id, &format!("peer-{}", id.as_u128()), "127.0.0.1:7801").expect("a valid contact")
}

const ME: PeerId = PeerId::from_u128(0);

fn check_membership(membership: &Membership) {
    let config = membership.config();
    assert!(membership.neighbours().count() <= config.max_active());
    assert!(membership.passive().len() <= config.passive);
    assert!(!membership.is_neighbour(ME) && !membership.passive().contains(ME));
    for (neighbour, _) in membership.neighbours() {
        assert!(!membership.passive().contains(neighbour.id()), "{neighbour:?} is in both views");
    }
}

fn check_plumtree(plumtree: &Plumtree) {
    let (origins, kept, missing) = plumtree.sizes();
    assert!(origins <= MAX_ORIGINS && kept <= MAX_STORED && missing <= MAX_MISSING);
    assert!(plumtree.tree().parent() != Some(ME));
}

/// HyParView alone.
pub fn drive_membership(data: &[u8]) {
    let mut source = Source(data);
    let mut rng = ChaCha8Rng::seed_from_u64(source.number());
    let mut now = Time::ZERO;
    let mut machine = Membership::new(contact(ME), membership::Config::default(), now);
    let mut out = Vec::new();
    while !source.0.is_empty() {
        use membership::Event as E;
        let event = match source.byte() % 16 {
            0..=3 => E::LinkUp { peer: source.contact(), incarnation: source.number() % 2, dialled: source.flag() },
            4 => E::LinkDown { peer: source.id() },
            5 => E::DialFailed { peer: source.id() },
            6 => E::PeersFound(source.list(Source::contact)),
            7 => E::Join(source.contact()),
            8 => E::Connect(source.contact()),
            9 => E::Merge(source.id()),
            10 => E::Tick,
            _ => E::Received { from: source.id(), message: source.membership() },
        };
        now += source.wait();
        machine.handle(event, now, &mut rng, &mut out);
        out.clear();
        check_membership(&machine);
    }
}

/// Plumtree alone.
pub fn drive_plumtree(data: &[u8]) {
    let mut source = Source(data);
    let mut rng = ChaCha8Rng::seed_from_u64(source.number());
    let mut now = Time::ZERO;
    let mut machine = Plumtree::new(ME, source.number(), plumtree::Config::default(), now);
    let mut out = Vec::new();
    while !source.0.is_empty() {
        use plumtree::Event as E;
        now += source.wait();
        let event = match source.byte() % 16 {
            0 | 1 => E::NeighbourUp(PeerId::from_u128(source.id().as_u128().max(1))),
            2 => E::NeighbourDown(source.id()),
            3 => E::Tick,
            4 => {
                machine.broadcast(Bytes::from_static(b"hello"), now, &mut out);
                E::Tick
            }
            _ => E::Received { from: source.id(), message: source.plumtree() },
        };
        machine.handle(event, now, &mut rng, &mut out);
        out.clear();
        check_plumtree(&machine);
    }
}

/// The whole overlay, with an arbitrary driver.
pub fn drive_overlay(data: &[u8]) {
    let mut source = Source(data);
    let rng = ChaCha8Rng::seed_from_u64(source.number());
    let mut now = Time::ZERO;
    let mut overlay = Overlay::new(contact(ME), source.number(), Config::default(), rng, now);
    let mut delivered = std::collections::BTreeSet::new();
    while !source.0.is_empty() {
        let event = match source.byte() % 16 {
            0..=2 => Event::LinkUp { peer: source.contact(), incarnation: source.number() % 2, dialled: source.flag() },
            3 => Event::LinkDown { peer: source.id() },
            4 => Event::DialFailed { peer: source.id() },
            5 => Event::PeersFound(source.list(Source::contact)),
            6 => Event::Join(source.contact()),
            7 => Event::Tick,
            _ => Event::Received {
                from: source.id(),
                message: (source.byte() > 5).then(|| source.message()),
                bytes: source.number() as usize,
            },
        };
        now += source.wait();
        for action in overlay.handle(event, now) {
            match action {
                Action::Deliver { gossip, .. } => {
                    assert!(delivered.insert(gossip.id), "{:?} was delivered twice", gossip.id);
                }
                Action::Dial(contact) => assert!(contact.id() != ME),
                Action::Send(to, message) => {
                    assert!(to != ME);
                    let bytes = wire::encode(&message);
                    assert!(wire::decode(bytes).is_ok(), "{message:?} cannot be decoded");
                }
                _ => {}
            }
        }
        check_membership(overlay.membership());
        check_plumtree(overlay.plumtree());
    }
}

/// Routing, with arbitrary neighbours.
pub fn drive_routing(data: &[u8]) {
    let mut source = Source(data);
    let mut now = Time::ZERO;
    let mut routing = Routing::new(contact(ME));
    let names: Vec<PeerName> = (0..4).map(|n| format!("peer-{n}").parse().expect("a name")).collect();
    while !source.0.is_empty() {
        now += source.wait();
        let neighbours: Vec<Contact> = source.list(Source::contact).into_iter().filter(|peer| peer.id() != ME).collect();
        let id = u128::from(source.byte() % 8);
        let name = names[usize::from(source.byte() % 4)].clone();
        let to = routing::Target { id: source.flag().then(|| source.id()), name };
        let relay = |source: &mut Source<'_>| Relay {
            id,
            to: to.clone(),
            kind: String::new(),
            body: Bytes::new(),
            from: String::new(),
            hops: source.number() as u32,
            message_id: Bytes::new(),
            signature: None,
        };
        let from = source.id();
        let actions = match source.byte() % 12 {
            0 => routing.seek(id, &to, &neighbours, now),
            1 => routing.send(relay(&mut source)),
            2 => routing.send_to(from, relay(&mut source), now),
            3 => routing.link_down(from),
            4 => routing.tick(now),
            5 => {
                routing.yield_name(source.flag());
                Vec::new()
            }
            kind => {
                let message = match kind {
                    6 | 7 => routing::Message::Seek { id, to: to.clone(), hops: source.number() as u32 },
                    8 | 9 => {
                        routing::Message::SeekReply { id, found: source.flag().then(|| source.contact()), busy: source.flag() }
                    }
                    10 => routing::Message::Relay(relay(&mut source)),
                    _ if source.flag() => routing::Message::Namesake { id, peer: source.contact() },
                    _ => routing::Message::RelayReply(RelayReply {
                        id,
                        delivered: source.flag(),
                        // A delivered reply needs a valid name.
                        delivered_by: to.name.to_string(),
                        hops: source.number() as u32,
                        reply_kind: String::new(),
                        reply: Bytes::new(),
                        signature: None,
                    }),
                };
                routing.received(from, message, &neighbours, now)
            }
        };
        for action in actions {
            match action {
                routing::Action::Send(_, message) => {
                    let body = message.clone().into_frame().body.expect("a frame has a body");
                    assert_eq!(routing::Message::read(body), Ok(Some(message)), "it cannot be decoded");
                }
                routing::Action::NameConflict(peer) => assert!(peer.id() != ME),
                _ => {}
            }
        }
        assert!(routing.len() <= ROUTES_MAX);
    }
}

/// The parsers of text and of broadcasts.
pub fn decode_rest(data: &[u8]) {
    let message = LinkMessage::decode(data).expect("decoding a link message never fails");
    assert!(message.unreadable.is_none_or(|(_, length)| length == data.len()));
    if let Ok(announcement) = Announcement::decode(data) {
        if let Some(sender) = announcement.sender {
            let _ = wire::read_contact(sender);
        }
        let _ = announcement.kind.parse::<MessageKind>();
    }
    if let Ok(contact) = v1::Contact::decode(data)
        && let Ok(contact) = wire::read_contact(contact)
    {
        assert_eq!(wire::read_contact(wire::contact(&contact)), Ok(contact));
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(bootnode) = text.parse::<Bootnode>() {
        assert!(!bootnode.endpoints().is_empty());
        assert_eq!(bootnode.to_string().parse::<Bootnode>(), Ok(bootnode));
    }
}

/// The decoders of frames: no panic, and an accepted message is the same after encoding and decoding.
pub fn decode(data: &[u8]) {
    if let Ok(message) = wire::decode(Bytes::copy_from_slice(data)) {
        let again = wire::decode(wire::encode(&message));
        // Adverts of one origin share their greatest age, so only the second round trip changes nothing.
        let again = again.expect("what was encoded can be decoded");
        assert_eq!(wire::decode(wire::encode(&again)), Ok(again));
    }
    if let Ok(frame) = v1::LinkFrame::decode(data) {
        let _ = wire::read_hello(frame.clone());
        if let Some(Body::Acknowledge(acknowledge)) = &frame.body {
            let _ = acknowledge.id.as_ref().map(wire::read_broadcast_id);
        }
        if let Some(Ok(Some(message))) = frame.body.map(routing::Message::read) {
            let body = message.clone().into_frame().body.expect("a frame has a body");
            assert_eq!(routing::Message::read(body), Ok(Some(message)));
        }
    }
    decode_rest(data);
}

/// Any message can be encoded, and decoded unless a list is over its limit.
pub fn round_trip(data: &[u8]) {
    let message = Source(data).message();
    let bytes = wire::encode(&message);
    if let Ok(again) = wire::decode(bytes) {
        let whole = |message: &Message| !matches!(message, Message::Plumtree(_));
        assert!(!whole(&message) || again == message, "{message:?} became {again:?}");
    }
}
