// The walk of output tiles over the active connections of a layer.
#pragma once

#include "packed.h"

namespace {

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

// Output vectors of a tile: G channels, RY rows, RX columns; inputs are STEP pixels apart.
template <int G, int RY, int RX, int STEP>
void forward_tile(const Walk& walk, const Place& place) {
    const Taps& taps = *walk.taps;
    const Plan& plan = *walk.plan;
    const float* base = walk.in + place.in;
    const int64_t in_row = plan.in_row * STEP;
    for (int64_t b = 0; b < taps.blocks; ++b)
        for (int64_t o = walk.first; o < walk.last; ++o) {
            const int32_t* bounds = taps.ptr + b * taps.outputs + o;
            const int32_t begin = bounds[0], end = bounds[1];
            if (begin == end && (b || walk.adds)) continue;
            float* out = walk.out + place.out + o * G * plan.out_plane;
            vec acc[G][RY][RX];
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x)
                        acc[g][y][x] = b || walk.adds
                                           ? load(out + g * plan.out_plane + y * plan.out_row + x * plan.out_column)
                                           : splat(walk.bias ? walk.bias[o * G + g] : 0.f);
            for (int32_t j = begin; j < end; ++j) {
                const float* p = base + taps.off[j];
                const float* w = taps.val + int64_t(j) * G;
                vec weight[G];
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) weight[g] = splat(w[g]);
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x) {
                        vec v = load(p + y * in_row + x * STEP * LANES);
                        if constexpr (G > 1) keep(v);
#pragma GCC unroll 4
                        for (int g = 0; g < G; ++g) acc[g][y][x] += weight[g] * v;
                    }
            }
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x)
                        store(out + g * plan.out_plane + y * plan.out_row + x * plan.out_column, acc[g][y][x]);
        }
}

// The same walk with the outputs' gradients in registers, which walk.bias holds: sums of their
// products with the inputs, of each connection, are added to walk.out (connections x G).
template <int G, int RY, int RX, int STEP>
void weight_tile(const Walk& walk, const Place& place) {
    const Taps& taps = *walk.taps;
    const Plan& plan = *walk.plan;
    const float* base = walk.in + place.in;
    const int64_t in_row = plan.in_row * STEP;
    for (int64_t b = 0; b < taps.blocks; ++b) {
        float* to = walk.out + int64_t(taps.ptr[b * taps.outputs + walk.first]) * G;
        vec parts[LANES];
        int filled = 0;
        for (int64_t o = walk.first; o < walk.last; ++o) {
            const int32_t* bounds = taps.ptr + b * taps.outputs + o;
            if (bounds[0] == bounds[1]) continue;
            const float* from = walk.bias + place.out + o * G * plan.out_plane;
            vec grad[G][RY][RX];
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x)
                        grad[g][y][x] = load(from + g * plan.out_plane + y * plan.out_row + x * plan.out_column);
            for (int32_t j = bounds[0]; j < bounds[1]; ++j) {
                const float* p = base + taps.off[j];
                vec even[G], odd[G];
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) even[g] = odd[g] = vec{};
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x) {
                        vec v = load(p + y * in_row + x * STEP * LANES);
                        if constexpr (G > 1) keep(v);
#pragma GCC unroll 4
                        for (int g = 0; g < G; ++g)
                            if ((y * RX + x) % 2) odd[g] += grad[g][y][x] * v;
                            else even[g] += grad[g][y][x] * v;
                    }
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) parts[filled + g] = even[g] + odd[g];
                filled += G;
                if (filled == LANES) {
                    store(to, load(to) + sums(parts));
                    to += LANES;
                    filled = 0;
                }
            }
        }
        if (filled) {
            for (int i = filled; i < LANES; ++i) parts[i] = vec{};
            const vec rest = sums(parts);
            for (int i = 0; i < filled; ++i) to[i] += rest[i];
        }
    }
}

