//! Attention by the compiled kernels of `kernels/attention.cu` and `kernels/attention_tensor.cu`: by which of them, with what
//! arguments. What they do not compute is expanded before a program is compiled, as [`FUSED`] says.

use super::dot::{MOST_BATCHES, Means, splitting_pays};
use super::plan::{Argument, Entry, Launch, Source, kernel};
use raphson_compile::program::{AttentionKernel, Fused, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};

/// f32, with heads of at most as many columns as a thread's registers hold.
pub const FUSED: Fused = Fused { attention: &[DType::F32], attention_width: 128 };

/// Queries and keys are counted in 32 bits.
const MOST: usize = 1 << 30;
/// Rows that a block owns, of all kernels; rows of the others that those on tensor cores hold at a time.
const OWN: usize = 64;
const OTHER: usize = 32;

/// Which of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Forward,
    /// The cotangents of queries.
    Queries,
    /// Those of keys and values.
    Keys,
}

/// How operands are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Products {
    Plain,
    Tf32,
    Split,
}

impl Products {
    fn of(means: &Means<'_>) -> Products {
        match means.gpu.capability >= (8, 0) {
            true if means.tf32 => Products::Tf32,
            true if splitting_pays(means.gpu) => Products::Split,
            _ => Products::Plain,
        }
    }

    fn kernel(self, what: What) -> Source {
        match (self, what) {
            (Products::Plain, What::Forward) => kernel!("attention_plain_forward"),
            (Products::Plain, What::Queries) => kernel!("attention_plain_queries"),
            (Products::Plain, What::Keys) => kernel!("attention_plain_keys"),
            (Products::Tf32, What::Forward) => kernel!("attention_tf32_forward"),
            (Products::Tf32, What::Queries) => kernel!("attention_tf32_queries"),
            (Products::Tf32, What::Keys) => kernel!("attention_tf32_keys"),
            (Products::Split, What::Forward) => kernel!("attention_split_forward"),
            (Products::Split, What::Queries) => kernel!("attention_split_queries"),
            (Products::Split, What::Keys) => kernel!("attention_split_keys"),
        }
    }
}

/// An operand over batch axes that are merged.
#[derive(Clone, Debug)]
struct Operand<'a> {
    /// `None` where the attention has no such operand.
    view: Option<&'a MatrixView>,
    batch: Vec<i64>,
}

/// Batch axes, merged where every operand allows it; those of size 1 left out.
fn merged(attention: &AttentionKernel) -> (Vec<usize>, Vec<Operand<'_>>) {
    let reverse = attention.reverse.as_ref();
    let views = [
        Some(&attention.query),
        Some(&attention.key),
        Some(&attention.value),
        attention.mask.as_ref(),
        reverse.map(|reverse| &reverse.log_sums),
        reverse.map(|reverse| &reverse.delta),
        reverse.map(|reverse| &reverse.cotangent),
    ];
    let stride = |view: Option<&MatrixView>, axis: usize| view.map_or(0, |view| view.batch[axis]);
    let mut sizes: Vec<usize> = Vec::new();
    let mut operands = views.map(|view| Operand { view, batch: Vec::new() });
    for (axis, &size) in attention.batch.iter().enumerate().filter(|&(_, &size)| size != 1) {
        // An axis is the continuation of the one before if that one steps over just all of it.
        let continues = |operand: &Operand<'_>| {
            operand.batch.last().is_some_and(|&before| before == stride(operand.view, axis) * size as i64)
        };
        if operands.iter().all(continues) {
            *sizes.last_mut().unwrap_or(&mut 1) *= size;
            operands.iter_mut().for_each(|operand| operand.batch.truncate(operand.batch.len() - 1));
        } else {
            sizes.push(size);
        }
        operands.iter_mut().for_each(|operand| operand.batch.push(stride(operand.view, axis)));
    }
    (sizes, operands.into())
}

