//! Peers with several registries: replicas that refuse, hang or end, names with several addresses, and registries that are no replicas.

use super::{front::Front, *};
use p2pdi::{
    channel::Dial,
    endpoint::Endpoint,
    registries::{Lookup, RegistryChannel},
    status::{self, Reason},
    v1::AnnounceRequest,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Instant,
};

/// The lease of these peers.
const LEASE: Duration = Duration::from_secs(3);

async fn registry() -> Running {
    Running::start_with(Config { state: State::Memory, ttl: LEASE, name_hold: NAME_HOLD, ..Config::default() }).await
}

async fn member_of(name: &str, registries: &[SocketAddr]) -> Peer {
    Peer::configured(&[], |config| {
        config.name = name.parse().unwrap();
        config.registries = registries.iter().map(|registry| (*registry).into()).collect();
    })
    .await
}

/// Which of `registries` the peer uses.
fn used(peer: &Peer, registries: &[SocketAddr]) -> usize {
    let registry = peer.handle.session().status().registry;
    let at = registries.iter().position(|address| registry == format!("http://{address}"));
    at.unwrap_or_else(|| panic!("it uses none of {registries:?}: {registry}"))
}

/// For two leases the peer is listed, its session is registered without a break, and it uses the registry at `now` in the end.
async fn stays_registered(peer: &Peer, registry: SocketAddr, now: SocketAddr) {
    let name = peer.handle.identity().name().to_string();
    let before = peer.handle.session().status();
    let begun = Instant::now();
    while begun.elapsed() < 2 * LEASE {
        assert_eq!(active(registry).await, [name.as_str()]);
        support::pause().await;
    }
    let status = peer.handle.session().status();
    assert_eq!((status.since, status.registrations), (before.since, before.registrations), "{status:?}");
    assert_eq!(status.registry, format!("http://{now}"));
    assert_eq!(status.detail, format!("registered as {name} at {now}"));
}

#[tokio::test]
async fn a_peer_whose_replica_refuses_every_call_moves_and_never_loses_its_lease() {
    let registry = registry().await;
    let fronts = [Front::of(registry.address).await, Front::of(registry.address).await];
    let addresses = fronts.each_ref().map(|front| front.address);
    let peer = member_of("mover", &addresses).await;
    until(&peer, SessionState::Registered).await;
    let first = used(&peer, &addresses);
    assert_eq!(fronts[1 - first].calls(), 0, "one registry is used at a time");
    fronts[first].refuse();
    stays_registered(&peer, registry.address, addresses[1 - first]).await;
    // Its former replica is not asked any more, though it works again, until the other one refuses.
    fronts[first].accept();
    let calls = fronts[first].calls();
    stays_registered(&peer, registry.address, addresses[1 - first]).await;
    assert_eq!(fronts[first].calls(), calls);
    fronts[1 - first].refuse();
    stays_registered(&peer, registry.address, addresses[first]).await;
    peer.stop().await;
    assert!(active(registry.address).await.is_empty(), "it leaves");
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_whose_replica_hangs_or_breaks_moves_and_never_loses_its_lease() {
    let registry = registry().await;
    let proxies = [Proxy::to(registry.address).await, Proxy::to(registry.address).await];
    let addresses = proxies.each_ref().map(|proxy| proxy.address);
    let peer = member_of("mover", &addresses).await;
    until(&peer, SessionState::Registered).await;
    let first = used(&peer, &addresses);
    proxies[first].stop_answering();
    stays_registered(&peer, registry.address, addresses[1 - first]).await;
    proxies[first].open(registry.address);
    proxies[1 - first].close();
    stays_registered(&peer, registry.address, addresses[first]).await;
    peer.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_starts_with_whichever_replica_works() {
    let registry = registry().await;
    let (closed, silent) = (Proxy::closed().await, Proxy::closed().await);
    silent.stop_answering();
    let refusing = Front::of(registry.address).await;
    refusing.refuse();
    let addresses = [closed.address, silent.address, refusing.address, registry.address];
    for name in ["a", "b", "c"] {
        let peer = member_of(name, &addresses).await;
        until(&peer, SessionState::Registered).await;
        assert_eq!(used(&peer, &addresses), 3);
        peer.stop().await;
    }
    registry.stop().await;
}

#[tokio::test]
async fn peers_spread_over_the_replicas() {
    let registry = registry().await;
    let fronts = [Front::of(registry.address).await, Front::of(registry.address).await, Front::of(registry.address).await];
    let registries = fronts.each_ref().map(|front| Endpoint::from(front.address));
    // That 40 of them leave one out has a probability of 3 × (2/3)^40.
    let mut used = BTreeSet::new();
    for _ in 0..40 {
        let channel = RegistryChannel::new(&registries, Dial::default());
        announce(&channel).await.unwrap_err();
        used.insert(channel.in_use().unwrap().address);
    }
    assert_eq!(used.len(), 3, "{used:?}");
    registry.stop().await;
}

/// One call. A registry that answers it refuses it, for want of a cookie.
async fn announce(channel: &RegistryChannel) -> Result<(), tonic::Status> {
    let mut client = RegistryClient::new(channel.clone());
    within("an answer", client.announce(AnnounceRequest::default())).await.map(drop)
}

async fn is_answered(channel: &RegistryChannel) {
    let refused = announce(channel).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::CookieMissing), "{refused:?}");
}

