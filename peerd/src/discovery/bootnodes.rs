//! Peers that a user named to begin with.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::overlay::{PeerId, Time};
use p2pdi::backoff::Backoff;
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    field::{InvalidField, Quoted},
    name::PeerName,
};
use std::{fmt, net::Ipv4Addr, str::FromStr, time::Duration};

/// A bootnode that was reached and lost again is not dialled sooner than this after its last dial, or one that breaks every link at once
/// would be dialled without a pause. A guess: a bootnode that restarts takes longer.
const REDIAL_MIN: Duration = Duration::from_secs(2);

/// A bootnode as the user wrote it: `NAME:PORT` on this host, `NAME@HOST:PORT` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootnode {
    text: String,
    /// The name it should have, if one was given.
    name: Option<PeerName>,
    /// Where to dial, in this order. One word before a colon may be a peer of this host or a host.
    endpoints: Vec<Endpoint>,
}

impl Bootnode {
    /// Where it is dialled, in this order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The name it should have, if one was given.
    pub fn name(&self) -> Option<&PeerName> {
        self.name.as_ref()
    }
}

impl FromStr for Bootnode {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let here = |error: InvalidField| error.in_field("bootnodes");
        let bootnode = |name, endpoints| Self { text: text.to_owned(), name, endpoints };
        if let Some((name, endpoint)) = text.split_once('@') {
            let name = name.parse().map_err(here)?;
            return Ok(bootnode(Some(name), vec![endpoint.parse().map_err(here)?]));
        }
        let wrong = |what| {
            InvalidField::new("bootnodes", format!("{}{what}: write NAME:PORT, NAME@HOST:PORT or HOST:PORT", Quoted(text)))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong(""))?;
        let is_host = host.contains(['.', '[', ':']) || host.eq_ignore_ascii_case("localhost");
        let as_host = text.parse::<Endpoint>();
        if is_host {
            return Ok(bootnode(None, vec![as_host.map_err(here)?]));
        }
        let name = host.parse().map_err(here)?;
        // Not in the endpoint's own words: nobody wrote that address.
        let local = format!("{}:{port}", Ipv4Addr::LOCALHOST).parse();
        let local = local.map_err(|_| wrong(" has no valid port (1 to 65535, without leading zeros)"))?;
        Ok(bootnode(Some(name), [local].into_iter().chain(as_host.ok()).collect()))
    }
}

impl fmt::Display for Bootnode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All of them, and when each is dialled.
pub(crate) struct Bootnodes(Vec<State>);

struct State {
    bootnode: Bootnode,
    /// Who answered there last.
    contact: Option<Contact>,
    backoff: Backoff,
    /// When it was dialled last.
    dialled: Option<Time>,
    /// When to dial; `None`: not needed, or under way.
    due: Option<Time>,
    failures: u32,
}

impl Bootnodes {
    pub(crate) fn new(bootnodes: Vec<Bootnode>) -> Self {
        let state = |bootnode| State {
            bootnode,
            contact: None,
            backoff: Backoff::default(),
            dialled: None,
            due: Some(Time::ZERO),
            failures: 0,
        };
        Self(bootnodes.into_iter().map(state).collect())
    }

