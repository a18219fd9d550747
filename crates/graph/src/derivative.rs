//! Derivatives, graph → graph: reverse (`vjp`), forward (`jvp`), and substitution of one value for another. The result
//! is ordinary graph, so transforms nest to any depth.

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
        let inputs = node.inputs().into_iter().map(|x| new.get(&x.id()).cloned().unwrap_or(x)).collect();
        let copy = match node.op() {
            // An alias keeps nothing but its identity, which the copy must not share.
            Op::Alias => node.inputs().first().and_then(|x| new.get(&x.id())).unwrap_or(node).alias(),
            _ => op::rebuild(node, inputs),
        };
        new.insert(node.id(), copy);
    }
    Ok(outputs.iter().map(|output| new.get(&output.id()).unwrap_or(output).clone()).collect())
}
