//! The ledger as rows that several authorities share: `trust`, `tokens/HASH`, `certificates/SERIAL`, and the certificates of the authorities,
//! `authorities/NUMBER`.

use super::{
    codec,
    error::CaError,
    ledger::{Change, Ledger},
    rows::{News, Row, SharedRows},
};
use p2pdi::{hex, token::TokenHash};
use prost::Message;

const TRUST: &str = "trust";
const TOKENS: &str = "tokens/";
const CERTIFICATES: &str = "certificates/";
const AUTHORITIES: &str = "authorities/";

/// The row `trust`.
#[derive(Clone, Copy, PartialEq, Message)]
struct StoredTrust {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(uint32, tag = "2")]
    generation: u32,
}

/// The shared ledger.
pub(super) struct SharedLedger(Box<dyn SharedRows>);

/// Why changes are not stored.
pub(super) enum Unwritten {
    /// Others changed something meanwhile.
    Overtaken,
    /// Nobody knows whether they are; if they are, they are learned as those of others.
    Unknown(CaError),
}

/// What others changed.
pub(super) enum Learned {
    /// This, in order.
    Changes(Vec<Change>),
    /// All that there is is this.
    All(Vec<Change>),
}

impl SharedLedger {
    pub(super) fn new(rows: Box<dyn SharedRows>) -> Self {
        Self(rows)
    }

    /// What others changed since the last call; the first time, all that is there.
    pub(super) fn news(&mut self) -> Result<Learned, CaError> {
        read(self.0.news())
    }

    /// As [`SharedLedger::news`], and nothing that was stored before this call is missing.
    pub(super) fn catch_up(&mut self) -> Result<Learned, CaError> {
        read(self.0.catch_up())
    }

    /// Stores changes in their order. Returns how many surely were, and why the rest is not, or may not be.
    pub(super) fn write(&mut self, changes: &[Change]) -> (usize, Result<(), Unwritten>) {
        let mut written = 0;
        for some in changes.chunks(self.0.rows_max().max(1)) {
            let rows: Vec<Row> = some.iter().map(row).collect();
            match self.0.write(&rows) {
                Ok(true) => written += some.len(),
                Ok(false) => return (written, Err(Unwritten::Overtaken)),
                Err(problem) => return (written, Err(Unwritten::Unknown(CaError::Shared(problem)))),
            }
        }
        (written, Ok(()))
    }

    /// Changes whenever there is something to learn.
    pub(super) fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.changes()
    }
}

/// The ledger after `changes`, from nothing.
pub(super) fn ledger_of(changes: Vec<Change>) -> Ledger {
    let mut ledger = Ledger::default();
    changes.into_iter().for_each(|change| ledger.apply(change));
    ledger
}

fn read(news: Result<News, String>) -> Result<Learned, CaError> {
    Ok(match news.map_err(CaError::Shared)? {
        News::Changed(rows) => Learned::Changes(rows.iter().filter_map(known).collect()),
        // A token that was revoked, or a certificate, must not be forgotten silently.
        News::All(rows) => {
            let unreadable =
                |name: &str| CaError::Shared(format!("its row {name} cannot be read; restore it, or remove it from below ca/"));
            let changes = rows.iter().map(|row| change(row).map_err(|()| unreadable(&row.0)));
            Learned::All(changes.filter_map(Result::transpose).collect::<Result<_, _>>()?)
        }
    })
}

/// A change that was read while this program runs: one that cannot be read is said, and is not there.
fn known(row: &Row) -> Option<Change> {
    change(row).unwrap_or_else(|()| {
        tracing::error!(row = row.0, "a row of the shared ledger cannot be read; it is not followed");
        None
    })
}

fn row(change: &Change) -> Row {
    let named = |part: &str, id: &[u8]| format!("{part}{}", hex::encode(id));
    match change {
        Change::Token(token) => (named(TOKENS, &token.hash.0), Some(codec::encode_token(token))),
        Change::ForgetToken(hash) => (named(TOKENS, &hash.0), None),
        Change::Certificate(certificate) => {
            (named(CERTIFICATES, &certificate.serial), Some(codec::encode_certificate(certificate)))
        }
        Change::ForgetCertificate(serial) => (named(CERTIFICATES, serial), None),
        Change::Trust { revision, generation } => {
            let stored = StoredTrust { revision: *revision, generation: *generation };
            (TRUST.to_owned(), Some(stored.encode_to_vec()))
        }
        Change::Authority { generation, certificates } => {
            (format!("{AUTHORITIES}{generation}"), Some(certificates.clone().into_bytes()))
        }
    }
}

/// The change of a row; `None`: this version does not know such a row.
fn change((name, value): &Row) -> Result<Option<Change>, ()> {
    if name == TRUST {
        let Some(value) = value else { return Ok(None) };
        let StoredTrust { revision, generation } = StoredTrust::decode(&value[..]).map_err(drop)?;
        return Ok(Some(Change::Trust { revision, generation }));
    }
    if let Some(id) = name.strip_prefix(TOKENS) {
        return Ok(Some(match value {
            Some(value) => Change::Token(codec::decode_token(value).ok_or(())?),
            None => Change::ForgetToken(TokenHash(hex::decode(id).ok_or(())?)),
        }));
    }
    if let Some(id) = name.strip_prefix(CERTIFICATES) {
        return Ok(Some(match value {
            Some(value) => Change::Certificate(codec::decode_certificate(value).ok_or(())?),
            None => Change::ForgetCertificate(hex::decode(id).ok_or(())?),
        }));
    }
    if let (Some(number), Some(value)) = (name.strip_prefix(AUTHORITIES), value) {
        let generation = number.parse().map_err(drop)?;
        let certificates = String::from_utf8(value.clone()).map_err(drop)?;
        return Ok(Some(Change::Authority { generation, certificates }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::ledger::{Certificate, Subject, Token};
    use p2pdi::selector::NamePattern;
    use std::collections::BTreeMap;

    #[test]
    fn changes_are_the_same_after_they_were_rows() {
        let token = Token {
            hash: TokenHash([1; 32]),
            names: NamePattern::parse("fff-*").unwrap().unwrap(),
            labels: BTreeMap::new(),
            operator: false,
            created_at: 1,
            expires_at: 2,
            uses: 3,
            used: 1,
            revoked: true,
            rejoin: false,
            hosts: Vec::new(),
        };
        let subject = Subject { name: "fff-c".parse().unwrap(), labels: BTreeMap::new(), operator: true };
        let certificate = Certificate { serial: [7; 16], key: [2; 32], subject, token: None, not_after: 9, revoked_at: 4 };
        for one in [
            Change::Token(token),
            Change::ForgetToken(TokenHash([3; 32])),
            Change::Certificate(certificate),
            Change::ForgetCertificate([9; 16]),
            Change::Trust { revision: 5, generation: 2 },
            Change::Authority { generation: 2, certificates: "-----BEGIN".to_owned() },
        ] {
            assert_eq!(change(&row(&one)), Ok(Some(one)));
        }
        assert_eq!(change(&("of a later version".to_owned(), Some(vec![1]))), Ok(None));
        for damaged in ["tokens/00", "certificates/zz", "authorities/x", "trust"] {
            assert_eq!(change(&(damaged.to_owned(), Some(vec![0xff]))), Err(()), "{damaged}");
        }
    }
}