    /// Those that have answered once.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.0.iter().filter_map(|state| state.contact.as_ref())
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(|state| state.due).min()
    }

    /// Those to dial now; [`Bootnodes::reached`], [`Bootnodes::failed`] or [`Bootnodes::is_me`] says what came of it.
    pub(crate) fn due(&mut self, now: Time) -> Vec<(usize, Vec<Endpoint>)> {
        let mut due = Vec::new();
        for (index, state) in self.0.iter_mut().enumerate() {
            if state.due.is_some_and(|at| at <= now) {
                (state.due, state.dialled) = (None, Some(now));
                due.push((index, state.bootnode.endpoints.clone()));
            }
        }
        due
    }

    /// This peer has lost all others.
    pub(crate) fn needed(&mut self, now: Time) {
        for state in &mut self.0 {
            if state.contact.is_some() && state.due.is_none() {
                state.due = Some(state.dialled.map_or(now, |at| now.max(at + REDIAL_MIN)));
            }
        }
    }

    pub(crate) fn reached(&mut self, index: usize, contact: &Contact) {
        let Some(state) = self.0.get_mut(index) else { return };
        if let Some(name) = &state.bootnode.name
            && name != contact.name()
        {
            tracing::warn!(bootnode = %state.bootnode, found = %contact.name(), "a bootnode goes by another name");
        } else {
            tracing::info!(bootnode = %state.bootnode, "bootnode reached");
        }
        state.contact = Some(contact.clone());
        state.backoff.reset();
        state.failures = 0;
        // Whoever called for help meanwhile has it.
        state.due = None;
    }

    /// Another peer answers where `gone` did; says whether that was a bootnode.
    pub(crate) fn renewed(&mut self, gone: PeerId, contact: &Contact) -> bool {
        let known = self.0.iter_mut().filter_map(|state| state.contact.as_mut());
        known.filter(|known| known.id() == gone).map(|known| *known = contact.clone()).count() > 0
    }

    /// Dialled again later, however often.
    pub(crate) fn failed(&mut self, index: usize, why: &str, now: Time, random: f64) {
        let Some(state) = self.0.get_mut(index) else { return };
        let pause = state.backoff.next(random);
        state.due = Some(now + pause);
        state.failures = state.failures.saturating_add(1);
        if state.failures == 1 {
            tracing::warn!(bootnode = %state.bootnode, why, "a bootnode does not answer; trying on");
        } else {
            tracing::debug!(bootnode = %state.bootnode, why, ?pause, "a bootnode does not answer");
        }
    }

    /// It is this peer itself.
    pub(crate) fn is_me(&mut self, index: usize) {
        if let Some(state) = self.0.get_mut(index) {
            tracing::debug!(bootnode = %state.bootnode, "that bootnode is this peer");
            (state.contact, state.due) = (None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootnodes_are_names_on_this_host_or_addresses() {
        for (text, name, first) in [
            ("A:8001", Some("A"), "127.0.0.1:8001"),
            ("B@10.0.0.7:8002", Some("B"), "10.0.0.7:8002"),
            ("b@peer-0.peers:1", Some("b"), "peer-0.peers:1"),
            ("127.0.0.1:9", None, "127.0.0.1:9"),
            ("[::1]:9", None, "[::1]:9"),
            ("localhost:9", None, "localhost:9"),
            ("peer-0.peers.default.svc:7801", None, "peer-0.peers.default.svc:7801"),
        ] {
            let bootnode: Bootnode = text.parse().unwrap();
            assert_eq!(bootnode.name.as_ref().map(PeerName::as_str), name, "{text}");
            assert_eq!(bootnode.endpoints[0].as_str(), first);
            assert_eq!(bootnode.to_string(), text);
        }
        // In a network of containers one word is a host.
        assert_eq!("peer-a:7801".parse::<Bootnode>().unwrap().endpoints[1].as_str(), "peer-a:7801");
        for (text, said) in [
            ("", "write NAME:PORT, NAME@HOST:PORT or HOST:PORT"),
            ("A", "\"A\": write NAME:PORT, NAME@HOST:PORT or HOST:PORT"),
            ("A:", "\"A:\" has no valid port"),
            ("A:0", "\"A:0\" has no valid port"),
            ("E:port", "\"E:port\" has no valid port (1 to 65535, without leading zeros): write NAME:PORT"),
            ("10.0.0.1:port", "\"10.0.0.1:port\" has no valid port"),
            ("two words:1", "two words"),
            ("@:1", "is empty"),
            ("a@b", "\"b\" has no port"),
            ("::1:80", "in brackets"),
        ] {
            let error = text.parse::<Bootnode>().unwrap_err();
            assert_eq!(error.field, "bootnodes", "{text}");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn one_that_does_not_answer_is_tried_for_ever_ever_more_seldom() {
        let mut bootnodes = Bootnodes::new(vec!["A:1".parse().unwrap()]);
        let mut now = Time::ZERO;
        for _ in 0..100 {
            assert_eq!(bootnodes.due(now).len(), 1);
            assert_eq!(bootnodes.next_deadline(), None);
            bootnodes.failed(0, "refused", now, 1.0);
            let next = bootnodes.next_deadline().unwrap();
            assert!(next > now && next <= now + Time::from_secs(10));
            now = next;
        }
    }
}
