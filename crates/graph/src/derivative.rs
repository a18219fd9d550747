//! Derivatives, graph → graph: reverse (`vjp`), forward (`jvp`), and substitution of one value for another, or of
//! points on a line (`along`). The result is ordinary graph, so transforms nest to any depth.

use crate::error::{Code, Error, Result};
use crate::op::{self, Op};
use crate::value::{Value, topological_order};
use std::collections::{HashMap, HashSet};

fn check_like(op: &str, what: &str, of: &[Value], given: &[Value]) -> Result<()> {
    if of.len() != given.len() {
        return Err(Error::argument(op, format!("{} {what}s for {} values; give one each", given.len(), of.len())));
    }
    for (value, given) in of.iter().zip(given) {
        if value.shape() != given.shape() || value.dtype() != given.dtype() {
            let message = format!(
                "a {what} is {} {}, its value {} {}; they must agree",
                given.dtype(),
                given.shape(),
                value.dtype(),
                value.shape()
            );
            return Err(Error::new(Code::Shape, op, message).with_shapes([given.shape(), value.shape()]));
        }
    }
    Ok(())
}

fn check_float(op: &str, inputs: &[Value]) -> Result<()> {
    match inputs.iter().find(|input| !input.dtype().is_float()) {
        None => Ok(()),
        Some(input) => {
            let message = format!("{} has no derivative; differentiate by a float tensor", input.dtype());
            Err(Error::new(Code::Derivative, op, message).with_dtypes([input.dtype()]))
        }
    }
}

/// Nodes between `roots` and the end of `order` that depend on one of the roots (roots included).
fn dependents(order: &[Value], roots: &[Value]) -> HashSet<u64> {
    let mut reached: HashSet<u64> = roots.iter().map(Value::id).collect();
    for node in order {
        if !reached.contains(&node.id()) && node.inputs().iter().any(|input| reached.contains(&input.id())) {
            reached.insert(node.id());
        }
    }
    reached
}

/// x̄ = Jᵀȳ: cotangents of `inputs` given those of `outputs`. Zeros where an output does not depend on an input. The
/// inputs count as independent: where one was computed from another, no derivative passes between them.
pub fn vjp(outputs: &[Value], inputs: &[Value], cotangents: &[Value]) -> Result<Vec<Value>> {
    check_like("vjp", "cotangent", outputs, cotangents)?;
    check_float("vjp", inputs)?;
    let order = topological_order(outputs, true);
    let reached = dependents(&order, inputs);
    let targets: HashSet<u64> = inputs.iter().map(Value::id).collect();
    let mut sums: HashMap<u64, Value> = HashMap::new();
    let add = |sums: &mut HashMap<u64, Value>, to: &Value, term: &Value| -> Result<()> {
        let sum = match sums.get(&to.id()) {
            Some(sum) => sum.add(term)?,
            None => term.clone(),
        };
        sums.insert(to.id(), sum);
        Ok(())
    };
    for (output, cotangent) in outputs.iter().zip(cotangents) {
        if output.dtype().is_float() {
            add(&mut sums, output, cotangent)?;
        }
    }
    for node in order.iter().rev().filter(|node| reached.contains(&node.id())) {
        let Some(cotangent) = sums.get(&node.id()).cloned() else { continue };
        // Inputs are independent of each other, even where one was computed from another.
        if targets.contains(&node.id()) {
            continue;
        }
        sums.remove(&node.id());
        let x = node.inputs();
        let wanted: Vec<bool> = x.iter().map(|x| x.dtype().is_float() && reached.contains(&x.id())).collect();
        if !wanted.contains(&true) {
            continue;
        }
        for ((x, wanted), term) in x.iter().zip(&wanted).zip(op::vjp(node, &x, &cotangent, &wanted)?) {
            if let (true, Some(term)) = (wanted, term) {
                add(&mut sums, x, &term)?;
            }
        }
    }
    Ok(inputs.iter().map(|input| sums.get(&input.id()).cloned().unwrap_or_else(|| input.like(0.0))).collect())
}

