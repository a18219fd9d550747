//! The layout rules that a compiler does not check: which crate may depend on which, who touches the addon, what files are
//! called, how they begin and how long they are. Formatting and lints belong to the linters.

use std::fs;
use std::path::{Path, PathBuf};

/// Each crate and those of ours that it may depend on; `bench`, `check` and `xtask` are for development, and free.
const EDGES: &[(&str, &[&str])] = &[
    ("graph", &[]),
    ("compile", &["graph"]),
    ("device", &["graph", "compile"]),
    ("optim", &["graph"]),
    ("session", &["graph", "compile", "device", "optim"]),
    ("node", &["graph", "optim", "session"]),
];
const FREE: &[&str] = &["bench", "check", "xtask"];

/// Folders with source files of ours.
const SOURCES: &[&str] = &["crates", "src", "__test__", "examples", "bench", "scripts"];
const LONGEST_FILE: usize = 700;
const NAMES_THAT_SAY_NOTHING: &[&str] = &["utils", "util", "misc", "helper", "helpers"];

/// An error with one line for each broken rule.
pub fn check(root: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        let folder = root.join(folder);
        if folder.is_dir() {
            collect(&folder, &mut files)?;
        }
    }
    let mut broken = dependency_edges(root)?;
    for path in &files {
        let shown = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        broken.extend(file_rules(&shown, &text));
    }
    if broken.is_empty() { Ok(format!("tidy: {} files", files.len())) } else { Err(broken.join("\n")) }
}

/// Source files below `folder`, in order.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "node_modules" && name != "target" && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if [".rs", ".ts", ".mts", ".mjs"].iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Dependencies between our crates that the architecture has not.
fn dependency_edges(root: &Path) -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    let folder = root.join("crates");
    let entries = fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        broken.extend(manifest_edges(&name, &manifest));
    }
    broken.sort();
    Ok(broken)
}

fn manifest_edges(name: &str, manifest: &str) -> Vec<String> {
    if FREE.contains(&name) {
        return Vec::new();
    }
    let Some((_, allowed)) = EDGES.iter().find(|(krate, _)| *krate == name) else {
        return vec![format!("crates/{name}: not in the list of crates; add it and what it may depend on")];
    };
    let mut broken = Vec::new();
    let mut development = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            development = line.contains("dev-dependencies");
        }
        let Some(rest) = line.strip_prefix("raphson-") else { continue };
        let other: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if !development && !allowed.contains(&other.as_str()) {
            broken.push(format!("crates/{name}/Cargo.toml: {name} must not depend on {other}"));
        }
    }
    broken
}

/// The rules for one file; `path` is relative to the root, with forward slashes.
fn file_rules(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let generated = path.contains("/generated/");
    let stem = path.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
    let folders = path.split('/').chain([stem]);
    if let Some(name) = folders.into_iter().find(|part| NAMES_THAT_SAY_NOTHING.contains(part)) {
        broken.push(format!("{path}: \"{name}\" says nothing; name it after the main noun inside"));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE && !generated {
        broken.push(format!("{path}: {lines} lines; split it by subject (at most {LONGEST_FILE})"));
    }
    if !opens_with_comment(path, text) {
        broken.push(format!("{path}: begin with a comment that says what lives here, and what does not"));
    }
    let unfinished = concat!("todo", "!(");
    if text.contains(unfinished) {
        broken.push(format!("{path}: something is left to do"));
    }
    if path.starts_with("src/") && path != "src/native.ts" && imports_addon(text) {
        broken.push(format!("{path}: only src/native.ts touches the addon"));
    }
    broken
}

fn opens_with_comment(path: &str, text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    let text = match text.strip_prefix("#!") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, after)| after),
        None => text,
    };
    if path.ends_with(".rs") { text.starts_with("//!") } else { text.starts_with("/*") || text.starts_with("//") }
}

/// Whether some import or require names the folder `native` at the root.
fn imports_addon(text: &str) -> bool {
    text.lines().any(|line| {
        let names = ["../native/", "native/index.cjs"].iter().any(|name| line.contains(name));
        names && (line.contains("import") || line.contains("require") || line.contains("from"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_against_the_grain_are_found() {
        let manifest = "[dependencies]\nraphson-graph.workspace = true\nraphson-session.workspace = true\n";
        assert_eq!(
            manifest_edges("compile", manifest),
            ["crates/compile/Cargo.toml: compile must not depend on session"]
        );
        assert!(manifest_edges("node", manifest).is_empty());
        assert!(manifest_edges("check", "raphson-node = 1").is_empty());
        assert_eq!(manifest_edges("cluster", "").len(), 1);
    }

    #[test]
    fn a_good_file_breaks_nothing() {
        assert!(file_rules("src/tensor.ts", "/** The tensor. */\nimport { native } from \"./native\";\n").is_empty());
        assert!(file_rules("crates/graph/src/lib.rs", "//! The language.\n").is_empty());
    }

    #[test]
    fn each_rule_is_found_broken() {
        let broken = |path: &str, text: &str| file_rules(path, text).join("; ");
        assert!(broken("src/utils.ts", "// x").contains("says nothing"));
        assert!(broken("src/helpers/a.ts", "// x").contains("says nothing"));
        assert!(broken("src/a.ts", "let x;").contains("begin with a comment"));
        assert!(broken("src/a.rs", "// x").contains("begin with a comment"));
        assert!(broken("src/a.ts", &"// x\n".repeat(701)).contains("701 lines"));
        assert!(broken("src/generated/a.ts", &"// x\n".repeat(701)).is_empty());
        assert!(broken("src/a.ts", "// x\nimport x from \"../native/index.cjs\";").contains("touches the addon"));
    }
}
