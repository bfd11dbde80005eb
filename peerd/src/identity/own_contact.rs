//! This peer's own contact. Its endpoint is worked out anew while the peer runs: an interface may get its address later, or another one.

use p2pdi::{backoff::Backoff, contact::Contact, endpoint::Endpoint};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// How often the endpoint is worked out anew. A guess: an address that changed is noticed well within a lease.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How long that may take before the endpoint of the last time is used: it may ask a name server that does not answer.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Works out the endpoint at which others reach this peer; `None` if there is none now. It may block.
pub type DeriveEndpoint = Arc<dyn Fn() -> Option<Endpoint> + Send + Sync>;

/// There is no address at which others can dial this peer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this machine has no address yet that other peers can dial; --advertise HOST:PORT sets one")]
pub struct NoAddress;

/// This peer's id, name, and the endpoint it advertises. Cheap to clone; clones see the same endpoint.
#[derive(Clone)]
pub struct OwnContact(Arc<Shared>);

struct Shared {
    contact: watch::Sender<Contact>,
    /// `None`: the endpoint never changes.
    derive: Option<DeriveEndpoint>,
    /// The endpoint is one that others can dial, not the placeholder.
    known: AtomicBool,
}

impl OwnContact {
    /// A contact that never changes.
    pub fn fixed(contact: Contact) -> Self {
        Self(Arc::new(Shared { contact: watch::Sender::new(contact), derive: None, known: AtomicBool::new(true) }))
    }

    /// A contact whose endpoint `derive` works out, now and later. `contact` has the endpoint to use while there is none.
    pub fn derived(contact: Contact, derive: DeriveEndpoint) -> Self {
        let own = Self(Arc::new(Shared {
            contact: watch::Sender::new(contact),
            known: AtomicBool::new(false),
            derive: Some(Arc::clone(&derive)),
        }));
        own.set(derive());
        own
    }

    /// The contact as of now.
    pub fn get(&self) -> Contact {
        self.0.contact.borrow().clone()
    }

    /// The contact, and a notification when it changes.
    pub fn changes(&self) -> watch::Receiver<Contact> {
        self.0.contact.subscribe()
    }

    /// Works out the endpoint anew.
    ///
    /// # Errors
    /// When there has been none so far.
    pub async fn refresh(&self) -> Result<Contact, NoAddress> {
        if let Some(derive) = self.0.derive.clone() {
            let derived = timeout(REFRESH_TIMEOUT, spawn_blocking(move || derive())).await;
            self.set(derived.ok().and_then(Result::ok).flatten());
        }
        if self.0.known.load(Ordering::Relaxed) { Ok(self.get()) } else { Err(NoAddress) }
    }

    /// Works out the endpoint anew every few seconds, for ever; more often while there is none.
    pub async fn keep_fresh(&self) {
        let mut backoff = Backoff::default();
        loop {
            let pause = match self.refresh().await {
                Ok(_) if self.0.derive.is_none() => return std::future::pending().await,
                Ok(_) => REFRESH_INTERVAL,
                Err(NoAddress) => backoff.next(rand::random()).min(REFRESH_INTERVAL),
            };
            sleep(pause).await;
        }
    }

    /// Without an endpoint the last one stays: a network that is down for a moment often comes back with the same address.
    fn set(&self, derived: Option<Endpoint>) {
        let Some(endpoint) = derived else { return };
        let first = !self.0.known.swap(true, Ordering::Relaxed);
        let changed = self.0.contact.send_if_modified(|contact| {
            let changed = *contact.endpoint() != endpoint;
            if changed {
                *contact = Contact::new(contact.id(), contact.name().clone(), endpoint.clone());
            }
            changed
        });
        if changed && !first {
            tracing::info!(%endpoint, "this peer has another address; others are told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::id::PeerId;
    use std::sync::Mutex;

    #[tokio::test]
    async fn the_endpoint_follows_its_source_and_the_last_one_stays() {
        let source = Arc::new(Mutex::new(None::<Endpoint>));
        let placeholder = Contact::parse(PeerId::from_u128(1), "a", "127.0.0.1:7801").unwrap();
        let derive = Arc::clone(&source);
        let own = OwnContact::derived(placeholder.clone(), Arc::new(move || derive.lock().unwrap().clone()));
        assert_eq!((own.refresh().await, own.get()), (Err(NoAddress), placeholder));
        for text in ["10.0.0.1:7801", "10.0.0.2:7801"] {
            *source.lock().unwrap() = Some(text.parse().unwrap());
            assert_eq!(own.refresh().await.unwrap().endpoint().as_str(), text);
        }
        *source.lock().unwrap() = None;
        assert_eq!(own.refresh().await.unwrap().endpoint().as_str(), "10.0.0.2:7801");
    }
}
