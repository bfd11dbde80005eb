//! Transfers under way, for the page, curl and programs: swarms, jobs and mirrors.

use crate::{documents::restrictions::Audience, rpc::Services};
use bytesize::ByteSize;
use p2pdi::{
    field::is_terminal_control,
    json,
    phrases::counted,
    v1::{FailedDocument, Job, JobState, MirrorStatus, Swarm, SwarmConnection},
};
use serde_json::{Map, Value};
use std::{cmp::Reverse, fmt::Write as _, time::Instant};

/// Most swarms shown. A guess: more than a person looks through.
const SWARMS_MAX: usize = 50;
/// Most connections shown of each, the busiest ones. A peer keeps about twenty.
const CONNECTIONS_MAX: usize = 50;
/// Most jobs shown: those that have not ended, then those that ended last.
const JOBS_MAX: usize = 50;
/// Most reasons for failures shown in the text of a job or mirror; JSON has those that the contract gives.
const FAILURES_MAX: usize = 3;

/// Swarms, those fetched here first, with their number.
pub(super) struct Swarms {
    /// Each with the number of its connections.
    shown: Vec<(Swarm, usize)>,
    in_all: usize,
}

/// Jobs, those that run first, with their number.
pub(super) struct Jobs {
    shown: Vec<Job>,
    in_all: usize,
}

/// The swarms that this peer is in and that `audience` may know of, as by `Peer.Swarm`.
pub(super) fn swarms(services: &Services, audience: &Audience) -> Swarms {
    let (mut busiest, mut in_all) = services.swarms.busiest(SWARMS_MAX, Instant::now());
    let before = busiest.len();
    busiest.retain(|swarm| services.may_know(swarm, audience));
    in_all -= before - busiest.len();
    let shown = busiest.into_iter().map(|mut swarm| {
        let connections = swarm.connections.len();
        swarm.connections.sort_by_key(|one| Reverse((one.download_bytes_per_second + one.upload_bytes_per_second, one.requests)));
        swarm.connections.truncate(CONNECTIONS_MAX);
        (swarm, connections)
    });
    Swarms { shown: shown.collect(), in_all }
}

/// The jobs, for those who may control the peer.
pub(super) fn jobs(services: &Services) -> Jobs {
    let mut shown = services.jobs.list();
    let in_all = shown.len();
    let turn = |state| match state {
        JobState::Running => 0,
        JobState::Waiting => 1,
        JobState::Queued => 2,
        _ => 3,
    };
    shown.sort_by_key(|job| {
        let ended_at = job.ended_at.map(|at| (at.seconds, at.nanos));
        (turn(job.state()), Reverse(ended_at))
    });
    shown.truncate(JOBS_MAX);
    Jobs { shown, in_all }
}

impl Swarms {
    /// Adds `swarms` and `swarms_in_all` to an object; each swarm is a `Swarm` of the contract with `connections_in_all`.
    pub(super) fn add_to(&self, object: &mut Map<String, Value>) {
        let swarms = self.shown.iter().map(|(swarm, connections)| with(json::value(swarm), "connections_in_all", *connections));
        object.insert("swarms".to_owned(), swarms.collect());
        object.insert("swarms_in_all".to_owned(), self.in_all.into());
    }

    /// The value of the event `swarms`. The time since the last byte of a peer is left out where nothing was asked for: it would change for ever.
    pub(super) fn event(mut self) -> Value {
        for connection in self.shown.iter_mut().flat_map(|(swarm, _)| &mut swarm.connections) {
            connection.idle = connection.idle.filter(|_| connection.requests > 0);
            if let Some(idle) = &mut connection.idle {
                idle.nanos = 0;
            }
        }
        let mut object = Map::new();
        self.add_to(&mut object);
        Value::Object(object)
    }

