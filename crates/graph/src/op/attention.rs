//! Attention, softmax(scale · q·kᵀ)·v, and its reverse derivative, as two ops that carry their expansion into others. A
//! device may compute them in tiles without ever storing the matrix of scores (Dao et al. 2022, "FlashAttention"; Dao 2023);
//! where it does not, and in the reference, the expansion stands in. Each op has one result, so what belongs together is
//! packed: the forward op gives [batch…, queries·values + queries], for every batch entry the output and behind it the logarithm of
//! each query's sum; the reverse op gives [batch…, queries·width + keys·width + keys·values], the cotangents of q, k and v.
//!
//! With s = scale · q·kᵀ (where a key is hidden: nothing), λ = log Σ exp s and p = exp(s − λ), all derivatives are written by
//! p, and p by λ: out = p·v; a query that sees no key has p = 0, out = 0, λ = 0.

use super::{Op, rebuild};
use crate::derivative;
use crate::dtype::{DType, Scalar};
use crate::error::{Code, Error, Result};
use crate::op::reduce::ReduceOp;
use crate::shape::{MAX_ELEMENTS, Shape};
use crate::value::Value;

/// What stands for −∞ in scores of hidden keys, so that differences stay numbers: far below every score, and exp of its
/// distance to one is 0.
const HIDDEN: f64 = -1e30;
/// A query whose greatest score is below sees no key.
const SEES_NONE: f64 = -1e29;

/// What both ops are told beside their operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Whether the last query sees all keys, and each one before it one key fewer.
    pub causal: bool,
    /// Factor of the products.
    pub scale: Scalar,
}

/// The sizes of an attention: batch…, queries, keys, width (of queries and keys), values (the width of those).
#[derive(Clone, Debug)]
pub struct Sizes {
    pub batch: Vec<usize>,
    pub queries: usize,
    pub keys: usize,
    pub width: usize,
    pub values: usize,
}

impl Sizes {
    /// From the shapes of q, k and v.
    pub fn new(q: &[usize], k: &[usize], v: &[usize]) -> Sizes {
        let rank = q.len();
        let batch = q[..rank - 2].to_vec();
        Sizes { batch, queries: q[rank - 2], keys: k[rank - 2], width: q[rank - 1], values: v[rank - 1] }
    }

    fn of(x: &[Value]) -> Sizes {
        Sizes::new(x[0].shape(), x[1].shape(), x[2].shape())
    }

    /// The shape with the batch's axes in front.
    fn with(&self, rest: &[usize]) -> Result<Shape> {
        Shape::new("attention", [&self.batch[..], rest].concat())
    }
}

impl Value {
    /// softmax(scale · self·keyᵀ) · values over the last two axes: [b…, queries, width], [b…, keys, width] and
    /// [b…, keys, any] make [b…, queries, any]; leading axes broadcast. The mask, [b…, queries, keys] or broadcast to it, is
    /// true where a query sees a key. A query that sees none gets zeros. Halves are computed in f32.
    pub fn attention(&self, key: &Value, value: &Value, mask: Option<&Value>, options: Attention) -> Result<Value> {
        let sizes = check(self, key, value, mask)?;
        if self.dtype().is_storage() {
            let wide = |x: &Value| x.cast(self.dtype().register());
            return wide(self)?.attention(&wide(key)?, &wide(value)?, mask, options)?.cast(self.dtype());
        }
        let mut inputs = vec![
            self.expand(&sizes.with(&[sizes.queries, sizes.width])?)?,
            key.expand(&sizes.with(&[sizes.keys, sizes.width])?)?,
            value.expand(&sizes.with(&[sizes.keys, sizes.values])?)?,
        ];
        if let Some(mask) = mask {
            inputs.push(mask.expand(&sizes.with(&[sizes.queries, sizes.keys])?)?);
        }
        let shape = sizes.with(&[sizes.queries * sizes.values + sizes.queries])?;
        let packed = Value::node(Op::Attention(options), inputs, shape, self.dtype());
        unpack_forward(&packed, &sizes).map(|(out, _)| out)
    }
}

