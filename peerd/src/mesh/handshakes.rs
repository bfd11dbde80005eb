//! Handshakes in progress, and how many there may be.

use super::{
    input::{Input, Purpose},
    link::{self, Expectation, Incoming, OpenError},
    send_queue::LinkSender,
};
use crate::connections::channels::ChannelPool;
use p2pdi::{endpoint::Endpoint, name::PeerName, network::NetworkName, tls::Identity, v1::LinkFrame};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Handshakes in progress that this side began, and as many that others began. A guess: a large network that starts around one bootnode.
const HANDSHAKES_MAX: usize = 128;
/// Handshakes in progress from one address: a quarter of all, enough for many peers of one host that start together.
const HANDSHAKES_PER_ADDRESS: usize = 32;

/// Starts handshakes within their limits.
pub(super) struct Handshakes {
    hello: LinkFrame,
    channels: ChannelPool,
    network: NetworkName,
    /// Callers must show who they are.
    certified: bool,
    counts: Counts,
}

/// Handshakes in progress.
#[derive(Debug, Default)]
struct Counts {
    dialling: usize,
    accepting: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// Why no handshake may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMany {
    /// There are too many in all.
    InAll,
    /// There are too many from this address.
    FromAddress(IpAddr),
}

impl Handshakes {
    /// Handshakes that say `hello`, dial as `channels` does, and fail with peers of another network; `certified`: all have TLS.
    pub(super) fn new(hello: LinkFrame, channels: ChannelPool, network: NetworkName, certified: bool) -> Self {
        Self { hello, channels, network, certified, counts: Counts::default() }
    }

    /// The network of this peer.
    pub(super) fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Handshakes say `hello` from now on.
    pub(super) fn set_hello(&mut self, hello: LinkFrame) {
        self.hello = hello;
    }

    /// A handshake with the first of `targets` that answers: endpoints, and the name of the peer expected there, if it is known. [`Handshakes::finished`] must follow.
    ///
    /// # Errors
    /// `purpose`, if there are too many handshakes.
    pub(super) fn dial(
        &mut self,
        targets: Vec<(Endpoint, Option<PeerName>)>,
        purpose: Purpose,
    ) -> Result<impl Future<Output = Input> + Send + use<>, Purpose> {
        if self.counts.dialling >= HANDSHAKES_MAX {
            return Err(purpose);
        }
        self.counts.dialling += 1;
        let (hello, channels, network) = (self.hello.clone(), self.channels.clone(), self.network.clone());
        Ok(async move {
            let mut error = OpenError::from("there is no address to dial");
            for (endpoint, name) in targets {
                match link::dial(&channels, &endpoint, name.as_ref(), hello.clone(), &network).await {
                    Ok(link) => return Input::Opened(Box::new(link), purpose),
                    Err(why) => error = why,
                }
            }
            Input::OpenFailed(purpose, error)
        })
    }

    /// A handshake with a peer that calls from `caller` with the certificate of `identity`. [`Handshakes::finished`] must follow.
    ///
    /// # Errors
    /// When there are too many handshakes.
    pub(super) fn accept(
        &mut self,
        frames: Incoming,
        sender: LinkSender,
        caller: Option<IpAddr>,
        identity: Option<Arc<Identity>>,
    ) -> Result<impl Future<Output = Input> + Send + use<>, TooMany> {
        self.counts.accept(caller)?;
        let (hello, network) = (self.hello.clone(), self.network.clone());
        let expectation = if self.certified { Expectation::Certified(identity) } else { Expectation::Anybody };
        Ok(async move {
            let purpose = Purpose::Accepted(caller);
            match link::accept(frames, sender, hello, &network, expectation).await {
                Ok(link) => Input::Opened(Box::new(link), purpose),
                Err(error) => Input::OpenFailed(purpose, error),
            }
        })
    }

    /// A handshake has ended.
    pub(super) fn finished(&mut self, purpose: &Purpose) {
        match purpose {
            Purpose::Accepted(caller) => self.counts.accepted(*caller),
            _ => self.counts.dialling -= 1,
        }
    }
}

impl Counts {
    fn accept(&mut self, caller: Option<IpAddr>) -> Result<(), TooMany> {
        if self.accepting >= HANDSHAKES_MAX {
            return Err(TooMany::InAll);
        }
        if let Some(ip) = caller {
            let count = self.by_address.entry(ip).or_insert(0);
            if *count >= HANDSHAKES_PER_ADDRESS {
                return Err(TooMany::FromAddress(ip));
            }
            *count += 1;
        }
        self.accepting += 1;
        Ok(())
    }

    fn accepted(&mut self, caller: Option<IpAddr>) {
        self.accepting -= 1;
        if let Some(ip) = caller
            && let Some(count) = self.by_address.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_of_handshakes_and_does_not_take_that_of_others() {
        let mut counts = Counts::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!((0..HANDSHAKES_PER_ADDRESS).all(|_| counts.accept(Some(one)).is_ok()));
        assert_eq!(counts.accept(Some(one)), Err(TooMany::FromAddress(one)));
        assert_eq!(counts.accept(Some(other)), Ok(()));
        counts.accepted(Some(one));
        assert_eq!(counts.accept(Some(one)), Ok(()));
        (0..HANDSHAKES_PER_ADDRESS).for_each(|_| counts.accepted(Some(one)));
        counts.accepted(Some(other));
        assert!(counts.by_address.is_empty() && counts.accepting == 0);
    }

    #[test]
    fn the_number_of_handshakes_is_bounded() {
        let mut counts = Counts::default();
        assert!((0..HANDSHAKES_MAX).all(|_| counts.accept(None).is_ok()));
        assert_eq!(counts.accept(None), Err(TooMany::InAll));
    }
}
