//! Rows of three operands: select, and the counter-based random bits.

use super::{Accept, Gives, Row, no_partial};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Prim;
use crate::value::Value;

/// condition ? a : b
pub static SELECT: Row = Row {
    name: "select",
    doc: "The second operand where the first (bool) is true, else the third. The other one has derivative 0, even where it is NaN.",
    arity: 3,
    accept: Accept::Select,
    gives: Gives::Same,
    reference: |x, _| if x[0] != 0.0 { x[1] } else { x[2] },
    kernel: |e, x| e.select(x[0], x[1], x[2]),
    // not by products: see select_jvp and select_vjp
    partial: no_partial,
    domain: &[(0.0, 1.0), (-3.0, 3.0), (-3.0, 3.0)],
};

/// y′ = condition ? a′ : b′
pub(super) fn select_jvp(x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let (Some(a), Some(b)) = (&tangents[1], &tangents[2]) else {
        let zero = x[1].like(0.0);
        return match (&tangents[1], &tangents[2]) {
            (Some(a), _) => x[0].select(a, &zero).map(Some),
            (_, Some(b)) => x[0].select(&zero, b).map(Some),
            (None, None) => Ok(None),
        };
    };
    x[0].select(a, b).map(Some)
}

/// ā = condition ? ȳ : 0, b̄ = condition ? 0 : ȳ (never a product, so that an unused NaN stays unused)
pub(super) fn select_vjp(x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    let zero = cotangent.like(0.0);
    let a = if wanted[1] { Some(x[0].select(cotangent, &zero)?) } else { None };
    let b = if wanted[2] { Some(x[0].select(&zero, cotangent)?) } else { None };
    Ok(vec![None, a, b])
}

/// random bits from (key0, key1, counter)
pub static THREEFRY: Row = Row {
    name: "threefry",
    doc: "Random bits: the first word of Threefry-2x32 (20 rounds) under the key (first, second operand) at the counter (third operand, 0).",
    arity: 3,
    accept: Accept::U32,
    gives: Gives::Same,
    reference: |x, _| f64::from(threefry(x[0] as u32, x[1] as u32, x[2] as u32)),
    kernel: |e, x| e.prim(Prim::Threefry, &[x[0], x[1], x[2]], DType::U32),
    partial: no_partial,
    domain: &[(0.0, 1e9), (0.0, 1e9), (0.0, 1e9)],
};

/// The first word of [`threefry_block`] at the counter (counter, 0).
pub fn threefry(key0: u32, key1: u32, counter: u32) -> u32 {
    threefry_block([key0, key1], [counter, 0])[0]
}

/// Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
pub fn threefry_block(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let (mut x0, mut x1) = (counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1]));
    for round in 0..20 {
        x0 = x0.wrapping_add(x1);
        x1 = x1.rotate_left(ROTATIONS[round % 8]) ^ x0;
        if round % 4 == 3 {
            let step = round / 4 + 1;
            x0 = x0.wrapping_add(keys[step % 3]);
            x1 = x1.wrapping_add(keys[(step + 1) % 3]).wrapping_add(step as u32);
        }
    }
    [x0, x1]
}
