//! Who may do what: control of the peer, and admission of listings.

use super::services::Services;
use crate::{
    config::ControlFrom,
    connections::admission::{Permit, Rejected},
    documents::catalog::{LISTINGS_MAX, LISTINGS_PER_ADDRESS},
};
use p2pdi::{server::Caller, status::Reason};
use std::{net::IpAddr, time::Duration};
use tonic::Status;

/// How long a listing waits for a permit before it is refused: most listings take less.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);

impl Services {
    /// Whether `caller` may control the peer and see all of its status.
    pub(crate) fn check_control(&self, caller: Option<&Caller>) -> Result<(), Status> {
        match self.control {
            ControlFrom::Any => Ok(()),
            ControlFrom::Loopback if caller.is_some_and(Caller::is_local_machine) => Ok(()),
            ControlFrom::Loopback => Err(Reason::LoopbackOnly.status(
                "this peer is controlled from its own machine only; call from there, or start it with --control any. Ping is open to all",
            )),
        }
    }

    /// A permit for an answer that may be long. Keep it until the answer is sent.
    pub(super) async fn admit_listing(&self, caller: Option<IpAddr>) -> Result<Permit, Status> {
        let acquired = self.listings.acquire(caller, LISTING_TIMEOUT).await;
        acquired.map_err(|rejected| {
            let why = match rejected {
                Rejected::Exhausted => format!("{LISTINGS_MAX} listings are being sent already"),
                Rejected::ExhaustedByAddress => {
                    format!("{LISTINGS_PER_ADDRESS} listings for your address are being sent or waiting already")
                }
            };
            Reason::TooManyStreams.status(format!("{why}; try again later, or ask for one document"))
        })
    }
}