/// y′ = Jx′: tangents of `outputs` given those of `inputs`, the transpose of [`vjp`]. Zeros where an output does not
/// depend on an input.
pub fn jvp(outputs: &[Value], inputs: &[Value], tangents: &[Value]) -> Result<Vec<Value>> {
    check_like("jvp", "tangent", inputs, tangents)?;
    check_float("jvp", inputs)?;
    let order = topological_order(outputs, true);
    let mut known: HashMap<u64, Value> =
        inputs.iter().zip(tangents).map(|(input, tangent)| (input.id(), tangent.clone())).collect();
    let targets: HashSet<u64> = inputs.iter().map(Value::id).collect();
    for node in order.iter().filter(|node| !targets.contains(&node.id())) {
        let x = node.inputs();
        let tangents: Vec<Option<Value>> = x.iter().map(|x| known.get(&x.id()).cloned()).collect();
        if let Some(tangent) = op::jvp(node, &x, &tangents)? {
            known.insert(node.id(), tangent);
        }
    }
    Ok(outputs.iter().map(|output| known.get(&output.id()).cloned().unwrap_or_else(|| output.like(0.0))).collect())
}

/// `outputs` at inputs − s·directions, for an f64 scalar `s`: what [`substitute`] gives for these points, with fewer
/// matrix products. A product that depends on the inputs affinely is known all along the line from its value at s = 0,
/// which the caller's graph has, and its tangent, which every derivative by s and every further point share:
///
///   x·(θ − sω) = x·θ − s(x·ω)
///
/// Rounding: both sides err by rounding units of |x|·|θ| + |s||x|·|ω|, the left one because s·ω and θ − sω are rounded
/// before the product, the right one because the products are. The right one's error in x·θ is the very error that the
/// product has at s = 0, so it cancels in differences along the line, and no s is too small to be seen through the
/// rounding of θ. Where θ − sω almost vanishes everywhere, the left side is better, by the factor that long sums lose
/// over one rounding. Where x·ω overflows, so does the right side, whatever s is; so do all derivatives on both.
pub fn along(outputs: &[Value], inputs: &[Value], directions: &[Value], s: &Value) -> Result<Vec<Value>> {
    check_like("along", "direction", inputs, directions)?;
    check_float("along", inputs)?;
    let point = |at_zero: &Value, tangent: &Value| at_zero.sub(&tangent.mul(&s.cast(tangent.dtype())?)?);
    let order = topological_order(outputs, true);
    let reached = dependents(&order, inputs);
    let mut new: HashMap<u64, Value> = HashMap::new();
    // Tangents of what is affine in the inputs.
    let mut tangents: HashMap<u64, Value> = HashMap::new();
    for (input, direction) in inputs.iter().zip(directions) {
        new.insert(input.id(), point(input, direction)?);
        tangents.insert(input.id(), direction.clone());
    }
    for node in order.iter().filter(|node| reached.contains(&node.id())) {
        if new.contains_key(&node.id()) {
            continue;
        }
        let x = node.inputs();
        let moves: Vec<bool> = x.iter().map(|x| reached.contains(&x.id())).collect();
        let of_inputs: Vec<Option<Value>> = x.iter().map(|x| tangents.get(&x.id()).cloned()).collect();
        let affine = op::is_affine(node, &moves) && of_inputs.iter().map(Option::is_some).eq(moves.iter().copied());
        let tangent = if affine { op::jvp(node, &x, &of_inputs)? } else { None };
        let moved = match (node.op(), &tangent) {
            (Op::Dot | Op::Conv { .. }, Some(tangent)) => point(node, tangent)?,
            _ => replaced(node, &new),
        };
        tangent.and_then(|tangent| tangents.insert(node.id(), tangent));
        new.insert(node.id(), moved);
    }
    Ok(outputs.iter().map(|output| new.get(&output.id()).unwrap_or(output).clone()).collect())
}

/// The same op on the new operands.
fn replaced(node: &Value, new: &HashMap<u64, Value>) -> Value {
    let inputs: Vec<Value> = node.inputs().into_iter().map(|x| new.get(&x.id()).cloned().unwrap_or(x)).collect();
    match (node.op(), inputs.first()) {
        // An alias keeps nothing but its identity, which the copy must not share.
        (Op::Alias, Some(x)) => x.alias(),
        _ => op::rebuild(node, inputs),
    }
}

/// The same graph with each of `from` replaced by the value of `to` at its position.
pub fn substitute(outputs: &[Value], from: &[Value], to: &[Value]) -> Result<Vec<Value>> {
    check_like("substitute", "replacement", from, to)?;
    let order = topological_order(outputs, true);
    let reached = dependents(&order, from);
    let mut new: HashMap<u64, Value> = from.iter().zip(to).map(|(from, to)| (from.id(), to.clone())).collect();
    for node in order.iter().filter(|node| reached.contains(&node.id())) {
        if new.contains_key(&node.id()) {
            continue;
        }
        new.insert(node.id(), replaced(node, &new));
    }
    Ok(outputs.iter().map(|output| new.get(&output.id()).unwrap_or(output).clone()).collect())
}
