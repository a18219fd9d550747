//! Instruction sets: one generic source of loops, compiled once for each set and chosen at run time. The loops
//! themselves live in `map.rs`, `fused.rs`, `reduce.rs` and `math.rs`. The compiler vectorises, but for what it does badly: turning
//! matrices, the registers of a tile's sums, and those of sums along rows ([`Isa::Vector`]).

use super::reduce::{max_f32, min_f32};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Operands of a loop over one tile; each loop says what it expects.
#[derive(Clone, Copy)]
pub struct Args {
    /// Elements, rows or lanes.
    pub n: usize,
    /// Length of a row, or number of rows.
    pub m: usize,
    pub out: *mut u8,
    pub a: *const u8,
    pub b: *const u8,
    pub c: *const u8,
    pub d: *const u8,
    /// Bit `i`: the operand number `i` is one value for the whole tile; bit `4 + i`: one for each row of `m` elements. Only fused
    /// loops look at it.
    pub single: u32,
    /// Position along the reduced axes of the first element.
    pub position: usize,
}

impl Args {
    /// Where in its row of the tile a position along the reduced axes is, if it is there.
    #[inline(always)]
    pub fn place(&self, position: i32) -> Option<usize> {
        let place = usize::try_from(position).ok()?.checked_sub(self.position)?;
        (place < self.m).then_some(place)
    }
}

/// A loop chosen for the machine.
///
/// # Safety
/// The pointers in the arguments must be valid and aligned for the counts and dtypes that the loop works on, the
/// output must not overlap the operands, and the machine must have the instruction set it was chosen for.
pub type LoopFn = unsafe fn(&Args);

/// A loop in source form. Implementations are `#[inline(always)]`, so that they are compiled anew for each set.
pub trait Loop {
    /// Run it.
    ///
    /// # Safety
    /// As for [`LoopFn`].
    unsafe fn run<I: Isa>(args: &Args);
}

