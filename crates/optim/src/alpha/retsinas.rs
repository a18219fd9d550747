//! The rule of Retsinas, Sfikas, Filntisis and Maragos, "Newton-Based Trainable Learning Rate", ICASSP 2023, eq. (8):
//! the secant step on φ′, and Barzilai–Borwein for plain gradient descent at γ = 1.

use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;

/// The slope at θ′; the loss there is for the guard.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: true, curvature: false, loss_minus: false };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

/// h = (d − n)/α, so that α′ = α(1 + γ n/(d − n)). Error at θ′: −(α/2)φ‴. The two slopes come from different passes
/// (backward, forward), so each rounds by itself: noise 4ε(|d| + |n|)/α.
fn estimate(m: &Measured) -> Result<Estimate> {
    let n = Measured::wanted(&m.slope1, "slope1")?;
    let curvature = m.slope0.sub(n)?.div(&m.alpha)?;
    let noise = m.slope0.abs()?.add(&n.abs()?)?.scale(4.0 * m.epsilon)?.div(&m.alpha)?;
    Ok(Estimate { slope: n.clone(), curvature, noise })
}
