//! The post's second alternative without a slope: three losses are all it looks at. Corrected, and as published.

use super::alt2::central_curvature;
use super::{Estimate, Formula, Measured, Needs};
use raphson_graph::error::Result;

/// The losses on both sides of θ.
pub(super) const NEEDS: Needs = Needs { loss1: true, slope1: false, curvature: false, loss_minus: true };

pub(super) static FORMULA: Formula = Formula { needs: NEEDS, estimate };

pub(super) static AS_PUBLISHED: Formula = Formula { needs: NEEDS, estimate: as_published };

/// n ≈ (4L0 − 3L1 − L₋)/(2α): the one-sided difference of second order, at θ′.
fn estimate(m: &Measured) -> Result<Estimate> {
    let (l1, l_minus) = (Measured::wanted(&m.loss1, "loss1")?, Measured::wanted(&m.loss_minus, "lossMinus")?);
    let difference = m.loss0.scale(4.0)?.sub(&l1.scale(3.0)?)?.sub(l_minus)?;
    let slope = difference.div(&m.alpha.scale(2.0)?)?;
    let (curvature, noise) = central_curvature(m)?;
    Ok(Estimate { slope, curvature, noise })
}

/// n ≈ (L₋ − L1)/(2α), as written in the post. Its fault: the central difference is the slope at θ, not at θ′, so the
/// fixed point is not n = 0. On a quadratic with γ = 1 it gives α + α* (α* the best α) and runs away. For the record.
fn as_published(m: &Measured) -> Result<Estimate> {
    let (l1, l_minus) = (Measured::wanted(&m.loss1, "loss1")?, Measured::wanted(&m.loss_minus, "lossMinus")?);
    let slope = l_minus.sub(l1)?.div(&m.alpha.scale(2.0)?)?;
    let (curvature, noise) = central_curvature(m)?;
    Ok(Estimate { slope, curvature, noise })
}
