//! How many leases callers from one address hold.

use p2pdi::endpoint::client_network;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

/// Leases by client network: an IPv4 address, or the /64 of an IPv6 address. Eight bytes each: a million peers may have as many
/// addresses. No client has an address in ::/64, so the two kinds do not collide.
#[derive(Default)]
pub(super) struct Addresses(BTreeMap<u64, u32>);

/// `None` for loopback, which is not limited: a user of the registry's own machine can do worse than register.
fn key(address: Ipv6Addr) -> Option<u64> {
    if address.to_canonical().is_loopback() {
        return None;
    }
    Some(match client_network(IpAddr::V6(address)) {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(network) => u64::try_from(network.to_bits() >> 64).unwrap_or_default(),
    })
}

impl Addresses {
    pub(super) fn count(&self, address: Ipv6Addr) -> u32 {
        key(address).and_then(|key| self.0.get(&key)).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, address: Ipv6Addr) {
        if let Some(key) = key(address) {
            *self.0.entry(key).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, address: Ipv6Addr) {
        let Some(key) = key(address) else { return };
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_count_together_and_loopback_does_not_count() {
        let mut addresses = Addresses::default();
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        addresses.add(address("2001:db8::1"));
        addresses.add(address("2001:db8::2"));
        addresses.add(address("::ffff:10.0.0.1"));
        addresses.add(address("::1"));
        addresses.add(address("::ffff:127.0.0.9"));
        assert_eq!(addresses.count(address("2001:db8::ffff")), 2);
        assert_eq!(addresses.count(address("::ffff:10.0.0.1")), 1);
        assert_eq!(addresses.count(address("::ffff:10.0.0.2")), 0);
        assert_eq!(addresses.count(address("::1")), 0);
        addresses.remove(address("2001:db8::1"));
        addresses.remove(address("2001:db8::1"));
        assert!(!addresses.0.contains_key(&key(address("2001:db8::")).unwrap()));
    }
}
