// What the kernels of attention share: operands, sizes, what a query sees, and the walk over batches and tiles.
//
//   forward: λ = log Σ exp s and out = Σ exp(s − λ)·v of each query, with s = scale · q·kᵀ where a key is seen
//   reverse: with p = exp(s − λ) and s̄ = p·(ō·vᵀ − δ), q̄ = scale · s̄·k, k̄ = scale · s̄ᵀ·q, v̄ = pᵀ·ō
//
// Blocks own a tile of rows (queries, or keys where their cotangents are wanted) and walk over tiles of the others; scores exist
// for one pair of tiles at a time (Dao et al. 2022, "FlashAttention"). Parameters are 64 bits wide; the mask's address is zero where
// there is none. Batches are counted over three axes, of which the first is what remains; results are packed as the op has it,
// entry by entry.
typedef long long i64;

#define MATRIX_PARAMETERS(T, N) const T *N, i64 N##_row, i64 N##_column, i64 N##_0, i64 N##_1, i64 N##_2
#define ATTENTION_PARAMETERS                                                                                             \
    float *out, i64 batch_first, i64 batch_1, i64 batch_2, i64 queries, i64 keys, i64 width, i64 values, i64 causal,     \
        i64 scale, i64 aligned, MATRIX_PARAMETERS(float, query), MATRIX_PARAMETERS(float, key),                          \
        MATRIX_PARAMETERS(float, value), MATRIX_PARAMETERS(unsigned char, mask), MATRIX_PARAMETERS(float, log_sum),      \
        MATRIX_PARAMETERS(float, delta), MATRIX_PARAMETERS(float, cotangent)
#define BATCH_ENTRY (batch_first + blockIdx.y)
#define OF_BATCH(N)                                                                                                      \
    (N + BATCH_ENTRY / batch_2 / batch_1 * N##_0 + BATCH_ENTRY / batch_2 % batch_1 * N##_1 + BATCH_ENTRY % batch_2 * N##_2)
// Bit `AT` of `aligned`: rows are contiguous and may be copied 16 bytes at a time.
#define MATRIX(N, AT) {OF_BATCH(N), N##_row, N##_column, (bool)(aligned >> AT & 1)}
#define ATTENTION_SHAPE                                                                                                  \
    {(int)queries, (int)keys, (int)width, (int)values, (bool)causal, __int_as_float((int)scale),                         \
     mask ? OF_BATCH(mask) : 0, mask_row, mask_column}

struct Matrix {
    const float *start;
    i64 row, column;
    bool aligned;
};

struct Shape {
    int queries, keys, width, values;
    bool causal;
    float scale;
    const unsigned char *mask;
    i64 mask_row, mask_column;
};

// How many of the first keys the query sees at most, by order.
__device__ int seen(const Shape &s, int query) {
    return s.causal ? max(0, min(s.keys, query + 1 + s.keys - s.queries)) : s.keys;
}

// The first query that sees the key, by order.
__device__ int first_to_see(const Shape &s, int key) { return s.causal ? max(0, key + s.queries - s.keys) : 0; }

__device__ bool sees(const Shape &s, int query, int key) {
    return query < s.queries && key < seen(s, query) && (!s.mask || s.mask[query * s.mask_row + key * s.mask_column]);
}

// exp x to two units of its last place where x is near 0, and to |x|·2⁻²⁴ elsewhere; exp of −∞ is 0.
__device__ float exponential(float x) {
    float r;
    asm("ex2.approx.f32 %0, %1;" : "=f"(r) : "f"(x * 1.4426950408889634f));
    return r;
}

// Of all lanes of a group of `LANES` neighbours.
template <int LANES> __device__ float greatest_of(float x) {
#pragma unroll
    for (int by = 1; by < LANES; by *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, by));
    return x;
}

template <int LANES> __device__ float sum_of(float x) {
#pragma unroll
    for (int by = 1; by < LANES; by *= 2) x += __shfl_xor_sync(~0u, x, by);
    return x;
}

// A row's running maximum and its lane's part of the sum.
struct Running {
    float greatest, sum;

    // Take over the maximum of a tile's scores; returns what earlier exponentials are to be multiplied with. As long as nothing is
    // seen the maximum is −∞, and exponentials are taken of the scores themselves, which are −∞ (or NaN, which shall show).
    __device__ float raise(float most) {
        most = fmaxf(most, greatest);
        float factor = most > greatest ? exponential(greatest - most) : 1;
        greatest = most;
        sum *= factor;
        return factor;
    }

    __device__ float weight(float score) {
        float p = exponential(score - (greatest == -INFINITY ? 0 : greatest));
        sum += p;
        return p;
    }
};
