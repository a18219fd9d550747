//! Directions ω (what an optimizer subtracts at learning rate 1) and learning-rate rules (how α in θ′ = θ − αω is
//! found), as functions that add nodes to a graph. No device, no Node.

pub mod alpha;
pub mod direction;
