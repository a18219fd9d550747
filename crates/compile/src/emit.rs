//! Writing the kernels: each group becomes one kernel (a pad or a concatenation becomes a few), each node that another
//! kernel or the caller reads gets a buffer.

use crate::conv;
use crate::group::{Group, Groups};
use crate::interleave::Part;
use crate::lower::{Access, Kind, Lowered, Node, contiguous, same_strides};
use crate::program::{
    ArgsortKernel, AttentionKernel, AttentionReverse, BufferId, DotKernel, GatherKernel, Instr, Kernel, Level,
    MatrixView, Order, RowKernel, ScatterAddKernel, Step, View,
};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::NodeIndex;
use raphson_graph::kernel::{Emit, Prim, Reg};
use raphson_graph::op::attention::{Attention, Sizes};
use raphson_graph::op::conv::Window;
use raphson_graph::shape::Shape;
use raphson_graph::work::visiting;
use std::collections::{HashMap, HashSet};

/// A buffer before it has a place.
#[derive(Clone, Debug)]
pub struct Unplaced {
    pub dtype: DType,
    pub elements: usize,
}

/// Kernels over buffers that have no place yet.
pub struct Emitted {
    pub buffers: Vec<Unplaced>,
    pub kernels: Vec<Kernel>,
    pub inputs: Vec<BufferId>,
    pub outputs: Vec<BufferId>,
}

/// Write all kernels.
pub fn emit(lowered: &Lowered, groups: &Groups) -> Emitted {
    let straight = straight(lowered, groups);
    let (buffers, kernels) = (Vec::new(), Vec::new());
    let mut emitter = Emitter { lowered, groups, straight, buffers, buffer_of: HashMap::new(), kernels };
    let inputs = lowered.inputs.iter().map(|&input| emitter.buffer(input)).collect();
    let outputs: Vec<BufferId> = lowered.outputs.iter().map(|&output| emitter.buffer(output)).collect();
    let stored = groups.stored(lowered);
    for (position, group) in groups.groups.iter().enumerate() {
        if group.fusible {
            emitter.fused(position, group, &stored);
        } else {
            emitter.opaque(group.nodes[0]);
        }
    }
    Emitted { buffers: emitter.buffers, kernels: emitter.kernels, inputs, outputs }
}

struct Emitter<'a> {
    lowered: &'a Lowered,
    groups: &'a Groups,
    straight: Straights,
    buffers: Vec<Unplaced>,
    buffer_of: HashMap<NodeIndex, BufferId>,
    kernels: Vec<Kernel>,
}

