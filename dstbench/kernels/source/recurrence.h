// One layer of a GRU over all time steps, in one or two directions.
//
// Sequences are packed as [chunk][time][feature][sequence], the sequences of a chunk innermost.
// Gates are those of torch.nn.GRU, in its order: reset r, update z, new n.
#pragma once

#include "elementary.h"
#include "layer.h"

struct Direction {
    Layer input, recurrent;
    const float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
    float* gates;   // (chunks, time, 3 units, width): r, z, n, kept for the gradient; null: not kept
    float* hidden;  // (chunks, time, units, width): what the state contributes to n
    float *of_weight_ih, *of_weight_hh, *of_bias_ih, *of_bias_hh;
};

struct Sequences {
    int64_t chunks, time, vectors, features, units, directions;
    const float* valid;  // (chunks, time, width): 1 where a point counts, else 0; or null
    int64_t width() const { return vectors * LANES; }
    // The place of a step in time, and of the state before it.
    int64_t at(int64_t step, int64_t direction) const { return direction ? time - 1 - step : step; }
    int64_t state(int64_t chunk, int64_t t, int64_t direction) const {
        return ((chunk * time + t) * directions + direction) * units * width();
    }
    Packed features_of(int64_t channels) const { return {1, channels, 1, vectors, 0, 0, 0, 0}; }
    // Calls work(place of a vector of a state, place of its first sequence).
    template <typename Work>
    void each_vector(Work work) const {
        for (int64_t u = 0, j = 0; u < units; ++u)
            for (int64_t v = 0; v < width(); v += LANES, j += LANES) work(j, v);
    }
    // A product with `from` features for `to` of all time steps but the last `fewer`.
    Plan plan(int64_t from, int64_t to, int64_t fewer = 0) const { return plan_of(chunks, from, to, fewer); }
    Plan plan_of(int64_t blocks, int64_t from, int64_t to, int64_t fewer = 0) const {
        const int64_t w = width();
        return {blocks, time - fewer, vectors, time * from * w, from * w, 0, time * to * w, w, to * w, LANES, 0};
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

// Some steps of one direction of a chunk, whose gates (time, 3 units, width) hold what its inputs contribute;
// where they are kept, what the states contribute to n is, too.
void recur(const Sequences& s, const Direction& d, const Taps& taps, int64_t chunk, int64_t direction, int64_t first,
           int64_t last, float* states, float* gates_of_chunk, float* hidden_of_chunk, float* scratch) {
    const int64_t size = s.units * s.width();
    const Plan step{1, 1, s.vectors, 0, 0, 0, 0, s.width(), 0, LANES, 0};
    const std::vector<Place> tiles = bands_of(FORWARD, step, taps.group, 1)[0].places;
    float* zero = scratch + 3 * size;
    std::memset(zero, 0, 4 * size);
    const float* before = first ? states + s.state(chunk, s.at(first - 1, direction), direction) : zero;
    for (int64_t i = first; i < last; ++i) {
        const int64_t t = s.at(i, direction);
        const Walk walk{&taps, &step, d.bias_hh, before, scratch, 0, taps.outputs, false};
        for (const Place& each : tiles) each.tile(walk, each);
        float* gates = gates_of_chunk + t * 3 * size;
        float* hidden = hidden_of_chunk ? hidden_of_chunk + t * size : nullptr;
        float* now = states + s.state(chunk, t, direction);
        s.each_vector([&](int64_t j, int64_t v) {
            vec r = load(gates + j) + load(scratch + j), z = load(gates + size + j) + load(scratch + size + j);
            sigmoids(r, z);
            const vec h = load(scratch + 2 * size + j);
            const vec n = hyperbolic_tangent(load(gates + 2 * size + j) + r * h);
            vec state = n + z * (load(before + j) - n);
            if (s.valid) state *= load(s.valid + (chunk * s.time + t) * s.width() + v);
            store(now + j, state);
            if (!hidden) return;
            store(gates + j, r);
            store(gates + size + j, z);
            store(gates + 2 * size + j, n);
            store(hidden + j, h);
        });
        before = now;
    }
}

// of_input and of_state: gradients of what inputs and states contribute to the gates,
// (chunks, time, 3 units, width).
void recur_backward(const Sequences& s, const Direction& d, const Taps& taps, int64_t chunk, int64_t direction,
                    const float* states, const float* gradient, float* of_input, float* of_state, float* scratch) {
    const int64_t size = s.units * s.width();
    const Plan step{1, 1, s.vectors, 0, 0, 0, 0, s.width(), 0, LANES, 0};
    const std::vector<Place> tiles = bands_of(FORWARD, step, taps.group, 1)[0].places;
    float *through = scratch, *kept = scratch + size, *zero = scratch + 2 * size;
    std::memset(scratch, 0, 4 * 3 * size);
    for (int64_t i = s.time - 1; i >= 0; --i) {
        const int64_t t = s.at(i, direction);
        const float* before = i ? states + s.state(chunk, s.at(i - 1, direction), direction) : zero;
        const float* gates = d.gates + (chunk * s.time + t) * 3 * size;
        const float* hidden = d.hidden + (chunk * s.time + t) * size;
        const float* given = gradient + s.state(chunk, t, direction);
        float* by_input = of_input + (chunk * s.time + t) * 3 * size;
        float* by_state = of_state + (chunk * s.time + t) * 3 * size;
        s.each_vector([&](int64_t j, int64_t v) {
            vec of_now = load(given + j) + load(through + j) + load(kept + j);
            if (s.valid) of_now *= load(s.valid + (chunk * s.time + t) * s.width() + v);
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
        const Walk walk{&taps, &step, nullptr, by_state, through, 0, taps.outputs, false};
        for (const Place& each : tiles) each.tile(walk, each);
    }
}

// Between sequences (n, time, features) and packed ones; the sequences of the last chunk that are
// not there are zero.
void pack_sequences(int64_t threads, const Sequences& s, int64_t n, const float* sequences, float* packed) {
    const int64_t steps = s.chunks * s.time, w = s.width(), row = s.time * s.features;
    parallel(threads, [&](int64_t part, int64_t parts) {
        vec r[LANES];
        for (int64_t i = share(steps, part, parts); i < share(steps, part + 1, parts); ++i)
            for (int64_t v = 0; v < w; v += LANES) {
                const int64_t first = i / s.time * w + v;
                const float* from = sequences + first * row + i % s.time * s.features;
                for (int64_t c = 0; c < s.features; c += LANES) {
                    const int64_t end = std::min<int64_t>(LANES, s.features - c);
                    load_rows(r, from + c, row, n - first, end);
                    transpose(r);
                    for (int64_t k = 0; k < end; ++k) store(packed + (i * s.features + c + k) * w + v, r[k]);
                }
            }
    });
}

void unpack_sequences(int64_t threads, const Sequences& s, int64_t n, const float* packed, float* sequences) {
    const int64_t steps = s.chunks * s.time, w = s.width(), row = s.time * s.features;
    parallel(threads, [&](int64_t part, int64_t parts) {
        vec r[LANES];
        for (int64_t i = share(steps, part, parts); i < share(steps, part + 1, parts); ++i)
            for (int64_t v = 0; v < w; v += LANES) {
                const int64_t first = i / s.time * w + v;
                if (first >= n) break;
                float* to = sequences + first * row + i % s.time * s.features;
                for (int64_t c = 0; c < s.features; c += LANES) {
                    const int64_t end = std::min<int64_t>(LANES, s.features - c);
                    for (int64_t k = 0; k < LANES; ++k)
                        r[k] = k < end ? load(packed + (i * s.features + c + k) * w + v) : vec{};
                    transpose(r);
                    store_rows(r, to + c, row, n - first, end);
                }
            }
    });
}

void sums_of_gates(const Sequences& s, const float* of_gates, float* out) {
    const int64_t w = s.width();
    for (int64_t u = 0; u < 3 * s.units; ++u) {
        vec all{};
        for (int64_t i = 0; i < s.chunks * s.time; ++i)
            for (int64_t v = 0; v < w; v += LANES) all += load(of_gates + (i * 3 * s.units + u) * w + v);
        out[u] = sum(all);
    }
}

}  // namespace
