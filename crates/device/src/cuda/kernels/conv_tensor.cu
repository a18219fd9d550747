// Convolutions of f32 on tensor cores (compute capability 8.0 and later): blocks of 256 threads make tiles of 64 outputs'
// channels × 128 positions, eight warps of 32 × 32. 64 channels, for that is what many layers have. Of every step of 16 terms 12 KiB
// come through asynchronous copies for 131,072 multiplications, 21 flops for a byte; three stages of them are under
// way. As of dots there are two forms: `conv_tf32_*` rounds the operands, `conv_split_*` keeps the accuracy of f32 (tensor.cuh).
//
// Elements are copied one by one, for neighbours may lie in different rows of the data; lanes side by side copy what lies side by
// side. `*_outputs` walks along positions: the outputs of a row are longer than the taps. `*_taps` walks along the terms: gradients
// of kernels, where it is the other way round. Either way one of an element's two places stays in registers.
#include "conv.cuh"
#include "tensor.cuh"

const int ROWS = 64, COLUMNS = 128;
// Floats of a stage's tile of the kernel, and of both tiles.
const int LEFT = ROWS * K_PITCH;
template <Layout L> constexpr int STAGE = LEFT + (L == ALONG_OUTER ? DEPTH * OUTER_PITCH : COLUMNS * K_PITCH);
typedef Tables<COLUMNS, DEPTH, STAGES> ConvTables;

// A step's tile of the kernel, along the terms.
__device__ void bring_kernel(float *tile, const Shape &s, const Task &t, const ConvTables &tables, int step) {
    int term = threadIdx.x % DEPTH, offset = tables.kernel[step % STAGES][term];
#pragma unroll
    for (int i = 0; i < ROWS * DEPTH / 256; i++) {
        int row = threadIdx.x / DEPTH + i * (256 / DEPTH);
        bool there = t.first_row + row < s.rows && offset != OUTSIDE;
        const float *from = there ? t.kernel + ((t.first_row + row) * s.kernel_row + offset) : t.kernel;
        copy<4>(tile + row * K_PITCH + term, from, there ? 4 : 0);
    }
}

__device__ void bring_element(float *to, const Shape &s, const Task &t, const Place &column, const Place &term) {
    bool there = inside(s, column, term);
    copy<4>(to, there ? t.data + (column.offset + term.offset) : t.data, there ? 4 : 0);
}

// A step's tile of the patches. `own` is the place of the thread's column, if it walks along columns.
template <Layout L>
__device__ void bring_patches(float *tile, const Shape &s, const Task &t, const ConvTables &tables, const Place &own, int step) {
    const Place *terms = tables.term[step % STAGES];
    if (L == ALONG_OUTER) {
        int column = threadIdx.x % COLUMNS;
#pragma unroll
        for (int i = 0; i < COLUMNS * DEPTH / 256; i++) {
            int term = threadIdx.x / COLUMNS + i * (256 / COLUMNS);
            bring_element(tile + term * OUTER_PITCH + column, s, t, own, terms[term]);
        }
    } else {
        int term = threadIdx.x % DEPTH;
        Place place = terms[term];
#pragma unroll
        for (int i = 0; i < COLUMNS * DEPTH / 256; i++) {
            int column = threadIdx.x / DEPTH + i * (256 / DEPTH);
            bring_element(tile + column * K_PITCH + term, s, t, tables.column[column], place);
        }
    }
}

__device__ void store(const float (&sum)[2][4][4], const Shape &s, const Task &t, const ConvTables &tables, int row, int column) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int c = column + 8 * j + 2 * quad + e;
            if (t.first_column + c >= s.columns) continue;
            float *to = t.out + tables.out[c];
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int r = t.first_row + row + 16 * i + group + 8 * half;
                    if (r < s.rows) to[r * t.out_row] = sum[i][j][2 * half + e];
                }
        }
}

template <Layout L, bool SPLIT> __device__ void convolution(const Shape &s, const Task &t) {
    extern __shared__ __align__(16) float tiles[];
    ConvTables &tables = *(ConvTables *)tiles;
    float *stages = tiles + sizeof(ConvTables) / sizeof(float);
    int steps = (t.end - t.begin + DEPTH - 1) / DEPTH;
    Walk<DEPTH> walk(s, t.begin, t.end);
    put_columns(s, tables, t);
    if (threadIdx.x < DEPTH)
        for (int step = 0; step < STAGES; step++) walk.put(s, tables, step);
    __syncthreads();
    Place own = tables.column[threadIdx.x % COLUMNS];
    auto bring = [&](int at) {
        float *tile = stages + at % STAGES * STAGE<L>;
        bring_kernel(tile, s, t, tables, at);
        bring_patches<L>(tile + LEFT, s, t, tables, own, at);
    };
    // A group is committed in each round, empty or not, so that the count of groups in flight is always the same.
    for (int at = 0; at < STAGES - 1; at++) {
        if (at < steps) bring(at);
        asm volatile("cp.async.commit_group;");
    }
    int warp = threadIdx.x / 32, row = warp / 4 * 32, column = warp % 4 * 32;
    float sum[2][4][4] = {};
    for (int at = 0; at < steps; at++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
        // Stage `at` is complete for all, and nobody reads the stage that is overwritten next, nor the terms of this step.
        __syncthreads();
        if (at + STAGES - 1 < steps) bring(at + STAGES - 1);
        asm volatile("cp.async.commit_group;");
        if (threadIdx.x < DEPTH) walk.put(s, tables, at + STAGES);
        const float *tile = stages + at % STAGES * STAGE<L>;
#pragma unroll
        for (int term = 0; term < DEPTH; term += 8)
            step<ALONG_K, L, SPLIT>(sum, tile, tile + LEFT, row, column, term);
    }
    asm volatile("cp.async.wait_group 0;");
    store(sum, s, t, tables, row, column);
}

#define KERNEL(NAME, LAYOUT, SPLIT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256, 2) NAME(CONV_PARAMETERS) {                                         \
        Shape s = CONV_SHAPE;                                                                                            \
        convolution<LAYOUT, SPLIT>(s, CONV_TASK(ROWS, COLUMNS));                                                         \
    }

KERNEL(conv_tf32_outputs, ALONG_OUTER, false)
KERNEL(conv_tf32_taps, ALONG_K, false)
KERNEL(conv_split_outputs, ALONG_OUTER, true)
KERNEL(conv_split_taps, ALONG_K, true)
