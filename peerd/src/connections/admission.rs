//! Admission control: limits work in progress, in total and for each client address, so that one machine cannot take all permits.

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
pub(crate) struct Admission {
    total: Arc<Semaphore>,
    max: usize,
    max_per_address: usize,
    /// Addresses that hold a permit or wait for one.
    by_address: Mutex<BTreeMap<IpAddr, Weak<Semaphore>>>,
}

/// Allows one piece of work until it is dropped.
pub(crate) struct Permit {
    _total: OwnedSemaphorePermit,
    _by_address: OwnedSemaphorePermit,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// All permits are taken.
    Exhausted,
    /// All permits for the caller's address are taken.
    ExhaustedByAddress,
}

impl Admission {
    /// `max` permits in total, and at most `max_per_address` of them for callers from one address.
    pub(crate) fn new(max: usize, max_per_address: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(max)), max, max_per_address, by_address: Mutex::default() }
    }

    /// Number of permits taken.
    pub(crate) fn taken(&self) -> usize {
        self.max - self.total.available_permits().min(self.max)
    }

    /// A permit for `caller`, after waiting for at most `wait`. Callers without a known address count as one address.
    ///
    /// # Errors
    /// When no permit became free in time.
    pub(crate) async fn acquire(&self, caller: Option<IpAddr>, wait: Duration) -> Result<Permit, Rejected> {
        let deadline = Instant::now() + wait;
        let address = self.permits_of(caller.map_or(Ipv4Addr::UNSPECIFIED.into(), client_network));
        // The semaphores are never closed: only the timeout can fail.
        let Ok(Ok(by_address)) = timeout_at(deadline, address.acquire_owned()).await else {
            return Err(Rejected::ExhaustedByAddress);
        };
        let Ok(Ok(total)) = timeout_at(deadline, Arc::clone(&self.total).acquire_owned()).await else {
            return Err(Rejected::Exhausted);
        };
        Ok(Permit { _total: total, _by_address: by_address })
    }

    fn permits_of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = by_address.get(&address).and_then(Weak::upgrade) {
            return permits;
        }
        by_address.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(self.max_per_address));
        by_address.insert(address, Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn permits_are_limited_in_total_and_for_each_address() {
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
        assert!(admission.by_address.lock().unwrap().len() <= 1);
    }
}
