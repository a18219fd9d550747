//! Lazy values: handles on nodes of a growing graph. Building one checks shapes and dtypes and computes nothing. A
//! value may later be *realised* (given a stored result by a session); it then acts as a leaf.

use crate::dtype::DType;
use crate::op::Op;
use crate::shape::Shape;
use crate::work::visit;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The stored result of a realised value; only the session that made it knows what is inside.
pub type Payload = Arc<dyn Any + Send + Sync>;

/// A handle on a node. Cloning is cheap; the node lives as long as any handle on it or on something built from it.
#[derive(Clone)]
pub struct Value(Arc<Node>);

struct Node {
    id: u64,
    op: Op,
    shape: Shape,
    dtype: DType,
    inputs: Mutex<Vec<Value>>,
    payload: OnceLock<Payload>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Value {
    /// A node of known shape and dtype. Only op modules call this, after their checks.
    pub(crate) fn node(op: Op, inputs: Vec<Value>, shape: Shape, dtype: DType) -> Value {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Value(Arc::new(Node { id, op, shape, dtype, inputs: Mutex::new(inputs), payload: OnceLock::new() }))
    }

    /// A placeholder that a run of a compiled graph gives a value to.
    pub fn input(shape: Shape, dtype: DType) -> Value {
        Value::node(Op::Input, Vec::new(), shape, dtype)
    }

    /// A leaf that is realised from the start.
    pub fn data(shape: Shape, dtype: DType, payload: Payload) -> Value {
        let value = Value::node(Op::Input, Vec::new(), shape, dtype);
        value.realise(payload);
        value
    }

    /// A number that no other node ever has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The op that computes this value.
    pub fn op(&self) -> &Op {
        &self.0.op
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Operands (none for leaves and for realised values that forgot their history).
    pub fn inputs(&self) -> Vec<Value> {
        self.lock_inputs().clone()
    }

    /// The stored result, if there is one.
    pub fn payload(&self) -> Option<&Payload> {
        self.0.payload.get()
    }

    /// Whether this is a realised leaf that so many hold, this one included, and nobody else: no other value is made of it.
    pub fn is_leaf_of(&self, holders: usize) -> bool {
        Arc::strong_count(&self.0) == holders && *self.op() == Op::Input && self.payload().is_some()
    }

    /// Store a result. The first one stays.
    pub fn realise(&self, payload: Payload) {
        // A second evaluation of the same value yields the same numbers: keeping the first loses nothing.
        let _ = self.0.payload.set(payload);
    }

    /// Drop the operands of a realised value, so that their memory can go. Derivatives no longer reach through it.
    pub fn forget_history(&self) {
        if self.payload().is_some() {
            release(std::mem::take(&mut *self.lock_inputs()));
        }
    }

    fn lock_inputs(&self) -> std::sync::MutexGuard<'_, Vec<Value>> {
        // The guarded vector is never left half-written, so a poisoned lock is still sound.
        self.0.inputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl PartialEq for Value {
    /// Identity of the node, not equality of contents.
    fn eq(&self, other: &Value) -> bool {
        self.id() == other.id()
    }
}
impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{} = {:?} : {} {}", self.id(), self.op(), self.dtype(), self.shape())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let inputs = self.inputs.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        release(std::mem::take(inputs));
    }
}

/// Drop values without recursion: a chain of a million nodes must not overflow the stack.
fn release(mut pending: Vec<Value>) {
    while let Some(value) = pending.pop() {
        if let Some(mut node) = Arc::into_inner(value.0) {
            let inputs = node.inputs.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            pending.append(inputs);
        }
    }
}

/// All nodes that `outputs` depend on (themselves included), each once, operands before users. Realised values are
/// leaves where `through_realised` is false.
pub fn topological_order(outputs: &[Value], through_realised: bool) -> Vec<Value> {
    let mut order = Vec::new();
    let mut seen = std::collections::HashSet::new();
    // (node, its operands, how many of them were visited)
    let mut stack: Vec<(Value, Vec<Value>, usize)> = Vec::new();
    let operands = |value: &Value| {
        if !through_realised && value.payload().is_some() { Vec::new() } else { value.inputs() }
    };
    for output in outputs {
        if seen.insert(output.id()) {
            stack.push((output.clone(), operands(output), 0));
        }
        while let Some((_, inputs, next)) = stack.last_mut() {
            if let Some(input) = inputs.get(*next).cloned() {
                *next += 1;
                visit(1);
                if seen.insert(input.id()) {
                    let inputs = operands(&input);
                    stack.push((input, inputs, 0));
                }
            } else if let Some((value, _, _)) = stack.pop() {
                order.push(value);
            }
        }
    }
    order
}
