//! A case: what to build, on which inputs, how far derivatives are checked, and how close results must be. Data only.

use crate::draw::Values;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Input {
    pub shape: Shape,
    pub dtype: DType,
    pub values: Values,
}

/// Which derivatives a case checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Derivatives {
    /// Values only.
    None,
    /// First and second derivatives in every order of forward and reverse.
    Second,
}

/// Builds the outputs from placeholders for the inputs.
pub type Build = Box<dyn Fn(&[Value]) -> Result<Vec<Value>>>;

/// One case of the suite.
pub struct Case {
    /// The row of the summary table.
    pub op: String,
    /// What sets this case apart from the others of its op.
    pub what: String,
    pub inputs: Vec<Input>,
    pub build: Build,
    pub derivatives: Derivatives,
    /// Largest error allowed on a device in f32 and in f64.
    pub tolerance: (f64, f64),
    /// Errors are measured against the operands' magnitude too, element by element (elementwise ops only).
    pub elementwise: bool,
    /// One of very many alike: slow runners may take a sample of them.
    pub many: bool,
}

impl Input {
    /// Uniform values in (−2, 2).
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Input {
        Input { shape: shape.into(), dtype, values: Values::Within(-2.0, 2.0) }
    }

    /// Uniform values in an interval.
    pub fn within(shape: impl Into<Shape>, dtype: DType, low: f64, high: f64) -> Input {
        Input { shape: shape.into(), dtype, values: Values::Within(low, high) }
    }

    /// These values.
    pub fn given(shape: impl Into<Shape>, dtype: DType, values: &[f64]) -> Input {
        Input { shape: shape.into(), dtype, values: Values::Given(values.to_vec()) }
    }

    /// Values well apart from each other.
    pub fn distinct(shape: impl Into<Shape>, dtype: DType) -> Input {
        Input { shape: shape.into(), dtype, values: Values::Distinct }
    }

    /// Indices below `n`.
    pub fn below(shape: impl Into<Shape>, dtype: DType, n: usize) -> Input {
        Input { shape: shape.into(), dtype, values: Values::Below(n) }
    }
}

impl Case {
    /// A case with one output; second derivatives, errors up to 1e-5 (f32) and 1e-10 (f64).
    pub fn new(
        op: impl Into<String>,
        what: impl Into<String>,
        inputs: Vec<Input>,
        build: impl Fn(&[Value]) -> Result<Value> + 'static,
    ) -> Case {
        Case::several(op, what, inputs, move |x| Ok(vec![build(x)?]))
    }

    /// A case with several outputs.
    pub fn several(
        op: impl Into<String>,
        what: impl Into<String>,
        inputs: Vec<Input>,
        build: impl Fn(&[Value]) -> Result<Vec<Value>> + 'static,
    ) -> Case {
        Case {
            op: op.into(),
            what: what.into(),
            inputs,
            build: Box::new(build),
            derivatives: Derivatives::Second,
            tolerance: (1e-5, 1e-10),
            elementwise: false,
            many: false,
        }
    }

    /// The same case without derivatives.
    pub fn values_only(mut self) -> Case {
        self.derivatives = Derivatives::None;
        self
    }

    /// The same case as one of very many.
    pub fn one_of_many(mut self) -> Case {
        self.many = true;
        self
    }

    /// The same case with other tolerances for f32 and f64.
    pub fn within(mut self, f32: f64, f64: f64) -> Case {
        self.tolerance = (f32, f64);
        self
    }

    /// The largest error allowed where the result has this dtype.
    pub fn allowed(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F32 => self.tolerance.0,
            DType::F64 => self.tolerance.1,
            // Rounded when stored: two units there, or what f32 may lose on the way.
            DType::F16 | DType::BF16 => self.tolerance.0.max(2.0 * dtype.epsilon()),
            DType::I32 | DType::U32 | DType::I64 | DType::U8 | DType::Bool => 0.0,
        }
    }

    /// The dtype that stands for the case in the table: that of the last float input, else the last input, else f32.
    pub fn dtype(&self) -> DType {
        let dtypes = || self.inputs.iter().rev().map(|input| input.dtype);
        dtypes().find(|dtype| dtype.is_float()).or(dtypes().next()).unwrap_or(DType::F32)
    }
}
