//! The one error type. It names the op, the shapes and dtypes involved, and the way out.

use crate::dtype::DType;
use crate::shape::Shape;
use std::fmt;

/// What kind of thing went wrong; the addon hands it to JavaScript as `error.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Shapes do not fit the op.
    Shape,
    /// Dtypes do not fit the op.
    DType,
    /// An option or argument is outside its range.
    Argument,
    /// An index or label is outside its axis.
    Index,
    /// A handle was disposed of, or never existed.
    Disposed,
    /// A value became NaN or infinite where that cannot be.
    NonFinite,
    /// Memory could not be had.
    Memory,
    /// A file is missing, truncated or corrupt.
    File,
    /// The device cannot do this.
    Device,
    /// A derivative was asked for where none exists.
    Derivative,
    /// Ours: a bug in raphson.
    Internal,
}

impl Code {
    /// The text of the code in JavaScript.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Shape => "SHAPE",
            Code::DType => "DTYPE",
            Code::Argument => "ARGUMENT",
            Code::Index => "INDEX",
            Code::Disposed => "DISPOSED",
            Code::NonFinite => "NON_FINITE",
            Code::Memory => "MEMORY",
            Code::File => "FILE",
            Code::Device => "DEVICE",
            Code::Derivative => "DERIVATIVE",
            Code::Internal => "INTERNAL",
        }
    }
}

/// An error at the door: `[op] what is wrong: the shapes; the way out`.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The kind.
    pub code: Code,
    /// The op or function that refused.
    pub op: String,
    /// Shapes of the operands, where they matter.
    pub shapes: Vec<Shape>,
    /// Dtypes of the operands, where they matter.
    pub dtypes: Vec<DType>,
    /// The sentence, without the op's name.
    pub message: String,
}

/// Shorthand used throughout.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without operands.
    pub fn new(code: Code, op: impl Into<String>, message: impl Into<String>) -> Error {
        Error { code, op: op.into(), shapes: Vec::new(), dtypes: Vec::new(), message: message.into() }
    }

    /// An argument outside its range.
    pub fn argument(op: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(Code::Argument, op, message)
    }

    /// A bug of ours.
    pub fn internal(op: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(Code::Internal, op, format!("internal: {}", message.into()))
    }

    /// The same error with the operands' shapes.
    pub fn with_shapes<'a>(mut self, shapes: impl IntoIterator<Item = &'a Shape>) -> Error {
        self.shapes = shapes.into_iter().cloned().collect();
        self
    }

    /// The same error with the operands' dtypes.
    pub fn with_dtypes(mut self, dtypes: impl IntoIterator<Item = DType>) -> Error {
        self.dtypes = dtypes.into_iter().collect();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.op, self.message)
    }
}

impl std::error::Error for Error {}
