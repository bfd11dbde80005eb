//! Registration under the names of a certificate.

use crate::{Network, dial, id_of, support::within};
use p2pdi::{
    cookie::COOKIE_HEADER,
    endpoint::Endpoint,
    id::PeerId,
    status::Reason,
    tls::{Expected, Tls},
    v1::{KeepAliveRequest, RegisterRequest, RegisterResponse, registry_client::RegistryClient},
};
use tonic::{Request, Status};

fn as_peer(name: &str, endpoint: &str) -> RegisterRequest {
    RegisterRequest { name: name.into(), endpoint: endpoint.into(), ..Default::default() }
}

async fn register(network: &Network, tls: &Tls, request: RegisterRequest) -> Result<RegisterResponse, Status> {
    let endpoint: Endpoint = network.registry.into();
    let channel = dial(tls).connect(&endpoint, Expected::Registry(endpoint.clone())).await.unwrap();
    within("an answer", RegistryClient::new(channel).register(request)).await.map(tonic::Response::into_inner)
}

fn assert_not_yours<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    let status = outcome.unwrap_err();
    assert_eq!((Reason::of(&status), status.code()), (Some(Reason::NameNotYours), tonic::Code::PermissionDenied), "{status:?}");
}

#[tokio::test]
async fn a_live_name_is_taken_by_nobody_else_and_moved_by_nobody_else() {
    let network = Network::new().await;
    let (victim, thief) = (network.authority.peer("victim"), network.authority.peer("thief"));
    let first = register(&network, &victim, as_peer("victim", "127.0.0.1:9001")).await.unwrap();
    assert_eq!(first.peer.unwrap().id, id_of("victim").to_field());
    // From the address of the victim; to its endpoint, and to another.
    assert_not_yours(register(&network, &thief, as_peer("victim", "127.0.0.1:9001")).await);
    assert_not_yours(register(&network, &thief, as_peer("VICTIM", "127.0.0.1:9666")).await);
    // With the id of the victim under a name of its own, or with the lowest of all.
    for id in [id_of("victim"), PeerId::from_u128(0)] {
        assert_not_yours(
            register(&network, &thief, RegisterRequest { id: id.to_field(), ..as_peer("thief", "127.0.0.1:9666") }).await,
        );
    }
    register(&network, &thief, as_peer("thief", "127.0.0.1:9666")).await.unwrap();
    network.stop().await;
}

#[tokio::test]
async fn an_owner_takes_its_name_back_without_its_cookie_and_the_old_cookie_ends() {
    let network = Network::new().await;
    let owner = network.authority.peer("owner");
    let first = register(&network, &owner, as_peer("owner", "127.0.0.1:9001")).await.unwrap();
    let second = register(&network, &owner, as_peer("owner", "127.0.0.1:9002")).await.unwrap();
    assert_eq!(second.peer.unwrap().endpoint, "127.0.0.1:9002");
    let endpoint: Endpoint = network.registry.into();
    let channel = dial(&owner).connect(&endpoint, Expected::Registry(endpoint.clone())).await.unwrap();
    let mut request = Request::new(KeepAliveRequest::default());
    request.metadata_mut().insert(COOKIE_HEADER, first.cookie.parse().unwrap());
    let status = within("an answer", RegistryClient::new(channel).keep_alive(request)).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::CookieUnknown));
    network.stop().await;
}

#[tokio::test]
async fn one_host_has_the_registrations_of_its_certificate_and_no_more() {
    let network = Network::new().await;
    let host = network.authority.issue(&["host", "also-host"], "peer/host");
    for name in ["other-1", "other-2", "other-3"] {
        assert_not_yours(register(&network, &host, as_peer(name, "127.0.0.1:9001")).await);
    }
    for name in ["host", "also-host"] {
        register(&network, &host, as_peer(name, "127.0.0.1:9001")).await.unwrap();
    }
    network.stop().await;
}

#[tokio::test]
async fn programs_observe_below_the_name_of_their_certificate() {
    let network = Network::new().await;
    let (peer, operator) = (network.authority.peer("host"), network.authority.issue(&[], "operator/alice"));
    register(&network, &peer, as_peer("host", "127.0.0.1:9001")).await.unwrap();
    let observer = |name: &str| RegisterRequest { name: name.into(), observer: true, ..Default::default() };
    // Under its own name also while the peer is there: they are one.
    for (tls, name) in [(&peer, "host"), (&peer, "p2pctl-1.host"), (&operator, "alice"), (&operator, "p2pctl-2.alice")] {
        register(&network, tls, observer(name)).await.unwrap_or_else(|status| panic!("{name}: {status}"));
    }
    for (tls, name) in [(&peer, "alice"), (&peer, "p2pctl-1.alice"), (&operator, "host"), (&operator, "a.b.alice")] {
        assert_not_yours(register(&network, tls, observer(name)).await);
    }
    // An operator is no peer, and a peer has no names below its own.
    assert_not_yours(register(&network, &operator, as_peer("alice", "127.0.0.1:9001")).await);
    assert_not_yours(register(&network, &peer, as_peer("p2pctl-1.host", "127.0.0.1:9001")).await);
    network.stop().await;
}
