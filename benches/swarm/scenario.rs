//! What is run: the links, and who comes and goes.

use crate::links::Rate;
use std::{path::PathBuf, time::Duration};

/// How a leecher of ours fetches.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum With {
    /// `p2pctl get`, which ends as soon as it has the document.
    Get,
    /// `p2pctl get --seed`, which stays, as a BitTorrent client does.
    Seed,
    /// A `peerd` that stays, and `p2pctl fetch --wait`.
    Daemon,
}

#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) peers: usize,
    pub(crate) size: u64,
    /// Of every link, where nothing else is said.
    pub(crate) rate: Rate,
    /// Of the seed's link.
    pub(crate) seed_rate: Option<Rate>,
    /// Of the last leecher's link.
    pub(crate) slow_rate: Option<Rate>,
    /// The time between one leecher and the next.
    pub(crate) every: Duration,
    /// A third of the leechers is killed after half of the bound.
    pub(crate) kill_third: bool,
    /// Of each direction between any two machines, in milliseconds.
    pub(crate) delay_ms: u64,
    /// One more holder is there from the start; it sends wrong bytes in every fourth piece.
    pub(crate) liar: bool,
    pub(crate) with: With,
}

const MIB: u64 = 1 << 20;

impl Scenario {
    fn named(name: &str) -> Option<Self> {
        let base = Self {
            name: "symmetric-8",
            peers: 8,
            size: 64 * MIB,
            rate: Rate(50_000_000),
            seed_rate: None,
            slow_rate: None,
            every: Duration::ZERO,
            kill_third: false,
            delay_ms: 0,
            liar: false,
            with: With::Seed,
        };
        Some(match name {
            "symmetric-8" => base,
            "symmetric-16" => Self { name: "symmetric-16", peers: 16, size: 256 * MIB, ..base },
            "slow-seed" => Self { name: "slow-seed", seed_rate: Some(Rate(base.rate.0 / 4)), ..base },
            "slow-leecher" => Self { name: "slow-leecher", slow_rate: Some(Rate(base.rate.0 / 10)), ..base },
            "arrivals" => Self { name: "arrivals", every: Duration::from_secs(1), ..base },
            "deaths" => Self { name: "deaths", peers: 9, kill_third: true, ..base },
            "delay" => Self { name: "delay", delay_ms: 40, ..base },
            "no-daemon-16" => Self { name: "no-daemon-16", peers: 16, with: With::Get, ..base },
            "daemons-16" => Self { name: "daemons-16", peers: 16, with: With::Daemon, ..base },
            "liar" => Self { name: "liar", liar: true, ..base },
            _ => return None,
        })
    }

    const ALL: [&str; 10] = [
        "symmetric-8",
        "symmetric-16",
        "slow-seed",
        "slow-leecher",
        "arrivals",
        "deaths",
        "delay",
        "no-daemon-16",
        "daemons-16",
        "liar",
    ];

    pub(crate) fn rate_of_seed(&self) -> Rate {
        self.seed_rate.unwrap_or(self.rate)
    }

    pub(crate) fn rate_of(&self, leecher: usize) -> Rate {
        self.slow_rate.filter(|_| leecher + 1 == self.peers).unwrap_or(self.rate)
    }

    /// When a leecher begins.
    pub(crate) fn begins(&self, leecher: usize) -> Duration {
        self.every * leecher as u32
    }

    /// Whether a leecher is one of the third that is killed: every third one.
    pub(crate) fn is_killed(&self, leecher: usize) -> bool {
        self.kill_third && leecher % 3 == 1
    }

    /// The bound of one leecher's time, in seconds. Its own downlink counts, not that of a slower one: whoever is slow harms nobody else.
    /// A killed one counts for nothing. If leechers arrive one by one, each is bound by its own downlink and the seed's uplink.
    pub(crate) fn bound(&self, leecher: usize) -> f64 {
        let size = self.size as f64;
        let (seed, own) = (self.rate_of_seed().bytes_per_second(), self.rate_of(leecher).bytes_per_second());
        let one = (size / seed).max(size / own);
        if !self.every.is_zero() {
            return one;
        }
        let staying: Vec<_> = (0..self.peers).filter(|other| !self.is_killed(*other)).collect();
        let uplinks: f64 = staying.iter().map(|other| self.rate_of(*other).bytes_per_second()).sum();
        one.max(staying.len() as f64 * size / (seed + uplinks))
    }
}

pub(crate) struct Options {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) only: Option<String>,
    pub(crate) runs: u32,
    pub(crate) timeline: bool,
    pub(crate) logs: Option<PathBuf>,
    pub(crate) json: bool,
}

/// What a flag changes in each scenario.
type Change = Box<dyn Fn(&mut Scenario)>;

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self { scenarios: Vec::new(), only: None, runs: 1, timeline: false, logs: None, json: false };
        let mut changes: Vec<Change> = Vec::new();
        let mut names = Vec::new();
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let mut value = || args.next().map(String::as_str).ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--scenario" => match value()? {
                    "all" => names.extend(Scenario::ALL.map(str::to_owned)),
                    name => names.push(name.to_owned()),
                },
                "--peers" => {
                    let peers = number(value()?)? as usize;
                    changes.push(Box::new(move |scenario| scenario.peers = peers));
                }
                "--size" => {
                    let size = bytes(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.size = size));
                }
                "--rate" => {
                    let new = rate(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.rate = new));
                }
                "--seed-rate" => {
                    let new = rate(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.seed_rate = Some(new)));
                }
                "--slow-rate" => {
                    let new = rate(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.slow_rate = Some(new)));
                }
                "--every" => {
                    let every = milliseconds(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.every = Duration::from_millis(every)));
                }
                "--delay" => {
                    let delay = milliseconds(value()?)?;
                    changes.push(Box::new(move |scenario| scenario.delay_ms = delay));
                }
                "--kill-third" => changes.push(Box::new(|scenario| scenario.kill_third = true)),
                "--liar" => changes.push(Box::new(|scenario| scenario.liar = true)),
                "--with" => {
                    let with = match value()? {
                        "get" => With::Get,
                        "seed" => With::Seed,
                        "daemon" => With::Daemon,
                        other => return Err(format!("--with takes get, seed or daemon, not {other}")),
                    };
                    changes.push(Box::new(move |scenario| scenario.with = with));
                }
                "--only" => options.only = Some(value()?.to_owned()),
                "--runs" => options.runs = number(value()?)? as u32,
                "--logs" => options.logs = Some(value()?.into()),
                "--timeline" => options.timeline = true,
                "--json" => options.json = true,
                other => return Err(format!("no such option: {other}")),
            }
        }
        if names.is_empty() {
            names.push("symmetric-8".to_owned());
        }
        for name in names {
            let known = || format!("no scenario {name}; there are {}", Scenario::ALL.join(", "));
            let mut scenario = Scenario::named(&name).ok_or_else(known)?;
            changes.iter().for_each(|change| change(&mut scenario));
            options.scenarios.push(scenario);
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

/// The number before one of these units, times the unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, factor)));
    let names: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
    found.map(|(value, factor)| value * factor).ok_or_else(|| format!("{text} is no number with one of {}", names.join(", ")))
}

fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
}

fn rate(text: &str) -> Result<Rate, String> {
    scaled(text, &[("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)]).map(Rate)
}

fn milliseconds(text: &str) -> Result<u64, String> {
    scaled(text, &[("ms", 1), ("s", 1_000)])
}
