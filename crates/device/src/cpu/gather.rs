//! Gather, scatter-add and fill: kernels that move elements by index. Indices are checked before anything is written.

use super::pool::Team;
use super::row::Bases;
use raphson_compile::program::{Buffer, BufferId, GatherKernel, ScatterAddKernel};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::half;

/// Bytes that make a piece of work.
const PIECE_BYTES: usize = 1 << 16;

pub(super) fn expect(buffers: &[Buffer], op: &str, id: BufferId, dtype: DType, elements: usize) -> Result<()> {
    match buffers.get(id.0 as usize) {
        Some(buffer) if buffer.dtype == dtype && buffer.elements == elements => Ok(()),
        _ => Err(Error::internal(op, format!("buffer {} is not {elements} elements of {dtype}", id.0))),
    }
}

/// Check the buffers of a gather.
pub fn check_gather(k: &GatherKernel, buffers: &[Buffer]) -> Result<()> {
    check_indices_dtype("gather", k.index_dtype)?;
    expect(buffers, "gather", k.data, k.dtype, k.outer * k.axis * k.inner)?;
    expect(buffers, "gather", k.indices, k.index_dtype, k.count)?;
    expect(buffers, "gather", k.out, k.dtype, k.outer * k.count * k.inner)
}

/// Check the buffers of a scatter-add.
pub fn check_scatter_add(k: &ScatterAddKernel, buffers: &[Buffer]) -> Result<()> {
    check_indices_dtype("scatterAdd", k.index_dtype)?;
    if k.dtype.is_storage() {
        return Err(Error::internal("scatterAdd", format!("sums of {}", k.dtype)));
    }
    expect(buffers, "scatterAdd", k.updates, k.dtype, k.outer * k.count * k.inner)?;
    expect(buffers, "scatterAdd", k.indices, k.index_dtype, k.count)?;
    expect(buffers, "scatterAdd", k.out, k.dtype, k.outer * k.axis * k.inner)
}

/// Check the buffer of a fill.
pub fn check_fill(id: BufferId, buffers: &[Buffer]) -> Result<()> {
    buffers.get(id.0 as usize).map(|_| ()).ok_or_else(|| Error::internal("fill", format!("no buffer {}", id.0)))
}

fn check_indices_dtype(op: &str, dtype: DType) -> Result<()> {
    let known = matches!(dtype, DType::I32 | DType::U32);
    if known { Ok(()) } else { Err(Error::internal(op, format!("indices of dtype {dtype}"))) }
}

/// The indices of a kernel. Both dtypes are read as u32: a negative i32 is then beyond every axis.
///
/// # Safety
/// The buffer holds `count` indices.
unsafe fn indices<'a>(
    op: &str,
    bases: &'a Bases,
    id: BufferId,
    dtype: DType,
    count: usize,
    axis: usize,
) -> Result<&'a [u32]> {
    // SAFETY: our caller vouches for the buffer; i32 and u32 have one size and alignment.
    let indices = unsafe { std::slice::from_raw_parts(bases.0[id.0 as usize].cast::<u32>(), count) };
    let limit = u32::try_from(axis).unwrap_or(u32::MAX);
    // i32 indices of 2³¹ and more do not exist, whatever the axis.
    let limit = if dtype == DType::I32 { limit.min(1 << 31) } else { limit };
    let Some(at) = indices.iter().position(|&index| index >= limit) else { return Ok(indices) };
    let index = if dtype == DType::I32 { i64::from(indices[at] as i32) } else { i64::from(indices[at]) };
    let way_out = if axis == 0 { "the axis is empty".into() } else { format!("use 0 to {}", axis - 1) };
    let message = format!("index {index} at position {at} is outside an axis of size {axis}; {way_out}");
    Err(Error::new(Code::Index, op, message))
}

/// Run a gather.
///
/// # Safety
/// As for `row::run`.
pub unsafe fn run_gather(k: &GatherKernel, bases: &Bases, team: &Team) -> Result<()> {
    // SAFETY: passed on to our caller; the kernel was checked when it was loaded.
    let indices = unsafe { indices("gather", bases, k.indices, k.index_dtype, k.count, k.axis)? };
    let row = k.inner * k.dtype.size_bytes();
    let n_rows = k.outer * k.count;
    if row == 0 || n_rows == 0 {
        return Ok(());
    }
    let per_chunk = (PIECE_BYTES / row).clamp(1, n_rows);
    let work = |_: usize, chunk: usize| {
        for i in chunk * per_chunk..n_rows.min((chunk + 1) * per_chunk) {
            let source = (i / k.count) * k.axis + indices[i % k.count] as usize;
            // SAFETY: the index was checked, so both rows are inside their buffers; chunks write disjoint rows.
            unsafe {
                let (data, out) = (bases.0[k.data.0 as usize], bases.0[k.out.0 as usize]);
                std::ptr::copy_nonoverlapping(data.add(source * row), out.add(i * row), row);
            }
        }
    };
    team.run(n_rows.div_ceil(per_chunk), &work);
    Ok(())
}

