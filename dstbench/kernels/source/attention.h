// Attention of the pixels of packed images to each other.
#pragma once

#include "elementary.h"
#include "layer.h"

struct Attention {
    int64_t heads, adds_images;  // adds_images: whether what is given is added to the result
    double scale;                // of the products of queries and keys
    // Of queries, keys, values, and the result.
    const Layer* layers[4];
    const float *weights[4], *biases[4];
    float *values[4], *of_weights[4], *of_biases[4];
    float* of_wholes[4];  // gradients of all weights, where wanted
    float* kept;          // for the gradient: attention_floats() of them, or null
};

namespace {

constexpr int64_t QUERIES = 8;  // whose products with all keys are in the cache at a time

// Vectors in rows and columns, which are so many floats apart.
struct Matrix {
    float* at;
    int64_t row, column;
};

template <int M, int N>
inline void product_tile(const float* a, const float* b, float* out, const Matrix& left, const Matrix& right,
                         const Matrix& to, int64_t depth, bool adds) {
    vec sums[M][N];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m][n] = adds ? load(out + m * to.row + n * to.column) : vec{};
    for (int64_t k = 0; k < depth; ++k, a += left.column, b += right.column) {
        vec held[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) held[n] = load(b + n * right.row);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
            vec v = load(a + m * left.row);
            keep(v);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) sums[m][n] += v * held[n];
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(out + m * to.row + n * to.column, sums[m][n]);
}

// Sums over k < depth of left[i][k] right[j][k], for rows i and columns j, put or added to `to`.
void product(const Matrix& left, const Matrix& right, const Matrix& to, int64_t rows, int64_t columns, int64_t depth,
             bool adds = false) {
    constexpr int M = TILE / 4, N = 4;
    const auto tiles = [&](int64_t i, auto m) {
        const float* a = left.at + i * left.row;
        int64_t j = 0;
        for (; j + N <= columns; j += N)
            product_tile<m, N>(a, right.at + j * right.row, to.at + i * to.row + j * to.column, left, right, to, depth, adds);
        for (; j < columns; ++j)
            product_tile<m, 1>(a, right.at + j * right.row, to.at + i * to.row + j * to.column, left, right, to, depth, adds);
    };
    int64_t i = 0;
    for (; i + M <= rows; i += M) tiles(i, std::integral_constant<int, M>{});
    for (; i < rows; ++i) tiles(i, std::integral_constant<int, 1>{});
}

// The gradient of all weights of a linear layer, (outputs, inputs), active or not.
void whole_gradient(int64_t threads, const Geometry& g, float* in, float* grad, float* of_weight) {
    constexpr int64_t SIDE = 4;
    const int64_t inputs = g.in.channels, pixels = g.in.rows * g.in.columns;
    parallel(threads, [&](int64_t part, int64_t parts) {
        float scratch[SIDE * SIDE * LANES];
        const Matrix sums{scratch, SIDE * LANES, LANES};
        const int64_t last = share(g.out.channels, part + 1, parts);
        for (int64_t o = share(g.out.channels, part, parts); o < last; o += SIDE)
            for (int64_t i = 0; i < inputs; i += SIDE) {
                const int64_t rows = std::min(SIDE, last - o), columns = std::min(SIDE, inputs - i);
                for (int64_t block = 0; block < g.in.blocks; ++block)
                    product({grad + block * g.out.block() + o * g.out.plane(), g.out.plane(), LANES},
                            {in + block * g.in.block() + i * g.in.plane(), g.in.plane(), LANES}, sums, rows, columns,
                            pixels, block > 0);
                for (int64_t m = 0; m < rows; ++m)
                    for (int64_t n = 0; n < columns; ++n)
                        of_weight[(o + m) * inputs + i + n] = sum(load(sums.at + m * sums.row + n * LANES));
            }
    });
}

// The channels of one head, in packed images.
struct Head {
    int64_t pixels, channels, plane;
    float scale;
    float *queries, *keys, *values, *result;
    float *largest, *inverse;  // by queries: the largest product with a key, and 1 / sum of the exponentials

    Matrix by_pixels(float* at, int64_t first = 0) const { return {at + first * LANES, LANES, plane}; }
    Matrix by_channels(float* at, int64_t first = 0) const { return {at + first * LANES, plane, LANES}; }
    // Products of a few queries with all keys; rows do not begin at the same place of a page.
    Matrix few(float* at) const { return {at, (pixels + 1) * LANES, LANES}; }
    int64_t few_floats() const { return QUERIES * (pixels + 1) * LANES; }
};

// Calls each(first, count) for a few queries at a time.
template <typename Each>
void by_queries(const Head& h, Each each) {
    for (int64_t first = 0; first < h.pixels; first += QUERIES) each(first, std::min(QUERIES, h.pixels - first));
}

