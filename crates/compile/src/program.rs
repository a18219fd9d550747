//! What `compile` hands to a device: a flat list of kernels over planned buffers. Data only, no device notion, so that
//! a device may interpret it (cpu) or print it as text (wgpu, cuda).

use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::kernel::{Prim, Reg};
pub use raphson_graph::op::reduce::ReduceOp;

/// Position of a buffer in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Where a buffer's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Given by the caller: position in the run's input list. Kernels only read it, unless an output aliases it.
    Input(usize),
    /// A result: position in the run's output list. Fresh memory of exactly the buffer's size.
    Output(usize),
    /// A result written over a donated input: `output` takes over the memory of `input`.
    InPlace { input: usize, output: usize },
    /// A temporary at this byte offset (a multiple of 64) of the run's arena.
    Arena(usize),
}

/// A contiguous, row-major run of elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    pub dtype: DType,
    pub elements: usize,
    pub place: Place,
}

impl Buffer {
    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.elements * self.dtype.size_bytes()
    }
}

/// An affine map from a kernel's index space to element positions:
/// `offset + Σ kept[i]·kept_index[i] + Σ reduced[j]·reduced_index[j]`. Strides may be zero or negative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub offset: i64,
    pub kept: Vec<i64>,
    pub reduced: Vec<i64>,
}

/// Where in a fused kernel a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One value for each point of kept × reduced.
    Full,
    /// One value for each point of kept (what a reduction yields, and what follows from it alone).
    Kept,
}

/// One instruction of a fused kernel, in static single assignment form: instruction `i` defines `Reg(i)`
/// (a store defines nothing that may be read).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instr {
    /// Read an element, converting it from the buffer's dtype to its register's. A `Kept` load's view has zero `reduced`
    /// strides.
    Load {
        buffer: BufferId,
        view: View,
    },
    Const(Scalar),
    /// The affine index itself, as an integer or float of the instruction's dtype.
    Index(View),
    /// `args[..prim.arity()]` are meaningful. `Full` if any operand is `Full`.
    Prim {
        prim: Prim,
        args: [Reg; 3],
    },
    /// Combine a `Full` value over the reduced axes; defines a `Kept` value.
    Reduce {
        op: ReduceOp,
        arg: Reg,
    },
    /// Write a value, converting it to the buffer's dtype: to f16 and bf16 by rounding to nearest, ties to even; u8 keeps
    /// the low 8 bits. A `Kept` value is stored once for each kept index, a `Full` value at each point.
    Store {
        buffer: BufferId,
        view: View,
        value: Reg,
    },
}

/// An instruction with the level of what it defines and the dtype of its register (for a store: of what it writes), which
/// is never a storage dtype: `DType::register` of its buffer's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    pub instr: Instr,
    pub dtype: DType,
    pub level: Level,
    /// The pass over the reduced axes to which this instruction belongs. A value that depends on a reduction of pass
    /// `p` has pass `p + 1` at least; a `Reduce` itself carries the pass in which it accumulates. Full values of an earlier pass
    /// that a later one needs must be recomputed there when the row does not fit a device's registers.
    pub pass: u32,
}

/// Which axis group varies fastest in memory, and so along which a device should walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The reduced axes are contiguous (softmax over the last axis), or there are none.
    Row,
    /// The kept axes are contiguous and the reduced ones lead (a bias gradient).
    Column,
}

/// The one fused kernel form: instructions over the index space kept × reduced. With no reduced axes it is a plain
/// elementwise kernel. All loads of a buffer that the same kernel stores to use the very view of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKernel {
    pub kept: Vec<usize>,
    pub reduced: Vec<usize>,
    pub order: Order,
    pub steps: Vec<Step>,
}

/// A matrix operand: `batch` strides (one for each batch axis), then element strides of its two matrix axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatrixView {
    pub buffer: BufferId,
    pub offset: i64,
    pub batch: Vec<i64>,
    pub rows: i64,
    pub columns: i64,
}

/// `out[b, m, n] = Σ_k left[b, m, k] · right[b, k, n]`. The output is contiguous over (batch, m, n). Never of a storage dtype.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DotKernel {
    pub dtype: DType,
    pub batch: Vec<usize>,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub left: MatrixView,
    pub right: MatrixView,
    pub out: BufferId,
}

