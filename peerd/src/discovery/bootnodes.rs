//! Bootnodes: peers that the user names as entry points to the mesh.
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

/// Shortest time between two dials of a bootnode that was reached and lost again; otherwise one that closes every link at once would be
/// dialled without a pause. A guess: a bootnode takes longer to restart.
const REDIAL_MIN: Duration = Duration::from_secs(2);

/// Time between two log lines of one kind about one bootnode: one that closes every link is reached and lost again every few seconds.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Where to dial, and the name of the peer expected there, if it is known.
type Target = (Endpoint, Option<PeerName>);

/// A bootnode as the user wrote it: `NAME:PORT` on this host, `NAME@HOST:PORT` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootnode {
    text: String,
    /// The name it should have, if one was given.
    name: Option<PeerName>,
    /// Where to dial, in this order. A single word before the colon may be the name of a peer on this host, or a host name.
    endpoints: Vec<Endpoint>,
}

impl Bootnode {
    /// Where to dial, in this order, and the name of the peer expected there. A word that may be a host name is no name of a peer.
    fn targets(&self) -> Vec<Target> {
        let name = |index: usize| self.name.clone().filter(|_| index == 0);
        self.endpoints.iter().enumerate().map(|(index, endpoint)| (endpoint.clone(), name(index))).collect()
    }

    /// The endpoints to dial, in this order.
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
        // The endpoint's own error would quote an address that the user did not write.
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

/// All bootnodes, and when each is dialled.
pub(crate) struct Bootnodes(Vec<State>);

struct State {
    bootnode: Bootnode,
    /// The peer that answered there last.
    contact: Option<Contact>,
    backoff: Backoff,
    /// The last dial.
    dialled: Option<Time>,
    /// When to dial; `None`: not needed, or in progress.
    due: Option<Time>,
    failures: u32,
    /// When it was logged that it was reached, and that it does not answer.
    reached_logged: Option<Time>,
    failure_logged: Option<Time>,
}

/// Whether to write a line that was last written at `logged`.
fn should_log(logged: &mut Option<Time>, now: Time) -> bool {
    let is_due = logged.is_none_or(|at| at + LOG_INTERVAL <= now);
    if is_due {
        *logged = Some(now);
    }
    is_due
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
            reached_logged: None,
            failure_logged: None,
        };
        Self(bootnodes.into_iter().map(state).collect())
    }

    /// The peers of the bootnodes that have answered.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.0.iter().filter_map(|state| state.contact.as_ref())
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(|state| state.due).min()
    }

    /// The bootnodes to dial now: index, and endpoints with the name expected there. The outcome is reported by [`Bootnodes::reached`], [`Bootnodes::failed`] or
    /// [`Bootnodes::is_me`].
    pub(crate) fn due(&mut self, now: Time) -> Vec<(usize, Vec<Target>)> {
        let mut due = Vec::new();
        for (index, state) in self.0.iter_mut().enumerate() {
            if state.due.is_some_and(|at| at <= now) {
                (state.due, state.dialled) = (None, Some(now));
                due.push((index, state.bootnode.targets()));
            }
        }
        due
    }

    /// This peer has lost all neighbours: bootnodes that have answered are dialled again.
    pub(crate) fn retry_now(&mut self, now: Time) {
        for state in &mut self.0 {
            if state.contact.is_some() && state.due.is_none() {
                state.due = Some(state.dialled.map_or(now, |at| now.max(at + REDIAL_MIN)));
            }
        }
    }

    /// The peer `contact` answers there.
    pub(crate) fn reached(&mut self, index: usize, contact: &Contact, now: Time) {
        let Some(state) = self.0.get_mut(index) else { return };
        if !should_log(&mut state.reached_logged, now) {
            tracing::debug!(bootnode = %state.bootnode, "bootnode reached again");
        } else if let Some(name) = &state.bootnode.name
            && name != contact.name()
        {
            tracing::warn!(bootnode = %state.bootnode, found = %contact.name(), "the bootnode has another name than expected");
        } else {
            tracing::info!(bootnode = %state.bootnode, "bootnode reached");
        }
        state.contact = Some(contact.clone());
        state.backoff.reset();
        state.failures = 0;
        // A dial requested in the meantime is no longer needed.
        state.due = None;
    }

    /// Another peer answers at the endpoint of `gone`. Returns whether that was a bootnode.
    pub(crate) fn renewed(&mut self, gone: PeerId, contact: &Contact) -> bool {
        let known = self.0.iter_mut().filter_map(|state| state.contact.as_mut());
        known.filter(|known| known.id() == gone).map(|known| *known = contact.clone()).count() > 0
    }

    /// The dial failed; the next one follows after a pause, without a limit of attempts.
    pub(crate) fn failed(&mut self, index: usize, why: &str, now: Time, random: f64) {
        let Some(state) = self.0.get_mut(index) else { return };
        let pause = state.backoff.next(random);
        state.due = Some(now + pause);
        state.failures = state.failures.saturating_add(1);
        if state.failures == 1 && should_log(&mut state.failure_logged, now) {
            tracing::warn!(bootnode = %state.bootnode, why, "the bootnode does not answer; retrying");
        } else {
            tracing::debug!(bootnode = %state.bootnode, why, ?pause, "the bootnode does not answer");
        }
    }

    /// The bootnode is this peer itself; it is not dialled again.
    pub(crate) fn is_me(&mut self, index: usize) {
        if let Some(state) = self.0.get_mut(index) {
            tracing::debug!(bootnode = %state.bootnode, "the bootnode is this peer");
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
        // In a container network a single word is a host name.
        assert_eq!("peer-a:7801".parse::<Bootnode>().unwrap().endpoints[1].as_str(), "peer-a:7801");
        for (text, expected) in [
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
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_bootnode_that_answers_and_fails_in_turn_is_logged_once_a_minute() {
        let (mut bootnodes, mut lines) = (Bootnodes::new(vec!["A:1".parse().unwrap()]), 0);
        let contact = Contact::parse(PeerId::from_u128(1), "A", "127.0.0.1:1").unwrap();
        for second in 0..120 {
            let now = Time::from_secs(second);
            let logged = |bootnodes: &Bootnodes| (bootnodes.0[0].reached_logged, bootnodes.0[0].failure_logged);
            let before = logged(&bootnodes);
            bootnodes.failed(0, "refused", now, 1.0);
            bootnodes.reached(0, &contact, now);
            let after = logged(&bootnodes);
            lines += usize::from(before.0 != after.0) + usize::from(before.1 != after.1);
        }
        assert_eq!(lines, 4);
    }

    #[test]
    fn a_bootnode_that_does_not_answer_is_retried_without_a_limit_of_attempts() {
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
