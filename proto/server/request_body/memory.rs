//! The memory for requests that are not whole, and what one of them uses.

use crate::status::Reason;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tonic::Status;

/// The first bytes of each body, which have memory of their own: the largest request of the registry, and most of a peer's. So the
/// requests that keep a network going are answered while large ones fill the rest.
pub(super) const FIRST_BYTES: usize = 16 * 1024;
/// The part of the memory that is for first bytes: one in so many. A guess.
const FIRST_BYTES_SHARE: usize = 4;
/// The part of the memory that one client network may use: one in so many.
const CALLER_SHARE: usize = 2;
/// The part of either that whole messages may use until they are answered: one in so many. The rest is for those that still arrive, for which the only
/// refusal is the end of their stream.
const KEPT_SHARE: usize = 2;

/// The memory, in two parts.
pub(super) struct Memory {
    pub(super) first_bytes: Pool,
    pub(super) further_bytes: Pool,
}

impl Memory {
    /// So many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let first = bytes / FIRST_BYTES_SHARE;
        Self { first_bytes: Pool::new(first), further_bytes: Pool::new(bytes - first) }
    }
}

/// Memory for bodies.
pub(super) struct Pool {
    limit: usize,
    pub(super) used: Mutex<Used>,
}

#[derive(Default)]
pub(super) struct Used {
    pub(super) bytes: usize,
    pub(super) by_network: HashMap<IpAddr, usize>,
}

impl Pool {
    fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::default() }
    }

    /// Whether these bytes fit into one in `part` of the pool; then they are used.
    fn take(&self, network: IpAddr, bytes: usize, part: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = used.by_network.get(&network).copied().unwrap_or(0) + bytes;
        let limit = self.limit / part;
        if used.bytes + bytes > limit || of_network > limit / CALLER_SHARE {
            return false;
        }
        used.bytes += bytes;
        used.by_network.insert(network, of_network);
        true
    }

    fn give_back(&self, network: IpAddr, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.bytes -= bytes;
        if let Some(of_network) = used.by_network.get_mut(&network) {
            *of_network -= bytes;
            if *of_network == 0 {
                used.by_network.remove(&network);
            }
        }
    }
}

/// What one body uses; given back when both it and its call have ended.
pub(super) struct Charge {
    memory: Arc<Memory>,
    network: IpAddr,
    bytes: AtomicUsize,
    /// One in so many of the bytes of the memory are for such.
    part: usize,
}

impl Charge {
    /// Of a request, or a message, that is not whole.
    pub(super) fn new(memory: Arc<Memory>, network: IpAddr) -> Self {
        Self { memory, network, bytes: AtomicUsize::new(0), part: 1 }
    }

    /// Of a whole message that is kept until it is answered.
    pub(super) fn of_kept(memory: Arc<Memory>, network: IpAddr) -> Self {
        Self { memory, network, bytes: AtomicUsize::new(0), part: KEPT_SHARE }
    }

    /// So many bytes are used in all.
    pub(super) fn grow_to(&self, bytes: usize) -> Result<(), Status> {
        match bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)) {
            0 => Ok(()),
            more => self.add(more),
        }
    }

    /// Nothing is used any more.
    pub(super) fn give_back(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.memory.first_bytes.give_back(self.network, bytes.min(FIRST_BYTES));
        self.memory.further_bytes.give_back(self.network, bytes.saturating_sub(FIRST_BYTES));
    }

    pub(super) fn add(&self, bytes: usize) -> Result<(), Status> {
        let before = self.bytes.load(Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let first = after.min(FIRST_BYTES) - before.min(FIRST_BYTES);
        let refuse = || {
            Err(Reason::Overloaded
                .status("this server holds as many bytes of unfinished requests as it may; try again in a moment"))
        };
        if !self.memory.first_bytes.take(self.network, first, self.part) {
            return refuse();
        }
        if !self.memory.further_bytes.take(self.network, bytes - first, self.part) {
            self.memory.first_bytes.give_back(self.network, first);
            return refuse();
        }
        self.bytes.store(after, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back();
    }
}
