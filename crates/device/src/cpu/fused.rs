//! Two or three arithmetic instructions on floats in one loop, so that what lies between them stays in registers. Every
//! instruction is rounded by itself: the results are those of separate loops, bit for bit. The output may be the very
//! memory of an operand: each piece is read before it is written.

use super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use raphson_graph::dtype::DType;
use raphson_graph::kernel::Prim;
use std::marker::PhantomData;
use std::ptr::copy_nonoverlapping;

/// What a fused loop computes from its operands a, b, c, d, in this order. F and G are of `+ − × ÷`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// F(a, b)
    One(Prim),
    /// G(F(a, b), c)
    Then(Prim, Prim),
    /// G(c, F(a, b))
    After(Prim, Prim),
    /// F(a·b, c·d), F of `+ −`
    Products(Prim),
    /// a·b + (c·c)·d
    Square,
    /// √(a·b) + c
    Root,
}

/// f32 numbers of a piece.
pub const PIECE: usize = 16;

/// The bit of `Args::single` from which on the operands stand that are one value for each row.
pub const OF_ROWS: u32 = 4;

/// A function of up to four operands.
trait Fused<T> {
    const OPERANDS: usize;
    fn apply(x: [T; 4]) -> T;
}

/// A function of two operands.
trait Binary<T> {
    fn of(a: T, b: T) -> T;
}

struct Add;
struct Sub;
struct Mul;
struct Div;
struct One<F>(PhantomData<F>);
struct Then<F, G>(PhantomData<(F, G)>);
struct After<F, G>(PhantomData<(F, G)>);
struct Products<F>(PhantomData<F>);
struct Square;
struct Root;

macro_rules! arithmetic {
    ($t:ty) => {
        impl Binary<$t> for Add {
            #[inline(always)]
            fn of(a: $t, b: $t) -> $t {
                a + b
            }
        }
        impl Binary<$t> for Sub {
            #[inline(always)]
            fn of(a: $t, b: $t) -> $t {
                a - b
            }
        }
        impl Binary<$t> for Mul {
            #[inline(always)]
            fn of(a: $t, b: $t) -> $t {
                a * b
            }
        }
        impl Binary<$t> for Div {
            #[inline(always)]
            fn of(a: $t, b: $t) -> $t {
                a / b
            }
        }
        impl Fused<$t> for Square {
            const OPERANDS: usize = 4;
            #[inline(always)]
            fn apply([a, b, c, d]: [$t; 4]) -> $t {
                a * b + (c * c) * d
            }
        }
        impl Fused<$t> for Root {
            const OPERANDS: usize = 3;
            #[inline(always)]
            fn apply([a, b, c, _]: [$t; 4]) -> $t {
                (a * b).sqrt() + c
            }
        }
    };
}
arithmetic!(f32);
arithmetic!(f64);

impl<F: Binary<T>, T> Fused<T> for One<F> {
    const OPERANDS: usize = 2;
    #[inline(always)]
    fn apply([a, b, _, _]: [T; 4]) -> T {
        F::of(a, b)
    }
}

impl<F: Binary<T>, G: Binary<T>, T> Fused<T> for Then<F, G> {
    const OPERANDS: usize = 3;
    #[inline(always)]
    fn apply([a, b, c, _]: [T; 4]) -> T {
        G::of(F::of(a, b), c)
    }
}

impl<F: Binary<T>, G: Binary<T>, T> Fused<T> for After<F, G> {
    const OPERANDS: usize = 3;
    #[inline(always)]
    fn apply([a, b, c, _]: [T; 4]) -> T {
        G::of(c, F::of(a, b))
    }
}

impl<F: Binary<T>, T> Fused<T> for Products<F>
where
    Mul: Binary<T>,
{
    const OPERANDS: usize = 4;
    #[inline(always)]
    fn apply([a, b, c, d]: [T; 4]) -> T {
        F::of(Mul::of(a, b), Mul::of(c, d))
    }
}

/// `F` over a tile, in pieces of `L` elements: `out[n]` from operands of `n` elements, or of one, or of one for each row of `m`, where
/// `args.single` says so.
struct Run<F, T, const L: usize>(PhantomData<(F, T)>);

