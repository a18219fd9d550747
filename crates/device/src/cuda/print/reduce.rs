//! Reductions: what a thread accumulates, and how threads of a warp or a block combine what they have, always in the same
//! order. f32 sums of many elements accumulate in f64; all f32 sums are combined across threads in f64.

use super::prim::{cast, class, constant, extremum_of, suffix};
use super::text::{Class, Register, Text};
use raphson_compile::program::ReduceOp;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::kernel::Prim;

/// One reduction within a thread.
pub struct Accumulator {
    op: ReduceOp,
    /// Of the elements.
    dtype: DType,
    /// Of `value`.
    inner: DType,
    value: Register,
    /// Where the value stands (argmax); `NOWHERE` before the first element.
    position: Option<Register>,
}

const NOWHERE: i64 = i32::MAX as i64;

/// What combines with anything without changing it, and what a reduction over no elements gives.
pub fn identity(op: ReduceOp, dtype: DType) -> Scalar {
    match (op, dtype) {
        (ReduceOp::Sum, _) => Scalar::of(0.0, dtype),
        (ReduceOp::Prod, _) => Scalar::of(1.0, dtype),
        (ReduceOp::Max | ReduceOp::ArgMax, DType::I32) => Scalar::Int(i64::from(i32::MIN)),
        (ReduceOp::Max | ReduceOp::ArgMax, DType::I64) => Scalar::Int(i64::MIN),
        (ReduceOp::Max | ReduceOp::ArgMax, DType::U32 | DType::U8 | DType::Bool) => Scalar::of(0.0, dtype),
        (ReduceOp::Max | ReduceOp::ArgMax, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => {
            Scalar::Float(f64::NEG_INFINITY)
        }
        (ReduceOp::Min, DType::I32) => Scalar::Int(i64::from(i32::MAX)),
        (ReduceOp::Min, DType::I64) => Scalar::Int(i64::MAX),
        (ReduceOp::Min, DType::U32 | DType::U8) => Scalar::Int(i64::from(u32::MAX)),
        (ReduceOp::Min, DType::Bool) => Scalar::Bool(true),
        (ReduceOp::Min, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => Scalar::Float(f64::INFINITY),
    }
}

impl Accumulator {
    /// Start over elements of `dtype`. `long`: a thread sees so many that f32 would lose digits.
    pub fn new(text: &mut Text, op: ReduceOp, dtype: DType, long: bool) -> Accumulator {
        let widens = dtype == DType::F32 && (op == ReduceOp::Prod || (op == ReduceOp::Sum && long));
        let inner = if widens { DType::F64 } else { dtype };
        let value = constant(text, identity(op, inner), inner);
        let position = (op == ReduceOp::ArgMax).then(|| text.word("mov.b32", &[&NOWHERE]));
        Accumulator { op, dtype, inner, value, position }
    }

    /// Whether elements need their positions.
    pub fn wants_positions(&self) -> bool {
        self.position.is_some()
    }

    /// Take neighbouring elements; `positions` are theirs where they are wanted.
    pub fn take(&mut self, text: &mut Text, elements: &[Register], positions: &[Register]) {
        let mut elements = elements.to_vec();
        // Neighbours are summed in pairs first: fewer conversions, and a shorter chain of roundings.
        while self.op == ReduceOp::Sum && elements.len() > 1 && elements.len().is_multiple_of(2) {
            let pairs = elements.chunks_exact(2);
            elements = pairs.map(|pair| binary(text, ReduceOp::Sum, self.dtype, pair[0], pair[1])).collect();
        }
        for (at, &element) in elements.iter().enumerate() {
            let element = cast(text, self.dtype, self.inner, element);
            self.combine(text, element, positions.get(at).copied());
        }
    }

    /// Combine with another value of the accumulating dtype, in place.
    fn combine(&mut self, text: &mut Text, value: Register, position: Option<Register>) {
        let movement = format!("mov.{}", self.value.class.untyped());
        if let (Some(own), Some(other)) = (self.position, position) {
            let better = self.is_better(text, value, other, own);
            let select = format!("selp.{}", self.value.class.untyped());
            text.set(self.value, &select, &[&value, &self.value, &better]);
            text.set(own, "selp.b32", &[&other, &own, &better]);
            return;
        }
        let combined = binary(text, self.op, self.inner, self.value, value);
        text.set(self.value, &movement, &[&combined]);
    }

    /// Whether (value, position) comes before what is held: greater, NaN counting as the greatest, or alike and earlier.
    fn is_better(&self, text: &mut Text, value: Register, position: Register, own: Register) -> Register {
        let kind = suffix(self.inner);
        let mut greater = text.predicate(&format!("setp.gt.{kind}"), &[&value, &self.value]);
        let mut alike = text.predicate(&format!("setp.eq.{kind}"), &[&value, &self.value]);
        if self.inner.is_float() {
            let nan = text.predicate(&format!("setp.nan.{kind}"), &[&value, &value]);
            let own_nan = text.predicate(&format!("setp.nan.{kind}"), &[&self.value, &self.value]);
            let both = text.predicate("and.pred", &[&nan, &own_nan]);
            alike = text.predicate("or.pred", &[&alike, &both]);
            let own_number = text.predicate("not.pred", &[&own_nan]);
            let only = text.predicate("and.pred", &[&nan, &own_number]);
            greater = text.predicate("or.pred", &[&greater, &only]);
        }
        let earlier = text.predicate("setp.lt.s32", &[&position, &own]);
        let tie = text.predicate("and.pred", &[&alike, &earlier]);
        text.predicate("or.pred", &[&greater, &tie])
    }

    /// Before threads combine: f32 sums go on in f64.
    pub fn widen(&mut self, text: &mut Text) {
        if self.op == ReduceOp::Sum && self.inner == DType::F32 {
            self.value = text.double("cvt.f64.f32", &[&self.value]);
            self.inner = DType::F64;
        }
    }

    /// Combine over groups of `width` neighbouring lanes (a power of two up to 32), so that all of them have the result.
    pub fn combine_lanes(&mut self, text: &mut Text, width: u32) {
        let mut distance = width / 2;
        while distance > 0 {
            let other = exchange(text, self.value, distance);
            let position = self.position.map(|position| exchange(text, position, distance));
            self.combine(text, other, position);
            distance /= 2;
        }
    }

    /// Bytes of one value in shared memory.
    pub fn bytes(&self) -> u32 {
        let value = self.inner.size_bytes() as u32;
        if self.position.is_some() { value.max(4) + 8 } else { value }.next_multiple_of(if value == 8 { 8 } else { 4 })
    }

    /// Where the position stands behind the value.
    const POSITION: i32 = 8;

    /// Write to shared memory.
    pub fn store(&self, text: &mut Text, guard: Option<Register>, address: Register) {
        let kind = class(self.inner).untyped();
        text.act_if(guard, &format!("st.shared.{kind}"), &[&format!("[{address}]"), &self.value]);
        if let Some(position) = self.position {
            text.act_if(guard, "st.shared.b32", &[&format!("[{address}+{}]", Self::POSITION), &position]);
        }
    }

    /// Read from shared memory in place of what is held.
    pub fn load(&mut self, text: &mut Text, address: Register) {
        let kind = class(self.inner).untyped();
        self.value = text.op(class(self.inner), &format!("ld.shared.{kind}"), &[&format!("[{address}]")]);
        if self.position.is_some() {
            let position = text.word("ld.shared.b32", &[&format!("[{address}+{}]", Self::POSITION)]);
            self.position = Some(position);
        }
    }

    /// Combine what is held with a value in shared memory.
    pub fn combine_shared(&mut self, text: &mut Text, address: Register) {
        let (value, position) = (self.value, self.position);
        self.load(text, address);
        let (other, other_position) = (self.value, self.position);
        (self.value, self.position) = (value, position);
        self.combine(text, other, other_position);
    }

    /// The result.
    pub fn finish(&self, text: &mut Text) -> Register {
        match self.position {
            Some(position) => position,
            None => cast(text, self.inner, self.dtype, self.value),
        }
    }
}

/// The value that the lane at this distance (as an exclusive or of lane numbers) holds.
fn exchange(text: &mut Text, value: Register, distance: u32) -> Register {
    let shuffle = |text: &mut Text, class: Class, word: Register| {
        text.op(class, "shfl.sync.bfly.b32", &[&word, &distance, &31, &"0xFFFFFFFF"])
    };
    if !matches!(value.class, Class::Double | Class::Long) {
        return shuffle(text, value.class, value);
    }
    let (low, high) = (text.fresh(Class::Word), text.fresh(Class::Word));
    text.act("mov.b64", &[&format!("{{{low}, {high}}}"), &value]);
    let (low, high) = (shuffle(text, Class::Word, low), shuffle(text, Class::Word, high));
    text.op(value.class, "mov.b64", &[&format!("{{{low}, {high}}}")])
}

/// Two values as one.
fn binary(text: &mut Text, op: ReduceOp, dtype: DType, a: Register, b: Register) -> Register {
    let opcode = |name: &str, whole: &str| match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => format!("{name}.rn.{}", suffix(dtype)),
        DType::I32 | DType::U32 | DType::U8 | DType::I64 | DType::Bool => format!("{whole}.{}", suffix(dtype)),
    };
    match op {
        ReduceOp::Sum => text.op(class(dtype), &opcode("add", "add"), &[&a, &b]),
        ReduceOp::Prod => text.op(class(dtype), &opcode("mul", "mul.lo"), &[&a, &b]),
        ReduceOp::Max | ReduceOp::ArgMax => extremum_of(text, Prim::Max, dtype, a, b),
        ReduceOp::Min => extremum_of(text, Prim::Min, dtype, a, b),
    }
}
