//! The exact rule: h = ωᵀH(θ′)ω, the second derivative along the line by automatic differentiation (jvp of jvp in α).

use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;

/// Loss, slope and curvature at θ′, from one forward pass.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: true, curvature: true, loss_minus: false };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

/// n = −φ′(α), h = φ″(α). Nothing is subtracted, so nothing cancels.
fn estimate(m: &Measured) -> Result<Estimate> {
    let slope = Measured::wanted(&m.slope1, "slope1")?.clone();
    let curvature = Measured::wanted(&m.curvature, "curvature")?.clone();
    Ok(Estimate { slope, curvature, noise: m.alpha.like(0.0) })
}