impl<F: Fused<T>, T: Copy + Default, const L: usize> Loop for Run<F, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        let rows = args.single >> OF_ROWS;
        let (n_rows, n) = if rows == 0 { (1, args.n) } else { (args.n / args.m.max(1), args.m) };
        let (n_pieces, rest) = (n / L, n % L);
        let piece = |x: [[T; L]; 4]| {
            let mut z = [T::default(); L];
            for j in 0..L {
                z[j] = F::apply([x[0][j], x[1][j], x[2][j], x[3][j]]);
            }
            z
        };
        for row in 0..n_rows {
            let mut at = [args.a, args.b, args.c, args.d].map(|operand| operand.cast::<T>());
            let mut step = [L; 4];
            let mut single = [[T::default(); L]; 4];
            for i in 0..F::OPERANDS {
                let is_of_row = rows >> i & 1 == 1;
                if is_of_row || args.single >> i & 1 == 1 {
                    // SAFETY: every operand has one element at least, or one for each row.
                    single[i] = [unsafe { *at[i].add(if is_of_row { row } else { 0 }) }; L];
                    (at[i], step[i]) = (single[i].as_ptr(), 0);
                } else {
                    at[i] = at[i].wrapping_add(row * n);
                }
            }
            let out = args.out.cast::<T>().wrapping_add(row * n);
            for p in 0..n_pieces {
                let mut x = [[T::default(); L]; 4];
                for i in 0..F::OPERANDS {
                    // SAFETY: the caller vouches for `n` elements a row, and a single one was spread out above.
                    x[i] = unsafe { at[i].add(p * step[i]).cast::<[T; L]>().read() };
                }
                // SAFETY: the caller vouches for room for `n` elements a row; no reference to them exists.
                unsafe { out.add(p * L).cast::<[T; L]>().write(piece(x)) };
            }
            if rest > 0 {
                let mut x = [[T::default(); L]; 4];
                for i in 0..F::OPERANDS {
                    // SAFETY: as above, for the elements that are left.
                    unsafe { copy_nonoverlapping(at[i].add(n_pieces * step[i]), x[i].as_mut_ptr(), rest) };
                }
                // SAFETY: as above.
                unsafe { copy_nonoverlapping(piece(x).as_ptr(), out.add(n_pieces * L), rest) };
            }
        }
    }
}

/// The loop for `form` over floats of this dtype.
pub fn find(level: Level, form: Form, dtype: DType) -> Option<LoopFn> {
    with_isa!(level, find_for(form, dtype))
}

fn find_for<I: Isa>(form: Form, dtype: DType) -> Option<LoopFn> {
    match dtype {
        DType::F32 => find_typed::<I, f32, PIECE>(form),
        DType::F64 => find_typed::<I, f64, { PIECE / 2 }>(form),
        DType::I32 | DType::U32 | DType::I64 | DType::Bool | DType::F16 | DType::BF16 | DType::U8 => None,
    }
}

/// `by_prim!(prim, [Prim, …], F => value)`: the value with F the function of the prim.
macro_rules! by_prim {
    ($prim:expr, [$($name:ident),+], $function:ident => $value:expr) => {
        match $prim {
            $(Prim::$name => {
                type $function = $name;
                $value
            })+
            _ => None,
        }
    };
}

