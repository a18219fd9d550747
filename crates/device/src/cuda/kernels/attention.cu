// Attention of f32 on the ordinary units of every GPU: blocks of 256 threads own 64 rows and walk over tiles of 64 others; each
// thread has 4 × 4 of their scores, a row's in 16 neighbouring lanes. Operands come to shared memory 16 terms at a time, as in
// conv.cu, so that heads may have any width; values have at most 128 columns, of which each thread keeps 4 × 8.
#define INFINITY __int_as_float(0x7f800000)
#include "attention.cuh"

const int TILE = 64, DEPTH = 16, PITCH = TILE + 4, MOST = 128, WIDE_PITCH = MOST + 4;

struct Tiles {
    float left[DEPTH * PITCH], right[DEPTH * WIDE_PITCH];
    // [other][own]
    float weights[TILE * PITCH];
};

typedef float Scores[4][4];
typedef float Results[4][8];

// 64 rows by 16 terms as [term][row]; what lies outside is zero.
__device__ void bring(float *tile, const Matrix &m, int first, int end, int term, int columns) {
    term += threadIdx.x % DEPTH;
#pragma unroll
    for (int i = 0; i < TILE * DEPTH / 256; i++) {
        int row = threadIdx.x / DEPTH + i * (256 / DEPTH);
        bool there = first + row < end && term < columns;
        tile[threadIdx.x % DEPTH * PITCH + row] = there ? m.start[(first + row) * m.row + term * m.column] : 0;
    }
}

// x = own · otherᵀ
__device__ void compare(Scores &x, Tiles &tiles, const Matrix &own, int own_first, int own_end, const Matrix &other, int other_first,
                        int other_end, int columns) {
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) x[i][j] = 0;
    for (int term = 0; term < columns; term += DEPTH) {
        bring(tiles.left, own, own_first, own_end, term, columns);
        bring(tiles.right, other, other_first, other_end, term, columns);
        __syncthreads();
#pragma unroll 4
        for (int t = 0; t < DEPTH; t++) {
            float4 a = *(const float4 *)(tiles.left + t * PITCH + row), b = *(const float4 *)(tiles.right + t * PITCH + column);
            float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) x[i][j] += left[i] * right[j];
        }
        __syncthreads();
    }
}

// results += x · other
__device__ void combine(Results &results, Tiles &tiles, const Scores &x, const Matrix &other, int first, int end, int columns) {
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int j = 0; j < 4; j++)
        *(float4 *)(tiles.weights + (column + j) * PITCH + row) = make_float4(x[0][j], x[1][j], x[2][j], x[3][j]);
    for (int at = 0; at < min(TILE, end - first); at += DEPTH) {
        for (int c = threadIdx.x % 64; c < MOST; c += 64)
            for (int t = threadIdx.x / 64; t < DEPTH; t += 4) {
                bool there = first + at + t < end && c < columns;
                tiles.right[t * WIDE_PITCH + c] = there ? other.start[(first + at + t) * other.row + c * other.column] : 0;
            }
        __syncthreads();
#pragma unroll 4
        for (int t = 0; t < DEPTH; t++) {
            float4 a = *(const float4 *)(tiles.weights + (at + t) * PITCH + row);
            float left[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (half == 1 && columns <= 64) continue;
                float4 b = *(const float4 *)(tiles.right + t * WIDE_PITCH + 64 * half + column);
                float right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) results[i][4 * half + j] += left[i] * right[j];
            }
        }
        __syncthreads();
    }
}

