//! Figures and how they are taken.

use crate::programs::peak_kib;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often the memory of a running process is read.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// The ratio is at most this.
    AtMost(f64),
    /// The ratio is at least this.
    AtLeast(f64),
    /// The value itself is at most this.
    ValueAtMost(f64),
    None,
}

/// One thing measured.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// The name of the baseline, and its value in the same run.
    pub(crate) yardstick: Option<(String, f64)>,
    pub(crate) aim: Aim,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, value, yardstick: None, aim: Aim::None }
    }

    pub(crate) fn against(mut self, yardstick: impl Into<String>, value: f64, aim: Aim) -> Self {
        (self.yardstick, self.aim) = (Some((yardstick.into(), value)), aim);
        self
    }

    pub(crate) fn aim(mut self, aim: Aim) -> Self {
        self.aim = aim;
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.yardstick.as_ref().map(|(_, value)| self.value / value)
    }

    fn aimed(&self) -> Option<String> {
        match self.aim {
            Aim::AtMost(most) => Some(format!("ratio ≤ {most}")),
            Aim::AtLeast(least) => Some(format!("ratio ≥ {least}")),
            Aim::ValueAtMost(most) => Some(format!("≤ {most} {}", self.unit)),
            Aim::None => None,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "yardstick": self.yardstick.as_ref().map(|(name, _)| name),
            "yardstick_value": self.yardstick.as_ref().map(|(_, value)| value), "ratio": self.ratio(), "aim": self.aimed(),
        })
    }

    pub(crate) fn line(&self) -> String {
        let mut line = format!("{:64} {:9.4} {}", self.name, self.value, self.unit);
        if let Some((name, value)) = &self.yardstick {
            line.push_str(&format!("   {name}: {value:.4} {}   ratio {:.2}", self.unit, self.value / value));
        }
        if let Some(aim) = self.aimed() {
            line.push_str(&format!("   aim {aim}"));
        }
        line
    }
}

/// The median, in seconds; NaN without measurements, as when the baseline's program is not installed.
pub(crate) fn median(values: &mut [Duration]) -> f64 {
    values.sort();
    values.get(values.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Runs a command that must succeed, and gives its duration.
pub(crate) fn time(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// The same, with the most memory that the process had resident at once, in KiB.
pub(crate) fn time_and_peak(command: &mut Command) -> (Duration, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_kib(child.id()));
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => thread::park_timeout(LOOK),
        }
    };
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    (took, peak)
}

/// Incompressible bytes (xorshift64).
pub(crate) fn write_noise(path: &Path, size: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size;
    for _ in 0..size.div_ceil(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap();
    }
    out.into_inner().unwrap().set_len(size).unwrap();
}

pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