fn check(q: &Value, k: &Value, v: &Value, mask: Option<&Value>) -> Result<Sizes> {
    let shapes = || [q, k, v].into_iter().chain(mask).map(Value::shape);
    let refuse = |code: Code, message: String| {
        let dtypes = [q, k, v].into_iter().chain(mask).map(Value::dtype);
        Err(Error::new(code, "attention", message).with_shapes(shapes()).with_dtypes(dtypes))
    };
    if !q.dtype().is_float() || k.dtype() != q.dtype() || v.dtype() != q.dtype() {
        let (q, k, v) = (q.dtype(), k.dtype(), v.dtype());
        return refuse(Code::DType, format!("queries, keys, values of {q} · {k} · {v}; cast them to one float dtype"));
    }
    if mask.is_some_and(|mask| mask.dtype() != DType::Bool) {
        return refuse(Code::DType, "the mask must be bool: true where a query sees a key; cast it".into());
    }
    let all = shapes().map(Shape::to_string).collect::<Vec<_>>().join(" · ");
    if shapes().any(|shape| shape.rank() < 2) {
        return refuse(Code::Shape, format!("needs two axes or more each: {all}; put batch axes in front"));
    }
    let last = |value: &Value| {
        let shape = value.shape();
        (shape[shape.rank() - 2], shape[shape.rank() - 1])
    };
    let ((queries, width), (keys, key_width), (value_keys, values)) = (last(q), last(k), last(v));
    if width != key_width || keys != value_keys {
        return refuse(
            Code::Shape,
            format!("{all} do not fit; need [b…, queries, width] · [b…, keys, width] · [b…, keys, any]"),
        );
    }
    let mut batch = Shape::scalar();
    for value in [q, k, v].into_iter().chain(mask) {
        let shape = value.shape();
        batch = Shape::broadcast("attention", &batch, &shape[..shape.rank() - 2].into())?;
    }
    if let Some(mask) = mask {
        let seen = Shape::from([queries, keys]);
        let last: Shape = mask.shape()[mask.shape().rank() - 2..].into();
        if Shape::broadcast("attention", &last, &seen)? != seen {
            return refuse(Code::Shape, format!("the mask {} must broadcast to […, {queries}, {keys}]", mask.shape()));
        }
    }
    let total = |rows: usize, columns: usize| batch.elements().saturating_mul(rows).saturating_mul(columns);
    if total(queries, keys) > MAX_ELEMENTS {
        return refuse(Code::Shape, format!("{all} have more than 2^40 scores; use smaller sizes"));
    }
    Ok(Sizes { batch: batch.to_vec(), queries, keys, width, values })
}

/// Parts of a packed value, [batch…, Σ rows·columns], as [batch…, rows, columns] each.
fn unpack(packed: &Value, sizes: &Sizes, parts: &[(usize, usize)]) -> Result<Vec<Value>> {
    let rank = packed.shape().rank();
    let (mut start, mut stop, step) = (vec![0; rank], packed.shape().to_vec(), vec![1; rank]);
    let mut part = |&(rows, columns): &(usize, usize)| {
        stop[rank - 1] = start[rank - 1] + rows * columns;
        let part = packed.slice(&start, &stop, &step)?.reshape(&sizes.with(&[rows, columns])?);
        start[rank - 1] = stop[rank - 1];
        part
    };
    parts.iter().map(&mut part).collect()
}

/// The reverse of [`unpack`].
fn pack(sizes: &Sizes, parts: &[Value]) -> Result<Value> {
    let flat = |part: &Value| {
        let elements = part.shape()[sizes.batch.len()..].iter().product();
        part.reshape(&sizes.with(&[elements])?)
    };
    Value::concatenate(&parts.iter().map(flat).collect::<Result<Vec<_>>>()?, sizes.batch.len())
}

/// out, [batch…, queries, values], and λ, [batch…, queries, 1].
fn unpack_forward(packed: &Value, sizes: &Sizes) -> Result<(Value, Value)> {
    let mut parts = unpack(packed, sizes, &[(sizes.queries, sizes.values), (sizes.queries, 1)])?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(out), Some(log_sums)) => Ok((out, log_sums)),
        _ => Err(Error::internal("attention", "a packed result without its two parts")),
    }
}

