//! Draws the network as text, Graphviz, Mermaid or SVG.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use alphanumeric_sort::compare_str;
use p2pdi::phrases::counted;
use peerd::{
    overlay::PeerId,
    topology::{Reachability, Snapshot, SnapshotPeer},
};
use std::{collections::BTreeMap, f64::consts::TAU, fmt::Write as _};

/// Pixels between neighbouring names on the circle.
const SPACING: f64 = 34.0;
/// Pixels around the circle, for names.
const MARGIN: f64 = 150.0;
/// Smallest radius, in pixels.
const RADIUS_MIN: f64 = 110.0;

/// A short node name for each peer: its index in the order of ids. Peer names and endpoints need no escaping in the formats below,
/// except that Mermaid would read the brackets of an IPv6 endpoint; it shows names only.
fn places(snapshot: &Snapshot) -> BTreeMap<PeerId, usize> {
    snapshot.peers().keys().enumerate().map(|(place, id)| (*id, place)).collect()
}

fn answered(peer: &SnapshotPeer) -> bool {
    matches!(peer.reachability, Reachability::Answers { .. })
}

pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut linked: BTreeMap<PeerId, Vec<&str>> = BTreeMap::new();
    for (a, b) in snapshot.links() {
        for (one, other) in [(a, b), (b, a)] {
            linked.entry(*one).or_default().extend(snapshot.peers().get(other).map(|other| other.contact.name().as_str()));
        }
    }
    let mut lines: Vec<_> = snapshot
        .peers()
        .iter()
        .map(|(id, seen)| {
            let mut names = linked.remove(id).unwrap_or_default();
            names.sort_unstable_by(|a, b| compare_str(a, b));
            let silent = if answered(seen) { "" } else { "  (did not answer)" };
            format!("{} at {} -- {}{silent}", seen.contact.name(), seen.contact.endpoint(), names.join(", "))
        })
        .collect();
    lines.sort_by(|a, b| compare_str(a, b));
    lines.push(totals(snapshot));
    lines.join("\n")
}

fn totals(snapshot: &Snapshot) -> String {
    format!("{}, {}", counted(snapshot.peers().len() as u64, "peer"), counted(snapshot.links().len() as u64, "link"))
}

pub(super) fn dot(snapshot: &Snapshot) -> String {
    let places = places(snapshot);
    let mut out = String::from("graph p2pdi {\n  node [shape=ellipse, fontname=\"sans-serif\"];\n");
    // Writing to a string does not fail, here and below.
    for (id, seen) in snapshot.peers() {
        let style = if answered(seen) { "" } else { ", style=dashed" };
        let _ = writeln!(out, "  n{} [label=\"{}\\n{}\"{style}];", places[id], seen.contact.name(), seen.contact.endpoint());
    }
    for (a, b) in snapshot.links() {
        let _ = writeln!(out, "  n{} -- n{};", places[a], places[b]);
    }
    out + "}\n"
}

pub(super) fn mermaid(snapshot: &Snapshot) -> String {
    let places = places(snapshot);
    let mut out = String::from("graph LR\n");
    for (id, seen) in snapshot.peers() {
        let _ = writeln!(out, "  n{}[\"{}\"]", places[id], seen.contact.name());
    }
    for (a, b) in snapshot.links() {
        let _ = writeln!(out, "  n{} --- n{}", places[a], places[b]);
    }
    out
}

/// Draws all peers on a circle.
pub(super) fn svg(snapshot: &Snapshot) -> String {
    #[expect(clippy::cast_precision_loss, reason = "there are at most 10,000 peers")]
    let (count, at) = (snapshot.peers().len().max(1) as f64, |place: usize| place as f64);
    let radius = (count * SPACING / TAU).max(RADIUS_MIN);
    let size = 2.0 * (radius + MARGIN);
    let middle = size / 2.0;
    let places = places(snapshot);
    let point = |id: &PeerId| {
        let angle = TAU * at(places.get(id).copied().unwrap_or(0)) / count - TAU / 4.0;
        (middle + radius * angle.cos(), middle + radius * angle.sin())
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size:.0} {size:.0}\" width=\"{size:.0}\" height=\"{size:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        totals(snapshot)
    );
    for (a, b) in snapshot.links() {
        let ((x1, y1), (x2, y2)) = (point(a), point(b));
        let _ = writeln!(
            out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#8aa\" stroke-opacity=\"0.7\"/>"
        );
    }
    for (id, seen) in snapshot.peers() {
        let (x, y) = point(id);
        let fill = if answered(seen) { "#287" } else { "#bbb" };
        // Names are outside the circle.
        let (left, dx) = if x < middle - 1.0 { ("end", -9.0) } else { ("start", 9.0) };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\"><title>{}</title></circle>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{left}\">{}</text>",
            seen.contact.endpoint(),
            x + dx,
            y + 4.0,
            seen.contact.name()
        );
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Contact, ListPeersResponse, Neighbour};

    fn contact(id: u8, name: &str) -> Option<Contact> {
        Some(Contact { id: vec![id; 16].into(), name: name.into(), endpoint: format!("127.0.0.1:{id}") })
    }

    #[test]
    fn a_peer_alone_is_one_peer() {
        let mut snapshot = Snapshot::with_capacity(10);
        snapshot.add_answer(ListPeersResponse { peer: contact(1, "A"), ..Default::default() });
        assert_eq!(text(&snapshot).lines().last(), Some("1 peer, 0 links"));
        assert!(svg(&snapshot).contains("<title>1 peer, 0 links</title>"));
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::with_capacity(10);
        let neighbours =
            [(2, "B"), (3, "C"), (4, "<script>\"")].map(|(id, name)| Neighbour { peer: contact(id, name), outgoing: true });
        snapshot.add_answer(ListPeersResponse { peer: contact(1, "A"), neighbours: neighbours.into(), ..Default::default() });
        snapshot.add_answer(ListPeersResponse { peer: contact(2, "B"), ..Default::default() });
        snapshot
    }

    #[test]
    fn every_format_shows_all_peers_and_links_and_escapes_markup() {
        let snapshot = snapshot();
        assert_eq!(text(&snapshot).lines().last(), Some("3 peers, 2 links"));
        assert!(text(&snapshot).contains("A at 127.0.0.1:1 -- B, C\n"), "{}", text(&snapshot));
        assert!(text(&snapshot).contains("C at 127.0.0.1:3 -- A  (did not answer)\n"), "{}", text(&snapshot));
        assert_eq!(dot(&snapshot).matches(" -- ").count(), 2);
        assert_eq!(mermaid(&snapshot).matches(" --- ").count(), 2);
        let svg = svg(&snapshot);
        assert_eq!((svg.matches("<line").count(), svg.matches("<circle").count(), svg.matches("<script").count()), (2, 3, 0));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        assert!(super::svg(&Snapshot::default()).contains("0 peers"));
    }
}
