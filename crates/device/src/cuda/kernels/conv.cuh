// What the convolution kernels share. A convolution is a product of matrices, for each group:
//
//   out[o, (b, y…)] = Σ_(i, t…) kernel[o, (i, t…)] · patches[(i, t…), (b, y…)]
//   patches[(i, t…), (b, y…)] = data[b, i, x…],   x = y·stride + t·dilation − low, and zero where x is outside the data
//
// The matrix of patches is never made: its elements are found where the data lies when a tile is brought to shared memory.
// That takes no division for an element, since the place splits in two sums: what the column (b, y…) adds and what the term
// (i, t…) adds, to the offset and to each coordinate x. Both are put down in shared memory, once for a column and once for a
// term and tile. The gradients are convolutions too: of the data (kernel turned round) with the same shapes, of the kernel
// with few columns and a long sum, which is cut into pieces as dots' sums are (batch.cuh).
//
// All parameters are 64 bits wide; all but addresses and the strides of groups fit into 30.
typedef long long i64;

#define AXIS_PARAMETERS(N)                                                                                               \
    i64 outputs_##N, i64 taps_##N, i64 size_##N, i64 stride_##N, i64 dilation_##N, i64 low_##N, i64 data_##N,            \
        i64 kernel_##N, i64 out_##N
