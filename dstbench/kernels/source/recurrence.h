// One layer of a GRU over all time steps, in one or two directions.
//
// Sequences, the longest first, are computed in chunks, each for as many steps as its longest has, and packed as
// [row][feature][sequence]: a row for each step of a chunk, and one of zeros before the first chunk and after each,
// where the states before a chunk's first step are found in either direction.
// Gates are those of torch.nn.GRU, in its order: reset r, update z, new n.
#pragma once

#include "elementary.h"
#include "layer.h"

struct Direction {
    Layer input, recurrent;
    const float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
    float* gates;   // (rows, 3 units, width): r, z, n, kept for the gradient; null: not kept
    float* hidden;  // (rows, units, width): what the state contributes to n
    float *of_weight_ih, *of_weight_hh, *of_bias_ih, *of_bias_hh;
};

struct Sequences {
    int64_t count, time, chunks, vectors, features, units, directions;
    const int64_t* starts;  // (chunks + 1): the row of each chunk's first step, and the number of rows
    const int64_t* order;   // (count): which sequence is where
    const float* lengths;   // (chunks, width), in that order; 0 where there is none
    int64_t width() const { return vectors * LANES; }
    int64_t rows() const { return starts[chunks]; }
    int64_t size() const { return units * width(); }
    int64_t steps(int64_t chunk) const { return starts[chunk + 1] - starts[chunk] - 1; }
    // The row of a step, of the one before it for -1, in a direction.
    int64_t row(int64_t chunk, int64_t step, int64_t direction) const {
        return direction ? starts[chunk + 1] - 2 - step : starts[chunk] + step;
    }
    int64_t state(int64_t row, int64_t direction) const { return (row * directions + direction) * size(); }
    // Vectors of a row that have a sequence of as many steps: the first ones.
    int64_t present(int64_t chunk, int64_t row) const {
        int64_t found = vectors;
        while (found > 1 && lengths[chunk * width() + (found - 1) * LANES] <= row - starts[chunk]) --found;
        return found;
    }
    // Calls work(place of a vector of a state, whether its sequences have as many steps) for those of a row.
    template <typename Work>
    void each_vector(int64_t chunk, int64_t row, int64_t present, Work work) const {
        const float step = row - starts[chunk];
        const float* ends = lengths + chunk * width();
        for (int64_t u = 0; u < units; ++u)
            for (int64_t v = 0; v < present * LANES; v += LANES) work(u * width() + v, load(ends + v) > step);
    }
    // Lets the other vectors of so many features of a row be zero.
    void clear_absent(int64_t present, int64_t features, float* of_row) const {
        for (int64_t c = 0; c < features && present < vectors; ++c)
            std::memset(of_row + c * width() + present * LANES, 0, 4 * (vectors - present) * LANES);
    }
    // Of a vector in packed features, and of a sequence's step in padded ones.
    int64_t vector(int64_t row, int64_t feature, int64_t place) const {
        return (row * features + feature) * width() + place % width();
    }
    int64_t padded(int64_t place, int64_t step, int64_t feature) const {
        return (order[place] * time + step) * features + feature;
    }
    // Lets the rows of zeros, of so many floats each, be zero.
    void clear_borders(int64_t floats, float* rows) const {
        for (int64_t chunk = 0; chunk <= chunks; ++chunk) std::memset(rows + (starts[chunk] - 1) * floats, 0, 4 * floats);
    }
    // A product with `from` features for `to` of so many rows, and of all their vectors or the first ones.
    Plan plan(int64_t from, int64_t to, int64_t rows) const { return plan(from, to, rows, vectors); }
    Plan plan(int64_t from, int64_t to, int64_t rows, int64_t present) const {
        const int64_t w = width();
        return {1, rows, present, 0, from * w, 0, 0, w, to * w, LANES, 0};
    }
};

namespace {

// Steps in time, of a pass whose gates are not kept, whose inputs are multiplied together: the product
// is still in a cache when it is used.
constexpr int64_t SPAN = 8;

const float* values_of(int64_t threads, const Layer& layer, const float* weight) {
    if (layer.packed) return weight;
    float* values = arena.floats(layer.active());
    gather(threads, layer, weight, values);
    return values;
}

// The product with a state for one row, whose vectors of sequences become fewer, or more, from row to row.
struct Step {
    const Sequences& sequences;
    const Taps& taps;
    Plan plan{};
    std::vector<Place> tiles{};

