//! Attention and its reverse by the kernels of the GPU devices, against the reference: ragged sizes, every layout, nothing of
//! something; what a program of it needs in memory; and a GPT that trains as on the cpu.

mod cuda;
mod examples;
mod memory;
mod training;
mod wgpu;