#define AXIS_FIELDS(N)                                                                                                   \
    {(int)outputs_##N, (int)taps_##N, (int)size_##N, (int)stride_##N, (int)dilation_##N, (int)low_##N, (int)data_##N,    \
     (int)kernel_##N, (int)out_##N}
#define CONV_PARAMETERS                                                                                                  \
    const float *data, const float *kernel, float *out, i64 groups, i64 group_first, i64 rows, i64 columns, i64 terms,   \
        i64 piece_terms, i64 data_group, i64 kernel_group, i64 out_group, i64 data_batch, i64 data_channel,              \
        i64 kernel_row, i64 kernel_channel, i64 out_batch, i64 out_row, AXIS_PARAMETERS(0), AXIS_PARAMETERS(1),          \
        AXIS_PARAMETERS(2)
#define CONV_SHAPE                                                                                                       \
    {(int)rows, (int)columns, (int)data_batch, (int)data_channel, (int)kernel_row, (int)kernel_channel, (int)out_batch,  \
     (int)out_row, {AXIS_FIELDS(0), AXIS_FIELDS(1), AXIS_FIELDS(2)}}

struct Axis {
    int outputs, taps, size, stride, dilation, low, data, kernel, out;
};

struct Shape {
    int rows, columns, data_batch, data_channel, kernel_row, kernel_channel, out_batch, out_row;
    Axis axis[3];
};

// What a column or a term adds to the offset of an element and to its coordinates.
struct __align__(16) Place {
    int offset, x0, x1, x2;
};

// A first coordinate that nothing brings back inside; the offset in the kernel of a term that there is not.
const int OUTSIDE = -(1 << 30);

__device__ bool inside(const Shape &s, const Place &column, const Place &term) {
    return (unsigned)(column.x0 + term.x0) < (unsigned)s.axis[0].size && (unsigned)(column.x1 + term.x1) < (unsigned)s.axis[1].size &&
           (unsigned)(column.x2 + term.x2) < (unsigned)s.axis[2].size;
}

// The place of a column, and the offset of its result.
__device__ Place place_of_column(const Shape &s, int column, int &out) {
    int rest = column, y2 = rest % s.axis[2].outputs;
    rest /= s.axis[2].outputs;
    int y1 = rest % s.axis[1].outputs;
    rest /= s.axis[1].outputs;
    int y0 = rest % s.axis[0].outputs, batch = rest / s.axis[0].outputs;
    out = batch * s.out_batch + y0 * s.axis[0].out + y1 * s.axis[1].out + y2 * s.axis[2].out;
    if (column >= s.columns) return {0, OUTSIDE, 0, 0};
    int x0 = y0 * s.axis[0].stride - s.axis[0].low, x1 = y1 * s.axis[1].stride - s.axis[1].low;
    int x2 = y2 * s.axis[2].stride - s.axis[2].low;
    return {batch * s.data_batch + x0 * s.axis[0].data + x1 * s.axis[1].data + x2 * s.axis[2].data, x0, x1, x2};
}

// A term as channel and taps: a number in mixed radix, to which another is added without dividing.
struct Term {
    int channel, t0, t1, t2;
};

__device__ Term term_of(const Shape &s, int term) {
    int rest = term, t2 = rest % s.axis[2].taps;
    rest /= s.axis[2].taps;
    int t1 = rest % s.axis[1].taps;
    rest /= s.axis[1].taps;
    return {rest / s.axis[0].taps, rest % s.axis[0].taps, t1, t2};
}

__device__ int carry(int &digit, int more, int radix) {
    digit += more;
    if (digit < radix) return 0;
    digit -= radix;
    return 1;
}

__device__ void advance(const Shape &s, Term &term, const Term &by) {
    int over = carry(term.t2, by.t2, s.axis[2].taps);
    over = carry(term.t1, by.t1 + over, s.axis[1].taps);
    over = carry(term.t0, by.t0 + over, s.axis[0].taps);
    term.channel += by.channel + over;
}

__device__ Place place_of_term(const Shape &s, const Term &t) {
    int x0 = t.t0 * s.axis[0].dilation, x1 = t.t1 * s.axis[1].dilation, x2 = t.t2 * s.axis[2].dilation;
    return {t.channel * s.data_channel + x0 * s.axis[0].data + x1 * s.axis[1].data + x2 * s.axis[2].data, x0, x1, x2};
}

__device__ int kernel_offset(const Shape &s, const Term &t) {
    return t.channel * s.kernel_channel + t.t0 * s.axis[0].kernel + t.t1 * s.axis[1].kernel + t.t2 * s.axis[2].kernel;
}

// What is known of the columns of a tile and of the terms of some steps.
template <int COLUMNS, int TERMS, int STEPS> struct Tables {
    Place column[COLUMNS];
    Place term[STEPS][TERMS];
    int kernel[STEPS][TERMS];
    int out[COLUMNS];
};

// The way of one thread through the terms of all steps: of each step it puts down one.
template <int TERMS> struct Walk {
    Term term, by;
    int at, end;

    __device__ Walk(const Shape &s, int begin, int end) : at(begin + threadIdx.x), end(end) {
        term = term_of(s, at);
        by = term_of(s, TERMS);
    }

    template <int COLUMNS, int STEPS> __device__ void put(const Shape &s, Tables<COLUMNS, TERMS, STEPS> &tables, int step) {
        Place place = place_of_term(s, term);
        if (at >= end) place.x0 = OUTSIDE;
        tables.term[step % STEPS][threadIdx.x] = place;
        tables.kernel[step % STEPS][threadIdx.x] = at < end ? kernel_offset(s, term) : OUTSIDE;
        advance(s, term, by);
        at += TERMS;
    }
};

// The piece of work of this block: grid.x counts tiles, those of one column of tiles next to each other so that they find its
// patches in the cache; grid.y counts groups, grid.z pieces of the sum. Pieces are written as [piece, group, o, (b, y…)].
struct Task {
    const float *data, *kernel;
    float *out;
    int first_row, first_column, begin, end, out_row;
    bool whole;
};

template <int ROWS, int COLUMNS>
__device__ Task task(const float *data, const float *kernel, float *out, i64 groups, i64 group_first, int rows, int columns, int terms,
                     i64 piece_terms, i64 data_group, i64 kernel_group, i64 out_group, i64 out_row) {
    unsigned tile_rows = ((unsigned)rows + ROWS - 1) / ROWS;
    i64 group = group_first + blockIdx.y;
    Task t;
    t.whole = gridDim.z == 1;
    t.data = data + group * data_group;
    t.kernel = kernel + group * kernel_group;
    t.out = out + (t.whole ? group * out_group : (blockIdx.z * groups + group) * rows * columns);
    t.out_row = t.whole ? (int)out_row : columns;
    t.first_row = blockIdx.x % tile_rows * ROWS;
    t.first_column = blockIdx.x / tile_rows * COLUMNS;
    t.begin = (int)(blockIdx.z * piece_terms);
    t.end = (int)min((i64)terms, t.begin + piece_terms);
    return t;
}

#define CONV_TASK(ROWS, COLUMNS)                                                                                         \
    task<ROWS, COLUMNS>(data, kernel, out, groups, group_first, (int)rows, (int)columns, (int)terms, piece_terms,        \
                        data_group, kernel_group, out_group, out_row)

// Fill in the tables of a block, but the terms.
template <int COLUMNS, int TERMS, int STEPS>
__device__ void put_columns(const Shape &s, Tables<COLUMNS, TERMS, STEPS> &tables, const Task &t) {
    if (threadIdx.x >= COLUMNS) return;
    int column = t.first_column + threadIdx.x, out;
    tables.column[threadIdx.x] = place_of_column(s, column, out);
    tables.out[threadIdx.x] = t.whole ? out : column;
}
