// Activations with the batch innermost.
#pragma once

#include "vectors.h"

namespace {

// [blocks][channels][rows + top + bottom][columns + left + right][LANES], and a gap after each channel
struct Packed {
    int64_t blocks, channels, rows, columns, top, left, bottom, right, gap = 0;
    int64_t row() const { return (columns + left + right) * LANES; }
    int64_t plane() const { return (rows + top + bottom) * row() + gap; }
    int64_t block() const { return channels * plane(); }
    int64_t size() const { return blocks * block(); }
    int64_t start() const { return top * row() + left * LANES; }
};

// With channels that do not all begin at the same place of a page, where they would share few lines of a cache.
Packed spaced(Packed p) {
    constexpr int64_t page = 4096 / sizeof(float);
    if (p.plane() % page == 0) p.gap = LANES;
    return p;
}

void clear_border(const Packed& p, float* plane) {
    const int64_t row = p.row();
    std::memset(plane, 0, 4 * p.top * row);
    std::memset(plane + (p.top + p.rows) * row, 0, 4 * p.bottom * row);
    if (p.left || p.right)
        for (int64_t y = p.top; y < p.top + p.rows; ++y) {
            std::memset(plane + y * row, 0, 4 * p.left * LANES);
            std::memset(plane + (y + 1) * row - p.right * LANES, 0, 4 * p.right * LANES);
        }
}

// What becomes of LANES images' pixels of a channel, an image a vector, before they are packed or
// after they were: change(pixels, first image, channel, first pixel, pixels of an image).
struct AsTheyAre {
    void operator()(vec*, int64_t, int64_t, int64_t, int64_t) const {}
};

// images: (n, channels, rows, columns), contiguous.
template <typename Change = AsTheyAre>
void pack_images(int64_t threads, int64_t n, const Packed& p, const float* images, float* packed,
                 Change change = {}) {
    const int64_t pixels = p.rows * p.columns, planes = p.blocks * p.channels;
    parallel(threads, [&](int64_t part, int64_t parts) {
        vec r[LANES];
        for (int64_t i = share(planes, part, parts); i < share(planes, part + 1, parts); ++i) {
            const int64_t block = i / p.channels, channel = i % p.channels;
            const float* from = images + (block * LANES * p.channels + channel) * pixels;
            float* plane = packed + i * p.plane();
            clear_border(p, plane);
            float* inner = plane + p.start();
            int64_t y = 0, x = 0;
            for (int64_t at = 0; at < pixels; at += LANES) {
                load_rows(r, from + at, p.channels * pixels, n - block * LANES, pixels - at);
                change(r, block * LANES, channel, at, pixels - at);
                transpose(r);
                const int64_t end = std::min<int64_t>(LANES, pixels - at);
                if (p.columns % LANES == 0) {
                    float* to = inner + y * p.row() + x * LANES;
#pragma GCC unroll 16
                    for (int q = 0; q < LANES; ++q) store(to + q * LANES, r[q]);
                    if ((x += LANES) == p.columns) x = 0, ++y;
                    continue;
                }
                for (int64_t q = 0; q < end; ++q) {
                    store(inner + y * p.row() + x * LANES, r[q]);
                    if (++x == p.columns) x = 0, ++y;
                }
            }
        }
    });
}

// packed -> (n, channels, rows, columns)
void unpack_images(int64_t threads, int64_t n, const Packed& p, const float* packed, float* images) {
    const int64_t pixels = p.rows * p.columns, planes = p.blocks * p.channels;
    parallel(threads, [&](int64_t part, int64_t parts) {
        vec r[LANES];
        for (int64_t i = share(planes, part, parts); i < share(planes, part + 1, parts); ++i) {
            const int64_t block = i / p.channels, channel = i % p.channels;
            float* to = images + (block * LANES * p.channels + channel) * pixels;
            const float* inner = packed + i * p.plane() + p.start();
            int64_t y = 0, x = 0;
            for (int64_t at = 0; at < pixels; at += LANES) {
                const int64_t end = std::min<int64_t>(LANES, pixels - at);
                for (int64_t q = 0; q < LANES; ++q) {
                    r[q] = q < end ? load(inner + y * p.row() + x * LANES) : vec{};
                    if (++x == p.columns) x = 0, ++y;
                }
                transpose(r);
                store_rows(r, to + at, p.channels * pixels, n - block * LANES, end);
            }
        }
    });
}

// tokens: (n, channels), contiguous; a block holds columns * LANES of them.
void pack_tokens(int64_t threads, int64_t n, const Packed& p, const float* tokens, float* packed) {
    const int64_t vectors = p.blocks * p.columns;
    parallel(threads, [&](int64_t part, int64_t parts) {
        vec r[LANES];
        for (int64_t i = share(vectors, part, parts); i < share(vectors, part + 1, parts); ++i) {
            float* to = packed + i / p.columns * p.block() + i % p.columns * LANES;
            for (int64_t c = 0; c < p.channels; c += LANES) {
                const int64_t end = std::min<int64_t>(LANES, p.channels - c);
                load_rows(r, tokens + i * LANES * p.channels + c, p.channels, n - i * LANES, end);
                transpose(r);
                for (int64_t k = 0; k < end; ++k) store(to + (c + k) * p.plane(), r[k]);
            }
        }
    });
}

// A band of packed outputs, (channels, rows, columns, LANES) with planes so far apart, into images.
template <typename Change = AsTheyAre>
void band_to_images(int64_t n, const Packed& p, int64_t block, int64_t row, int64_t rows, int64_t first, int64_t last,
                    const float* band, int64_t plane, float* images, Change change = {}) {
    const int64_t pixels = p.rows * p.columns, count = rows * p.columns;
    vec r[LANES];
    for (int64_t c = first; c < last; ++c) {
        float* to = images + (block * LANES * p.channels + c) * pixels + row * p.columns;
        const float* from = band + c * plane;
        for (int64_t at = 0; at < count; at += LANES) {
            const int64_t end = std::min<int64_t>(LANES, count - at);
            for (int64_t q = 0; q < LANES; ++q) r[q] = q < end ? load(from + (at + q) * LANES) : vec{};
            transpose(r);
            change(r, block * LANES, c, row * p.columns + at, end);
            store_rows(r, to + at, p.channels * pixels, n - block * LANES, end);
        }
    }
}

// The same into tokens: a block is one row of columns.
void band_to_tokens(int64_t n, const Packed& p, int64_t block, int64_t first, int64_t last, const float* band,
                    float* tokens) {
    vec r[LANES];
    for (int64_t m = 0; m < p.columns; ++m) {
        const int64_t token = (block * p.columns + m) * LANES;
        if (token >= n) break;
        for (int64_t c = first; c < last; c += LANES) {
            const int64_t end = std::min<int64_t>(LANES, last - c);
            for (int64_t k = 0; k < LANES; ++k)
                r[k] = k < end ? load(band + ((c + k) * p.columns + m) * LANES) : vec{};
            transpose(r);
            store_rows(r, tokens + token * p.channels + c, p.channels, n - token, end);
        }
    }
}

void unpack_tokens(int64_t threads, int64_t n, const Packed& p, const float* packed, float* tokens) {
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t block = share(p.blocks, part, parts); block < share(p.blocks, part + 1, parts); ++block)
            band_to_tokens(n, p, block, 0, p.channels, packed + block * p.block(), tokens);
    });
}

}  // namespace
