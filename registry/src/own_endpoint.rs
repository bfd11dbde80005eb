//! Whether an endpoint belongs to the caller that gives it: others dial it, so nobody may send them to somebody else.

use p2pdi::{
    endpoint::{Endpoint, client_network},
    name::PeerName,
    server::Caller,
    status::Reason,
    tls::Identity,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::lookup_host, sync::Semaphore, time::timeout};
use tonic::Status;

/// Time limit for the addresses of one name, waiting included: most resolvers answer in some milliseconds, and the caller tries again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Names looked up at the same time. Each takes a thread of the runtime, and a caller chooses how slow its name server is.
const LOOKUPS_MAX: usize = 16;

/// Which endpoints callers may give.
#[derive(Clone)]
pub(crate) struct OwnEndpoint {
    allow_foreign: bool,
    lookups: Arc<Semaphore>,
}

impl OwnEndpoint {
    /// `allow_foreign`: any endpoint.
    pub(crate) fn new(allow_foreign: bool) -> Self {
        Self { allow_foreign, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Whether the host of `endpoint` is a name or an address in the certificate of `caller`, or it has the address that `caller` calls from
    /// (the same /64 of IPv6), or is a name with that address. Callers on this machine may give any: a port forward, or the address of a
    /// container, is theirs to know.
    ///
    /// # Errors
    /// `ENDPOINT_FOREIGN` when it is not the caller's.
    pub(crate) async fn check(&self, endpoint: &Endpoint, caller: Option<&Caller>) -> Result<(), Status> {
        let Some(caller) = caller.filter(|caller| !self.allow_foreign && !caller.is_local_machine()) else { return Ok(()) };
        if caller.identity().is_some_and(|identity| is_carried(endpoint, identity)) {
            return Ok(());
        }
        let from = caller.address().ip().to_canonical();
        if let Ok(address) = endpoint.host().parse::<IpAddr>() {
            return if is_same(address, from) { Ok(()) } else { Err(foreign(endpoint, from, "is not")) };
        }
        let addresses = async {
            // The semaphore is never closed.
            let _permit = self.lookups.acquire().await;
            lookup_host((endpoint.host(), endpoint.port())).await.map(Iterator::collect::<Vec<SocketAddr>>)
        };
        match timeout(LOOKUP_TIMEOUT, addresses).await {
            Ok(Ok(addresses)) if addresses.iter().any(|address| is_same(address.ip(), from)) => Ok(()),
            Ok(Ok(_)) => Err(foreign(endpoint, from, "has not")),
            Ok(Err(_)) | Err(_) => Err(foreign(endpoint, from, "cannot be looked up here, so it is unknown whether it has")),
        }
    }
}

/// Whether the certificate says that the host is its holder's. Loopback is everybody's: whoever dials it reaches itself.
fn is_carried(endpoint: &Endpoint, identity: &Identity) -> bool {
    let host = endpoint.host();
    match host.parse::<IpAddr>() {
        Ok(address) if address.to_canonical().is_loopback() => false,
        // In the spelling that a certificate's addresses have here.
        Ok(address) => identity.is_for_host(&address.to_string()),
        Err(_) if host.eq_ignore_ascii_case("localhost") => false,
        Err(_) => identity.is_for_host(host) || host.parse::<PeerName>().is_ok_and(|name| identity.has_name(&name)),
    }
}

fn is_same(address: IpAddr, from: IpAddr) -> bool {
    client_network(address) == client_network(from)
}

fn foreign(endpoint: &Endpoint, from: IpAddr, why: &str) -> Status {
    let own = SocketAddr::new(from, endpoint.port());
    Reason::EndpointForeign.status(format!(
        "the endpoint {endpoint} {why} the address that you call this registry from, {from}. Behind a NAT, forward a port and give \
         --advertise {own} (p2pctl: --endpoint). A registry that should take any endpoint runs with --allow-foreign-endpoints"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_callers_if_it_is_the_same_or_of_the_same_ipv6_network() {
        for (address, from, same) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("192.0.2.8", "192.0.2.7", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8:0:1::1", "2001:db8::2", false),
            ("127.0.0.1", "192.0.2.7", false),
        ] {
            assert_eq!(is_same(address.parse().unwrap(), from.parse().unwrap()), same, "{address} {from}");
        }
    }

    #[test]
    fn an_endpoint_is_the_callers_if_its_certificate_has_the_host_as_a_name_or_an_address() {
        let names = ["fff-a", "a.example", "*.b.example", "192.0.2.7", "2001:db8::7", "127.0.0.1", "localhost"];
        let certificate = rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap().cert;
        let identity = Identity::of_chain(vec![certificate.der().clone()]).unwrap();
        for (endpoint, carried) in [
            ("fff-a:7801", true),
            ("A.example:7801", true),
            ("192.0.2.7:7801", true),
            ("[2001:db8::7]:7801", true),
            ("192.0.2.8:7801", false),
            ("x.b.example:7801", false),
            ("c.example:7801", false),
            ("127.0.0.1:7801", false),
            ("localhost:7801", false),
        ] {
            assert_eq!(is_carried(&endpoint.parse().unwrap(), &identity), carried, "{endpoint}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_advertise() {
        let status = foreign(&"10.0.0.9:7801".parse().unwrap(), "192.0.2.7".parse().unwrap(), "is not");
        assert_eq!(Reason::of(&status), Some(Reason::EndpointForeign));
        assert!(status.message().contains("--advertise 192.0.2.7:7801"), "{}", status.message());
    }
}
