//! The table docs/devices.md: which ops the suites have run on which device, with which dtypes and derivatives. It is made of
//! what the suites note (`RAPHSON_COVERAGE`), so nothing is in it that did not run. What runs is decided in `check`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const TABLE: &str = "docs/devices.md";
const FOLDER: &str = "RAPHSON_COVERAGE";
const KINDS: [&str; 3] = ["cpu", "wgpu", "cuda"];
const DTYPES: [&str; 9] = ["f32", "f64", "f16", "bf16", "i32", "i64", "u32", "u8", "bool"];

/// The words of the files, worst first.
const FATES: [&str; 4] = ["unsupported", "left out", "values", "derivatives"];

/// By op, dtype and kind: the position in `FATES`.
type Found = BTreeMap<(String, String, String), usize>;

/// Run all suites, as `npm test` does (unless the folder has their notes already), and write the table, or compare it.
pub fn run(root: &Path, check: bool) -> Result<String, String> {
    let given = std::env::var_os(FOLDER).map(PathBuf::from).filter(|folder| folder.is_dir());
    let folder = match given {
        Some(folder) => folder,
        None => run_suites(root)?,
    };
    let found = read(&folder)?;
    if let Some(kind) = KINDS.iter().find(|kind| !found.keys().any(|(_, _, found)| found == *kind)) {
        return Ok(format!("{TABLE}: skipped, for the suites ran on no {kind} device here"));
    }
    let text = table(&found)?;
    let path = root.join(TABLE);
    if !check {
        std::fs::write(&path, &text).map_err(|error| format!("cannot write {TABLE}: {error}"))?;
    } else if std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n") != text {
        return Err(format!("{TABLE} is not what the suites ran; run `cargo xtask devices` and commit it"));
    }
    Ok(format!("{TABLE}: {} ops", text.lines().filter(|line| line.starts_with("| `")).count()))
}

fn run_suites(root: &Path) -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("coverage");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("cannot empty {}: {error}", folder.display()))?;
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env(FOLDER, &folder);
    command.args(["test", "--quiet", "-p", "raphson-check", "--tests"]);
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the suites failed:\n{}", String::from_utf8_lossy(&output.stdout)));
    }
    Ok(folder)
}

/// The best of what the files say.
fn read(folder: &Path) -> Result<Found, String> {
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    let mut found = Found::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|ending| ending != "tsv") {
            continue;
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        for line in text.lines() {
            note(&mut found, line)?;
        }
    }
    Ok(found)
}

fn note(found: &mut Found, line: &str) -> Result<(), String> {
    let parts: Vec<&str> = line.split('\t').collect();
    let [op, dtype, kind, fate] = parts[..] else { return Err(format!("no note of a suite: {line:?}")) };
    let fate = FATES.iter().position(|&known| known == fate).ok_or_else(|| format!("an unknown fate: {line:?}"))?;
    // Random graphs are not an op, and the suites of one device only show forms of kernels.
    if op.starts_with("random") {
        return Ok(());
    }
    let best = found.entry((op.to_string(), dtype.to_string(), kind.to_string())).or_insert(fate);
    *best = fate.max(*best);
    Ok(())
}

fn table(found: &Found) -> Result<String, String> {
    let mut out = String::from(
        "# Ops on devices\n\nWhat the suites have run, and compared with the f64 reference: values, and where it says ″ first and \
         second\nderivatives too. cuda is the device's own code and PTX in an interpreter. Written by `cargo xtask devices`.\n\n\
         ¹ WGSL has no 64-bit numbers: a graph with f64 or i64 in it is refused on wgpu, with an error that names the way out.\n\n\
         | op | cpu | wgpu | cuda |\n|---|---|---|---|\n",
    );
    let mut ops: Vec<&str> = found.keys().map(|(op, _, _)| op.as_str()).collect();
    ops.dedup();
    for op in ops {
        let key = |dtype: &str, kind: &str| (op.to_string(), dtype.to_string(), kind.to_string());
        if !KINDS[..1].iter().all(|kind| DTYPES.iter().any(|dtype| found.contains_key(&key(dtype, kind)))) {
            continue;
        }
        out.push_str(&format!("| `{op}` |"));
        for kind in KINDS {
            let mut cells = Vec::new();
            for dtype in DTYPES.iter().filter(|dtype| found.contains_key(&key(dtype, "cpu"))) {
                let fate = found.get(&key(dtype, kind)).copied();
                cells.push(match fate.map(|fate| FATES[fate]) {
                    Some("derivatives") => format!("{dtype}″"),
                    Some("values") => (*dtype).to_string(),
                    Some("unsupported") if kind == "wgpu" => format!("no {dtype}¹"),
                    other => return Err(format!("{op} {dtype} did not run on {kind}: {other:?}")),
                });
            }
            out.push_str(&format!(" {} |", cells.join(" ")));
        }
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Found {
        let mut found = Found::new();
        lines.iter().for_each(|line| note(&mut found, line).expect("a note"));
        found
    }

    #[test]
    fn cells_say_what_ran() {
        let lines = ["add\tf32\tcpu\tvalues", "add\tf32\tcpu\tderivatives", "add\tf64\tcpu\tvalues"];
        let gpu = ["add\tf32\twgpu\tvalues", "add\tf64\twgpu\tunsupported", "add\tf32\tcuda\tvalues"];
        let all = [&lines[..], &gpu, &["add\tf64\tcuda\tderivatives"]].concat();
        let text = table(&found(&all)).expect("a table");
        assert!(text.ends_with("| `add` | f32″ f64 | f32 no f64¹ | f32 f64″ |\n"), "{text}");
    }

    #[test]
    fn a_blank_is_an_error() {
        let lines = ["add\tf32\tcpu\tvalues", "add\tf32\tcuda\tvalues"];
        assert!(table(&found(&lines)).is_err());
        let left_out = [&lines[..], &["add\tf32\twgpu\tleft out"]].concat();
        assert!(table(&found(&left_out)).expect_err("a blank").contains("left out"));
        assert!(note(&mut Found::new(), "add f32").is_err());
    }
}
