//! PTX text under construction: virtual registers by class, labels, immediates, and the helpers that integer code is
//! written with. Nothing here knows the kernel language.

use std::fmt::{self, Display, Write};

/// The register classes of PTX that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A truth value, `%p`.
    Predicate,
    /// 32 untyped bits, `%r`.
    Word,
    /// 64 untyped bits, `%rd`.
    Long,
    /// f32, `%f`.
    Float,
    /// f64, `%fd`.
    Double,
    /// 16 untyped bits, `%h`.
    Half,
}

impl Class {
    const ALL: [Class; 6] = [Class::Predicate, Class::Word, Class::Long, Class::Float, Class::Double, Class::Half];

    const fn prefix(self) -> &'static str {
        match self {
            Class::Predicate => "%p",
            Class::Word => "%r",
            Class::Long => "%rd",
            Class::Float => "%f",
            Class::Double => "%fd",
            Class::Half => "%h",
        }
    }

    /// The type in a declaration; for 32 and 64 bits also the suffix of untyped moves, loads and stores.
    pub const fn untyped(self) -> &'static str {
        match self {
            Class::Predicate => "pred",
            Class::Word => "b32",
            Class::Long => "b64",
            Class::Float => "f32",
            Class::Double => "f64",
            Class::Half => "b16",
        }
    }
}

/// A virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    pub class: Class,
    number: u32,
}

impl Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.class.prefix(), self.number)
    }
}

/// A position in the code.
#[derive(Clone, Copy, Debug)]
pub struct Label(u32);

impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// An f32 immediate.
#[derive(Clone, Copy, Debug)]
pub struct Single(pub f32);

impl Display for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0f{:08X}", self.0.to_bits())
    }
}

/// An f64 immediate.
#[derive(Clone, Copy, Debug)]
pub struct Wide(pub f64);

impl Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0d{:016X}", self.0.to_bits())
    }
}

