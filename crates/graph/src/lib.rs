//! The language of raphson: dtypes, shapes, op rows, lazy values, derivatives (graph → graph), flat graphs and their
//! simplification. No device, no I/O.

pub mod derivative;
pub mod dtype;
pub mod error;
pub mod fdlibm;
pub mod flat;
pub mod half;
pub mod kernel;
pub mod op;
pub mod reference;
pub mod shape;
pub mod value;
pub mod work;
