//! Reductions inside a kernel: the accumulator of one invocation, and how the invocations that share a reduction combine
//! theirs. Sums of f32 are pairwise in the end: parts within an invocation, a tree across them.

use super::scalar::type_name;
use raphson_compile::program::{Order, ReduceOp};
use raphson_graph::dtype::DType;

/// The shape of a workgroup: `threads` invocations share each of `lanes` kept indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Team {
    /// A power of two.
    pub threads: usize,
    /// A power of two.
    pub lanes: usize,
    /// Neighbouring invocations share an index (row) or have neighbouring indices (column).
    pub order: Order,
    /// Combine by subgroup operations; the whole workgroup shares one index.
    pub subgroups: bool,
}

/// A reduction in progress. `acc{at}` holds the value so far; for the position of the maximum it is a key that orders
/// as the value does, and `pos{at}` the position, −1 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulator {
    op: ReduceOp,
    dtype: DType,
}

impl Accumulator {
    pub fn new(op: ReduceOp, dtype: DType) -> Accumulator {
        Accumulator { op, dtype }
    }

    /// Whether accuracy calls for adding up in parts.
    pub fn is_float_sum(&self) -> bool {
        self.op == ReduceOp::Sum && self.is_float()
    }

    fn is_float(&self) -> bool {
        self.dtype.is_float()
    }

