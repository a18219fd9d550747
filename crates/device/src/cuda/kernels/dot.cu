// Products of f32 with few results and long sums, on the ordinary units of every GPU: small tiles, and the sum cut into pieces,
// so that there is work for all multiprocessors. Tensor cores are used in dot_tensor.cu; whatever fits neither is printed.
#include "batch.cuh"

// Bring a tile of `OUTER` rows (or columns) by `DEPTH` terms into shared memory as [term][row]. Threads walk along the axis
// that is denser in memory. What lies outside is zero.
template <typename T, int OUTER, int DEPTH, int PITCH, int THREADS>
__device__ void load(T *tile, const T *source, i64 outer_stride, i64 k_stride, int outer_first, int outer_end, int k_first,
                     int k_end, bool along_k) {
#pragma unroll
    for (int i = 0; i < OUTER * DEPTH / THREADS; i++) {
        int at = threadIdx.x + i * THREADS;
        int outer = along_k ? at / DEPTH : at % OUTER, term = along_k ? at % DEPTH : at / OUTER;
        bool inside = outer_first + outer < outer_end && k_first + term < k_end;
        T value = 0;
        if (inside) value = source[(outer_first + outer) * outer_stride + (k_first + term) * k_stride];
        tile[term * PITCH + outer] = value;
    }
}

// Threads are 16 × 16; each keeps `SIDE` × `SIDE` results, `SIDE`·16 being the side of the block's tile.
template <typename T, int SIDE, int DEPTH> __device__ void product(DOT_PARAMETERS(T)) {
    const int TILE = SIDE * 16, PITCH = TILE + 1;
    __shared__ T left_tile[DEPTH * PITCH], right_tile[DEPTH * PITCH];
    Task<T> t = task<T, TILE, TILE>(DOT_ARGUMENTS);
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    bool left_along_k = llabs(left_column) < llabs(left_row), right_along_k = llabs(right_row) < llabs(right_column);
    T sum[SIDE][SIDE] = {};
    for (int at = t.k_begin; at < t.k_end; at += DEPTH) {
        load<T, TILE, DEPTH, PITCH, 256>(left_tile, t.left, left_row, left_column, t.first_row, (int)m, at, t.k_end, left_along_k);
        load<T, TILE, DEPTH, PITCH, 256>(right_tile, t.right, right_column, right_row, t.first_column, (int)n, at, t.k_end, right_along_k);
        __syncthreads();
#pragma unroll 4
        for (int term = 0; term < DEPTH; term++) {
            T a[SIDE], b[SIDE];
#pragma unroll
            for (int i = 0; i < SIDE; i++) a[i] = left_tile[term * PITCH + row + 16 * i];
#pragma unroll
            for (int j = 0; j < SIDE; j++) b[j] = right_tile[term * PITCH + column + 16 * j];
#pragma unroll
            for (int i = 0; i < SIDE; i++)
#pragma unroll
                for (int j = 0; j < SIDE; j++) sum[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < SIDE; i++)
#pragma unroll
        for (int j = 0; j < SIDE; j++) {
            int r = t.first_row + row + 16 * i, c = t.first_column + column + 16 * j;
            if (r < m && c < n) t.out[r * n + c] = sum[i][j];
        }
}

// Two blocks on a multiprocessor hide each other's waiting.
extern "C" __global__ void __launch_bounds__(256, 2) dot_narrow(DOT_PARAMETERS(float)) { product<float, 2, 32>(DOT_ARGUMENTS); }

// out[i] = Σ_piece pieces[piece, i]
extern "C" __global__ void __launch_bounds__(256) dot_sum(const float *pieces, float *out, i64 count, i64 n_pieces) {
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < count; i += (i64)gridDim.x * 256) {
        float sum = pieces[i];
        for (i64 piece = 1; piece < n_pieces; piece++) sum += pieces[piece * count + i];
        out[i] = sum;
    }
}
