//! The CPU device on fused kernels that write where they read: updates in place, by one condition, of several moments.

mod reference;

use raphson_compile::program::{Level, Order, ReduceOp, View};
use raphson_device::cpu::Cpu;
use raphson_graph::dtype::DType;
use raphson_graph::kernel::Prim;
use reference::{Build, Random};

const F32: DType = DType::F32;

#[test]
fn updates_in_place_read_before_they_write() {
    let mut random = Random(9);
    let cpu = Cpu::new(Some(2)).unwrap();
    let shapes: [(&[usize], &[usize]); 6] =
        [(&[3000], &[]), (&[7], &[33]), (&[3], &[5000]), (&[1], &[40_000]), (&[700], &[5]), (&[2], &[1])];
    for (kept, reduced) in shapes {
        for order in [Order::Row, Order::Column] {
            let mut build = Build::new(kept, reduced, order);
            let n = build.n_kept() * build.n_reduced();
            let x = build.in_place(F32, random.floats(n));
            let z = build.in_place(F32, random.floats(build.n_kept()));
            let (view, kept_view) = (build.full_view(), build.kept_view());
            let old = build.load(x, view.clone(), Level::Full, 0);
            let doubled = build.prim(Prim::Add, &[old, old]);
            // The store stands first, and its value is old by the time it is asked for again.
            build.store(x, view.clone(), doubled, Level::Full);
            let again = build.load(x, view, Level::Full, 0);
            let sum = build.reduce(ReduceOp::Max, again);
            let y = build.prim(Prim::Sub, &[again, sum]);
            build.put(y, Level::Full);
            let old_z = build.load(z, kept_view.clone(), Level::Kept, 0);
            let new_z = build.prim(Prim::Add, &[old_z, sum]);
            build.store(z, kept_view.clone(), new_z, Level::Kept);
            let z_again = build.load(z, kept_view, Level::Kept, 0);
            let both = build.prim(Prim::Mul, &[z_again, new_z]);
            build.put(both, Level::Kept);
            build.check(&cpu, 1e-6);
        }
    }
}

#[test]
fn buffers_that_one_condition_exchanges_are_read_before_they_are_written() {
    let mut random = Random(11);
    let cpu = Cpu::new(Some(2)).unwrap();
    let shapes: [(&[usize], &[usize]); 5] =
        [(&[3000], &[]), (&[7], &[33]), (&[3], &[5000]), (&[1], &[40_000]), (&[2], &[1])];
    for (kept, reduced) in shapes {
        for (order, condition) in [Order::Row, Order::Column].into_iter().flat_map(|order| [(order, 0.0), (order, 1.0)])
        {
            let mut build = Build::new(kept, reduced, order);
            for (level, n) in [(Level::Full, build.n_kept() * build.n_reduced()), (Level::Kept, build.n_kept())] {
                let view = if level == Level::Full { build.full_view() } else { build.kept_view() };
                let nowhere = View { offset: 0, kept: vec![0; kept.len()], reduced: vec![0; reduced.len()] };
                let condition = build.input(DType::Bool, vec![condition]);
                let condition = build.load(condition, nowhere, Level::Kept, 0);
                let buffers = [(); 4].map(|()| build.in_place(F32, random.floats(n)));
                let [w, x, y, z] = buffers.map(|buffer| build.load(buffer, view.clone(), level, 0));
                let more = build.prim(Prim::Add, &[w, z]);
                // x and y wait for each other, z for both, w's memory is wanted by a choice of choices.
                let values = [
                    more,
                    build.prim(Prim::Select, &[condition, y, x]),
                    build.prim(Prim::Select, &[condition, x, y]),
                    build.prim(Prim::Select, &[condition, w, x]),
                ];
                let nested = build.prim(Prim::Select, &[condition, values[3], w]);
                let sum = build.prim(Prim::Sub, &[nested, values[1]]);
                for (buffer, value) in buffers.into_iter().zip(values) {
                    build.store(buffer, view.clone(), value, level);
                }
                build.put(sum, level);
                build.put(nested, level);
            }
            build.check(&cpu, 1e-6);
        }
    }
}

