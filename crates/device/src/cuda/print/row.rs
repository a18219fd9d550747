//! Row kernels, from analysis to text: which values are the same everywhere, which once for each row, and the body that
//! computes the rest at a point (of one or four neighbouring elements). How threads share out the points is in `team`.

use super::Launch;
use super::parameters::Parameters;
use super::prim;
use super::space::{Point, Walk, merge};
use super::storage::{memory_class, memory_type, pack, unpack};
use super::text::{Class, Register, Text};
use raphson_compile::program::{Buffer, BufferId, Instr, Level, RowKernel, Step, View};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::{Prim, Reg};
use std::collections::HashMap;

/// A value at the lanes of a point.
#[derive(Clone, Debug)]
pub enum Value {
    /// The same at every lane.
    Same(Register),
    Each(Vec<Register>),
}

impl Value {
    pub fn lane(&self, lane: usize) -> Register {
        match self {
            Value::Same(register) => *register,
            Value::Each(registers) => registers[lane],
        }
    }
}

/// A row kernel in the course of printing. A kernel without reductions has no outer axes: its kept axes are walked as the
/// inner ones.
pub struct Row<'a> {
    pub text: Text,
    pub parameters: Parameters,
    pub steps: &'a [Step],
    buffers: &'a [Buffer],
    /// Sizes of the merged axes: one point of the outer space is a row, over whose inner space reductions run.
    pub outer: Vec<usize>,
    pub inner: Vec<usize>,
    /// Views over the merged axes, by step; `kept` over the outer, `reduced` over the inner ones.
    views: Vec<Option<View>>,
    /// Whether something stored depends on the step.
    live: Vec<bool>,
    pub levels: Vec<Level>,
    /// Values that are the same at all points of a row, as far as they have been computed.
    pub kept: Vec<Option<Register>>,
    /// Addresses (index values) of a row's first element, by step.
    bases: Vec<Option<Register>>,
    /// Whether reductions are over one element, so that they are the element.
    pub flat: bool,
}

fn bug(message: impl Into<String>) -> Error {
    Error::internal("kernel", message)
}

/// The registers that an instruction reads.
pub fn operands(instr: &Instr) -> &[Reg] {
    match instr {
        Instr::Load { .. } | Instr::Const(_) | Instr::Index(_) => &[],
        Instr::Prim { prim, args } => &args[..prim.arity()],
        Instr::Reduce { arg, .. } => std::slice::from_ref(arg),
        Instr::Store { value, .. } => std::slice::from_ref(value),
    }
}

fn view(instr: &Instr) -> Option<&View> {
    match instr {
        Instr::Load { view, .. } | Instr::Store { view, .. } | Instr::Index(view) => Some(view),
        Instr::Const(_) | Instr::Prim { .. } | Instr::Reduce { .. } => None,
    }
}

