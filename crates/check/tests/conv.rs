//! Convolutions: values, first and second derivatives on every device, over strides, dilations, padding, cropping, groups
//! and one to three spatial axes. The cases are drawn, and some are given.

use raphson_check::case::{Case, Input};
use raphson_check::draw::Generator;
use raphson_check::suite::Suite;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Result};
use raphson_graph::op::conv::Window;
use raphson_graph::value::Value;

const NUMERIC: [DType; 8] =
    [DType::F32, DType::F64, DType::I32, DType::U32, DType::F16, DType::BF16, DType::I64, DType::U8];

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut suite = Suite::on_all().unwrap();
    cases.into_iter().for_each(|case| suite.check(&case));
    suite.finish();
}

/// Makes second derivatives other than zero.
fn bend(x: &Value) -> Result<Value> {
    if x.dtype().is_float() { x.sin() } else { Ok(x.clone()) }
}

/// Sizes of one convolution: [batch, groups, in, out], and for each spatial axis the window, the data's size, the taps and
/// the outputs.
#[derive(Clone, Debug)]
struct Sizes {
    leading: [usize; 4],
    axes: Vec<(Window, usize, usize, usize)>,
}

impl Sizes {
    fn each(&self, of: impl Fn(&(Window, usize, usize, usize)) -> usize) -> Vec<usize> {
        self.axes.iter().map(of).collect()
    }

    fn inputs(&self, dtype: DType) -> Vec<Input> {
        let [b, g, i, o] = self.leading;
        let data = [vec![b, g, i], self.each(|axis| axis.1)].concat();
        let kernel = [vec![g, o, i], self.each(|axis| axis.2)].concat();
        vec![Input::new(&data[..], dtype), Input::new(&kernel[..], dtype)]
    }

    fn conv(&self, data: &Value, kernel: &Value) -> Result<Value> {
        let windows: Vec<Window> = self.axes.iter().map(|axis| axis.0).collect();
        data.conv(kernel, &windows, &self.each(|axis| axis.3))
    }

    fn what(&self) -> String {
        let axis = |&(w, size, taps, outputs): &(Window, usize, usize, usize)| {
            format!(
                "{size} × {taps} → {outputs} by {} from {}, dilated {} and {}",
                w.stride, -w.low, w.data_dilation, w.kernel_dilation
            )
        };
        format!("{:?}: {}", self.leading, self.axes.iter().map(axis).collect::<Vec<_>>().join("; "))
    }

    /// The convolution, and the convolution of sines.
    fn cases(self, dtype: DType) -> Vec<Case> {
        let (plain, bent) = (self.clone(), self.clone());
        let case = Case::new("conv", self.what(), self.inputs(dtype), move |x| plain.conv(&x[0], &x[1]));
        let between = Case::new("conv", self.what() + " between sines", self.inputs(dtype), move |x| {
            bend(&bent.conv(&bend(&x[0])?, &bend(&x[1])?)?)
        });
        vec![case, between]
    }
}

fn window(stride: usize, low: i64, data_dilation: usize, kernel_dilation: usize) -> Window {
    Window { stride, low, data_dilation, kernel_dilation }
}

/// A whole number in the range, its end included.
fn between(generator: &mut Generator, low: i64, high: i64) -> i64 {
    low + (generator.bits() % (high - low + 1) as u64) as i64
}

fn drawn(generator: &mut Generator) -> Sizes {
    let mut below = |low: i64, high: i64| between(generator, low, high);
    let n_spatial = below(1, 3);
    let most = [9, 6, 4][n_spatial as usize - 1];
    let axes = (0..n_spatial).map(|_| {
        let window = window(
            below(1, 3) as usize,
            below(-2, 3),
            if below(0, 2) == 0 { below(2, 3) as usize } else { 1 },
            below(1, 2) as usize,
        );
        (window, below(1, most) as usize, below(1, 4.min(most)) as usize, below(1, most) as usize)
    });
    let axes = axes.collect();
    Sizes { leading: [below(1, 3), below(1, 3), below(1, 4), below(1, 4)].map(|n| n as usize), axes }
}

#[test]
fn drawn_shapes() {
    let mut generator = Generator::named("convolutions");
    let mut cases = Vec::new();
    for number in 0..80 {
        let sizes = drawn(&mut generator);
        cases.extend(sizes.cases(NUMERIC[number % 8]));
    }
    check(cases);
}