void attend(const Head& h, float* scratch) {
    const Matrix weights = h.few(scratch);
    by_queries(h, [&](int64_t first, int64_t count) {
        product(h.by_pixels(h.queries, first), h.by_pixels(h.keys), weights, count, h.pixels, h.channels);
        for (int64_t i = 0; i < count; ++i) {
            float* row = weights.at + i * weights.row;
            vec most = load(row), total{};
            for (int64_t j = 1; j < h.pixels; ++j) {
                const vec v = load(row + j * LANES);
                most = v > most ? v : most;
            }
            for (int64_t j = 0; j < h.pixels; ++j) {
                const vec v = exponential((load(row + j * LANES) - most) * h.scale);
                store(row + j * LANES, v);
                total += v;
            }
            store(h.largest + (first + i) * LANES, most);
            store(h.inverse + (first + i) * LANES, 1.f / total);
        }
        const Matrix result = h.by_channels(h.result, first);
        product(h.by_channels(h.values), weights, result, h.channels, count, h.pixels);
        for (int64_t c = 0; c < h.channels; ++c)
            for (int64_t i = 0; i < count; ++i) {
                float* at = result.at + c * result.row + i * LANES;
                store(at, load(at) * load(h.inverse + (first + i) * LANES));
            }
    });
}

// Gradients of queries, keys and values, of that of the result; the other members of `of` are not read.
void attend_backward(const Head& h, const Head& of, float* scratch) {
    const Matrix weights = h.few(scratch), slopes = h.few(scratch + h.few_floats());
    by_queries(h, [&](int64_t first, int64_t count) {
        product(h.by_pixels(h.queries, first), h.by_pixels(h.keys), weights, count, h.pixels, h.channels);
        product(h.by_pixels(of.result, first), h.by_pixels(h.values), slopes, count, h.pixels, h.channels);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t query = (first + i) * LANES;
            vec shared{};
            for (int64_t c = 0; c < h.channels; ++c)
                shared += load(of.result + c * h.plane + query) * load(h.result + c * h.plane + query);
            const vec largest = load(h.largest + query), inverse = load(h.inverse + query);
            float *weight = weights.at + i * weights.row, *slope = slopes.at + i * slopes.row;
            for (int64_t j = 0; j < h.pixels * LANES; j += LANES) {
                const vec v = exponential((load(weight + j) - largest) * h.scale) * inverse;
                store(weight + j, v);
                store(slope + j, v * (load(slope + j) - shared) * h.scale);
            }
        }
        const auto turned = [](const Matrix& m) { return Matrix{m.at, m.column, m.row}; };
        product(h.by_channels(h.keys), slopes, h.by_channels(of.queries, first), h.channels, count, h.pixels);
        product(h.by_channels(h.queries, first), turned(slopes), h.by_channels(of.keys), h.channels, h.pixels, count, first > 0);
        product(h.by_channels(of.result, first), turned(weights), h.by_channels(of.values), h.channels, h.pixels, count, first > 0);
    });
}

// Where queries, keys, values and results of all heads lie, and what is known of each query.
struct Heads {
    const Attention& attention;
    Geometry before, after;  // of the projections to heads, and of that of the result
    float* at;

    int64_t statistics() const { return before.out.blocks * attention.heads * before.out.plane(); }
    int64_t floats() const { return 4 * before.out.size() + 2 * statistics(); }
    float* part(int64_t which) const { return at + which * before.out.size(); }
    Head head(int64_t i) const {
        const Packed& packed = before.out;
        const int64_t channels = packed.channels / attention.heads;
        const int64_t start = i * channels * packed.plane(), query = i * packed.plane();
        float* known = part(4) + query;
        return {packed.rows * packed.columns, channels, packed.plane(), float(attention.scale), part(0) + start,
                part(1) + start, part(2) + start, part(3) + start, known, known + statistics()};
    }
    // Calls work(head, scratch) for each.
    template <typename Work>
    void each(int64_t threads, Work work) const {
        const int64_t count = before.out.blocks * attention.heads, size = 2 * head(0).few_floats();
        float* scratch = arena.floats(threads * size);
        parallel(threads, [&](int64_t part, int64_t parts) {
            for (int64_t i = share(count, part, parts); i < share(count, part + 1, parts); ++i) work(i, scratch + part * size);
        });
    }
};

Heads heads_of(const Attention& attention, int64_t n, int64_t rows, int64_t columns, float* at) {
    const int64_t blocks = blocks_of(n, LANES);
    return {attention, geometry(*attention.layers[0], blocks, rows, columns),
            geometry(*attention.layers[3], blocks, rows, columns), at};
}

}  // namespace
