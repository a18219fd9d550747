//! The kernel language, emulated: every elementwise row is computed from its kernel expression, one scalar at a time,
//! rounded to the dtype after each step. It catches a row whose kernel and reference disagree without any device.
//! Everything that is not elementwise goes to the reference.

use crate::draw::stored;
use crate::runner::Runner;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Result;
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::kernel::{Emit, Prim, Reg};
use raphson_graph::op::Op;
use raphson_graph::op::elementwise::{Row, erf, threefry};
use raphson_graph::reference::{self, cast};

/// The runner.
pub struct Emulated;

impl Runner for Emulated {
    fn name(&self) -> String {
        "emulated".to_string()
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn run(&self, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut values: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
        for (position, node) in graph.nodes.iter().enumerate() {
            let operand = |&i: &NodeIndex| values[i as usize].as_slice();
            let value = if let Some(which) = graph.inputs.iter().position(|&i| i as usize == position) {
                inputs[which].clone()
            } else if let Op::Elementwise(row) = node.op {
                let x: Vec<&[f64]> = node.inputs.iter().map(operand).collect();
                // A u8 is in a u32 register, whose upper bits are cleared at every step: that is a u8.
                let register = |dtype: DType| if dtype == DType::U8 { dtype } else { dtype.register() };
                let dtypes: Vec<DType> = node.inputs.iter().map(|&i| register(graph.nodes[i as usize].dtype)).collect();
                (0..node.shape.elements())
                    .map(|i| scalar(row, &x.iter().map(|x| x[i]).collect::<Vec<_>>(), &dtypes))
                    .collect()
            } else {
                let x: Vec<Vec<f64>> = node.inputs.iter().map(|i| operand(i).to_vec()).collect();
                let value = reference::evaluate(&alone(graph, node), &x)?.remove(0);
                let dtype = if node.dtype.is_float() { node.dtype.register() } else { node.dtype };
                value.into_iter().map(|v| stored(v, dtype)).collect()
            };
            values.push(value);
        }
        Ok(graph.outputs.iter().map(|&i| values[i as usize].clone()).collect())
    }
}

/// A graph of one node.
fn alone(graph: &Graph, node: &Node) -> Graph {
    let n = node.inputs.len() as NodeIndex;
    let leaf = |&i: &NodeIndex| Node { op: Op::Input, inputs: Vec::new(), ..graph.nodes[i as usize].clone() };
    let mut nodes: Vec<Node> = node.inputs.iter().map(leaf).collect();
    nodes.push(Node { inputs: (0..n).collect(), ..node.clone() });
    Graph { nodes, inputs: (0..n).collect(), outputs: vec![n] }
}

/// A row's kernel expression at one element.
pub fn scalar(row: &Row, x: &[f64], dtypes: &[DType]) -> f64 {
    let mut emulator = Emulator { registers: x.iter().copied().zip(dtypes.iter().copied()).collect() };
    let operands: Vec<Reg> = (0..x.len() as u32).map(Reg).collect();
    let result = (row.kernel)(&mut emulator, &operands);
    emulator.registers[result.0 as usize].0
}

/// Computes what is emitted into it.
struct Emulator {
    registers: Vec<(f64, DType)>,
}

impl Emulator {
    fn define(&mut self, value: f64, dtype: DType) -> Reg {
        self.registers.push((value, dtype));
        Reg(self.registers.len() as u32 - 1)
    }
}

impl Emit for Emulator {
    fn dtype(&self, reg: Reg) -> DType {
        self.registers[reg.0 as usize].1
    }

    fn constant(&mut self, value: Scalar, dtype: DType) -> Reg {
        self.define(stored(value.to_f64(), dtype), dtype)
    }