#[test]
fn given_shapes() {
    let same = |size: usize, taps: usize| (window(1, (taps / 2) as i64, 1, 1), size, taps, size);
    let shapes = [
        // A layer, strided, dilated, transposed.
        ([2, 1, 3, 4], vec![same(6, 3), same(5, 3)]),
        ([2, 1, 3, 4], vec![(window(2, 1, 1, 1), 7, 3, 4), (window(2, 1, 1, 1), 6, 3, 3)]),
        ([1, 1, 2, 3], vec![(window(1, 2, 1, 2), 8, 3, 8), (window(1, 0, 1, 3), 9, 3, 3)]),
        ([2, 1, 3, 5], vec![(window(1, 2, 2, 1), 4, 3, 9), (window(1, 1, 2, 1), 3, 2, 6)]),
        // Depthwise, two outputs of each channel, grouped.
        ([2, 5, 1, 1], vec![same(7, 3), same(6, 5)]),
        ([2, 3, 1, 2], vec![(window(2, 1, 1, 1), 9, 3, 5)]),
        ([3, 2, 3, 4], vec![same(5, 3)]),
        // One tap, and one tap with gaps in the data: outputs that meet nothing.
        ([3, 1, 4, 6], vec![same(5, 1), same(4, 1)]),
        ([1, 1, 3, 3], vec![(window(2, 0, 1, 1), 7, 1, 4)]),
        ([1, 1, 2, 3], vec![(window(1, 0, 3, 1), 4, 1, 10)]),
        // Outputs far outside on both sides; data cut off at the start.
        ([1, 1, 2, 2], vec![(window(1, 7, 1, 1), 3, 2, 15)]),
        ([1, 1, 2, 2], vec![(window(1, -2, 1, 1), 6, 2, 3)]),
        // Three axes.
        ([1, 1, 2, 2], vec![same(3, 3), same(4, 2), same(3, 3)]),
        // Nothing of one kind.
        ([0, 1, 2, 2], vec![same(3, 3)]),
        ([2, 1, 0, 2], vec![same(3, 3)]),
        ([2, 1, 2, 0], vec![same(3, 3)]),
        ([1, 1, 1, 1], vec![(window(1, 1, 1, 1), 0, 2, 3)]),
        ([1, 1, 1, 1], vec![(window(1, 1, 1, 1), 3, 0, 3)]),
        ([1, 1, 1, 1], vec![(window(1, 1, 1, 1), 3, 2, 0)]),
    ];
    let mut cases = Vec::new();
    for (leading, axes) in shapes {
        for dtype in NUMERIC {
            cases.extend(Sizes { leading, axes: axes.clone() }.cases(dtype));
        }
    }
    check(cases);
}

/// Blocks, tiles and partial sums end somewhere inside these.
#[test]
fn large_shapes() {
    let same = |size: usize, taps: usize| (window(1, (taps / 2) as i64, 1, 1), size, taps, size);
    let shapes = [
        ([3, 1, 5, 33], vec![same(19, 3), same(23, 3)]),
        ([40, 1, 17, 20], vec![same(5, 3), same(4, 3)]),
        ([2, 2, 18, 17], vec![(window(2, 1, 1, 1), 25, 5, 13), (window(3, 2, 1, 2), 30, 3, 11)]),
        ([2, 1, 7, 9], vec![(window(1, 3, 2, 1), 14, 4, 28), (window(1, 1, 2, 1), 9, 3, 18)]),
        ([2, 20, 1, 1], vec![same(31, 3), same(29, 5)]),
        ([4, 1, 64, 40], vec![same(9, 1), same(8, 1)]),
        ([1, 1, 2, 3], vec![same(700, 9)]),
        ([1, 1, 4, 5], vec![same(9, 3), same(8, 3), same(7, 3)]),
        // Several images in a block, the last block with fewer; one output channel; many input channels, taken some at a time, a few
        // images at a time or in parts, also with steps between outputs.
        ([70, 1, 1, 20], vec![same(12, 3), same(11, 3)]),
        ([19, 1, 20, 1], vec![same(14, 3), same(12, 3)]),
        ([37, 1, 60, 33], vec![same(6, 3), same(5, 3)]),
        ([1, 1, 70, 40], vec![same(7, 3), same(7, 3)]),
        ([9, 2, 40, 24], vec![(window(2, 1, 1, 1), 11, 3, 6), (window(2, 1, 1, 1), 9, 3, 5)]),
        // Gradients of kernels.
        ([5, 1, 30, 36], vec![(window(1, 1, 1, 1), 18, 18, 3), (window(1, 1, 1, 1), 17, 17, 3)]),
        ([3, 2, 8, 20], vec![(window(1, 1, 1, 2), 33, 17, 3), (window(1, 2, 1, 2), 29, 15, 5)]),
        ([6, 1, 9, 20], vec![(window(2, 1, 1, 1), 17, 12, 4), (window(3, 2, 1, 1), 22, 11, 5)]),
        ([70, 1, 6, 9], vec![(window(1, 1, 1, 1), 6, 6, 3), (window(1, 1, 1, 1), 5, 5, 3)]),
        ([1, 12, 30, 1], vec![(window(1, 1, 1, 1), 20, 20, 3), (window(1, 1, 1, 1), 25, 25, 3)]),
    ];
    let mut cases = Vec::new();
    for (leading, axes) in shapes {
        for dtype in [DType::F32, DType::F64] {
            let sizes = Sizes { leading, axes: axes.clone() };
            let (what, inputs) = (sizes.what(), sizes.inputs(dtype));
            cases.push(Case::new("conv", what, inputs, move |x| sizes.conv(&x[0], &x[1])).values_only());
        }
    }
    check(cases);
}

