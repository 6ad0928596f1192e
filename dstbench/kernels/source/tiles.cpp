// The tiles themselves: one function for each group, step and shape.

#include "tiles.h"

namespace {

// Output vectors of a tile: G channels, RY rows, RX columns; inputs are STEP pixels apart. A sum waits for
// the one before it: few are kept in several parts, of every second, fourth or eighth connection.
template <int G, int RY, int RX, int STEP>
void forward_tile(const Walk& walk, const Place& place) {
    constexpr int PARTS = std::max(1, 8 / (G * RY * RX));
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
            vec acc[PARTS][G][RY][RX] = {};
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x)
                        acc[0][g][y][x] = b || walk.adds
                                              ? load(out + g * plan.out_plane + y * plan.out_row + x * plan.out_column)
                                              : splat(walk.bias ? walk.bias[o * G + g] : 0.f);
            const auto add = [&](int32_t j, vec(&to)[G][RY][RX]) __attribute__((always_inline)) {
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
                        for (int g = 0; g < G; ++g) to[g][y][x] += weight[g] * v;
                    }
            };
            int32_t j = begin;
            for (; j + PARTS <= end; j += PARTS)
#pragma GCC unroll 4
                for (int i = 0; i < PARTS; ++i) add(j + i, acc[i]);
            if constexpr (PARTS > 1)
                for (; j < end; ++j) add(j, acc[0]);
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
                for (int y = 0; y < RY; ++y)
#pragma GCC unroll 16
                    for (int x = 0; x < RX; ++x) {
                        vec all = acc[0][g][y][x];
#pragma GCC unroll 4
                        for (int i = 1; i < PARTS; ++i) all += acc[i][g][y][x];
                        store(out + g * plan.out_plane + y * plan.out_row + x * plan.out_column, all);
                    }
        }
}

// What is left where fewer sums than LANES are to be added.
inline void add_rest(vec* parts, int filled, float* to) {
    if (!filled) return;
    for (int i = filled; i < LANES; ++i) parts[i] = vec{};
    const vec rest = sums(parts);
    for (int i = 0; i < filled; ++i) to[i] += rest[i];
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
        add_rest(parts, filled, to);
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
        add_rest(parts, filled, to);
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
        default: return tile_of<G, STEP, PASS, RY, 8>();
    }
}
template <int G, int STEP, Pass PASS>
Tile tile_of(int64_t rows, int64_t columns) {
    switch (rows) {
        case 1: return tile_of<G, STEP, PASS, 1>(columns);
        case 2: return tile_of<G, STEP, PASS, 2>(columns);
        default: return tile_of<G, STEP, PASS, 4>(columns);
    }
}
template <Pass PASS>
Tile tile_of(int64_t group, int64_t step, int64_t rows, int64_t columns) {
    if (group == 4) return step == 1 ? tile_of<4, 1, PASS>(rows, columns) : tile_of<4, 2, PASS>(rows, columns);
    if constexpr (PASS == SPREAD) return nullptr;
    else if (group == 2) return step == 1 ? tile_of<2, 1, PASS>(rows, columns) : tile_of<2, 2, PASS>(rows, columns);
    else return step == 1 ? tile_of<1, 1, PASS>(rows, columns) : tile_of<1, 2, PASS>(rows, columns);
}

}  // namespace

Tile tile_of(Pass pass, int64_t group, int64_t step, int64_t rows, int64_t columns) {
    if (pass == FORWARD) return tile_of<FORWARD>(group, step, rows, columns);
    if (pass == WEIGHT) return tile_of<WEIGHT>(group, step, rows, columns);
    return tile_of<SPREAD>(group, step, rows, columns);
}
