// What every product kernel shares: the operands, the walk over batches, tiles and pieces of the sum. Compiled to PTX at
// development time only; nothing here is read at run time.
//
//   out[b, i, j] = Σ_p left[b, i, p] · right[b, p, j]
//
// All parameters are 64 bits wide. Element strides may be anything, zero and negative included. Batches are counted over three
// axes (the last two of `batch_1` × `batch_2`; the first is what remains). With more than one piece each block sums only
// `k_piece` terms and writes [piece, batch, m, n]; `dot_sum` adds the pieces up, always in the same order.
typedef long long i64;

#define DOT_PARAMETERS(T)                                                                                                \
    const T *left, const T *right, T *out, i64 m, i64 n, i64 k, i64 left_row, i64 left_column, i64 right_row,            \
        i64 right_column, i64 batches, i64 batch_first, i64 batch_1, i64 batch_2, i64 left_0, i64 left_1, i64 left_2,     \
        i64 right_0, i64 right_1, i64 right_2, i64 k_piece

#define DOT_ARGUMENTS                                                                                                    \
    left, right, out, m, n, k, left_row, left_column, right_row, right_column, batches, batch_first, batch_1, batch_2,    \
        left_0, left_1, left_2, right_0, right_1, right_2, k_piece

template <typename T> struct Task {
    const T *left, *right;
    T *out;
    int first_row, first_column, k_begin, k_end;
};

// The piece of work of this block: grid.x counts tiles, grid.y batches, grid.z pieces of the sum. Tiles go in groups of eight
// rows, so that blocks that run together share both operands in the cache.
template <typename T, int ROWS, int COLUMNS> __device__ Task<T> task(DOT_PARAMETERS(T)) {
    unsigned tile_rows = ((unsigned)m + ROWS - 1) / ROWS, tile_columns = ((unsigned)n + COLUMNS - 1) / COLUMNS;
    unsigned group = blockIdx.x / (8 * tile_columns), within = blockIdx.x % (8 * tile_columns);
    unsigned height = min(8u, tile_rows - 8 * group);
    unsigned batch = (unsigned)batch_first + blockIdx.y;
    unsigned i2 = batch % (unsigned)batch_2, rest = batch / (unsigned)batch_2;
    unsigned i1 = rest % (unsigned)batch_1, i0 = rest / (unsigned)batch_1;
    Task<T> t;
    t.first_row = (8 * group + within % height) * ROWS;
    t.first_column = within / height * COLUMNS;
    t.left = left + i0 * left_0 + i1 * left_1 + i2 * left_2;
    t.right = right + i0 * right_0 + i1 * right_1 + i2 * right_2;
    t.out = out + ((i64)blockIdx.z * batches + batch) * m * n;
    t.k_begin = (int)(blockIdx.z * k_piece);
    t.k_end = (int)min(k, t.k_begin + k_piece);
    return t;
}
