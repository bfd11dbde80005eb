//! Limits of the calls under way and the calls per second, for each caller and in all, by class of call.
//!
//! A caller is the name in its certificate, or else its address ([`crate::endpoint::client_network`]). A call past a limit ends at once with
//! `RATE_LIMITED`, which says when to try again. Callers on this machine have no limit of their own.

mod class;
mod layer;
mod limiter;

pub use class::CallClass;
pub use layer::{Admitted, Permit};
pub(super) use layer::{CallLimiter, limit_calls};
pub use limiter::CallLimits;
