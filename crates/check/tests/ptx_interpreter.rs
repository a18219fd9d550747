//! The interpreter itself: lanes that part and meet, what lanes do together, matrix fragments, asynchronous copies; and that
//! it notices what it is there to notice. Every committed kernel decodes.

use raphson_check::ptx::{Machine, Module, Options, Order, Size};

const HEADER: &str = ".version 7.0\n.target sm_70\n.address_size 64\n";
const ORDERS: [Order; 4] = [Order::Forward, Order::Backward, Order::Mixed(1), Order::Mixed(2)];

/// A kernel with one parameter: the address of 32-bit words to write, in %rd1.
fn kernel(declarations: &str, body: &str) -> String {
    format!(
        "{HEADER}.visible .entry k(.param .u64 out)\n{{\n.reg .pred %p<8>; .reg .b32 %r<32>; .reg .b64 %rd<8>; .reg .f32 %f<32>;\n\
         {declarations}\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %rd2, %r1, 4, %rd1;\n{body}\nret;\n}}"
    )
}

/// The words that a kernel leaves; the fault, if there is one.
fn run(text: &str, threads: u32, order: Order) -> Result<Vec<u32>, String> {
    let module = Module::parse(text).map_err(|fault| fault.0)?;
    let mut machine = Machine::new(Options { order, most_steps: 100_000 });
    let out = machine.memory.upload("out", &vec![0; 4 * threads as usize], 4);
    machine.launch(&module, "k", Size::line(1, threads), &[out]).map_err(|fault| fault.0)?;
    let bytes = machine.memory.download(out).ok_or("no memory")?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).collect())
}

fn run_all(text: &str, threads: u32) -> Vec<u32> {
    let results: Vec<_> = ORDERS.map(|order| run(text, threads, order).unwrap()).into();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    results.into_iter().next().unwrap()
}

fn fault(text: &str, threads: u32) -> String {
    let faults = ORDERS.map(|order| run(text, threads, order).unwrap_err());
    faults[0].clone()
}

