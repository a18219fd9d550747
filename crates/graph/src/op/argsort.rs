//! The order of the elements along an axis. Sorting, the greatest k and random orders are gathers by it, and have their
//! derivatives from there.

use super::Op;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::value::Value;
use std::cmp::Ordering;

impl Value {
    /// The positions (i32) along `axis` in the order of their elements: stable, from the least (or, `descending`, from the
    /// greatest), NaN last either way; −0 equals 0. The op itself works along the last axis, to which `axis` is moved.
    pub fn argsort(&self, axis: usize, descending: bool) -> Result<Value> {
        let rank = self.shape().rank();
        if axis >= rank {
            let message = format!("axis {axis} of shape {}; give an axis below the rank", self.shape());
            return Err(Error::argument("argsort", message).with_shapes([self.shape()]));
        }
        if self.shape()[axis] > i32::MAX as usize {
            let message = format!("axis {axis} of {} is longer than i32 positions count", self.shape());
            return Err(Error::argument("argsort", message).with_shapes([self.shape()]));
        }
        // Exchanging two axes is its own inverse.
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(axis, rank - 1);
        let moved = self.permute(&order)?;
        let shape = moved.shape().clone();
        Value::node(Op::Argsort { descending }, vec![moved], shape, DType::I32).permute(&order)
    }
}

/// How two elements are ordered; NaN comes after everything, whichever the direction.
pub fn order(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let rising = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { rising.reverse() } else { rising }
        }
    }
}
