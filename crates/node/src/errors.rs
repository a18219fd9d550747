//! Errors and panics on their way to JavaScript: the message is `raphson:` and a JSON object, which the TypeScript layer
//! turns into its own error type. Nothing here decides what is wrong.

use raphson_graph::error::{Error, Result};
use raphson_session::panic_text;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run `body`; a panic becomes an error, for none may cross into Node.
pub fn guarded<T>(op: &str, body: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    // What `body` may leave half-done is a table of handles, whose every change is one step.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(to_napi),
        Err(panic) => Err(to_napi(Error::internal(op, panic_text(&*panic)))),
    }
}

/// The error that JavaScript sees.
pub fn to_napi(error: Error) -> napi::Error {
    napi::Error::from_reason(format!("raphson:{}", json(&error)))
}

/// An error of Node's own interface as one of ours.
pub fn from_napi(op: &str, error: napi::Error) -> Error {
    Error::internal(op, error.reason.clone())
}

/// `{"code", "op", "shapes", "dtypes", "message"}`
fn json(error: &Error) -> String {
    let mut out = String::from("{\"code\":");
    quote(error.code.name(), &mut out);
    out.push_str(",\"op\":");
    quote(&error.op, &mut out);
    out.push_str(",\"shapes\":[");
    for (i, shape) in error.shapes.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // A shape prints as `[2, 3]`, which is JSON.
        let _ = write!(out, "{comma}{shape}");
    }
    out.push_str("],\"dtypes\":[");
    for (i, dtype) in error.dtypes.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        quote(dtype.name(), &mut out);
    }
    out.push_str("],\"message\":");
    quote(&error.to_string(), &mut out);
    out.push('}');
    out
}

/// Append `text` as a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
