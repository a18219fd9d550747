//! The order of the elements of each row: every element becomes a whole number that orders as it does, with its position
//! below it, and those numbers are sorted.

use super::gather::expect;
use super::pool::Team;
use super::row::Bases;
use raphson_compile::program::{ArgsortKernel, Buffer};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};

/// Elements that make a piece of work.
const PIECE: usize = 1 << 12;

/// Check the buffers of an argsort.
pub fn check(k: &ArgsortKernel, buffers: &[Buffer]) -> Result<()> {
    if k.dtype.is_storage() {
        return Err(Error::internal("argsort", format!("{}, which `compile` widens", k.dtype)));
    }
    expect(buffers, "argsort", k.data, k.dtype, k.rows * k.length)?;
    expect(buffers, "argsort", k.out, DType::I32, k.rows * k.length)
}

/// An element as a number of as many bits, such that a < b exactly where its number is below that of b. The greatest
/// number belongs to NaN; no other float has it.
trait Element: Copy + Sync {
    /// A number and a position, ordered by the number first.
    type Placed: Ord + Copy;
    fn placed(self, descending: bool, position: u32) -> Self::Placed;
    fn position(placed: Self::Placed) -> u32;
}

/// A 32-bit number above its position.
fn pack(number: u32, position: u32) -> u64 {
    u64::from(number) << 32 | u64::from(position)
}

macro_rules! narrow {
    ($($type:ty: $number:expr;)*) => { $(
        impl Element for $type {
            type Placed = u64;
            fn placed(self, descending: bool, position: u32) -> u64 {
                let number: fn($type) -> u32 = $number;
                pack(if descending { !number(self) } else { number(self) }, position)
            }
            fn position(placed: u64) -> u32 {
                placed as u32
            }
        }
    )* };
}

narrow! {
    u8: |x| u32::from(x != 0);
    u32: |x| x;
    i32: |x| x as u32 ^ 1 << 31;
}

impl Element for f32 {
    type Placed = u64;
    fn placed(self, descending: bool, position: u32) -> u64 {
        if self.is_nan() {
            return pack(u32::MAX, position);
        }
        // −0 + 0 = 0; the bits of negative floats fall where the floats rise.
        let bits = (self + 0.0).to_bits();
        let number = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        pack(if descending { !number } else { number }, position)
    }
    fn position(placed: u64) -> u32 {
        placed as u32
    }
}

impl Element for i64 {
    type Placed = (u64, u32);
    fn placed(self, descending: bool, position: u32) -> (u64, u32) {
        let number = self as u64 ^ 1 << 63;
        (if descending { !number } else { number }, position)
    }
    fn position(placed: (u64, u32)) -> u32 {
        placed.1
    }
}

impl Element for f64 {
    type Placed = (u64, u32);
    fn placed(self, descending: bool, position: u32) -> (u64, u32) {
        if self.is_nan() {
            return (u64::MAX, position);
        }
        let bits = (self + 0.0).to_bits();
        let number = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        (if descending { !number } else { number }, position)
    }
    fn position(placed: (u64, u32)) -> u32 {
        placed.1
    }
}

/// Run an argsort.
///
/// # Safety
/// As for `row::run`.
pub unsafe fn run(k: &ArgsortKernel, bases: &Bases, team: &Team) {
    // SAFETY: passed on to our caller; the kernel was checked when it was loaded.
    unsafe {
        match k.dtype {
            DType::F32 => sort::<f32>(k, bases, team),
            DType::F64 => sort::<f64>(k, bases, team),
            DType::I32 => sort::<i32>(k, bases, team),
            DType::U32 => sort::<u32>(k, bases, team),
            DType::I64 => sort::<i64>(k, bases, team),
            DType::Bool => sort::<u8>(k, bases, team),
            // Refused when the program was loaded.
            DType::F16 | DType::BF16 | DType::U8 => unreachable!("argsort of {}", k.dtype),
        }
    }
}

/// A piece of work is some whole rows.
///
/// # Safety
/// As for [`run`]; the data are of this type.
unsafe fn sort<T: Element>(k: &ArgsortKernel, bases: &Bases, team: &Team) {
    let (rows, length) = (k.rows, k.length);
    if rows * length == 0 {
        return;
    }
    let per_piece = (PIECE / length).clamp(1, rows);
    let work = |_: usize, piece: usize| {
        let mut placed = Vec::with_capacity(length);
        for row in piece * per_piece..rows.min((piece + 1) * per_piece) {
            // SAFETY: rows lie inside the buffers by the kernel's sizes; pieces write disjoint rows, and the output
            // overlaps no operand.
            let (data, out) = unsafe {
                (
                    std::slice::from_raw_parts(bases.0[k.data.0 as usize].cast::<T>().add(row * length), length),
                    std::slice::from_raw_parts_mut(bases.0[k.out.0 as usize].cast::<u32>().add(row * length), length),
                )
            };
            placed.clear();
            placed.extend(data.iter().zip(0..).map(|(x, position)| x.placed(k.descending, position)));
            // No two are equal, so that this is stable.
            placed.sort_unstable();
            for (out, &placed) in out.iter_mut().zip(&placed) {
                *out = T::position(placed);
            }
        }
    };
    team.run(rows.div_ceil(per_piece), &work);
}