// Four channels share their connections: sums of C connections side by side, each with all four
// channels, stay in registers over all pixels of a tile.
template <int C, int PIXELS, int STEP>
inline void products(const Plan& plan, const Place& place, const float* in, const int32_t* off, const float* grad,
                     vec* parts) {
    constexpr int G = MAX_GROUP;
    vec total[C][G] = {};
    for (int64_t y = 0; y < place.rows; ++y)
        for (int64_t x = 0; x < place.columns; x += PIXELS) {
            const float* from = grad + y * plan.out_row + x * plan.out_column;
            const float* to = in + (y * plan.in_row + x * LANES) * STEP;
            vec held[G][PIXELS];
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 2
                for (int i = 0; i < PIXELS; ++i) {
                    held[g][i] = load(from + g * plan.out_plane + i * plan.out_column);
                    keep(held[g][i]);
                }
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c)
#pragma GCC unroll 2
                for (int i = 0; i < PIXELS; ++i) {
                    vec v = load(to + off[c] + i * STEP * LANES);
                    keep(v);
#pragma GCC unroll 4
                    for (int g = 0; g < G; ++g) total[c][g] += held[g][i] * v;
                }
        }
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) parts[c * G + g] = total[c][g];
}

template <int PIXELS, int STEP>
void grouped_weight_tile(const Walk& walk, const Place& place) {
    constexpr int G = MAX_GROUP, C = TILE / G;
    const Taps& taps = *walk.taps;
    const float* base = walk.in + place.in;
    for (int64_t b = 0; b < taps.blocks; ++b) {
        float* to = walk.out + int64_t(taps.ptr[b * taps.outputs + walk.first]) * G;
        vec parts[LANES + TILE];
        int filled = 0;
        const auto add_up = [&] {
            for (; filled >= LANES; filled -= LANES, to += LANES) {
                store(to, load(to) + sums(parts));
                std::copy(parts + LANES, parts + filled, parts);
            }
        };
        for (int64_t o = walk.first; o < walk.last; ++o) {
            const int32_t* bounds = taps.ptr + b * taps.outputs + o;
            const float* grad = walk.bias + place.out + o * G * walk.plan->out_plane;
            int32_t j = bounds[0];
            for (; j + C <= bounds[1]; j += C) {
                products<C, PIXELS, STEP>(*walk.plan, place, base, taps.off + j, grad, parts + filled);
                filled += C * G;
                add_up();
            }
            for (; j < bounds[1]; ++j) {
                products<1, PIXELS, STEP>(*walk.plan, place, base, taps.off + j, grad, parts + filled);
                filled += G;
                add_up();
            }
        }
        if (filled) {
            for (int i = filled; i < LANES; ++i) parts[i] = vec{};
            const vec rest = sums(parts);
            for (int i = 0; i < filled; ++i) to[i] += rest[i];
        }
    }
}

// The way back: four channels' gradients stay in registers, which walk.bias holds, and each of the
// connections that they share adds to walk.out what they give to its inputs.
template <int RY, int RX, int STEP>
void spread_tile(const Walk& walk, const Place& place) {
    constexpr int G = MAX_GROUP;
    const Taps& taps = *walk.taps;
    const Plan& plan = *walk.plan;
    for (int64_t b = walk.first; b < walk.last; ++b)
        for (int64_t o = 0; o < taps.outputs; ++o) {
            const int32_t* bounds = taps.ptr + b * taps.outputs + o;
            if (bounds[0] == bounds[1]) continue;
            const float* from = walk.bias + place.out + o * G * plan.out_plane;
            vec grad[G][RY][RX];
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 4
                    for (int x = 0; x < RX; ++x) {
                        grad[g][y][x] = load(from + g * plan.out_plane + y * plan.out_row + x * plan.out_column);
                        keep(grad[g][y][x]);
                    }
            for (int32_t j = bounds[0]; j < bounds[1]; ++j) {
                float* to = walk.out + place.in + taps.off[j];
                const float* w = taps.val + int64_t(j) * G;
                vec weight[G];
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) weight[g] = splat(w[g]);
#pragma GCC unroll 4
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 4
                    for (int x = 0; x < RX; ++x) {
                        float* at = to + (y * plan.in_row + x * LANES) * STEP;
                        vec total = load(at);
#pragma GCC unroll 4
                        for (int g = 0; g < G; ++g) total += weight[g] * grad[g][y][x];
                        store(at, total);
                    }
            }
        }
}