fn columns(sizes: &Sizes) -> usize {
    sizes.batch.len() + 1
}

/// Sum along the last axis, kept with size 1.
fn row_sum(value: &Value, sizes: &Sizes) -> Result<Value> {
    value.sum(&[columns(sizes)])?.reshape(&sizes.with(&[sizes.queries, 1])?)
}

/// Where queries see keys, [batch…, queries, keys], if not everywhere.
fn visible(options: Attention, sizes: &Sizes, mask: Option<&Value>) -> Result<Option<Value>> {
    if !options.causal {
        return Ok(mask.cloned());
    }
    // Key j is seen by query i where j + queries ≤ i + keys.
    let space = Shape::from([sizes.queries, sizes.keys]);
    let at = |axis: usize, shift: usize| Value::iota(&space, DType::I32, axis)?.shift(shift as f64);
    let causal = at(1, sizes.queries)?.less_equal(&at(0, sizes.keys)?)?;
    let causal = causal.expand(&sizes.with(&[sizes.queries, sizes.keys])?)?;
    match mask {
        Some(mask) => causal.and(mask).map(Some),
        None => Ok(Some(causal)),
    }
}

/// s = scale · q·kᵀ, [`HIDDEN`] where a key is hidden. The scale goes to the queries: fewer numbers than the scores.
fn scores(options: Attention, sizes: &Sizes, q: &Value, k: &Value, mask: Option<&Value>) -> Result<Value> {
    let scores = q.scale(options.scale.to_f64())?.dot(&k.transpose()?)?;
    match visible(options, sizes, mask)? {
        Some(visible) => visible.select(&scores, &scores.like(HIDDEN)),
        None => Ok(scores),
    }
}

/// The forward op by other ops. No derivative passes through the maximum, whose terms cancel exactly.
fn expand_forward(options: Attention, x: &[Value]) -> Result<Value> {
    let sizes = Sizes::of(x);
    let scores = scores(options, &sizes, &x[0], &x[1], x.get(3))?;
    let rows = sizes.with(&[sizes.queries, 1])?;
    let most = scores.reduce(ReduceOp::Max, &[columns(&sizes)])?.reshape(&rows)?.stop_gradient();
    let log_sums = most.add(&row_sum(&scores.sub(&most)?.exp()?, &sizes)?.log()?)?;
    let log_sums = most.greater(&most.like(SEES_NONE))?.select(&log_sums, &most.like(0.0))?;
    let out = scores.sub(&log_sums)?.exp()?.dot(&x[2])?;
    pack(&sizes, &[out, log_sums])
}

/// The reverse op by other ops: with the cotangent ō and δ = Σ ō·out − λ̄ of each query,
/// v̄ = pᵀ·ō, s̄ = p·(ō·vᵀ − δ), q̄ = scale · s̄·k, k̄ = scale · s̄ᵀ·q.
fn expand_reverse(options: Attention, x: &[Value]) -> Result<Value> {
    let sizes = Sizes::of(x);
    let [q, k, v, log_sums, delta, cotangent] = [0, 1, 2, 3, 4, 5].map(|i: usize| &x[i]);
    let p = scores(options, &sizes, q, k, x.get(6))?.sub(log_sums)?.exp()?;
    let score_bar = p.mul(&cotangent.dot(&v.transpose()?)?.sub(delta)?)?;
    let scale = options.scale.to_f64();
    let q_bar = score_bar.dot(k)?.scale(scale)?;
    let k_bar = score_bar.transpose()?.dot(&q.scale(scale)?)?;
    let v_bar = p.transpose()?.dot(cotangent)?;
    pack(&sizes, &[q_bar, k_bar, v_bar])
}

/// What the op is made of, on these operands; `None` for every other op.
pub(crate) fn expand(op: &Op, x: &[Value]) -> Option<Result<Value>> {
    match op {
        Op::Attention(options) => Some(expand_forward(*options, x)),
        Op::AttentionVjp(options) => Some(expand_reverse(*options, x)),
        _ => None,
    }
}