#[tokio::test]
async fn a_name_with_several_addresses_is_resolved_anew_when_one_fails() {
    let registry = registry().await;
    let fronts = [Front::of(registry.address).await, Front::of(registry.address).await, Front::of(registry.address).await];
    let addresses = fronts.each_ref().map(|front| front.address);
    let (resolves_to, lookups) = (Arc::new(Mutex::new(addresses[..2].to_vec())), Arc::new(Mutex::new(0)));
    let (now, count) = (Arc::clone(&resolves_to), Arc::clone(&lookups));
    let lookup: Lookup = Arc::new(move |_| {
        *count.lock().unwrap() += 1;
        Ok(now.lock().unwrap().clone())
    });
    let channel = RegistryChannel::with_lookup(&["registry.test:7800".parse().unwrap()], Dial::default(), lookup);
    assert_eq!(channel.to_string(), "registry.test:7800");
    is_answered(&channel).await;
    is_answered(&channel).await;
    assert_eq!(*lookups.lock().unwrap(), 1, "a connection that works is kept");
    let place = channel.in_use().unwrap();
    assert_eq!(channel.to_string(), "registry.test:7800 (127.0.0.1)");
    let first = addresses.iter().position(|address| *address == place.address).unwrap();
    fronts[first].refuse();
    is_answered(&channel).await;
    assert_eq!(channel.in_use().unwrap().address, addresses[1 - first]);
    assert_eq!(*lookups.lock().unwrap(), 2);
    // All pods are replaced.
    *resolves_to.lock().unwrap() = vec![addresses[2]];
    fronts[1 - first].refuse();
    is_answered(&channel).await;
    assert_eq!(channel.in_use().unwrap().address, addresses[2]);
    registry.stop().await;
}

#[tokio::test]
async fn a_connection_behind_one_address_that_broke_is_made_again_at_once() {
    let registry = registry().await;
    let proxy = Proxy::to(registry.address).await;
    let channel = RegistryChannel::new(&[proxy.address.into()], Dial::default());
    for _ in 0..3 {
        is_answered(&channel).await;
        proxy.close();
        proxy.open(registry.address);
    }
    is_answered(&channel).await;
    registry.stop().await;
}

#[tokio::test]
async fn when_all_replicas_refuse_the_soonest_time_to_call_again_counts() {
    let registry = registry().await;
    let fronts = [Front::of(registry.address).await, Front::of(registry.address).await, Front::of(registry.address).await];
    for (front, seconds) in fronts.iter().zip([7, 2, 30]) {
        front.refuse_for(Duration::from_secs(seconds));
    }
    let channel = RegistryChannel::new(&fronts.each_ref().map(|front| front.address.into()), Dial::default());
    let refused = announce(&channel).await.unwrap_err();
    assert_eq!(status::retry_after(&refused), Some(Duration::from_secs(2)), "{refused:?}");
    assert!(fronts.iter().all(|front| front.calls() == 1));
    // Nobody answered, so there is none in use, and all of them are named.
    assert_eq!(channel.to_string(), fronts.each_ref().map(|front| front.address.to_string()).join(", "));
    fronts[2].accept();
    is_answered(&channel).await;
    registry.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_each_registry_is_said() {
    let mut closed = Vec::new();
    for _ in 0..2 {
        closed.push(Endpoint::from(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()));
    }
    let closing = Proxy::closed().await;
    let one = announce(&RegistryChannel::new(&closed[..1], Dial::default())).await.unwrap_err();
    let two = announce(&RegistryChannel::new(&closed, Dial::default())).await.unwrap_err();
    assert_eq!(status::describe(&one), status::describe(&two), "the same of both");
    assert!(status::describe(&one).contains("refused"), "{one:?}");
    let mixed = announce(&RegistryChannel::new(&[closed[0].clone(), closing.address.into()], Dial::default())).await.unwrap_err();
    let said = status::describe(&mixed);
    assert!(said.contains(&format!("{}: ", closed[0])) && said.contains(&format!("{}: ", closing.address)), "{said}");
}

#[tokio::test]
async fn replicas_that_are_drained_one_by_one_fail_no_call() {
    let registry = registry().await;
    let mut fronts = Vec::new();
    for _ in 0..3 {
        fronts.push(Front::of(registry.address).await);
    }
    let registries: Vec<Endpoint> = fronts.iter().map(|front| front.address.into()).collect();
    let channel = RegistryChannel::new(&registries, Dial::default());
    let ended = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (channel, ended) = (channel.clone(), ended.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !ended.is_cancelled() {
                    is_answered(&channel).await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..2 {
        eventually("a registry in use", async || channel.in_use().map(drop)).await;
        let used = channel.in_use().unwrap().address;
        let at = fronts.iter().position(|front| front.address == used).unwrap();
        fronts.swap_remove(at).drain().await;
        let left = &fronts;
        eventually("a move", async || {
            let now = channel.in_use().unwrap().address;
            left.iter().any(|front| front.address == now).then_some(())
        })
        .await;
    }
    ended.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_does_not_move_back_and_forth_between_registries_that_are_no_replicas() {
    let registries = [registry().await, registry().await];
    let proxies = [Proxy::to(registries[0].address).await, Proxy::to(registries[1].address).await];
    let addresses = proxies.each_ref().map(|proxy| proxy.address);
    let peer = member_of("settler", &addresses).await;
    until(&peer, SessionState::Registered).await;
    let cookie = || fs::read_to_string(peer.folder.path().join("state/cookie")).unwrap();
    let (first, before) = (used(&peer, &addresses), cookie());
    proxies[first].close();
    let there = registries[1 - first].address;
    eventually("a registration there", async || (active(there).await == ["settler"]).then_some(())).await;
    eventually("its end", async || (peer.handle.session().status().registrations == 2).then_some(())).await;
    proxies[first].open(registries[first].address);
    assert_eq!(cookie(), before, "it registers with the cookie that it has");
    until(&peer, SessionState::Registered).await;
    stays_registered(&peer, there, addresses[1 - first]).await;
    assert!(active(registries[first].address).await.is_empty());
    peer.stop().await;
    for registry in registries {
        registry.stop().await;
    }
}
