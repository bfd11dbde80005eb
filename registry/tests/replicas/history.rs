//! A seeded workload at three replicas, some of which are cut off meanwhile, whose history is checked name by name for linearizability:
//! there is an order of the calls on a name, in which each is between its begin and its end, that a single registry could have answered.

use super::three::*;
use crate::{cable::Cable, etcd::Etcd, support::*};
use p2pdi::{
    status::Reason,
    v1::{PQueryRequest, RegisterRequest},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use registry::{Config, State};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

const NAMES: u32 = 6;
const CALLERS: u32 = 9;
const CALLS: u32 = 60;

/// What a call did with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    /// This caller got it.
    Took(u32),
    /// Somebody else had it, as this caller was told.
    Refused(u32),
    /// This caller gave it up.
    Left(u32),
    /// This caller has no lease, as it was told when it gave up the name. It may have had one until then: a try was made, its answer was
    /// lost, and somebody else took the name before the next try.
    HasNone(u32),
    /// A query that was to know all of its caller's past listed it, or not.
    Saw(bool),
    /// A Register or Leave without an answer: it was made at some time after its begin, or never.
    MayHaveTaken(u32),
    /// See above.
    MayHaveLeft(u32),
}

/// A call on one name, from its begin to its end by one clock.
#[derive(Debug, Clone)]
struct Call {
    began: u64,
    ended: u64,
    did: Did,
}

/// Whether a single registry could have answered so. A name is free or held by one caller; a lease does not end by itself, and a name that
/// was given up is reserved for nobody.
fn is_linearizable(calls: &[Call]) -> bool {
    // Depth first over sets of calls that are done and the holder then (Wing and Gong, Journal of Parallel and Distributed Computing 17).
    let mut seen: HashSet<(Vec<bool>, Option<u32>)> = HashSet::new();
    let mut ways = vec![(vec![false; calls.len()], None)];
    while let Some((done, holder)) = ways.pop() {
        let open = || (0..calls.len()).filter(|at| !done[*at]);
        if open().all(|at| matches!(calls[at].did, Did::MayHaveTaken(_) | Did::MayHaveLeft(_))) {
            return true;
        }
        if !seen.insert((done.clone(), holder)) {
            continue;
        }
        let first_end = open().map(|at| calls[at].ended).min().unwrap_or(u64::MAX);
        for at in open().filter(|at| calls[*at].began <= first_end) {
            let next = match calls[at].did {
                Did::Took(caller) if holder.is_none_or(|holder| holder == caller) => Some(caller),
                Did::MayHaveTaken(caller) if holder.is_none_or(|holder| holder == caller) => Some(caller),
                Did::Refused(caller) if holder.is_some_and(|holder| holder != caller) => holder,
                Did::Left(caller) | Did::HasNone(caller) | Did::MayHaveLeft(caller) => holder.filter(|holder| *holder != caller),
                Did::Saw(listed) if listed == holder.is_some() => holder,
                _ => continue,
            };
            let mut done = done.clone();
            done[at] = true;
            ways.push((done, next));
        }
    }
    false
}

#[test]
fn the_check_finds_a_name_that_two_hold_and_a_query_that_is_behind() {
    let call = |began, ended, did| Call { began, ended, did };
    assert!(is_linearizable(&[call(0, 3, Did::Took(1)), call(1, 4, Did::Refused(2)), call(5, 6, Did::Saw(true))]));
    assert!(is_linearizable(&[call(0, 9, Did::Took(1)), call(1, 4, Did::Saw(false)), call(1, u64::MAX, Did::MayHaveTaken(2))]));
    assert!(!is_linearizable(&[call(0, 1, Did::Took(1)), call(2, 3, Did::Took(2))]));
    assert!(!is_linearizable(&[call(0, 1, Did::Took(1)), call(2, 3, Did::Saw(false))]));
    assert!(!is_linearizable(&[call(0, 1, Did::Took(1)), call(2, 3, Did::Left(1)), call(4, 5, Did::Refused(2))]));
}

/// One caller: a peer that registers and leaves names, each with a cookie of its own, at any replica.
struct Caller {
    number: u32,
    clients: Vec<Client>,
    rng: StdRng,
    clock: Arc<AtomicU64>,
    history: Arc<Mutex<BTreeMap<u32, Vec<Call>>>>,
    /// The highest revision that any caller was told.
    seen: Arc<AtomicU64>,
    watcher: String,
}

impl Caller {
    fn cookie(&self, name: u32) -> String {
        format!("{:032x}", (u128::from(self.number) + 1) << 32 | u128::from(name))
    }

    fn note(&self, name: u32, began: u64, did: Did) {
        let unknown = matches!(did, Did::MayHaveTaken(_) | Did::MayHaveLeft(_));
        let ended = if unknown { u64::MAX } else { self.clock.fetch_add(1, Ordering::SeqCst) };
        self.history.lock().unwrap().entry(name).or_default().push(Call { began, ended, did });
    }

