//! Who a message of a caller is from: with TLS, whoever the certificate says.

use crate::mesh::Signatures;
use p2pdi::{field::Quoted, name::PeerName, status::Reason, tls::Identity, v1::WhisperRequest};
use tonic::Status;

/// What a caller without a certificate reads that sends messages.
pub(crate) const SENDER_UNKNOWN: &str =
    "nobody knows who this message is from; call with the certificate of a peer or an operator";

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
        // An operator may send in the name of the peer that it controls, if it says so; another peer may not, on the same machine neither.
        let is_another = self.identity.is_some_and(|identity| identity.operator().is_none());
        let is_own = is_own || self.may_control && !is_another && from == *me;
        if is_own {
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
        // A certificate says more than the address: several peers may run on one machine.
        let name = match self.identity {
            Some(identity) if self.may_control && identity.has_name(me) => Some(me),
            Some(identity) => identity.name().or_else(|| identity.operator()),
            None => self.may_control.then_some(me),
        };
        name.ok_or_else(|| Reason::NameNotYours.status(SENDER_UNKNOWN))
    }
}

/// Why a message is not passed on that its sender did not sign.
pub(super) fn unsigned(from: &str, to: &PeerName) -> Status {
    Reason::NameNotYours.status(format!(
        "the message has no signature of {from}, so {to} would not believe who it is from; call {to} itself, or sign it, as p2pctl does"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::tls::{ClientAuth, Pem, Tls};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};

    fn identity(names: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        let name = |name: &&str| match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(name).collect();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::of_chain(vec![certificate.der().clone()]).unwrap()
    }

    #[test]
    fn a_message_is_from_the_certificates_name_also_on_the_same_machine() {
        let me: PeerName = "me".parse().unwrap();
        let (other, alice) = (identity(&["fff-b"]), identity(&["spiffe://net/operator/alice"]));
        let (own, nobody) = (identity(&["x", "me"]), identity(&["*.example"]));
        for (identity, may_control, from) in [
            (None, true, Some("me")),
            (None, false, None),
            (Some(&other), true, Some("fff-b")),
            (Some(&other), false, Some("fff-b")),
            (Some(&alice), true, Some("alice")),
            (Some(&own), true, Some("me")),
            (Some(&nobody), true, None),
        ] {
            let sender = Sender { identity, may_control };
            assert_eq!(sender.name(&me).ok().map(PeerName::as_str), from, "{identity:?} {may_control}");
        }
    }

    #[test]
    fn nobody_says_a_name_that_its_certificate_lacks_also_on_the_same_machine() {
        let me: PeerName = "me".parse().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().into_bytes();
        let tls = Tls::from_pem(Pem { cert: None, key: None, ca }, ClientAuth::Required).unwrap();
        let signatures = Signatures::new(tls, "net", me.clone());
        let (other, alice) = (identity(&["fff-b"]), identity(&["spiffe://net/operator/alice"]));
        let check = |identity: Option<&Identity>, from: &str| {
            let mut request = WhisperRequest { from: from.to_owned(), ..Default::default() };
            Sender { identity, may_control: true }.check(&mut request, &me, &signatures).map(|()| request.from)
        };
        assert_eq!(check(None, "me").unwrap(), "me");
        assert_eq!(check(Some(&alice), "me").unwrap(), "me");
        assert_eq!(check(Some(&other), "FFF-B").unwrap(), "FFF-B");
        assert_eq!(check(Some(&other), "").unwrap(), "fff-b");
        for refused in [check(Some(&other), "me"), check(None, "fff-b")] {
            assert_eq!(Reason::of(&refused.unwrap_err()), Some(Reason::NameNotYours));
        }
    }
}
