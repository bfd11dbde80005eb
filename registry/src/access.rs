//! Who may call: operators, and peers of the registry's network.

use crate::enrolling::{Enrolling, require_operator};
use p2pdi::{network::NetworkName, server::Caller, status::Reason};
use tonic::Status;

/// Whether the caller may do what is for operators. Where the registry gives certificates, that needs one, also on its own machine: other
/// users and peers are there, too.
pub(crate) fn check_admin(enrolling: Option<&Enrolling>, caller: Option<&Caller>) -> Result<(), Status> {
    if enrolling.is_some() { require_operator(caller) } else { check_operator(caller) }
}

/// Whether the caller is an operator of the registry: it has an operator's certificate, or is on the registry's machine, or in this process.
fn check_operator(caller: Option<&Caller>) -> Result<(), Status> {
    match caller {
        Some(caller) if !caller.is_local_machine() && caller.identity().is_none_or(|identity| identity.operator().is_none()) => {
            let why = "only the registry's operator may do that; call from the registry's own machine, or with an operator's certificate";
            Err(Reason::LoopbackOnly.status(why))
        }
        _ => Ok(()),
    }
}

/// Whether the caller, who says this network, is of the registry's own.
pub(crate) fn check_network(own: &NetworkName, said: &str) -> Result<(), Status> {
    let theirs = NetworkName::from_field(said)?;
    if theirs == *own {
        return Ok(());
    }
    Err(Reason::WrongNetwork.status_with(
        format!(
            "this registry keeps the peers of the network {own}, and the caller is of the network {theirs}; \
             use a registry of that one, or start the caller with --network {own}"
        ),
        [("network", own.to_string())],
    ))
}