impl Emitter<'_> {
    fn node(&self, index: NodeIndex) -> &Node {
        &self.lowered.nodes[index as usize]
    }

    fn buffer(&mut self, index: NodeIndex) -> BufferId {
        if let Some(&buffer) = self.buffer_of.get(&index) {
            return buffer;
        }
        let node = self.node(index);
        self.buffers.push(Unplaced { dtype: node.dtype, elements: node.elements() });
        let buffer = BufferId((self.buffers.len() - 1) as u32);
        self.buffer_of.insert(index, buffer);
        buffer
    }

    fn fused(&mut self, position: usize, group: &Group, stored: &[bool]) {
        let kept_axes: Vec<usize> = (0..group.shape.len()).filter(|axis| !group.axes.contains(axis)).collect();
        let mut body = Body::default();
        let mut regs: HashMap<NodeIndex, Reg> = HashMap::new();
        let mut stores = Vec::new();
        for &index in visiting(&group.nodes) {
            let node = self.node(index).clone();
            let reduces = matches!(node.kind, Kind::Reduce { .. });
            let at = if reduces { Level::Full } else { self.groups.level[index as usize] };
            let mut operands = Vec::with_capacity(node.operands.len());
            for access in &node.operands {
                let own = self.groups.of[access.base as usize] == Some(position);
                operands.push(match regs.get(&access.base) {
                    Some(&reg) if own => reg,
                    _ => self.operand(&mut body, group, &kept_axes, at, access),
                });
            }
            let from = node.operands.last().map_or(node.dtype, |access| self.node(access.base).dtype);
            let reg = body.node(&node, from, at, &operands);
            regs.insert(index, reg);
            if stored[index as usize] {
                stores.push((index, reg));
            }
        }
        for (index, value) in stores {
            for Straight { into, offset, strides } in self.straight.targets(index, self.node(index)) {
                let buffer = self.buffer(into);
                let level = self.groups.level[index as usize];
                let view = match level {
                    Level::Full => split_view(group, &kept_axes, offset, &strides),
                    Level::Kept => View { offset, kept: strides, reduced: vec![0; group.axes.len()] },
                };
                let (dtype, pass) = (self.node(index).dtype.register(), body.steps[value.0 as usize].result_pass());
                body.steps.push(Step { instr: Instr::Store { buffer, view, value }, dtype, level, pass });
            }
        }
        let sizes = |axes: &[usize]| axes.iter().map(|&axis| group.shape[axis]).collect::<Vec<_>>();
        let kept = sizes(&kept_axes);
        if kept.contains(&0) {
            return;
        }
        let last_reduced = group.axes.contains(&(group.shape.len().wrapping_sub(1)));
        let order = if group.axes.is_empty() || last_reduced { Order::Row } else { Order::Column };
        self.kernels.push(Kernel::Row(RowKernel { kept, reduced: sizes(&group.axes), order, steps: body.steps }));
    }

    /// The register of an operand that comes from outside the group.
    fn operand(&mut self, body: &mut Body, group: &Group, kept_axes: &[usize], at: Level, access: &Access) -> Reg {
        let view = match at {
            Level::Full => split_view(group, kept_axes, access.offset, &access.strides),
            Level::Kept => {
                View { offset: access.offset, kept: access.strides.clone(), reduced: vec![0; group.axes.len()] }
            }
        };
        let base = self.node(access.base);
        let (stored, dtype) = (base.dtype, base.dtype.register());
        // What does not vary along the reduced axes is read once for all of them.
        let constant_there = !group.axes.is_empty() && view.reduced.iter().all(|&stride| stride == 0);
        let level = if constant_there { Level::Kept } else { at };
        match base.kind {
            Kind::Constant(value) => body.constant(value, dtype),
            Kind::Iota => {
                let position = body.load(Instr::Index(view), dtype, level);
                body.rounded(position, stored)
            }
            _ => {
                let buffer = self.buffer(access.base);
                body.load(Instr::Load { buffer, view }, dtype, level)
            }
        }
    }

    fn opaque(&mut self, index: NodeIndex) {
        let node = self.node(index).clone();
        let out = self.buffer(index);
        if node.elements() == 0 {
            return;
        }
        match &node.kind {
            Kind::Dot => self.dot(&node, out),
            Kind::Conv { windows } => self.conv(&node, windows, out),
            Kind::Gather { axis } => self.gather(&node, *axis, out),
            Kind::ScatterAdd { axis } => self.scatter_add(&node, *axis, out),
            Kind::Argsort { descending } => self.argsort(&node, *descending, out),
            Kind::Attention { options, reverse } => self.attention(&node, *options, *reverse, out),
            Kind::Pad { parts } => {
                if !is_covered(&node) {
                    self.kernels.push(Kernel::Fill { buffer: out, value: Scalar::of(0.0, node.dtype) });
                }
                for (operand, part) in parts.iter().enumerate() {
                    if !self.straight.has(index, operand) {
                        let (offset, kept) = placed(&node, part);
                        self.place(&node, operand, out, View { offset, kept, reduced: Vec::new() });
                    }
                }
            }
            Kind::Concatenate { axis } => {
                for (operand, (offset, kept)) in lined_up(&node, *axis).into_iter().enumerate() {
                    if !self.straight.has(index, operand) {
                        self.place(&node, operand, out, View { offset, kept, reduced: Vec::new() });
                    }
                }
            }
            Kind::Input
            | Kind::Constant(_)
            | Kind::Iota
            | Kind::Map(_)
            | Kind::Cast
            | Kind::Copy
            | Kind::Reduce { .. } => {}
        }
    }

    /// Copy an operand of an opaque node to a region of its buffer.
    fn place(&mut self, node: &Node, operand: usize, out: BufferId, view: View) {
        let shape = node.operand_shapes[operand].to_vec();
        if shape.contains(&0) {
            return;
        }
        let group = Group { shape: shape.clone(), axes: Vec::new(), stage: 0, nodes: Vec::new(), fusible: true };
        let mut body = Body::default();
        let axes: Vec<usize> = (0..shape.len()).collect();
        let value = self.operand(&mut body, &group, &axes, Level::Full, &node.operands[operand]);
        let instr = Instr::Store { buffer: out, view, value };
        body.steps.push(Step { instr, dtype: node.dtype.register(), level: Level::Full, pass: 0 });
        let kernel = RowKernel { kept: shape, reduced: Vec::new(), order: Order::Row, steps: body.steps };
        self.kernels.push(Kernel::Row(kernel));
    }

    /// An operand's last two axes as a matrix.
    fn matrix(&mut self, node: &Node, operand: usize) -> MatrixView {
        let access = &node.operands[operand];
        let buffer = self.buffer(access.base);
        let (batch, matrix) = access.strides.split_at(access.strides.len() - 2);
        MatrixView { buffer, offset: access.offset, batch: batch.to_vec(), rows: matrix[0], columns: matrix[1] }
    }

    fn dot(&mut self, node: &Node, out: BufferId) {
        let rank = node.shape.len();
        let (left, right) = (self.matrix(node, 0), self.matrix(node, 1));
        let k = node.operand_shapes[0][rank - 1];
        let (m, n) = (node.shape[rank - 2], node.shape[rank - 1]);
        let (batch, dtype) = (node.shape[..rank - 2].to_vec(), node.dtype);
        self.kernels.push(Kernel::Dot(DotKernel { dtype, batch, m, k, n, left, right, out }));
    }

    fn conv(&mut self, node: &Node, windows: &[Window], out: BufferId) {
        let mut view = |operand: usize| {
            let access = &node.operands[operand];
            conv::view(self.buffer(access.base), access.offset, &access.strides)
        };
        let (data, kernel) = (view(0), view(1));
        let whole = conv::Whole {
            dtype: node.dtype,
            data_shape: &node.operand_shapes[0],
            kernel_shape: &node.operand_shapes[1],
            out_shape: &node.shape,
            data,
            kernel,
            out: conv::view(out, 0, &contiguous(&node.shape)),
        };
        let parts = conv::parts(&whole, windows);
        if conv::covered(&parts) < node.elements() {
            self.kernels.push(Kernel::Fill { buffer: out, value: Scalar::of(0.0, node.dtype) });
        }
        self.kernels.extend(parts.into_iter().map(Kernel::Conv));
    }

    fn gather(&mut self, node: &Node, axis: usize, out: BufferId) {
        let (data, indices) = (&node.operands[0], &node.operands[1]);
        let shape = &node.operand_shapes[0];
        let kernel = GatherKernel {
            dtype: node.dtype,
            index_dtype: self.node(indices.base).dtype,
            outer: shape[..axis].iter().product(),
            axis: shape[axis],
            inner: shape[axis + 1..].iter().product(),
            count: node.operand_shapes[1].elements(),
            data: self.buffer(data.base),
            indices: self.buffer(indices.base),
            out,
        };
        self.kernels.push(Kernel::Gather(kernel));
    }

    fn scatter_add(&mut self, node: &Node, axis: usize, out: BufferId) {
        let (updates, indices) = (&node.operands[0], &node.operands[1]);
        let kernel = ScatterAddKernel {
            dtype: node.dtype,
            index_dtype: self.node(indices.base).dtype,
            outer: node.shape[..axis].iter().product(),
            axis: node.shape[axis],
            inner: node.shape[axis + 1..].iter().product(),
            count: node.operand_shapes[1].elements(),
            updates: self.buffer(updates.base),
            indices: self.buffer(indices.base),
            out,
        };
        self.kernels.push(Kernel::ScatterAdd(kernel));
    }

    fn argsort(&mut self, node: &Node, descending: bool, out: BufferId) {
        let base = node.operands[0].base;
        let length = node.shape[node.shape.len() - 1];
        let rows = node.elements() / length;
        let (dtype, data) = (self.node(base).dtype, self.buffer(base));
        self.kernels.push(Kernel::Argsort(ArgsortKernel { dtype, rows, length, descending, data, out }));
    }

    fn attention(&mut self, node: &Node, options: Attention, reverse: bool, out: BufferId) {
        let shapes = &node.operand_shapes;
        let sizes = Sizes::new(&shapes[0], &shapes[1], &shapes[2]);
        let reverse = reverse.then(|| AttentionReverse {
            log_sums: self.matrix(node, 3),
            delta: self.matrix(node, 4),
            cotangent: self.matrix(node, 5),
        });
        let mask = if reverse.is_some() { 6 } else { 3 };
        let kernel = AttentionKernel {
            dtype: node.dtype,
            batch: sizes.batch,
            queries: sizes.queries,
            keys: sizes.keys,
            width: sizes.width,
            values: sizes.values,
            causal: options.causal,
            scale: options.scale,
            query: self.matrix(node, 0),
            key: self.matrix(node, 1),
            value: self.matrix(node, 2),
            mask: (mask < node.operands.len()).then(|| self.matrix(node, mask)),
            reverse,
            out,
        };
        self.kernels.push(Kernel::Attention(Box::new(kernel)));
    }
}