    fn prim(&mut self, prim: Prim, args: &[Reg], dtype: DType) -> Reg {
        assert_eq!(args.len(), prim.arity(), "{prim:?}: number of operands");
        let x: Vec<f64> = args.iter().map(|reg| self.registers[reg.0 as usize].0).collect();
        let from = self.dtype(args[args.len() - 1]);
        let alike = args[usize::from(prim == Prim::Select)..].iter().all(|&reg| self.dtype(reg) == from);
        assert!(alike, "{prim:?}: operands of different dtypes");
        let value = match from {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => stored(float(prim, &x, dtype), dtype),
            DType::I32 | DType::U32 | DType::I64 | DType::U8 | DType::Bool => integer(prim, &x, from, dtype),
        };
        self.define(value, dtype)
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn comparison(prim: Prim, a: f64, b: f64) -> f64 {
    truth(match prim {
        Prim::Lt => a < b,
        Prim::Le => a <= b,
        Prim::Eq => a == b,
        _ => a != b,
    })
}

/// A primitive on floats.
fn float(prim: Prim, x: &[f64], to: DType) -> f64 {
    let (a, b) = (x[0], x.get(1).copied().unwrap_or(f64::NAN));
    match prim {
        Prim::Neg => -a,
        Prim::Abs => a.abs(),
        Prim::Sqrt => a.sqrt(),
        Prim::Exp => a.exp(),
        Prim::Expm1 => a.exp_m1(),
        Prim::Log => a.ln(),
        Prim::Log1p => a.ln_1p(),
        Prim::Sin => a.sin(),
        Prim::Cos => a.cos(),
        Prim::Tanh => a.tanh(),
        Prim::Erf => erf(a),
        Prim::Floor => a.floor(),
        Prim::Ceil => a.ceil(),
        Prim::Round => a.round_ties_even(),
        Prim::Trunc => a.trunc(),
        Prim::Add => a + b,
        Prim::Sub => a - b,
        Prim::Mul => a * b,
        Prim::Div => a / b,
        Prim::Rem => a % b,
        Prim::Pow => a.powf(b),
        Prim::Min | Prim::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Prim::Min => a.min(b),
        Prim::Max => a.max(b),
        Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne => comparison(prim, a, b),
        Prim::Select => {
            if a != 0.0 {
                b
            } else {
                x[2]
            }
        }
        Prim::Cast => cast(a, DType::F64, to),
        Prim::RoundF16 => stored(a, DType::F16),
        Prim::RoundBf16 => stored(a, DType::BF16),
        Prim::And | Prim::Or | Prim::Xor | Prim::Not | Prim::Shl | Prim::Shr | Prim::Threefry => {
            panic!("{prim:?} is not for floats")
        }
    }
}

/// A primitive on integers or bools.
fn integer(prim: Prim, x: &[f64], from: DType, to: DType) -> f64 {
    let (a, b) = (x[0] as i64, x.get(1).map_or(0, |&b| b as i64));
    let exact = match prim {
        Prim::Neg => a.wrapping_neg(),
        Prim::Abs => a.wrapping_abs(),
        Prim::Add => a.wrapping_add(b),
        Prim::Sub => a.wrapping_sub(b),
        Prim::Mul => a.wrapping_mul(b),
        Prim::Div | Prim::Rem if b == 0 => 0,
        Prim::Div => a / b,
        Prim::Rem => a % b,
        Prim::Min => a.min(b),
        Prim::Max => a.max(b),
        Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne => return comparison(prim, x[0], x[1]),
        Prim::And => a & b,
        Prim::Or => a | b,
        Prim::Xor => a ^ b,
        Prim::Not if from == DType::Bool => 1 - a,
        Prim::Not => !a,
        Prim::Shl => a << (b & (from.size_bytes() as i64 * 8 - 1)),
        Prim::Shr => a >> (b & (from.size_bytes() as i64 * 8 - 1)),
        Prim::Select => return if x[0] != 0.0 { x[1] } else { x[2] },
        Prim::Cast => return cast(x[0], from, to),
        Prim::Threefry => i64::from(threefry(x[0] as u32, x[1] as u32, x[2] as u32)),
        Prim::Sqrt
        | Prim::Exp
        | Prim::Expm1
        | Prim::Log
        | Prim::Log1p
        | Prim::Sin
        | Prim::Cos
        | Prim::Tanh
        | Prim::Erf
        | Prim::Floor
        | Prim::Ceil
        | Prim::Round
        | Prim::Trunc
        | Prim::RoundF16
        | Prim::RoundBf16
        | Prim::Pow => panic!("{prim:?} is for floats"),
    };
    match to {
        DType::U32 => f64::from(exact as u32),
        DType::I32 => f64::from(exact as i32),
        DType::U8 => f64::from(exact as u8),
        DType::Bool => truth(exact != 0),
        DType::I64 | DType::F32 | DType::F64 | DType::F16 | DType::BF16 => exact as f64,
    }
}
