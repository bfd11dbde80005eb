//! Measured figures, and how they are printed.

use serde_json::{Value, json};

/// One measured figure.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The baseline and its value in the same run.
    pub(crate) yardstick: Option<(String, f64)>,
    /// Median of the ratios of consecutive runs, which other work on the machine slows alike.
    pub(crate) ratio: Option<f64>,
    /// The aim, and whether it is reached; `None` if there is no aim.
    pub(crate) aim: Option<(String, bool)>,
}

impl Figure {
    /// Our runs, each with the run of the yardstick before it.
    pub(crate) fn pairs(name: String, unit: &'static str, yardstick: &str, pairs: &[(f64, f64)]) -> Self {
        let of = |of: fn(&(f64, f64)) -> f64| median(pairs.iter().map(of).collect());
        let ratio = of(|(ours, theirs)| ours / theirs);
        let yardstick = Some((yardstick.to_owned(), of(|(_, theirs)| *theirs)));
        Self { name, value: of(|(ours, _)| *ours), unit, yardstick, ratio: Some(ratio), aim: None }
    }

    /// One value without a comparison.
    pub(crate) fn alone(name: &str, value: f64, unit: &'static str) -> Self {
        Self { name: name.to_owned(), value, unit, yardstick: None, ratio: None, aim: None }
    }

    /// The aim is a ratio of at most this.
    pub(crate) fn at_most_times(mut self, aim: f64) -> Self {
        self.aim = self.ratio.map(|ratio| (format!("≤ {aim} ×"), ratio <= aim));
        self
    }

    /// The aim is a ratio of at least this.
    pub(crate) fn at_least_times(mut self, aim: f64) -> Self {
        self.aim = self.ratio.map(|ratio| (format!("≥ {aim} ×"), ratio >= aim));
        self
    }

    /// The aim is a value below this.
    pub(crate) fn below(mut self, aim: f64) -> Self {
        self.aim = Some((format!("< {aim} {}", self.unit), self.value < aim));
        self
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit,
            "yardstick": self.yardstick.as_ref().map(|(name, _)| name), "ratio": self.ratio,
            "yardstick_value": self.yardstick.as_ref().map(|(_, value)| value),
            "aim": self.aim.as_ref().map(|(aim, _)| aim), "reached": self.aim.as_ref().map(|(_, reached)| reached),
        })
    }

    /// Prints a table.
    pub(crate) fn print(figures: &[Self]) {
        let rows: Vec<[String; 5]> = figures.iter().map(Self::row).collect();
        let header = ["what", "figure", "yardstick", "ratio", "aim"].map(str::to_owned);
        let mut widths = [0; 5];
        for row in [&header].into_iter().chain(&rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in [&header].into_iter().chain(&rows) {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }

    fn row(&self) -> [String; 5] {
        let number = |value: f64| match value {
            value if value >= 100.0 => format!("{value:.0}"),
            value if value >= 10.0 => format!("{value:.1}"),
            value => format!("{value:.2}"),
        };
        [
            self.name.clone(),
            format!("{} {}", number(self.value), self.unit),
            self.yardstick.as_ref().map_or(String::new(), |(name, value)| format!("{name}: {} {}", number(*value), self.unit)),
            self.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            self.aim.as_ref().map_or(String::new(), |(aim, reached)| format!("{aim} {}", if *reached { "ok" } else { "MISSED" })),
        ]
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

/// The `part` quantile of `values`; NaN if there are none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