/// Where a value is stored that is written straight into the pad or row that reads it.
#[derive(Clone)]
struct Straight {
    into: NodeIndex,
    offset: i64,
    strides: Vec<i64>,
}

/// The values that are.
#[derive(Default)]
struct Straights {
    of: HashMap<NodeIndex, Vec<Straight>>,
    /// Those of which nobody reads anything else.
    only: HashSet<NodeIndex>,
    /// The operands that nobody has to copy.
    done: HashSet<(NodeIndex, usize)>,
}

impl Straights {
    /// All places where the kernel that computes a value stores it.
    fn targets(&self, index: NodeIndex, node: &Node) -> Vec<Straight> {
        let own = Straight { into: index, offset: 0, strides: contiguous(&node.shape) };
        let own = (!self.only.contains(&index)).then_some(own);
        own.into_iter().chain(self.of.get(&index).into_iter().flatten().cloned()).collect()
    }

    fn has(&self, into: NodeIndex, operand: usize) -> bool {
        self.done.contains(&(into, operand))
    }
}

/// Values that others read elsewhere too are stored twice if they have no more elements.
const TWICE: usize = 256;

/// Parts of rows, and of pads that they cover, which their kernels can write there.
fn straight(lowered: &Lowered, groups: &Groups) -> Straights {
    let mut found = Straights::default();
    let joins = |node: &Node| match node.kind {
        Kind::Pad { .. } => is_covered(node),
        _ => matches!(node.kind, Kind::Concatenate { .. }),
    };
    if !lowered.nodes.iter().any(joins) {
        return found;
    }
    // How often each value is read outside its own group; an output is read outside of all.
    let mut readers = vec![0; lowered.nodes.len()];
    for (index, node) in visiting(lowered.nodes.iter().enumerate()) {
        let elsewhere = |access: &&Access| groups.of[access.base as usize] != groups.of[index];
        node.operands.iter().filter(elsewhere).for_each(|access| readers[access.base as usize] += 1);
    }
    lowered.outputs.iter().for_each(|&output| readers[output as usize] += 1);
    for (index, node) in visiting(lowered.nodes.iter().enumerate()).filter(|(_, node)| joins(node)) {
        let index = index as NodeIndex;
        let places: Vec<_> = match &node.kind {
            Kind::Pad { parts } => parts.iter().map(|part| placed(node, part)).collect(),
            Kind::Concatenate { axis } => lined_up(node, *axis),
            _ => continue,
        };
        for (operand, (offset, steps)) in places.into_iter().enumerate() {
            let (access, shape) = (&node.operands[operand], &node.operand_shapes[operand]);
            let base = &lowered.nodes[access.base as usize];
            let long = |sizes: &[usize]| (0..sizes.len()).filter(|&axis| sizes[axis] != 1).collect::<Vec<_>>();
            let (stay, own) = (long(shape), long(&base.shape));
            let whole = stay.iter().map(|&axis| shape[axis]).eq(own.iter().map(|&axis| base.shape[axis]))
                && access.offset == 0
                && same_strides(shape, &access.strides, &contiguous(shape));
            let few = readers[access.base as usize] == 1 || base.elements() <= TWICE;
            if base.is_fusible() && whole && few {
                let mut strides = vec![0; base.shape.len()];
                own.iter().zip(stay).for_each(|(&own, axis)| strides[own] = steps[axis]);
                found.of.entry(access.base).or_default().push(Straight { into: index, offset, strides });
                found.done.insert((index, operand));
            }
        }
    }
    found.only = (found.of.iter())
        .filter(|(base, places)| places.len() == readers[**base as usize])
        .map(|(&base, _)| base)
        .collect();
    found
}