    async fn run(mut self) {
        for _ in 0..CALLS {
            let name = self.rng.random_range(0..NAMES);
            let at = self.rng.random_range(0..self.clients.len());
            let mut client = self.clients[at].clone();
            let kind = self.rng.random_range(0..3);
            let began = self.clock.fetch_add(1, Ordering::SeqCst);
            let cookie = self.cookie(name);
            let patience = Duration::from_secs(3);
            match kind {
                0 => {
                    let ask: RegisterRequest = asking(&format!("n{name}"), "10.0.0.1:7801");
                    match timeout(patience, client.register(with_cookie(ask, &cookie))).await {
                        Ok(Ok(answer)) => {
                            self.seen.fetch_max(answer.get_ref().revision, Ordering::SeqCst);
                            self.note(name, began, Did::Took(self.number));
                        }
                        Ok(Err(status)) if Reason::of(&status) == Some(Reason::NameTaken) => {
                            self.note(name, began, Did::Refused(self.number));
                        }
                        Ok(Err(status)) if status.message().contains("nothing was changed") => {}
                        _ => self.note(name, began, Did::MayHaveTaken(self.number)),
                    }
                }
                1 => match timeout(patience, leave(&mut client, &cookie)).await {
                    Ok(Ok(revision)) => {
                        self.seen.fetch_max(revision, Ordering::SeqCst);
                        self.note(name, began, Did::Left(self.number));
                    }
                    Ok(Err(status)) if Reason::of(&status) == Some(Reason::CookieUnknown) => {
                        self.note(name, began, Did::HasNone(self.number));
                    }
                    Ok(Err(status)) if status.message().contains("nothing was changed") => {}
                    _ => self.note(name, began, Did::MayHaveLeft(self.number)),
                },
                _ => self.look(client, name, began).await,
            }
        }
    }

    /// A query that is to know all that anybody was told before it.
    async fn look(&mut self, mut client: Client, name: u32, began: u64) {
        let seen = self.seen.load(Ordering::SeqCst);
        let ask = PQueryRequest { name: format!("n{name}"), min_revision: seen, ..PQueryRequest::default() };
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(3), query(&mut client, &self.watcher, ask)).await {
            assert!(answer.revision >= seen, "a query went back in time");
            self.seen.fetch_max(answer.revision, Ordering::SeqCst);
            self.note(name, began, Did::Saw(!answer.peers.is_empty()));
        }
    }
}

async fn workload(seed: u64) {
    let Some(etcd) = Etcd::start() else { return };
    // Names that are given up are free at once, and no lease ends by itself while it runs.
    let config = |config: Config| Config { name_hold: Duration::ZERO, ..config };
    let prefix = format!("/history-{seed}");
    let ttl = Duration::from_secs(600);
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Running::start(config(over(&etcd, &prefix, ttl))).await);
    }
    let to_etcd = Cable::to(etcd.client_port(0)).await;
    let mut cuttable = config(over(&etcd, &prefix, ttl));
    if let State::Etcd(address) = &mut cuttable.state {
        address.endpoints = vec![format!("http://{}", to_etcd.address)];
    }
    replicas.push(Running::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), cuttable).await);
    settled(&replicas).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let (clock, seen, history) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::default());
    let mut calling = JoinSet::new();
    for number in 0..CALLERS {
        let watcher = register(&mut clients[0].clone(), &format!("watcher-{number}"), "10.0.0.1:7801").await;
        let rng = StdRng::seed_from_u64(seed * 100 + u64::from(number));
        let (clock, seen, history) = (Arc::clone(&clock), Arc::clone(&seen), Arc::clone(&history));
        let caller = Caller { number, clients: clients.clone(), rng, clock, history, seen, watcher: watcher.cookie };
        calling.spawn(caller.run());
    }
    let cutting = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            to_etcd.cut();
            tokio::time::sleep(Duration::from_millis(700)).await;
            to_etcd.mend();
        }
    };
    cutting.await;
    while let Some(done) = calling.join_next().await {
        done.unwrap();
    }
    // Whoever asks for all that was acknowledged sees how it ended.
    let last = register(&mut clients[0].clone(), "last", "10.0.0.1:7801").await;
    for name in 0..NAMES {
        let began = clock.fetch_add(1, Ordering::SeqCst);
        let mut seen = Vec::new();
        for client in &clients {
            let ask = PQueryRequest { name: format!("n{name}"), min_revision: last.revision, ..PQueryRequest::default() };
            let answer = eventually("a query", async || query(&mut client.clone(), &last.cookie, ask.clone()).await.ok()).await;
            seen.push(!answer.peers.is_empty());
        }
        assert!(seen.iter().all(|listed| *listed == seen[0]), "replicas differ on n{name}: {seen:?}");
        let ended = clock.fetch_add(1, Ordering::SeqCst);
        history.lock().unwrap().entry(name).or_default().push(Call { began, ended, did: Did::Saw(seen[0]) });
    }
    let history = history.lock().unwrap();
    assert!(history.values().map(Vec::len).sum::<usize>() > 100, "{history:?}");
    for (name, calls) in history.iter() {
        // A refusal gives no revision, so a query may be behind it: what was refused and what was seen are checked apart.
        let (last, others) = calls.split_last().unwrap();
        let without_revision = |call: &Call| match call.did {
            Did::HasNone(caller) => Call { ended: u64::MAX, did: Did::MayHaveLeft(caller), ..*call },
            _ => call.clone(),
        };
        let seen: Vec<Call> = calls.iter().filter(|call| !matches!(call.did, Did::Refused(_))).map(without_revision).collect();
        let mut refused: Vec<Call> = others.iter().filter(|call| !matches!(call.did, Did::Saw(_))).cloned().collect();
        refused.push(last.clone());
        for calls in [seen, refused] {
            assert!(is_linearizable(&calls), "seed {seed}, name n{name}: {calls:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_on_names_are_linearizable_while_a_replica_is_cut_off() {
    for seed in 0..3 {
        workload(seed).await;
    }
}
