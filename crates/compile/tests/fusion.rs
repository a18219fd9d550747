//! What ends up in one kernel, and in whose memory: fusion and planning seen from outside. Values are the check crate's
//! matter.

use raphson_compile::compile;
use raphson_compile::program::{Kernel, Place, Program};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

fn input<const N: usize>(sizes: [usize; N]) -> Value {
    Value::input(Shape::from(sizes), DType::F32)
}

fn compiled(inputs: &[Value], outputs: &[Value], donated: &[bool]) -> Program {
    let flat = flatten(inputs, outputs).unwrap();
    compile(&flat.graph, donated).unwrap()
}

fn row_kernels(program: &Program) -> usize {
    program.kernels.iter().filter(|kernel| matches!(kernel, Kernel::Row(_))).count()
}

fn log_softmax(x: &Value) -> Result<Value> {
    let last = x.shape().rank() - 1;
    let top = x.reduce(ReduceOp::Max, &[last])?.expand_reduced(&[last], x.shape())?.stop_gradient();
    let shifted = x.sub(&top)?;
    let sum = shifted.exp()?.sum(&[last])?.log()?;
    shifted.sub(&sum.expand_reduced(&[last], x.shape())?)
}

/// The gradient of the maximum of neighbours: written by the kernel that computes it, both parts where they belong.
#[test]
fn parts_that_take_turns_are_written_straight_to_their_places() {
    let x = input([4, 6]);
    let half = |first: usize| x.slice(&[0, first], &[4, 6], &[1, 2]).unwrap();
    let y = half(0).maximum(&half(1)).unwrap();
    let dy = input([4, 3]);
    let gradient = vjp(&[y], std::slice::from_ref(&x), std::slice::from_ref(&dy)).unwrap();
    let program = compiled(&[x, dy], &gradient, &[false, false]);
    assert_eq!((program.kernels.len(), row_kernels(&program), program.arena_bytes), (1, 1, 0));
}

#[test]
fn softmax_is_one_kernel() {
    let x = input([128, 10]);
    let y = log_softmax(&x).unwrap().exp().unwrap();
    let program = compiled(&[x], &[y], &[false]);
    assert_eq!((program.kernels.len(), program.arena_bytes), (1, 0));
}

#[test]
fn layer_norm_is_one_kernel() {
    let (x, scale, shift) = (input([64, 32]), input([32]), input([32]));
    let spread = |value: Value| value.expand_reduced(&[1], &Shape::from([64, 32])).unwrap();
    let mean = spread(x.sum(&[1]).unwrap().scale(1.0 / 32.0).unwrap());
    let centred = x.sub(&mean).unwrap();
    let variance = centred.square().unwrap().sum(&[1]).unwrap().scale(1.0 / 32.0).unwrap();
    let normal = centred.mul(&spread(variance.shift(1e-5).unwrap().rsqrt().unwrap())).unwrap();
    let y = normal.mul(&scale).unwrap().add(&shift).unwrap();
    let program = compiled(&[x, scale, shift], &[y], &[false; 3]);
    assert_eq!((program.kernels.len(), program.arena_bytes), (1, 0));
}

#[test]
fn an_optimizer_update_is_one_kernel_in_place() {
    let [gradient, mean, square, parameter] = [(); 4].map(|()| input([300, 7]));
    let rate = input([]);
    let mean_next = mean.scale(0.9).unwrap().add(&gradient.scale(0.1).unwrap()).unwrap();
    let square_next = square.scale(0.99).unwrap().add(&gradient.square().unwrap().scale(0.01).unwrap()).unwrap();
    let direction = mean_next.div(&square_next.sqrt().unwrap().shift(1e-8).unwrap()).unwrap();
    let parameter_next = parameter.sub(&direction.mul(&rate).unwrap()).unwrap();
    let program = compiled(
        &[gradient, mean, square, parameter, rate],
        &[mean_next, square_next, parameter_next],
        &[false, true, true, true, false],
    );
    assert_eq!((program.kernels.len(), program.arena_bytes), (1, 0));
    let in_place = |output: usize| {
        let buffer = &program.buffers[program.outputs[output].0 as usize];
        matches!(buffer.place, Place::InPlace { .. })
    };
    assert!((0..3).all(in_place), "{:?}", program.buffers);
}

