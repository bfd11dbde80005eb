//! Lookups at the registry: bounded, shared by callers that want the same name, and kept for a moment.

use super::client::Client;
use p2pdi::{
    contact::Contact,
    name::PeerName,
    status,
    v1::{PQueryRequest, PQueryResponse},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};

/// Lookups in progress at once. A guess: enough to hide the latency of a distant registry, and no burst that it notices.
const CONCURRENT_MAX: usize = 16;
/// Lookups in progress or waiting; one more fails at once.
const LOOKUPS_MAX: usize = 64;
/// How long a lookup waits for its turn and for the registry.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer that was found is not looked up again, unless a dial of it fails. A guess: one conversation; peers seldom move.
const HIT_LIFETIME: Duration = Duration::from_secs(10);
/// How long a name that the registry does not know is not looked up again: it may register at any moment.
const MISS_LIFETIME: Duration = Duration::from_secs(1);
/// Names kept, some 200 bytes each. A guess: more than are wanted within [`HIT_LIFETIME`].
const NAMES_MAX: usize = 1_024;

/// The registry could not be asked, so it is unknown whether a peer exists: why, as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryUnavailable(String);

impl RegistryUnavailable {
    /// The registry did not answer a call.
    pub(crate) fn no_answer(why: impl std::fmt::Display) -> Self {
        Self(format!("the registry did not answer ({why})"))
    }

    /// There is no session with the registry now.
    pub(super) fn no_session(state: &str) -> Self {
        Self(format!("the registry cannot be asked now ({state})"))
    }
}

/// The result of looking up one name.
type Found = Result<Option<Contact>, RegistryUnavailable>;

/// One name that is being looked up, or its result and when it arrived.
type Lookup = OnceCell<(Instant, Found)>;

/// The lookups of one peer.
pub(super) struct Lookups {
    /// `None` before the first registration.
    client: Mutex<Option<Client>>,
    names: Mutex<BTreeMap<PeerName, Arc<Lookup>>>,
    admitted: Semaphore,
    calling: Semaphore,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            client: Mutex::default(),
            names: Mutex::default(),
            admitted: Semaphore::new(LOOKUPS_MAX),
            calling: Semaphore::new(CONCURRENT_MAX),
        }
    }
}

impl Lookups {
    /// Uses `client` from now on.
    pub(super) fn set_client(&self, client: Client) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    /// The client of the latest registration; `None` before the first one.
    pub(super) fn client(&self) -> Option<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peer called `name`: of a recent lookup, or of `look_up`. Callers that want the same name at the same time share one call. A
    /// failed lookup is not kept.
    pub(super) async fn find<F>(&self, name: &PeerName, look_up: impl FnOnce() -> F) -> Found
    where
        F: Future<Output = Found>,
    {
        let lookup = self.lookup_of(name);
        // When a caller gives up, one of those that wait makes the call in its place.
        let call = || async {
            let found = look_up().await;
            (Instant::now(), found)
        };
        lookup.get_or_init(call).await.1.clone()
    }

    /// Forgets what was found for `name`: nobody answers there.
    pub(super) fn forget(&self, name: &PeerName) {
        self.names().remove(name);
    }

    /// Calls the registry, after waiting for a turn.
    ///
    /// # Errors
    /// When it does not answer in time or refuses, or too many lookups wait.
    pub(super) async fn query(&self, query: PQueryRequest) -> Result<PQueryResponse, RegistryUnavailable> {
        let client = self.client().ok_or_else(|| RegistryUnavailable::no_session("not registered yet"))?;
        let busy = || RegistryUnavailable("this peer has too many lookups waiting for the registry".to_owned());
        let _admitted = self.admitted.try_acquire().map_err(|_| busy())?;
        let call = async {
            // The semaphore is never closed.
            let _turn = self.calling.acquire().await;
            client.query(query).await
        };
        match timeout(LOOKUP_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|status| RegistryUnavailable::no_answer(status::describe(&status))),
            Err(_) => Err(RegistryUnavailable::no_answer(format_args!("no answer within {} s", LOOKUP_TIMEOUT.as_secs()))),
        }
    }

    fn lookup_of(&self, name: &PeerName) -> Arc<Lookup> {
        let mut names = self.names();
        if let Some(lookup) = names.get(name).filter(|lookup| is_current(lookup)) {
            return Arc::clone(lookup);
        }
        if names.len() >= NAMES_MAX {
            names.retain(|_, lookup| is_current(lookup));
        }
        if names.len() >= NAMES_MAX {
            names.pop_first();
        }
        let lookup = Arc::default();
        names.insert(name.clone(), Arc::clone(&lookup));
        lookup
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<PeerName, Arc<Lookup>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a lookup is in progress, or its result is recent.
fn is_current(lookup: &Lookup) -> bool {
    lookup.get().is_none_or(|(at, found)| match found {
        Ok(Some(_)) => at.elapsed() < HIT_LIFETIME,
        Ok(None) => at.elapsed() < MISS_LIFETIME,
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::id::PeerId;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::{advance, pause};

    /// Counts calls, each of which takes a second.
    #[derive(Default)]
    struct Registry(AtomicUsize);

    impl Registry {
        async fn answer(&self, found: Found) -> Found {
            self.0.fetch_add(1, Ordering::Relaxed);
            let _ = timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
            found
        }

        fn calls(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    fn hit() -> Found {
        Ok(Some(Contact::parse(PeerId::from_u128(1), "a", "10.0.0.1:1").unwrap()))
    }

    #[tokio::test]
    async fn callers_that_want_one_name_share_a_call_also_when_the_first_gives_up() {
        pause();
        let (lookups, registry, a) = (Lookups::default(), Registry::default(), name("a"));
        let find = || lookups.find(&a, || registry.answer(hit()));
        assert_eq!(tokio::join!(find(), find(), find()), (hit(), hit(), hit()));
        assert_eq!(registry.calls(), 1);
        lookups.forget(&a);
        let impatient = timeout(Duration::from_millis(10), find());
        let (given_up, found) = tokio::join!(impatient, find());
        assert!(given_up.is_err() && found == hit());
    }

    #[tokio::test]
    async fn hits_and_misses_are_kept_for_their_lifetime_and_failures_are_not() {
        pause();
        let (lookups, registry, a) = (Lookups::default(), Registry::default(), name("a"));
        let calls = async |found: Found, count: usize| {
            let before = registry.calls();
            for _ in 0..count {
                assert_eq!(lookups.find(&a, || registry.answer(found.clone())).await, found);
            }
            registry.calls() - before
        };
        assert_eq!(calls(Err(RegistryUnavailable::no_answer("busy")), 3).await, 3);
        assert_eq!(calls(Ok(None), 3).await, 1);
        advance(MISS_LIFETIME).await;
        assert_eq!(calls(hit(), 3).await, 1);
        advance(HIT_LIFETIME).await;
        assert_eq!(calls(hit(), 3).await, 1);
        lookups.forget(&a);
        assert_eq!(calls(hit(), 3).await, 1);
    }

    #[tokio::test]
    async fn the_number_of_names_kept_is_bounded() {
        pause();
        let lookups = Lookups::default();
        for number in 0..2 * NAMES_MAX {
            assert_eq!(lookups.find(&name(&format!("p{number}")), async || Ok(None)).await, Ok(None));
        }
        assert_eq!(lookups.names().len(), NAMES_MAX);
    }
}
