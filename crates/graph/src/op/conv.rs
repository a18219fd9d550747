//! Convolution over one to three spatial axes, in the form that is closed under its own derivatives: strides, a crop or
//! pad at the low end, and dilations of both operands. What users call padding, a transposed convolution or a group is
//! composed of it elsewhere.

use super::Op;
use super::movement::{permute_vjp, same_dtype};
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::{MAX_ELEMENTS, Shape};
use crate::value::Value;

/// Axes in front of the spatial ones: [batch, groups, channels] of the data and the result, [groups, out, in] of the
/// kernel.
pub const LEADING: usize = 3;
/// The most spatial axes.
pub const MOST_SPATIAL: usize = 3;

/// How a convolution moves along one spatial axis. Output `y` and tap `t` meet at the data element
/// `x = (y·stride + t·kernel_dilation − low) / data_dilation`, where that is a whole number and inside the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Steps between neighbouring outputs.
    pub stride: usize,
    /// Zeros before the first element; cut off where negative.
    pub low: i64,
    /// Steps between neighbouring data elements.
    pub data_dilation: usize,
    /// Steps between neighbouring taps.
    pub kernel_dilation: usize,
}

impl Window {
    /// Every element, with nothing before the first.
    pub const PLAIN: Window = Window { stride: 1, low: 0, data_dilation: 1, kernel_dilation: 1 };

    /// The data element where output `y` and tap `t` meet, if there is one among `size`.
    pub fn meets(&self, y: usize, t: usize, size: usize) -> Option<usize> {
        let at = (y * self.stride + t * self.kernel_dilation) as i64 - self.low;
        let dilation = self.data_dilation as i64;
        let inside = at >= 0 && at % dilation == 0 && ((at / dilation) as usize) < size;
        inside.then(|| (at / dilation) as usize)
    }
}

impl Value {
    /// `out[b, g, o, y…] = Σ_{i, t…} self[b, g, i, x…]·kernel[g, o, i, t…]`, x as each axis's window says: data
    /// [batch, groups, in, size…] and kernel [groups, out, in, taps…] make [batch, groups, out, sizes…]. Outside the data are zeros, so that
    /// any number of outputs may be asked for.
    pub fn conv(&self, kernel: &Value, windows: &[Window], sizes: &[usize]) -> Result<Value> {
        let (data, taps) = (self.shape(), kernel.shape());
        let refuse = |message: String| Err(Error::new(Code::Shape, "conv", message).with_shapes([data, taps]));
        same_dtype("conv", self, kernel)?;
        if self.dtype() == DType::Bool {
            return Err(Error::new(Code::DType, "conv", "bool has no product; cast to a number")
                .with_shapes([data, taps])
                .with_dtypes([DType::Bool, DType::Bool]));
        }
        let n_spatial = data.rank().saturating_sub(LEADING);
        if data.rank() != taps.rank() || !(1..=MOST_SPATIAL).contains(&n_spatial) {
            return refuse(format!(
                "data {data} and kernel {taps}; need [batch, groups, in, …] and [groups, out, in, …] with 1 to 3 spatial axes each"
            ));
        }
        if data[1] != taps[0] || data[2] != taps[2] {
            return refuse(format!(
                "data {data} has {} groups of {} channels, kernel {taps} takes {} groups of {}; they must agree",
                data[1], data[2], taps[0], taps[2]
            ));
        }
        check_windows(windows, sizes, n_spatial).map_err(|error| error.with_shapes([data, taps]))?;
        for (axis, window) in windows.iter().enumerate() {
            // Positions then fit an i64, here and in every derivative.
            let (size, taps) = (data[LEADING + axis], taps[LEADING + axis]);
            let reaches = [(sizes[axis], window.stride), (taps, window.kernel_dilation), (size, window.data_dilation)];
            if reaches.iter().any(|&(n, step)| n.saturating_mul(step) > MAX_ELEMENTS) {
                let message =
                    format!("{window:?} over {size} elements, {taps} taps reaches beyond 2^40; use smaller steps");
                return Err(Error::argument("conv", message).with_shapes([data, kernel.shape()]));
            }
        }
        let shape = Shape::new("conv", [&[data[0], data[1], taps[1]], sizes].concat())?;
        let op = Op::Conv { windows: windows.to_vec() };
        Ok(Value::node(op, vec![self.clone(), kernel.clone()], shape, self.dtype()))
    }
}

