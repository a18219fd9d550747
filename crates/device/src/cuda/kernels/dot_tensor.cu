// Products of f32 on tensor cores (compute capability 8.0 and later): blocks of 256 threads make tiles of 128 × 128, eight
// warps of 64 × 32; three stages of 16 terms are brought to shared memory by asynchronous copies while earlier ones are used.
//
// `dot_tf32_*` rounds the operands to TF32 (10 bits of mantissa). `dot_split_*` keeps the accuracy of f32: with x = h + l, h and l
// both TF32, it computes l·h′ + h·l′ + h·h′ and leaves out only l·l′ (Ootomo and Yokota, "Recovering single precision
// accuracy from Tensor Cores", IJHPCA 2022, without their correction of the accumulator's rounding).
#include "batch.cuh"

const int TILE = 128, DEPTH = 16, STAGES = 3, K_PITCH = 20, OUTER_PITCH = 136;
// Floats of one operand's tile: [outer][K_PITCH] or [term][OUTER_PITCH]. Both pitches let the lanes of a warp that load a
// fragment reach 32 different banks.
const int STAGE = TILE * K_PITCH;

// Copy `bytes` of `SIZE` to shared memory and fill the rest with zero.
template <int SIZE> __device__ void copy(float *to, const float *from, int bytes) {
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    if (SIZE == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(bytes));
}

// How a tile lies in memory and so in shared memory: `ALONG_K` and `ALONG_OUTER` have stride 1 along that axis and rows that
// start at multiples of 16 bytes; `ANY` has any strides and is stored like `ALONG_K`.
enum Layout { ALONG_K, ALONG_OUTER, ANY };

template <Layout L>
__device__ void load(float *tile, const float *source, i64 outer_stride, i64 k_stride, int outer_first, int outer_end, int k_first,
                     int k_end) {
    const int PER_COPY = L == ANY ? 1 : 4;
    bool along_k = L == ALONG_K || (L == ANY && llabs(k_stride) <= llabs(outer_stride));
#pragma unroll
    for (int i = 0; i < TILE * DEPTH / PER_COPY / 256; i++) {
        int at = (threadIdx.x + i * 256) * PER_COPY;
        int outer = along_k ? at / DEPTH : at % TILE, term = along_k ? at % DEPTH : at / TILE;
        int left = L == ALONG_OUTER ? (k_first + term < k_end ? outer_end - outer_first - outer : 0)
                                    : (outer_first + outer < outer_end ? k_end - k_first - term : 0);
        int bytes = 4 * max(0, min(PER_COPY, left));
        i64 offset = (L == ALONG_OUTER ? outer_first + outer : (outer_first + outer) * outer_stride) +
                     (L == ALONG_K ? k_first + term : (k_first + term) * k_stride);
        float *to = tile + (L == ALONG_OUTER ? term * OUTER_PITCH + outer : outer * K_PITCH + term);
        copy<4 * PER_COPY>(to, bytes > 0 ? source + offset : source, bytes);
    }
}

template <Layout L> __device__ float element(const float *tile, int outer, int term) {
    return L == ALONG_OUTER ? tile[term * OUTER_PITCH + outer] : tile[outer * K_PITCH + term];
}

__device__ unsigned to_tf32(float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

// x = high + low. An infinity has no low part, and what it is multiplied with becomes NaN.
template <bool SPLIT> __device__ void split(float x, unsigned &high, unsigned &low) {
    high = to_tf32(x);
    if (SPLIT) low = to_tf32(x - __uint_as_float(high));
}

__device__ void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// One step of eight terms: fragments of 4 × (16 × 8) and 4 × (8 × 8), and their 16 products.
template <Layout LEFT, Layout RIGHT, bool SPLIT>
__device__ void step(float (&sum)[4][4][4], const float *left, const float *right, int row, int column, int term) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    unsigned b_high[4][2], b_low[4][2];
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            split<SPLIT>(element<RIGHT>(right, column + 8 * j + group, term + quad + 4 * e), b_high[j][e], b_low[j][e]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned a_high[4], a_low[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
            split<SPLIT>(element<LEFT>(left, row + 16 * i + group + 8 * (e % 2), term + quad + 4 * (e / 2)), a_high[e], a_low[e]);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (SPLIT) {
                multiply(sum[i][j], a_low, b_high[j]);
                multiply(sum[i][j], a_high, b_low[j]);
            }
            multiply(sum[i][j], a_high, b_high[j]);
        }
    }
}

