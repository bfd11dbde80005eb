//! The documents of a peer and of its network: listing, reading, sharing, keeping.

use super::{error::PeerError, handle::PeerHandle, info::Registration};
use crate::{
    documents::{info::DocumentInfo, pattern::DocumentPattern, wanted::Wanted},
    holders::{
        find_peers::FindPeers as _,
        listing::{ListingFilter, Offers, shared_by},
        search::{Found, Freshness, ask},
        settlement::Settlement,
        source::Source,
    },
    node::NodeError,
    session::OwnName,
    transfer::{PieceReader, STALL_TIMEOUT},
};
use p2pdi::{endpoint::Endpoint, field::InvalidField, v1::SessionState};
use std::{path::PathBuf, time::Duration};
use tokio::{task::spawn_blocking, time::timeout};

/// Most peers asked for what they share. Of more, a random sample of this size is asked.
const ASKED_MAX: usize = 1_000;

impl PeerHandle {
    /// What other peers share: all, or what matches a pattern such as `rfc*` or `models/**`. `from`: only these peers are asked, by name or
    /// address.
    ///
    /// # Errors
    /// When the pattern is not valid, there is no route to a peer of `from`, or this peer is not running.
    pub async fn documents(&self, pattern: Option<&str>, from: &[String]) -> Result<Offers, PeerError> {
        let filter = ListingFilter::of_pattern(pattern.map(DocumentPattern::parse).transpose()?);
        self.list(filter, self.sources(from).await?).await
    }

    /// What other peers share that has all these words in its name or title.
    ///
    /// # Errors
    /// As [`PeerHandle::documents`]; also when the text is too long.
    pub async fn search(&self, words: impl Into<String>, from: &[String]) -> Result<Offers, PeerError> {
        self.list(ListingFilter::of_words(words.into())?, self.sources(from).await?).await
    }

    /// What peers share, or these peers of them.
    pub(super) async fn list(&self, filter: ListingFilter, from: Vec<Source>) -> Result<Offers, PeerError> {
        self.running()?;
        let asked = match from.as_slice() {
            [] => match self.node().network().sample(ASKED_MAX).await {
                Ok(sample) => sample.peers,
                Err(never) => match never {},
            },
            _ => from,
        };
        Ok(shared_by(self.node().channels(), asked, &filter).await)
    }

    /// The document that a name, `rfc:NUMBER` or `b3:HASH` means, and who has it. `from`: only these peers are asked, by name or address.
    ///
    /// # Errors
    /// When nobody has it, several have that name, or this peer is not running.
    pub async fn find_document(&self, wanted: &str, from: &[String]) -> Result<Found, PeerError> {
        self.running()?;
        let Wanted::One(selector) = Wanted::parse(wanted)? else {
            return Err(InvalidField::new("wanted", "is a pattern; give the name of one document").into());
        };
        if from.is_empty() {
            return Ok(self.node().holders().settle(&selector, Freshness::Learned).await?.found);
        }
        let answers = ask(self.node().channels(), &self.sources(from).await?, &selector).await;
        match answers.settle() {
            Settlement::Settled(settled) => Ok(settled.found),
            Settlement::Nobody => Err(PeerError::NotFound(format!("nobody has {selector}; {}", answers.summary()))),
            Settlement::Ambiguous(found) => Err(PeerError::ambiguous(&selector, &found)),
        }
    }

    /// Opens a document that other peers have, for reading ranges of it. Each piece is verified before a byte of it is returned; nothing is stored.
    ///
    /// # Errors
    /// As [`PeerHandle::find_document`]; also when no holder answers.
    pub async fn open(&self, wanted: &str, from: &[String]) -> Result<PieceReader, PeerError> {
        let Found { document, holders, .. } = self.find_document(wanted, from).await?;
        let own_id = self.node().swarms().own_id();
        Ok(PieceReader::open(self.node().channels().clone(), document, holders, own_id, STALL_TIMEOUT).await?)
    }

    /// The peers with these names or addresses.
    pub(super) async fn sources(&self, peers: &[String]) -> Result<Vec<Source>, PeerError> {
        let mut sources = Vec::new();
        for peer in peers {
            if let Ok(endpoint) = peer.parse::<Endpoint>() {
                sources.push(Source::new(None, endpoint));
                continue;
            }
            let found = self.find_peer(peer).await?;
            let no_route = || PeerError::NoRoute(format!("request cannot be fulfilled: no route to {peer}"));
            let found = found.ok_or_else(no_route)?;
            sources.push(Source::new(Some(found.name), found.endpoint));
        }
        Ok(sources)
    }

    /// Shares a folder, of a peer that was built without one, from now on. What is in it is offered once it is hashed: see
    /// [`PeerHandle::shared`]. A folder that is shared already is looked through again, so that what is new in it counts there, too.
    ///
    /// # Errors
    /// When it does not exist, the peer shares another folder, or is not running.
    pub async fn share(&self, folder: impl Into<PathBuf>) -> Result<(), PeerError> {
        self.running()?;
        let (share, folder) = (self.node().share().clone(), folder.into());
        let shared = spawn_blocking(move || share.set_folder(&folder)).await.map_err(NodeError::from)?;
        Ok(shared.map_err(NodeError::from)?)
    }

    /// Waits until all that was in the shared folder at the start, or at the last [`PeerHandle::share`], is hashed, and returns what is offered
    /// now.
    pub async fn shared(&self) -> Vec<DocumentInfo> {
        tokio::select! {
            () = self.node().share().settled() => {}
            () = self.stopped() => {}
        }
        self.offered()
    }

    /// What this peer offers now.
    pub fn offered(&self) -> Vec<DocumentInfo> {
        let index = self.node().share().index();
        index.documents().iter().filter_map(|own| own.info().ok()).collect()
    }

    /// Keeps a document of the share whatever [`PeerBuilder::quota`](super::PeerBuilder::quota) says, or releases it. Returns whether it was so
    /// before.
    ///
    /// # Errors
    /// When the share has no such document, the state folder cannot be written, or this peer is not running.
    pub async fn pin(&self, name: &str, pin: bool) -> Result<bool, PeerError> {
        self.running()?;
        Ok(self.node().jobs().pin(name, pin).await?)
    }

    /// How this peer stands with its registry now.
    pub fn registration(&self) -> Registration {
        let status = self.node().session().status();
        Registration { state: status.state().into(), registry: status.registry, detail: status.detail }
    }

    /// Waits until the registry gave this peer its name. Returns whether it did within `patience`; `false` also without a registry.
    ///
    /// # Errors
    /// When another peer has the name, or the registry refuses this peer for another reason.
    pub async fn registered(&self, patience: Duration) -> Result<bool, PeerError> {
        self.running()?;
        let session = self.node().session();
        let mut state = session.state();
        let settled = |state: &SessionState| !matches!(state, SessionState::Registering | SessionState::Unreachable);
        let state = match timeout(patience, state.wait_for(settled)).await {
            Ok(Ok(state)) => *state,
            // The peer tries again for as long as it runs.
            Ok(Err(_)) | Err(_) => return Ok(false),
        };
        match (state, session.own_name()) {
            (SessionState::Registered, _) => Ok(true),
            (SessionState::Refused, OwnName::Refused) => Err(PeerError::NameTaken(session.status().detail)),
            (SessionState::Refused, _) => {
                let status = session.status();
                Err(PeerError::Refused { peer: status.registry, why: status.detail })
            }
            _ => Ok(false),
        }
    }
}
