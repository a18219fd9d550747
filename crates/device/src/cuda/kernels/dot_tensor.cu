// Products of f32 on tensor cores (compute capability 8.0 and later): blocks of 256 threads make tiles of 128 × 128, eight
// warps of 64 × 32; three stages of 16 terms are brought to shared memory by asynchronous copies while earlier ones are used.
// `dot_tf32_*` rounds the operands to TF32; `dot_split_*` splits them in two (tensor.cuh) and keeps the accuracy of f32.
#include "batch.cuh"
#include "tensor.cuh"

const int TILE = 128;
// Floats of one operand's tile, in either layout.
const int STAGE = TILE * K_PITCH;

// `ALONG_K` and `ALONG_OUTER` have stride 1 along that axis and rows that start at multiples of 16 bytes; `ANY` has any strides.
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