    void multiply(int64_t present, const float* bias, const float* in, float* out) {
        if (plan.columns != present) {
            plan = sequences.plan(0, 0, 1, present);
            tiles = bands_of(FORWARD, plan, taps.group, 1)[0].places;
        }
        const Walk walk{&taps, &plan, bias, in, out, 0, taps.outputs, false};
        for (const Place& each : tiles) each.tile(walk, each);
    }
};

// Some steps of one direction of a chunk, whose gates (rows, 3 units, width) hold what its inputs contribute;
// where they are kept, what the states contribute to n is, too.
void recur(const Sequences& s, const Direction& d, const Taps& taps, int64_t chunk, int64_t direction, int64_t first,
           int64_t last, float* states, float* gates_of_rows, float* hidden_of_rows, float* scratch) {
    const int64_t size = s.size();
    Step product{s, taps};
    for (int64_t i = first; i < last; ++i) {
        const int64_t row = s.row(chunk, i, direction), present = s.present(chunk, row);
        const float* before = states + s.state(s.row(chunk, i - 1, direction), direction);
        product.multiply(present, d.bias_hh, before, scratch);
        float* gates = gates_of_rows + row * 3 * size;
        float* hidden = hidden_of_rows ? hidden_of_rows + row * size : nullptr;
        float* now = states + s.state(row, direction);
        s.clear_absent(present, s.units, now);
        s.each_vector(chunk, row, present, [&](int64_t j, ivec counts) {
            vec r = load(gates + j) + load(scratch + j), z = load(gates + size + j) + load(scratch + size + j);
            sigmoids(r, z);
            const vec h = load(scratch + 2 * size + j);
            const vec n = hyperbolic_tangent(load(gates + 2 * size + j) + r * h);
            const vec state = n + z * (load(before + j) - n);
            store(now + j, counts ? state : vec{});
            if (!hidden) return;
            store(gates + j, r);
            store(gates + size + j, z);
            store(gates + 2 * size + j, n);
            store(hidden + j, h);
        });
    }
}

// of_input and of_state: gradients of what inputs and states contribute to the gates, (rows, 3 units, width).
void recur_backward(const Sequences& s, const Direction& d, const Taps& taps, int64_t chunk, int64_t direction,
                    const float* states, const float* gradient, float* of_input, float* of_state, float* scratch) {
    const int64_t size = s.size();
    Step product{s, taps};
    float *through = scratch, *kept = scratch + size;
    std::memset(scratch, 0, 4 * 2 * size);
    for (int64_t i = s.steps(chunk) - 1; i >= 0; --i) {
        const int64_t row = s.row(chunk, i, direction), present = s.present(chunk, row);
        const float* before = states + s.state(s.row(chunk, i - 1, direction), direction);
        const float* gates = d.gates + row * 3 * size;
        const float* hidden = d.hidden + row * size;
        const float* given = gradient + s.state(row, direction);
        float* by_input = of_input + row * 3 * size;
        float* by_state = of_state + row * 3 * size;
        for (float* each : {by_input, by_state}) s.clear_absent(present, 3 * s.units, each);
        s.each_vector(chunk, row, present, [&](int64_t j, ivec counts) {
            const vec of_now = counts ? load(given + j) + load(through + j) + load(kept + j) : vec{};
            const vec r = load(gates + j), z = load(gates + size + j), n = load(gates + 2 * size + j);
            const vec new_gate = of_now * (1.f - z) * (1.f - n * n);
            const vec update = of_now * (load(before + j) - n) * z * (1.f - z);
            const vec reset = new_gate * load(hidden + j) * r * (1.f - r);
            store(kept + j, of_now * z);
            store(by_input + j, reset);
            store(by_input + size + j, update);
            store(by_input + 2 * size + j, new_gate);
            store(by_state + j, reset);
            store(by_state + size + j, update);
            store(by_state + 2 * size + j, new_gate * r);
        });
        product.multiply(present, nullptr, by_state, through);
    }
}

// Calls work(chunk, step, first place of a vector of sequences, how many of them have that step).
template <typename Work>
void each_step(int64_t threads, const Sequences& s, Work work) {
    const int64_t all = s.chunks * s.time;
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t i = share(all, part, parts); i < share(all, part + 1, parts); ++i)
            for (int64_t v = 0; v < s.width(); v += LANES) {
                const int64_t chunk = i / s.time, step = i % s.time, first = chunk * s.width() + v;
                int64_t having = 0;
                while (having < LANES && s.lengths[first + having] > step) ++having;
                work(chunk, step, first, having);
            }
    });
}

// Between padded sequences (count, time, features) and packed ones: what follows a sequence's end is not read, and
// written as zero.
void pack_sequences(int64_t threads, const Sequences& s, const float* sequences, float* packed) {
    s.clear_borders(s.features * s.width(), packed);
    each_step(threads, s, [&](int64_t chunk, int64_t step, int64_t first, int64_t having) {
        if (step >= s.steps(chunk)) return;
        vec r[LANES];
        for (int64_t c = 0; c < s.features; c += LANES) {
            const int64_t end = std::min<int64_t>(LANES, s.features - c);
            load_rows(r, [&](int64_t i) { return sequences + s.padded(first + i, step, c); }, having, end);
            transpose(r);
            for (int64_t k = 0; k < end; ++k) store(packed + s.vector(s.starts[chunk] + step, c + k, first), r[k]);
        }
    });
}

void unpack_sequences(int64_t threads, const Sequences& s, const float* packed, float* sequences) {
    each_step(threads, s, [&](int64_t chunk, int64_t step, int64_t first, int64_t having) {
        vec r[LANES];
        for (int64_t c = 0; c < s.features; c += LANES) {
            const int64_t end = std::min<int64_t>(LANES, s.features - c);
            for (int64_t k = 0; k < LANES; ++k)
                r[k] = having && k < end ? load(packed + s.vector(s.starts[chunk] + step, c + k, first)) : vec{};
            transpose(r);
            store_rows(r, [&](int64_t i) { return sequences + s.padded(first + i, step, c); }, s.count - first, end);
        }
    });
}

void sums_of_gates(const Sequences& s, const float* of_gates, float* out) {
    const int64_t w = s.width();
    for (int64_t u = 0; u < 3 * s.units; ++u) {
        vec all{};
        for (int64_t row = 0; row < s.rows(); ++row)
            for (int64_t v = 0; v < w; v += LANES) all += load(of_gates + (row * 3 * s.units + u) * w + v);
        out[u] = sum(all);
    }
}

}  // namespace
