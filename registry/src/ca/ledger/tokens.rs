//! Making, listing and revoking tokens.

use super::{Change, Ledger, Refusal, Token};
use p2pdi::{field::InvalidField, name::PeerName, selector::validate_labels};

/// Longest life of a token, in seconds: both certificate authorities of a rotation are trusted for that long.
pub const TOKEN_LIFE_MAX: u64 = 30 * 24 * 60 * 60;
/// Most peers that join with one token.
pub const TOKEN_USES_MAX: u32 = 100_000;
/// Most tokens kept, ended ones included: a listing of them fits an answer.
const TOKENS_MAX: usize = 5_000;

/// Whether a token may be made.
///
/// # Errors
/// Names the value that breaks a rule.
pub(in crate::ca) fn check_token(token: &Token) -> Result<(), InvalidField> {
    let life = token.expires_at.saturating_sub(token.created_at);
    if life == 0 || life > TOKEN_LIFE_MAX {
        return Err(InvalidField::new("ttl", format!("is {life} s; a token lives 1 s to {TOKEN_LIFE_MAX} s (30 days)")));
    }
    if token.uses == 0 || token.uses > TOKEN_USES_MAX {
        return Err(InvalidField::new("uses", format!("is {}; a token is for 1 to {TOKEN_USES_MAX} uses", token.uses)));
    }
    if token.operator && token.names.exact().is_none() {
        return Err(InvalidField::new("name", "is a pattern; name one operator"));
    }
    validate_labels(&token.labels)
}

impl Ledger {
    /// Adds a token, which [`check_token`] accepts. One for a name that no peer may have would be refused to whoever used it.
    pub(in crate::ca) fn add_token(&self, token: Token) -> Result<Change, Refusal> {
        if let Some(Ok(name)) = token.names.exact().filter(|_| !token.operator).map(str::parse::<PeerName>) {
            self.check_reserved(&name, &token.hosts)?;
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refusal::TooManyTokens(TOKENS_MAX));
        }
        Ok(Change::Token(token))
    }

    /// Whether a token with this id is kept.
    pub(in crate::ca) fn has_token_id(&self, id: &str) -> bool {
        self.tokens.keys().any(|hash| hash.id() == id)
    }

    /// All tokens, the newest first.
    pub(in crate::ca) fn tokens(&self) -> Vec<Token> {
        let mut all: Vec<_> = self.tokens.values().cloned().collect();
        all.sort_by_key(|token| std::cmp::Reverse(token.created_at));
        all
    }

    /// Revokes the token with this id. A second time is not an error.
    pub(in crate::ca) fn revoke_token(&self, id: &str) -> Result<Token, Refusal> {
        let token = self.tokens.values().find(|token| token.hash.id().eq_ignore_ascii_case(id));
        token.map(|token| Token { revoked: true, ..token.clone() }).ok_or_else(|| Refusal::TokenIdUnknown(id.to_owned()))
    }
}
