//! Draws a swarm as lines and a table, or as JSON.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::seen::{Member, Seen};
use crate::printer::bytes;
use p2pdi::{
    content::ContentHash,
    json::value,
    phrases::counted,
    v1::{Swarm, SwarmConnection},
};
use serde_json::{Value, json};

/// Columns of [`rows`].
pub(super) const COLUMNS: [&str; 6] = ["NAME", "ENDPOINT", "HAS", "DOWN", "UP", "CONNECTED TO"];
/// Characters of a member's bar.
const BAR: u64 = 10;
/// Connections in a row; of more, the count is given.
const CONNECTIONS_MAX: usize = 6;

/// Lines above the table.
pub(super) fn head(seen: &Seen, hash: ContentHash) -> Vec<String> {
    let whole = seen.members.values().filter(|member| member.is_whole()).count() as u64;
    let members = counted(seen.members.len() as u64, "member");
    let mut lines = vec![format!("{}, {}, b3:{hash}", seen.name, bytes(seen.size)), format!("{members}, {whole} with all of it")];
    // Whoever is connected to most members sees most of the swarm.
    let best = seen.members.values().filter_map(|member| Some((member, member.swarm.as_ref()?)));
    if let Some((member, swarm)) = best.max_by_key(|(_, swarm)| swarm.connections.len())
        && swarm.rarest_pieces > 0
    {
        lines.push(if u64::from(swarm.rarest_copies) < whole {
            // It is not connected to all who have everything.
            format!("rarest: {} or more of each piece", copies(whole))
        } else {
            format!(
                "rarest: {} of {} in {}, as {} sees it",
                copies(swarm.rarest_copies.into()),
                counted(swarm.rarest_pieces.into(), "piece"),
                swarm.pieces,
                member.name
            )
        });
    }
    lines
}

fn copies(number: u64) -> String {
    match number {
        0 => "no copy".to_owned(),
        1 => "1 copy".to_owned(),
        more => format!("{more} copies"),
    }
}

/// One row for each member.
pub(super) fn rows(seen: &Seen) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = seen
        .members
        .iter()
        .map(|(endpoint, member)| {
            let rate = |of: fn(&Swarm) -> u64| {
                member.swarm.as_ref().map_or_else(|| "-".to_owned(), |swarm| format!("{}/s", bytes(of(swarm))))
            };
            vec![
                if member.name.is_empty() { "-".to_owned() } else { member.name.clone() },
                endpoint.to_string(),
                has(member, seen.size),
                rate(|swarm| swarm.download_bytes_per_second),
                rate(|swarm| swarm.upload_bytes_per_second),
                connected(member),
            ]
        })
        .collect();
    rows.sort_by(|a, b| alphanumeric_sort::compare_str(&a[0], &b[0]));
    rows
}

/// `███████░░░  70%`
fn has(member: &Member, size: u64) -> String {
    let percent = match (member.is_whole(), member.had()) {
        (true, _) => 100,
        // Not before all is there.
        (false, Some(had)) => had.saturating_mul(100).checked_div(size).unwrap_or(0).min(99),
        (false, None) => return "?".to_owned(),
    };
    let full = usize::try_from(percent * BAR / 100).unwrap_or(0);
    let empty = usize::try_from(BAR).unwrap_or(0).saturating_sub(full);
    format!("{}{} {percent:>3}%", "█".repeat(full), "░".repeat(empty))
}

fn connected(member: &Member) -> String {
    let Some(swarm) = &member.swarm else {
        return if member.answered { "nobody" } else { "(does not say)" }.to_owned();
    };
    if swarm.connections.is_empty() {
        return "nobody".to_owned();
    }
    // Those that move something first.
    let mut connections: Vec<_> = swarm.connections.iter().collect();
    connections
        .sort_by_key(|connection| std::cmp::Reverse(connection.download_bytes_per_second + connection.upload_bytes_per_second));
    let mut texts: Vec<_> = connections.iter().take(CONNECTIONS_MAX).map(|connection| one(connection)).collect();
    let others = connections.len().saturating_sub(CONNECTIONS_MAX);
    texts.extend((others > 0).then(|| format!("{others} more")));
    texts.join(", ")
}