/// Offset and strides of each part of a row in its buffer.
fn lined_up(row: &Node, axis: usize) -> Vec<(i64, Vec<i64>)> {
    let strides = contiguous(&row.shape);
    let mut offset = 0;
    let part = |shape: &Shape| {
        let place = (offset, strides.clone());
        offset += shape[axis] as i64 * strides[axis];
        place
    };
    row.operand_shapes.iter().map(part).collect()
}

/// Whether a pad's parts, which do not meet, leave no zeros between or around them.
fn is_covered(pad: &Node) -> bool {
    pad.operand_shapes.iter().map(Shape::elements).sum::<usize>() == pad.elements()
}

/// Offset and strides of a part of a pad in its buffer.
fn placed(pad: &Node, part: &Part) -> (i64, Vec<i64>) {
    let strides = contiguous(&pad.shape);
    let offset = part.low.iter().zip(&strides).map(|(&low, &stride)| low as i64 * stride).sum();
    let steps = part.interior.iter().zip(&strides).map(|(&between, &stride)| (between as i64 + 1) * stride);
    (offset, steps.collect())
}

/// Strides over the index space, divided into those of the kept and of the reduced axes.
fn split_view(group: &Group, kept_axes: &[usize], offset: i64, strides: &[i64]) -> View {
    let pick = |axes: &[usize]| axes.iter().map(|&axis| strides[axis]).collect();
    View { offset, kept: pick(kept_axes), reduced: pick(&group.axes) }
}

