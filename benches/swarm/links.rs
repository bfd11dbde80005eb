//! What the links carried, over time.

use crate::lab::Lab;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Bits a second.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub(crate) u64);

impl Rate {
    pub(crate) fn bytes_per_second(self) -> f64 {
        self.0 as f64 / 8.0
    }
}

/// Bytes that a machine sent and received by its link, with all headers, since the lab began.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carried {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// The counters of all links, sampled.
pub(crate) struct Links {
    begun: Instant,
    /// Since the beginning, and one entry for each machine.
    samples: Vec<(Duration, Vec<Carried>)>,
}

impl Links {
    pub(crate) fn new(lab: &Lab) -> Self {
        let mut links = Self { begun: Instant::now(), samples: Vec::new() };
        links.sample(lab);
        links
    }

    pub(crate) fn sample(&mut self, lab: &Lab) {
        // The bridge receives what the machine sends. The two limits are before these counters.
        let text = lab.counters();
        let rows: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(name, rest)| (name, rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect::<Vec<u64>>()))
            .collect();
        let of = |interface: &str| {
            let row = rows.get(interface);
            let at = |column: usize| row.and_then(|row| row.get(column)).copied().unwrap_or(0);
            Carried { up: at(0), down: at(8) }
        };
        self.samples.push((self.begun.elapsed(), lab.machines.iter().map(|machine| of(&machine.interface)).collect()));
    }

    /// What a machine sent and received in all.
    pub(crate) fn total(&self, machine: usize) -> Carried {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else { return Carried::default() };
        let (first, last) = (first.1[machine], last.1[machine]);
        Carried { up: last.up - first.up, down: last.down - first.down }
    }

    /// From the first sample to the last.
    pub(crate) fn lasted(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |sample| sample.0)
    }

    /// The share of a machine's rate that was in use, for each `step`: up and down.
    pub(crate) fn use_of(&self, machine: usize, rate: Rate, step: Duration) -> Vec<(f64, f64)> {
        let end = self.samples.last().map_or(Duration::ZERO, |sample| sample.0);
        let steps = (end.as_secs_f64() / step.as_secs_f64()).ceil() as u32;
        let at = |time: Duration| {
            let index = self.samples.partition_point(|sample| sample.0 < time).min(self.samples.len() - 1);
            (self.samples[index].0, self.samples[index].1[machine])
        };
        (0..steps)
            .map(|index| {
                let ((from, before), (to, after)) = (at(step * index), at(step * (index + 1)));
                let most = rate.bytes_per_second() * (to - from).as_secs_f64().max(0.001);
                ((after.up - before.up) as f64 / most, (after.down - before.down) as f64 / most)
            })
            .collect()
    }
}
