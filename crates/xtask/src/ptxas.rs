//! Assembling what the cuda device prints: `ptxas` must accept every kernel for every generation of GPUs, without spilling a
//! register. Sample kernels go into the table docs/ptxas.md; those of the op suite are assembled too, but not listed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compute capabilities: Turing, Ampere, Hopper, Blackwell.
const TARGETS: [&str; 4] = ["sm_75", "sm_80", "sm_90", "sm_120"];
const TABLE: &str = "docs/ptxas.md";
/// What scripts/compile-cuda.py says of the kernels that it compiles; checked there, repeated in the table.
const COMMITTED: &str = "crates/device/src/cuda/kernels/registers.md";
/// Kernels that one run of ptxas gets.
const BATCH: usize = 200;
/// The tests whose kernels are assembled.
const SUITE: [&str; 3] = ["rows", "structural", "kinks"];

/// What ptxas says about one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    registers: u32,
    spilled_bytes: u32,
    shared_bytes: u32,
}

/// By entry, then by target (in the order of `TARGETS`).
type Uses = BTreeMap<String, Vec<Use>>;

/// One printed module: the name of its file, its entry, what stands before its function, and the function.
struct Printed {
    name: String,
    entry: String,
    header: String,
    table: String,
    function: String,
}

/// Print, assemble, and write the table (or compare it).
pub fn run(root: &Path, check: bool) -> Result<String, String> {
    let Some(ptxas) = find(root) else {
        return Ok("ptxas: skipped, for there is none (RAPHSON_PTXAS, the PATH, and the environment that \
                   scripts/compile-cuda.sh makes were searched)"
            .to_string());
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (samples, suite) = (fresh(&target.join("ptx/samples"))?, fresh(&target.join("ptx/suite"))?);
    // The profile of the tests, whose dependencies are built already.
    let example = ["run", "--profile", "test", "--quiet", "-p", "raphson-check", "--example", "print_ptx", "--"];
    cargo(root, &example, &samples, None)?;
    let mut tests = vec!["test", "--quiet", "-p", "raphson-check"];
    SUITE.iter().for_each(|test| tests.extend(["--test", test]));
    cargo(root, &tests, &suite, Some("RAPHSON_PTX_DUMP"))?;

    let (samples, suite) = (read(&samples)?, read(&suite)?);
    let sample_uses = assemble(&ptxas, &samples, &target)?;
    let suite_uses = assemble(&ptxas, &suite, &target)?;
    let spilling: Vec<&String> = sample_uses
        .iter()
        .chain(&suite_uses)
        .filter(|(_, uses)| uses.iter().any(|of| of.spilled_bytes > 0))
        .map(|(entry, _)| entry)
        .collect();
    if !spilling.is_empty() {
        return Err(format!("ptxas: registers are spilled in {spilling:?}"));
    }
    let registers = std::fs::read_to_string(root.join(COMMITTED)).map_err(|error| format!("{COMMITTED}: {error}"))?;
    let table = format!("{}{}", table(&samples, &sample_uses), committed(&registers));
    let path = root.join(TABLE);
    if check {
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if committed != table {
            return Err(format!("{TABLE} is not what the printer gives now; run `cargo xtask ptxas` and commit it"));
        }
    } else {
        std::fs::write(&path, table).map_err(|error| format!("cannot write {TABLE}: {error}"))?;
    }
    let most = suite_uses.values().chain(sample_uses.values()).flatten().map(|of| of.registers).max().unwrap_or(0);
    Ok(format!(
        "ptxas: {} samples and {} kernels of the op suite assembled for {}, none spills; {most} registers at most",
        samples.len(),
        suite.len(),
        TARGETS.join(", ")
    ))
}

/// The assembler: named by a variable, on the path, or in the environment of the compiler script.
fn find(root: &Path) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("RAPHSON_PTXAS") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("ptxas")).find(|candidate| candidate.is_file())
    });
    on_path.or_else(|| {
        let environment = std::env::var_os("RAPHSON_CUDA_VENV")
            .map_or_else(|| root.join("node_modules/.cache/cuda-compiler"), PathBuf::from);
        let pythons = std::fs::read_dir(environment.join("lib")).ok()?;
        let inside = "site-packages/nvidia/cuda_nvcc/bin/ptxas";
        pythons.flatten().map(|python| python.path().join(inside)).find(|candidate| candidate.is_file())
    })
}