#[test]
fn an_output_that_may_be_an_input_takes_over_its_memory() {
    let (accepted, step) = (Value::input(Shape::from([]), DType::Bool), input([300]));
    let (now, before) = (input([300]), input([300]));
    let start = accepted.select(&now, &before).unwrap();
    let next = start.sub(&step).unwrap();
    let program = compiled(&[accepted, step, now, before], &[next, start], &[false, false, true, true]);
    let places = [0, 1].map(|output: usize| program.buffers[program.outputs[output].0 as usize].place);
    assert_eq!(places, [Place::InPlace { input: 3, output: 0 }, Place::InPlace { input: 2, output: 1 }]);
}

#[test]
fn an_input_that_is_read_later_is_not_overwritten() {
    let (x, y) = (input([4, 4]), input([4, 4]));
    let next = x.add(&y).unwrap();
    // The product reads x, and may run after the sum: only one of them may have the memory, and it must be the last.
    let product = x.dot(&y).unwrap().dot(&x).unwrap();
    let program = compiled(&[x, y], &[next, product], &[true, false]);
    let buffer = &program.buffers[program.outputs[0].0 as usize];
    assert_eq!(buffer.place, Place::Output(0));
}

/// h·(W − sω) beside h·ω: nothing but what comes after both reads the weights' new values, so they are written once, over the old ones.
#[test]
fn weights_move_after_the_products_that_look_ahead() {
    let (h, weights, omega, s) = (input([8, 20]), input([16, 20]), input([16, 20]), input([]));
    let moved = weights.sub(&omega.mul(&s).unwrap()).unwrap();
    let by = |matrix: &Value| h.dot(&matrix.transpose().unwrap()).unwrap();
    let (there, tangent) = (by(&moved), by(&omega));
    let inputs = [h.clone(), weights, omega, s];
    // As if a step were taken or not, by what was seen there.
    let next = moved.mul(&there.sum_all().unwrap()).unwrap();
    let program = |outputs: &[Value]| compiled(&inputs, outputs, &[false, true, false, false]);
    let kernels = |program: &Program| {
        let row =
            |kernel: &&Kernel| matches!(kernel, Kernel::Row(row) if row.kept.iter().product::<usize>() == 16 * 20);
        (products(program).len(), program.kernels.iter().filter(row).count())
    };
    let both = program(&[next.clone(), tangent]);
    assert_eq!(kernels(&both), (2, 1));
    assert_eq!(both.buffers[both.outputs[0].0 as usize].place, Place::InPlace { input: 1, output: 0 });
    // Alone, the product takes the point as it is.
    assert_eq!(kernels(&program(&[next])), (1, 2));
}

#[test]
fn a_sign_is_applied_behind_its_product() {
    let (a, u, v) = (input([4, 20]), input([20, 30]), input([20, 30]));
    let x = u.mul(&v).unwrap();
    let product = a.dot(&x.neg().unwrap()).unwrap();
    let program = compiled(&[a, u, v], &[x, product], &[false; 3]);
    assert!(program.arena_bytes <= 4 * 30 * 4 + 64, "{} bytes: is −x stored?", program.arena_bytes);
}

