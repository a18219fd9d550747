// Products of f32 with few results and long sums, on the ordinary units of every GPU: small tiles, and the sum cut into pieces,
// so that there is work for all multiprocessors. Tensor cores are used in dot_tensor.cu; whatever fits neither is printed.
#include "batch.cuh"

const int TILE = 32, DEPTH = 32, PITCH = TILE + 1;

// Bring a tile of 32 rows (or columns) by 32 terms into shared memory as [term][row]. Threads walk along the axis that is
// denser in memory. What lies outside is zero.
__device__ void load(float *tile, const float *source, i64 outer_stride, i64 k_stride, int outer_first, int outer_end, int k_first,
                     int k_end) {
    bool along_k = llabs(k_stride) < llabs(outer_stride);
#pragma unroll
    for (int i = 0; i < TILE * DEPTH / 256; i++) {
        int at = threadIdx.x + i * 256;
        int outer = along_k ? at / DEPTH : at % TILE, term = along_k ? at % DEPTH : at / TILE;
        bool inside = outer_first + outer < outer_end && k_first + term < k_end;
        float value = 0;
        if (inside) value = source[(outer_first + outer) * outer_stride + (k_first + term) * k_stride];
        tile[term * PITCH + outer] = value;
    }
}

// Threads are 16 × 16; each keeps 2 × 2 results. Two blocks on a multiprocessor hide each other's waiting.
extern "C" __global__ void __launch_bounds__(256, 2) dot_narrow(DOT_PARAMETERS(float)) {
    __shared__ float left_tile[DEPTH * PITCH], right_tile[DEPTH * PITCH];
    Task<float> t = task<float, TILE, TILE>(DOT_ARGUMENTS);
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    float sum[2][2] = {};
    for (int at = t.k_begin; at < t.k_end; at += DEPTH) {
        load(left_tile, t.left, left_row, left_column, t.first_row, (int)m, at, t.k_end);
        load(right_tile, t.right, right_column, right_row, t.first_column, (int)n, at, t.k_end);
        __syncthreads();
#pragma unroll 8
        for (int term = 0; term < DEPTH; term++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    sum[i][j] += left_tile[term * PITCH + row + 16 * i] * right_tile[term * PITCH + column + 16 * j];
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            int r = t.first_row + row + 16 * i, c = t.first_column + column + 16 * j;
            if (r < m && c < n) t.out[r * n + c] = sum[i][j];
        }
}

// out[i] = Σ_piece pieces[piece, i]
extern "C" __global__ void __launch_bounds__(256) dot_sum(const float *pieces, float *out, i64 count, i64 n_pieces) {
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < count; i += (i64)gridDim.x * 256) {
        float sum = pieces[i];
        for (i64 piece = 1; piece < n_pieces; piece++) sum += pieces[piece * count + i];
        out[i] = sum;
    }
}