impl Step {
    /// The first pass in which what this step defines can be used.
    fn result_pass(&self) -> u32 {
        if matches!(self.instr, Instr::Reduce { .. }) { self.pass + 1 } else { self.pass }
    }
}

/// The body of a kernel under construction.
#[derive(Default)]
struct Body {
    steps: Vec<Step>,
    loads: HashMap<(Instr, Level), Reg>,
    constants: HashMap<(Scalar, DType), Reg>,
    /// Whether the node at hand computes with u8: in u32 registers, whose upper bits are cleared after what may set them.
    bytes: bool,
}

impl Body {
    fn push(&mut self, instr: Instr, dtype: DType, level: Level, pass: u32) -> Reg {
        self.steps.push(Step { instr, dtype, level, pass });
        Reg((self.steps.len() - 1) as u32)
    }

    fn load(&mut self, instr: Instr, dtype: DType, level: Level) -> Reg {
        if let Some(&reg) = self.loads.get(&(instr.clone(), level)) {
            return reg;
        }
        let reg = self.push(instr.clone(), dtype, level, 0);
        self.loads.insert((instr, level), reg);
        reg
    }

    /// The instructions of one node. `at` is the level at which it computes, `from` the dtype of its last operand.
    fn node(&mut self, node: &Node, from: DType, at: Level, operands: &[Reg]) -> Reg {
        match &node.kind {
            Kind::Map(row) => {
                self.bytes = from == DType::U8;
                let reg = (row.kernel)(self, operands);
                self.bytes = false;
                self.at_level(reg, at)
            }
            Kind::Cast => {
                let reg = self.cast(operands[0], from, node.dtype);
                self.at_level(reg, at)
            }
            Kind::Reduce { op, .. } => {
                let arg = self.at_level(operands[0], Level::Full);
                let pass = self.steps[arg.0 as usize].result_pass();
                let reg = self.push(Instr::Reduce { op: *op, arg }, node.dtype.register(), Level::Kept, pass);
                // The upper bits of a wrapped sum of u8; the least over no elements is 255.
                if node.dtype == DType::U8 { self.low_byte(reg) } else { reg }
            }
            Kind::Copy
            | Kind::Input
            | Kind::Constant(_)
            | Kind::Iota
            | Kind::Dot
            | Kind::Conv { .. }
            | Kind::Gather { .. }
            | Kind::ScatterAdd { .. }
            | Kind::Argsort { .. }
            | Kind::Attention { .. }
            | Kind::Pad { .. }
            | Kind::Concatenate { .. } => self.at_level(operands[0], at),
        }
    }