    /// Lines of text; empty if there are no swarms.
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        for (swarm, connections) in &self.shown {
            lines.add("swarm", &format!("{}, {}: {}", swarm.name, bytes(swarm.size), state(swarm)));
            if !swarm.waiting.is_empty() {
                lines.add("", &swarm.waiting);
            }
            for connection in &swarm.connections {
                lines.add("", &format!("  {}", member(connection, swarm.size)));
            }
            lines.more(*connections, swarm.connections.len(), "connection");
        }
        lines.more(self.in_all, self.shown.len(), "swarm");
        lines.0
    }
}

impl Jobs {
    /// Adds `jobs` and `jobs_in_all` to an object; each is a `Job` of the contract.
    pub(super) fn add_to(&self, object: &mut Map<String, Value>) {
        object.insert("jobs".to_owned(), self.shown.iter().map(json::value).collect());
        object.insert("jobs_in_all".to_owned(), self.in_all.into());
    }

    /// The value of the event `jobs`.
    pub(super) fn event(&self) -> Value {
        let mut object = Map::new();
        self.add_to(&mut object);
        Value::Object(object)
    }

    /// Lines of text; empty if there are no jobs.
    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        for job in &self.shown {
            let state = job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase();
            let documents = format!("{} of {}", job.documents_done, counted(job.documents, "document"));
            let done = format!("{documents}, {} of {}", bytes(job.bytes_done), bytes(job.bytes));
            let rate = if job.ended_at.is_none() { format!(", {}/s", bytes(job.bytes_per_second)) } else { String::new() };
            lines.add("job", &format!("{} {}: {state}, {done}{rate}", job.id, job.wanted.join(" ")));
            lines.detail(&job.detail, &job.failed);
        }
        lines.more(self.in_all, self.shown.len(), "job");
        lines.0
    }
}

/// Lines of text about mirrors; empty if there are none.
pub(super) fn mirrors_text(mirrors: &[MirrorStatus]) -> String {
    let mut lines = Lines::default();
    for mirror in mirrors {
        let from = if mirror.from.is_empty() { String::new() } else { format!(" from {}", mirror.from) };
        let missing = if mirror.missing > 0 { format!(", {} missing", mirror.missing) } else { String::new() };
        lines.add("mirror", &format!("{}{from}: {}{missing}", mirror.pattern, counted(mirror.present, "document")));
        lines.detail(&mirror.detail, &mirror.failed);
    }
    lines.0
}

/// Lines with a label each, without control characters.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: &str) {
        let text: String = text.chars().map(|c| if is_terminal_control(c) { ' ' } else { c }).collect();
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{label:<10} {text}");
    }

    fn detail(&mut self, detail: &str, failed: &[FailedDocument]) {
        if !detail.is_empty() {
            self.add("", detail);
        }
        for failure in failed.iter().take(FAILURES_MAX) {
            self.add("", &format!("failed: {}: {}", failure.name, failure.why));
        }
        self.more(failed.len(), FAILURES_MAX, "failure");
    }

    fn more(&mut self, in_all: usize, shown: usize, one: &str) {
        if let Some(more @ 1..) = in_all.checked_sub(shown) {
            self.add("", &format!("and {}", counted(more as u64, &format!("more {one}"))));
        }
    }
}

fn with(mut object: Value, name: &str, number: usize) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.insert(name.to_owned(), number.into());
    }
    object
}

/// `35 % here, down 1.0 MiB/s, up 0 B/s; 1 copy of the rarest pieces (3 of 64)`
fn state(swarm: &Swarm) -> String {
    let had = percent(swarm.had, swarm.size, swarm.complete);
    let rates = format!("down {}/s, up {}/s", bytes(swarm.download_bytes_per_second), bytes(swarm.upload_bytes_per_second));
    let copies = match swarm.rarest_copies {
        0 => "no copy".to_owned(),
        1 => "1 copy".to_owned(),
        more => format!("{more} copies"),
    };
    format!("{had} % here, {rates}; {copies} of the rarest pieces ({} of {})", swarm.rarest_pieces, swarm.pieces)
}

