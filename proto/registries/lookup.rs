//! Finds the addresses of registries.

use super::choice::Place;
use crate::{
    channel::CONNECT_TIMEOUT,
    endpoint::{Endpoint, is_metadata_service},
};
use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// How long the other names are waited for once there is an address to dial: a resolver that works answers sooner, and one that does not must not
/// keep a peer from a registry whose address is known.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(500);

/// Finds the addresses of one registry, and may block meanwhile.
pub type Lookup = Arc<dyn Fn(&Endpoint) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// What the system's resolver says.
pub(super) fn by_the_system() -> Lookup {
    Arc::new(|registry| Ok((registry.host(), registry.port()).to_socket_addrs()?.collect()))
}

/// A registry whose name has no address now, and why.
pub(super) type Unresolved = (Endpoint, io::Error);

/// The places of all registries. Of a name that cannot be looked up now they are those in `known`.
pub(super) async fn places(registries: &[Endpoint], known: Vec<Place>, lookup: &Lookup) -> (Vec<Place>, Vec<Unresolved>) {
    let (mut places, mut failed) = (known, Vec::new());
    let mut looking = JoinSet::new();
    for registry in registries {
        match registry.ip() {
            Some(ip) => replace(&mut places, registry, vec![SocketAddr::new(ip, registry.port())]),
            None => {
                let (registry, lookup) = (registry.clone(), Arc::clone(lookup));
                looking.spawn_blocking(move || {
                    let found = lookup(&registry).and_then(|addresses| checked(&registry, addresses));
                    (registry, found)
                });
            }
        }
    }
    let begun = Instant::now();
    while !looking.is_empty() {
        let patience = if places.is_empty() { CONNECT_TIMEOUT } else { LOOKUP_PATIENCE };
        match timeout_at(begun + patience, looking.join_next()).await {
            Ok(Some(Ok((registry, Ok(addresses))))) => replace(&mut places, &registry, addresses),
            Ok(Some(Ok((registry, Err(error))))) => failed.push((registry, error)),
            // The runtime reports a panic.
            Ok(Some(Err(_)) | None) => {}
            Err(_) => {
                let late = registries.iter().filter(|registry| places.iter().all(|place| place.registry != **registry));
                let error = || io::Error::new(io::ErrorKind::TimedOut, "its name was not looked up in time");
                failed.extend(late.map(|registry| (registry.clone(), error())));
                break;
            }
        }
    }
    (places, failed)
}

/// Addresses that may be dialled. A name can resolve to anything.
fn checked(registry: &Endpoint, addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{registry} has no address")));
    }
    let fit: Vec<_> = addresses.into_iter().filter(|address| !is_metadata_service(address.ip())).collect();
    if fit.is_empty() {
        let problem = format!("{registry} is a cloud's metadata service, and no registry");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(fit)
}

fn replace(places: &mut Vec<Place>, registry: &Endpoint, addresses: Vec<SocketAddr>) {
    places.retain(|place| place.registry != *registry);
    places.extend(addresses.into_iter().map(|address| Place { registry: registry.clone(), address }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7800))
    }

    fn named(name: &str, last: u8) -> Place {
        Place { registry: name.parse().unwrap(), address: address(last) }
    }

    async fn found(registries: &[&str], known: Vec<Place>, lookup: Lookup) -> (Vec<Place>, Vec<Unresolved>) {
        let registries: Vec<Endpoint> = registries.iter().map(|registry| registry.parse().unwrap()).collect();
        places(&registries, known, &lookup).await
    }

    #[tokio::test]
    async fn a_name_has_all_its_addresses_and_an_address_is_not_looked_up() {
        let lookup: Lookup = Arc::new(|registry| {
            assert_eq!(registry.host(), "r");
            Ok(vec![address(1), address(2)])
        });
        let (places, failed) = found(&["r:7800", "10.0.0.9:7800"], vec![named("r:7800", 7)], lookup).await;
        assert_eq!(places, [named("10.0.0.9:7800", 9), named("r:7800", 1), named("r:7800", 2)]);
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[tokio::test]
    async fn what_is_known_of_a_name_that_cannot_be_looked_up_is_kept() {
        let lookup: Lookup = Arc::new(|_| Err(io::Error::other("no resolver")));
        let (places, failed) = found(&["r:7800"], vec![named("r:7800", 7)], Arc::clone(&lookup)).await;
        assert_eq!((places, failed.len()), (vec![named("r:7800", 7)], 1));
        let (places, failed) = found(&["r:7800"], Vec::new(), lookup).await;
        assert!(places.is_empty() && failed[0].1.to_string() == "no resolver", "{failed:?}");
    }

    #[tokio::test]
    async fn a_metadata_service_is_no_registry() {
        let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
        let (places, failed) = found(&["r:7800"], Vec::new(), Arc::new(move |_| Ok(vec![metadata]))).await;
        assert!(places.is_empty() && failed[0].1.kind() == io::ErrorKind::PermissionDenied, "{failed:?}");
        let (places, failed) = found(&["r:7800"], Vec::new(), Arc::new(move |_| Ok(vec![metadata, address(1)]))).await;
        assert!(places == [named("r:7800", 1)] && failed.is_empty(), "{failed:?}");
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_does_not_hold_up_a_registry_whose_address_is_known() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let lookup: Lookup = Arc::new(move |_| {
            // Until the end of the test.
            let _ended = released.lock().unwrap().recv();
            Ok(vec![address(1)])
        });
        let (places, _) = found(&["slow:7800", "10.0.0.9:7800"], Vec::new(), lookup).await;
        assert_eq!(places, [named("10.0.0.9:7800", 9)]);
        drop(release);
    }
}
