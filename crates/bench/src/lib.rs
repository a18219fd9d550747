//! Benchmarks of kernels, of compilation and of steps, without Node; they stand in `benches/`. A crate of its own, so that
//! nothing else is built with what the benchmark library needs. What is measured comes from `raphson_check`.