/// An empty folder.
fn fresh(folder: &Path) -> Result<PathBuf, String> {
    let failed = |error| format!("cannot make {}: {error}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    Ok(folder.to_path_buf())
}

/// Run cargo; the folder is its last argument, or the value of a variable.
fn cargo(root: &Path, arguments: &[&str], folder: &Path, variable: Option<&str>) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(arguments);
    match variable {
        Some(variable) => command.env(variable, folder),
        None => command.arg(folder),
    };
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo {arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// The modules of a folder, by name.
fn read(folder: &Path) -> Result<Vec<Printed>, String> {
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    let mut printed = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let (before, function) = text.split_once(".visible").ok_or_else(|| format!("{name} has no kernel"))?;
        let (header, table) = match before.find(".const") {
            Some(at) => before.split_at(at),
            None => (before, ""),
        };
        let entry = function.split_once(".entry ").and_then(|(_, rest)| rest.split_once('(')).map(|(entry, _)| entry);
        let entry = entry.ok_or_else(|| format!("{name} has no entry"))?.to_string();
        let function = format!(".visible{function}");
        printed.push(Printed { name, entry, header: header.to_string(), table: table.to_string(), function });
    }
    printed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(printed)
}

/// Assemble all modules for all targets, several at a time.
fn assemble(ptxas: &Path, printed: &[Printed], target: &Path) -> Result<Uses, String> {
    let mut unique: BTreeMap<&str, &Printed> = BTreeMap::new();
    printed.iter().for_each(|one| {
        unique.insert(&one.entry, one);
    });
    let unique: Vec<&Printed> = unique.into_values().collect();
    let mut jobs = Vec::new();
    for (number, batch) in unique.chunks(BATCH).enumerate() {
        let table = batch.iter().map(|one| one.table.as_str()).find(|table| !table.is_empty()).unwrap_or("");
        let functions: Vec<&str> = batch.iter().map(|one| one.function.as_str()).collect();
        let text = format!("{}{table}{}", batch[0].header, functions.join("\n"));
        let path = target.join(format!("ptx/batch{number}.ptx"));
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        jobs.extend(TARGETS.iter().map(|target| (path.clone(), *target)));
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut uses = Uses::new();
    for jobs in jobs.chunks(workers) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> =
                jobs.iter().map(|(path, target)| scope.spawn(|| assemble_one(ptxas, path, target))).collect();
            running.into_iter().map(|worker| worker.join()).collect()
        });
        for (result, (_, target)) in results.into_iter().zip(jobs) {
            let found = result.map_err(|_| "a worker failed".to_string())??;
            let column = TARGETS.iter().position(|known| known == target).unwrap_or(0);
            for (entry, of) in found {
                uses.entry(entry).or_insert_with(|| vec![Use::default(); TARGETS.len()])[column] = of;
            }
        }
    }
    if uses.len() != unique.len() {
        return Err(format!("ptxas reported on {} kernels of {}", uses.len(), unique.len()));
    }
    Ok(uses)
}

fn assemble_one(ptxas: &Path, path: &Path, target: &str) -> Result<Vec<(String, Use)>, String> {
    let object = path.with_extension(format!("{target}.cubin"));
    let mut command = Command::new(ptxas);
    let output = command.arg("-v").arg("-arch").arg(target).arg(path).arg("-o").arg(&object).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", ptxas.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let start: Vec<&str> = said.lines().filter(|line| !line.contains("info")).take(20).collect();
        return Err(format!("ptxas refuses {} for {target}:\n{}", path.display(), start.join("\n")));
    }
    // The object is of no use, and may be gone already.
    std::fs::remove_file(&object).ok();
    Ok(parse(&said))
}

/// `Compiling entry function 'name' for …`, then `… bytes spill stores, …`, then `Used 24 registers, …, 512 bytes smem, …`.
fn parse(said: &str) -> Vec<(String, Use)> {
    let number_before = |line: &str, what: &str| -> u32 {
        let before = line.split(what).next().filter(|before| before.len() < line.len()).unwrap_or("");
        before.rsplit([' ', ',']).find_map(|word| word.parse().ok()).unwrap_or(0)
    };
    let mut found: Vec<(String, Use)> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            found.push((rest.split('\'').next().unwrap_or("").to_string(), Use::default()));
        } else if let Some((_, of)) = found.last_mut() {
            if line.contains("bytes spill stores") {
                of.spilled_bytes =
                    number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
            } else if line.contains("registers") {
                of.registers = number_before(line, " registers");
                of.shared_bytes = number_before(line, " bytes smem");
            }
        }
    }
    found
}

fn table(samples: &[Printed], uses: &Uses) -> String {
    let mut out = String::from(
        "# Printed kernels in the assembler\n\nRegisters of a thread, as ptxas allots them, and bytes of shared memory of a block. No kernel \
         spills a\nregister. Written by `cargo xtask ptxas`, which also assembles every kernel of the op suite.\n\n",
    );
    out.push_str(&format!(
        "| kernel | {} | shared |\n|---|{}---|\n",
        TARGETS.join(" | "),
        "---|".repeat(TARGETS.len())
    ));
    for sample in samples {
        let Some(of) = uses.get(&sample.entry) else { continue };
        let registers: Vec<String> = of.iter().map(|of| of.registers.to_string()).collect();
        let shared = of.iter().map(|of| of.shared_bytes).max().unwrap_or(0);
        out.push_str(&format!("| {} | {} | {shared} |\n", sample.name, registers.join(" | ")));
    }
    out
}

/// The rows of the committed kernels under a heading of their own.
fn committed(registers: &str) -> String {
    let rows: Vec<&str> = registers.lines().filter(|line| line.starts_with('|')).collect();
    format!(
        "\n## Committed kernels\n\nCompiled from CUDA C by scripts/compile-cuda.sh; – where a GPU is too old.\n\n{}\n",
        rows.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_kernels_are_listed() {
        let text = committed("Registers.\n\n| kernel | sm_75 |\n|---|---|\n| dot_sum | 29 |\n");
        assert!(text.ends_with("\n\n| kernel | sm_75 |\n|---|---|\n| dot_sum | 29 |\n"), "{text}");
    }

    #[test]
    fn reports_are_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'row_1' for 'sm_80'\n\
            ptxas info    : Function properties for row_1\n\
            \x20   0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n\
            ptxas info    : Used 24 registers, used 1 barriers, 512 bytes smem, 368 bytes cmem[0]\n";
        let want = Use { registers: 24, spilled_bytes: 12, shared_bytes: 512 };
        assert_eq!(parse(said), [("row_1".to_string(), want)]);
    }
}
