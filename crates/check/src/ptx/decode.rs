//! Statements as instructions: operands are looked up, opcodes become functions. The set is closed; what is not in it is an
//! error.

use super::instruction::{Address, Factors, Instruction, Kind, Operand, Shuffle, Space, Special, Vote};
use super::parse::{integer, type_bytes};
use super::{Fault, Outcome, fault};
use super::{arithmetic, convert};
use std::collections::HashMap;

/// What names in a function stand for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub registers: HashMap<String, u32>,
    pub labels: HashMap<String, u32>,
    /// Addresses in shared memory and in the constant bank.
    pub symbols: HashMap<String, u64>,
    /// Offsets of parameters.
    pub parameters: HashMap<String, u64>,
    pub shared_bytes: usize,
}

impl Names {
    /// Declare a register (again, perhaps, in another scope).
    pub fn register(&mut self, name: &str) {
        let number = self.registers.len() as u32;
        self.registers.entry(name.to_string()).or_insert(number);
    }

    fn target(&self, text: &str) -> Outcome<u32> {
        self.registers.get(text).copied().ok_or_else(|| Fault(format!("no register {text}")))
    }

    fn operand(&self, text: &str) -> Outcome<Operand> {
        if let Some(&register) = self.registers.get(text) {
            return Ok(Operand::Register(register));
        }
        if let Some(special) = special(text) {
            return Ok(Operand::Special(special));
        }
        if let Some(&address) = self.symbols.get(text) {
            return Ok(Operand::Bits(address));
        }
        literal(text).map(Operand::Bits).ok_or_else(|| Fault(format!("no operand {text}")))
    }

    /// `[base+offset]`
    fn address(&self, text: &str) -> Outcome<Address> {
        let inner = text.trim_start_matches('[').trim_end_matches(']').trim();
        let (base, offset) = match inner.split_once('+') {
            Some((base, offset)) => {
                let offset = integer(offset.trim()).ok_or_else(|| Fault(format!("no offset in {text}")))?;
                (base.trim(), offset as i64)
            }
            None => (inner, 0),
        };
        let base = match self.parameters.get(base) {
            Some(&parameter) => Operand::Bits(parameter),
            None => self.operand(base)?,
        };
        Ok(Address { base, offset })
    }

    /// `{a, b}` or one operand.
    fn list(&self, text: &str) -> Outcome<Vec<Operand>> {
        names(text).iter().map(|name| self.operand(name)).collect()
    }

    fn targets(&self, text: &str) -> Outcome<Vec<u32>> {
        names(text).iter().map(|name| self.target(name)).collect()
    }
}

fn names(text: &str) -> Vec<&str> {
    text.trim_matches(|c| c == '{' || c == '}').split(',').map(str::trim).collect()
}

fn special(text: &str) -> Option<Special> {
    let (name, axis) = text.split_once('.').unwrap_or((text, "x"));
    let axis = ["x", "y", "z"].iter().position(|&known| known == axis)?;
    Some(match name {
        "%tid" => Special::Thread(axis),
        "%ntid" => Special::Threads(axis),
        "%ctaid" => Special::Block(axis),
        "%nctaid" => Special::Blocks(axis),
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        _ => return None,
    })
}

fn literal(text: &str) -> Option<u64> {
    if text == "WARP_SZ" {
        return Some(32);
    }
    let hexadecimal = |prefix: [&str; 2], digits: usize| {
        let rest = prefix.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        (rest.len() == digits).then(|| u64::from_str_radix(rest, 16).ok())?
    };
    hexadecimal(["0f", "0F"], 8).or_else(|| hexadecimal(["0d", "0D"], 16)).or_else(|| integer(text))
}

/// Operands of a statement, split at commas outside braces and brackets.
fn split_operands(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut list) = (0, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                list.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        list.push(text[start..].trim());
    }
    list
}

/// A statement in pieces.
struct Statement<'a> {
    names: &'a Names,
    /// The parts of the opcode between dots.
    opcode: Vec<&'a str>,
    operands: Vec<&'a str>,
}

