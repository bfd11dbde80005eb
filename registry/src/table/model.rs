//! Model-based test: random calls must be answered as a simple model says.

use super::{
    deadlines::TICK_MS,
    tests::{SETTINGS, ask, at, cookie, expire, leave, register},
    *,
};
use p2pdi::{cookie::CookieHash, v1::KeepAliveRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, net::Ipv6Addr};

const NAMES: u32 = 12;
const HOLD_MS: u64 = 3_000;

/// A name as the model sees it.
#[derive(Clone)]
struct Known {
    cookie: CookieHash,
    endpoint: u32,
    /// End of the lease; `None` after a Leave.
    until_ms: Option<u64>,
    /// Nobody else may have the name before.
    reserved_until_ms: u64,
    registrations: u32,
}

struct World {
    table: Table,
    known: BTreeMap<u32, Known>,
    now_ms: u64,
    next_cookie: u128,
    /// A client that keeps a copy by deltas.
    watcher: CookieHash,
    copy: BTreeMap<String, String>,
    since: u64,
}

impl World {
    fn live(&self, name: u32) -> bool {
        self.known.get(&name).is_some_and(|known| known.until_ms.is_some_and(|until| until > self.now_ms))
    }

    fn register(&mut self, rng: &mut StdRng) {
        let (name, endpoint, address) = (rng.random_range(0..NAMES), rng.random_range(0..2u32), rng.random_range(0..2u32));
        self.next_cookie += 1;
        // No cookie, any cookie, or its own.
        let presented = match rng.random_range(0..3) {
            0 => None,
            1 => Some(cookie(rng.random_range(0..self.next_cookie))),
            _ => (0..self.next_cookie).map(cookie).find(|c| self.known.get(&name).is_some_and(|k| k.cookie == c.hash())),
        };
        let upper = rng.random::<bool>();
        let registration = Registration {
            endpoint: Some(format!("10.0.0.{}:7801", endpoint + 1).parse().unwrap()),
            address: Ipv6Addr::from_bits(0xffff_0a00_0000 + u128::from(address)),
            presented: presented.clone(),
            ..ask(&format!("{}{name}", if upper { "P" } else { "p" }), self.next_cookie)
        };
        let known = self.known.get(&name).cloned();
        let own = known.as_ref().is_some_and(|known| presented.as_ref().is_some_and(|p| p.hash() == known.cookie));
        let outcome = if rng.random_ratio(1, 5) {
            // The store fails.
            match self.table.prepare_register(&registration, at(self.now_ms)) {
                Ok((Prepared::Write(change), _)) => {
                    self.table.settle(change, None, at(self.now_ms));
                    return;
                }
                Ok(_) => panic!("a peer is stored"),
                Err(refusal) => Err(refusal),
            }
        } else {
            register(&mut self.table, &registration, at(self.now_ms))
        };
        if let Some(left_ms) = known.as_ref().and_then(|known| known.reserved_until_ms.checked_sub(self.now_ms))
            && left_ms > 0
            && !own
        {
            let Err(Refusal::NameTaken { has_lease, retry_after_seconds, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!((has_lease, retry_after_seconds), (self.live(name), left_ms.div_ceil(1000)));
            return;
        }
        let (lease, held) = outcome.unwrap();
        let registrations = known.as_ref().map_or(0, |known| known.registrations) + 1;
        assert_eq!(lease.peer.registration_count, registrations);
        assert_eq!(known.is_some_and(|known| known.cookie == held), own);
        let until_ms = self.now_ms + SETTINGS.ttl_ms;
        let reserved_until_ms = until_ms + HOLD_MS;
        self.known.insert(name, Known { cookie: held, endpoint, until_ms: Some(until_ms), reserved_until_ms, registrations });
    }

    fn touch(&mut self, rng: &mut StdRng) {
        let secret = cookie(rng.random_range(0..=self.next_cookie)).hash();
        let name = self.known.iter().find(|(_, known)| known.cookie == secret).map(|(name, _)| *name);
        let expected = match name {
            None => Err(Refusal::CookieUnknown),
            Some(name) if self.live(name) => Ok(()),
            Some(_) => Err(Refusal::LeaseExpired),
        };
        if rng.random_ratio(1, 4) {
            let left = leave(&mut self.table, &secret, at(self.now_ms));
            assert_eq!(left, expected.or_else(|refusal| if refusal == Refusal::LeaseExpired { Ok(()) } else { Err(refusal) }));
            if let Some(known) = name.and_then(|name| self.known.get_mut(&name)) {
                if known.until_ms.is_some_and(|until| until > self.now_ms) {
                    known.reserved_until_ms = self.now_ms + HOLD_MS;
                }
                known.until_ms = None;
            }
            return;
        }
        assert_eq!(
            self.table
                .keep_alive(&secret, KeepAliveRequest { index_version: 1, ..Default::default() }, at(self.now_ms))
                .map(drop),
            expected
        );
        if expected.is_ok()
            && let Some(known) = name.and_then(|name| self.known.get_mut(&name))
        {
            known.until_ms = Some(self.now_ms + SETTINGS.ttl_ms);
            known.reserved_until_ms = self.now_ms + SETTINGS.ttl_ms + HOLD_MS;
        }
    }

    /// Compares a full listing, and a copy kept by deltas, with the model.
    fn compare(&mut self, rng: &mut StdRng) {
        let expected: BTreeMap<String, String> = (self.known.iter())
            .filter(|(name, _)| self.live(**name))
            .map(|(name, known)| (format!("p{name}"), format!("10.0.0.{}:7801", known.endpoint + 1)))
            .collect();
        let page_size = rng.random_range(1..6);
        for (since_revision, mut copy) in [(0, BTreeMap::new()), (self.since, std::mem::take(&mut self.copy))] {
            let (mut page_token, mut first) = (String::new(), None);
            loop {
                let query = Query { page_size, page_token, since_revision, ..Query::default() };
                let page = self.table.query(&self.watcher, &query, at(self.now_ms)).unwrap();
                if page.start_over {
                    copy.clear();
                }
                copy.extend(page.peers.into_iter().map(|peer| (peer.name.to_lowercase(), peer.endpoint)));
                page.gone.iter().for_each(|gone| {
                    copy.remove(&gone.name.to_lowercase());
                });
                assert_eq!(*first.get_or_insert(page.revision), page.revision);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(copy, expected, "since {since_revision}");
            (self.since, self.copy) = (first.unwrap(), copy);
        }
    }
}

#[test]
fn random_calls_get_the_answers_of_the_model() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut table = Table::new(Settings { name_hold_ms: HOLD_MS, ..SETTINGS }, rng.random());
        let watching = Registration { endpoint: None, ..ask("watcher", u128::MAX) };
        let (lease, watcher) = register(&mut table, &watching, at(0)).unwrap();
        let mut world = World {
            table,
            known: BTreeMap::new(),
            now_ms: 0,
            next_cookie: 0,
            watcher,
            copy: BTreeMap::new(),
            since: lease.revision,
        };
        for _ in 0..600 {
            // Long pauses let leases run out, except the watcher's.
            world.now_ms += rng.random_range(0..4_000) * u64::from(rng.random_ratio(1, 3));
            expire(&mut world.table, at(world.now_ms), 3);
            world.table.keep_alive(&watcher, KeepAliveRequest::default(), at(world.now_ms)).unwrap();
            match rng.random_range(0..10) {
                0..4 => world.register(&mut rng),
                4..9 => world.touch(&mut rng),
                _ => {
                    // An expiry shows in a delta only after its tick.
                    let tick = |ms: u64| ms / TICK_MS;
                    let ended = |world: &World| world.known.values().filter_map(|known| known.until_ms).collect::<Vec<_>>();
                    while ended(&world).iter().any(|until| *until <= world.now_ms && tick(*until) == tick(world.now_ms)) {
                        world.now_ms = (tick(world.now_ms) + 1) * TICK_MS;
                    }
                    expire(&mut world.table, at(world.now_ms), 3);
                    world.compare(&mut rng);
                }
            }
            let counts = world.table.counts();
            // One entry for each lease, and for nothing else.
            assert_eq!(world.table.deadlines.len(), counts.active + counts.observers);
            assert!(counts.active + counts.inactive <= NAMES as usize && counts.observers == 1);
        }
    }
}
