//! The endpoint that a peer advertises while the addresses of its machine change.

use crate::support::{
    eventually,
    peer::{Peer, client, config},
    registry::CountingRegistry,
};
use p2pdi::v1::PingRequest;
use peerd::config::RouteLookup;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

#[tokio::test]
async fn a_peer_waits_for_an_address_and_registers_again_when_it_changes() {
    let registry = CountingRegistry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("sharer", &folder);
    config.share = None;
    config.registries = vec![registry.address.into()];
    let address = Arc::new(Mutex::new(None::<IpAddr>));
    let source = Arc::clone(&address);
    config.routes = RouteLookup::new(move |_| *source.lock().unwrap());
    let peer = Peer::listening_on("0.0.0.0:0", config, folder).await;
    let port = peer.address.port();
    eventually("the status to say what is missing", async || {
        peer.handle.session().status().detail.contains("no address yet").then_some(())
    })
    .await;
    assert_eq!(registry.registered(), 0);

    // Another address of loopback, so that both can be dialled.
    let expected: Vec<_> = [[127, 0, 0, 2], [127, 0, 0, 3]].map(Ipv4Addr::from).into();
    for (index, ip) in expected.iter().enumerate() {
        *address.lock().unwrap() = Some((*ip).into());
        eventually("a registration", async || (registry.registered() == index + 1).then_some(())).await;
        let endpoint = SocketAddr::from((*ip, port)).to_string();
        assert_eq!(registry.endpoints()[index], endpoint);
        assert_eq!(peer.handle.contact().endpoint().as_str(), endpoint);
        eventually("ListPeers and Ping to answer with it", async || {
            let ping = client((*ip, port).into()).ping(PingRequest {}).await.ok()?.into_inner();
            let listed = peer.handle.mesh().view().me.endpoint().to_string();
            (ping.endpoint == endpoint && listed == endpoint).then_some(())
        })
        .await;
    }
    // Without an address the last one stays.
    *address.lock().unwrap() = None;
    assert_eq!(peer.handle.contact().endpoint().host(), "127.0.0.3");
}
