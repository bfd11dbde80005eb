//! A peer inside a program: built, started, asked, stopped. What a user of this crate begins with.

mod builder;
mod error;
mod handle;

pub use builder::PeerBuilder;
pub use error::PeerError;
pub use handle::{Delivery, PeerHandle, PeerInfo};

use crate::node::{Node, NodeError};
use std::{fmt, ops::Deref, sync::Arc};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Built,
    Running,
    Ended,
}

/// A peer of this program. It stops when it is dropped; [`Peer::shutdown`] waits until it has.
///
/// What it can be asked stands at [`PeerHandle`], to which it dereferences; [`Peer::handle`] gives one to tasks and handlers.
pub struct Peer {
    handle: PeerHandle,
    stop: CancellationToken,
    phase: Arc<watch::Sender<Phase>>,
    /// Until it is started.
    waiting: Option<(Node, Option<TempDir>)>,
    running: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Peer {
    /// Begins a peer called `name`: letters, digits, hyphens and dots. Without more it listens on a free port of this machine, knows
    /// nobody, shares nothing, and keeps its id in a folder that is gone with it.
    pub fn builder(name: impl Into<String>) -> PeerBuilder {
        PeerBuilder::new(name.into())
    }

    fn new(node: Node, folder: Option<TempDir>) -> Self {
        let phase = Arc::new(watch::Sender::new(Phase::Built));
        let handle = PeerHandle::new(node.handle(), phase.subscribe());
        Self { handle, stop: CancellationToken::new(), phase, waiting: Some((node, folder)), running: None }
    }

    /// Starts it, where [`PeerBuilder::autostart`] said not to. Does nothing the second time.
    pub fn start(&mut self) {
        let Some((node, folder)) = self.waiting.take() else { return };
        self.phase.send_replace(Phase::Running);
        let (stop, ended) = (self.stop.clone(), Ended(Arc::clone(&self.phase)));
        self.running = Some(self.handle.runtime().spawn(async move {
            let _ended = ended;
            let ran = Box::pin(node.run(stop)).await;
            if let Err(error) = &ran {
                tracing::error!(%error, "the peer ended");
            }
            // Only now is nothing in it used any more.
            drop(folder);
            ran
        }));
    }

    /// To ask it from other tasks and from handlers. It does not keep the peer running.
    pub fn handle(&self) -> PeerHandle {
        self.handle.clone()
    }

    /// Stops it and waits until it has: the registry and the mesh are told, calls and handlers under way may finish within a grace period.
    ///
    /// # Errors
    /// When it had ended before, by a failure of one of its parts.
    pub async fn shutdown(mut self) -> Result<(), PeerError> {
        self.stop();
        let Some(running) = self.running.take() else { return Ok(()) };
        Ok(running.await.map_err(NodeError::from)??)
    }

    fn stop(&self) {
        self.stop.cancel();
        // Those of a peer that never ran, too.
        self.handle.node().handlers().stop();
        if self.running.is_none() {
            self.phase.send_replace(Phase::Ended);
        }
    }
}

/// Says so however the peer's task ends.
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