/// `fff-a has 100 %, down 1.0 MiB/s, up 0 B/s`
fn member(connection: &SwarmConnection, size: u64) -> String {
    let member = connection.member.clone().unwrap_or_default();
    let name = member.peer.map_or_else(String::new, |peer| if peer.name.is_empty() { peer.endpoint } else { peer.name });
    let has = percent(member.had, size, member.complete);
    let (down, up) = (connection.download_bytes_per_second, connection.upload_bytes_per_second);
    format!("{name} has {has} %, down {}/s, up {}/s", bytes(down), bytes(up))
}

/// 100 only once all is there.
fn percent(had: u64, size: u64, complete: bool) -> u64 {
    let part = u128::from(had) * 100 / u128::from(size.max(1));
    if complete { 100 } else { u64::try_from(part.min(99)).unwrap_or(99) }
}

fn bytes(count: u64) -> impl std::fmt::Display {
    ByteSize(count).display().iec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Contact, SwarmPeer};

    fn swarm() -> Swarm {
        let connection = |name: &str, requests| SwarmConnection {
            member: Some(SwarmPeer {
                peer: Some(Contact { name: name.into(), ..Default::default() }),
                complete: true,
                ..Default::default()
            }),
            requests,
            idle: Some(prost_types::Duration { seconds: 3, nanos: 7 }),
            ..Default::default()
        };
        Swarm {
            name: "x\u{1b}[2J.bin".into(),
            size: 1000,
            had: 999,
            pieces: 4,
            rarest_copies: 1,
            rarest_pieces: 2,
            connections: vec![connection("fff-a", 1), connection("fff-b", 0)],
            waiting: "waiting for\nfff-a".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_swarm_is_told_without_control_characters_and_the_rest_is_counted() {
        let text = Swarms { shown: vec![(swarm(), 3)], in_all: 7 }.text();
        for line in [
            "swarm      x [2J.bin, 1000 B: 99 % here, down 0 B/s, up 0 B/s; 1 copy of the rarest pieces (2 of 4)\n",
            "           waiting for fff-a\n",
            "             fff-a has 100 %, down 0 B/s, up 0 B/s\n",
            "           and 1 more connection\n",
            "           and 6 more swarms\n",
        ] {
            assert!(text.contains(line), "{line:?}: {text:?}");
        }
    }

    #[test]
    fn the_live_value_of_a_swarm_where_nothing_moves_does_not_change() {
        let value = Swarms { shown: vec![(swarm(), 2)], in_all: 1 }.event();
        let connections = &value["swarms"][0]["connections"];
        assert_eq!((&connections[0]["idle"], connections[1].get("idle")), (&Value::from("3s"), None), "{value}");
        assert_eq!((&value["swarms_in_all"], &value["swarms"][0]["connections_in_all"]), (&Value::from(1), &Value::from(2)));
    }

    #[test]
    fn jobs_and_mirrors_are_told_with_what_failed() {
        let failed = vec![FailedDocument { name: "a".into(), why: "too large".into() }; 5];
        let job = Job {
            id: "3".into(),
            wanted: vec!["a".into(), "b*".into()],
            state: JobState::Waiting.into(),
            documents: 2,
            documents_done: 1,
            bytes: 4096,
            bytes_done: 1024,
            detail: "nobody has b".into(),
            ..Default::default()
        };
        let text = Jobs { shown: vec![job], in_all: 2 }.text();
        let lines = "job        3 a b*: waiting, 1 of 2 documents, 1.0 KiB of 4.0 KiB, 0 B/s\n           nobody has b\n";
        assert_eq!(text, format!("{lines}           and 1 more job\n"));
        let mirror =
            MirrorStatus { pattern: "**".into(), from: "p1".into(), present: 1, missing: 5, failed, ..Default::default() };
        let text = mirrors_text(&[mirror]);
        assert!(
            text.starts_with("mirror     ** from p1: 1 document, 5 missing\n") && text.ends_with("and 2 more failures\n"),
            "{text}"
        );
    }
}
