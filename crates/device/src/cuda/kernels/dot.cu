// Products on the ordinary units, for every GPU and number type: tiles of the operands in shared memory, a small square of
// the result in each thread's registers. Tensor cores are used in dot_tensor.cu.
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

// out[i] = Σ_piece pieces[piece, i]
template <typename T> __device__ void sum_pieces(const T *pieces, T *out, i64 count, i64 n_pieces) {
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < count; i += (i64)gridDim.x * 256) {
        T sum = pieces[i];
        for (i64 piece = 1; piece < n_pieces; piece++) sum += pieces[piece * count + i];
        out[i] = sum;
    }
}

// Two blocks on a multiprocessor hide each other's waiting; the largest tile needs the registers of both.
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 2)

extern "C" __global__ void __launch_bounds__(256) dot_f32(DOT_PARAMETERS(float)) { product<float, 8, 8>(DOT_ARGUMENTS); }
KERNEL dot_f32_small(DOT_PARAMETERS(float)) { product<float, 2, 32>(DOT_ARGUMENTS); }
KERNEL dot_f64(DOT_PARAMETERS(double)) { product<double, 4, 16>(DOT_ARGUMENTS); }
KERNEL dot_i32(DOT_PARAMETERS(unsigned)) { product<unsigned, 4, 16>(DOT_ARGUMENTS); }
KERNEL dot_sum_f32(const float *pieces, float *out, i64 count, i64 n_pieces) { sum_pieces(pieces, out, count, n_pieces); }
KERNEL dot_sum_f64(const double *pieces, double *out, i64 count, i64 n_pieces) { sum_pieces(pieces, out, count, n_pieces); }
KERNEL dot_sum_i32(const unsigned *pieces, unsigned *out, i64 count, i64 n_pieces) { sum_pieces(pieces, out, count, n_pieces); }