impl<'a> Row<'a> {
    /// Analyse a kernel.
    pub fn new(kernel: &'a RowKernel, buffers: &'a [Buffer]) -> Result<Row<'a>> {
        let steps = &kernel.steps[..];
        let mut views: Vec<Option<View>> = steps.iter().map(|step| view(&step.instr).cloned()).collect();
        for view in views.iter().flatten() {
            if view.kept.len() != kernel.kept.len() || view.reduced.len() != kernel.reduced.len() {
                return Err(bug("a view has another rank than its kernel"));
            }
        }
        let mut kept: Vec<&mut Vec<i64>> = views.iter_mut().flatten().map(|view| &mut view.kept).collect();
        let mut outer = merge(&kernel.kept, &mut kept);
        let mut reduced: Vec<&mut Vec<i64>> = views.iter_mut().flatten().map(|view| &mut view.reduced).collect();
        let mut inner = merge(&kernel.reduced, &mut reduced);
        let flat = inner.is_empty();
        let mut levels: Vec<Level> = steps.iter().map(|step| step.level).collect();
        if flat {
            levels.fill(Level::Full);
            (inner, outer) = (outer, inner);
            views.iter_mut().flatten().for_each(|view| std::mem::swap(&mut view.kept, &mut view.reduced));
        }
        let none = vec![None; steps.len()];
        let mut row = Row {
            text: Text::default(),
            parameters: Parameters::default(),
            steps,
            buffers,
            outer,
            inner,
            views,
            live: vec![false; steps.len()],
            levels,
            kept: none.clone(),
            bases: none,
            flat,
        };
        row.check()?;
        row.parameters();
        row.uniform()?;
        Ok(row)
    }

    /// Every operand is defined before its use, and every access stays inside its buffer. Marks what is live.
    fn check(&mut self) -> Result<()> {
        for (i, step) in self.steps.iter().enumerate() {
            for &Reg(arg) in operands(&step.instr) {
                let defines = |arg: u32| !matches!(self.steps[arg as usize].instr, Instr::Store { .. });
                if arg as usize >= i || !defines(arg) {
                    return Err(bug(format!("step {i} reads register {arg}, which is not defined before it")));
                }
            }
            if let (Instr::Load { buffer, .. } | Instr::Store { buffer, .. }, Some(view)) =
                (&step.instr, &self.views[i])
            {
                self.check_bounds(*buffer, view, i)?;
            }
        }
        for i in (0..self.steps.len()).rev() {
            self.live[i] |= matches!(self.steps[i].instr, Instr::Store { .. });
            if self.live[i] {
                operands(&self.steps[i].instr).iter().for_each(|arg| self.live[arg.0 as usize] = true);
            }
        }
        Ok(())
    }

    /// The dtype in memory of what step `i` reads or writes; of other steps, that of their register.
    fn stored_dtype(&self, i: usize) -> DType {
        match &self.steps[i].instr {
            Instr::Load { buffer, .. } | Instr::Store { buffer, .. } => self.buffers[buffer.0 as usize].dtype,
            Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => self.steps[i].dtype,
        }
    }

    fn check_bounds(&self, id: BufferId, view: &View, i: usize) -> Result<()> {
        let buffer = self.buffers.get(id.0 as usize).ok_or_else(|| bug(format!("no buffer {}", id.0)))?;
        if buffer.dtype.register() != self.steps[i].dtype {
            return Err(bug(format!("buffer {} is {}, its access {}", id.0, buffer.dtype, self.steps[i].dtype)));
        }
        let (mut least, mut most) = (view.offset, view.offset);
        let full = self.levels[i] == Level::Full;
        let axes = self.outer.iter().zip(&view.kept).chain(self.inner.iter().zip(&view.reduced).filter(|_| full));
        for (&size, &stride) in axes {
            if size == 0 {
                return Ok(());
            }
            let reach = stride * (size as i64 - 1);
            (least, most) = (least + reach.min(0), most + reach.max(0));
        }
        if least >= 0 && most < buffer.elements as i64 {
            return Ok(());
        }
        Err(bug(format!("a view reaches {least}..={most} of buffer {} of {} elements", id.0, buffer.elements)))
    }

    /// Whether step `i` has a place in the kernel.
    pub fn is_live(&self, i: usize) -> bool {
        self.live[i]
    }

    fn parameters(&mut self) {
        for (i, step) in self.steps.iter().enumerate() {
            if let Instr::Load { buffer, .. } | Instr::Store { buffer, .. } = &step.instr
                && self.live[i]
            {
                self.parameters.pointer(&mut self.text, *buffer);
            }
        }
    }

    fn is_stored(&self, id: BufferId) -> bool {
        let place = |id: BufferId| super::parameters::memory(self.buffers, id);
        self.steps.iter().any(|step| matches!(&step.instr, Instr::Store { buffer, .. } if place(*buffer) == place(id)))
    }

    /// Compute once for each thread what is the same at all points: constants, single elements, and what follows from them.
    fn uniform(&mut self) -> Result<()> {
        for (i, step) in self.steps.iter().enumerate() {
            if !self.live[i] {
                continue;
            }
            let still = self.views[i].as_ref().is_some_and(|v| v.kept.iter().chain(&v.reduced).all(|&s| s == 0));
            let exists = self.levels[i] == Level::Kept || !self.inner.contains(&0);
            let known = match &step.instr {
                Instr::Const(value) => Some(prim::constant(&mut self.text, *value, step.dtype)),
                Instr::Load { buffer, view } if still && exists && !self.is_stored(*buffer) => {
                    let pointer = self.parameters.pointer(&mut self.text, *buffer);
                    let dtype = self.stored_dtype(i);
                    let address = self.text.displaced(pointer, view.offset * dtype.size_bytes() as i64);
                    Some(load(&mut self.text, dtype, address, 0))
                }
                Instr::Index(view) if still => {
                    let value = Scalar::of(view.offset as f64, step.dtype);
                    Some(prim::constant(&mut self.text, value, step.dtype))
                }
                Instr::Prim { prim, args } => {
                    let args: Option<Vec<Register>> =
                        args[..prim.arity()].iter().map(|arg| self.kept[arg.0 as usize]).collect();
                    match args {
                        Some(args) => Some(self.prim(i, *prim, &args)?),
                        None => None,
                    }
                }
                Instr::Load { .. } | Instr::Index(_) | Instr::Reduce { .. } | Instr::Store { .. } => None,
            };
            self.kept[i] = known;
        }
        Ok(())
    }

    fn prim(&mut self, i: usize, prim: Prim, args: &[Register]) -> Result<Register> {
        let Instr::Prim { args: regs, .. } = &self.steps[i].instr else { return Err(bug("not a primitive")) };
        let from = self.steps[regs[prim.arity() - 1].0 as usize].dtype;
        prim::emit(&mut self.text, prim, from, self.steps[i].dtype, args)
    }

    /// At the start of a row: the addresses of its accesses, and what is read once for the row.
    pub fn begin_row(&mut self, row: Option<Register>, exists: Option<Register>) -> Result<()> {
        let walk = Walk::new(&self.outer, 1);
        let mut point = row.map(Point::new);
        let mut same: HashMap<(Option<BufferId>, i64, Vec<i64>, DType), Register> = HashMap::new();
        for (i, step) in self.steps.iter().enumerate() {
            let Some(view) = self.views[i].clone().filter(|_| self.live[i] && self.kept[i].is_none()) else { continue };
            let buffer = match &step.instr {
                Instr::Load { buffer, .. } | Instr::Store { buffer, .. } => Some(*buffer),
                _ => None,
            };
            let key = (buffer, view.offset, view.kept.clone(), step.dtype);
            let base = match same.get(&key) {
                Some(&base) => base,
                None => {
                    let base = match buffer {
                        Some(buffer) => {
                            let size = self.stored_dtype(i).size_bytes() as i64;
                            let pointer = self.parameters.pointer(&mut self.text, buffer);
                            let pointer = self.text.displaced(pointer, view.offset * size);
                            let strides: Vec<i64> = view.kept.iter().map(|stride| stride * size).collect();
                            match &mut point {
                                Some(point) => walk.displace(&mut self.text, point, pointer, &strides),
                                None => pointer,
                            }
                        }
                        None => {
                            let start = self.index_start(i, view.offset);
                            match &mut point {
                                Some(point) if start.class == Class::Word => {
                                    walk.displace_narrow(&mut self.text, point, start, &view.kept)
                                }
                                Some(point) => walk.displace(&mut self.text, point, start, &view.kept),
                                None => start,
                            }
                        }
                    };
                    same.insert(key, base);
                    base
                }
            };
            self.bases[i] = Some(base);
            if self.levels[i] == Level::Kept {
                self.kept[i] = match &step.instr {
                    Instr::Load { .. } => {
                        let dtype = self.stored_dtype(i);
                        Some(load_if(&mut self.text, exists, dtype, base, 0))
                    }
                    Instr::Index(_) => Some(index_value(&mut self.text, base, step.dtype)),
                    _ => None,
                };
            }
        }
        Ok(())
    }

    /// The offset of an index value, in 32 bits if all its values fit.
    fn index_start(&mut self, i: usize, offset: i64) -> Register {
        let reach = self.views[i].as_ref().map_or(0, |view| {
            let outer = self.outer.iter().zip(&view.kept);
            let all = outer.chain(self.inner.iter().zip(&view.reduced));
            all.map(|(&size, &stride)| size as i64 * stride.abs()).sum::<i64>()
        });
        if offset.abs() + reach < i64::from(i32::MAX) {
            self.text.word("mov.b32", &[&offset])
        } else {
            self.text.long("mov.b64", &[&offset])
        }
    }

    /// Compute what is the same for the whole row, as far as its operands are known.
    pub fn advance_kept(&mut self) -> Result<()> {
        for (i, step) in self.steps.iter().enumerate() {
            if let Instr::Prim { prim, args } = &step.instr
                && self.live[i]
                && self.levels[i] == Level::Kept
                && self.kept[i].is_none()
            {
                let args: Option<Vec<Register>> =
                    args[..prim.arity()].iter().map(|arg| self.kept[arg.0 as usize]).collect();
                if let Some(args) = args {
                    self.kept[i] = Some(self.prim(i, *prim, &args)?);
                }
            }
        }
        Ok(())
    }

    /// Store what is one value for the row.
    pub fn store_kept(&mut self, guard: Option<Register>) -> Result<()> {
        for (i, step) in self.steps.iter().enumerate() {
            if let Instr::Store { value, .. } = &step.instr
                && self.levels[i] == Level::Kept
            {
                let missing = || bug(format!("step {i} stores a value that is not known for the row"));
                let register = self.kept[value.0 as usize].ok_or_else(missing)?;
                let base = self.bases[i].ok_or_else(missing)?;
                let dtype = self.stored_dtype(i);
                store(&mut self.text, guard, dtype, base, 0, register);
            }
        }
        Ok(())
    }

    /// Compute everything that the steps `roots` (stores and reductions) need at a point of the inner space; carry out the
    /// stores among them. Returns the values by step.
    pub fn body(
        &mut self,
        roots: &[usize],
        walk: &Walk,
        position: Register,
        guard: Option<Register>,
    ) -> Result<Vec<Option<Value>>> {
        let mut needed = vec![false; self.steps.len()];
        roots.iter().for_each(|&root| needed[root] = true);
        for i in (0..self.steps.len()).rev() {
            if needed[i] && self.kept[i].is_none() {
                operands(&self.steps[i].instr).iter().for_each(|arg| needed[arg.0 as usize] = true);
            }
        }
        let mut point = Point::new(position);
        let mut values: Vec<Option<Value>> = self.kept.iter().map(|kept| kept.map(Value::Same)).collect();
        for (i, step) in self.steps.iter().enumerate() {
            if !needed[i] || values[i].is_some() {
                continue;
            }
            values[i] = match &step.instr {
                Instr::Load { .. } => Some(self.load(i, walk, &mut point)?),
                Instr::Index(_) => Some(self.index(i, walk, &mut point)?),
                Instr::Prim { prim, args } => Some(self.map(i, *prim, &args[..prim.arity()], walk.lanes, &values)?),
                Instr::Reduce { op, arg } if self.flat => Some(self.single(*op, *arg, &values)?),
                Instr::Const(_) | Instr::Reduce { .. } | Instr::Store { .. } => None,
            };
        }
        for &i in roots {
            if let Instr::Store { value, .. } = &self.steps[i].instr {
                let value = values[value.0 as usize].clone().ok_or_else(|| bug(format!("step {i} has no operand")))?;
                self.store(i, walk, &mut point, guard, &value)?;
            }
        }
        Ok(values)
    }

    /// A reduction over one element.
    fn single(&mut self, op: raphson_compile::program::ReduceOp, arg: Reg, values: &[Option<Value>]) -> Result<Value> {
        if op == raphson_compile::program::ReduceOp::ArgMax {
            return Ok(Value::Same(prim::constant(&mut self.text, Scalar::Int(0), DType::I32)));
        }
        values[arg.0 as usize].clone().ok_or_else(|| bug("a reduction has no operand"))
    }

    fn map(&mut self, i: usize, prim: Prim, args: &[Reg], lanes: usize, values: &[Option<Value>]) -> Result<Value> {
        let mut operands: Vec<&Value> = Vec::with_capacity(args.len());
        for arg in args {
            let missing = || bug(format!("step {i} reads register {} before it is known", arg.0));
            operands.push(values[arg.0 as usize].as_ref().ok_or_else(missing)?);
        }
        let same = operands.iter().all(|value| matches!(value, Value::Same(_)));
        let mut results = Vec::with_capacity(lanes);
        for lane in 0..if same { 1 } else { lanes } {
            let args: Vec<Register> = operands.iter().map(|value| value.lane(lane)).collect();
            results.push(self.prim(i, prim, &args)?);
        }
        Ok(if same { Value::Same(results[0]) } else { Value::Each(results) })
    }

    /// Where an access of step `i` stands at a point: the address of its first lane, the stride between lanes in bytes, and
    /// whether the lanes can be moved as one.
    fn access(&mut self, i: usize, walk: &Walk, point: &mut Point) -> Result<(Register, i64, bool)> {
        let missing = || bug(format!("step {i} has no address"));
        let (base, view) = (self.bases[i].ok_or_else(missing)?, self.views[i].clone().ok_or_else(missing)?);
        let size = self.stored_dtype(i).size_bytes() as i64;
        let strides: Vec<i64> = view.reduced.iter().map(|stride| stride * size).collect();
        let address = walk.displace(&mut self.text, point, base, &strides);
        let between = strides.last().copied().unwrap_or(0);
        let whole = size * walk.lanes as i64;
        let others = view.kept.iter().map(|stride| stride * size).chain(strides[..strides.len().max(1) - 1].to_vec());
        let aligned = (view.offset * size) % whole == 0 && others.into_iter().all(|stride| stride % whole == 0);
        Ok((address, between, walk.lanes > 1 && between == size && aligned))
    }

    fn load(&mut self, i: usize, walk: &Walk, point: &mut Point) -> Result<Value> {
        let dtype = self.stored_dtype(i);
        let (address, between, together) = self.access(i, walk, point)?;
        if between == 0 || walk.lanes == 1 {
            return Ok(Value::Same(load(&mut self.text, dtype, address, 0)));
        }
        if together {
            return Ok(Value::Each(load_together(&mut self.text, dtype, address, walk.lanes)));
        }
        let each = (0..walk.lanes).map(|lane| load(&mut self.text, dtype, address, lane as i64 * between)).collect();
        Ok(Value::Each(each))
    }

    fn store(
        &mut self,
        i: usize,
        walk: &Walk,
        point: &mut Point,
        guard: Option<Register>,
        value: &Value,
    ) -> Result<()> {
        let dtype = self.stored_dtype(i);
        let (address, between, together) = self.access(i, walk, point)?;
        let lanes: Vec<Register> = (0..walk.lanes).map(|lane| value.lane(lane)).collect();
        if together {
            store_together(&mut self.text, guard, dtype, address, &lanes);
            return Ok(());
        }
        for (lane, &register) in lanes.iter().enumerate() {
            store(&mut self.text, guard, dtype, address, lane as i64 * between, register);
        }
        Ok(())
    }

    fn index(&mut self, i: usize, walk: &Walk, point: &mut Point) -> Result<Value> {
        let missing = || bug(format!("step {i} has no start"));
        let (base, view) = (self.bases[i].ok_or_else(missing)?, self.views[i].clone().ok_or_else(missing)?);
        let dtype = self.steps[i].dtype;
        let narrow = base.class == Class::Word;
        let first = if narrow {
            walk.displace_narrow(&mut self.text, point, base, &view.reduced)
        } else {
            walk.displace(&mut self.text, point, base, &view.reduced)
        };
        let between = view.reduced.last().copied().unwrap_or(0);
        let mut lanes = Vec::with_capacity(walk.lanes);
        for lane in 0..if between == 0 { 1 } else { walk.lanes } {
            let by = lane as i64 * between;
            let value = match (by, narrow) {
                (0, _) => first,
                (_, true) => self.text.word("add.s32", &[&first, &by]),
                (_, false) => self.text.displaced(first, by),
            };
            lanes.push(index_value(&mut self.text, value, dtype));
        }
        Ok(if lanes.len() == 1 { Value::Same(lanes[0]) } else { Value::Each(lanes) })
    }

    /// The finished launch.
    pub fn launch(self, blocks: usize, threads: u32) -> Result<Launch> {
        Launch::new("row", &self.text, self.parameters.finish(), blocks, threads)
    }
}

