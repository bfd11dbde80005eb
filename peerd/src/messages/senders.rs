//! Who a message of a caller is from: with TLS, whoever the certificate says.

use crate::mesh::Signatures;
use p2pdi::{field::Quoted, name::PeerName, status::Reason, tls::Identity, v1::WhisperRequest};
use tonic::Status;

/// Whoever calls to send a message.
pub(crate) struct Sender<'a> {
    /// What its certificate says; `None`: it shows none.
    pub(crate) identity: Option<&'a Identity>,
    /// It may control this peer, and so send in its name.
    pub(crate) may_control: bool,
}

impl Sender<'_> {
    /// Checks who `request` is from, and fills that in where it says nothing. `me` is this peer's name.
    ///
    /// # Errors
    /// When it says that it is from somebody else, and has no signature of them.
    pub(crate) fn check(&self, request: &mut WhisperRequest, me: &PeerName, signatures: &Signatures) -> Result<(), Status> {
        if request.signature.is_some() {
            return signatures.check_whisper(request).map_err(|flaw| {
                Reason::NameNotYours.status(format!("the signature of the message is not accepted: {}", flaw.why()))
            });
        }
        if request.from.is_empty() {
            request.from = self.name(me)?.to_string();
            return Ok(());
        }
        let from = request.from.parse::<PeerName>().map_err(|error| error.in_field("from"))?;
        let is_own = self.identity.is_some_and(|identity| identity.has_name(&from) || identity.operator() == Some(&from));
        if is_own || self.may_control && from == *me {
            return Ok(());
        }
        Err(Reason::NameNotYours.status(match self.identity {
            Some(identity) => {
                format!("the message says that it is from {from}, and your certificate is for {identity}; leave `from` empty")
            }
            None => {
                format!("the message says that it is from {}, and you show no certificate for that name", Quoted(from.as_str()))
            }
        }))
    }

    fn name<'b>(&'b self, me: &'b PeerName) -> Result<&'b PeerName, Status> {
        if self.may_control {
            return Ok(me);
        }
        let name = self.identity.and_then(|identity| identity.name().or_else(|| identity.operator()));
        name.ok_or_else(|| {
            Reason::NameNotYours
                .status("nobody knows who this message is from; call with the certificate of a peer or an operator")
        })
    }
}

/// Why a message is not passed on that its sender did not sign.
pub(super) fn unsigned(from: &str, to: &PeerName) -> Status {
    Reason::NameNotYours.status(format!(
        "the message has no signature of {from}, so {to} would not believe who it is from; call {to} itself, or sign it, as p2pctl does"
    ))
}
