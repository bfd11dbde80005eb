//! The peer of P2P-DI for Python: what the package `p2pdi` is written in Python upon.
//!
//! Rust never calls Python. Work is a [`call::Call`]: a thread of Python waits for it without the GIL, in slices, so that it sees signals; or an
//! event loop is woken through a file descriptor. So no thread of Rust ever needs the interpreter, not even while it ends.

mod call;
mod failure;
mod handlers;
mod messages;
mod peer;
mod reading;
mod registry;
mod registry_access;
mod registry_client;
mod results;
mod runtime;
mod watch;

/// The native half of the package. It needs no GIL: free-threaded builds of Python run it without one.
#[pyo3::pymodule(gil_used = false)]
mod _p2pdi {
    #[pymodule_export]
    use super::{
        call::{Call, Mailbox},
        handlers::{Handler, Replier},
        messages::Inbox,
        peer::NativePeer,
        reading::{NativeFetch, NativeReader},
        registry::NativeRegistry,
        registry_client::NativeRegistryClient,
        results::{Answers, Document, Fetched, Lease, Message, PeerInfo, PeerRecord, Progress, Reply, Source},
        watch::NativeWatch,
    };

    /// The version of the library.
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name in Python")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