fn find_typed<I: Isa, T: Copy + Default + 'static, const L: usize>(form: Form) -> Option<LoopFn>
where
    Add: Binary<T>,
    Sub: Binary<T>,
    Mul: Binary<T>,
    Div: Binary<T>,
    Square: Fused<T>,
    Root: Fused<T>,
{
    fn then<I: Isa, F: Binary<T> + 'static, T: Copy + Default + 'static, const L: usize>(second: Prim) -> Option<LoopFn>
    where
        Add: Binary<T>,
        Sub: Binary<T>,
        Mul: Binary<T>,
        Div: Binary<T>,
    {
        by_prim!(second, [Add, Sub, Mul, Div], G => Some(I::call::<Run<Then<F, G>, T, L>> as LoopFn))
    }
    match form {
        Form::One(f) => by_prim!(f, [Add, Sub, Mul, Div], F => Some(I::call::<Run<One<F>, T, L>> as LoopFn)),
        Form::Then(f, g) => by_prim!(f, [Add, Sub, Mul, Div], F => then::<I, F, T, L>(g)),
        Form::After(f, Prim::Sub) => {
            by_prim!(f, [Add, Sub, Mul, Div], F => Some(I::call::<Run<After<F, Sub>, T, L>> as LoopFn))
        }
        Form::After(f, Prim::Div) => {
            by_prim!(f, [Add, Sub, Mul, Div], F => Some(I::call::<Run<After<F, Div>, T, L>> as LoopFn))
        }
        Form::After(..) => None,
        Form::Products(f) => by_prim!(f, [Add, Sub], F => Some(I::call::<Run<Products<F>, T, L>> as LoopFn)),
        Form::Square => Some(I::call::<Run<Square, T, L>>),
        Form::Root => Some(I::call::<Run<Root, T, L>>),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = 21;
    const N: usize = 3 * ROW;

    fn plain(prim: Prim, a: f32, b: f32) -> f32 {
        match prim {
            Prim::Add => a + b,
            Prim::Sub => a - b,
            Prim::Mul => a * b,
            _ => a / b,
        }
    }

    fn expected(form: Form, [a, b, c, d]: [f32; 4]) -> f32 {
        match form {
            Form::One(f) => plain(f, a, b),
            Form::Then(f, g) => plain(g, plain(f, a, b), c),
            Form::After(f, g) => plain(g, c, plain(f, a, b)),
            Form::Products(f) => plain(f, a * b, c * d),
            Form::Square => a * b + (c * c) * d,
            Form::Root => (a * b).sqrt() + c,
        }
    }

    fn forms() -> Vec<Form> {
        let prims = [Prim::Add, Prim::Sub, Prim::Mul, Prim::Div];
        let mut forms = vec![Form::Products(Prim::Add), Form::Products(Prim::Sub), Form::Square, Form::Root];
        for f in prims {
            forms.push(Form::One(f));
            forms.extend(prims.map(|g| Form::Then(f, g)));
            forms.extend([Prim::Sub, Prim::Div].map(|g| Form::After(f, g)));
        }
        forms
    }

    /// Every form on every instruction set, every choice of operands that are single or one for each row, the output apart or over any
    /// full operand.
    #[test]
    fn fused_loops_give_the_bits_of_separate_ones() {
        let operand = |k: usize| -> Vec<f32> { (0..N).map(|i| ((i * 37 + k * 11) % 97) as f32 / 7.0 + 0.3).collect() };
        let operands: [Vec<f32>; 4] = std::array::from_fn(operand);
        let masks = || (0..16u32).flat_map(|single| (0..16u32).map(move |rows| (single, rows)));
        let cases = || {
            masks().filter(|(single, rows)| single & rows == 0).flat_map(|case| (0..5).map(move |over| (case, over)))
        };
        for level in Level::available() {
            for form in forms() {
                let run = find(level, form, DType::F32).expect("a loop for every form");
                for ((single, rows), over) in cases().filter(|((single, rows), over)| (single | rows) >> over & 1 == 0)
                {
                    let mut memory = operands.clone();
                    let mut apart = vec![0f32; N];
                    let out = memory.get_mut(over).unwrap_or(&mut apart).as_mut_ptr();
                    let [a, b, c, d] = [0, 1, 2, 3]
                        .map(|k| if k == over { out.cast_const().cast() } else { memory[k].as_ptr().cast::<u8>() });
                    let bits = single | rows << OF_ROWS;
                    let args = Args { n: N, m: ROW, out: out.cast(), a, b, c, d, single: bits, position: 0 };
                    // SAFETY: all operands have `N` elements and the loop was found for this machine.
                    unsafe { run(&args) };
                    let got = if over < 4 { &memory[over] } else { &apart };
                    for (i, got) in got.iter().enumerate() {
                        let place = |k: usize| match (single >> k & 1, rows >> k & 1) {
                            (1, _) => 0,
                            (_, 1) => i / ROW,
                            _ => i,
                        };
                        let want = expected(form, [0, 1, 2, 3].map(|k: usize| operands[k][place(k)]));
                        assert_eq!(got.to_bits(), want.to_bits(), "{form:?} at {i}, {single:b}, {rows:b}, over {over}");
                    }
                }
            }
        }
    }
}
