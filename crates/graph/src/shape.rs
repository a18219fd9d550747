//! Shapes: sizes of axes, row-major strides, broadcasting.

use crate::error::{Code, Error, Result};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Sizes of a tensor's axes, outermost first. A scalar has none.
#[derive(Clone, Eq, Default, PartialOrd, Ord)]
pub struct Shape(Vec<usize>);

impl PartialEq for Shape {
    /// Size by size: comparing two scalars' no bytes by `memcmp` reads, under a mask, from the address of an empty `Vec`, which
    /// takes processors with AVX-512 a fifth of a microsecond.
    fn eq(&self, other: &Shape) -> bool {
        self.rank() == other.rank() && self.iter().zip(other.iter()).all(|(left, right)| left == right)
    }
}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The most elements one tensor may have (byte offsets then fit an `i64` on every target).
pub const MAX_ELEMENTS: usize = 1 << 40;

impl Shape {
    /// A shape from sizes; an error when the number of elements exceeds [`MAX_ELEMENTS`].
    pub fn new(op: &str, sizes: Vec<usize>) -> Result<Shape> {
        let mut elements = 1usize;
        for &size in sizes.iter().filter(|&&s| s != 0) {
            elements = elements.checked_mul(size).filter(|&e| e <= MAX_ELEMENTS).ok_or_else(|| {
                Error::new(Code::Shape, op, format!("shape {sizes:?} has more than 2^40 elements; use smaller sizes"))
            })?;
        }
        Ok(Shape(sizes))
    }

    /// The shape of a scalar.
    pub fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements: the product of the sizes (1 for a scalar).
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.0[axis];
        }
        strides
    }

    /// The numpy rule: align at the last axis; sizes must agree or be 1.
    pub fn broadcast(op: &str, left: &Shape, right: &Shape) -> Result<Shape> {
        let rank = left.rank().max(right.rank());
        let size = |shape: &Shape, axis: usize| (axis + shape.rank()).checked_sub(rank).map_or(1, |a| shape.0[a]);
        let mut sizes = Vec::with_capacity(rank);
        for axis in 0..rank {
            sizes.push(match (size(left, axis), size(right, axis)) {
                (1, s) | (s, 1) => s,
                (l, r) if l == r => l,
                _ => {
                    return Err(Error::new(
                        Code::Shape,
                        op,
                        format!("shapes do not broadcast: {left} · {right}; sizes must agree or be 1, aligned at the last axis"),
                    )
                    .with_shapes([left, right]));
                }
            });
        }
        Shape::new(op, sizes)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Shape {
        Shape(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Shape {
        Shape(sizes.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, size) in self.0.iter().enumerate() {
            write!(f, "{}{size}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
