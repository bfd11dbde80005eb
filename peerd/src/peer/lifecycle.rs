//! Starting and stopping a peer.

use super::{error::PeerError, handle::PeerHandle, phase::Phase};
use crate::node::{Node, NodeError};
use std::{fmt, ops::Deref, sync::Arc};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A peer inside this program. It stops when it is dropped; [`Peer::shutdown`] also waits until it has stopped.
///
/// It dereferences to [`PeerHandle`], which has the methods to use it; [`Peer::handle`] gives a handle to tasks and handlers.
pub struct Peer {
    handle: PeerHandle,
    stop: CancellationToken,
    phase: Arc<watch::Sender<Phase>>,
    /// `None` once it is started.
    unstarted: Option<(Node, Option<TempDir>)>,
    running: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Peer {
    /// `folder` is deleted when the peer has ended.
    pub(super) fn new(node: Node, folder: Option<TempDir>) -> Self {
        let phase = Arc::new(watch::Sender::new(Phase::Built));
        let handle = PeerHandle::new(node.handle(), phase.subscribe());
        Self { handle, stop: CancellationToken::new(), phase, unstarted: Some((node, folder)), running: None }
    }

    /// Starts a peer that was built without [`PeerBuilder::autostart`](super::PeerBuilder::autostart). Does nothing the second time.
    pub fn start(&mut self) {
        let Some((node, folder)) = self.unstarted.take() else { return };
        self.phase.send_replace(Phase::Running);
        let (stop, ended) = (self.stop.clone(), Ended(Arc::clone(&self.phase)));
        self.running = Some(self.handle.runtime().spawn(async move {
            let _ended = ended;
            let ran = Box::pin(node.run(stop)).await;
            if let Err(error) = &ran {
                tracing::error!(%error, "the peer ended");
            }
            // The peer uses it until here.
            drop(folder);
            ran
        }));
    }

    /// A handle for other tasks and for handlers. It does not keep the peer running.
    pub fn handle(&self) -> PeerHandle {
        self.handle.clone()
    }

    /// Stops the peer and waits until it has stopped: it leaves the registry and the mesh, and calls and handlers under way may finish
    /// within a grace period.
    ///
    /// # Errors
    /// When it ended before because one of its parts failed.
    pub async fn shutdown(mut self) -> Result<(), PeerError> {
        self.stop();
        let Some(running) = self.running.take() else { return Ok(()) };
        Ok(running.await.map_err(NodeError::from)??)
    }

    fn stop(&self) {
        self.stop.cancel();
        // Also the handlers of a peer that never ran.
        self.handle.node().handlers().stop();
        if self.running.is_none() {
            self.phase.send_replace(Phase::Ended);
        }
    }
}

/// Sets [`Phase::Ended`] however the peer's task ends.
struct Ended(Arc<watch::Sender<Phase>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Ended);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Deref for Peer {
    type Target = PeerHandle;

    fn deref(&self) -> &PeerHandle {
        &self.handle
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}