/// `fff-a (↓ 3.0 MiB/s, ↑ 1.0 MiB/s)`
fn one(connection: &SwarmConnection) -> String {
    let contact = connection.member.as_ref().and_then(|member| member.peer.as_ref());
    let name = contact.map_or("?", |contact| if contact.name.is_empty() { &contact.endpoint } else { &contact.name });
    let flows = [("↓", connection.download_bytes_per_second), ("↑", connection.upload_bytes_per_second)];
    let flows: Vec<_> =
        flows.iter().filter(|(_, rate)| *rate > 0).map(|(way, rate)| format!("{way} {}/s", bytes(*rate))).collect();
    if flows.is_empty() { name.to_owned() } else { format!("{name} ({})", flows.join(", ")) }
}

/// Why nothing moves, for each member that says so.
pub(super) fn reasons(seen: &Seen) -> Vec<String> {
    let waiting = seen.members.values().filter_map(|member| Some((&member.name, &member.swarm.as_ref()?.waiting)));
    waiting.filter(|(_, waiting)| !waiting.is_empty()).map(|(name, waiting)| format!("{name}: {waiting}")).collect()
}

/// All that is known.
pub(super) fn json(seen: &Seen, hash: ContentHash) -> Value {
    let member = |(endpoint, member): (&p2pdi::endpoint::Endpoint, &Member)| {
        json!({
            "peer_name": member.name,
            "endpoint": endpoint.as_str(),
            "answered": member.answered,
            "complete": member.is_whole(),
            "had": member.had().or_else(|| member.is_whole().then_some(seen.size)),
            "swarm": member.swarm.as_ref().map(value),
        })
    };
    json!({
        "blake3": hash.to_string(),
        "name": seen.name,
        "size": seen.size,
        "members": seen.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Contact, SwarmPeer};
    use unicode_width::UnicodeWidthStr as _;

    fn connection(name: &str, down: u64) -> SwarmConnection {
        let peer = Contact { name: name.into(), endpoint: "127.0.0.1:1".into(), ..Default::default() };
        SwarmConnection {
            member: Some(SwarmPeer { peer: Some(peer), ..Default::default() }),
            download_bytes_per_second: down,
            ..Default::default()
        }
    }

    fn seen() -> Seen {
        let swarm = Swarm {
            size: 100,
            had: 99,
            pieces: 20,
            rarest_copies: 1,
            rarest_pieces: 3,
            connections: vec![connection("b", 0), connection("a", 1024)],
            waiting: "waiting for a".into(),
            ..Default::default()
        };
        let fetcher = Member { name: "p10".into(), swarm: Some(swarm), answered: true, ..Member::default() };
        let holder = Member { name: "p9".into(), holds: true, ..Member::default() };
        let members = [("127.0.0.1:1".parse().unwrap(), fetcher), ("127.0.0.1:2".parse().unwrap(), holder)];
        Seen { name: "x.bin".into(), size: 100, members: members.into_iter().collect() }
    }

    #[test]
    fn members_are_listed_with_what_they_have_and_whom_they_are_connected_to() {
        let rows = rows(&seen());
        assert_eq!((rows[0][0].as_str(), rows[1][0].as_str()), ("p9", "p10"));
        assert_eq!((rows[0][2].as_str(), rows[1][2].as_str()), ("██████████ 100%", "█████████░  99%"));
        assert_eq!(rows[0][2].width(), rows[1][2].width());
        assert_eq!(rows[1][5], "a (↓ 1.0 KiB/s), b");
        assert_eq!(rows[0][5], "(does not say)");
    }

    #[test]
    fn the_rarest_piece_and_the_reasons_for_waiting_are_told() {
        let lines = head(&seen(), ContentHash::of(b"x")).join("\n");
        for part in ["x.bin, 100 B, b3:", "2 members, 1 with all of it", "rarest: 1 copy of 3 pieces in 20, as p10 sees it"] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
        assert_eq!(reasons(&seen()), ["p10: waiting for a"]);
        let mut both = seen();
        both.members.values_mut().for_each(|member| member.holds = true);
        let lines = head(&both, ContentHash::of(b"x")).join("\n");
        assert!(lines.ends_with("rarest: 2 copies or more of each piece"), "{lines}");
        let json = json(&seen(), ContentHash::of(b"x"));
        assert_eq!((json["members"][0]["had"].as_u64(), json["members"][1]["had"].as_u64()), (Some(99), Some(100)), "{json}");
    }
}