    /// What nothing combines to.
    fn identity(&self) -> &'static str {
        match (self.op, self.dtype) {
            (ReduceOp::Sum, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => "0.0",
            (ReduceOp::Sum, DType::I32 | DType::I64) => "0",
            (ReduceOp::Sum, DType::U32 | DType::U8) => "0u",
            (ReduceOp::Prod, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => "1.0",
            (ReduceOp::Prod, DType::I32 | DType::I64) => "1",
            (ReduceOp::Prod, DType::U32 | DType::U8) => "1u",
            (ReduceOp::Max, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => "m_bits(0xff800000u)",
            (ReduceOp::Max, DType::I32 | DType::I64) | (ReduceOp::ArgMax, _) => "i32(-2147483648)",
            (ReduceOp::Max, DType::U32 | DType::U8) => "0u",
            (ReduceOp::Min, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => "m_bits(0x7f800000u)",
            (ReduceOp::Min, DType::I32 | DType::I64) => "2147483647",
            (ReduceOp::Min, DType::U32 | DType::U8) => "4294967295u",
            (ReduceOp::Sum | ReduceOp::Max, DType::Bool) => "false",
            (ReduceOp::Prod | ReduceOp::Min, DType::Bool) => "true",
        }
    }

    fn type_name(&self) -> &'static str {
        if self.op == ReduceOp::ArgMax { "i32" } else { type_name(self.dtype) }
    }

    /// Two values as one (not for the position of the maximum).
    fn join(&self, x: &str, y: &str) -> String {
        match (self.op, self.dtype) {
            (ReduceOp::Sum | ReduceOp::Max, DType::Bool) => format!("({x} | {y})"),
            (ReduceOp::Prod | ReduceOp::Min, DType::Bool) => format!("({x} & {y})"),
            (ReduceOp::Sum, _) => format!("{x} + {y}"),
            (ReduceOp::Prod, _) => format!("{x} * {y}"),
            (ReduceOp::Max | ReduceOp::ArgMax, _) if self.is_float() => format!("m_max({x}, {y})"),
            (ReduceOp::Min, _) if self.is_float() => format!("m_min({x}, {y})"),
            (ReduceOp::Max | ReduceOp::ArgMax, _) => format!("max({x}, {y})"),
            (ReduceOp::Min, _) => format!("min({x}, {y})"),
        }
    }

    /// The variables of an accumulator.
    pub fn declare(&self, at: usize, in_parts: bool) -> Vec<String> {
        let (name, identity) = (self.type_name(), self.identity());
        let mut lines = vec![format!("var acc{at}: {name} = {identity};")];
        if self.op == ReduceOp::ArgMax {
            lines.push(format!("var pos{at} = -1;"));
        }
        if in_parts && self.is_float_sum() {
            lines.push(format!("var sum{at}: {name} = {identity};"));
        }
        lines
    }

    /// Begin a part of a sum.
    pub fn clear_part(&self, at: usize) -> Vec<String> {
        vec![format!("sum{at} = 0.0;")]
    }

    /// End a part of a sum.
    pub fn fold_part(&self, at: usize) -> Vec<String> {
        vec![format!("acc{at} += sum{at};")]
    }

    /// Take in one value, at position `reduced`.
    pub fn add(&self, at: usize, value: &str, in_parts: bool) -> Vec<String> {
        if self.op == ReduceOp::ArgMax {
            let key = match self.dtype {
                DType::F32 | DType::F64 | DType::F16 | DType::BF16 => format!("m_key({value})"),
                DType::I32 | DType::I64 => value.to_string(),
                DType::U32 | DType::U8 => format!("bitcast<i32>({value} ^ 0x80000000u)"),
                DType::Bool => format!("i32({value})"),
            };
            return vec![
                format!("let key{at} = {key};"),
                format!("if (pos{at} < 0 || key{at} > acc{at}) {{ acc{at} = key{at}; pos{at} = reduced; }}"),
            ];
        }
        let name = if in_parts && self.is_float_sum() { "sum" } else { "acc" };
        vec![format!("{name}{at} = {};", self.join(&format!("{name}{at}"), value))]
    }
}

impl Team {
    /// Declarations of shared memory, and the statements that combine `acc{at}` of all threads to `v{at}`.
    pub fn combine(&self, accumulator: &Accumulator, at: usize) -> (String, Vec<String>) {
        if accumulator.op == ReduceOp::ArgMax {
            return self.combine_positions(at);
        }
        let name = accumulator.type_name();
        if self.threads == 1 {
            return (String::new(), vec![format!("let v{at}: {name} = acc{at};")]);
        }
        let shared = format!("var<workgroup> shared_{name}: array<{name}, {}>;\n", self.threads * self.lanes);
        let cell = |index: &str| format!("shared_{name}[{index}]");
        if self.subgroups && accumulator.dtype != DType::Bool {
            return (shared, subgroup_lines(accumulator, at, &cell));
        }
        let mut lines = vec![format!("{} = acc{at};", cell("lane")), "workgroupBarrier();".to_string()];
        self.tree(|partner| vec![format!("{} = {};", cell("lane"), accumulator.join(&cell("lane"), &cell(partner)))])
            .into_iter()
            .for_each(|line| lines.push(line));
        lines.push(format!("let v{at}: {name} = {};", cell(&self.first())));
        lines.push("workgroupBarrier();".to_string());
        (shared, lines)
    }

    /// Halve the number of threads again and again.
    fn tree(&self, join: impl Fn(&str) -> Vec<String>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut half = self.threads / 2;
        while half > 0 {
            let step = match self.order {
                Order::Row => half,
                Order::Column => half * self.lanes,
            };
            lines.push(format!("if (thread < {half}) {{"));
            lines.extend(join(&format!("lane + {step}")).into_iter().map(|line| format!("    {line}")));
            lines.push("}".to_string());
            lines.push("workgroupBarrier();".to_string());
            half /= 2;
        }
        lines
    }

    /// The invocation whose cell holds the result.
    fn first(&self) -> String {
        match self.order {
            Order::Row => "lane - thread".to_string(),
            Order::Column => format!("lane % {}", self.lanes),
        }
    }

    /// The greater key wins; of equal keys the one that came first.
    fn combine_positions(&self, at: usize) -> (String, Vec<String>) {
        if self.threads == 1 {
            return (String::new(), vec![format!("let v{at}: i32 = max(pos{at}, 0);")]);
        }
        let n = self.threads * self.lanes;
        let shared =
            format!("var<workgroup> shared_key: array<i32, {n}>;\nvar<workgroup> shared_position: array<i32, {n}>;\n");
        let mut lines = vec![
            format!("shared_key[lane] = acc{at};"),
            format!("shared_position[lane] = pos{at};"),
            "workgroupBarrier();".to_string(),
        ];
        lines.extend(self.tree(|partner| {
            vec![
                format!("let other = {partner};"),
                "let position = shared_position[other];".to_string(),
                "let greater = shared_key[other] > shared_key[lane];".to_string(),
                "let equal = shared_key[other] == shared_key[lane];".to_string(),
                "let earlier = shared_position[lane] < 0 || position < shared_position[lane];".to_string(),
                "if (position >= 0 && (greater || (equal && earlier))) {".to_string(),
                "    shared_key[lane] = shared_key[other];".to_string(),
                "    shared_position[lane] = position;".to_string(),
                "}".to_string(),
            ]
        }));
        lines.push(format!("let v{at}: i32 = max(shared_position[{}], 0);", self.first()));
        lines.push("workgroupBarrier();".to_string());
        (shared, lines)
    }
}

/// Combine within each subgroup, whatever its width, then over the subgroups through shared memory.
fn subgroup_lines(accumulator: &Accumulator, at: usize, cell: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut lines = match (accumulator.op, accumulator.is_float()) {
        (ReduceOp::Sum, _) => vec![format!("let part{at} = subgroupAdd(acc{at});")],
        (ReduceOp::Prod, _) => vec![format!("let part{at} = subgroupMul(acc{at});")],
        (ReduceOp::Max | ReduceOp::ArgMax, false) => vec![format!("let part{at} = subgroupMax(acc{at});")],
        (ReduceOp::Min, false) => vec![format!("let part{at} = subgroupMin(acc{at});")],
        // What subgroup operations make of NaN is open, so NaN is looked for separately.
        (ReduceOp::Max | ReduceOp::ArgMax, true) => nan_aware(at, "subgroupMax", "0xff800000u"),
        (ReduceOp::Min, true) => nan_aware(at, "subgroupMin", "0x7f800000u"),
    };
    let (first, next) = (cell("0"), cell("s"));
    lines.extend([
        format!("if (subgroup_lane == 0u) {{ {} = part{at}; }}", cell("subgroup")),
        "workgroupBarrier();".to_string(),
        format!("var all{at} = {first};"),
        format!(
            "for (var s = 1u; s < n_subgroups; s++) {{ all{at} = {}; }}",
            accumulator.join(&format!("all{at}"), &next)
        ),
        format!("let v{at} = all{at};"),
        "workgroupBarrier();".to_string(),
    ]);
    lines
}

fn nan_aware(at: usize, operation: &str, identity: &str) -> Vec<String> {
    vec![
        format!("let none{at} = subgroupAny(m_nan(acc{at}));"),
        format!("let most{at} = {operation}(select(acc{at}, m_bits({identity}), m_nan(acc{at})));"),
        format!("let part{at} = select(most{at}, m_bits(0x7fc00000u), none{at});"),
    ]
}
