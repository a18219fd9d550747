//! The post's second alternative: curvature from three losses, beside the slope at θ′.

use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// Loss and slope at θ′, and the loss on the other side of θ.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: true, curvature: false, loss_minus: true };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

fn estimate(m: &Measured) -> Result<Estimate> {
    let slope = Measured::wanted(&m.slope1, "slope1")?.clone();
    let (curvature, noise) = central_curvature(m)?;
    Ok(Estimate { slope, curvature, noise })
}

/// h = (L1 + L₋ − 2L0)/α², and its noise. It is φ″(0) to second order, so −αφ‴ off at θ′.
pub(super) fn central_curvature(m: &Measured) -> Result<(Value, Value)> {
    let (l1, l_minus) = (Measured::wanted(&m.loss1, "loss1")?, Measured::wanted(&m.loss_minus, "lossMinus")?);
    let squared = m.alpha.square()?;
    let difference = l1.add(l_minus)?.sub(&m.loss0.scale(2.0)?)?;
    Ok((difference.div(&squared)?, m.loss_noise()?.div(&squared)?))
}
