// Attention of f32 on tensor cores (compute capability 8.0 and later): blocks of four warps own 64 rows, 16 each, and walk over
// tiles of 32 others, so that a row's scores lie in four lanes. `attention_tf32_*` rounds operands, `attention_split_*` keeps the
// accuracy of f32 (tensor.cuh). Heads have at most 128 columns. Weights go from one product to the next in registers: the sum over
// a tile's columns may take them in any order, so what a lane holds as columns 2i and 2i + 1 of a result it gives as terms i and
// i + 4 of a factor, and reads the other factor's rows in that order.
//
// A pitch of 4 beyond a multiple of 8 lets the lanes of a warp reach 32 banks both ways that tiles are read.
#define INFINITY __int_as_float(0x7f800000)
#include "attention.cuh"
#include "tensor.cuh"

const int OWN = 64, OTHER = 32, THREADS = 128, MOST = 128;

__device__ int padded(int columns) { return (columns + 7) / 8 * 8; }

// Rows `first`… of a matrix with its columns filled up to a multiple of 8; what lies outside is zero.
template <int ROWS> __device__ void bring(float *tile, const Matrix &m, int first, int end, int columns) {
    int all = padded(columns), pitch = all + 4;
    if (m.aligned) {
        for (int row = threadIdx.x / 16; row < ROWS; row += THREADS / 16)
            for (int column = threadIdx.x % 16 * 4; column < all; column += 64) {
                bool there = first + row < end && column < columns;
                const float *from = there ? m.start + (first + row) * m.row + column : m.start;
                copy<16>(tile + row * pitch + column, from, there ? 16 : 0);
            }
    } else {
        for (int row = threadIdx.x / 32; row < ROWS; row += THREADS / 32)
            for (int column = threadIdx.x % 32; column < all; column += 32) {
                bool there = first + row < end && column < columns;
                const float *from = there ? m.start + (first + row) * m.row + column * m.column : m.start;
                copy<4>(tile + row * pitch + column, from, there ? 4 : 0);
            }
    }
}

__device__ void commit() { asm volatile("cp.async.commit_group;"); }

// All that was brought is there for all, and nobody works any more with what is behind.
__device__ void arrived() {
    asm volatile("cp.async.wait_group 0;");
    __syncthreads();
}

template <bool SPLIT> __device__ void product(float (&sum)[4], const unsigned (&high)[4], const unsigned (&low)[4], float b0, float b1) {
    unsigned b_high[2], b_low[2];
    split<SPLIT>(b0, b_high[0], b_low[0]);
    split<SPLIT>(b1, b_high[1], b_low[1]);
    if (SPLIT) {
        multiply(sum, low, b_high);
        multiply(sum, high, b_low);
    }
    multiply(sum, high, b_high);
}

typedef float Scores[OTHER / 8][4];
typedef float Results[MOST / 8][4];

// x = own · otherᵀ of the warp's 16 rows
template <bool SPLIT> __device__ void compare(Scores &x, const float *own, const float *other, int columns) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4, all = padded(columns), pitch = all + 4;
    own += threadIdx.x / 32 * 16 * pitch;
#pragma unroll
    for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) x[j][e] = 0;
    for (int term = quad; term < all; term += 8) {
        unsigned high[4], low[4];
#pragma unroll
        for (int e = 0; e < 4; e++) split<SPLIT>(own[(group + 8 * (e % 2)) * pitch + term + 4 * (e / 2)], high[e], low[e]);
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++) {
            const float *b = other + (8 * j + group) * pitch + term;
            product<SPLIT>(x[j], high, low, b[0], b[4]);
        }
    }
}

// results += x · other
template <bool SPLIT> __device__ void combine(Results &results, const Scores &x, const float *other, int columns) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4, pitch = padded(columns) + 4;
#pragma unroll
    for (int i = 0; i < OTHER / 8; i++) {
        unsigned high[4], low[4];
#pragma unroll
        for (int e = 0; e < 4; e++) split<SPLIT>(x[i][e / 2 + 2 * (e % 2)], high[e], low[e]);
        const float *b = other + (8 * i + 2 * quad) * pitch + group;
#pragma unroll
        for (int j = 0; j < MOST / 8; j++)
            if (8 * j < columns) product<SPLIT>(results[j], high, low, b[8 * j], b[8 * j + pitch]);
    }
}

