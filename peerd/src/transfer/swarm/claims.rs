//! Who a member of a swarm may say that it is: with TLS, whoever its certificate says.

use super::update::Member;
use p2pdi::{id::PeerId, name::PeerName, status::Reason, tls::Identity};
use tonic::Status;

/// Checks who `member` says that it is. A program that serves nothing has its certificate's name, whatever it says.
///
/// # Errors
/// When its name or its id belongs to somebody else.
pub(super) fn check_member(member: &mut Member, identity: &Identity) -> Result<(), Status> {
    if !identity.has_name(&member.name) {
        match identity.name().or_else(|| identity.operator()) {
            Some(own) if member.endpoint.is_none() => member.name = own.clone(),
            _ => return Err(not_yours(&format!("the name {} is not in your certificate, which is for {identity}", member.name))),
        }
    }
    check_id(member.id, identity)
}

/// Checks the id that a caller says it has.
///
/// # Errors
/// When it is the id of another name.
pub(super) fn check_id(id: PeerId, identity: &Identity) -> Result<(), Status> {
    let is_own = |name: &PeerName| id == PeerId::of_name(name);
    if id.is_of_client() || identity.names().iter().any(is_own) {
        return Ok(());
    }
    Err(not_yours(&format!("the id {id} is not that of a name in your certificate, which is for {identity}")))
}

fn not_yours(why: &str) -> Status {
    Reason::NameNotYours.status(why)
}