__device__ void store(const Results &results, float *out, int first, int end, int columns, const float (&factor)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = first + threadIdx.x / 16 * 4 + i;
        if (row >= end) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int column = j / 4 * 64 + threadIdx.x % 16 * 4 + j % 4;
            if (column < columns) out[(i64)row * columns + column] = results[i][j] * factor[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) attention_plain_forward(ATTENTION_PARAMETERS) {
    __shared__ __align__(16) Tiles tiles;
    Shape s = ATTENTION_SHAPE;
    Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2);
    float *to = out + BATCH_ENTRY * (queries * values + queries);
    int first = (gridDim.x - 1 - blockIdx.x) * TILE, row = first + threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    int end = seen(s, min(first + TILE, s.queries) - 1);
    Running running[4];
    for (int i = 0; i < 4; i++) running[i] = {-INFINITY, 0};
    Results results = {};
    for (int at = 0; at < end; at += TILE) {
        Scores x;
        compare(x, tiles, q, first, s.queries, k, at, s.keys, s.width);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                x[i][j] = sees(s, row + i, at + column + j) ? x[i][j] * s.scale : -INFINITY;
                most = fmaxf(most, x[i][j]);
            }
            float factor = running[i].raise(greatest_of<16>(most));
#pragma unroll
            for (int j = 0; j < 4; j++) x[i][j] = running[i].weight(x[i][j]);
#pragma unroll
            for (int j = 0; j < 8; j++) results[i][j] *= factor;
        }
        combine(results, tiles, x, v, at, s.keys, s.values);
    }
    float inverse[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = sum_of<16>(running[i].sum);
        inverse[i] = sum == 0 ? 0 : 1 / sum;
        if (column == 0 && row + i < s.queries) to[queries * values + row + i] = sum == 0 ? 0 : running[i].greatest + logf(sum);
    }
    store(results, to, first, s.queries, s.values, inverse);
}

// Weights and cotangents of the scores between rows `own_at`… and `other_at`…: p from products of queries and keys, and from the
// products of ō and v.
template <bool OF_KEYS>
__device__ void weigh(Scores &p, Scores &score_bar, const Shape &s, int own_at, int other_at, const Matrix &log_sum, const Matrix &delta) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int query = OF_KEYS ? other_at + j : own_at + i;
            bool is_seen = sees(s, query, OF_KEYS ? own_at + i : other_at + j);
            float of_log_sum = is_seen ? log_sum.start[query * log_sum.row] : 0, of_delta = is_seen ? delta.start[query * delta.row] : 0;
            p[i][j] = is_seen ? exponential(p[i][j] * s.scale - of_log_sum) : 0;
            score_bar[i][j] = is_seen ? p[i][j] * (score_bar[i][j] - of_delta) : 0;
        }
}

extern "C" __global__ void __launch_bounds__(256) attention_plain_queries(ATTENTION_PARAMETERS) {
    __shared__ __align__(16) Tiles tiles;
    Shape s = ATTENTION_SHAPE;
    Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2), bar = MATRIX(cotangent, 3);
    Matrix sums = MATRIX(log_sum, 4), deltas = MATRIX(delta, 4);
    int first = (gridDim.x - 1 - blockIdx.x) * TILE, row = first + threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    int end = seen(s, min(first + TILE, s.queries) - 1);
    Results results = {};
    for (int at = 0; at < end; at += TILE) {
        Scores p, score_bar;
        compare(p, tiles, q, first, s.queries, k, at, s.keys, s.width);
        compare(score_bar, tiles, bar, first, s.queries, v, at, s.keys, s.values);
        weigh<false>(p, score_bar, s, row, at + column, sums, deltas);
        combine(results, tiles, score_bar, k, at, s.keys, s.width);
    }
    float *to = out + BATCH_ENTRY * (queries * width + keys * (width + values));
    store(results, to, first, s.queries, s.width, {s.scale, s.scale, s.scale, s.scale});
}

extern "C" __global__ void __launch_bounds__(256) attention_plain_keys(ATTENTION_PARAMETERS) {
    __shared__ __align__(16) Tiles tiles;
    Shape s = ATTENTION_SHAPE;
    Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2), bar = MATRIX(cotangent, 3);
    Matrix sums = MATRIX(log_sum, 4), deltas = MATRIX(delta, 4);
    int first = blockIdx.x * TILE, row = first + threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    Results of_keys = {}, of_values = {};
    for (int at = first_to_see(s, first) / TILE * TILE; at < s.queries; at += TILE) {
        Scores p, score_bar;
        compare(p, tiles, k, first, s.keys, q, at, s.queries, s.width);
        compare(score_bar, tiles, v, first, s.keys, bar, at, s.queries, s.values);
        weigh<true>(p, score_bar, s, row, at + column, sums, deltas);
        combine(of_keys, tiles, score_bar, q, at, s.queries, s.width);
        combine(of_values, tiles, p, bar, at, s.queries, s.values);
    }
    float *to = out + BATCH_ENTRY * (queries * width + keys * (width + values)) + queries * width;
    store(of_keys, to, first, s.keys, s.width, {s.scale, s.scale, s.scale, s.scale});
    store(of_values, to + keys * width, first, s.keys, s.values, {1, 1, 1, 1});
}
