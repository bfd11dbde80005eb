//! What is printed of a run.

use crate::{
    links::Rate,
    race::{Ended, Outcome, SEED, machine_of},
    scenario::{Options, Scenario, With},
};
use serde_json::json;
use std::time::Duration;

/// Columns of a timeline.
const COLUMNS: u32 = 80;

pub(crate) fn heading(scenario: &Scenario) -> String {
    let mut text =
        format!("{}: {} leechers, {} MiB, {}", scenario.name, scenario.peers, scenario.size >> 20, mbit(scenario.rate));
    let mut add = |part: String| text.push_str(&part);
    if let Some(rate) = scenario.seed_rate {
        add(format!(", the seed {}", mbit(rate)));
    }
    if let Some(rate) = scenario.slow_rate {
        add(format!(", the last leecher {}", mbit(rate)));
    }
    if !scenario.every.is_zero() {
        add(format!(", one leecher every {:?}", scenario.every));
    }
    if scenario.kill_third {
        add(", a third is killed half way".into());
    }
    if scenario.delay_ms > 0 {
        add(format!(", {} ms each way", scenario.delay_ms));
    }
    if scenario.liar {
        add(", one more holder lies".into());
    }
    match scenario.with {
        With::Get => add(", leechers that leave when they have it".into()),
        With::Seed => {}
        With::Daemon => add(", leechers with a daemon".into()),
    }
    text
}

fn mbit(rate: Rate) -> String {
    format!("{} Mbit/s", rate.0 as f64 / 1e6)
}

pub(crate) fn print(system: &str, scenario: &Scenario, outcome: &Outcome, options: &Options) {
    let ratios: Vec<_> = outcome
        .leechers
        .iter()
        .enumerate()
        .filter_map(|(leecher, ended)| match ended {
            Ended::After(time) => Some(time.as_secs_f64() / scenario.bound(leecher)),
            Ended::Killed | Ended::Failed(_) => None,
        })
        .collect();
    let mut sorted = ratios;
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let last = sorted.last().copied().unwrap_or(f64::NAN);
    let egress = outcome.links.total(SEED).up as f64 / scenario.size as f64;
    let failed = outcome.leechers.iter().filter(|ended| matches!(ended, Ended::Failed(_))).count();
    if options.json {
        let rows: Vec<_> = outcome
            .leechers
            .iter()
            .enumerate()
            .map(|(leecher, ended)| {
                let bound = scenario.bound(leecher);
                match ended {
                    Ended::After(time) => json!({ "seconds": time.as_secs_f64(), "bound": bound }),
                    Ended::Killed => json!({ "killed": true }),
                    Ended::Failed(reason) => json!({ "failed": reason, "bound": bound }),
                }
            })
            .collect();
        println!(
            "{}",
            json!({
                "system": system, "scenario": scenario.name, "peers": scenario.peers, "bytes": scenario.size, "leechers": rows,
                "median_ratio": median, "last_ratio": last, "seed_egress_ratio": egress, "failed": failed,
                "seed_peak_kib": outcome.seed_peak_kib, "leecher_peak_kib": outcome.leecher_peak_kib, "remarks": outcome.remarks,
            })
        );
        return;
    }
    println!("  {system}");
    for (leecher, ended) in outcome.leechers.iter().enumerate() {
        let bound = scenario.bound(leecher);
        let carried = outcome.links.total(machine_of(leecher));
        let share = |bytes: u64| bytes as f64 / scenario.size as f64;
        let end = match ended {
            Ended::After(time) => {
                format!("{:7.2} s   bound {bound:6.2} s   ratio {:5.2}", time.as_secs_f64(), time.as_secs_f64() / bound)
            }
            Ended::Killed => "killed".into(),
            Ended::Failed(reason) => format!("FAILED: {reason}"),
        };
        println!("    leecher {leecher:2}   {end}   sent {:5.2} F   received {:5.2} F", share(carried.up), share(carried.down));
    }
    println!(
        "    median {median:.2}   last {last:.2}   seed sent {egress:.2} F   failed {failed}   most memory: seed {} MiB, a leecher {} MiB",
        outcome.seed_peak_kib >> 10,
        outcome.leecher_peak_kib >> 10
    );
    outcome.remarks.iter().for_each(|remark| println!("    {remark}"));
    if options.timeline {
        timeline(scenario, outcome);
    }
}

/// One line for each direction of each link: the share of its rate in use, in tenths; `#` is full, `.` is idle.
fn timeline(scenario: &Scenario, outcome: &Outcome) {
    let step = Duration::from_millis(100) * (outcome.links.lasted().as_millis() as u32 / (100 * COLUMNS) + 1);
    println!("    use of each link in tenths of its rate, each {step:?}");
    let row = |name: &str, machine: usize, rate: Rate| {
        let uses = outcome.links.use_of(machine, rate, step);
        let text = |of: fn(&(f64, f64)) -> f64| uses.iter().map(|both| symbol(of(both))).collect::<String>();
        let mean = |of: fn(&(f64, f64)) -> f64| 100.0 * uses.iter().map(of).sum::<f64>() / uses.len().max(1) as f64;
        println!("    {name:>10} up   {} {:3.0} %", text(|both| both.0), mean(|both| both.0));
        println!("    {:>10} down {} {:3.0} %", "", text(|both| both.1), mean(|both| both.1));
    };
    row("seed", SEED, scenario.rate_of_seed());
    (0..scenario.peers).for_each(|leecher| row(&format!("leecher {leecher}"), machine_of(leecher), scenario.rate_of(leecher)));
}

fn symbol(share: f64) -> char {
    match (share * 10.0).round() as u32 {
        0 => '.',
        tenths @ 1..=9 => char::from_digit(tenths, 10).unwrap(),
        _ => '#',
    }
}
