//! Tests of the directions and learning-rate rules through the graph, executed by the f64 reference.

mod error_order;
mod golden;
mod guard;
mod json;
mod line;
mod next_trace;
mod program;
mod sampled;
mod settings;
mod training;