/// An integer in a register of either width as a value of a dtype.
fn index_value(text: &mut Text, value: Register, dtype: DType) -> Register {
    let narrow = value.class == Class::Word;
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            let from = if narrow { "s32" } else { "s64" };
            text.op(prim::class(dtype), &format!("cvt.rn.{}.{from}", prim::suffix(dtype)), &[&value])
        }
        DType::I64 if narrow => text.long("cvt.s64.s32", &[&value]),
        DType::I64 => value,
        DType::I32 | DType::U32 | DType::U8 if narrow => value,
        DType::I32 | DType::U32 | DType::U8 => text.word("cvt.u32.u64", &[&value]),
        DType::Bool => text.predicate(if narrow { "setp.ne.s32" } else { "setp.ne.s64" }, &[&value, &0]),
    }
}

/// Read one element.
pub fn load(text: &mut Text, dtype: DType, address: Register, offset: i64) -> Register {
    load_if(text, None, dtype, address, offset)
}

/// Read one element where `guard` holds; elsewhere it is anything.
pub fn load_if(text: &mut Text, guard: Option<Register>, dtype: DType, address: Register, offset: i64) -> Register {
    let loaded = text.fresh(memory_class(dtype));
    text.act_if(guard, &format!("ld.global.{}", memory_type(dtype)), &[&loaded, &format!("[{address}+{offset}]")]);
    unpack(text, dtype, loaded)
}

