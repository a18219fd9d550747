//! Development tasks: `cargo xtask gen [--check]` writes the TypeScript that follows from the op rows, `cargo xtask tidy`
//! checks the layout rules, `cargo xtask ptxas [--check]` assembles what the cuda device prints, `cargo xtask devices [--check]`
//! writes which ops the suites run on which device. The work is in files of these names; this one only reads the command line.

mod devices;
mod generate;
mod ptxas;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask gen [--check] | tidy | ptxas [--check] | devices [--check]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match arguments[..] {
        ["gen"] => generate::write(&root),
        ["gen", "--check"] => generate::check(&root),
        ["ptxas"] => ptxas::run(&root, false),
        ["ptxas", "--check"] => ptxas::run(&root, true),
        ["devices"] => devices::run(&root, false),
        ["devices", "--check"] => devices::run(&root, true),
        ["tidy"] => tidy::check(&root),
        _ => Err(USAGE.to_string()),
    };
    match outcome {
        Ok(sentence) => {
            println!("{sentence}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: two folders above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
