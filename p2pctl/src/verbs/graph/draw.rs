//! A picture of the network as text, Graphviz, Mermaid or SVG. Pure.

use super::Picture;
use std::{collections::BTreeMap, f64::consts::TAU, fmt::Write as _};

/// Pixels between neighbouring names on the circle.
const SPACING: f64 = 34.0;
/// Pixels around the circle, for names.
const MARGIN: f64 = 150.0;
/// Smallest radius, in pixels.
const RADIUS_MIN: f64 = 110.0;

/// A short name for each peer that no markup can break: its place in the order of ids.
fn places(picture: &Picture) -> BTreeMap<&[u8], usize> {
    picture.peers.keys().enumerate().map(|(place, id)| (id.as_slice(), place)).collect()
}

/// What strangers call themselves, without what any of the languages below would take for its own.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._:[]@".contains(c) { c } else { '?' }).collect()
}

pub(super) fn text(picture: &Picture) -> String {
    let mut lines: Vec<_> = picture
        .peers
        .iter()
        .map(|(id, peer)| {
            let linked = picture.links.iter().filter_map(|(a, b)| if a == id { Some(b) } else { (b == id).then_some(a) });
            let mut names: Vec<_> = linked.filter_map(|other| picture.peers.get(other)).map(|other| plain(&other.name)).collect();
            names.sort();
            let silent = if peer.answered { "" } else { "  (did not answer)" };
            format!("{} at {} -- {}{silent}", plain(&peer.name), plain(&peer.endpoint), names.join(", "))
        })
        .collect();
    lines.sort();
    lines.push(format!("{} peers, {} links", picture.peers.len(), picture.links.len()));
    lines.join("\n")
}

pub(super) fn dot(picture: &Picture) -> String {
    let places = places(picture);
    let mut out = String::from("graph p2pdi {\n  node [shape=ellipse, fontname=\"sans-serif\"];\n");
    // Writing to a string does not fail, here and below.
    for (id, peer) in &picture.peers {
        let style = if peer.answered { "" } else { ", style=dashed" };
        let _ =
            writeln!(out, "  n{} [label=\"{}\\n{}\"{style}];", places[id.as_slice()], plain(&peer.name), plain(&peer.endpoint));
    }
    for (a, b) in &picture.links {
        let _ = writeln!(out, "  n{} -- n{};", places[a.as_slice()], places[b.as_slice()]);
    }
    out + "}\n"
}

pub(super) fn mermaid(picture: &Picture) -> String {
    let places = places(picture);
    let mut out = String::from("graph LR\n");
    for (id, peer) in &picture.peers {
        let _ = writeln!(out, "  n{}[\"{}\"]", places[id.as_slice()], plain(&peer.name).replace(['[', ']'], ""));
    }
    for (a, b) in &picture.links {
        let _ = writeln!(out, "  n{} --- n{}", places[a.as_slice()], places[b.as_slice()]);
    }
    out
}

/// All peers on a circle.
pub(super) fn svg(picture: &Picture) -> String {
    #[expect(clippy::cast_precision_loss, reason = "there are at most 10,000 peers")]
    let (count, at) = (picture.peers.len().max(1) as f64, |place: usize| place as f64);
    let radius = (count * SPACING / TAU).max(RADIUS_MIN);
    let size = 2.0 * (radius + MARGIN);
    let middle = size / 2.0;
    let places = places(picture);
    let point = |id: &[u8]| {
        let angle = TAU * at(places.get(id).copied().unwrap_or(0)) / count - TAU / 4.0;
        (middle + radius * angle.cos(), middle + radius * angle.sin())
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size:.0} {size:.0}\" width=\"{size:.0}\" height=\"{size:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{} peers, {} links</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        picture.peers.len(),
        picture.links.len()
    );
    for (a, b) in &picture.links {
        let ((x1, y1), (x2, y2)) = (point(a), point(b));
        let _ = writeln!(
            out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#8aa\" stroke-opacity=\"0.7\"/>"
        );
    }
    for (id, peer) in &picture.peers {
        let (x, y) = point(id);
        let fill = if peer.answered { "#287" } else { "#bbb" };
        // Names stand outside the circle.
        let (left, dx) = if x < middle - 1.0 { ("end", -9.0) } else { ("start", 9.0) };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\"><title>{}</title></circle>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{left}\">{}</text>",
            plain(&peer.endpoint),
            x + dx,
            y + 4.0,
            plain(&peer.name)
        );
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::graph::Peer;

    fn picture() -> Picture {
        let mut picture = Picture::default();
        for (id, name) in [(1, "A"), (2, "B"), (3, "<script>\"")] {
            let peer = Peer { name: name.into(), endpoint: format!("127.0.0.1:{id}"), answered: id != 3 };
            picture.peers.insert(vec![id], peer);
        }
        picture.links.extend([(vec![1], vec![2]), (vec![1], vec![3])]);
        picture
    }

    #[test]
    fn every_form_shows_all_peers_and_links_and_no_markup_of_strangers() {
        let picture = picture();
        assert_eq!(text(&picture).lines().last(), Some("3 peers, 2 links"));
        assert!(text(&picture).contains("A at 127.0.0.1:1 -- ?script??, B\n"), "{}", text(&picture));
        assert_eq!(dot(&picture).matches(" -- ").count(), 2);
        assert_eq!(mermaid(&picture).matches(" --- ").count(), 2);
        let svg = svg(&picture);
        assert_eq!((svg.matches("<line").count(), svg.matches("<circle").count(), svg.matches("<script").count()), (2, 3, 0));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        assert!(super::svg(&Picture::default()).contains("0 peers"));
    }
}
