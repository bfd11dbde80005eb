//! Limits on concurrent work for callers: permits in all, and fewer for callers from one address, so that one machine cannot take all of
//! them.

use p2pdi::endpoint::client_network;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// The permits for one kind of work.
pub struct Admission {
    all: Arc<Semaphore>,
    most: usize,
    of_an_address: usize,
    /// Addresses that hold a permit or wait for one.
    addresses: Mutex<BTreeMap<IpAddr, Weak<Semaphore>>>,
}

/// Allows one piece of work until it is dropped.
pub struct Permit {
    _of_all: OwnedSemaphorePermit,
    _of_the_address: OwnedSemaphorePermit,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// All permits are taken.
    Exhausted,
    /// All permits for the caller's address are taken.
    ExhaustedByAddress,
}

impl Admission {
    /// `most` permits in all, and at most `of_an_address` of them for callers from one address.
    pub fn new(most: usize, of_an_address: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), most, of_an_address, addresses: Mutex::default() }
    }

    /// Number of permits taken.
    pub fn taken(&self) -> usize {
        self.most - self.all.available_permits().min(self.most)
    }

    /// A permit for `caller`, after waiting for at most `wait`. Callers without a known address count as one address.
    ///
    /// # Errors
    /// When no permit became free in time.
    pub async fn acquire(&self, caller: Option<IpAddr>, wait: Duration) -> Result<Permit, Rejected> {
        let until = Instant::now() + wait;
        let share = self.share_of(caller.map_or(Ipv4Addr::UNSPECIFIED.into(), client_network));
        // The semaphores are never closed: only the timeout can fail.
        let Ok(Ok(of_the_address)) = timeout_at(until, share.acquire_owned()).await else {
            return Err(Rejected::ExhaustedByAddress);
        };
        let Ok(Ok(of_all)) = timeout_at(until, Arc::clone(&self.all).acquire_owned()).await else {
            return Err(Rejected::Exhausted);
        };
        Ok(Permit { _of_all: of_all, _of_the_address: of_the_address })
    }

    fn share_of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = addresses.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        addresses.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.of_an_address));
        addresses.insert(address, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn one_address_is_limited_and_so_are_all_together() {
        let admission = Admission::new(4, 3);
        let [a, b, a_as_v6] = ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"].map(|ip| Some(ip.parse().unwrap()));
        let mut of_a = Vec::new();
        for caller in [a, a_as_v6, a] {
            of_a.push(admission.acquire(caller, NONE).await.ok().unwrap());
        }
        assert_eq!(admission.acquire(a_as_v6, NONE).await.err(), Some(Rejected::ExhaustedByAddress));
        let of_b = admission.acquire(b, NONE).await.ok().unwrap();
        assert_eq!(admission.acquire(b, NONE).await.err(), Some(Rejected::Exhausted));
        assert_eq!(admission.taken(), 4);
        drop(of_b);
        assert!(admission.acquire(None, NONE).await.is_ok());
        of_a.pop();
        assert!(admission.acquire(a, NONE).await.is_ok());
        drop(of_a);
        assert_eq!(admission.taken(), 0);
    }

    #[tokio::test]
    async fn addresses_without_permits_are_forgotten() {
        let admission = Admission::new(1, 1);
        for address in 1..1_000_u32 {
            assert!(admission.acquire(Some(Ipv4Addr::from(address).into()), NONE).await.is_ok());
        }
        assert!(admission.addresses.lock().unwrap().len() <= 1);
    }
}
