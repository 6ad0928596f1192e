// Tiles of pixels, which walk over the active connections of a layer.
#pragma once

#include "vectors.h"

// By blocks of inputs, then by groups of outputs: connections ptr[b * outputs + o] to
// ptr[b * outputs + o + 1] have their inputs' places in off, and their `group` weights in val.
struct Taps {
    int64_t outputs, blocks, group;
    const int32_t* ptr;
    const int32_t* off;
    const float* val;

    int64_t count(int64_t output) const {
        int64_t found = 0;
        for (int64_t b = 0; b < blocks; ++b) found += ptr[b * outputs + output + 1] - ptr[b * outputs + output];
        return found;
    }
    // The first output of each part, so that all parts have about as many connections.
    std::vector<int64_t> cuts(int64_t parts) const {
        std::vector<int64_t> ends{0};
        const int64_t total = ptr[blocks * outputs] + outputs;
        int64_t seen = 0;
        for (int64_t o = 0; o < outputs; ++o) {
            seen += count(o) + 1;
            while (int64_t(ends.size()) < parts && seen * parts >= total * int64_t(ends.size()))
                ends.push_back(o + 1);
        }
        ends.resize(parts + 1, outputs);
        ends[parts] = outputs;
        return ends;
    }
};

// Where a tile's vectors lie, in floats.
struct Plan {
    int64_t blocks, rows, columns;
    int64_t in_block, in_row, in_start;
    int64_t out_block, out_plane, out_row, out_column, out_start;
};

struct Walk {
    const Taps* taps;
    const Plan* plan;
    const float* bias;
    const float* in;
    float* out;
    int64_t first, last;  // outputs; of spread_tile, blocks of inputs
    bool adds;  // to what is in out
};

// A tile of so many rows and columns of pixels, where its vectors begin, and what computes it.
struct Place {
    int64_t in, out, rows, columns;
    void (*tile)(const Walk&, const Place&);
};

using Tile = decltype(Place::tile);
enum Pass { FORWARD, WEIGHT, SPREAD };

// Columns and rows of a tile at most: others gain little, and each shape is compiled apart.
inline constexpr int64_t WIDEST = 8, TALLEST = 4;

// Pixels of a tile.
inline constexpr int pixels_of(Pass pass, int group) { return pass == WEIGHT && group == MAX_GROUP ? TILE : TILE / group; }

// What computes a tile, in tiles.cpp: of so many rows and columns, powers of two, for a group of channels, of pixels a step apart.
Tile tile_of(Pass pass, int64_t group, int64_t step, int64_t rows, int64_t columns);
