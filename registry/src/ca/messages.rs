//! The authority's calls in the contract's messages: for the registry that serves them, and for `p2pctl` where none runs.

use super::{
    authority::{Authority, NewToken, Proof, RevokedName, Trust as TrustNow},
    error::CaError,
    ledger::{Refusal, Revoked, Token},
};
use p2pdi::{
    endpoint::Endpoint,
    field::InvalidField,
    name::PeerName,
    selector::NamePattern,
    tls::Serial,
    token::{JoinToken, TOKEN_ADDRESSES_MAX, TokenSecret},
    v1::{
        CreateTokenRequest, CreateTokenResponse, EnrollRequest, EnrollResponse, JoinTokenRecord, ListTokensResponse,
        RevokeNameResponse, RevokeTokenResponse, RevokedCertificate, RotateAuthorityResponse, Trust,
    },
};
use prost_types::Timestamp;
use std::time::{Duration, SystemTime};

/// Life of a token for which none is given.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

impl Authority {
    /// Enroll. `caller`: the certificate that the call was made with.
    ///
    /// # Errors
    /// When the caller may have no certificate, a value is not valid, or it cannot be stored.
    pub fn answer_enroll(
        &self,
        request: EnrollRequest,
        caller: Option<&Serial>,
        now: SystemTime,
    ) -> Result<EnrollResponse, CaError> {
        let EnrollRequest { secret, certificate_request, name, peer } = request;
        let wanted: Option<PeerName> = if name.is_empty() { None } else { Some(name.parse()?) };
        let ask = |proof: &Proof<'_>| self.enrol_caller(proof, &certificate_request, wanted.clone(), peer, now);
        let enrolled = match caller {
            _ if !secret.is_empty() => ask(&Proof::Token(&TokenSecret::from_field("secret", &secret)?)),
            // With the certificate another key can be used, too.
            Some(serial) => match ask(&Proof::Key) {
                Err(CaError::Refused(Refusal::KeyUnknown)) => ask(&Proof::Certificate(serial)),
                asked => asked,
            },
            None => ask(&Proof::Key),
        }?;
        let subject = enrolled.subject;
        Ok(EnrollResponse {
            certificates: enrolled.chain.iter().map(|certificate| certificate.to_vec().into()).collect(),
            name: subject.name.to_string(),
            network: self.network().to_string(),
            labels: subject.labels,
            operator: subject.operator,
            trust: Some(self.answer_trust(0, now)?),
        })
    }

    /// What everyone must know that is not of the revision `since` already.
    ///
    /// # Errors
    /// As [`Authority::trust`].
    pub fn answer_trust(&self, since: u64, now: SystemTime) -> Result<Trust, CaError> {
        let TrustNow { authorities, revoked, revision, start_over, more } = self.trust(since, now)?;
        let listed = |revoked: Revoked| RevokedCertificate {
            serial: revoked.serial.to_vec().into(),
            not_after: Some(timestamp(revoked.not_after)),
        };
        Ok(Trust {
            authorities: authorities.iter().map(|certificate| certificate.to_vec().into()).collect(),
            revoked: revoked.into_iter().map(listed).collect(),
            revision,
            start_over: start_over || since == 0,
            more,
        })
    }

    /// CreateToken.
    ///
    /// # Errors
    /// When a value is not valid, too many tokens are kept, or it cannot be stored.
    pub fn answer_create_token(&self, request: CreateTokenRequest, now: SystemTime) -> Result<CreateTokenResponse, CaError> {
        let CreateTokenRequest { name, labels, ttl, uses, operator, addresses, rejoin } = request;
        let names = NamePattern::parse(&name)?.ok_or_else(|| InvalidField::new("name", "is empty; say whom the token is for"))?;
        names.exact().map(str::parse::<PeerName>).transpose()?;
        if addresses.is_empty() || addresses.len() > TOKEN_ADDRESSES_MAX {
            let problem =
                format!("{} given; a token holds 1 to {TOKEN_ADDRESSES_MAX} addresses of the registry", addresses.len());
            return Err(InvalidField::new("addresses", problem).into());
        }
        let registries = addresses.iter().map(|address| address.parse()).collect::<Result<Vec<Endpoint>, InvalidField>>()?;
        let life = match ttl {
            Some(ttl) => {
                Duration::try_from(ttl).map_err(|_| InvalidField::new("ttl", "is negative; give a duration such as 1h"))?
            }
            None => TOKEN_LIFE,
        };
        let hosts = registries.iter().map(|at| at.host().to_ascii_lowercase()).collect();
        let token = NewToken { names, labels, life, uses: uses.max(1), operator, rejoin, hosts };
        let (secret, ca, token) = self.create_token(token, now)?;
        let line = JoinToken { registries, ca, network: self.network().clone(), secret }.reveal();
        Ok(CreateTokenResponse { token: line, record: Some(record(token)) })
    }

    /// ListTokens.
    pub fn answer_list_tokens(&self) -> ListTokensResponse {
        ListTokensResponse { tokens: self.tokens().into_iter().map(record).collect() }
    }

    /// RevokeToken.
    ///
    /// # Errors
    /// When there is none with that id, or it cannot be stored.
    pub fn answer_revoke_token(&self, id: &str) -> Result<RevokeTokenResponse, CaError> {
        Ok(RevokeTokenResponse { record: Some(record(self.revoke_token(id)?)) })
    }

    /// RevokeName.
    ///
    /// # Errors
    /// When nobody has that name, or it cannot be stored.
    pub fn answer_revoke_name(&self, name: &PeerName, now: SystemTime) -> Result<RevokeNameResponse, CaError> {
        let RevokedName { certificates, tokens, open_tokens, revision } = self.revoke_name(name, now)?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let open_tokens = open_tokens.into_iter().map(record).collect();
        Ok(RevokeNameResponse { certificates: count(certificates), tokens: count(tokens), revision, open_tokens })
    }

    /// RotateAuthority.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub fn answer_rotate(&self, now: SystemTime) -> Result<RotateAuthorityResponse, CaError> {
        Ok(RotateAuthorityResponse { sha256: self.rotate(now)?.0.to_vec().into() })
    }
}

fn record(token: Token) -> JoinTokenRecord {
    let Token { hash, names, labels, operator, created_at, expires_at, uses, used, revoked, rejoin, hosts: _ } = token;
    let (created_at, expires_at) = (Some(timestamp(created_at)), Some(timestamp(expires_at)));
    JoinTokenRecord {
        id: hash.id(),
        name: names.to_string(),
        labels,
        operator,
        created_at,
        expires_at,
        uses,
        used,
        revoked,
        rejoin,
    }
}

fn timestamp(seconds: u64) -> Timestamp {
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}
