//! Secrets of Kubernetes, read and written through its API by a pod with its own account.

mod api;
mod secret;

pub(crate) use api::{Account, Api};
pub(crate) use secret::{MANAGED_BY, Secret};

#[cfg(test)]
pub(crate) mod server;