#[test]
fn lanes_part_and_meet() {
    // The Collatz steps of the thread's number plus one; then a sum over the warp, for which all must have come back.
    let body = "add.u32 %r2, %r1, 1; mov.u32 %r3, 0;\n\
        LOOP: setp.eq.u32 %p1, %r2, 1; @%p1 bra DONE;\n\
        add.u32 %r3, %r3, 1; and.b32 %r4, %r2, 1; setp.eq.u32 %p2, %r4, 0; @%p2 bra EVEN;\n\
        mad.lo.u32 %r2, %r2, 3, 1; bra LOOP;\n\
        EVEN: shr.u32 %r2, %r2, 1; bra LOOP;\n\
        DONE: shfl.sync.bfly.b32 %r5, %r3, 16, 31, 0xffffffff; add.u32 %r3, %r3, %r5; st.global.u32 [%rd2], %r3;";
    let collatz = |start: u32| {
        let (mut n, mut steps) = (start, 0);
        while n != 1 {
            n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        steps
    };
    let want: Vec<u32> = (0..64u32).map(|thread| collatz(thread + 1) + collatz((thread ^ 16) + 1)).collect();
    assert_eq!(run_all(&kernel("", body), 64), want);
}

#[test]
fn shuffles_and_votes() {
    let body = "shfl.sync.down.b32 %r2|%p1, %r1, 3, 31, -1; selp.u32 %r3, 1, 0, %p1;\n\
        shfl.sync.up.b32 %r4, %r1, 2, 0, -1; shfl.sync.idx.b32 %r5, %r1, 5, 31, -1;\n\
        setp.gt.u32 %p2, %r1, 29; vote.sync.ballot.b32 %r6, %p2, -1; popc.b32 %r6, %r6;\n\
        mad.lo.u32 %r7, %r2, 100, %r3; mad.lo.u32 %r7, %r4, 10000, %r7; mad.lo.u32 %r7, %r5, 1000000, %r7;\n\
        mad.lo.u32 %r7, %r6, 10, %r7; st.global.u32 [%rd2], %r7;";
    let want: Vec<u32> = (0..32u32)
        .map(|lane| {
            let (down, inside) = if lane + 3 < 32 { (lane + 3, 1) } else { (lane, 0) };
            let up = if lane >= 2 { lane - 2 } else { lane };
            down * 100 + inside + up * 10_000 + 5_000_000 + 20
        })
        .collect();
    assert_eq!(run_all(&kernel("", body), 32), want);
}

#[test]
fn a_missing_barrier_is_a_race() {
    let exchange = |barrier: &str| {
        let body = format!(
            "mov.u32 %r2, tile; mad.lo.u32 %r3, %r1, 4, %r2; st.shared.u32 [%r3], %r1; {barrier}\n\
             xor.b32 %r4, %r1, 32; mad.lo.u32 %r3, %r4, 4, %r2; ld.shared.u32 %r5, [%r3]; st.global.u32 [%rd2], %r5;"
        );
        kernel(".shared .align 4 .b8 tile[256];", &body)
    };
    let want: Vec<u32> = (0..64).map(|thread| thread ^ 32).collect();
    assert_eq!(run_all(&exchange("bar.sync 0;"), 64), want);
    let why = fault(&exchange(""), 64);
    assert!(why.contains("race") || why.contains("before anything"), "{why}");
}

#[test]
fn what_must_not_happen_is_a_fault() {
    let faults = |body: &str| fault(&kernel(".shared .align 4 .b8 tile[128];", body), 64);
    assert!(faults("st.global.u32 [%rd2+4], %r1;").contains("outside out"));
    assert!(faults("st.global.u32 [%rd1], %r1;").contains("race"));
    assert!(faults("mov.u32 %r2, tile; ld.shared.u32 %r3, [%r2];").contains("before anything"));
    assert!(faults("mov.u32 %r2, tile; st.shared.u32 [%r2+2], %r1;").contains("aligned"));
    assert!(faults("setp.gt.u32 %p1, %r1, 3; @%p1 bar.sync 0;").contains("have returned"));
    let divided = "setp.gt.u32 %p1, %r1, 3; @%p1 bra L; shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; L:";
    assert!(faults(divided).contains("do not take part"));
    assert!(faults("L: bra L;").contains("does not end"));
    assert!(faults("dp4a.u32.u32 %r2, %r1, %r1, %r1;").contains("not in the set"));
    assert!(faults("add.rz.f32 %f1, %f2, %f3;").contains("not in the set"));
}

#[test]
fn atomics_add_up_in_any_order() {
    let body =
        "st.global.u32 [%rd2], 0; bar.sync 0; red.global.add.u32 [%rd1], %r1; atom.global.cas.b32 %r2, [%rd1+4], 0, 7;";
    let words = run_all(&kernel("", body), 128);
    assert_eq!(words[..3], [127 * 64, 7, 0]);
}

#[test]
fn matrix_fragments_multiply() {
    // Each lane makes its elements of a(i, j) = i + 2j and b(j, n) = j − 3n out of their places, as TF32.
    let body = "shr.u32 %r2, %r1, 2; and.b32 %r3, %r1, 3;\n\
        mad.lo.u32 %r4, %r3, 2, %r2; cvt.rn.f32.u32 %f1, %r4; add.f32 %f2, %f1, 0f41000000;\n\
        add.f32 %f3, %f1, 0f41000000; add.f32 %f4, %f2, 0f41000000;\n\
        mul.lo.u32 %r5, %r2, 3; sub.s32 %r5, %r3, %r5; cvt.rn.f32.s32 %f5, %r5; add.f32 %f6, %f5, 0f40800000;\n\
        mov.b32 %r10, %f1; mov.b32 %r11, %f2; mov.b32 %r12, %f3; mov.b32 %r13, %f4; mov.b32 %r14, %f5; mov.b32 %r15, %f6;\n\
        mov.f32 %f10, 0f00000000;\n\
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f11,%f12,%f13,%f14}, {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%f10,%f10,%f10,%f10};\n\
        mad.wide.u32 %rd3, %r2, 32, %rd1; mad.wide.u32 %rd3, %r3, 8, %rd3;\n\
        st.global.v2.f32 [%rd3], {%f11, %f12}; st.global.v2.f32 [%rd3+256], {%f13, %f14};";
    let text = kernel("", body);
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::default();
    let out = machine.memory.reserve("out", 16 * 8 * 4, 4);
    machine.launch(&module, "k", Size::line(1, 32), &[out]).unwrap();
    let bytes = machine.memory.download(out).unwrap();
    let got: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
    let want: Vec<f32> = (0..128)
        .map(|at| {
            let (i, n) = ((at / 8) as f32, (at % 8) as f32);
            (0..8).map(|j| (i + 2.0 * j as f32) * (j as f32 - 3.0 * n)).sum()
        })
        .collect();
    assert_eq!(got, want);
}

#[test]
fn asynchronous_copies_arrive_when_they_are_waited_for() {
    let copy = |wait: &str| {
        let body = format!(
            "st.global.u32 [%rd2], %r1; bar.sync 0;\n\
             mov.u32 %r2, tile; mad.lo.u32 %r3, %r1, 4, %r2; cp.async.ca.shared.global [%r3], [%rd2], 4; cp.async.commit_group;\n\
             {wait} bar.sync 0; xor.b32 %r4, %r1, 33; mad.lo.u32 %r3, %r4, 4, %r2; ld.shared.u32 %r5, [%r3];\n\
             cp.async.wait_all; bar.sync 0; st.global.u32 [%rd2], %r5;"
        );
        kernel(".shared .align 4 .b8 tile[256];", &body)
    };
    let want: Vec<u32> = (0..64).map(|thread| thread ^ 33).collect();
    assert_eq!(run_all(&copy("cp.async.wait_group 0;"), 64), want);
    assert!(fault(&copy("cp.async.wait_group 1;"), 64).contains("before anything"));
}

#[test]
fn an_asynchronous_copy_may_arrive_at_once() {
    // The tile is copied over while others may still read it.
    let copy = |barrier: &str| {
        let body = format!(
            "st.global.u32 [%rd2], %r1; mov.u32 %r2, tile; mad.lo.u32 %r3, %r1, 4, %r2; st.shared.u32 [%r3], %r1; bar.sync 0;\n\
             xor.b32 %r4, %r1, 33; mad.lo.u32 %r4, %r4, 4, %r2; ld.shared.u32 %r5, [%r4]; {barrier}\n\
             cp.async.ca.shared.global [%r3], [%rd2], 4; cp.async.commit_group; cp.async.wait_group 0;\n\
             st.global.u32 [%rd2], %r5;"
        );
        kernel(".shared .align 4 .b8 tile[256];", &body)
    };
    let want: Vec<u32> = (0..64).map(|thread| thread ^ 33).collect();
    assert_eq!(run_all(&copy("bar.sync 0;"), 64), want);
    assert!(fault(&copy(""), 64).contains("race"));
}

#[test]
fn lanes_that_have_parted_meet_only_where_they_must() {
    // Odd lanes write, even ones read what their neighbour has written. Lockstep order would hide what is missing between.
    let exchange = |meeting: &str| {
        let body = format!(
            "mov.u32 %r2, tile; mad.lo.u32 %r3, %r1, 4, %r2; and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; @%p1 bra EVEN;\n\
             st.shared.u32 [%r3], %r1;\n\
             EVEN: {meeting} mov.u32 %r5, 0; @%p1 ld.shared.u32 %r5, [%r3+4]; st.global.u32 [%rd2], %r5;"
        );
        kernel(".shared .align 4 .b8 tile[128];", &body)
    };
    let want: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { lane + 1 } else { 0 }).collect();
    assert_eq!(run_all(&exchange("bar.warp.sync -1;"), 32), want);
    let why = fault(&exchange(""), 32);
    assert!(why.contains("race") || why.contains("before anything"), "{why}");
    // A shuffle waits for all whom it names, in whatever order they come.
    let body = "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; mov.u32 %r3, %r1; @%p1 bra EVEN;\n\
        add.u32 %r3, %r3, 100; add.u32 %r3, %r3, 100;\n\
        EVEN: shfl.sync.bfly.b32 %r5, %r3, 1, 31, -1; st.global.u32 [%rd2], %r5;";
    let want: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { lane + 201 } else { lane - 1 }).collect();
    assert_eq!(run_all(&kernel("", body), 32), want);
}

#[test]
fn every_committed_kernel_decodes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../device/src/cuda/kernels");
    let mut n = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ptx") {
            let module = Module::parse(&std::fs::read_to_string(&path).unwrap());
            let module = module.unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
            assert!(!module.functions.is_empty(), "{} has no kernel", path.display());
            n += 1;
        }
    }
    assert!(n > 0);
}