/// An instruction set.
pub trait Isa: 'static {
    /// Whether multiply-add is one instruction here (otherwise it would be a slow library call).
    const HAS_FMA: bool;
    /// Numbers that one register holds, for loops that do not leave it to the compiler which numbers share one.
    type Vector: Copy;
    /// How many.
    const LANES: usize = size_of::<Self::Vector>() / size_of::<f32>();

    /// Its zeros.
    fn zeros() -> Self::Vector;

    /// # Safety
    /// A vector may be read there, and the machine must have the set.
    unsafe fn load(from: *const f32) -> Self::Vector;

    /// # Safety
    /// A vector may be written there, and the machine must have the set.
    unsafe fn store(vector: Self::Vector, to: *mut f32);

    /// The lanes from `first` to `end` of what lies there, zeros in the others.
    ///
    /// # Safety
    /// These lanes may be read, the others need not be there; the machine must have the set.
    unsafe fn load_part(from: *const f32, first: usize, end: usize) -> Self::Vector;

    /// The first `n` lanes.
    ///
    /// # Safety
    /// As many numbers may be written there, and the machine must have the set.
    unsafe fn store_first(vector: Self::Vector, n: usize, to: *mut f32);

    /// `a` in every lane.
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn splat(a: f32) -> Self::Vector;

    /// `a + b`
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The greater of each two lanes; NaN if either is.
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The lesser of each two lanes; NaN if either is.
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a·b + c`
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a·b + c`
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn add_scaled(a: f32, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `*from · columns + sums`. With AVX-512 in the order of the source: the compiler would read the numbers of all rows of a tile before it
    /// uses the first, if each has an address of its own, and then has no registers for the sums.
    ///
    /// # Safety
    /// A number may be read there, and the machine must have the set.
    #[inline(always)]
    unsafe fn add_row(from: *const f32, columns: [Self::Vector; 2], sums: [Self::Vector; 2]) -> [Self::Vector; 2] {
        // SAFETY: passed on to our caller.
        unsafe {
            let row = *from;
            [Self::add_scaled(row, columns[0], sums[0]), Self::add_scaled(row, columns[1], sums[1])]
        }
    }

    /// The sum of each vector's lanes: `out[r·step + c]` of `sums[c][r]`.
    ///
    /// # Safety
    /// These places may be written, and the machine must have the set.
    unsafe fn put_sums<const C: usize>(sums: [[Self::Vector; 4]; C], out: *mut f32, step: usize);

    /// Whether [`Isa::transpose`] is quicker here than element by element.
    const HAS_TRANSPOSE: bool = false;

    /// Eight by eight numbers turned: `out[i + j·out_step] = from[j + i·step]`.
    ///
    /// # Safety
    /// These addresses may be read and written, and the machine must have the set.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, step: isize, out: *mut f32, out_step: usize) {
        for (i, j) in (0..8).flat_map(|i| (0..8).map(move |j| (i, j))) {
            // SAFETY: passed on to our caller.
            unsafe { *out.add(i + j * out_step) = *from.offset(j as isize + i as isize * step) };
        }
    }

    /// Run a loop compiled for this set, as a function of its own.
    ///
    /// # Safety
    /// The machine must have the set; and as for [`LoopFn`].
    unsafe fn call<L: Loop>(args: &Args);

    /// `a·b + c`, rounded once where the machine can.
    #[inline(always)]
    fn fma32(a: f32, b: f32, c: f32) -> f32 {
        if Self::HAS_FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `a·b + c`, rounded once where the machine can.
    #[inline(always)]
    fn fma64(a: f64, b: f64, c: f64) -> f64 {
        if Self::HAS_FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

macro_rules! isa {
    (
        $(#[$doc:meta])* $name:ident, fma: $fma:literal
        $(, registers: $registers:ident)? $(, $features:literal)?
    ) => {
        $(#[$doc])*
        pub struct $name;
        impl Isa for $name {
            const HAS_FMA: bool = $fma;
            isa!(@registers $($registers)?);
            $(#[target_feature(enable = $features)])?
            #[inline(never)]
            unsafe fn call<L: Loop>(args: &Args) {
                // SAFETY: passed on to our caller.
                unsafe { L::run::<Self>(args) }
            }
        }
    };
    // No tiles: see `panels::sets`.
    (@registers) => {
        type Vector = [f32; 8];
        #[inline(always)]
        fn zeros() -> [f32; 8] {
            [0.0; 8]
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> [f32; 8] {
            // SAFETY: passed on to our caller.
            unsafe { from.cast::<[f32; 8]>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn store(vector: [f32; 8], to: *mut f32) {
            // SAFETY: passed on to our caller.
            unsafe { to.cast::<[f32; 8]>().write_unaligned(vector) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, first: usize, end: usize) -> [f32; 8] {
            // SAFETY: passed on to our caller.
            let lane = |lane: usize| unsafe { *from.wrapping_add(lane) };
            std::array::from_fn(|i| if (first..end).contains(&i) { lane(i) } else { 0.0 })
        }
        #[inline(always)]
        unsafe fn store_first(vector: [f32; 8], n: usize, to: *mut f32) {
            for (i, number) in vector.into_iter().enumerate().take(n) {
                // SAFETY: passed on to our caller.
                unsafe { *to.add(i) = number };
            }
        }
        #[inline(always)]
        unsafe fn splat(a: f32) -> [f32; 8] {
            [a; 8]
        }
        #[inline(always)]
        unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
            std::array::from_fn(|i| a[i] + b[i])
        }
        #[inline(always)]
        unsafe fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
            std::array::from_fn(|i| max_f32(a[i], b[i]))
        }
        #[inline(always)]
        unsafe fn min(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
            std::array::from_fn(|i| min_f32(a[i], b[i]))
        }
        #[inline(always)]
        unsafe fn multiply_add(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
            std::array::from_fn(|i| Self::fma32(a[i], b[i], c[i]))
        }
        #[inline(always)]
        unsafe fn add_scaled(a: f32, b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
            std::array::from_fn(|i| Self::fma32(a, b[i], c[i]))
        }
        #[inline(always)]
        unsafe fn put_sums<const C: usize>(sums: [[[f32; 8]; 4]; C], out: *mut f32, step: usize) {
            for (c, r) in (0..C).flat_map(|c| (0..4).map(move |r| (c, r))) {
                // SAFETY: passed on to our caller.
                unsafe { *out.add(r * step + c) = sums[c][r].iter().sum() };
            }
        }
    };
    (@registers $registers:ident) => {
        type Vector = $registers::Vector;
        const HAS_TRANSPOSE: bool = true;
        #[inline(always)]
        fn zeros() -> $registers::Vector {
            // SAFETY: all bits zero are zeros.
            unsafe { std::mem::zeroed() }
        }
        isa!(@from $registers load(from: *const f32) -> $registers::Vector);
        isa!(@from $registers store(vector: $registers::Vector, to: *mut f32));
        isa!(@from $registers load_part(from: *const f32, first: usize, end: usize) -> $registers::Vector);
        isa!(@from $registers store_first(vector: $registers::Vector, n: usize, to: *mut f32));
        isa!(@from $registers splat(a: f32) -> $registers::Vector);
        isa!(@from $registers add(a: $registers::Vector, b: $registers::Vector) -> $registers::Vector);
        isa!(@from $registers max(a: $registers::Vector, b: $registers::Vector) -> $registers::Vector);
        isa!(@from $registers min(a: $registers::Vector, b: $registers::Vector) -> $registers::Vector);
        isa!(@from $registers multiply_add(
            a: $registers::Vector, b: $registers::Vector, c: $registers::Vector
        ) -> $registers::Vector);
        isa!(@from $registers add_scaled(a: f32, b: $registers::Vector, c: $registers::Vector) -> $registers::Vector);
        isa!(@from $registers add_row(
            from: *const f32, columns: [$registers::Vector; 2], sums: [$registers::Vector; 2]
        ) -> [$registers::Vector; 2]);
        #[inline(always)]
        unsafe fn put_sums<const C: usize>(sums: [[$registers::Vector; 4]; C], out: *mut f32, step: usize) {
            // SAFETY: passed on to our caller.
            unsafe { $registers::put_sums(sums, out, step) }
        }
        isa!(@from $registers transpose(from: *const f32, step: isize, out: *mut f32, out_step: usize));
    };
    // The function of that name of the module of its registers.
    (@from $registers:ident $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        #[inline(always)]
        unsafe fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: passed on to our caller.
            unsafe { $registers::$name($($argument),*) }
        }
    };
}

isa!(
    /// What every machine of the target has.
    Baseline, fma: false
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// x86-64 since 2013.
    Avx2, fma: true, registers: avx2, "avx2,fma,bmi1,bmi2,lzcnt,popcnt"
);
#[cfg(target_arch = "x86_64")]
isa!(
    /// x86-64 servers and recent desktops.
    Avx512, fma: true, registers: avx512, "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt"
);
#[cfg(target_arch = "aarch64")]
isa!(
    /// Every 64-bit ARM.
    Neon, fma: true, "neon"
);

/// The sets by name, for choosing at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// Every set that this machine has, the best last.
    pub fn available() -> Vec<Level> {
        #[allow(unused_mut, reason = "targets without an extension push nothing")]
        let mut levels = vec![Level::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt");
            let avx512 =
                has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
            if avx2 {
                levels.push(Level::Avx2);
            }
            if avx2 && avx512 {
                levels.push(Level::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        levels.push(Level::Neon);
        levels
    }

    /// The best set that this machine has.
    pub fn best() -> Level {
        Level::available().pop().unwrap_or(Level::Baseline)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Level::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2 + FMA",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "NEON",
        }
    }
}

/// Call a function that is generic over the instruction set with the set of a [`Level`].
macro_rules! with_isa {
    ($level:expr, $function:ident($($argument:expr),*)) => {
        match $level {
            $crate::cpu::isa::Level::Baseline => $function::<$crate::cpu::isa::Baseline>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Level::Avx2 => $function::<$crate::cpu::isa::Avx2>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Level::Avx512 => $function::<$crate::cpu::isa::Avx512>($($argument),*),
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::isa::Level::Neon => $function::<$crate::cpu::isa::Neon>($($argument),*),
        }
    };
}
pub(crate) use with_isa;

#[cfg(test)]
mod tests {
    use super::*;

    struct Transpose;

    impl Loop for Transpose {
        #[inline(always)]
        unsafe fn run<I: Isa>(args: &Args) {
            // SAFETY: the test gives matrices of 8 × 11 and 8 × 9 elements.
            unsafe { I::transpose(args.a.cast(), 11, args.out.cast(), 9) }
        }
    }

    #[test]
    fn every_set_turns_matrices() {
        fn find<I: Isa>() -> LoopFn {
            I::call::<Transpose>
        }
        let from: [f32; 88] = std::array::from_fn(|i| i as f32);
        for level in Level::available() {
            let mut out = [-1f32; 72];
            let a = from.as_ptr().cast::<u8>();
            let args = Args { n: 0, m: 0, out: out.as_mut_ptr().cast(), a, b: a, c: a, d: a, single: 0, position: 0 };
            // SAFETY: the machine has the set, and both matrices are as the loop says.
            unsafe { with_isa!(level, find())(&args) };
            for (place, &got) in out.iter().enumerate() {
                let (j, i) = (place / 9, place % 9);
                let want = if i < 8 { from[j + i * 11] } else { -1.0 };
                assert_eq!(got, want, "{} at {i}, {j}", level.name());
            }
        }
    }

    /// From `a`, `I::LANES` numbers: those from the `n`th to the `m`th, of which the first `position` are written.
    struct Parts;

    impl Loop for Parts {
        #[inline(always)]
        unsafe fn run<I: Isa>(args: &Args) {
            // SAFETY: the test gives sixteen numbers, and room for as many.
            unsafe { I::store_first(I::load_part(args.a.cast(), args.n, args.m), args.position, args.out.cast()) }
        }
    }

    /// Of vectors from `a` and `b`: their maximum, their minimum, and `c[0] · (a, b) + (b, a)`, one after another.
    struct Pairs;

    impl Loop for Pairs {
        #[inline(always)]
        unsafe fn run<I: Isa>(args: &Args) {
            let out = args.out.cast::<f32>();
            // SAFETY: the test gives sixteen numbers behind each operand, and room for four vectors.
            unsafe {
                let (a, b) = (I::load(args.a.cast()), I::load(args.b.cast()));
                let [first, second] = I::add_row(args.c.cast(), [a, b], [b, a]);
                for (i, vector) in [I::max(a, b), I::min(a, b), first, second].into_iter().enumerate() {
                    I::store(vector, out.add(i * I::LANES));
                }
            }
        }
    }

    /// Of seven times four vectors from `a`, where they lie one after another.
    struct LaneSums;

    impl Loop for LaneSums {
        #[inline(always)]
        unsafe fn run<I: Isa>(args: &Args) {
            let from = args.a.cast::<f32>();
            // SAFETY: the test gives 28 vectors, and room for four rows of seven, nine apart.
            unsafe {
                let sums = std::array::from_fn(|c| std::array::from_fn(|r| I::load(from.add((c * 4 + r) * I::LANES))));
                I::put_sums::<7>(sums, args.out.cast(), 9);
            }
        }
    }

    #[test]
    fn every_set_adds_up_lanes() {
        fn find<I: Isa>() -> (LoopFn, usize) {
            (I::call::<LaneSums>, I::LANES)
        }
        let from: Vec<f32> = (0..28 * 16).map(|i| (i * i % 1009) as f32).collect();
        for level in Level::available() {
            let (run, lanes) = with_isa!(level, find());
            let mut out = [-1f32; 36];
            let a = from.as_ptr().cast::<u8>();
            let args = Args { n: 0, m: 0, out: out.as_mut_ptr().cast(), a, b: a, c: a, d: a, single: 0, position: 0 };
            // SAFETY: the machine has the set, and there are as many numbers as the loop says.
            unsafe { run(&args) };
            for (place, &got) in out.iter().enumerate() {
                let (r, c) = (place / 9, place % 9);
                let start = (c * 4 + r) * lanes;
                let want = if c < 7 { from[start..start + lanes].iter().sum() } else { -1.0 };
                assert_eq!(got, want, "{} at {r}, {c}", level.name());
            }
        }
    }

    fn parts<I: Isa>() -> (LoopFn, LoopFn, usize) {
        (I::call::<Parts>, I::call::<Pairs>, I::LANES)
    }

    #[test]
    fn every_set_reads_and_writes_parts_of_vectors() {
        let from: [f32; 16] = std::array::from_fn(|i| i as f32 + 1.0);
        let a = from.as_ptr().cast::<u8>();
        for level in Level::available() {
            let (run, _, lanes) = with_isa!(level, parts());
            let cases = (0..=lanes).flat_map(|end| (0..=end).map(move |first| (first, end)));
            for ((first, end), n) in cases.flat_map(|case| (0..=lanes).map(move |n| (case, n))) {
                let mut out = [-1f32; 17];
                let args = Args {
                    n: first,
                    m: end,
                    out: out.as_mut_ptr().cast(),
                    a,
                    b: a,
                    c: a,
                    d: a,
                    single: 0,
                    position: n,
                };
                // SAFETY: the machine has the set, and there are as many numbers as the loop says.
                unsafe { run(&args) };
                for (i, got) in out.into_iter().enumerate() {
                    let inside = if (first..end).contains(&i) { from[i.min(15)] } else { 0.0 };
                    assert_eq!(got, if i < n { inside } else { -1.0 }, "{} {first}..{end}, {n}", level.name());
                }
            }
        }
    }

    #[test]
    fn every_set_compares_and_multiplies_vectors() {
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        let a: [f32; 16] = std::array::from_fn(|i| [1.0, nan, 3.0, -infinite, infinite, -0.5, nan, 2.0][i % 8]);
        let b: [f32; 16] = std::array::from_fn(|i| [2.0, 1.0, nan, 5.0, -infinite, -0.25, nan, 2.0][i % 8]);
        let pointer = |x: &[f32]| x.as_ptr().cast::<u8>();
        for level in Level::available() {
            let (_, run, lanes) = with_isa!(level, parts());
            let (mut out, c) = ([0f32; 64], [3.0f32]);
            let (a_at, b_at, c_at) = (pointer(&a), pointer(&b), pointer(&c));
            let args = Args {
                n: 0,
                m: 0,
                out: out.as_mut_ptr().cast(),
                a: a_at,
                b: b_at,
                c: c_at,
                d: a_at,
                single: 0,
                position: 0,
            };
            // SAFETY: the machine has the set, and there are as many numbers as the loop says.
            unsafe { run(&args) };
            for i in 0..lanes {
                let (a, b, got) = (a[i], b[i], [0, 1, 2, 3].map(|k| out[k * lanes + i]));
                let extreme = |of: f32| if a.is_nan() || b.is_nan() { nan } else { of };
                let want = [extreme(a.max(b)), extreme(a.min(b)), 3.0 * a + b, 3.0 * b + a];
                for (got, want) in got.into_iter().zip(want) {
                    assert!(got == want || (got.is_nan() && want.is_nan()), "{} at {i}: {got}, {want}", level.name());
                }
            }
        }
    }
}