/// One spatial axis of a convolution: output `y` and tap `t` meet at the data element `y·stride + t·dilation − low`, where
/// that is inside 0..size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvAxis {
    pub size: usize,
    pub taps: usize,
    pub outputs: usize,
    pub stride: usize,
    pub dilation: usize,
    pub low: i64,
}

/// An operand or the result of a convolution: strides of its three leading axes, then of the spatial ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvView {
    pub buffer: BufferId,
    pub offset: i64,
    pub leading: [i64; 3],
    pub spatial: Vec<i64>,
}

/// `out[b, g, o, y…] = Σ_{i, t…} data[b, g, i, x…] · kernel[g, o, i, t…]`, with x as the axes say and zeros outside. The data's
/// leading axes are [batch, groups, channels_in], the kernel's [groups, channels_out, channels_in], the result's [batch,
/// groups, channels_out]. There are one to three spatial axes, with at least one tap each. The result may be a part of its buffer
/// (every so many elements of an axis); other kernels then write the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvKernel {
    pub dtype: DType,
    pub batch: usize,
    pub groups: usize,
    pub channels_in: usize,
    pub channels_out: usize,
    pub axes: Vec<ConvAxis>,
    pub data: ConvView,
    pub kernel: ConvView,
    pub out: ConvView,
}

impl ConvKernel {
    /// The sizes of each group's product of matrices, rows (o), columns (b, y…) and terms (i, t…):
    /// `out[o, (b, y…)] = Σ kernel[o, (i, t…)] · patches[(i, t…), (b, y…)]`.
    pub fn as_product(&self) -> (usize, usize, usize) {
        let outputs = self.axes.iter().map(|axis| axis.outputs).product::<usize>();
        let taps = self.axes.iter().map(|axis| axis.taps).product::<usize>();
        (self.channels_out, self.batch * outputs, self.channels_in * taps)
    }
}

/// `out[o, j, i] = data[o, index[j], i]` over contiguous buffers of shapes [outer, axis, inner], [count], [outer, count, inner].
/// Indices are i32 or u32 (`compile` converts others); one outside 0..axis is an error that the device reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherKernel {
    pub dtype: DType,
    pub index_dtype: DType,
    pub outer: usize,
    pub axis: usize,
    pub inner: usize,
    pub count: usize,
    pub data: BufferId,
    pub indices: BufferId,
    pub out: BufferId,
}

/// `out = 0; out[o, index[j], i] += updates[o, j, i]`; duplicates add up, in order of j. Never of a storage dtype.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterAddKernel {
    pub dtype: DType,
    pub index_dtype: DType,
    pub outer: usize,
    pub axis: usize,
    pub inner: usize,
    pub count: usize,
    pub updates: BufferId,
    pub indices: BufferId,
    pub out: BufferId,
}

/// `out[r, ..]` are the positions (i32) of `data[r, ..]` in the order of its elements: stable, rising or `descending`, NaN
/// last either way. Both buffers are contiguous, of shape [rows, length].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgsortKernel {
    pub dtype: DType,
    pub rows: usize,
    pub length: usize,
    pub descending: bool,
    pub data: BufferId,
    pub out: BufferId,
}

/// Attention over batch × queries × keys, or its reverse. With the scores s = scale · q·kᵀ, of which those hidden by the mask
/// or by order do not exist:
///
/// forward: λ = log Σ exp s and out = Σ exp(s − λ)·v of each query; where no key is seen, zeros both. `out` holds for each batch entry
/// [queries, values], then the [queries] of λ.
///
/// reverse: with p = exp(s − λ) and s̄ = p·(ō·vᵀ − δ), q̄ = scale · s̄·k, k̄ = scale · s̄ᵀ·q, v̄ = pᵀ·ō. `out` holds for each batch
/// entry [queries, width], [keys, width], [keys, values].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionKernel {
    pub dtype: DType,
    pub batch: Vec<usize>,
    pub queries: usize,
    pub keys: usize,
    /// Of a query and of a key.
    pub width: usize,
    /// Width of a value.
    pub values: usize,
    /// Whether query i sees key j only where j + queries ≤ i + keys.
    pub causal: bool,
    pub scale: Scalar,
    /// [queries, width], [keys, width], [keys, values] for each batch entry.
    pub query: MatrixView,
    pub key: MatrixView,
    pub value: MatrixView,
    /// bool [queries, keys]: true where a query sees a key.
    pub mask: Option<MatrixView>,
    pub reverse: Option<AttentionReverse>,
    pub out: BufferId,
}

