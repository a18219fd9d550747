//! The post's first alternative ("Newton-like method for learning rate selection", dscamiss 2025): curvature from two
//! losses and the slope at θ′.

use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;

/// Loss and slope at θ′.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: true, curvature: false, loss_minus: false };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

/// h = 2(L0 − L1 − αn)/α². Error at θ′: −(α/3)φ‴. The bracket is a difference of losses: it cancels at small α.
fn estimate(m: &Measured) -> Result<Estimate> {
    let (l1, n) = (Measured::wanted(&m.loss1, "loss1")?, Measured::wanted(&m.slope1, "slope1")?);
    let squared = m.alpha.square()?;
    let bracket = m.loss0.sub(l1)?.sub(&m.alpha.mul(n)?)?;
    let curvature = bracket.scale(2.0)?.div(&squared)?;
    let noise = m.loss_noise()?.scale(2.0)?.div(&squared)?;
    Ok(Estimate { slope: n.clone(), curvature, noise })
}
