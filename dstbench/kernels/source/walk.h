// The walk over the active connections of a layer: which tiles, in which order, by which thread.
#pragma once

#include "tiles.h"

namespace {

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

// Bands that cover all blocks of a plan, of a vector of pixels at least. Square tiles share more of their inputs
// than flat ones.
std::vector<Band> bands_of(Pass pass, const Plan& plan, int64_t group, int64_t step) {
    std::vector<Band> found;
    const int64_t most = pixels_of(pass, group), widest = power_of_two(std::min({most, WIDEST, plan.columns}));
    const int64_t height = power_of_two(std::min({most / widest, TALLEST, plan.rows}));
    const int64_t tallest = std::max(height, (LANES + plan.columns - 1) / plan.columns);
    for (int64_t block = 0; block < plan.blocks; ++block)
        for (int64_t top = 0; top < plan.rows; top += tallest) {
            const int64_t bottom = std::min(top + tallest, plan.rows);
            Band band{block, top, bottom - top, {}};
            for (int64_t y = top, rows; y < bottom; y += rows) {
                rows = power_of_two(std::min(height, bottom - y));
                for (int64_t x = 0, columns; x < plan.columns; x += columns) {
                    columns = std::min(power_of_two(std::min(most / rows, plan.columns - x)), widest);
                    band.places.push_back(
                        {block * plan.in_block + plan.in_start + y * step * plan.in_row + x * step * LANES,
                         block * plan.out_block + plan.out_start + y * plan.out_row + x * plan.out_column, rows, columns,
                         tile_of(pass, group, step, rows, columns)});
                }
            }
            found.push_back(band);
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
    share_out(threads, taps, bands_of(FORWARD, plan, taps.group, step),
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
    const std::vector<Band> bands = bands_of(FORWARD, plan, taps.group, step);
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
    const std::vector<Band> bands = bands_of(WEIGHT, plan, taps.group, step);
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

// Into packed inputs, which are zero: what each connection brings of the outputs' gradients. Blocks of
// images and of inputs are shared out.
void spread(int64_t threads, const Taps& taps, const Plan& plan, int64_t step, const float* grad, float* out) {
    const std::vector<Band> bands = bands_of(SPREAD, plan, taps.group, step);
    const int64_t all = plan.blocks * taps.blocks, of_block = bands.size() / plan.blocks;
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t i = share(all, part, parts); i < share(all, part + 1, parts); ++i) {
            const int64_t inputs = i % taps.blocks, first = i / taps.blocks * of_block;
            const Walk walk{&taps, &plan, grad, nullptr, out, inputs, inputs + 1, true};
            for (int64_t j = first; j < first + of_block; ++j)
                for (const Place& each : bands[j].places) each.tile(walk, each);
        }
    });
}

}  // namespace