/// What attention's reverse reads beside the forward's operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionReverse {
    /// λ and δ, [queries, 1].
    pub log_sums: MatrixView,
    pub delta: MatrixView,
    /// ō, [queries, values].
    pub cotangent: MatrixView,
}

impl AttentionKernel {
    /// Elements of the result for each batch entry.
    pub fn packed(&self) -> usize {
        let (queries, keys) = (self.queries, self.keys);
        match self.reverse {
            None => queries * self.values + queries,
            Some(_) => queries * self.width + keys * self.width + keys * self.values,
        }
    }

    /// Every operand with its rows and columns.
    pub fn operands(&self) -> Vec<(&MatrixView, usize, usize)> {
        let (queries, keys) = (self.queries, self.keys);
        let mut operands =
            vec![(&self.query, queries, self.width), (&self.key, keys, self.width), (&self.value, keys, self.values)];
        if let Some(reverse) = &self.reverse {
            operands.extend([(&reverse.log_sums, queries, 1), (&reverse.delta, queries, 1)]);
            operands.push((&reverse.cotangent, queries, self.values));
        }
        operands.extend(self.mask.as_ref().map(|mask| (mask, queries, keys)));
        operands
    }
}

/// Which ops a device has kernels of its own for; the others are expanded before they are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fused {
    /// Dtypes of attention.
    pub attention: &'static [DType],
    /// The greatest width of attention's queries and values.
    pub attention_width: usize,
}

impl Fused {
    /// None: what every device can run.
    pub const NONE: Fused = Fused { attention: &[], attention_width: 0 };
}

/// One entry of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    Row(RowKernel),
    Dot(DotKernel),
    Conv(ConvKernel),
    Gather(GatherKernel),
    ScatterAdd(ScatterAddKernel),
    Argsort(ArgsortKernel),
    Attention(Box<AttentionKernel>),
    /// Set every element of a buffer.
    Fill {
        buffer: BufferId,
        value: Scalar,
    },
}

impl Kernel {
    /// The buffers that it reads, and those that it writes.
    pub fn buffers(&self) -> (Vec<BufferId>, Vec<BufferId>) {
        let (mut read, mut written) = (Vec::new(), Vec::new());
        match self {
            Kernel::Row(row) => {
                for step in &row.steps {
                    match &step.instr {
                        Instr::Load { buffer, .. } => read.push(*buffer),
                        Instr::Store { buffer, .. } => written.push(*buffer),
                        Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => {}
                    }
                }
            }
            Kernel::Dot(dot) => {
                read.extend([dot.left.buffer, dot.right.buffer]);
                written.push(dot.out);
            }
            Kernel::Conv(conv) => {
                read.extend([conv.data.buffer, conv.kernel.buffer]);
                written.push(conv.out.buffer);
            }
            Kernel::Gather(gather) => {
                read.extend([gather.data, gather.indices]);
                written.push(gather.out);
            }
            Kernel::ScatterAdd(scatter) => {
                read.extend([scatter.updates, scatter.indices]);
                written.push(scatter.out);
            }
            Kernel::Argsort(sort) => {
                read.push(sort.data);
                written.push(sort.out);
            }
            Kernel::Attention(attention) => {
                read.extend(attention.operands().into_iter().map(|(view, ..)| view.buffer));
                written.push(attention.out);
            }
            Kernel::Fill { buffer, .. } => written.push(*buffer),
        }
        (read, written)
    }
}

/// A compiled graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    pub buffers: Vec<Buffer>,
    /// In an order that respects every dependency.
    pub kernels: Vec<Kernel>,
    /// Buffer of each input, by position.
    pub inputs: Vec<BufferId>,
    /// Buffer of each output, by position; distinct outputs have distinct buffers.
    pub outputs: Vec<BufferId>,
    /// Bytes of the arena that holds all temporaries.
    pub arena_bytes: usize,
}

impl Program {
    /// Bytes that a run has in use at once: inputs, outputs and the arena. An output in the memory of a donated input counts
    /// once. What a device sets aside inside one kernel is not known here.
    pub fn peak_bytes(&self) -> usize {
        let own = self.buffers.iter().filter(|buffer| matches!(buffer.place, Place::Input(_) | Place::Output(_)));
        own.map(Buffer::size_bytes).sum::<usize>() + self.arena_bytes
    }
}