/// Operands that are views, and a result that is read as one.
#[test]
fn views() {
    let same = (window(1, 1, 1, 1), 5, 3, 5);
    let mut cases = Vec::new();
    for dtype in NUMERIC {
        let inputs = vec![Input::new([5, 6, 2, 3], dtype), Input::new([3, 4, 3, 3], dtype)];
        cases.push(Case::new("conv", "channels last, taps backwards", inputs, move |x| {
            let data = x[0].permute(&[2, 3, 0, 1])?.reshape(&[2, 1, 3, 5, 6].into())?;
            let kernel = x[1].permute(&[1, 0, 2, 3])?.flip(&[2, 3])?.reshape(&[1, 4, 3, 3, 3].into())?;
            data.conv(&kernel, &[same.0, same.0], &[5, 6])?.permute(&[0, 3, 4, 2, 1])
        }));
        let inputs = vec![Input::new([4, 1, 7], dtype), Input::new([1, 3, 1, 1], dtype)];
        cases.push(Case::new("conv", "repeated and sliced", inputs, move |x| {
            let data = x[0].slice(&[0, 0, 1], &[4, 1, 7], &[2, 1, 1])?.reshape(&[2, 1, 1, 6].into())?;
            let data = data.expand(&[2, 1, 3, 6].into())?;
            let kernel = x[1].expand(&[1, 3, 3, 2].into())?;
            data.conv(&kernel, &[window(1, 1, 1, 1)], &[7])
        }));
        cases.push(Case::new("conv", "with itself", vec![Input::new([1, 1, 1, 6], dtype)], |x| {
            x[0].conv(&x[0], &[window(1, 5, 1, 1)], &[11])
        }));
        let constant = vec![Input::new([2, 1, 3, 6], dtype)];
        cases.push(Case::new("conv", "with a constant", constant, move |x| {
            let ones = Value::constant(1.0, dtype, &[1, 2, 3, 3].into());
            x[0].conv(&ones, &[Window { low: 1, ..Window::PLAIN }], &[6])
        }));
    }
    check(cases);
}

#[test]
fn integers_wrap() {
    let extremes = [2_147_483_647.0, -2_147_483_648.0, 4_294_967_295.0, 3.0, 65_537.0];
    let cases = [DType::I32, DType::U32].map(|dtype| {
        let inputs = vec![Input::given([1, 1, 2, 5], dtype, &extremes), Input::given([1, 3, 2, 3], dtype, &extremes)];
        Case::new("conv", "wrapping", inputs, |x| x[0].conv(&x[1], &[Window { low: 1, ..Window::PLAIN }], &[5]))
    });
    check(cases);
}

#[test]
fn refusals_name_the_shapes() {
    let value = |shape: &[usize], dtype: DType| Value::input(shape.into(), dtype);
    let data = value(&[2, 1, 3, 8], DType::F32);
    let kernel = value(&[1, 4, 3, 3], DType::F32);
    let refuse = |data: &Value, kernel: &Value, windows: &[Window], sizes: &[usize]| {
        data.conv(kernel, windows, sizes).expect_err("refused")
    };
    let plain = [Window::PLAIN];
    let error = refuse(&data, &value(&[1, 4, 2, 3], DType::F32), &plain, &[6]);
    assert_eq!((error.code, error.shapes.len()), (Code::Shape, 2));
    assert!(error.message.contains("[2, 1, 3, 8]") && error.message.contains("1 groups of 2"), "{error}");
    assert_eq!(refuse(&data, &value(&[1, 4, 3, 3], DType::F64), &plain, &[6]).code, Code::DType);
    assert_eq!(refuse(&data, &value(&[1, 4, 3], DType::F32), &plain, &[6]).code, Code::Shape);
    let truth = [&data, &kernel].map(|like| value(like.shape(), DType::Bool));
    assert_eq!(refuse(&truth[0], &truth[1], &plain, &[6]).code, Code::DType);
    for window in [window(0, 0, 1, 1), window(1, 0, 0, 1), window(1, 0, 1, 0), window(1, i64::MIN, 1, 1)] {
        assert_eq!(refuse(&data, &kernel, &[window], &[6]).code, Code::Argument);
    }
    assert_eq!(refuse(&data, &kernel, &[Window { stride: 1 << 39, ..Window::PLAIN }], &[6]).code, Code::Argument);
    assert_eq!(refuse(&data, &kernel, &[], &[6]).code, Code::Argument);
    assert_eq!(refuse(&data, &kernel, &plain, &[1 << 39]).code, Code::Shape);
    assert!(data.conv(&kernel, &plain, &[6]).is_ok());
}
