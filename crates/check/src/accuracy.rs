//! How close each op came to the reference on each kind of device, in the dtype that its results can be no more precise than:
//! cases and the largest error, written to files of `RAPHSON_COVERAGE` that `npm test` sums up. What ran is in `coverage`.

use crate::coverage::written_to;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use std::collections::BTreeMap;

/// The cases of one op on one kind of device in one precision.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    cases: usize,
    largest: f64,
}

/// The accuracy that a suite found.
#[derive(Clone, Debug, Default)]
pub struct Accuracy {
    /// By kind of device, precision and op.
    cells: BTreeMap<(&'static str, DType, String), Cell>,
}

impl Accuracy {
    /// Note the largest error of one case, relative to the natural scale of its result.
    pub fn note(&mut self, kind: &'static str, precision: DType, op: &str, error: f64) {
        let cell = self.cells.entry((kind, precision, op.to_string())).or_default();
        cell.cases += 1;
        cell.largest = cell.largest.max(error);
    }

    /// Write what was noted, if that is wanted: against what, device, dtype, op, cases, largest error.
    pub fn publish(&self) -> Result<()> {
        written_to("errors", || self.lines())
    }

    fn lines(&self) -> String {
        let line = |((kind, precision, op), cell): (&(&str, DType, String), &Cell)| {
            format!("the f64 reference\t{kind}\t{precision}\t{op}\t{}\t{:e}\n", cell.cases, cell.largest)
        };
        self.cells.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_of_an_op_stands_for_it() {
        let mut accuracy = Accuracy::default();
        accuracy.note("cpu", DType::F32, "add", 1e-8);
        accuracy.note("cpu", DType::F32, "add", 1e-7);
        accuracy.note("wgpu", DType::F16, "add", f64::INFINITY);
        let lines = "the f64 reference\tcpu\tf32\tadd\t2\t1e-7\nthe f64 reference\twgpu\tf16\tadd\t1\tinf\n";
        assert_eq!(accuracy.lines(), lines);
    }
}