/// Read neighbouring elements, 16 bytes (of narrow ones: all) at a time.
fn load_together(text: &mut Text, dtype: DType, address: Register, lanes: usize) -> Vec<Register> {
    let registers: Vec<Register> = (0..lanes).map(|_| text.fresh(memory_class(dtype))).collect();
    let at_once = at_once(dtype, lanes);
    for (part, chunk) in registers.chunks(at_once).enumerate() {
        let place = format!("[{address}+{}]", part * at_once * dtype.size_bytes());
        text.act(&format!("ld.global.v{at_once}.{}", memory_type(dtype)), &[&list(chunk), &place]);
    }
    registers.into_iter().map(|loaded| unpack(text, dtype, loaded)).collect()
}

fn at_once(dtype: DType, lanes: usize) -> usize {
    lanes.min(16 / dtype.size_bytes())
}

pub fn list(registers: &[Register]) -> String {
    let names: Vec<String> = registers.iter().map(Register::to_string).collect();
    format!("{{{}}}", names.join(", "))
}

/// Write one element.
pub fn store(text: &mut Text, guard: Option<Register>, dtype: DType, address: Register, offset: i64, value: Register) {
    let packed = pack(text, dtype, value);
    text.act_if(guard, &format!("st.global.{}", memory_type(dtype)), &[&format!("[{address}+{offset}]"), &packed]);
}

fn store_together(text: &mut Text, guard: Option<Register>, dtype: DType, address: Register, lanes: &[Register]) {
    let packed: Vec<Register> = lanes.iter().map(|&lane| pack(text, dtype, lane)).collect();
    let at_once = at_once(dtype, lanes.len());
    for (part, chunk) in packed.chunks(at_once).enumerate() {
        let place = format!("[{address}+{}]", part * at_once * dtype.size_bytes());
        text.act_if(guard, &format!("st.global.v{at_once}.{}", memory_type(dtype)), &[&place, &list(chunk)]);
    }
}
