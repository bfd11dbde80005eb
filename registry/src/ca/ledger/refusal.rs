//! Why somebody gets no certificate, or no token.

use p2pdi::{name::PeerName, selector::NamePattern};

/// Why somebody gets no certificate, or no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token has this secret, or it ended long ago.
    #[error("this registry does not know the token; have a new one made with `p2pctl token create`")]
    TokenUnknown,
    /// The token ended.
    #[error("the token {id} expired {ago} s ago; have a new one made with `p2pctl token create`")]
    TokenExpired {
        /// How it is listed.
        id: String,
        /// Seconds since then.
        ago: u64,
    },
    /// As many joined with the token as may.
    #[error(
        "the token {id} was used already, {uses} of {uses} times; have a new one made with `p2pctl token create`, or one for several \
         with --uses N"
    )]
    TokenUsed {
        /// How it is listed.
        id: String,
        /// How many may join with it.
        uses: u32,
    },
    /// The token was revoked.
    #[error("the token {id} was revoked; have a new one made with `p2pctl token create`")]
    TokenRevoked {
        /// How it is listed.
        id: String,
    },
    /// A peer asks with a token that makes operators.
    #[error(
        "the token is for a person who operates the network, not for a peer: that person runs `p2pctl login TOKEN`; a token for a peer is made \
         without --operator"
    )]
    TokenOfOperator,
    /// The token is for several names, and none was asked for.
    #[error("the token is for any name like {pattern}; say which one with --name")]
    NameNeeded {
        /// The token's names.
        pattern: NamePattern,
    },
    /// The token, or the certificate, is for another name.
    #[error(
        "{wanted} is not the name that this token or certificate is for, which is {allowed}; leave out --name, or join with a token for {wanted}"
    )]
    NameNotYours {
        /// The name asked for.
        wanted: PeerName,
        /// The name, or pattern, that may be used.
        allowed: String,
    },
    /// The name means something else.
    #[error("{0} is no name for a peer, since the registry itself has it, in its certificate or its address; choose another")]
    NameReserved(PeerName),
    /// Another key has a certificate for the name.
    #[error(
        "another machine has a certificate for {0}; choose another name, or have a token made for this one alone (--name {0}); tokens made with \
         --rejoin let machines that lost their keys join again"
    )]
    NameInUse(PeerName),
    /// The key belongs to no certificate that could be renewed.
    #[error("this registry gave no certificate for this key, or it ended more than 30 days ago; join with a token")]
    KeyUnknown,
    /// The certificate to be renewed was revoked.
    #[error("the certificate of {0} was revoked; join with a new token")]
    CertificateRevoked(PeerName),
    /// The same key asks too often.
    #[error("{0} has as many valid certificates as one name may have; renew less often")]
    TooManyCertificates(PeerName),
    /// As many tokens are kept as may be.
    #[error("{0} tokens are kept, which is the limit; revoke some (`p2pctl token list`), or let them expire")]
    TooManyTokens(usize),
    /// No token has this id.
    #[error("no token has the id {0}; `p2pctl token list` shows those there are")]
    TokenIdUnknown(String),
    /// No valid certificate is for this name, and no token.
    #[error("nobody has a certificate for {0} that is still valid, nor a token for that name alone")]
    NameUnknown(PeerName),
}
