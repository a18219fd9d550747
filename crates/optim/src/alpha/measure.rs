//! Measuring along the line φ(s) = L(θ − sω): losses, slopes and curvature of the step's own batch. The loss graph is
//! reused with other parameters, so batch and random draws are the same. Only what is asked for is computed.

use super::scalar::loss_scalar;
use raphson_graph::derivative::{along, jvp};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// What a rule wants beside L0 and d.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Needs {
    /// L1 = φ(α): a forward pass.
    pub loss1: bool,
    /// n = −φ′(α): a forward pass with a tangent.
    pub slope1: bool,
    /// h = φ″(α): a forward pass with two tangents.
    pub curvature: bool,
    /// L₋ = φ(−α): a forward pass.
    pub loss_minus: bool,
}

impl Needs {
    /// The names on both sides, in the fields' order.
    pub const NAMES: [&'static str; 4] = ["loss1", "slope1", "curvature", "lossMinus"];

    /// From a list of names.
    pub fn named<S: AsRef<str>>(names: &[S]) -> Result<Needs> {
        let mut needs = Needs::default();
        for name in names {
            match name.as_ref() {
                "loss1" => needs.loss1 = true,
                "slope1" => needs.slope1 = true,
                "curvature" => needs.curvature = true,
                "lossMinus" => needs.loss_minus = true,
                other => {
                    let known = Needs::NAMES.join(", ");
                    return Err(Error::argument("alpha", format!("{other} is not measured; choose from {known}")));
                }
            }
        }
        Ok(needs)
    }

    /// The names of what is wanted.
    pub fn names(self) -> Vec<&'static str> {
        let wanted = [self.loss1, self.slope1, self.curvature, self.loss_minus];
        Needs::NAMES.into_iter().zip(wanted).filter_map(|(name, wanted)| wanted.then_some(name)).collect()
    }
}

/// What was measured; scalars of the dtype of α.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The learning rate that it was measured at.
    pub alpha: Value,
    /// L0 = φ(0)
    pub loss0: Value,
    /// d = −φ′(0) = ⟨∇L(θ), ω⟩
    pub slope0: Value,
    /// L1 = φ(α)
    pub loss1: Option<Value>,
    /// n = −φ′(α)
    pub slope1: Option<Value>,
    /// φ″(α)
    pub curvature: Option<Value>,
    /// L₋ = φ(−α)
    pub loss_minus: Option<Value>,
    /// Relative rounding error of the loss's dtype, or of the scalars' where that is coarser.
    pub(super) epsilon: f64,
}

impl Measured {
    /// What a rule declared among its needs.
    pub(super) fn wanted<'a>(field: &'a Option<Value>, name: &str) -> Result<&'a Value> {
        field.as_ref().ok_or_else(|| Error::internal("alpha", format!("{name} was not among the rule's needs")))
    }

    /// max(|L0|, |L1|) · 16ε: a difference of losses below this is rounding.
    pub(super) fn loss_noise(&self) -> Result<Value> {
        let l1 = Measured::wanted(&self.loss1, "loss1")?;
        self.loss0.abs()?.maximum(&l1.abs()?)?.scale(16.0 * self.epsilon)
    }
}

/// Σ aᵢbᵢ over all elements of all tensors, as a scalar of `dtype`. f32 products are summed along the last axis first (a sum
/// accumulates in f64 and rounds once), and those sums in `dtype`: half the work of converting every element, and the
/// rounding of a few thousand row sums averages out. A device without f64 adds in f32, as a tree of partial sums.
pub fn inner(a: &[Value], b: &[Value], dtype: DType) -> Result<Value> {
    if a.len() != b.len() {
        let message = format!("{} and {} tensors; give as many on both sides", a.len(), b.len());
        return Err(Error::argument("inner", message));
    }
    let mut sum: Option<Value> = None;
    for (a, b) in a.iter().zip(b) {
        let products = a.mul(b)?;
        let rows = match products.shape().rank() {
            0 => products,
            rank => products.sum(&[rank - 1])?,
        };
        let term = rows.cast(dtype)?.sum_all()?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    Ok(sum.unwrap_or_else(|| Value::scalar(0.0, dtype)))
}

/// L0 and d, and what `needs` asks for at θ − αω (α a float scalar, whose dtype the results have). A rule's
/// [`super::finish`] measures at α = state\[0\] · scale; a caller that measures with that very product (in this order) shares its nodes.
pub fn measure(
    needs: Needs,
    loss: &Value,
    params: &[Value],
    gradients: &[Value],
    omega: &[Value],
    alpha: &Value,
) -> Result<Measured> {
    let dtype = alpha.dtype();
    let scalar = if dtype.is_float() { dtype } else { DType::F64 };
    super::check_scalar("alpha", alpha, scalar)?;
    let epsilon = loss.dtype().epsilon().max(scalar.epsilon());
    let mut measured = Measured {
        alpha: alpha.clone(),
        loss0: loss_scalar("measure", loss, dtype)?,
        slope0: inner(gradients, omega, dtype)?,
        loss1: None,
        slope1: None,
        curvature: None,
        loss_minus: None,
        epsilon,
    };
    let at = |s: &Value| -> Result<Value> {
        let there = along(std::slice::from_ref(loss), params, omega, s)?;
        loss_scalar("measure", &there[0], dtype)
    };
    if needs.loss1 || needs.slope1 || needs.curvature {
        // The alias cuts every other use of α off from the derivative: only the line itself is differentiated.
        let s = alpha.alias();
        let one = alpha.like(1.0);
        let derivative = |of: &Value| -> Result<Value> {
            let tangents = jvp(std::slice::from_ref(of), std::slice::from_ref(&s), std::slice::from_ref(&one))?;
            Ok(tangents[0].clone())
        };
        let phi = at(&s)?;
        if needs.slope1 || needs.curvature {
            let first = derivative(&phi)?;
            measured.curvature = if needs.curvature { Some(derivative(&first)?) } else { None };
            measured.slope1 = if needs.slope1 { Some(first.neg()?) } else { None };
        }
        measured.loss1 = if needs.loss1 { Some(phi) } else { None };
    }
    if needs.loss_minus {
        measured.loss_minus = Some(at(&alpha.neg()?)?);
    }
    Ok(measured)
}
