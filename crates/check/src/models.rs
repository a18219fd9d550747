//! Graphs to measure with: networks as losses of placeholders, and graphs of any size whose shape is known. What trains a
//! network stands in `step.rs`.

use raphson_graph::dtype::DType::{F32, I32};
use raphson_graph::dtype::Scalar;
use raphson_graph::error::Result;
use raphson_graph::op::attention::Attention;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// A loss, and the placeholders that it is computed from.
pub struct Model {
    pub params: Vec<Value>,
    /// Data, then one-hot targets.
    pub batch: Vec<Value>,
    pub loss: Value,
}

/// Makes parameters one after another.
#[derive(Default)]
struct Parameters(Vec<Value>);

impl Parameters {
    fn add(&mut self, shape: &[usize]) -> Value {
        let parameter = Value::input(shape.into(), F32);
        self.0.push(parameter.clone());
        parameter
    }

    /// x·Wᵀ + b
    fn dense(&mut self, x: &Value, outputs: usize) -> Result<Value> {
        let inputs = x.shape()[1];
        let product = x.dot(&self.add(&[outputs, inputs]).permute(&[1, 0])?)?;
        let bias = self.add(&[outputs]);
        product.add(&bias.reshape(&[1, outputs].into())?.expand(product.shape())?)
    }

    /// (x − mean)/√(variance + 10⁻⁵) · scale + shift over the last of two axes
    fn layer_norm(&mut self, x: &Value) -> Result<Value> {
        let width = x.shape()[1];
        let mean = |x: &Value| x.sum(&[1])?.scale(1.0 / width as f64)?.expand_reduced(&[1], x.shape());
        let centred = x.sub(&mean(x)?)?;
        let normal = centred.mul(&mean(&centred.square()?)?.shift(1e-5)?.rsqrt()?)?;
        let wide = |value: Value| value.reshape(&[1, width].into())?.expand(x.shape());
        normal.mul(&wide(self.add(&[width]))?)?.add(&wide(self.add(&[width]))?)
    }
}

/// −Σ targets · log softmax(logits) / rows
fn cross_entropy(logits: &Value, targets: &Value) -> Result<Value> {
    let sums = logits.exp()?.sum(&[1])?.log()?;
    let likelihood = logits.sub(&sums.expand_reduced(&[1], logits.shape())?)?;
    likelihood.mul(targets)?.sum_all()?.scale(-1.0 / logits.shape()[0] as f64)
}

/// Dense layers of these sizes with relu between them, and the cross-entropy of what they say.
pub fn mlp(sizes: &[usize], batch: usize) -> Result<Model> {
    let mut params = Parameters::default();
    let x = Value::input([batch, sizes[0]].into(), F32);
    let mut hidden = x.clone();
    for (layer, &size) in sizes.iter().enumerate().skip(1) {
        hidden = params.dense(&hidden, size)?;
        if layer + 1 < sizes.len() {
            hidden = hidden.relu()?;
        }
    }
    let targets = Value::input(hidden.shape().clone(), F32);
    let loss = cross_entropy(&hidden, &targets)?;
    Ok(Model { params: params.0, batch: vec![x, targets], loss })
}

/// Sizes of a GPT.
#[derive(Clone, Copy, Debug)]
pub struct Gpt {
    pub blocks: usize,
    pub width: usize,
    pub heads: usize,
    pub context: usize,
    pub batch: usize,
    pub vocabulary: usize,
}

impl Gpt {
    /// The network of `bench/peers`.
    pub const BENCH: Gpt = Gpt { blocks: 4, width: 128, heads: 4, context: 128, batch: 8, vocabulary: 65 };

