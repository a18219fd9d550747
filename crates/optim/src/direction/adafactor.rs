//! Adafactor (Shazeer and Stern 2018), as torch.optim.Adafactor: the mean square of a matrix (or of the last two axes of
//! more) is kept as the product of its rows' and columns' means, so the state is small. State: the step count t, then
//! for each parameter of two axes or more the rows' and the columns' means, for any other the mean square itself.
//!
//! The learning rate α takes the place of the paper's relative step ρₜ = min(.01, 1/√t), which a schedule can give.

use super::decay::{add_decay, decoupled};
use super::slots::{root_mean_square, split};
use super::{Applied, Direction, NOT_NEGATIVE, OptionSpec, Options, POSITIVE, Range, check_float, check_like};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// β = 1 − t^beta2Decay, R ← βR + (1 − β) mean of g² along rows, C the same along columns, V = RC/max(mean R, ε₁)
/// (V ← βV + (1 − β)g² without factors), u = g/max(√V, ε₁), û = u/max(1, RMS(u)/d),
/// ω = max(ε₂, RMS(θ)) · û + weightDecay · θ
pub struct Adafactor;

static NOT_POSITIVE: Range = Range { sentence: "zero or a negative number", holds: |x| x <= 0.0 && x.is_finite() };

const BETA2_DECAY: OptionSpec = OptionSpec {
    name: "beta2Decay",
    default: -0.8,
    range: &NOT_POSITIVE,
    doc: "A new square's weight at step t is t^beta2Decay.",
};
const EPSILON1: OptionSpec = OptionSpec {
    name: "epsilon1",
    default: 0.0,
    range: &NOT_NEGATIVE,
    doc: "Smallest root that is divided by; 0 stands for the rounding unit of the parameter's dtype.",
};
const EPSILON2: OptionSpec = OptionSpec {
    name: "epsilon2",
    default: 1e-3,
    range: &POSITIVE,
    doc: "Smallest size that a parameter counts as having.",
};
const CLIP: OptionSpec = OptionSpec {
    name: "clipThreshold",
    default: 1.0,
    range: &POSITIVE,
    doc: "Largest root mean square of a tensor's direction before it is scaled by the parameter's size.",
};

impl Direction for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA2_DECAY, EPSILON1, EPSILON2, CLIP, decoupled(0.0)] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        check_float(self.name(), params)?;
        let count = Value::scalar(0.0, options.scalar);
        let means = params.iter().flat_map(|param| {
            forms(param.shape()).into_iter().map(|shape| Value::constant(0.0, param.dtype(), &shape))
        });
        Ok(std::iter::once(count).chain(means).collect())
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        let tensors = params.iter().map(|param| forms(param.shape()).len()).sum();
        let (scalars, mut rest) = split(self.name(), state, 1, tensors, params.len())?;
        let t = scalars[0].shift(1.0)?;
        let weight = t.pow(&t.like(options.get("beta2Decay")?))?;
        let (mut omega, mut after) = (Vec::new(), vec![t]);
        for (param, g) in params.iter().zip(gradients) {
            let shapes = forms(param.shape());
            let (own, others) = rest.split_at(shapes.len());
            rest = others;
            own.iter().zip(&shapes).try_for_each(|(mean, shape)| check_mean(mean, shape, param))?;
            let means = means(own, g, &weight.cast(g.dtype())?)?;
            omega.push(scaled(options, param, g, &means)?);
            after.extend(means);
        }
        Ok(Applied { omega: add_decay(options, params, &omega)?, state: after })
    }
}

/// The shapes of a parameter's means: rows […, n, 1] and columns […, 1, m], or the parameter's own.
fn forms(shape: &Shape) -> Vec<Shape> {
    let rank = shape.rank();
    if rank < 2 {
        return vec![shape.clone()];
    }
    let with_one = |axis: usize| {
        let mut sizes = shape.to_vec();
        sizes[axis] = 1;
        Shape::from(&sizes[..])
    };
    vec![with_one(rank - 1), with_one(rank - 2)]
}

fn check_mean(mean: &Value, shape: &Shape, param: &Value) -> Result<()> {
    if mean.shape() == shape && mean.dtype() == param.dtype() {
        return Ok(());
    }
    let message = format!(
        "a state tensor is {} {} where the parameter {} asks for {} {shape}",
        mean.dtype(),
        mean.shape(),
        param.shape(),
        param.dtype()
    );
    Err(Error::new(Code::Shape, "adafactor", message).with_shapes([mean.shape(), shape]))
}