#[test]
fn long_columns_are_summed_in_parts() {
    let kept = |shape: [usize; 2]| -> Vec<Vec<usize>> {
        let x = input(shape);
        let sum = x.sum(&[0]).unwrap();
        let program = compiled(&[x], &[sum], &[false]);
        let rows = program.kernels.iter().filter_map(|kernel| match kernel {
            Kernel::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| row.kept.clone()).collect()
    };
    assert_eq!(kept([4096, 300]), [vec![8, 300], vec![300]]);
    // Too short, too many columns to need it, no even parts.
    assert_eq!(kept([1024, 300]), [[300]]);
    assert_eq!(kept([4096, 9000]), [[9000]]);
    assert_eq!(kept([4099, 300]), [[300]]);
}

#[test]
fn reductions_wait_for_what_uses_them() {
    let (x, table, places) = (input([64, 100]), input([5]), Value::input([64].into(), DType::I32));
    let weights = table.gather(&places, 0).unwrap().expand_reduced(&[1], x.shape()).unwrap();
    let weighted = log_softmax(&x).unwrap().mul(&weights).unwrap();
    let outputs = [weighted.sum(&[1]).unwrap(), weighted];
    // Without the gather in between it is one kernel, and so it is with it, though the softmax's sums could be taken before.
    let program = compiled(&[x, table, places], &outputs, &[false; 3]);
    assert_eq!(row_kernels(&program), 1);
    assert!(program.arena_bytes <= 64 * 4, "{} bytes", program.arena_bytes);
}

/// Two dense layers with ReLU and cross-entropy: loss and all gradients.
fn network() -> (Vec<Value>, Vec<Value>) {
    let (images, labels) = (input([64, 784]), input([64, 10]));
    let params = [input([784, 256]), input([256]), input([256, 10]), input([10])];
    let hidden = images.dot(&params[0]).unwrap().add(&params[1]).unwrap().relu().unwrap();
    let logits = hidden.dot(&params[2]).unwrap().add(&params[3]).unwrap();
    let losses = log_softmax(&logits).unwrap().mul(&labels).unwrap().sum(&[1]).unwrap();
    let loss = losses.sum_all().unwrap().scale(-1.0 / 64.0).unwrap();
    let gradients = vjp(std::slice::from_ref(&loss), &params, &[Value::scalar(1.0, DType::F32)]).unwrap();
    let inputs = [vec![images, labels], params.to_vec()].concat();
    (inputs, [vec![loss], gradients].concat())
}

#[test]
fn a_training_step_has_few_kernels() {
    let (inputs, outputs) = network();
    let program = compiled(&inputs, &outputs, &[false; 6]);
    let dots = program.kernels.iter().filter(|kernel| matches!(kernel, Kernel::Dot(_))).count();
    // forward 2, weights 2, hidden 1
    assert_eq!(dots, 5);
    // bias + ReLU; softmax and its gradient; mean; bias gradient; ReLU gradient with bias gradient
    assert!(row_kernels(&program) <= 6, "{} row kernels", row_kernels(&program));
    // hidden layer, its gradient before and after the ReLU; a few small ones
    assert!(program.arena_bytes <= 4 * 64 * (256 * 3 + 10 * 4) + 4096, "arena of {} bytes", program.arena_bytes);
}

/// Sizes (batch, m, k, n) of a program's products.
fn products(program: &Program) -> Vec<(Vec<usize>, [usize; 3])> {
    let sizes = |kernel: &Kernel| match kernel {
        Kernel::Dot(dot) => Some((dot.batch.clone(), [dot.m, dot.k, dot.n])),
        _ => None,
    };
    program.kernels.iter().filter_map(sizes).collect()
}

#[test]
fn a_dense_layer_over_batch_and_time_multiplies_all_rows_at_once() {
    let (x, weight, cotangent) = (input([4, 8, 32]), input([24, 32]), input([4, 8, 24]));
    let y = x.dot(&weight.transpose().unwrap()).unwrap();
    let gradients =
        vjp(std::slice::from_ref(&y), &[x.clone(), weight.clone()], std::slice::from_ref(&cotangent)).unwrap();
    let program = compiled(&[x, weight, cotangent], &[vec![y], gradients].concat(), &[false; 3]);
    // Forward, data and weight: nothing is stored or added up for each batch entry.
    assert_eq!(
        products(&program),
        [(vec![], [32, 32, 24]), (vec![], [32, 24, 32]), (vec![], [24, 32, 32])],
        "{:?}",
        program.kernels
    );
    assert_eq!((row_kernels(&program), program.arena_bytes), (0, 0));
}

#[test]
fn products_whose_rows_do_not_follow_each_other_keep_their_batch() {
    let (x, y, weight) = (input([4, 8, 6]), input([4, 6, 5]), input([6, 5]));
    let of = |x: &Value, weight: &Value| {
        products(&compiled(&[x.clone(), weight.clone()], &[x.dot(weight).unwrap()], &[false; 2]))
    };
    assert_eq!(of(&x, &y), [(vec![4], [8, 6, 5])]);
    let turned = x.transpose().unwrap().slice(&[0, 0, 0], &[4, 6, 6], &[1, 1, 1]).unwrap();
    let flat = flatten(&[x, weight.clone()], &[turned.dot(&weight).unwrap()]).unwrap();
    assert_eq!(products(&compile(&flat.graph, &[false; 2]).unwrap()), [(vec![4], [6, 6, 5])]);
}

#[test]
fn the_derivative_of_parts_is_written_part_by_part() {
    let x = input([8, 12]);
    let part = |i: usize| x.slice(&[0, 4 * i], &[8, 4 * i + 4], &[1, 1]).unwrap();
    let (outputs, cotangents) = ([0, 1, 2].map(part), [(); 3].map(|()| input([8, 4])));
    let gradient = vjp(&outputs, std::slice::from_ref(&x), &cotangents).unwrap();
    let program = compiled(&cotangents, &gradient, &[false; 3]);
    assert_eq!((program.kernels.len(), row_kernels(&program), program.arena_bytes), (3, 3, 0));
}

#[test]
fn compiling_takes_work_in_proportion_to_the_graph() {
    // Counted work: kernels and steps of a chain that alternates products with elementwise work.
    let steps = |layers: usize| {
        let (x, w) = (input([8, 8]), input([8, 8]));
        let y = (0..layers).fold(x.clone(), |y, _| y.dot(&w).unwrap().tanh().unwrap());
        compiled(&[x, w], &[y], &[false, false]).kernels.len()
    };
    assert_eq!(steps(400), 2 * steps(200));
}

#[test]
fn the_peak_counts_inputs_outputs_and_the_arena_and_memory_taken_over_once() {
    let (x, y) = (input([16, 16]), input([16, 16]));
    let product = x.dot(&y).unwrap();
    let outputs = [product.dot(&y).unwrap(), x.add(&x).unwrap()];
    let inputs = [x, y];
    let matrix = 16 * 16 * 4;
    // One product between, both inputs, both outputs; then an output less, where the first input may be overwritten.
    let peak = |donated: [bool; 2]| compiled(&inputs, &outputs, &donated).peak_bytes();
    assert_eq!(peak([false, false]), 5 * matrix);
    assert_eq!(peak([true, false]), 4 * matrix);
}

#[test]
fn a_product_that_is_larger_than_what_was_computed_for_it_comes_right_before_its_first_use() {
    let (x, w) = (input([4, 40]), input([40, 40]));
    let delta = input([4, 40]).tanh().unwrap();
    let placeholder = delta.inputs()[0].clone();
    let gradient = delta.permute(&[1, 0]).unwrap().dot(&x).unwrap();
    // Something is needed first that takes a product of its own.
    let rate = delta.dot(&w).unwrap().square().unwrap().sum_all().unwrap().expand(&[40, 40].into()).unwrap();
    let updated = w.sub(&rate.mul(&gradient).unwrap()).unwrap();
    let program = compiled(&[x, w, placeholder], &[updated], &[false; 3]);
    let kinds: Vec<&str> =
        program.kernels.iter().map(|kernel| if matches!(kernel, Kernel::Dot(_)) { "dot" } else { "row" }).collect();
    assert_eq!(kinds, ["row", "dot", "row", "dot", "row"]);
}

#[test]
fn a_late_product_comes_before_all_of_its_users() {
    let (x, y, z) = (input([4, 40]), input([40, 80]), input([4, 40]));
    let small = z.tanh().unwrap().permute(&[1, 0]).unwrap().dot(&x).unwrap();
    // One user is late itself: it waits for what is made of the other.
    let large = small.dot(&y).unwrap();
    let other = small.exp().unwrap().dot(&y).unwrap().sum(&[1]).unwrap().reshape(&[40, 1].into()).unwrap();
    let last = large.mul(&x.dot(&other).unwrap().sum_all().unwrap().expand(&[40, 80].into()).unwrap()).unwrap();
    let program = compiled(&[x, y, z], &[last], &[false; 3]);
    let mut written: Vec<_> = program.inputs.clone();
    for kernel in &program.kernels {
        let (read, writes) = kernel.buffers();
        assert!(read.iter().all(|buffer| written.contains(buffer)), "{kernel:?}");
        written.extend(writes);
    }
    let dots = program.kernels.iter().rev().take(2).filter(|kernel| matches!(kernel, Kernel::Dot(_))).count();
    assert_eq!(dots, 1, "the large product comes right before the last kernel");
}

/// A report: its numbers are stored where they stand in it by the kernel that computes them, also one that is read elsewhere too.
#[test]
fn numbers_of_a_row_are_written_straight_to_their_places() {
    let x = input([64]);
    let (sum, norm) = (x.sum_all().unwrap(), x.square().unwrap().sum_all().unwrap());
    let part = |value: &Value| value.reshape(&[1].into()).unwrap();
    let (mean, root) = (sum.scale(1.0 / 64.0).unwrap(), norm.sqrt().unwrap());
    let row = Value::concatenate(&[part(&mean), part(&root), part(&mean), part(&norm)], 0).unwrap();
    let program = compiled(std::slice::from_ref(&x), &[row, root], &[false]);
    assert_eq!((program.kernels.len(), row_kernels(&program), program.arena_bytes), (1, 1, 0));
    // An input stands in memory: it is copied.
    let y = input([3]);
    let row = Value::concatenate(&[y.clone(), x.tanh().unwrap()], 0).unwrap();
    let program = compiled(&[x, y], &[row], &[false, false]);
    assert_eq!((program.kernels.len(), program.arena_bytes), (2, 0));
}

/// A device that has threads to spare does them beside it.
#[test]
fn small_kernels_at_the_end_come_before_the_last_long_product() {
    let (x, w, v, c) = (input([256, 256]), input([256, 256]), input([256, 256]), input([256]));
    let product = x.dot(&w).unwrap();
    let small = c.tanh().unwrap().sum_all().unwrap().exp().unwrap();
    let after = product.sum(&[1]).unwrap().tanh().unwrap();
    // Long itself, and of what the product reads.
    let large = v.tanh().unwrap();
    let program = compiled(&[x, w, v, c], &[product, after, small, large], &[false; 4]);
    let dot = program.kernels.iter().position(|kernel| matches!(kernel, Kernel::Dot(_))).unwrap();
    let writer = |output: usize| {
        let writes = |kernel: &Kernel| kernel.buffers().1.contains(&program.outputs[output]);
        program.kernels.iter().position(writes).unwrap()
    };
    assert!(writer(2) < dot, "the small one that needs nothing of the product");
    assert!(writer(1) > dot, "the one that does");
}

/// A running mean m′ that a product along the way decides whether to keep: nobody stores it before that is known.
#[test]
fn a_simple_value_of_what_lies_in_memory_is_computed_again() {
    let matrix = || input([64, 64]);
    let (m, x, w) = (matrix(), matrix(), matrix());
    let gradient = x.dot(&w).unwrap();
    let mean = |function: fn(&Value) -> Result<Value>| {
        m.scale(0.9).unwrap().add(&function(&gradient).unwrap().scale(0.1).unwrap()).unwrap()
    };
    let chosen = |mean: Value| {
        let sums = mean.square().unwrap().sum(&[1]).unwrap().reshape(&[64, 1].into()).unwrap();
        let sum = x.dot(&sums).unwrap().sum_all().unwrap();
        let kept = sum.less(&sum.like(1.0)).unwrap().expand(m.shape()).unwrap();
        compiled(&[m.clone(), x.clone(), w.clone()], &[kept.select(&mean, &m).unwrap()], &[true, false, false])
    };
    let bytes = 64 * 64 * 4;
    // The product, and little else; what the mean is of, where that is no simple function of it, besides.
    let simple = chosen(mean(|gradient| gradient.neg())).arena_bytes;
    assert!((bytes..bytes * 5 / 4).contains(&simple), "{simple}");
    let tanh = chosen(mean(|gradient| gradient.tanh())).arena_bytes;
    assert!((2 * bytes..bytes * 9 / 4).contains(&tanh), "{tanh}");
}

#[test]
fn updates_side_by_side_take_over_each_their_own_input() {
    let inputs: Vec<Value> = (0..40).map(|_| input([8])).chain([input([])]).collect();
    let rate = inputs[40].expand(&[8].into()).unwrap();
    let outputs: Vec<Value> = inputs[..40].iter().map(|x| x.mul(&rate).unwrap()).collect();
    let donated: Vec<bool> = (0..41).map(|input| input != 40).collect();
    let program = compiled(&inputs, &outputs, &donated);
    let place = |output: usize| program.buffers[program.outputs[output].0 as usize].place;
    let mut taken: Vec<usize> = (0..40)
        .map(|output| match place(output) {
            Place::InPlace { input, .. } => input,
            other => panic!("output {output} is {other:?}"),
        })
        .collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..40).collect::<Vec<_>>());
}