/// Decode one statement.
pub fn decode(text: &str, names: &Names) -> Outcome<Instruction> {
    let (guard, rest) = match text.strip_prefix('@') {
        Some(guarded) => {
            let (guard, rest) =
                guarded.split_once(' ').ok_or_else(|| Fault("a guard without an instruction".into()))?;
            let (name, holds) = guard.strip_prefix('!').map_or((guard, true), |name| (name, false));
            (Some((names.target(name)?, holds)), rest.trim_start())
        }
        None => (None, text),
    };
    let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
    let statement = Statement { names, opcode: opcode.split('.').collect(), operands: split_operands(operands) };
    let kind = statement.kind()?;
    Ok(Instruction { guard, kind, text: text.to_string() })
}

impl Statement<'_> {
    fn has(&self, part: &str) -> bool {
        self.opcode.contains(&part)
    }

    fn text(&self, at: usize) -> Outcome<&str> {
        self.operands.get(at).copied().ok_or_else(|| Fault("too few operands".into()))
    }

    fn operand(&self, at: usize) -> Outcome<Operand> {
        self.names.operand(self.text(at)?)
    }

    fn target(&self) -> Outcome<u32> {
        self.names.target(self.text(0)?)
    }

    fn last(&self) -> &str {
        self.opcode[self.opcode.len() - 1]
    }

    fn bytes(&self) -> Outcome<usize> {
        type_bytes(self.last()).ok_or_else(|| Fault(format!("no size of {}", self.last())))
    }

    fn kind(&self) -> Outcome<Kind> {
        match self.opcode[0] {
            "mov" => self.movement(),
            "ld" | "ldu" => self.load(),
            "st" => self.store(),
            "atom" | "red" => self.atomic(),
            "setp" => self.compare(),
            "selp" => Ok(Kind::Select {
                to: self.target()?,
                a: self.operand(1)?,
                b: self.operand(2)?,
                condition: self.operand(3)?,
            }),
            "cvt" => self.convert(),
            "cvta" => self.convert_address(),
            "shfl" => self.shuffle(),
            "vote" => self.vote(),
            "bar" | "barrier" if self.opcode.get(1) == Some(&"warp") => {
                Ok(Kind::WarpBarrier { members: self.operand(0)? })
            }
            "bar" | "barrier" => self.barrier(),
            "bra" => {
                let label = self.text(0)?;
                let target = self.names.labels.get(label).copied();
                target.map(|target| Kind::Branch { target }).ok_or_else(|| Fault(format!("no label {label}")))
            }
            "ret" | "exit" => Ok(Kind::Return),
            "membar" | "fence" => Ok(Kind::Nothing),
            "lop3" => {
                let table = integer(self.text(4)?).ok_or_else(|| Fault("no table".into()))? as u8;
                Ok(Kind::Table {
                    to: self.target()?,
                    a: self.operand(1)?,
                    b: self.operand(2)?,
                    c: self.operand(3)?,
                    table,
                })
            }
            "bfi" => Ok(Kind::Insert {
                to: self.target()?,
                a: self.operand(1)?,
                b: self.operand(2)?,
                start: self.operand(3)?,
                length: self.operand(4)?,
                wide: self.last() == "b64",
            }),
            "cp" => self.copy_async(),
            "ldmatrix" => self.load_matrix(),
            "mma" => self.multiply(),
            _ => self.plain(),
        }
    }

    /// One to three operands, one result.
    fn plain(&self) -> Outcome<Kind> {
        let unknown = || Fault(format!("the opcode {} is not in the set", self.opcode.join(".")));
        let to = self.target()?;
        match self.operands.len() {
            2 => {
                let f = arithmetic::unary(&self.opcode).ok_or_else(unknown)?;
                Ok(Kind::Unary { f, to, a: self.operand(1)? })
            }
            3 => {
                let f = arithmetic::binary(&self.opcode).ok_or_else(unknown)?;
                Ok(Kind::Binary { f, to, a: self.operand(1)?, b: self.operand(2)? })
            }
            4 => {
                let f = arithmetic::ternary(&self.opcode).ok_or_else(unknown)?;
                Ok(Kind::Ternary { f, to, a: self.operand(1)?, b: self.operand(2)?, c: self.operand(3)? })
            }
            _ => Err(unknown()),
        }
    }

    fn movement(&self) -> Outcome<Kind> {
        let (to, from) = (self.text(0)?, self.text(1)?);
        let bits = 8 * self.bytes()? as u32;
        if let Some(inner) = to.strip_prefix('{') {
            let to = inner
                .trim_end_matches('}')
                .split(',')
                .map(str::trim)
                .map(|name| if name == "_" { Ok(None) } else { self.names.target(name).map(Some) });
            let to: Vec<Option<u32>> = to.collect::<Outcome<_>>()?;
            let bits = bits / to.len() as u32;
            return Ok(Kind::Unpack { to, from: self.operand(1)?, bits });
        }
        if from.starts_with('{') {
            let parts = self.names.list(from)?;
            let bits = bits / parts.len() as u32;
            return Ok(Kind::Pack { to: self.target()?, parts, bits });
        }
        let f = arithmetic::truncation(self.last()).ok_or_else(|| Fault("mov of an unknown type".into()))?;
        Ok(Kind::Unary { f, to: self.target()?, a: self.operand(1)? })
    }

    fn space(&self) -> Space {
        let spaces = [
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("const", Space::Constant),
            ("param", Space::Parameter),
        ];
        let named = |part: &&str| spaces.iter().find(|(name, _)| part.split("::").next() == Some(name));
        self.opcode.iter().find_map(named).map_or(Space::Generic, |(_, space)| *space)
    }

    fn load(&self) -> Outcome<Kind> {
        Ok(Kind::Load {
            space: self.space(),
            bytes: self.bytes()?,
            signed: self.last().starts_with('s'),
            to: self.names.targets(self.text(0)?)?,
            address: self.names.address(self.text(1)?)?,
        })
    }

    fn store(&self) -> Outcome<Kind> {
        Ok(Kind::Store {
            space: self.space(),
            bytes: self.bytes()?,
            from: self.names.list(self.text(1)?)?,
            address: self.names.address(self.text(0)?)?,
        })
    }

    fn atomic(&self) -> Outcome<Kind> {
        let returns = self.opcode[0] == "atom";
        let first = usize::from(returns);
        let f = arithmetic::atomic(&self.opcode).ok_or_else(|| Fault("the atomic is not in the set".into()))?;
        Ok(Kind::Atomic {
            space: self.space(),
            bytes: self.bytes()?,
            f,
            to: if returns { Some(self.target()?) } else { None },
            address: self.names.address(self.text(first)?)?,
            b: self.operand(first + 1)?,
            c: if self.operands.len() > first + 2 { self.operand(first + 2)? } else { Operand::Bits(0) },
        })
    }

    fn compare(&self) -> Outcome<Kind> {
        let unknown = || Fault(format!("the comparison {} is not in the set", self.opcode.join(".")));
        let f = arithmetic::compare(self.opcode.get(1).ok_or_else(unknown)?, self.last()).ok_or_else(unknown)?;
        let (to, other) = match self.text(0)?.split_once('|') {
            Some((to, other)) => (self.names.target(to.trim())?, Some(self.names.target(other.trim())?)),
            None => (self.target()?, None),
        };
        let with = match ["and", "or", "xor"].into_iter().find(|name| self.opcode[2..].contains(name)) {
            Some(name) => Some((arithmetic::binary(&[name, "pred"]).ok_or_else(unknown)?, self.operand(3)?)),
            None => None,
        };
        Ok(Kind::Compare { f, to, other, a: self.operand(1)?, b: self.operand(2)?, with })
    }

    fn convert(&self) -> Outcome<Kind> {
        let unknown = || Fault(format!("the conversion {} is not in the set", self.opcode.join(".")));
        if self.operands.len() == 3 {
            let f = convert::pack_floats(&self.opcode).ok_or_else(unknown)?;
            return Ok(Kind::Binary { f, to: self.target()?, a: self.operand(1)?, b: self.operand(2)? });
        }
        let f = convert::convert(&self.opcode).ok_or_else(unknown)?;
        Ok(Kind::Unary { f, to: self.target()?, a: self.operand(1)? })
    }

    fn convert_address(&self) -> Outcome<Kind> {
        let f = match (self.has("shared"), self.has("to")) {
            (true, true) => |a| a & !super::memory::SHARED_WINDOW,
            (true, false) => |a| a | super::memory::SHARED_WINDOW,
            (false, _) => |a| a,
        };
        Ok(Kind::Unary { f, to: self.target()?, a: self.operand(1)? })
    }

    fn shuffle(&self) -> Outcome<Kind> {
        let mode = match self.opcode.get(2) {
            Some(&"up") => Shuffle::Up,
            Some(&"down") => Shuffle::Down,
            Some(&"bfly") => Shuffle::Butterfly,
            Some(&"idx") => Shuffle::Index,
            _ => return fault("a shuffle must be sync and of a known mode"),
        };
        let (to, valid) = match self.text(0)?.split_once('|') {
            Some((to, valid)) => (self.names.target(to.trim())?, Some(self.names.target(valid.trim())?)),
            None => (self.target()?, None),
        };
        let (a, b, c, members) = (self.operand(1)?, self.operand(2)?, self.operand(3)?, self.operand(4)?);
        Ok(Kind::Shuffle { mode, to, valid, a, b, c, members })
    }

    fn vote(&self) -> Outcome<Kind> {
        let mode = match self.opcode.get(2) {
            Some(&"ballot") => Vote::Ballot,
            Some(&"any") => Vote::Any,
            Some(&"all") => Vote::All,
            _ => return fault("a vote must be sync and of a known mode"),
        };
        let a = self.text(1)?;
        let negate = a.starts_with('!');
        let a = self.names.operand(a.trim_start_matches('!'))?;
        Ok(Kind::Vote { mode, to: self.target()?, a, negate, members: self.operand(2)? })
    }

    fn barrier(&self) -> Outcome<Kind> {
        if !self.has("sync") || self.operands != ["0"] {
            return fault("only `bar.sync 0` of the whole block is in the set");
        }
        Ok(Kind::Barrier)
    }

    fn copy_async(&self) -> Outcome<Kind> {
        if !self.has("async") || self.has("bulk") || self.has("mbarrier") {
            return fault("of the asynchronous copies only those of Ampere are in the set");
        }
        if self.has("commit_group") {
            return Ok(Kind::CommitGroup);
        }
        if self.has("wait_all") {
            return Ok(Kind::WaitGroup { pending: 0 });
        }
        if self.has("wait_group") {
            let pending = integer(self.text(0)?).ok_or_else(|| Fault("no number of groups".into()))?;
            return Ok(Kind::WaitGroup { pending: pending as usize });
        }
        let bytes = integer(self.text(2)?).ok_or_else(|| Fault("no size".into()))? as usize;
        Ok(Kind::CopyAsync {
            to: self.names.address(self.text(0)?)?,
            from: self.names.address(self.text(1)?)?,
            bytes,
            read: if self.operands.len() > 3 { Some(self.operand(3)?) } else { None },
        })
    }

    fn load_matrix(&self) -> Outcome<Kind> {
        if !self.has("m8n8") || self.last() != "b16" {
            return fault("only m8n8 matrices of b16 are in the set");
        }
        let to = self.names.targets(self.text(0)?)?;
        Ok(Kind::LoadMatrix { to, address: self.names.address(self.text(1)?)?, transpose: self.has("trans") })
    }

    fn multiply(&self) -> Outcome<Kind> {
        let types: Vec<&str> = self.opcode.iter().rev().take(4).copied().collect();
        let inner = |allowed: [(&str, usize); 2]| {
            let found = allowed.into_iter().find(|(shape, _)| self.has(shape));
            found.map(|(_, inner)| inner).ok_or_else(|| Fault("the shape is not in the set".into()))
        };
        let factors = match types[..] {
            ["f32", "tf32", "tf32", "f32"] => Factors::Tf32 { inner: inner([("m16n8k8", 8), ("m16n8k4", 4)])? },
            ["f32", "bf16", "bf16", "f32"] => Factors::Bf16 { inner: inner([("m16n8k16", 16), ("m16n8k8", 8)])? },
            ["f32", "f16", "f16", "f32"] => Factors::F16 { inner: inner([("m16n8k16", 16), ("m16n8k8", 8)])? },
            _ => return fault("the factors are not in the set"),
        };
        if !self.has("row") || !self.has("col") {
            return fault("only row.col is in the set");
        }
        let list = |at: usize| self.names.list(self.text(at)?);
        Ok(Kind::Multiply { factors, to: self.names.targets(self.text(0)?)?, a: list(1)?, b: list(2)?, c: list(3)? })
    }
}
