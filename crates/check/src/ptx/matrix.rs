//! Matrix fragments: `ldmatrix`, and `mma.sync` of 16 × 8 results from TF32, BF16 or F16 factors with f32 sums. Which lane holds
//! which element is as the PTX manual has it ("Matrix fragments for mma.m16n8k…").

use super::access::Place;
use super::convert::half_to_float;
use super::instruction::{Address, Factors, Operand, Space};
use super::machine::{Block, LANES};
use super::memory::Memory;
use super::{Outcome, fault};

fn whole_warp(mask: u32) -> Outcome<()> {
    if mask == u32::MAX { Ok(()) } else { fault("not all lanes of the warp take part") }
}

/// `ldmatrix.sync.aligned.m8n8.xN.shared.b16`: lane 8i + r gives the address of row r of matrix i; lane l receives elements
/// 2·(l mod 4) and the next of row l/4 (transposed: of column l/4).
pub fn load(
    block: &mut Block<'_>,
    warp: usize,
    mask: u32,
    to: &[u32],
    address: Address,
    transpose: bool,
) -> Outcome<()> {
    whole_warp(mask)?;
    let rows: Vec<u64> = (0..LANES).map(|lane| block.address(warp, lane, address, Space::Shared)).collect();
    let mut memory = Memory::default();
    for (matrix, &register) in to.iter().enumerate() {
        for lane in 0..LANES {
            let mut element = |row: usize, column: usize| {
                let at = rows[8 * matrix + row];
                if !at.is_multiple_of(16) {
                    return fault(format!("row {row} at {at:#x} is not aligned to 16 bytes"));
                }
                let place = Place { space: Space::Shared, at: at + 2 * column as u64, bytes: 2 };
                block.read(warp, lane, place, &mut memory)
            };
            let (major, minor) = (lane / 4, 2 * (lane % 4));
            let (low, high) = if transpose {
                (element(minor, major)?, element(minor + 1, major)?)
            } else {
                (element(major, minor)?, element(major, minor + 1)?)
            };
            block.set(warp, lane, register, low | high << 16);
        }
    }
    Ok(())
}

/// d = a·b + c with a of 16 × k, b of k × 8, c and d of 16 × 8. Products are exact, sums are in f32.
pub fn multiply(
    block: &mut Block<'_>,
    warp: usize,
    mask: u32,
    factors: Factors,
    to: &[u32],
    [a, b, c]: [&[Operand]; 3],
) -> Outcome<()> {
    whole_warp(mask)?;
    let (inner, packed) = match factors {
        Factors::Tf32 { inner } => (inner, 1),
        Factors::Bf16 { inner } | Factors::F16 { inner } => (inner, 2),
    };
    let (n_a, n_b) = (16 * inner / LANES / packed, 8 * inner / LANES / packed);
    if (a.len(), b.len(), c.len(), to.len()) != (n_a, n_b, 4, 4) {
        return fault("the fragments have another number of registers than the shape");
    }
    let value = |bits: u64, part: usize| match factors {
        // The hardware reads the upper 19 bits.
        Factors::Tf32 { .. } => f32::from_bits(bits as u32 & 0xffff_e000),
        Factors::Bf16 { .. } => f32::from_bits((bits >> (16 * part) & 0xffff) as u32 * 0x1_0000),
        Factors::F16 { .. } => half_to_float((bits >> (16 * part)) as u16),
    };
    let (mut left, mut right) = (vec![0f32; 16 * inner], vec![0f32; inner * 8]);
    for lane in 0..LANES {
        let (group, in_group) = (lane / 4, lane % 4);
        for (number, &operand) in a.iter().enumerate() {
            let bits = block.get(warp, lane, operand);
            for part in 0..packed {
                // Registers alternate between the upper and the lower eight rows, then go on to the right.
                let row = group + 8 * (number % 2);
                let column = packed * in_group + part + 4 * packed * (number / 2);
                left[row * inner + column] = value(bits, part);
            }
        }
        for (number, &operand) in b.iter().enumerate() {
            let bits = block.get(warp, lane, operand);
            for part in 0..packed {
                let row = packed * in_group + part + 4 * packed * number;
                right[row * 8 + group] = value(bits, part);
            }
        }
    }
    for lane in 0..LANES {
        for number in 0..4 {
            let (row, column) = (lane / 4 + 8 * (number / 2), 2 * (lane % 4) + number % 2);
            let start = f32::from_bits(block.get(warp, lane, c[number]) as u32);
            let sum = (0..inner).fold(start, |sum, k| sum + left[row * inner + k] * right[k * 8 + column]);
            block.set(warp, lane, to[number], u64::from(sum.to_bits()));
        }
    }
    Ok(())
}
