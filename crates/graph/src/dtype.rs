//! Element types and scalar values. Nothing here assumes `f32`: code that needs a float type asks the tensor.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit IEEE float.
    F64,
    /// 32-bit two's-complement integer.
    I32,
    /// 32-bit unsigned integer, wrapping.
    U32,
    /// Truth value, stored as one byte, 0 or 1.
    Bool,
    /// 16-bit IEEE float. Only storage: computed with in f32, rounded when stored.
    F16,
    /// The upper half of an f32. Only storage, as f16.
    BF16,
    /// 64-bit two's-complement integer.
    I64,
    /// 8-bit unsigned integer, wrapping.
    U8,
}

impl DType {
    /// Every dtype, in code order (the position is the number the addon's interface uses).
    pub const ALL: [DType; 9] =
        [DType::F32, DType::F64, DType::I32, DType::U32, DType::Bool, DType::F16, DType::BF16, DType::I64, DType::U8];

    /// Bytes of one stored element.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 => 8,
            DType::F16 | DType::BF16 => 2,
            DType::Bool | DType::U8 => 1,
        }
    }

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::U8 => "u8",
        }
    }

    /// Whether derivatives exist for this dtype.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// Whether this is an integer (bool is not).
    pub const fn is_integer(self) -> bool {
        matches!(self, DType::I32 | DType::U32 | DType::I64 | DType::U8)
    }

    /// The dtype in which kernels hold values of this one: f16 and bf16 are f32 there, u8 is u32 (below 256).
    pub const fn register(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            DType::U8 => DType::U32,
            DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::Bool => self,
        }
    }

    /// Whether memory holds this dtype in another form than registers do.
    pub fn is_storage(self) -> bool {
        self.register() != self
    }

    /// The distance from 1 to the next number, for floats; 0 for integers and bool.
    pub fn epsilon(self) -> f64 {
        match self {
            DType::F32 => f64::from(f32::EPSILON),
            DType::F64 => f64::EPSILON,
            DType::F16 => 1.0 / 1024.0,
            DType::BF16 => 1.0 / 128.0,
            DType::I32 | DType::U32 | DType::I64 | DType::U8 | DType::Bool => 0.0,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value of some dtype, as a constant in a graph or a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// A float constant; rounded to the dtype of registers when used, to that of the tensor when stored.
    Float(f64),
    /// An integer constant (every integer dtype fits).
    Int(i64),
    /// A truth value.
    Bool(bool),
}

impl Scalar {
    /// The scalar of `dtype` nearest to `value`: integers truncate and saturate, NaN becomes 0, as in a cast.
    pub fn of(value: f64, dtype: DType) -> Scalar {
        match dtype {
            // An ε of 1e-8 is 0 as an f16: constants keep their digits, since what computes with them has them.
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Scalar::Float(value),
            DType::I32 => Scalar::Int(i64::from(value as i32)),
            DType::U32 => Scalar::Int(i64::from(value as u32)),
            DType::I64 => Scalar::Int(value as i64),
            DType::U8 => Scalar::Int(i64::from(value as u8)),
            DType::Bool => Scalar::Bool(value != 0.0),
        }
    }

    /// The value as `f64` (exact but for i64 beyond 2⁵³).
    pub fn to_f64(self) -> f64 {
        match self {
            Scalar::Float(v) => v,
            Scalar::Int(v) => v as f64,
            Scalar::Bool(v) => f64::from(u8::from(v)),
        }
    }

    /// A bit pattern that is equal exactly when the scalars are the same constant (so -0 differs from 0).
    pub fn key(self) -> (u8, u64) {
        match self {
            Scalar::Float(v) => (0, v.to_bits()),
            Scalar::Int(v) => (1, v as u64),
            Scalar::Bool(v) => (2, u64::from(v)),
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Scalar {}
impl std::hash::Hash for Scalar {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
