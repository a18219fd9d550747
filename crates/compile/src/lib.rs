//! Fusion, ordering and memory planning: a graph becomes a flat list of kernels over planned buffers.

pub mod program;