/// An optimizer with two moments, whose loops become one where nothing hinders: to the bit what its instructions give one by one.
#[test]
fn updates_with_two_moments_are_exact() {
    #[derive(Clone, Copy, PartialEq)]
    enum Case {
        Step,
        Direction,
        RootReadAgain,
        DirectionReadAgain,
        ParameterInSteps,
        OtherGradient,
    }
    use Case::{Direction, DirectionReadAgain, OtherGradient, ParameterInSteps, RootReadAgain, Step};
    let mut random = Random(17);
    let shapes: [(&[usize], &[usize]); 5] =
        [(&[5000], &[]), (&[67], &[]), (&[9], &[700]), (&[300], &[20]), (&[2], &[9000])];
    let cases = [Step, Direction, RootReadAgain, DirectionReadAgain, ParameterInSteps, OtherGradient];
    for cpu in Cpu::each_instruction_set(2).unwrap() {
        for ((kept, reduced), case) in shapes.into_iter().flat_map(|shape| cases.map(|case| (shape, case))) {
            for guard in [None, Some(1.0), Some(0.0)] {
                let mut build = Build::new(kept, reduced, Order::Row);
                let (view, n) = (build.full_view(), build.n_kept() * build.n_reduced());
                let nowhere = View { offset: 0, kept: vec![0; kept.len()], reduced: vec![0; reduced.len()] };
                let condition = guard.map(|holds| {
                    let condition = build.input(DType::Bool, vec![holds]);
                    build.load(condition, nowhere.clone(), Level::Kept, 0)
                });
                let mut single = |x: f64| {
                    let buffer = build.input(F32, vec![x]);
                    build.load(buffer, nowhere.clone(), Level::Kept, 0)
                };
                let [c1, c2, alpha] = [1.9, 1.03, 0.01].map(&mut single);
                let [beta1, rest1, beta2, rest2, epsilon] =
                    [0.9, 0.1, 0.99, 0.01, 1e-8].map(|x| build.constant(x, F32));
                let [theta, m, v, g, other] = [(); 5].map(|()| random.floats(n));
                let v: Vec<f64> = v.into_iter().map(|x| if x > 0.9 { 0.0 } else { x.abs() }).collect();
                let [theta, m, v] = [theta, m, v].map(|data| build.in_place(F32, data));
                let [g, other] = [g, other].map(|data| build.input(F32, data));
                let load = |build: &mut Build, buffer| build.load(buffer, view.clone(), Level::Full, 0);
                let [old_m, old_v] = [m, v].map(|buffer| load(&mut build, buffer));
                let gradient = load(&mut build, g);
                let squared = if case == OtherGradient { load(&mut build, other) } else { gradient };
                let two = |build: &mut Build, a, b, c, d| {
                    let (first, second) = (build.prim(Prim::Mul, &[a, b]), build.prim(Prim::Mul, &[c, d]));
                    build.prim(Prim::Add, &[first, second])
                };
                let mut new_m = two(&mut build, old_m, beta1, gradient, rest1);
                let square = build.prim(Prim::Mul, &[squared, squared]);
                let mut new_v = two(&mut build, old_v, beta2, square, rest2);
                if let Some(condition) = condition {
                    new_m = build.prim(Prim::Select, &[condition, new_m, old_m]);
                    new_v = build.prim(Prim::Select, &[condition, new_v, old_v]);
                }
                let under = build.prim(Prim::Mul, &[new_v, c2]);
                let root = build.prim(Prim::Sqrt, &[under]);
                let root = build.prim(Prim::Add, &[root, epsilon]);
                let scaled = build.prim(Prim::Mul, &[new_m, c1]);
                let omega = build.prim(Prim::Div, &[scaled, root]);
                if matches!(case, Direction | DirectionReadAgain) {
                    build.put(omega, Level::Full);
                }
                if case != Direction {
                    let mut at = view.clone();
                    if case == ParameterInSteps {
                        at.offset = n as i64 - 1;
                        at.kept.iter_mut().chain(&mut at.reduced).for_each(|stride| *stride = -*stride);
                    }
                    let old = build.load(theta, at.clone(), Level::Full, 0);
                    let step = build.prim(Prim::Mul, &[omega, alpha]);
                    let moved = build.prim(Prim::Sub, &[old, step]);
                    build.store(theta, at, moved, Level::Full);
                }
                for (buffer, value) in [(m, new_m), (v, new_v)] {
                    build.store(buffer, view.clone(), value, Level::Full);
                }
                if case == RootReadAgain {
                    build.put(root, Level::Full);
                }
                build.check(&cpu, 0.0);
            }
        }
    }
}

