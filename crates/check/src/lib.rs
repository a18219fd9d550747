//! The test harness: a case states inputs, ranges, tolerance and how to build a graph; the suite does the rest — values
//! on every runner against the reference, derivatives against finite differences, adjointness, second derivatives.
//! Development only; nothing here ships. The cases themselves stand in `tests/`.

pub mod accuracy;
pub mod case;
pub mod compare;
pub mod coverage;
pub mod draw;
pub mod emulate;
pub mod models;
pub mod ptx;
pub mod report;
pub mod runner;
pub mod step;
pub mod suite;