fn check_windows(windows: &[Window], sizes: &[usize], n_spatial: usize) -> Result<()> {
    if windows.len() != n_spatial || sizes.len() != n_spatial {
        let (windows, sizes) = (windows.len(), sizes.len());
        let message = format!("{windows} windows and {sizes} sizes for {n_spatial} spatial axes; give one for each");
        return Err(Error::argument("conv", message));
    }
    for window in windows {
        let steps = [window.stride, window.data_dilation, window.kernel_dilation];
        if steps.contains(&0) {
            return Err(Error::argument("conv", format!("{window:?}; strides and dilations must be 1 or more")));
        }
        if window.low.unsigned_abs() > 2 * MAX_ELEMENTS as u64 {
            return Err(Error::argument("conv", format!("{window:?}; pad or cut by fewer than 2^40 elements")));
        }
    }
    Ok(())
}

/// y′ = conv(x′, k) + conv(x, k′)
pub(super) fn jvp(windows: &[Window], y: &Value, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let sizes = &y.shape()[LEADING..];
    let data = tangents[0].as_ref().map(|tangent| tangent.conv(&x[1], windows, sizes)).transpose()?;
    let kernel = tangents[1].as_ref().map(|tangent| x[0].conv(tangent, windows, sizes)).transpose()?;
    match (data, kernel) {
        (Some(data), Some(kernel)) => data.add(&kernel).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

/// Cotangents of data and kernel: both are convolutions again.
pub(super) fn vjp(windows: &[Window], x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    let data = if wanted[0] { Some(data_vjp(windows, &x[0], &x[1], cotangent)?) } else { None };
    let kernel = if wanted[1] { Some(kernel_vjp(windows, &x[0], &x[1], cotangent)?) } else { None };
    Ok(vec![data, kernel])
}

/// With T taps, dilations d (data) and e (kernel): x·d = y·s + t·e − low, so y·s = x·d + (T−1−t)·e − ((T−1)·e − low):
/// the taps backwards over the cotangent, with the stride and the data's dilation exchanged, from `out` to `in` channels.
fn data_vjp(windows: &[Window], data: &Value, kernel: &Value, cotangent: &Value) -> Result<Value> {
    let rank = data.shape().rank();
    let spatial: Vec<usize> = (LEADING..rank).collect();
    let order: Vec<usize> = [0, 2, 1].into_iter().chain(LEADING..rank).collect();
    let backwards = kernel.permute(&order)?.flip(&spatial)?;
    let turned: Vec<Window> = windows
        .iter()
        .zip(&kernel.shape()[LEADING..])
        .map(|(window, &taps)| Window {
            stride: window.data_dilation,
            low: (taps as i64 - 1) * window.kernel_dilation as i64 - window.low,
            data_dilation: window.stride,
            kernel_dilation: window.kernel_dilation,
        })
        .collect();
    cotangent.conv(&backwards, &turned, &data.shape()[LEADING..])
}

/// x·d = t·e + y·s − low: the cotangent as the kernel, its outputs as taps, with the stride and the kernel's dilation
/// exchanged; the sum runs over the batch, and the channels of the data take its place.
fn kernel_vjp(windows: &[Window], data: &Value, kernel: &Value, cotangent: &Value) -> Result<Value> {
    let rank = data.shape().rank();
    let ordered = |value: &Value, leading: [usize; 3]| {
        value.permute(&leading.into_iter().chain(LEADING..rank).collect::<Vec<usize>>())
    };
    let turned: Vec<Window> = windows
        .iter()
        .map(|window| Window { stride: window.kernel_dilation, kernel_dilation: window.stride, ..*window })
        .collect();
    // [in, groups, batch, …] with [groups, out, batch, …] is [in, groups, out, taps…].
    let data = ordered(data, [2, 1, 0])?;
    let product = data.conv(&ordered(cotangent, [1, 2, 0])?, &turned, &kernel.shape()[LEADING..])?;
    let order: Vec<usize> = [2, 0, 1].into_iter().chain(LEADING..rank).collect();
    permute_vjp(&order, &product)
}