/// With s′ = scale · (q′·kᵀ + q·k′ᵀ): λ′ = Σ p·s′ of each query, out′ = (p·s′)·v + p·v′ − λ′·out.
pub(super) fn jvp(options: Attention, y: &Value, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let sizes = Sizes::of(x);
    let (out, log_sums) = unpack_forward(y, &sizes)?;
    let scale = options.scale.to_f64();
    let [q, k, v] = [&x[0], &x[1], &x[2]];
    let p = scores(options, &sizes, q, k, x.get(3))?.sub(&log_sums)?.exp()?;
    let by_query = tangents[0].as_ref().map(|q| q.scale(scale)?.dot(&k.transpose()?)).transpose()?;
    let by_key = tangents[1].as_ref().map(|k| q.scale(scale)?.dot(&k.transpose()?)).transpose()?;
    let by_value = tangents[2].as_ref().map(|v| p.dot(v)).transpose()?;
    let Some(weighted) = sum(by_query, by_key)?.map(|tangent| p.mul(&tangent)).transpose()? else {
        return by_value.map(|out| pack(&sizes, &[out, log_sums.like(0.0)])).transpose();
    };
    let log_sums_dot = row_sum(&weighted, &sizes)?;
    let by_scores = weighted.dot(v)?.sub(&log_sums_dot.mul(&out)?)?;
    let Some(out_dot) = sum(Some(by_scores), by_value)? else { return Ok(None) };
    pack(&sizes, &[out_dot, log_sums_dot]).map(Some)
}

fn sum(one: Option<Value>, other: Option<Value>) -> Result<Option<Value>> {
    match (one, other) {
        (Some(one), Some(other)) => one.add(&other).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

/// The reverse op on the saved λ, see [`expand_reverse`].
pub(super) fn vjp(
    options: Attention,
    y: &Value,
    x: &[Value],
    cotangent: &Value,
    wanted: &[bool],
) -> Result<Vec<Option<Value>>> {
    let sizes = Sizes::of(x);
    let (out, log_sums) = unpack_forward(y, &sizes)?;
    let (out_bar, log_sums_bar) = unpack_forward(cotangent, &sizes)?;
    let delta = row_sum(&out_bar.mul(&out)?, &sizes)?.sub(&log_sums_bar)?;
    let mut inputs = vec![x[0].clone(), x[1].clone(), x[2].clone(), log_sums, delta, out_bar];
    inputs.extend(x.get(3).cloned());
    let Sizes { queries, keys, width, values, .. } = sizes;
    let shape = sizes.with(&[queries * width + keys * width + keys * values])?;
    let packed = Value::node(Op::AttentionVjp(options), inputs, shape, y.dtype());
    let parts = unpack(&packed, &sizes, &[(queries, width), (keys, width), (keys, values)])?;
    let mut cotangents: Vec<Option<Value>> =
        parts.into_iter().zip(wanted).map(|(part, &wanted)| wanted.then_some(part)).collect();
    cotangents.resize(x.len(), None);
    Ok(cotangents)
}

/// The reverse op's tangent, through its expansion on aliases of its operands.
pub(super) fn reverse_jvp(y: &Value, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let (aliases, expansion) = expanded(y, x)?;
    let moved = aliases.iter().zip(tangents);
    let (inputs, tangents): (Vec<Value>, Vec<Value>) =
        moved.filter_map(|(alias, tangent)| Some((alias.clone(), tangent.clone()?))).unzip();
    Ok(derivative::jvp(&[expansion], &inputs, &tangents)?.pop())
}

/// The reverse op's cotangents, through its expansion on aliases of its operands.
pub(super) fn reverse_vjp(y: &Value, x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    let (aliases, expansion) = expanded(y, x)?;
    let inputs: Vec<Value> =
        aliases.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(x, _)| x.clone()).collect();
    let mut found = derivative::vjp(&[expansion], &inputs, std::slice::from_ref(cotangent))?.into_iter();
    Ok(wanted.iter().map(|&wanted| if wanted { found.next() } else { None }).collect())
}

fn expanded(y: &Value, x: &[Value]) -> Result<(Vec<Value>, Value)> {
    let aliases: Vec<Value> = x.iter().map(Value::alias).collect();
    let expansion = expand(y.op(), &aliases).unwrap_or_else(|| Ok(rebuild(y, aliases.clone())))?;
    Ok((aliases, expansion))
}