/// The operands of one instruction.
pub type Operands<'a> = &'a [&'a dyn Display];

/// The body of one function.
#[derive(Default)]
pub struct Text {
    lines: String,
    used: [u32; 6],
    labels: u32,
    /// Bytes of shared memory.
    shared_bytes: u32,
    /// Blocks that a multiprocessor is to hold at least, which bounds the registers of a thread; 0 leaves it open.
    pub blocks_at_least: u32,
    /// Whether the table of 2/π is read.
    pub reads_two_over_pi: bool,
}

impl Text {
    /// A register that nothing defines yet.
    pub fn fresh(&mut self, class: Class) -> Register {
        let used = &mut self.used[class as usize];
        *used += 1;
        Register { class, number: *used - 1 }
    }

    fn write(&mut self, arguments: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.lines.write_fmt(arguments);
    }

    /// An instruction that defines nothing.
    pub fn act(&mut self, opcode: &str, operands: Operands<'_>) {
        self.write(format_args!("\t{opcode}"));
        for (position, operand) in operands.iter().enumerate() {
            self.write(format_args!("{}{operand}", if position == 0 { " " } else { ", " }));
        }
        self.lines.push_str(";\n");
    }

    /// The same, only where `guard` holds (always without one).
    pub fn act_if(&mut self, guard: Option<Register>, opcode: &str, operands: Operands<'_>) {
        match guard {
            Some(guard) => self.act(&format!("@{guard} {opcode}"), operands),
            None => self.act(opcode, operands),
        }
    }

    /// An instruction into an existing register.
    pub fn set(&mut self, target: Register, opcode: &str, operands: Operands<'_>) {
        let mut all: Vec<&dyn Display> = Vec::with_capacity(operands.len() + 1);
        all.push(&target);
        all.extend(operands);
        self.act(opcode, &all);
    }

    /// An instruction that defines a register of `class`.
    pub fn op(&mut self, class: Class, opcode: &str, operands: Operands<'_>) -> Register {
        let target = self.fresh(class);
        self.set(target, opcode, operands);
        target
    }

    /// An instruction that defines a predicate.
    pub fn predicate(&mut self, opcode: &str, operands: Operands<'_>) -> Register {
        self.op(Class::Predicate, opcode, operands)
    }

    /// An instruction that defines 32 bits.
    pub fn word(&mut self, opcode: &str, operands: Operands<'_>) -> Register {
        self.op(Class::Word, opcode, operands)
    }

    /// An instruction that defines 64 bits.
    pub fn long(&mut self, opcode: &str, operands: Operands<'_>) -> Register {
        self.op(Class::Long, opcode, operands)
    }

    /// An instruction that defines an f32.
    pub fn float(&mut self, opcode: &str, operands: Operands<'_>) -> Register {
        self.op(Class::Float, opcode, operands)
    }

    /// An instruction that defines an f64.
    pub fn double(&mut self, opcode: &str, operands: Operands<'_>) -> Register {
        self.op(Class::Double, opcode, operands)
    }

    /// A copy of a register.
    pub fn copy(&mut self, of: Register) -> Register {
        self.op(of.class, &format!("mov.{}", of.class.untyped()), &[&of])
    }

    /// A label that is not placed yet.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// Let a label stand here.
    pub fn place(&mut self, label: Label) {
        self.write(format_args!("{label}:\n"));
    }

    /// Go on at `label` where `guard` holds.
    pub fn branch_if(&mut self, guard: Register, label: Label) {
        self.act(&format!("@{guard} bra"), &[&label]);
    }

    /// Go on at `label` where `guard` does not hold.
    pub fn branch_unless(&mut self, guard: Register, label: Label) {
        self.act(&format!("@!{guard} bra"), &[&label]);
    }

    /// Go on at `label`.
    pub fn branch(&mut self, label: Label) {
        self.act("bra", &[&label]);
    }

    /// All threads of the block meet; what they wrote before is seen by all after.
    pub fn barrier(&mut self) {
        self.act("bar.sync", &[&0]);
    }

    /// Reserve shared memory, aligned to 16 bytes. Returns its offset from the start of `tile`.
    pub fn shared(&mut self, bytes: u32) -> u32 {
        let start = self.shared_bytes;
        self.shared_bytes += bytes.next_multiple_of(16);
        start
    }

    /// The 32-bit address of shared memory reserved at `offset`, plus `index` times `scale` bytes.
    pub fn shared_address(&mut self, offset: u32, index: Register, scale: u32) -> Register {
        let start = self.word("mov.u32", &[&"tile"]);
        let start = self.word("add.u32", &[&start, &offset]);
        self.word("mad.lo.u32", &[&index, &scale, &start])
    }

    /// Bytes of shared memory reserved so far.
    pub fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    /// ⌊n / d⌋ for 32-bit n < 2³¹ and d ≥ 1.
    pub fn divide(&mut self, n: Register, d: u32) -> Register {
        if d.is_power_of_two() {
            return if d == 1 { n } else { self.word("shr.u32", &[&n, &d.trailing_zeros()]) };
        }
        let (factor, shift) = reciprocal(d);
        let high = self.word("mul.hi.u32", &[&n, &factor]);
        self.word("shr.u32", &[&high, &shift])
    }

    /// (n / d, n mod d) for an index of either width.
    pub fn divide_with_rest(&mut self, n: Register, d: usize) -> (Register, Register) {
        if n.class == Class::Long {
            let quotient = self.long("div.u64", &[&n, &d]);
            return (quotient, self.long("rem.u64", &[&n, &d]));
        }
        let d = d as u32;
        if d.is_power_of_two() {
            return (self.divide(n, d), self.word("and.b32", &[&n, &(d - 1)]));
        }
        let quotient = self.divide(n, d);
        let product = self.word("mul.lo.u32", &[&quotient, &d]);
        (quotient, self.word("sub.u32", &[&n, &product]))
    }

    /// base + index·scale in 64 bits, for an index of either width below 2³¹ or 2⁶³.
    pub fn scaled(&mut self, base: Register, index: Register, scale: i64) -> Register {
        if scale == 0 {
            return base;
        }
        if index.class == Class::Long {
            return self.long("mad.lo.s64", &[&index, &scale, &base]);
        }
        if i32::try_from(scale).is_ok() {
            return self.long("mad.wide.s32", &[&index, &scale, &base]);
        }
        let wide = self.long("cvt.s64.s32", &[&index]);
        self.long("mad.lo.s64", &[&wide, &scale, &base])
    }

    /// base + offset in 64 bits.
    pub fn displaced(&mut self, base: Register, offset: i64) -> Register {
        if offset == 0 { base } else { self.long("add.s64", &[&base, &offset]) }
    }

    /// The whole function.
    pub fn function(&self, entry: &str, n_parameters: usize, threads: u32) -> String {
        let parameters: Vec<String> = (0..n_parameters).map(|i| format!("\t.param .u64 a{i}")).collect();
        let mut out = format!(".visible .entry {entry}(\n{}\n)\n", parameters.join(",\n"));
        out.push_str(&format!(".maxntid {threads}, 1, 1\n"));
        if self.blocks_at_least > 0 {
            out.push_str(&format!(".minnctapersm {}\n", self.blocks_at_least));
        }
        out.push_str("{\n");
        for class in Class::ALL {
            let used = self.used[class as usize];
            if used > 0 {
                out.push_str(&format!("\t.reg .{} {}<{used}>;\n", class.untyped(), class.prefix()));
            }
        }
        if self.shared_bytes > 0 {
            out.push_str(&format!("\t.shared .align 16 .b8 tile[{}];\n", self.shared_bytes));
        }
        out.push_str(&self.lines);
        out.push_str("\tret;\n}\n");
        out
    }
}

/// (m, s) so that ⌊n / d⌋ = ⌊n·m / 2³²⌋ / 2ˢ for all n < 2³¹, d no power of two (Granlund and Montgomery, "Division by
/// invariant integers using multiplication", PLDI 1994): with l = ⌈log₂ d⌉, m = ⌊2^(31+l)/d⌋ + 1 < 2³² and s = l − 1.
fn reciprocal(d: u32) -> (u32, u32) {
    let l = 32 - (d - 1).leading_zeros();
    let m = (1u64 << (31 + l)) / u64::from(d) + 1;
    (m as u32, l - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplication_divides() {
        let least = (3..2000u32).chain([4097, 65_535, 65_537, 1_000_003, 0x4000_0001, 0x7fff_ffff]);
        for d in least.filter(|d| !d.is_power_of_two()) {
            let (m, s) = reciprocal(d);
            let most = (i32::MAX as u32 / d) * d;
            // The ends of the first, some middle, and the last quotients.
            let near = [0, d, d.saturating_mul(2), most / 2 / d * d, most - d, most];
            for n in near.into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1]).filter(|&n| n <= i32::MAX as u32) {
                let quotient = ((u64::from(n) * u64::from(m)) >> 32) as u32 >> s;
                assert_eq!(quotient, n / d, "{n} / {d}");
            }
        }
    }
}
