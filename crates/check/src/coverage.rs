//! What the suites have run on which kind of device: counts of cases, printed as one line for each suite, and which dtypes of
//! which ops, written to files of `RAPHSON_COVERAGE` for the table docs/devices.md. How close results were is in `report` and `accuracy`.

use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The folder that coverage is written to, if it is set.
const FOLDER: &str = "RAPHSON_COVERAGE";

/// What became of a case on a kind of device. A later one outweighs those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The device has not the case's dtypes.
    Unsupported,
    /// Left out of a slow device's sample.
    LeftOut,
    /// Run, its values compared.
    Values,
    /// Run, its values and first and second derivatives compared.
    Derivatives,
}

impl Fate {
    /// The word in files.
    fn word(self) -> &'static str {
        match self {
            Fate::Unsupported => "unsupported",
            Fate::LeftOut => "left out",
            Fate::Values => "values",
            Fate::Derivatives => "derivatives",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    run: usize,
    left_out: usize,
    unsupported: usize,
}

/// The coverage of a suite.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, Counts>,
    /// By op, dtype and kind of device: the best that any case had.
    best: BTreeMap<(String, DType, &'static str), Fate>,
}

impl Coverage {
    /// Note what became of one case on each kind of device.
    pub fn note(&mut self, op: &str, dtype: DType, fates: &BTreeMap<&'static str, Fate>) {
        for (&kind, &fate) in fates {
            let counts = self.counts.entry(kind).or_default();
            match fate {
                Fate::Unsupported => counts.unsupported += 1,
                Fate::LeftOut => counts.left_out += 1,
                Fate::Values | Fate::Derivatives => counts.run += 1,
            }
            let best = self.best.entry((op.to_string(), dtype, kind)).or_insert(fate);
            *best = fate.max(*best);
        }
    }

    /// Print the counts, past the test runner's capture, and write the rest if it is wanted.
    pub fn publish(&self) -> Result<()> {
        if !self.counts.is_empty() {
            say(&format!("cases in {}: {}", suite(), self.line()));
        }
        written_to("tsv", || self.lines())
    }

    /// `cpu 120 run; wgpu 30 run, 80 left out by sampling, 10 in dtypes it has not`
    fn line(&self) -> String {
        let kinds = self.counts.iter().map(|(kind, counts)| {
            let mut text = format!("{kind} {} run", counts.run);
            if counts.left_out > 0 {
                text.push_str(&format!(", {} left out by sampling", counts.left_out));
            }
            if counts.unsupported > 0 {
                text.push_str(&format!(", {} in dtypes it has not", counts.unsupported));
            }
            text
        });
        kinds.collect::<Vec<_>>().join("; ")
    }

    fn lines(&self) -> String {
        let line = |((op, dtype, kind), fate): (&(String, DType, &str), &Fate)| {
            format!("{op}\t{dtype}\t{kind}\t{}\n", fate.word())
        };
        self.best.iter().map(line).collect()
    }
}

/// The test that runs, as part of a file's name.
fn suite() -> String {
    std::thread::current().name().unwrap_or("suite").replace(':', "-")
}

/// Write notes of this suite to a file with this ending in the folder of `RAPHSON_COVERAGE`, if it is set.
pub(crate) fn written_to(ending: &str, notes: impl FnOnce() -> String) -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER) else { return Ok(()) };
    let path = Path::new(&folder).join(format!("{}-{}.{ending}", suite(), std::process::id()));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, notes()))
        .map_err(|error| Error::new(Code::File, "coverage", format!("cannot write {}: {error}", path.display())))
}

/// Print a line that shows even where tests pass: the runner captures what `println!` prints.
pub fn say(line: &str) {
    // Nobody is left to tell of a closed output.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_counts_for_an_op_and_all_count_for_a_device() {
        let mut coverage = Coverage::default();
        let fates = |cpu, wgpu| BTreeMap::from([("cpu", cpu), ("wgpu", wgpu)]);
        coverage.note("add", DType::F32, &fates(Fate::Derivatives, Fate::LeftOut));
        coverage.note("add", DType::F32, &fates(Fate::Values, Fate::Values));
        coverage.note("add", DType::F64, &fates(Fate::Values, Fate::Unsupported));
        let line = "cpu 3 run; wgpu 1 run, 1 left out by sampling, 1 in dtypes it has not";
        assert_eq!(coverage.line(), line);
        let best = |dtype, kind| coverage.best[&("add".to_string(), dtype, kind)];
        assert_eq!(best(DType::F32, "cpu"), Fate::Derivatives);
        assert_eq!(best(DType::F32, "wgpu"), Fate::Values);
        assert_eq!(best(DType::F64, "wgpu"), Fate::Unsupported);
    }
}