// The warp's rows of a packed result, multiplied row by row.
__device__ void store(const Results &results, float *out, int first, int end, int columns, float factor_0, float factor_1) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first + threadIdx.x / 32 * 16 + group + 8 * half;
        float *to = out + (i64)row * columns, factor = half ? factor_1 : factor_0;
        if (row >= end) continue;
#pragma unroll
        for (int j = 0; j < MOST / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int column = 8 * j + 2 * quad + e;
                if (column < columns) to[column] = results[j][2 * half + e] * factor;
            }
    }
}

template <bool SPLIT> __device__ void forward(const Shape &s, const Matrix &query, const Matrix &key, const Matrix &value, float *out) {
    extern __shared__ __align__(16) float tiles[];
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    int first = (gridDim.x - 1 - blockIdx.x) * OWN, row = first + threadIdx.x / 32 * 16 + group;
    int end = seen(s, min(first + OWN, s.queries) - 1);
    float *queries = tiles, *keys = queries + OWN * (padded(s.width) + 4), *values = keys + OTHER * (padded(s.width) + 4);
    Running running[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
    Results results = {};
    bring<OWN>(queries, query, first, s.queries, s.width);
    bring<OTHER>(keys, key, 0, s.keys, s.width);
    commit();
    for (int at = 0; at < end; at += OTHER) {
        arrived();
        bring<OTHER>(values, value, at, s.keys, s.values);
        commit();
        Scores x;
        compare<SPLIT>(x, queries, keys, s.width);
        float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool is_seen = sees(s, row + 8 * (e / 2), at + 8 * j + 2 * quad + e % 2);
                x[j][e] = is_seen ? x[j][e] * s.scale : -INFINITY;
                most[e / 2] = fmaxf(most[e / 2], x[j][e]);
            }
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; half++) factor[half] = running[half].raise(greatest_of<4>(most[half]));
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) x[j][e] = running[e / 2].weight(x[j][e]);
#pragma unroll
        for (int j = 0; j < MOST / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) results[j][e] *= factor[e / 2];
        arrived();
        if (at + OTHER < end) bring<OTHER>(keys, key, at + OTHER, s.keys, s.width);
        commit();
        combine<SPLIT>(results, x, values, s.values);
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = sum_of<4>(running[half].sum);
        inverse[half] = sum == 0 ? 0 : 1 / sum;
        int at = row + 8 * half;
        if (quad == 0 && at < s.queries) out[(i64)s.queries * s.values + at] = sum == 0 ? 0 : running[half].greatest + logf(sum);
    }
    store(results, out, first, s.queries, s.values, inverse[0], inverse[1]);
    asm volatile("cp.async.wait_group 0;");
}

