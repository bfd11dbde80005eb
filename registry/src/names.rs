//! Whose name is whose, by certificates: with TLS a caller registers under the names that its certificate carries, and under no other.

use p2pdi::{id::PeerId, name::PeerName, status::Reason, tls::Identity};
use tonic::Status;

/// Checks that the caller may register as `name`, and gives the id that its record has: with TLS a peer's id follows from its name.
///
/// # Errors
/// When the certificate does not carry the name, or the id is another peer's.
pub(crate) fn check(name: &PeerName, id: Option<PeerId>, observer: bool, identity: &Identity) -> Result<Option<PeerId>, Status> {
    let is_allowed = identity.has_name(name) || (observer && may_observe(name, identity));
    if !is_allowed {
        return Err(Reason::NameNotYours.status(format!(
            "the name {name} is not in your certificate, which is for {identity}; register one of its names, or get a certificate for {name}"
        )));
    }
    let own = PeerId::of_name(name);
    match id {
        None if observer => Ok(None),
        None => Ok(Some(own)),
        Some(id) if id == own || observer && id.is_of_client() => Ok(Some(id)),
        Some(id) => {
            Err(Reason::NameNotYours.status(format!("the id {id} is not that of the name {name}, which is {own}; leave it out")))
        }
    }
}

/// Several programs of one person or machine observe at once: under the name of an operator, or one label before a name that the
/// certificate carries.
fn may_observe(name: &PeerName, identity: &Identity) -> bool {
    let is_own = |name: &PeerName| identity.has_name(name) || identity.operator() == Some(name);
    let parent = name.as_str().split_once('.').and_then(|(_, parent)| parent.parse().ok());
    is_own(name) || parent.is_some_and(|parent| is_own(&parent))
}
