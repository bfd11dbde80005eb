//! Benchmarks of the registry. Each figure is compared with a baseline in the same run.
//!
//! `cargo bench --bench registry -- [--json] [--quick] [--million] [PART…]`, parts: calls, durable, memory, idle, watchers, replicas
//! (which need `--features registry/etcd`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod calls;
mod durable;
mod etcd;
mod load;
mod memory;
mod replicas;
mod server;
mod watchers;

use serde_json::{Value, json};

/// One thing measured.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The name of the baseline, and its value in the same run.
    pub(crate) yardstick: Option<(&'static str, f64)>,
    /// Median of the ratios of consecutive runs: other work on the machine slows both.
    pub(crate) ratio: Option<f64>,
    /// The target.
    pub(crate) aim: String,
    pub(crate) reached: bool,
}

impl Figure {
    /// Our runs, each with the run of the baseline before it.
    pub(crate) fn pairs(name: &str, unit: &'static str, yardstick: &'static str, pairs: &[(f64, f64)], aim: Aim) -> Self {
        let median = |of: fn(&(f64, f64)) -> f64| load::median(pairs.iter().map(of).collect());
        let ratio = median(|(ours, theirs)| ours / theirs);
        let (aim, reached) = match aim {
            Aim::AtLeast(aim) => (format!("≥ {aim} × the yardstick"), ratio >= aim),
            Aim::None => ("none".into(), true),
        };
        let yardstick = Some((yardstick, median(|(_, theirs)| *theirs)));
        Self { name: name.into(), value: median(|(ours, _)| *ours), unit, yardstick, ratio: Some(ratio), aim, reached }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "aim": self.aim, "reached": self.reached,
            "yardstick": self.yardstick.map(|(name, _)| name), "yardstick_value": self.yardstick.map(|(_, value)| value),
            "ratio": self.ratio,
        })
    }

    fn line(&self) -> String {
        let compared = self
            .yardstick
            .map_or(String::new(), |(name, value)| format!("{name}: {value:.0}, ratio {:.3}", self.ratio.unwrap_or(f64::NAN)));
        let mark = if self.reached { "ok" } else { "MISSED" };
        format!("{:52} {:>10.0} {:14} {compared:44} aim {} {mark}", self.name, self.value, self.unit, self.aim)
    }
}

/// The target of a ratio.
pub(crate) enum Aim {
    AtLeast(f64),
    None,
}

pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) million: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == server::FLAG) {
        return server::main(&arguments[1..]);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let options = Options { quick: has("--quick"), million: has("--million") };
    let parts: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let figures = runtime.block_on(async {
        let mut figures = Vec::new();
        if wanted("idle") {
            figures.push(memory::idle().await);
        }
        if wanted("calls") {
            figures.extend(calls::measure(&options).await);
        }
        if wanted("durable") {
            figures.extend(durable::measure(&options).await);
        }
        if wanted("watchers") {
            figures.extend(watchers::measure(&options).await);
        }
        if wanted("memory") {
            figures.extend(memory::measure(&options).await);
        }
        if wanted("replicas") {
            figures.extend(replicas::measure(&options).await);
        }
        figures
    });
    if has("--json") {
        println!("{:#}", Value::from(figures.iter().map(Figure::json).collect::<Vec<_>>()));
    } else {
        figures.iter().for_each(|figure| println!("{}", figure.line()));
    }
}
