// Convolutions of f32 on the ordinary units of every GPU, and the sum of pieces. Blocks of 256 threads make tiles of 64
// outputs' channels × 64 positions, each thread 4 × 4: of every step of 16 terms 8 KiB come from memory for 65,536
// multiplications, 16 flops for a byte, and 2 × 16 bytes from shared memory for 16 multiplications. The next step's elements
// are on their way in registers while this one is multiplied. conv_tensor.cu has the kernels for tensor cores.
#include "conv.cuh"

const int TILE = 64, DEPTH = 16, PITCH = TILE + 4, EACH = TILE * DEPTH / 256;

// The thread's elements of a step: of the kernel along the terms, of the patches along terms or along columns.
__device__ void fetch(const Shape &s, const Task &t, const Tables<TILE, DEPTH, 2> &tables, int step, bool along_terms,
                      float (&left)[EACH], float (&right)[EACH]) {
    int term = threadIdx.x % DEPTH, offset = tables.kernel[step % 2][term];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int row = t.first_row + threadIdx.x / DEPTH + i * (256 / DEPTH);
        left[i] = row < s.rows && offset != OUTSIDE ? t.kernel[row * s.kernel_row + offset] : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int at = threadIdx.x + i * 256;
        Place column = tables.column[along_terms ? at / DEPTH : at % TILE];
        Place place = tables.term[step % 2][along_terms ? at % DEPTH : at / TILE];
        right[i] = inside(s, column, place) ? t.data[column.offset + place.offset] : 0;
    }
}

__device__ void put(float *left_tile, float *right_tile, bool along_terms, const float (&left)[EACH], const float (&right)[EACH]) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int at = threadIdx.x + i * 256;
        left_tile[at % DEPTH * PITCH + at / DEPTH] = left[i];
        right_tile[along_terms ? at % DEPTH * PITCH + at / DEPTH : at / TILE * PITCH + at % TILE] = right[i];
    }
}

__device__ void multiply(float (&sum)[4][4], const float *left_tile, const float *right_tile) {
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int term = 0; term < DEPTH; term++) {
        float4 a = *(const float4 *)(left_tile + term * PITCH + row), b = *(const float4 *)(right_tile + term * PITCH + column);
        float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] += left[i] * right[j];
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) conv_plain(CONV_PARAMETERS, i64 along_terms) {
    __shared__ __align__(16) float left_tile[2][DEPTH * PITCH], right_tile[2][DEPTH * PITCH];
    __shared__ Tables<TILE, DEPTH, 2> tables;
    Shape s = CONV_SHAPE;
    Task t = CONV_TASK(TILE, TILE);
    int steps = (t.end - t.begin + DEPTH - 1) / DEPTH;
    Walk<DEPTH> walk(s, t.begin, t.end);
    put_columns(s, tables, t);
    if (threadIdx.x < DEPTH) {
        walk.put(s, tables, 0);
        walk.put(s, tables, 1);
    }
    __syncthreads();
    float left[EACH], right[EACH], sum[4][4] = {};
    fetch(s, t, tables, 0, along_terms, left, right);
    put(left_tile[0], right_tile[0], along_terms, left, right);
    __syncthreads();
    for (int at = 0; at < steps; at++) {
        // Terms beyond the sum are zeros, so the step behind the last one is harmless.
        fetch(s, t, tables, at + 1, along_terms, left, right);
        multiply(sum, left_tile[at % 2], right_tile[at % 2]);
        put(left_tile[(at + 1) % 2], right_tile[(at + 1) % 2], along_terms, left, right);
        if (threadIdx.x < DEPTH) walk.put(s, tables, at + 2);
        __syncthreads();
    }
    int row = t.first_row + threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (row + i < s.rows && t.first_column + column + j < s.columns)
                t.out[(row + i) * t.out_row + tables.out[column + j]] = sum[i][j];
}

// out[g, o, (b, y…)] = Σ_piece pieces[piece, g, o, (b, y…)]
extern "C" __global__ void __launch_bounds__(256) conv_sum(CONV_PARAMETERS, i64 pieces) {
    Shape s = CONV_SHAPE;
    i64 count = groups * rows * columns;
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < count; i += (i64)gridDim.x * 256) {
        float sum = data[i];
        for (i64 piece = 1; piece < pieces; piece++) sum += data[piece * count + i];
        int at;
        place_of_column(s, (int)(i % columns), at);
        i64 row = i / columns;
        out[row / rows * out_group + row % rows * out_row + at] = sum;
    }
}
