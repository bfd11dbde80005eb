//! What a search needs to know of the network: peers to ask, and what is known without asking them.

use super::{listed::Listed, source::Source};
use crate::documents::selector::DocumentSelector;
use std::fmt;

/// Some peers of a network.
#[derive(Debug, Clone, Default)]
pub struct PeerSample {
    /// In random order.
    pub peers: Vec<Source>,
    /// There are no others.
    pub are_all: bool,
}

impl PeerSample {
    /// Says of a sample that what other peers share is missing; `None`: these are all.
    pub fn missing(&self) -> Option<String> {
        let asked = self.peers.len();
        (!self.are_all)
            .then(|| format!("there are more peers than the {asked} random ones that were asked: what others share is not known"))
    }
}

/// What is known of a document without asking anybody.
#[derive(Debug, Default)]
pub struct Learned {
    /// For each peer that was asked for all its documents a while ago: those that are selected. Also without any.
    pub answers: Vec<(Source, Vec<Listed>)>,
    /// All peers of the network were asked.
    pub are_all: bool,
}

/// Whom a search asked that found nobody.
#[derive(Debug, Default)]
pub struct Asked {
    /// Those that answered.
    pub answered: Vec<Source>,
    /// All peers that [`FindPeers::sample`] knows of were asked.
    pub all: bool,
}

/// Finds peers to ask, for a search.
pub trait FindPeers: Send + Sync + 'static {
    /// Why peers cannot be listed.
    type Error: fmt::Display + Send + 'static;

    /// About `count` random peers of the network; all, if there are not more.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn sample(&self, count: usize) -> impl Future<Output = Result<PeerSample, Self::Error>> + Send;

    /// Whether the same may succeed in a moment, such as with a registry that is being restarted. By default not.
    fn may_pass(error: &Self::Error) -> bool {
        let _permanent = error;
        false
    }

    /// What is known of `wanted` without asking. By default nothing.
    fn learned(&self, wanted: &DocumentSelector) -> Learned {
        let _nothing = wanted;
        Learned::default()
    }

    /// Asks all peers at once which of them hold `wanted`, and returns what is answered, and by whom. By default nobody is asked.
    fn ask_all(&self, wanted: &DocumentSelector, asked: Asked) -> impl Future<Output = Vec<(Source, Vec<Listed>)>> + Send {
        let _nobody = (wanted, asked);
        async { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_says_that_it_is_one() {
        let peers = vec![Source::new(None, "127.0.0.1:7801".parse().unwrap())];
        let all = PeerSample { peers, are_all: true };
        assert_eq!(all.missing(), None);
        let missing = PeerSample { are_all: false, ..all }.missing().unwrap();
        assert!(missing.contains("more peers than the 1 random"), "{missing}");
    }
}