/// mean ← mean + weight · (mean of g² along its axis − mean)
fn means(old: &[Value], g: &Value, weight: &Value) -> Result<Vec<Value>> {
    let squares = g.square()?;
    let one = |mean: &Value| {
        let axes: Vec<usize> = (0..g.shape().rank()).filter(|&axis| mean.shape()[axis] != g.shape()[axis]).collect();
        let count: usize = axes.iter().map(|&axis| g.shape()[axis]).product();
        let now = squares.sum(&axes)?.reshape(mean.shape())?.scale(1.0 / count.max(1) as f64)?;
        mean.add(&now.sub(mean)?.mul(weight)?)
    };
    old.iter().map(one).collect()
}

/// max(ε₂, RMS(θ)) · û
fn scaled(options: &Options, param: &Value, g: &Value, means: &[Value]) -> Result<Value> {
    let rounding = if g.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let epsilon1 = Some(options.get("epsilon1")?).filter(|given| *given > 0.0).unwrap_or(rounding);
    let square = match means {
        [rows, columns] => {
            let axis = g.shape().rank() - 2;
            let of_rows = rows.sum(&[axis])?.scale(1.0 / g.shape()[axis].max(1) as f64)?;
            let of_rows = of_rows.maximum(&of_rows.like(epsilon1))?.expand_reduced(&[axis], rows.shape())?;
            rows.div(&of_rows)?.mul(columns)?
        }
        _ => means[0].clone(),
    };
    // √max(V, ε₁²) = max(√V, ε₁), without the square that f32 could not hold
    let root = square.sqrt()?;
    let u = g.div(&root.maximum(&root.like(epsilon1))?)?;
    let excess = root_mean_square(options, &u)?.scale(1.0 / options.get("clipThreshold")?)?;
    let size = root_mean_square(options, param)?;
    let size = size.maximum(&size.like(options.get("epsilon2")?))?.div(&excess.maximum(&excess.like(1.0))?)?;
    u.mul(&size.cast(u.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Tensor, follow_tensors};

    fn rms(x: &[f64]) -> f64 {
        (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
    }

    /// One matrix of 2 × 2 and one vector of 3.
    fn by_hand(tensor: &mut Tensor, t: i32) -> Vec<f64> {
        let (theta, g) = (&tensor.theta, &tensor.gradient);
        let weight = f64::from(t).powf(-0.5);
        let squares: Vec<f64> = g.iter().map(|g| g * g).collect();
        let learn = |old: &mut f64, new: f64| *old += weight * (new - *old);
        let slots = &mut tensor.slots;
        let v: Vec<f64> = if g.len() == 4 {
            let (rows, columns) = slots.split_at_mut(1);
            for i in 0..2 {
                learn(&mut rows[0][i], (squares[2 * i] + squares[2 * i + 1]) / 2.0);
                learn(&mut columns[0][i], (squares[i] + squares[2 + i]) / 2.0);
            }
            let mean = (rows[0][0] + rows[0][1]) / 2.0;
            (0..4).map(|i| rows[0][i / 2] * columns[0][i % 2] / mean).collect()
        } else {
            (0..3).for_each(|i| learn(&mut slots[0][i], squares[i]));
            slots[0].clone()
        };
        let u: Vec<f64> = g.iter().zip(&v).map(|(g, v)| g / v.sqrt()).collect();
        let factor = rms(theta).max(1e-3) / (rms(&u) / 0.5).max(1.0);
        u.iter().zip(theta).map(|(u, theta)| factor * u + 0.1 * theta).collect()
    }

    #[test]
    fn follows_the_plain_loop() {
        let given = [("beta2Decay", -0.5), ("clipThreshold", 0.5), ("weightDecay", 0.1)];
        follow_tensors(&super::Adafactor, &given, 2, by_hand);
    }

    #[test]
    fn the_state_of_a_matrix_is_its_rows_and_columns() {
        use super::super::{Direction, Options};
        use raphson_graph::{dtype::DType, shape::Shape, value::Value};
        let options = Options::new(&super::Adafactor, &[]).unwrap();
        let params = [Value::input(Shape::from([3, 50, 20]), DType::F32), Value::input(Shape::from([7]), DType::F32)];
        let state = super::Adafactor.init(&options, &params).unwrap();
        let shapes: Vec<&[usize]> = state.iter().map(|s| &s.shape()[..]).collect();
        assert_eq!(shapes, [&[][..], &[3, 50, 1], &[3, 1, 20], &[7]]);
    }
}