    /// The loss of the next character at every position.
    pub fn model(&self) -> Result<Model> {
        let Gpt { blocks, width, context, batch, vocabulary, .. } = *self;
        let rows = batch * context;
        let mut params = Parameters::default();
        let tokens = Value::input([rows].into(), I32);
        let (table, positions) = (params.add(&[vocabulary, width]), params.add(&[context, width]));
        let everywhere: Shape = [batch, context, width].into();
        let positions = positions.reshape(&[1, context, width].into())?.expand(&everywhere)?;
        let mut x = table.gather(&tokens, 0)?.add(&positions.reshape(&[rows, width].into())?)?;
        for _ in 0..blocks {
            let normal = params.layer_norm(&x)?;
            let attended = self.attention(&params.dense(&normal, 3 * width)?)?;
            x = x.add(&params.dense(&attended, width)?)?;
            let normal = params.layer_norm(&x)?;
            let hidden = params.dense(&normal, 4 * width)?.gelu()?;
            x = x.add(&params.dense(&hidden, width)?)?;
        }
        let logits = params.layer_norm(&x)?.dot(&table.permute(&[1, 0])?)?;
        let targets = Value::input(logits.shape().clone(), F32);
        let loss = cross_entropy(&logits, &targets)?;
        Ok(Model { params: params.0, batch: vec![tokens, targets], loss })
    }

    /// softmax(q·kᵀ/√d, causal)·v of each head, from rows of queries, keys and values
    fn attention(&self, rows: &Value) -> Result<Value> {
        let Gpt { width, heads, context, batch, .. } = *self;
        let each = width / heads;
        let part = |which: usize| -> Result<Value> {
            let columns = rows.slice(&[0, which * width], &[batch * context, (which + 1) * width], &[1, 1])?;
            columns.reshape(&[batch, context, heads, each].into())?.permute(&[0, 2, 1, 3])
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let options = Attention { causal: true, scale: Scalar::Float((each as f64).powf(-0.5)) };
        q.attention(&k, &v, None, options)?.permute(&[0, 2, 1, 3])?.reshape(&[batch * context, width].into())
    }
}

/// `n` elementwise operations, each on the result of the one before.
pub fn chain(n: usize) -> Result<Model> {
    let (x, y) = (Value::input([64].into(), F32), Value::input([64].into(), F32));
    let mut value = x.clone();
    for i in 0..n {
        value = if i % 2 == 0 { value.tanh()? } else { value.mul(&y)? };
    }
    Ok(Model { params: vec![x], batch: vec![y], loss: value })
}

/// A chain of products, none of which shares a kernel with another; two operations a link.
pub fn chain_of_products(n: usize) -> Result<Model> {
    let (x, weight) = (Value::input([4, 8].into(), F32), Value::input([8, 8].into(), F32));
    let mut value = x.clone();
    for _ in 0..n / 2 {
        value = value.dot(&weight)?.tanh()?;
    }
    Ok(Model { params: vec![weight], batch: vec![x], loss: value })
}

/// The sum, pair by pair, of one operation on each of `leaves` inputs.
pub fn tree(leaves: usize) -> Result<Model> {
    let inputs: Vec<Value> = (0..leaves).map(|_| Value::input([16].into(), F32)).collect();
    let mut level = inputs.iter().map(Value::tanh).collect::<Result<Vec<_>>>()?;
    while level.len() > 1 {
        let pairs = level.chunks(2).map(|pair| if let [a, b] = pair { a.add(b) } else { Ok(pair[0].clone()) });
        level = pairs.collect::<Result<Vec<_>>>()?;
    }
    Ok(Model { params: inputs, batch: Vec::new(), loss: level.swap_remove(0) })
}

/// The same of products, which do not share kernels.
pub fn tree_of_products(leaves: usize) -> Result<Model> {
    let inputs: Vec<Value> = (0..leaves).map(|_| Value::input([4, 4].into(), F32)).collect();
    let mut level = inputs.clone();
    while level.len() > 1 {
        let pairs = level.chunks(2).map(|pair| if let [a, b] = pair { a.dot(b) } else { Ok(pair[0].clone()) });
        level = pairs.collect::<Result<Vec<_>>>()?;
    }
    Ok(Model { params: inputs, batch: Vec::new(), loss: level.swap_remove(0) })
}
