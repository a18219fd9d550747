//! The summary: for each op, dtype and runner the number of cases and the largest error.

use raphson_graph::dtype::DType;
use std::collections::BTreeMap;
use std::fmt;

/// Counts and errors of a suite.
#[derive(Clone, Debug, Default)]
pub struct Report {
    cells: BTreeMap<(String, DType, String), Cell>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    cases: usize,
    largest: f64,
}

impl Report {
    /// Note one case.
    pub fn note(&mut self, op: &str, dtype: DType, runner: &str, error: f64) {
        let cell = self.cells.entry((op.to_string(), dtype, runner.to_string())).or_default();
        cell.cases += 1;
        cell.largest = cell.largest.max(error);
    }

    /// Number of cases noted for all runners together.
    pub fn cases(&self) -> usize {
        self.cells.values().map(|cell| cell.cases).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runners: Vec<&str> = self.cells.keys().map(|(_, _, runner)| runner.as_str()).collect();
        runners.sort_unstable();
        runners.dedup();
        write!(f, "{:<26}{:<6}", "op", "dtype")?;
        runners.iter().try_for_each(|runner| write!(f, "{runner:>30}"))?;
        writeln!(f)?;
        let mut rows: Vec<(&str, DType)> = self.cells.keys().map(|(op, dtype, _)| (op.as_str(), *dtype)).collect();
        rows.dedup();
        for (op, dtype) in rows {
            write!(f, "{op:<26}{:<6}", dtype.name())?;
            for runner in &runners {
                match self.cells.get(&(op.to_string(), dtype, (*runner).to_string())) {
                    Some(cell) => write!(f, "{:>30}", format!("{} cases {:.1e}", cell.cases, cell.largest))?,
                    None => write!(f, "{:>30}", "–")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