/// What an optimizer with a guard does: the moment, the direction and the parameter are computed over their old values where
/// one condition holds, and stay otherwise; some old values are read again afterwards.
#[test]
fn computed_over_old_values_where_a_condition_holds() {
    let mut random = Random(13);
    let cpu = Cpu::new(Some(2)).unwrap();
    let shapes: [(&[usize], &[usize]); 6] =
        [(&[3000], &[]), (&[7], &[330]), (&[3], &[5000]), (&[1], &[40_000]), (&[40, 3], &[]), (&[2], &[1])];
    for (kept, reduced) in shapes {
        let cases = [Order::Row, Order::Column].into_iter().flat_map(|order| [0.0, 1.0].map(|holds| (order, holds)));
        for ((order, holds), reads_again) in cases.flat_map(|case| [false, true].map(|again| (case, again))) {
            let mut build = Build::new(kept, reduced, order);
            let (view, n) = (build.full_view(), build.n_kept() * build.n_reduced());
            let nowhere = View { offset: 0, kept: vec![0; kept.len()], reduced: vec![0; reduced.len()] };
            let condition = build.input(DType::Bool, vec![holds]);
            let condition = build.load(condition, nowhere.clone(), Level::Kept, 0);
            let rate = build.input(F32, vec![0.3]);
            let rate = build.load(rate, nowhere, Level::Kept, 0);
            let gradient = build.input(F32, random.floats(n));
            let g = build.load(gradient, view.clone(), Level::Full, 0);
            let buffers = [(); 4].map(|()| build.in_place(F32, random.floats(n)));
            let [theta, before, m, omega] = buffers.map(|buffer| build.load(buffer, view.clone(), Level::Full, 0));
            let kept_part = build.prim(Prim::Mul, &[m, rate]);
            let new_part = build.prim(Prim::Mul, &[g, rate]);
            let moment = build.prim(Prim::Add, &[kept_part, new_part]);
            let scaled = build.prim(Prim::Mul, &[moment, rate]);
            let size = build.prim(Prim::Abs, &[g]);
            let direction = build.prim(Prim::Div, &[scaled, size]);
            let chosen = build.prim(Prim::Select, &[condition, direction, omega]);
            let start = build.prim(Prim::Select, &[condition, theta, before]);
            let step = build.prim(Prim::Mul, &[chosen, rate]);
            let moved = build.prim(Prim::Sub, &[start, step]);
            let moment = build.prim(Prim::Select, &[condition, moment, m]);
            if reads_again {
                let old = build.prim(Prim::Add, &[omega, m]);
                let old = build.prim(Prim::Mul, &[old, before]);
                build.put(old, Level::Full);
            }
            for (buffer, value) in buffers.into_iter().zip([start, moved, moment, chosen]) {
                build.store(buffer, view.clone(), value, Level::Full);
            }
            let along = build.prim(Prim::Mul, &[g, chosen]);
            let sum = build.reduce(ReduceOp::Sum, along);
            build.put(sum, Level::Kept);
            build.check(&cpu, 1e-5);
        }
    }
}
