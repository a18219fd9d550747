//! PTX text as modules, functions and statements. Instructions are decoded elsewhere.

use super::decode::{Names, decode};
use super::instruction::Instruction;
use super::{Fault, Outcome, fault};
use std::collections::HashMap;

/// A parsed module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub functions: HashMap<String, Function>,
    /// The constant bank.
    pub constants: Vec<u8>,
}

/// One kernel.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// Offset and size in bytes of each parameter.
    pub parameters: Vec<(usize, usize)>,
    pub code: Vec<Instruction>,
    pub n_registers: usize,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    /// The most threads that a block may have, by its own declaration.
    pub most_threads: Option<u32>,
}

impl Module {
    /// Read a module.
    pub fn parse(text: &str) -> Outcome<Module> {
        let text = without_comments(text);
        let mut module = Module::default();
        let mut symbols = HashMap::new();
        let mut dynamic = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if let Some(start) = entry(rest) {
                let (function, after) = function(start, &symbols, &dynamic)?;
                module.functions.insert(function.name.clone(), function);
                rest = after.trim_start();
                continue;
            }
            // A directive: to the end of the line for those of the header, else to the semicolon.
            let header = [".version", ".target", ".address_size"].iter().any(|name| rest.starts_with(name));
            let end = rest.find(if header { '\n' } else { ';' }).unwrap_or(rest.len() - 1);
            let directive = rest[..end].trim();
            if directive.starts_with(".const") {
                constant(directive, &mut module.constants, &mut symbols)?;
            } else if directive.contains(".extern .shared") {
                dynamic.push(declared(directive)?.0);
            } else if !header && !directive.starts_with(".file") {
                return fault(format!("a directive that is not known here: {directive}"));
            }
            rest = rest[end + 1..].trim_start();
        }
        Ok(module)
    }
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = rest[at..].find("*/").map_or("", |end| &rest[at + end + 2..]);
    }
    out.push_str(rest);
    out.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// What follows `.entry`, if a kernel starts here.
fn entry(text: &str) -> Option<&str> {
    let text = text.strip_prefix(".visible").or_else(|| text.strip_prefix(".weak")).unwrap_or(text).trim_start();
    text.strip_prefix(".entry").map(str::trim_start)
}

/// `.b8 name[n]` among a declaration's words: the name, the size in bytes, and its alignment.
fn declared(text: &str) -> Outcome<(String, usize, usize)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let align = words.iter().position(|&word| word == ".align").and_then(|at| words.get(at + 1)?.parse().ok());
    let bytes = words.iter().find_map(|word| type_bytes(word.strip_prefix('.')?));
    let (Some(bytes), Some(name)) = (bytes, words.iter().rev().find(|word| !word.starts_with('.'))) else {
        return fault(format!("a declaration that is not understood: {text}"));
    };
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap_or(0)),
        None => (*name, 1),
    };
    Ok((name.to_string(), bytes * count, align.unwrap_or(bytes)))
}

/// Bytes of a PTX type.
pub fn type_bytes(name: &str) -> Option<usize> {
    Some(match name {
        "pred" | "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => return None,
    })
}

fn constant(text: &str, bank: &mut Vec<u8>, symbols: &mut HashMap<String, u64>) -> Outcome<()> {
    let Some((head, values)) = text.split_once('=') else {
        return fault(format!("a constant without values: {text}"));
    };
    let (name, total, align) = declared(head)?;
    while !bank.len().is_multiple_of(align) {
        bank.push(0);
    }
    let values: Vec<&str> = values.trim().trim_matches(|c| c == '{' || c == '}').split(',').map(str::trim).collect();
    let bytes = total / values.len().max(1);
    symbols.insert(name, bank.len() as u64);
    for value in values {
        let value = integer(value).ok_or_else(|| Fault(format!("not an integer: {value}")))?;
        bank.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }
    Ok(())
}

