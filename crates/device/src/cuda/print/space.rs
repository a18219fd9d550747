//! Index spaces: merging axes that every access walks as one, finding a point's coordinates from its position, and the
//! displacement of an access. No instruction of the kernel language is known here.

use super::text::{Class, Register, Text};

/// Positions up to this bound are computed in 32 bits, grid strides included.
const NARROW: usize = 1 << 30;

/// Drop axes of size 1 and join neighbours that all of `strides` (one list for each access) walk as one axis.
pub fn merge(sizes: &[usize], strides: &mut [&mut Vec<i64>]) -> Vec<usize> {
    let mut merged: Vec<usize> = Vec::new();
    let mut kept_axes: Vec<usize> = Vec::new();
    for (axis, &size) in sizes.iter().enumerate() {
        if size == 1 {
            continue;
        }
        if let (Some(last), Some(&before)) = (merged.last_mut(), kept_axes.last())
            && strides.iter().all(|list| list[before] == list[axis] * size as i64)
        {
            *last *= size;
            strides.iter_mut().for_each(|list| list[before] = list[axis]);
            continue;
        }
        merged.push(size);
        kept_axes.push(axis);
    }
    for list in strides {
        **list = kept_axes.iter().map(|&axis| list[axis]).collect();
    }
    merged
}

/// An index space whose last axis is walked several elements (lanes) at a time.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Sizes, the last one divided by the lanes.
    sizes: Vec<usize>,
    pub lanes: usize,
}

impl Walk {
    /// `lanes` divides the last size; 1 always does.
    pub fn new(sizes: &[usize], lanes: usize) -> Walk {
        let mut sizes = sizes.to_vec();
        if let Some(last) = sizes.last_mut() {
            *last /= lanes;
        }
        Walk { sizes, lanes }
    }

    /// Number of positions.
    pub fn points(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The register class of a position.
    pub fn class(&self) -> Class {
        if self.points() < NARROW { Class::Word } else { Class::Long }
    }

    /// The displaced address of the first lane at `position`: base + Σ stride·coordinate, strides in bytes (or elements, if
    /// `base` counts elements).
    pub fn displace(&self, text: &mut Text, point: &mut Point, base: Register, strides: &[i64]) -> Register {
        let strides = self.of_positions(strides);
        let Some(&last) = strides.last() else { return base };
        let dense = (1..strides.len()).all(|axis| strides[axis - 1] == strides[axis] * self.sizes[axis] as i64);
        if dense {
            return text.scaled(base, point.position, last);
        }
        let mut address = base;
        for (axis, &stride) in strides.iter().enumerate() {
            if stride != 0 {
                let coordinate = point.coordinate(text, &self.sizes, axis);
                address = text.scaled(address, coordinate, stride);
            }
        }
        address
    }

    /// The same in 32 bits, for small index values.
    pub fn displace_narrow(&self, text: &mut Text, point: &mut Point, base: Register, strides: &[i64]) -> Register {
        let mut value = base;
        for (axis, &stride) in self.of_positions(strides).iter().enumerate() {
            if stride != 0 {
                let mut coordinate = point.coordinate(text, &self.sizes, axis);
                if coordinate.class == Class::Long {
                    coordinate = text.word("cvt.u32.u64", &[&coordinate]);
                }
                value = text.word("mad.lo.s32", &[&coordinate, &stride, &value]);
            }
        }
        value
    }

    /// The point's coordinate along an axis (of the last one: which group of lanes).
    pub fn coordinate(&self, text: &mut Text, point: &mut Point, axis: usize) -> Register {
        point.coordinate(text, &self.sizes, axis)
    }

    fn of_positions(&self, strides: &[i64]) -> Vec<i64> {
        let mut strides = strides.to_vec();
        if let Some(last) = strides.last_mut() {
            *last *= self.lanes as i64;
        }
        strides
    }
}

/// A position in a walk, with its coordinates as far as they have been asked for.
pub struct Point {
    pub position: Register,
    /// From the last axis backwards.
    found: Vec<Register>,
    /// What is left of the position before these axes.
    rest: Register,
}

impl Point {
    /// A point whose coordinates are not known yet.
    pub fn new(position: Register) -> Point {
        Point { position, found: Vec::new(), rest: position }
    }

    fn coordinate(&mut self, text: &mut Text, sizes: &[usize], axis: usize) -> Register {
        let from_end = sizes.len() - 1 - axis;
        while self.found.len() <= from_end {
            let next = sizes.len() - 1 - self.found.len();
            if next == 0 {
                self.found.push(self.rest);
            } else {
                let (quotient, coordinate) = text.divide_with_rest(self.rest, sizes[next]);
                self.found.push(coordinate);
                self.rest = quotient;
            }
        }
        self.found[from_end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_merge_where_every_access_allows_it() {
        let (mut a, mut b) = (vec![12, 4, 4, 1], vec![0, 0, 0, 1]);
        assert_eq!(merge(&[2, 3, 1, 4], &mut [&mut a, &mut b]), [6, 4]);
        assert_eq!((a, b), (vec![4, 1], vec![0, 1]));
        let mut c = vec![3, 1];
        assert_eq!(merge(&[1, 1], &mut [&mut c]), Vec::<usize>::new());
        assert!(c.is_empty());
    }
}