/// How updates add up.
trait Accumulate: Copy {
    fn plus(self, other: Self) -> Self;
}
impl Accumulate for f32 {
    fn plus(self, other: f32) -> f32 {
        self + other
    }
}
impl Accumulate for f64 {
    fn plus(self, other: f64) -> f64 {
        self + other
    }
}
impl Accumulate for u32 {
    fn plus(self, other: u32) -> u32 {
        self.wrapping_add(other)
    }
}
impl Accumulate for i64 {
    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
}
impl Accumulate for u8 {
    fn plus(self, other: u8) -> u8 {
        self | other
    }
}

/// Run a scatter-add.
///
/// # Safety
/// As for `row::run`.
pub unsafe fn run_scatter_add(k: &ScatterAddKernel, bases: &Bases, team: &Team) -> Result<()> {
    // SAFETY: passed on to our caller; the kernel was checked when it was loaded.
    unsafe {
        let indices = indices("scatterAdd", bases, k.indices, k.index_dtype, k.count, k.axis)?;
        match k.dtype {
            DType::F32 => scatter_add::<f32>(k, indices, bases, team),
            DType::F64 => scatter_add::<f64>(k, indices, bases, team),
            // Wrapping addition is the same for both signs.
            DType::I32 | DType::U32 => scatter_add::<u32>(k, indices, bases, team),
            DType::I64 => scatter_add::<i64>(k, indices, bases, team),
            DType::Bool => scatter_add::<u8>(k, indices, bases, team),
            // Refused when the program was loaded.
            DType::F16 | DType::BF16 | DType::U8 => unreachable!("scatter-add of {}", k.dtype),
        }
    }
    Ok(())
}

/// A piece is one outer index and a run of inner ones: it sees all updates of its elements, in order of j.
///
/// # Safety
/// As for [`run_scatter_add`]; the indices are inside the axis.
unsafe fn scatter_add<T: Accumulate>(k: &ScatterAddKernel, indices: &[u32], bases: &Bases, team: &Team) {
    let (outer, axis, inner, count) = (k.outer, k.axis, k.inner, k.count);
    if outer * axis * inner == 0 {
        return;
    }
    let column_bytes = (axis + count) * size_of::<T>();
    let width = (PIECE_BYTES / column_bytes.max(1)).max(64).min(inner);
    let per_outer = inner.div_ceil(width);
    let work = |_: usize, chunk: usize| {
        let (o, first) = (chunk / per_outer, chunk % per_outer * width);
        let width = width.min(inner - first);
        // SAFETY: positions are inside the buffers by the kernel's sizes; chunks write disjoint columns.
        let row = |id: BufferId, row: usize| unsafe { bases.0[id.0 as usize].cast::<T>().add(row * inner + first) };
        for i in 0..axis {
            // SAFETY: as above; zero bytes are the zero of every dtype.
            unsafe { std::ptr::write_bytes(row(k.out, o * axis + i), 0, width) };
        }
        for (j, &index) in indices.iter().enumerate() {
            // SAFETY: as above; the output overlaps no operand.
            let (out, updates) = unsafe {
                (
                    std::slice::from_raw_parts_mut(row(k.out, o * axis + index as usize), width),
                    std::slice::from_raw_parts(row(k.updates, o * count + j), width),
                )
            };
            for (out, &update) in out.iter_mut().zip(updates) {
                *out = out.plus(update);
            }
        }
    };
    team.run(outer * per_outer, &work);
}

/// Set every element of a buffer.
///
/// # Safety
/// As for `row::run`.
pub unsafe fn run_fill(buffer: &Buffer, base: *mut u8, value: Scalar) {
    let n = buffer.elements;
    let integer = match value {
        Scalar::Int(v) => v,
        Scalar::Float(v) => v as i64,
        Scalar::Bool(v) => i64::from(v),
    };
    // SAFETY: our caller vouches for `n` elements of the buffer's dtype.
    unsafe {
        match buffer.dtype {
            DType::F32 => std::slice::from_raw_parts_mut(base.cast::<f32>(), n).fill(value.to_f64() as f32),
            DType::F64 => std::slice::from_raw_parts_mut(base.cast::<f64>(), n).fill(value.to_f64()),
            DType::I32 | DType::U32 => std::slice::from_raw_parts_mut(base.cast::<u32>(), n).fill(integer as u32),
            DType::I64 => std::slice::from_raw_parts_mut(base.cast::<i64>(), n).fill(integer),
            DType::U8 => std::slice::from_raw_parts_mut(base, n).fill(integer as u8),
            DType::F16 => {
                std::slice::from_raw_parts_mut(base.cast::<u16>(), n).fill(half::f32_to_f16(value.to_f64() as f32));
            }
            DType::BF16 => {
                std::slice::from_raw_parts_mut(base.cast::<u16>(), n).fill(half::f32_to_bf16(value.to_f64() as f32));
            }
            DType::Bool => std::slice::from_raw_parts_mut(base, n).fill(u8::from(value.to_f64() != 0.0)),
        }
    }
}