/// An integer literal as 64 bits.
pub fn integer(text: &str) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let digits = digits.trim_end_matches('U');
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// A function from its name on; what follows it comes back too.
fn function<'a>(text: &'a str, symbols: &HashMap<String, u64>, dynamic: &[String]) -> Outcome<(Function, &'a str)> {
    let parts = || -> Option<(&str, &str, &str, &str)> {
        let open = text.find('(')?;
        let close = open + text[open..].find(')')?;
        let body = close + text[close..].find('{')?;
        Some((text[..open].trim(), &text[open + 1..close], &text[close + 1..body], &text[body + 1..]))
    };
    let Some((name, parameters, directives, body)) = parts() else {
        return fault("a function without parameters or body");
    };
    let mut names = Names { symbols: symbols.clone(), ..Names::default() };
    let mut offset = 0usize;
    let mut layout = Vec::new();
    for parameter in parameters.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (name, bytes, align) = declared(parameter)?;
        offset = offset.next_multiple_of(align);
        names.parameters.insert(name, offset as u64);
        layout.push((offset, bytes));
        offset += bytes;
    }
    let (statements, after) = statements(body)?;
    let mut code: Vec<(String, usize)> = Vec::new();
    for statement in statements {
        match statement {
            Statement::Label(label) => {
                names.labels.insert(label, code.len() as u32);
            }
            Statement::Text(text) if text.starts_with('.') => directive(&text, &mut names)?,
            Statement::Text(text) => code.push((text, 0)),
        }
    }
    for name in dynamic {
        names.symbols.insert(name.clone(), names.shared_bytes.next_multiple_of(16) as u64);
    }
    let mut decoded = Vec::with_capacity(code.len());
    for (text, _) in &code {
        let instruction = decode(text, &names).map_err(|Fault(why)| Fault(format!("{name}: `{text}`: {why}")))?;
        decoded.push(instruction);
    }
    let most_threads = directives.split_once(".maxntid").and_then(|(_, sizes)| {
        let sizes = sizes.trim_start().lines().next()?.split('.').next()?;
        sizes.split(',').map(|size| size.trim().parse::<u32>().ok()).product()
    });
    let function = Function {
        name: name.to_string(),
        parameters: layout,
        code: decoded,
        n_registers: names.registers.len(),
        shared_bytes: names.shared_bytes,
        most_threads,
    };
    Ok((function, after))
}

enum Statement {
    Label(String),
    Text(String),
}

/// The statements of a body up to its closing brace, and what follows.
fn statements(body: &str) -> Outcome<(Vec<Statement>, &str)> {
    let mut list = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    let mut in_operands = 0;
    for (at, character) in body.char_indices() {
        let so_far = body[start..at].trim();
        match character {
            '{' if so_far.is_empty() => {
                depth += 1;
                start = at + 1;
            }
            '{' => in_operands += 1,
            '}' if in_operands > 0 => in_operands -= 1,
            '}' if depth > 0 => {
                depth -= 1;
                start = at + 1;
            }
            '}' => return Ok((list, &body[at + 1..])),
            ':' if is_name(so_far) => {
                list.push(Statement::Label(so_far.to_string()));
                start = at + 1;
            }
            ';' => {
                if !so_far.is_empty() {
                    list.push(Statement::Text(so_far.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    fault("a function without an end")
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$' || c == '%')
}

/// A directive inside a function.
fn directive(text: &str, names: &mut Names) -> Outcome<()> {
    if let Some(registers) = text.strip_prefix(".reg ") {
        let (_, list) = registers.trim().split_once(' ').ok_or_else(|| Fault(format!("no registers: {text}")))?;
        for item in list.split(',').map(str::trim) {
            match item.split_once('<') {
                Some((prefix, count)) => {
                    let count: u32 =
                        count.trim_end_matches('>').parse().map_err(|_| Fault(format!("no count: {text}")))?;
                    (0..count).for_each(|number| names.register(&format!("{prefix}{number}")));
                }
                None => names.register(item),
            }
        }
        return Ok(());
    }
    if text.starts_with(".shared") {
        let (name, bytes, align) = declared(text)?;
        let start = names.shared_bytes.next_multiple_of(align);
        names.symbols.insert(name, start as u64);
        names.shared_bytes = start + bytes;
        return Ok(());
    }
    if [".loc", ".pragma", ".align"].iter().any(|known| text.starts_with(known)) {
        return Ok(());
    }
    fault(format!("a directive that is not known here: {text}"))
}
