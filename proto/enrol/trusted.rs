//! Whom a registry trusts, as this program has heard of it last.

use super::Enrolment;
use crate::{
    tls::{Serial, Tls, certificates_pem},
    v1::Trust,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// Most revoked certificates kept. With certificates for a day, that many would have to be revoked in a day; of more, those that end
/// first are left out.
const REVOKED_MAX: usize = 500_000;
/// How much clocks may differ: a certificate is refused until that long after its end.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Whom a registry trusts. Connections with holders of certificates that are revoked are refused and ended. Clones share it.
#[derive(Clone)]
pub struct Trusted(Arc<Shared>);

struct Shared {
    tls: Tls,
    /// `None`: certificates and authorities are in files of somebody else's.
    enrolment: Option<Enrolment>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    revision: u64,
    /// With when each ends.
    revoked: BTreeMap<Serial, SystemTime>,
}

impl Trusted {
    /// Nothing was heard yet in this process. What is heard is used by `tls`; with an `enrolment` new authorities, too, and what was heard of
    /// revocations before, which is in its folder: a peer that restarts while the registry is away refuses the same certificates. Blocks while it
    /// reads.
    pub fn new(tls: Tls, enrolment: Option<Enrolment>) -> Self {
        let revoked = match enrolment.as_ref().map(|enrolment| enrolment.folder().revoked()) {
            Some(Ok(revoked)) => revoked,
            Some(Err(error)) => {
                tracing::warn!(%error, "revocations of earlier are forgotten until the registry names them");
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        if !revoked.is_empty() {
            tls.set_revoked(revoked.keys().cloned());
        }
        Self(Arc::new(Shared { tls, enrolment, held: Mutex::new(Held { revision: 0, revoked }) }))
    }

    /// The revision of what was heard last; 0: nothing.
    pub fn revision(&self) -> u64 {
        self.held().revision
    }

    /// Uses what the registry says at `now`. Blocks while it writes to the folder of the enrolment.
    pub fn take(&self, trust: &Trust, now: SystemTime) {
        if let Some(enrolment) = &self.0.enrolment
            && !trust.authorities.is_empty()
            && let Err(error) = enrolment.set_authorities(certificates_pem(&trust.authorities).into())
        {
            tracing::warn!(%error, "cannot use the certificate authorities that the registry names; the old ones stay in use");
        }
        let mut held = self.held();
        let before = held.revoked.clone();
        // Where the list has several pages what was heard before stays until it ends: nobody is accepted in between.
        if trust.start_over && !trust.more {
            held.revoked.clear();
        }
        for revoked in &trust.revoked {
            let not_after = revoked.not_after.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or(now);
            held.revoked.insert(Serial::new(&revoked.serial), not_after);
        }
        held.revoked.retain(|_, not_after| *not_after + CLOCK_SKEW > now);
        if held.revoked.len() > REVOKED_MAX {
            tracing::warn!(revoked = held.revoked.len(), "the registry revoked more certificates than are kept here");
            let mut ends: Vec<_> = held.revoked.values().copied().collect();
            ends.sort_unstable();
            let first_kept = ends[ends.len() - REVOKED_MAX];
            held.revoked.retain(|_, not_after| *not_after >= first_kept);
        }
        self.0.tls.set_revoked(held.revoked.keys().cloned());
        held.revision = trust.revision;
        if held.revoked != before
            && let Some(enrolment) = &self.0.enrolment
            && let Err(error) = enrolment.folder().store_revoked(&held.revoked)
        {
            tracing::warn!(%error, "cannot keep which certificates are revoked for the next start");
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
