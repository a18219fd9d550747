//! Curvature from two losses and two slopes: the second derivative at θ′ of the cubic through them. It is
//! 3·alt1 − 2·retsinas, in which the errors of first order cancel.

use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;

/// Loss and slope at θ′.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: true, curvature: false, loss_minus: false };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

/// h = [6(L0 − L1) − α(2d + 4n)]/α². Error at θ′: −(α²/12)φ⁗.
fn estimate(m: &Measured) -> Result<Estimate> {
    let (l1, n) = (Measured::wanted(&m.loss1, "loss1")?, Measured::wanted(&m.slope1, "slope1")?);
    let squared = m.alpha.square()?;
    let slopes = m.slope0.scale(2.0)?.add(&n.scale(4.0)?)?.mul(&m.alpha)?;
    let curvature = m.loss0.sub(l1)?.scale(6.0)?.sub(&slopes)?.div(&squared)?;
    let noise = m.loss_noise()?.scale(6.0)?.div(&squared)?;
    Ok(Estimate { slope: n.clone(), curvature, noise })
}