    /// A conversion that the user asked for: one to f16 or bf16 rounds here and now, though the value stays in f32.
    fn cast(&mut self, value: Reg, from: DType, to: DType) -> Reg {
        let reg = match from.register() == to.register() {
            true => value,
            false => self.prim(Prim::Cast, &[value], to.register()),
        };
        match to {
            // A float has saturated at the greatest u32.
            DType::U8 if from.is_float() => {
                let most = self.constant(Scalar::Int(255), DType::U32);
                self.binary(Prim::Min, reg, most)
            }
            _ => self.rounded(reg, to),
        }
    }

    /// The value as memory of dtype `to` holds it.
    fn rounded(&mut self, value: Reg, to: DType) -> Reg {
        match to {
            DType::F16 => self.unary(Prim::RoundF16, value),
            DType::BF16 => self.unary(Prim::RoundBf16, value),
            DType::U8 => self.low_byte(value),
            DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::Bool => value,
        }
    }

    fn low_byte(&mut self, value: Reg) -> Reg {
        let mask = self.constant(Scalar::Int(255), DType::U32);
        self.push_prim(Prim::And, &[value, mask], DType::U32)
    }

    fn push_prim(&mut self, prim: Prim, operands: &[Reg], dtype: DType) -> Reg {
        let mut args = [operands[0]; 3];
        args[..operands.len()].copy_from_slice(operands);
        let used = operands.iter().map(|reg| &self.steps[reg.0 as usize]);
        let level = if used.clone().any(|step| step.level == Level::Full) { Level::Full } else { Level::Kept };
        let pass = used.map(Step::result_pass).max().unwrap_or(0);
        self.push(Instr::Prim { prim, args }, dtype, level, pass)
    }

    /// A value that does not vary along the reduced axes may be wanted there all the same: as a sum over them, or in memory.
    fn at_level(&mut self, reg: Reg, level: Level) -> Reg {
        let step = &self.steps[reg.0 as usize];
        if level == Level::Kept || step.level == Level::Full {
            return reg;
        }
        // `x & x` and `max(x, x)` would do for some dtypes; a select does for all.
        let (dtype, pass) = (step.dtype, step.result_pass());
        let always = self.constant(Scalar::Bool(true), DType::Bool);
        self.push(Instr::Prim { prim: Prim::Select, args: [always, reg, reg] }, dtype, Level::Full, pass)
    }
}

impl Emit for Body {
    fn dtype(&self, reg: Reg) -> DType {
        self.steps[reg.0 as usize].dtype
    }

    fn constant(&mut self, value: Scalar, dtype: DType) -> Reg {
        if let Some(&reg) = self.constants.get(&(value, dtype)) {
            return reg;
        }
        let reg = self.push(Instr::Const(value), dtype, Level::Kept, 0);
        self.constants.insert((value, dtype), reg);
        reg
    }

    fn prim(&mut self, prim: Prim, operands: &[Reg], dtype: DType) -> Reg {
        if !self.bytes {
            return self.push_prim(prim, operands, dtype);
        }
        match prim {
            Prim::Neg | Prim::Add | Prim::Sub | Prim::Mul | Prim::Not => {
                let wide = self.push_prim(prim, operands, dtype);
                self.low_byte(wide)
            }
            Prim::Shl | Prim::Shr => {
                let bits = self.constant(Scalar::Int(7), DType::U32);
                let amount = self.push_prim(Prim::And, &[operands[1], bits], DType::U32);
                let wide = self.push_prim(prim, &[operands[0], amount], dtype);
                self.low_byte(wide)
            }
            // What is left keeps below 256, or gives no u8.
            _ => self.push_prim(prim, operands, dtype),
        }
    }
}