/// The launches of an attention of f32 whose heads are not too wide.
pub fn plan(attention: &AttentionKernel, means: &Means<'_>) -> Result<Vec<Entry>> {
    let AttentionKernel { queries, keys, .. } = *attention;
    if queries > MOST || keys > MOST {
        let message = format!("{queries} queries and {keys} keys; the kernels count to 2^30, use smaller sizes");
        return Err(Error::new(Code::Device, "attention", message));
    }
    let (sizes, operands) = merged(attention);
    let n_batch: usize = sizes.iter().product();
    let whats: &[(What, usize)] = match attention.reverse {
        None => &[(What::Forward, queries)],
        Some(_) => &[(What::Queries, queries), (What::Keys, keys)],
    };
    // The kernels count over three axes; those in front of them are counted here.
    let (outer, inner) = sizes.split_at(sizes.len().saturating_sub(3));
    let per_launch: usize = inner.iter().product();
    let mut launches = Vec::new();
    for &(what, rows) in whats.iter().filter(|&&(_, rows)| n_batch * attention.packed() * rows > 0) {
        for at in 0..outer.iter().product() {
            let arguments = arguments(attention, &operands, inner, outer, at * per_launch);
            for first in (0..per_launch).step_by(MOST_BATCHES) {
                let mut arguments = arguments.clone();
                arguments[1] = Argument::Value(first as u64);
                let kind = Products::of(means);
                launches.push(Entry::Launch(Launch {
                    source: kind.kernel(what),
                    grid: [rows.div_ceil(OWN) as u32, MOST_BATCHES.min(per_launch - first) as u32, 1],
                    block: if kind == Products::Plain { 256 } else { 128 },
                    shared_bytes: if kind == Products::Plain { 0 } else { shared_bytes(attention, what) },
                    arguments,
                    workspace_bytes: 0,
                }));
            }
        }
    }
    Ok(launches)
}

/// Dynamic shared memory of the kernels on tensor cores: the block's own rows and a tile of others, each twice in reverse.
fn shared_bytes(attention: &AttentionKernel, what: What) -> u32 {
    let pitch = |columns: usize| columns.next_multiple_of(8) + 4;
    let (width, values) = (pitch(attention.width), pitch(attention.values));
    let floats = match what {
        What::Forward => OWN * width + OTHER * (width + values),
        What::Queries | What::Keys => (OWN + OTHER) * (width + values),
    };
    (4 * floats) as u32
}

/// Whether the rows of an operand may be copied 16 bytes at a time: contiguous, and all starting at multiples of four
/// elements, as every buffer does.
fn is_aligned(operand: &Operand<'_>, columns: usize) -> bool {
    let is_multiple = |n: i64| n % 4 == 0;
    operand.view.is_some_and(|view| {
        let starts = [view.offset, view.rows, columns as i64];
        view.columns == 1 && starts.into_iter().chain(operand.batch.iter().copied()).all(is_multiple)
    })
}

/// In the order of `ATTENTION_PARAMETERS` in `kernels/attention.cuh`, for the entries behind `before`, with none of them left
/// out. `inner` are the axes that the kernel counts, `outer` those in front of them.
fn arguments(
    attention: &AttentionKernel,
    operands: &[Operand<'_>],
    inner: &[usize],
    outer: &[usize],
    before: usize,
) -> Vec<Argument> {
    let AttentionKernel { queries, keys, width, values, causal, out, .. } = *attention;
    let per_launch: usize = inner.iter().product();
    let columns = [width, width, values, 0, 0, 0, values];
    let size_of = |axis: usize| (axis + inner.len()).checked_sub(3).map_or(1, |axis| inner[axis]);
    let aligned = [0, 1, 2, 6].into_iter().enumerate();
    let aligned = aligned.map(|(bit, at)| usize::from(is_aligned(&operands[at], columns[at])) << bit).sum::<usize>();
    let scale = (attention.scale.to_f64() as f32).to_bits() as usize;
    let offset_bytes = (4 * before * attention.packed()) as i64;
    let mut arguments = vec![Argument::Buffer { buffer: out, offset_bytes }];
    let sizes = [0, size_of(1), size_of(2), queries, keys, width, values, usize::from(causal), scale, aligned];
    arguments.extend(sizes.map(|size| Argument::Value(size as u64)));
    for (at, operand) in operands.iter().enumerate() {
        let Some(view) = operand.view else {
            arguments.extend([Argument::Value(0); 6]);
            continue;
        };
        let (of_outer, of_inner) = operand.batch.split_at(outer.len());
        let mut offset = view.offset;
        let mut index = before / per_launch.max(1);
        for (&size, &stride) in outer.iter().zip(of_outer).rev() {
            offset += (index % size) as i64 * stride;
            index /= size;
        }
        let element = if at == 3 { 1 } else { 4 };
        arguments.push(Argument::Buffer { buffer: view.buffer, offset_bytes: element * offset });
        arguments.extend([view.rows, view.columns].map(|stride| Argument::Value(stride as u64)));
        let stride_of = |axis: usize| (axis + of_inner.len()).checked_sub(3).map_or(0, |axis| of_inner[axis]);
        arguments.extend([0, 1, 2].map(|axis| Argument::Value(stride_of(axis) as u64)));
    }
    arguments
}
