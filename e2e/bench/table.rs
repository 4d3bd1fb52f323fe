//! The table that is printed: case, bar, figure, and whether it holds.

use std::fmt;

/// One line.
#[derive(Clone, Debug)]
pub struct Row {
    pub case: String,
    pub bar: String,
    pub figure: String,
    pub holds: bool,
}

#[derive(Default)]
pub struct Table(pub Vec<Row>);

impl Table {
    /// Enters a row and says it at once: a bench takes minutes.
    pub fn enter(&mut self, case: &str, bar: &str, figure: String, holds: bool) {
        println!("  {} {case}: {figure} (bar: {bar})", if holds { "+" } else { "-" });
        self.0.push(Row { case: case.to_owned(), bar: bar.to_owned(), figure, holds });
    }

    pub fn holds(&self) -> bool {
        self.0.iter().all(|row| row.holds)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "| Case | Bar | Figure | Holds |\n|---|---|---|---|")?;
        for Row { case, bar, figure, holds } in &self.0 {
            writeln!(out, "| {case} | {bar} | {figure} | {} |", if *holds { "yes" } else { "**no**" })?;
        }
        Ok(())
    }
}

/// The value below which this part of them lies (nearest rank).
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

pub fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// `1.02 / 1.10`: the least and the median.
pub fn span(values: &[f64]) -> String {
    format!("{:.2} / {:.2}", least(values), median(values))
}

/// `2.41, 2.50 s`
pub fn seconds(values: &[f64]) -> String {
    let texts: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
    format!("{} s", texts.join(", "))
}
