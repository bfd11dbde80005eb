//! Places for what a peer does for others at once: so many in all, and fewer for callers from one address, so that one machine cannot take
//! all of them.

use p2pdi::endpoint::machine;
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

/// The places for one kind of work.
pub struct Places {
    all: Arc<Semaphore>,
    most: usize,
    of_an_address: usize,
    /// Addresses that have a place or wait for one.
    addresses: Mutex<BTreeMap<IpAddr, Weak<Semaphore>>>,
}

/// A place, until it is dropped.
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_the_address: OwnedSemaphorePermit,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Taken,
    /// The caller's address has its share.
    TakenByAddress,
}

impl Places {
    /// This many, and for callers from one address no more than `of_an_address` of them.
    pub fn new(most: usize, of_an_address: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), most, of_an_address, addresses: Mutex::default() }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.most - self.all.available_permits().min(self.most)
    }

    /// A place for `caller`, waited for for at most so long. Callers whose address is not known share one.
    ///
    /// # Errors
    /// When none became free.
    pub async fn place(&self, caller: Option<IpAddr>, wait: Duration) -> Result<Place, NoPlace> {
        let until = Instant::now() + wait;
        let share = self.share_of(caller.map_or(Ipv4Addr::UNSPECIFIED.into(), machine));
        // Neither is ever closed, so only time can fail them.
        let Ok(Ok(of_the_address)) = timeout_at(until, share.acquire_owned()).await else { return Err(NoPlace::TakenByAddress) };
        let Ok(Ok(of_all)) = timeout_at(until, Arc::clone(&self.all).acquire_owned()).await else { return Err(NoPlace::Taken) };
        Ok(Place { _of_all: of_all, _of_the_address: of_the_address })
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
    async fn one_address_has_its_share_and_all_together_no_more_than_there_are() {
        let places = Places::new(4, 3);
        let [a, b, a_as_v6] = ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"].map(|ip| Some(ip.parse().unwrap()));
        let mut of_a = Vec::new();
        for caller in [a, a_as_v6, a] {
            of_a.push(places.place(caller, NONE).await.ok().unwrap());
        }
        assert_eq!(places.place(a_as_v6, NONE).await.err(), Some(NoPlace::TakenByAddress));
        let of_b = places.place(b, NONE).await.ok().unwrap();
        assert_eq!(places.place(b, NONE).await.err(), Some(NoPlace::Taken));
        assert_eq!(places.taken(), 4);
        drop(of_b);
        assert!(places.place(None, NONE).await.is_ok());
        of_a.pop();
        assert!(places.place(a, NONE).await.is_ok());
        drop(of_a);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test]
    async fn addresses_are_forgotten() {
        let places = Places::new(1, 1);
        for address in 1..1_000_u32 {
            assert!(places.place(Some(Ipv4Addr::from(address).into()), NONE).await.is_ok());
        }
        assert!(places.addresses.lock().unwrap().len() <= 1);
    }
}
