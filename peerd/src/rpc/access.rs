//! Who may do what: control of the peer, and admission of queries.

use super::services::Services;
use crate::{
    config::ControlFrom,
    connections::admission::{Permit, Rejected},
    documents::{
        catalog::{LISTINGS_MAX, LISTINGS_PER_ADDRESS, LOOKUPS_MAX, LOOKUPS_PER_ADDRESS},
        restrictions::Audience,
    },
};
use p2pdi::{server::Caller, status::Reason};
use std::{net::IpAddr, time::Duration};
use tonic::Status;

/// How long a query waits for a permit before it is refused: most listings take less.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a caller gets that reads on after its answer was ended, since it did not read it in time.
pub(crate) fn unread<T>() -> Option<Result<T, Status>> {
    Some(Err(Reason::Overloaded.status("the answer was not read for too long, and ended; ask again")))
}

/// Whether the caller has an operator's certificate.
fn is_operator(caller: &Caller) -> bool {
    caller.identity().is_some_and(|identity| identity.operator().is_some())
}

/// Who asks for documents: by the certificate, if there is one. Callers on this machine without one are its operator's, as for `Control`.
pub(crate) fn audience(caller: Option<&Caller>) -> Audience {
    let Some(caller) = caller else { return Audience::owner() };
    match caller.identity() {
        Some(_) if is_operator(caller) => Audience::owner(),
        Some(identity) => Audience::proven(identity.names(), identity.labels()),
        None if caller.is_local_machine() => Audience::owner(),
        None => Audience::anyone(),
    }
}

impl Services {
    /// Whether `caller` may control the peer and see all of its status.
    pub(crate) fn check_control(&self, caller: Option<&Caller>) -> Result<(), Status> {
        match self.control {
            ControlFrom::Any => Ok(()),
            ControlFrom::Loopback if caller.is_some_and(|caller| caller.is_local_machine() || is_operator(caller)) => Ok(()),
            ControlFrom::Loopback => Err(Reason::LoopbackOnly.status(
                "this peer is controlled from its own machine only, or with an operator's certificate; call from there, or start it with --control any. Ping is open to all",
            )),
        }
    }

    /// Whether a caller may say who it is. With TLS, one that shows no certificate may not: nobody has a name.
    pub(super) fn is_certified(&self, caller: Option<&Caller>) -> bool {
        // Only calls from inside the process have no caller.
        self.tls.tls.is_none() || caller.is_none_or(|caller| caller.identity().is_some())
    }

    /// A permit for an answer to a query: one that may be long, or one for a single number, name or hash. Keep it until the answer is sent.
    pub(super) async fn admit_query(&self, is_listing: bool, caller: Option<IpAddr>) -> Result<Permit, Status> {
        let (admission, what, most, per_address) = if is_listing {
            (&self.listings, "listings", LISTINGS_MAX, LISTINGS_PER_ADDRESS)
        } else {
            (&self.lookups, "queries", LOOKUPS_MAX, LOOKUPS_PER_ADDRESS)
        };
        admission.acquire(caller, QUERY_TIMEOUT).await.map_err(|rejected| {
            let why = match rejected {
                Rejected::Exhausted => format!("{most} {what} are being sent already"),
                Rejected::ExhaustedByAddress => {
                    format!("{per_address} {what} for your address are being sent or waiting already")
                }
            };
            let instead = if is_listing { ", or ask for one document" } else { "" };
            Reason::TooManyStreams.status(format!("{why}; try again later{instead}"))
        })
    }
}