using Tile = decltype(Place::tile);
enum Pass { FORWARD, WEIGHT, SPREAD };

// Pixels of a tile.
constexpr int pixels_of(Pass pass, int group) { return pass == WEIGHT && group == MAX_GROUP ? TILE : TILE / group; }

template <int G, int STEP, Pass PASS, int RY, int RX>
constexpr Tile tile_of() {
    if constexpr (RY * RX > pixels_of(PASS, G)) return nullptr;
    else if constexpr (PASS == FORWARD) return forward_tile<G, RY, RX, STEP>;
    else if constexpr (PASS == SPREAD) return spread_tile<RY, RX, STEP>;
    else if constexpr (G == MAX_GROUP) return grouped_weight_tile<std::min(RX, TILE / 8), STEP>;
    else return weight_tile<G, RY, RX, STEP>;
}
template <int G, int STEP, Pass PASS, int RY>
Tile tile_of(int64_t columns) {
    switch (columns) {
        case 1: return tile_of<G, STEP, PASS, RY, 1>();
        case 2: return tile_of<G, STEP, PASS, RY, 2>();
        case 4: return tile_of<G, STEP, PASS, RY, 4>();
        case 8: return tile_of<G, STEP, PASS, RY, 8>();
        default: return tile_of<G, STEP, PASS, RY, 16>();
    }
}
template <int G, int STEP, Pass PASS>
Tile tile_of(int64_t rows, int64_t columns) {
    switch (rows) {
        case 1: return tile_of<G, STEP, PASS, 1>(columns);
        case 2: return tile_of<G, STEP, PASS, 2>(columns);
        case 4: return tile_of<G, STEP, PASS, 4>(columns);
        case 8: return tile_of<G, STEP, PASS, 8>(columns);
        default: return tile_of<G, STEP, PASS, 16>(columns);
    }
}
template <Pass PASS>
Tile tile_of(int64_t group, int64_t step, int64_t rows, int64_t columns) {
    if (group == 4) return step == 1 ? tile_of<4, 1, PASS>(rows, columns) : tile_of<4, 2, PASS>(rows, columns);
    if constexpr (PASS == SPREAD) return nullptr;
    else if (group == 2) return step == 1 ? tile_of<2, 1, PASS>(rows, columns) : tile_of<2, 2, PASS>(rows, columns);
    else return step == 1 ? tile_of<1, 1, PASS>(rows, columns) : tile_of<1, 2, PASS>(rows, columns);
}

// Rows of a block that are computed together, in tiles side by side.
struct Band {
    int64_t block, row, rows;
    std::vector<Place> places;
};

int64_t power_of_two(int64_t most) {
    int64_t found = 1;
    while (2 * found <= most) found *= 2;
    return found;
}

// Bands that cover all blocks of a plan. Square tiles share more of their inputs than flat ones.
template <Pass PASS>
std::vector<Band> bands_of(const Plan& plan, int64_t group, int64_t step) {
    std::vector<Band> found;
    const int64_t most = pixels_of(PASS, group), widest = power_of_two(std::min({most, int64_t(WIDE), plan.columns}));
    const int64_t height = power_of_two(std::min(most / widest, plan.rows));
    for (int64_t block = 0; block < plan.blocks; ++block)
        for (int64_t y = 0; y < plan.rows;) {
            const int64_t rows = power_of_two(std::min(height, plan.rows - y));
            Band band{block, y, rows, {}};
            for (int64_t x = 0; x < plan.columns;) {
                const int64_t width = power_of_two(std::min(most / rows, plan.columns - x));
                const int64_t columns = std::min(width, widest);
                band.places.push_back(
                    {block * plan.in_block + plan.in_start + y * step * plan.in_row + x * step * LANES,
                     block * plan.out_block + plan.out_start + y * plan.out_row + x * plan.out_column, rows, columns,
                     tile_of<PASS>(group, step, rows, columns)});
                x += columns;
            }
            found.push_back(band);
            y += rows;
        }
    return found;
}

