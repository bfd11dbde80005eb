//! A request for a job, validated.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::{
    pattern::{DocumentPattern, PatternSet},
    wanted::Wanted,
};
use p2pdi::{
    contact::Contact,
    document::DocumentName,
    endpoint::Endpoint,
    field::InvalidField,
    name::PeerName,
    v1::{FetchRequest, JobPriority},
};
use std::time::Duration;

/// Most documents and patterns in one request: more than people write; a pattern has as many documents as match.
pub const WANTED_MAX: usize = 1_000;
/// Most holders named in one request: a fetch uses far fewer at once.
pub const FROM_MAX: usize = 64;

/// What a job is to fetch, and how.
#[derive(Debug, Clone)]
pub struct JobRequest {
    pub(super) wanted: Vec<Wanted>,
    pub(super) patterns: PatternSet,
    pub(super) from: Vec<From>,
    pub(super) priority: JobPriority,
    /// `None`: for ever.
    pub(super) wait_for_holders: Option<Duration>,
    /// As it came, to be stored.
    pub(super) raw: FetchRequest,
}

/// A holder to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Name(PeerName),
    Endpoint(Endpoint),
}

impl From {
    fn parse(text: &str) -> Result<Self, InvalidField> {
        let wrong = |_| InvalidField::new("from", "write the name of a peer, or HOST:PORT");
        if text.contains(':') {
            text.parse().map(Self::Endpoint).map_err(wrong)
        } else {
            text.parse().map(Self::Name).map_err(wrong)
        }
    }

    /// Whether it is this peer.
    pub(super) fn is(&self, contact: &Contact) -> bool {
        match self {
            Self::Name(name) => name == contact.name(),
            Self::Endpoint(endpoint) => endpoint == contact.endpoint(),
        }
    }
}

impl JobRequest {
    /// Whether a name matches one of the patterns that are wanted, and what chooses among those.
    pub(super) fn matcher(&self) -> impl Fn(&DocumentName) -> bool + Send + Sync + use<> {
        let (patterns, set) = (self.wanted_patterns(), self.patterns.clone());
        move |name| set.matches(name) && patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// The patterns that are wanted.
    pub(super) fn wanted_patterns(&self) -> Vec<DocumentPattern> {
        let pattern = |wanted: &Wanted| match wanted {
            Wanted::Matching(pattern) => Some(pattern.clone()),
            Wanted::One(_) => None,
        };
        self.wanted.iter().filter_map(pattern).collect()
    }
}

impl TryFrom<FetchRequest> for JobRequest {
    type Error = InvalidField;

    fn try_from(raw: FetchRequest) -> Result<Self, InvalidField> {
        if raw.wanted.is_empty() {
            return Err(InvalidField::new("wanted", "is empty; give a name, rfc:NUMBER, b3:HASH or a pattern"));
        }
        if raw.wanted.len() > WANTED_MAX {
            let given = raw.wanted.len();
            return Err(InvalidField::new("wanted", format!("has {given} entries; give at most {WANTED_MAX}, or a pattern")));
        }
        if raw.from.len() > FROM_MAX {
            return Err(InvalidField::new("from", format!("has {} holders; give at most {FROM_MAX}", raw.from.len())));
        }
        let wait = raw.wait_for_holders.map(Duration::try_from).transpose();
        let wait_for_holders = wait.map_err(|_| {
            InvalidField::new("wait_for_holders", "is negative; give how long to wait for a holder, or nothing for ever")
        })?;
        let priority = match JobPriority::try_from(raw.priority) {
            Ok(JobPriority::Unspecified) => JobPriority::Normal,
            Ok(priority) => priority,
            Err(_) => return Err(InvalidField::new("priority", "is not known; give low, normal or high")),
        };
        let wanted = raw.wanted.iter().map(|text| Wanted::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let patterns = PatternSet::parse(&raw.include, &raw.exclude)?;
        if !patterns.is_empty() && !wanted.iter().any(|wanted| matches!(wanted, Wanted::Matching(_))) {
            let field = if raw.include.is_empty() { "exclude" } else { "include" };
            return Err(InvalidField::new(
                field,
                "only chooses among what patterns match; give a pattern, such as **, in wanted",
            ));
        }
        let from = raw.from.iter().map(|text| From::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { wanted, patterns, from, priority, wait_for_holders, raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        let request = |change: fn(&mut FetchRequest)| {
            let mut raw = FetchRequest { wanted: vec!["a*".into()], ..Default::default() };
            change(&mut raw);
            JobRequest::try_from(raw)
        };
        assert_eq!(request(|_| {}).unwrap().priority, JobPriority::Normal);
        for (change, field) in [
            ((|raw| raw.wanted.clear()) as fn(&mut FetchRequest), "wanted"),
            (|raw| raw.wanted.push("../x".into()), "wanted"),
            (|raw| raw.wanted = vec!["a".into(); WANTED_MAX + 1], "wanted"),
            (|raw| raw.include.push("[".into()), "include"),
            (|raw| raw.exclude.push("!a".into()), "exclude"),
            (|raw| (raw.wanted, raw.exclude) = (vec!["a".into()], vec!["b".into()]), "exclude"),
            (|raw| raw.from.push("not a name".into()), "from"),
            (|raw| raw.from.push("host:port".into()), "from"),
            (|raw| raw.from = vec!["a".into(); FROM_MAX + 1], "from"),
            (|raw| raw.priority = 9, "priority"),
            (|raw| raw.wait_for_holders = Some(prost_types::Duration { seconds: -1, nanos: 0 }), "wait_for_holders"),
        ] {
            assert_eq!(request(change).unwrap_err().field, field);
        }
    }
}