// Cotangents of the queries or, `OF_KEYS`, of keys and values. `own` and `other` are what scores are made of, `own_bar` and
// `other_bar` what their cotangents are made of: v and ō.
template <bool SPLIT, bool OF_KEYS>
__device__ void reverse(const Shape &s, const Matrix &own, const Matrix &own_bar, const Matrix &other, const Matrix &other_bar,
                        const Matrix &log_sum, const Matrix &delta, float *out, float *out_bar) {
    extern __shared__ __align__(16) float tiles[];
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    int first = (OF_KEYS ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * OWN, row = first + threadIdx.x / 32 * 16 + group;
    int n_own = OF_KEYS ? s.keys : s.queries, n_other = OF_KEYS ? s.queries : s.keys;
    int begin = OF_KEYS ? first_to_see(s, first) / OTHER * OTHER : 0;
    int end = OF_KEYS ? s.queries : seen(s, min(first + OWN, s.queries) - 1);
    float *owns = tiles, *own_bars = owns + OWN * (padded(s.width) + 4);
    float *others = own_bars + OWN * (padded(s.values) + 4), *other_bars = others + OTHER * (padded(s.width) + 4);
    float row_log_sum[2] = {}, row_delta[2] = {};
    for (int half = 0; half < 2; half++)
        if (!OF_KEYS && row + 8 * half < s.queries) {
            row_log_sum[half] = log_sum.start[(row + 8 * half) * log_sum.row];
            row_delta[half] = delta.start[(row + 8 * half) * delta.row];
        }
    Results results = {}, bars = {};
    bring<OWN>(owns, own, first, n_own, s.width);
    bring<OWN>(own_bars, own_bar, first, n_own, s.values);
    if (begin < end) {
        bring<OTHER>(others, other, begin, n_other, s.width);
        bring<OTHER>(other_bars, other_bar, begin, n_other, s.values);
    }
    commit();
    for (int at = begin; at < end; at += OTHER) {
        bool more = at + OTHER < end;
        arrived();
        Scores p, score_bar;
        compare<SPLIT>(p, owns, others, s.width);
        compare<SPLIT>(score_bar, own_bars, other_bars, s.values);
        if (!OF_KEYS) {
            __syncthreads();
            if (more) bring<OTHER>(other_bars, other_bar, at + OTHER, n_other, s.values);
        }
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int own_at = row + 8 * (e / 2), other_at = at + 8 * j + 2 * quad + e % 2;
                int i = OF_KEYS ? other_at : own_at;
                bool is_seen = sees(s, i, OF_KEYS ? own_at : other_at);
                float of_log_sum = row_log_sum[e / 2], of_delta = row_delta[e / 2];
                if (OF_KEYS && is_seen) {
                    of_log_sum = log_sum.start[i * log_sum.row];
                    of_delta = delta.start[i * delta.row];
                }
                float weight = is_seen ? exponential(p[j][e] * s.scale - of_log_sum) : 0;
                p[j][e] = weight;
                score_bar[j][e] = is_seen ? weight * (score_bar[j][e] - of_delta) : 0;
            }
        combine<SPLIT>(results, score_bar, others, s.width);
        if (OF_KEYS) combine<SPLIT>(bars, p, other_bars, s.values);
        __syncthreads();
        if (more) {
            bring<OTHER>(others, other, at + OTHER, n_other, s.width);
            if (OF_KEYS) bring<OTHER>(other_bars, other_bar, at + OTHER, n_other, s.values);
        }
        commit();
    }
    asm volatile("cp.async.wait_group 0;");
    store(results, out, first, n_own, s.width, s.scale, s.scale);
    if (OF_KEYS) store(bars, out_bar, first, n_own, s.values, 1, 1);
}

#define KERNELS(NAME, SPLIT)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##NAME##_forward(ATTENTION_PARAMETERS) {             \
        Shape s = ATTENTION_SHAPE;                                                                                       \
        Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2);                                           \
        forward<SPLIT>(s, q, k, v, out + BATCH_ENTRY * (queries * values + queries));                                    \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##NAME##_queries(ATTENTION_PARAMETERS) {             \
        Shape s = ATTENTION_SHAPE;                                                                                       \
        Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2), bar = MATRIX(cotangent, 3);               \
        Matrix sums = MATRIX(log_sum, 4), deltas = MATRIX(delta, 4);                                                     \
        float *q_bar = out + BATCH_ENTRY * (queries * width + keys * (width + values));                                  \
        reverse<SPLIT, false>(s, q, bar, k, v, sums, deltas, q_bar, 0);                                                  \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##NAME##_keys(ATTENTION_PARAMETERS) {                \
        Shape s = ATTENTION_SHAPE;                                                                                       \
        Matrix q = MATRIX(query, 0), k = MATRIX(key, 1), v = MATRIX(value, 2), bar = MATRIX(cotangent, 3);               \
        Matrix sums = MATRIX(log_sum, 4), deltas = MATRIX(delta, 4);                                                     \
        float *k_bar = out + BATCH_ENTRY * (queries * width + keys * (width + values)) + queries * width;                \
        reverse<SPLIT, true>(s, k, v, q, bar, sums, deltas, k_bar, k_bar + keys * width);                                \
    }

KERNELS(tf32, false)
KERNELS(split, true)
