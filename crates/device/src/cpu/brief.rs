//! Which programs are so short that handing them to other threads costs more than it saves.

use super::estimate::Costs;
use raphson_compile::program::Program;

/// The longest run, by the estimate, that is brief. Waking a thread and being woken by it costs about as much.
const BRIEF_NS: f64 = 50_000.0;

/// Rather too high: points as loops of the scalar registers have them, which are f64, and elementary functions among them; terms
/// as in products whose matrices are too small to fill the registers.
const HIGH: Costs = Costs { kernel: 200.0, instruction: 0.0, point: 1.0, term: 0.2, indexed: 10.0 };

/// Whether a program's run is brief.
pub fn is_brief(program: &Program) -> bool {
    // Saturating to infinity, which is not brief.
    program.kernels.iter().map(|kernel| HIGH.of(kernel, program)).sum::<f64>() <= BRIEF_NS
}