// Calls work(band, first output, last output) for all bands and outputs, in parts that cost alike.
template <typename Work>
void share_out(int64_t threads, const Taps& taps, const std::vector<Band>& bands, Work work) {
    const int64_t count = bands.size();
    const bool by_bands = count % threads == 0 || count >= 8 * threads;
    const std::vector<int64_t> cuts = taps.cuts(by_bands ? 1 : threads);
    parallel(threads, [&](int64_t part, int64_t parts) {
        if (by_bands)
            for (int64_t i = share(count, part, parts); i < share(count, part + 1, parts); ++i)
                work(part, bands[i], 0, taps.outputs);
        else
            for (int64_t cut = part; cut < threads; cut += parts)
                for (const Band& band : bands) work(part, band, cuts[cut], cuts[cut + 1]);
    });
}

// Into packed outputs.
void multiply(int64_t threads, const Taps& taps, const Plan& plan, int64_t step, const float* bias, const float* in,
              float* out, bool adds = false) {
    share_out(threads, taps, bands_of<FORWARD>(plan, taps.group, step),
              [&](int64_t, const Band& band, int64_t first, int64_t last) {
                  const Walk walk{&taps, &plan, bias, in, out, first, last, adds};
                  for (const Place& each : band.places) each.tile(walk, each);
              });
}

// Band by band, each handed to finish(band, first, last, outputs): (channels, rows, columns, LANES).
template <typename Finish>
void multiply_bands(int64_t threads, const Taps& taps, Plan plan, int64_t step, const float* bias, const float* in,
                    Finish finish) {
    plan.out_block = plan.out_start = 0;
    plan.out_row = plan.columns * LANES;
    plan.out_column = LANES;
    const std::vector<Band> bands = bands_of<FORWARD>(plan, taps.group, step);
    if (bands.empty()) return;
    plan.out_plane = bands[0].rows * plan.out_row;
    const int64_t size = taps.outputs * taps.group * plan.out_plane;
    float* scratch = arena.floats(threads * size);
    share_out(threads, taps, bands, [&](int64_t part, const Band& band, int64_t first, int64_t last) {
        float* out = scratch + part * size;
        const Walk walk{&taps, &plan, bias, in, out, first, last, false};
        for (Place each : band.places) {
            each.out -= band.row * plan.out_row;
            each.tile(walk, each);
        }
        finish(band, first * taps.group, last * taps.group, out, plan.out_plane);
    });
}

// Sums of in times grad over all positions, per connection: (connections, group).
void correlate(int64_t threads, const Taps& taps, const Plan& plan, int64_t step, const float* grad, const float* in,
               float* sums) {
    const std::vector<Band> bands = bands_of<WEIGHT>(plan, taps.group, step);
    const std::vector<int64_t> cuts = taps.cuts(threads);
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t cut = part; cut < threads; cut += parts) {
            const Walk walk{&taps, &plan, grad, in, sums, cuts[cut], cuts[cut + 1], true};
            for (int64_t b = 0; b < taps.blocks; ++b) {
                const int32_t* ptr = taps.ptr + b * taps.outputs;
                std::memset(sums + int64_t(ptr[walk.first]) * taps.group, 0,
                            4 * int64_t(ptr[walk.last] - ptr[walk.first]) * taps.group);
            }
            for (const Band& band : bands)
                for (const Place& each : band.places) each.tile(walk, each);
        }
    });
}

// Into packed inputs, which are zero: what each connection brings of the outputs' gradients. Blocks
// of inputs are shared out.
void spread(int64_t threads, const Taps& taps, const Plan& plan, int64_t step, const float* grad, float* out) {
    const std::vector<Band> bands = bands_of<SPREAD>(plan, taps.group, step);
    parallel(threads, [&](int64_t part, int64_t parts) {
        const Walk walk{&taps, &plan, grad, nullptr, out, share(taps.blocks, part, parts),
                        share(taps.blocks, part + 1, parts), true};
        for (const Band& band : bands)
            for (const Place& each : band.places) each.tile(walk, each);
    });
}

}  // namespace
