//! How many leases callers from one address hold.

use std::{collections::BTreeMap, net::Ipv6Addr};

/// Leases by address. IPv6 callers count by their /64, which one machine has for itself.
#[derive(Default)]
pub(super) struct Addresses(BTreeMap<u64, u32>);

fn key(address: Ipv6Addr) -> Option<u64> {
    if address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()) {
        // Whoever is on the registry's own machine can do worse than register.
        return None;
    }
    let whole = address.to_bits();
    Some(match address.to_ipv4_mapped() {
        // A network 0:0:0:0 has no addresses in use but these.
        Some(v4) => u64::from(v4.to_bits()),
        None => u64::try_from(whole >> 64).unwrap_or_default(),
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
    fn addresses_of_one_network_count_together_and_loopback_not_at_all() {
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
