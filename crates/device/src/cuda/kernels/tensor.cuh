// What kernels on tensor cores share: asynchronous copies to shared memory, operands as TF32 or as the sum of two, and one step
// of eight terms on tiles in shared memory. Compute capability 8.0 and later.
//
// One TF32 operand keeps 10 bits of mantissa. Split in two it keeps the accuracy of f32: with x = h + l, h and l both TF32,
// l·h′ + h·l′ + h·h′ leaves out only l·l′ (Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores", IJHPCA
// 2022, without their correction of the accumulator's rounding).
const int DEPTH = 16, STAGES = 3, K_PITCH = 20, OUTER_PITCH = 136;

// How a tile lies in memory and so in shared memory: `ALONG_K` as [outer][K_PITCH], `ALONG_OUTER` as [term][OUTER_PITCH]. Both
// pitches let the lanes of a warp that load a fragment reach 32 different banks. `ANY` is stored like `ALONG_K`.
enum Layout { ALONG_K, ALONG_OUTER, ANY };

// Copy `bytes` of `SIZE` to shared memory and fill the rest with zero.
template <int SIZE> __device__ void copy(float *to, const float *from, int bytes) {
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    if (SIZE == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(bytes));
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

// One step of eight terms: fragments of HEIGHT × (16 × 8) and 4 × (8 × 8), and their products.
template <Layout LEFT, Layout RIGHT, bool SPLIT, int HEIGHT>
__device__ void step(float (&sum)[HEIGHT][4][4], const float *left, const float *right, int row, int column, int term) {
    int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    unsigned b_high[4][2], b_low[4][2];
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            split<SPLIT>(element<RIGHT>(right, column + 8 * j + group, term + quad + 4 * e), b_high[j][e], b_low[j][e]);
#pragma unroll
    for (int i = 0; i < HEIGHT; i++) {
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
