//! The Node addon: check what comes from JavaScript, look up handles, call the crates that do the work, convert back. No
//! mathematics lives here, and no policy: what is computed when is the session's matter.

// The macros register nothing in a test build, where all exports would seem unused.
#![cfg_attr(test, allow(dead_code))]

mod convert;
mod device;
mod errors;
mod evaluate;
mod files;
mod handles;
mod newton;
mod ops;
mod promise;
mod state;
mod step;
mod transforms;