__device__ void store(const float (&sum)[4][4][4], float *out, int row, int column, int m, int n) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = row + 16 * i + group + 8 * half;
            if (r >= m) continue;
            float *to = out + (i64)r * n;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int c = column + 8 * j + 2 * quad;
                // With an even n every pair is aligned and wholly inside.
                if (n % 2 == 0) {
                    if (c < n) *(float2 *)(to + c) = make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
                } else {
                    if (c < n) to[c] = sum[i][j][2 * half];
                    if (c + 1 < n) to[c + 1] = sum[i][j][2 * half + 1];
                }
            }
        }
}

template <Layout LEFT, Layout RIGHT, bool SPLIT> __device__ void product(DOT_PARAMETERS(float)) {
    extern __shared__ __align__(16) float tiles[];
    Task<float> t = task<float, TILE, TILE>(DOT_ARGUMENTS);
    int steps = (t.k_end - t.k_begin + DEPTH - 1) / DEPTH;
    auto bring = [&](int at) {
        float *tile = tiles + at % STAGES * 2 * STAGE;
        int term = t.k_begin + at * DEPTH;
        load<LEFT>(tile, t.left, left_row, left_column, t.first_row, (int)m, term, t.k_end);
        load<RIGHT>(tile + STAGE, t.right, right_column, right_row, t.first_column, (int)n, term, t.k_end);
    };
    // A group is committed in each round, empty or not, so that the count of groups in flight is always the same.
    for (int at = 0; at < STAGES - 1; at++) {
        if (at < steps) bring(at);
        asm volatile("cp.async.commit_group;");
    }
    int warp = threadIdx.x / 32, row = warp / 4 * 64, column = warp % 4 * 32;
    float sum[4][4][4] = {};
    for (int at = 0; at < steps; at++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
        // Stage `at` is complete for all, and nobody reads the stage that is overwritten next.
        __syncthreads();
        if (at + STAGES - 1 < steps) bring(at + STAGES - 1);
        asm volatile("cp.async.commit_group;");
        const float *tile = tiles + at % STAGES * 2 * STAGE;
#pragma unroll
        for (int term = 0; term < DEPTH; term += 8) step<LEFT, RIGHT, SPLIT>(sum, tile, tile + STAGE, row, column, term);
    }
    asm volatile("cp.async.wait_group 0;");
    store(sum, t.out, t.first_row + row, t.first_column + column, (int)m, (int)n);
}

// The names say how left and right lie: n = rows are contiguous, t = columns are, any = neither. Two blocks fit on a
// multiprocessor, except of `any`, where every element has an address of its own; `tt` fits by itself, and spills if held to it.
#define KERNELS(NAME, LEFT, RIGHT, ...)                                                                                         \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) dot_tf32_##NAME(DOT_PARAMETERS(float)) {                          \
        product<LEFT, RIGHT, false>(DOT_ARGUMENTS);                                                                             \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) dot_split_##NAME(DOT_PARAMETERS(float)) {                         \
        product<LEFT, RIGHT, true>(DOT_ARGUMENTS);                                                                              \
    }

KERNELS(nn, ALONG_K, ALONG_OUTER, 256, 2)
KERNELS(nt, ALONG_K, ALONG_K, 256, 2)
KERNELS(tn, ALONG_OUTER, ALONG_OUTER, 256, 2)
KERNELS(tt, ALONG_OUTER, ALONG_K, 256)
KERNELS(any, ANY, ANY, 256)
