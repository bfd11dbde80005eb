//! No dependency cycles between the modules of a crate, nor between the parts of the peer.

use super::{
    modules::{Edge, Modules},
    roots,
};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn no_cycles_between_modules() {
    let mut found = Vec::new();
    for root in roots() {
        let edges = Modules::read(&root, &super::read_source).edges();
        for files in cycles(&edges) {
            let within: Vec<_> = edges.iter().filter(|edge| files.contains(&edge.from) && files.contains(&edge.to)).collect();
            let described = describe(&within);
            found.push((files, described));
        }
    }
    assert_none("files", &found);
}

#[test]
fn no_cycles_between_the_parts_of_the_peer() {
    let part = |file: &str| {
        let name = file.trim_start_matches("peerd/src/");
        name.split(['/', '.']).next().unwrap_or(name).to_owned()
    };
    let edges: BTreeSet<Edge> = Modules::read("peerd/src/lib.rs", &super::read_source).edges();
    let between = |edge: &Edge| (part(&edge.from), part(&edge.to));
    let parts = edges.iter().map(between).filter(|(from, to)| from != to);
    let parts: BTreeSet<Edge> = parts.map(|(from, to)| Edge { from, to, line: 0, name: String::new() }).collect();
    let mut found = Vec::new();
    for names in cycles(&parts) {
        let within = |edge: &&Edge| {
            let (from, to) = between(edge);
            from != to && names.contains(&from) && names.contains(&to)
        };
        let described = describe(&edges.iter().filter(within).collect::<Vec<_>>());
        found.push((names, described));
    }
    assert_none("parts of peerd", &found);
}

fn assert_none(what: &str, found: &[(BTreeSet<String>, String)]) {
    let cycle = |(names, edges): &(BTreeSet<String>, String)| {
        format!("cycle: {}\n{edges}", names.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
    };
    let cycles: Vec<_> = found.iter().map(cycle).collect();
    assert!(cycles.is_empty(), "{} cycles between {what}:\n{}", cycles.len(), cycles.join("\n"));
}

/// One line for each pair of files: the place of the use, and the names used.
fn describe(edges: &[&Edge]) -> String {
    let mut pairs: BTreeMap<(&str, &str), BTreeMap<&str, usize>> = BTreeMap::new();
    for edge in edges {
        let names = pairs.entry((&edge.from, &edge.to)).or_default();
        names.entry(&edge.name).and_modify(|line| *line = edge.line.min(*line)).or_insert(edge.line);
    }
    let line = |((from, to), names): (&(&str, &str), &BTreeMap<&str, usize>)| {
        let names: Vec<_> = names.iter().map(|(name, line)| format!("{name} (line {line})")).collect();
        format!("    {from} -> {to}: {}", names.join(", "))
    };
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Strongly connected components of more than one node (Tarjan, "Depth-first search and linear graph algorithms", 1972).
fn cycles(edges: &BTreeSet<Edge>) -> Vec<BTreeSet<String>> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        graph.entry(&edge.from).or_default().insert(&edge.to);
        graph.entry(&edge.to).or_default();
    }
    let mut search = Search { graph: &graph, index: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for node in graph.keys() {
        if !search.index.contains_key(node) {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'a> {
    graph: &'a BTreeMap<&'a str, BTreeSet<&'a str>>,
    index: BTreeMap<&'a str, usize>,
    low: BTreeMap<&'a str, usize>,
    stack: Vec<&'a str>,
    found: Vec<BTreeSet<String>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, node: &'a str) {
        let index = self.index.len();
        self.index.insert(node, index);
        self.low.insert(node, index);
        self.stack.push(node);
        for next in &self.graph[node] {
            let reached = if !self.index.contains_key(next) {
                self.visit(next);
                self.low[next]
            } else if self.stack.contains(next) {
                self.index[next]
            } else {
                continue;
            };
            let low = self.low[node].min(reached);
            self.low.insert(node, low);
        }
        if self.low[node] == index {
            let start = self.stack.iter().position(|other| *other == node).unwrap();
            let component = self.stack.split_off(start);
            if component.len() > 1 {
                self.found.push(component.into_iter().map(str::to_owned).collect());
            }
        }
    }
}

#[test]
fn the_analyser_finds_cycles_through_every_kind_of_path() {
    let file = |name: &str| -> Option<String> {
        let text = match name {
            "x/lib.rs" => "mod a; mod b; mod c; pub use a::A; use macros::m;",
            // Through a re-export, an imported module, a macro call, and a glob.
            "x/a.rs" => "pub struct A; use super::b; fn f() { b::g::<u8>(); }",
            "x/b.rs" => "pub fn g<T>() { println!(\"{:?}\", crate::c::deep::C); }",
            "x/c/mod.rs" => "pub mod deep; pub use deep::*;",
            "x/c/deep.rs" => "pub struct C(crate::A); #[cfg(test)] mod tests { use crate::unknown::T; }",
            _ => return None,
        };
        Some(text.to_owned())
    };
    let modules = Modules::read("x/lib.rs", &file);
    let expected: BTreeSet<_> = ["x/a.rs", "x/b.rs", "x/c/deep.rs"].map(str::to_owned).into();
    assert_eq!(cycles(&modules.edges()), [expected], "{:#?}", modules.edges());
}
