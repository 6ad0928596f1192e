// Layers whose weights are mostly zero: what is computed is what the active weights ask for.
//
// Activations are packed with the batch innermost: [block][channel][row][column][LANES], where a
// block is LANES images and a vector is one pixel of all of them, so that each tap of a kernel is
// an aligned offset, and a border of zeros needs no branch. A linear layer is a 1 x 1 convolution
// over tokens, LANES x columns of them to a block.
//
// A tile of output pixels stays in registers while an output channel walks over its active
// connections: one weight, as many multiply-adds as the tile has vectors. Connections are walked in
// blocks of input channels whose rows stay in the first-level cache. Where neighbouring output
// channels share their mask ("group"), each vector that is read serves all of them.
//
// A layer's weight is given whole, or packed: the values of its active connections alone, in the
// order in which the forward pass walks them. So is the gradient that is computed for it.
//
// The order in which sums are taken does not depend on the number of threads.

#include "attention.h"
#include "largest.h"
#include "layer.h"
#include "normalization.h"
#include "recurrence.h"

extern "C" {

int64_t lanes() { return LANES; }

// The largest number of neighbouring output channels, of 4, 2 and 1, that share their masks.
int64_t shared_group(int64_t outputs, int64_t fan_in, const uint8_t* mask) {
    for (int64_t group = MAX_GROUP; group > 1; group /= 2) {
        if (outputs % group) continue;
        bool same = true;
        for (int64_t o = 0; o < outputs && same; ++o)
            if (o % group) same = !std::memcmp(mask + o * fan_in, mask + (o - 1) * fan_in, fan_in);
        if (same) return group;
    }
    return 1;
}

// Writes the places of a mask's bytes that are 1, of those from begin to end; how many.
static int32_t places_of(const uint8_t* mask, int64_t begin, int64_t end, int32_t* at) {
    int32_t found = 0;
    int64_t i = begin;
    for (; i + 64 <= end; i += 64) {
        uint64_t bits = 0;
        for (int j = 0; j < 64; j += 8) bits |= bits_of(mask + i + j) << j;
        for (; bits; bits &= bits - 1) at[found++] = i + __builtin_ctzll(bits);
    }
    for (; i < end; ++i)
        if (mask[i]) at[found++] = i;
    return found;
}

void index_forward(const Layer* layer, const uint8_t* mask, int32_t* ptr, int32_t* at) {
    const int64_t taps = layer->kernel_rows * layer->kernel_columns, fan_in = layer->inputs * taps;
    const int64_t groups = layer->outputs / layer->group, span = layer->input_block * taps;
    int32_t found = 0;
    *ptr++ = 0;
    for (int64_t begin = 0; begin < fan_in; begin += span)
        for (int64_t o = 0; o < groups; ++o) {
            const int64_t row = o * layer->group * fan_in;
            found += places_of(mask, row + begin, row + std::min(begin + span, fan_in), at + found);
            *ptr++ = found;
        }
}

// What backward_at holds follows from the forward index.
void index_backward(const Layer* given, int32_t* ptr, int32_t* at) {
    arena.reset();
    const Layer& layer = *given;
    const int64_t fan_in = layer.fan_in(), group = layer.group, count = layer.output_blocks() * layer.inputs;
    // By outputs: where each connection's input is among the blocks' inputs, and its value.
    int32_t *inputs = arena.ints(layer.active()), *values = arena.ints(layer.active());
    int64_t found = 0;
    std::memset(ptr, 0, 4 * (count + 1));
    with_taps(layer.taps(), [&](auto taps) {
        for (int64_t output = 0; output < layer.outputs; ++output) {
            const int64_t o = output / group, g = output % group, row = o * group * fan_in;
            const int32_t start = output / layer.output_block * layer.inputs;
            by_rows(layer, o, o + 1, [&](int64_t j, int64_t place) {
                const int32_t i = start + uint32_t(place - row) / taps;
                ++ptr[i + 1];
                inputs[found] = i;
                values[found++] = j * group + g;
            });
        }
    });
    for (int64_t i = 0; i < count; ++i) ptr[i + 1] += ptr[i];
    std::vector<int32_t> next(ptr, ptr + count);
    for (int64_t k = 0; k < found; ++k) at[next[inputs[k]]++] = values[k];
}

// Images, packed; normalized and through SiLU where there is a norm.
static float* packed_images(int64_t threads, int64_t n, const Packed& p, const Norm* norm, const float* images) {
    float* packed = arena.floats(p.size());
    if (norm) pack_normalized(threads, n, p, *norm, images, packed);
    else pack_images(threads, n, p, images, packed);
    return packed;
}

// Adds `plus` to images that are stored, which has their size, or one value for each image and channel; or null.
static auto adding(const float* plus, int64_t plus_pixels, int64_t n, int64_t channels) {
    return [=](vec* r, int64_t image, int64_t channel, int64_t at, int64_t count) {
        if (!plus) return;
        const float* from = plus + (image * channels + channel) * plus_pixels;
        for (int64_t i = 0; i < std::min<int64_t>(LANES, n - image); ++i, from += channels * plus_pixels)
            r[i] += plus_pixels == 1 ? splat(*from) : load(from + at, count);
    };
}

void convolve(const Layer* layer, int64_t threads, int64_t n, int64_t rows, int64_t columns, const Norm* norm,
              const float* plus, int64_t plus_pixels, const float* images, const float* weight, const float* bias,
              float* values, float* out) {
    arena.reset();
    const Geometry g = geometry(*layer, blocks_of(n, LANES), rows, columns);
    if (norm) find_statistics(threads, n, layer->inputs, rows * columns, *norm, images);
    const float* packed = packed_images(threads, n, g.in, norm, images);
    if (!layer->packed) gather(threads, *layer, weight, values);
    const auto add = adding(plus, plus_pixels, n, layer->outputs);
    forward(threads, *layer, g, values, bias, packed,
            [&](const Band& band, int64_t first, int64_t last, const float* done, int64_t plane) {
                band_to_images(n, g.out, band.block, band.row, band.rows, first, last, done, plane, out, add);
            });
}

void convolve_backward(const Layer* layer, int64_t threads, int64_t n, int64_t rows, int64_t columns,
                       const Norm* norm, const float* images, const float* values, const float* gradient, float* of_images,
                       float* of_weight, float* of_bias) {
    arena.reset();
    const Geometry g = geometry(*layer, blocks_of(n, LANES), rows, columns);
    float* grad = arena.floats(g.grad.size());
    pack_images(threads, n, g.grad, gradient, grad);
    const Packed result{g.in.blocks, g.in.channels, rows, columns, 0, 0, 0, 0};
    if (of_images && layer->group == MAX_GROUP)
        unpack_images(threads, n, g.in, grouped_input_gradient(threads, *layer, g, values, grad), of_images);
    else if (of_images && layer->stride == 1)
        input_gradient(threads, *layer, g, values, grad,
                       [&](const Band& band, int64_t first, int64_t last, const float* done, int64_t plane) {
                           band_to_images(n, result, band.block, band.row, band.rows, first, last, done, plane, of_images);
                       });
    else if (of_images) {
        float* unpacked = arena.floats(result.size());
        strided_input_gradient(threads, *layer, g, values, grad, unpacked);
        unpack_images(threads, n, result, unpacked, of_images);
    }
    if (of_weight) weight_gradient(threads, *layer, g, packed_images(threads, n, g.in, norm, images), grad, of_weight);
    if (norm) normalization_gradients(threads, n, layer->inputs, rows * columns, *norm, images, of_images);
    if (of_bias) bias_gradient(threads, g.grad, grad, of_bias);
}

// Tokens of a block are `columns` vectors.
void project(const Layer* layer, int64_t threads, int64_t n, int64_t columns, const float* tokens, const float* weight,
             const float* bias, float* values, float* out) {
    arena.reset();
    const Geometry g = geometry(*layer, blocks_of(n, LANES * columns), 1, columns);
    float* packed = arena.floats(g.in.size());
    pack_tokens(threads, n, g.in, tokens, packed);
    if (!layer->packed) gather(threads, *layer, weight, values);
    forward(threads, *layer, g, values, bias, packed,
            [&](const Band& band, int64_t first, int64_t last, const float* done, int64_t) {
                band_to_tokens(n, g.out, band.block, first, last, done, out);
            });
}

void project_backward(const Layer* layer, int64_t threads, int64_t n, int64_t columns, const float* tokens,
                      const float* values, const float* gradient, float* of_tokens, float* of_weight, float* of_bias) {
    arena.reset();
    const Geometry g = geometry(*layer, blocks_of(n, LANES * columns), 1, columns);
    float* grad = arena.floats(g.grad.size());
    pack_tokens(threads, n, g.grad, gradient, grad);
    if (of_tokens && layer->group == MAX_GROUP) {
        const float* done = grouped_input_gradient(threads, *layer, g, values, grad);
        unpack_tokens(threads, n, g.in, done, of_tokens);
    } else if (of_tokens)
        input_gradient(threads, *layer, g, values, grad,
                       [&](const Band& band, int64_t first, int64_t last, const float* done, int64_t) {
                           band_to_tokens(n, g.in, band.block, first, last, done, of_tokens);
                       });
    if (of_weight) {
        float* packed = arena.floats(g.in.size());
        pack_tokens(threads, n, g.in, tokens, packed);
        weight_gradient(threads, *layer, g, packed, grad, of_weight);
    }
    if (of_bias) bias_gradient(threads, g.grad, grad, of_bias);
}

// Number of floats that are kept for the gradient.
int64_t attention_floats(const Attention* attention, int64_t n, int64_t rows, int64_t columns) {
    return heads_of(*attention, n, rows, columns, nullptr).floats();
}

// What images, normalized if there is a norm, bring each other.
void attention(const Attention* given, int64_t threads, int64_t n, int64_t rows, int64_t columns, const Norm* norm,
               const float* images, float* out) {
    arena.reset();
    const Attention& a = *given;
    Heads heads = heads_of(a, n, rows, columns, a.kept);
    const Geometry &in = heads.before, &last = heads.after;
    if (!heads.at) heads.at = arena.floats(heads.floats());
    if (norm) find_statistics(threads, n, in.in.channels, rows * columns, *norm, images);
    const float* packed = packed_images(threads, n, in.in, norm, images);
    for (int64_t i = 0; i < 4; ++i)
        if (!a.layers[i]->packed) gather(threads, *a.layers[i], a.weights[i], a.values[i]);
    for (int64_t i = 0; i < 3; ++i) {
        const Taps taps = forward_taps(threads, *a.layers[i], a.values[i], in.in.plane(), in.in.row());
        multiply(threads, taps, plan_of(in.in, in.out), 1, a.biases[i], packed, heads.part(i));
    }
    heads.each(threads, [&](int64_t i, float* scratch) { attend(heads.head(i), scratch); });
    const auto add = adding(a.adds_images ? images : nullptr, rows * columns, n, last.out.channels);
    forward(threads, *a.layers[3], last, a.values[3], a.biases[3], heads.part(3),
            [&](const Band& band, int64_t first, int64_t end, const float* done, int64_t plane) {
                band_to_images(n, last.out, band.block, band.row, band.rows, first, end, done, plane, out, add);
            });
}

void attention_backward(const Attention* given, int64_t threads, int64_t n, int64_t rows, int64_t columns,
                        const Norm* norm, const float* images, const float* gradient, float* of_images) {
    arena.reset();
    const Attention& a = *given;
    const Heads heads = heads_of(a, n, rows, columns, a.kept);
    const Geometry &in = heads.before, &last = heads.after;
    const Heads of = heads_of(a, n, rows, columns, arena.floats(heads.floats()));
    float *grad = arena.floats(last.out.size()), *of_packed = arena.floats(in.in.size());
    pack_images(threads, n, last.out, gradient, grad);
    const auto layer_gradients = [&](int64_t i, const Geometry& g, float* inputs, float* of_outputs) {
        if (a.of_wholes[i]) whole_gradient(threads, g, inputs, of_outputs, a.of_wholes[i]);
        if (a.of_weights[i]) weight_gradient(threads, *a.layers[i], g, inputs, of_outputs, a.of_weights[i]);
        if (a.of_biases[i]) bias_gradient(threads, g.out, of_outputs, a.of_biases[i]);
    };
    layer_gradients(3, last, heads.part(3), grad);
    clear(threads, of.part(3), last.in.size());
    add_input_gradient(threads, *a.layers[3], last, a.values[3], grad, of.part(3));
    heads.each(threads, [&](int64_t i, float* scratch) { attend_backward(heads.head(i), of.head(i), scratch); });
    float* packed = packed_images(threads, n, in.in, norm, images);
    clear(threads, of_packed, in.in.size());
    for (int64_t i = 0; i < 3; ++i) {
        layer_gradients(i, in, packed, of.part(i));
        add_input_gradient(threads, *a.layers[i], in, a.values[i], of.part(i), of_packed);
    }
    unpack_images(threads, n, in.in, of_packed, of_images);
    if (norm) normalization_gradients(threads, n, in.in.channels, rows * columns, *norm, images, of_images);
    if (!a.adds_images) return;
    parallel(threads, [&](int64_t part, int64_t parts) {
        const int64_t size = n * in.in.channels * rows * columns;
        for (int64_t i = share(size, part, parts); i < share(size, part + 1, parts); ++i) of_images[i] += gradient[i];
    });
}

void pack_weight(const Layer* layer, int64_t threads, const float* weight, float* values) {
    gather(threads, *layer, weight, values);
}

void unpack_weight(const Layer* layer, int64_t threads, const float* values, float* weight) {
    scatter(threads, *layer, values, weight);
}

void carry_values(const Layer* before, const Layer* after, int64_t threads, int64_t count, const float* const* from,
                  float* const* to) {
    arena.reset();
    carry_over(threads, *before, *after, count, from, to);
}

// Chooses `count` candidates with the largest scores, of equal ones the first; the number of candidates, which may be
// too few, or -1 if one of them is NaN.
int64_t largest_floats(int64_t n, const float* scores, const uint8_t* among, int64_t count, uint8_t* chosen) {
    return choose_largest(FloatKeys{scores}, n, among, count, chosen);
}

int64_t largest_integers(int64_t n, const float* scores, const uint8_t* among, int64_t count, uint8_t* chosen) {
    return choose_largest(IntegerKeys{scores}, n, among, count, chosen);
}

void pack(const Sequences* sequences, int64_t threads, const float* from, float* packed) {
    pack_sequences(threads, *sequences, from, packed);
}

void unpack(const Sequences* sequences, int64_t threads, const float* packed, float* to) {
    unpack_sequences(threads, *sequences, packed, to);
}

// inputs: (rows, features, width); states: (rows, directions * units, width).
void recurrence(const Sequences* sequences, const Direction* directions, int64_t threads, const float* inputs,
                float* states) {
    arena.reset();
    const Sequences& s = *sequences;
    const int64_t size = s.size();
    const bool kept = directions[0].gates;
    std::vector<Taps> input, recurrent;
    for (int64_t i = 0; i < s.directions; ++i) {
        const Direction& d = directions[i];
        input.push_back(forward_taps(threads, d.input, values_of(threads, d.input, d.weight_ih), s.width(), 0));
        recurrent.push_back(forward_taps(threads, d.recurrent, values_of(threads, d.recurrent, d.weight_hh), s.width(), 0));
        if (kept) multiply(threads, input[i], s.plan(s.features, 3 * s.units, s.rows()), 1, d.bias_ih, inputs, d.gates);
    }
    s.clear_borders(s.directions * size, states);
    const int64_t walks = s.chunks * s.directions, part_size = (3 + (kept ? 0 : 3 * SPAN)) * size;
    float* scratch = arena.floats(threads * part_size);
    parallel(threads, [&](int64_t part, int64_t parts) {
        float* own = scratch + part * part_size;
        for (int64_t i = share(walks, part, parts); i < share(walks, part + 1, parts); ++i) {
            const int64_t chunk = i % s.chunks, way = i / s.chunks, steps = s.steps(chunk);
            const Direction& d = directions[way];
            if (kept) {
                recur(s, d, recurrent[way], chunk, way, 0, steps, states, d.gates, d.hidden, own);
                continue;
            }
            float* gates = own + 3 * size;
            for (int64_t first = 0; first < steps; first += SPAN) {
                const int64_t last = std::min(first + SPAN, steps);
                const int64_t row = std::min(s.row(chunk, first, way), s.row(chunk, last - 1, way));
                multiply(1, input[way], s.plan(s.features, 3 * s.units, last - first, s.present(chunk, row)), 1, d.bias_ih,
                         inputs + row * s.features * s.width(), gates);
                recur(s, d, recurrent[way], chunk, way, first, last, states, gates - row * 3 * size, nullptr, own);
            }
        }
    });
}

void recurrence_backward(const Sequences* sequences, const Direction* directions, int64_t threads, const float* inputs,
                         const float* states, const float* gradient, float* of_inputs) {
    arena.reset();
    const Sequences& s = *sequences;
    const int64_t size = s.size(), all = s.rows() * 3 * size, walks = s.chunks * s.directions;
    float *of_input = arena.floats(all * s.directions), *of_state = arena.floats(all * s.directions);
    float* scratch = arena.floats(walks * 2 * size);
    const Packed gates{1, 3 * s.units, 1, s.vectors, 0, 0, 0, 0};
    std::vector<Taps> taps;
    for (int64_t i = 0; i < s.directions; ++i) {
        const Direction& d = directions[i];
        taps.push_back(backward_taps(threads, d.recurrent, values_of(threads, d.recurrent, d.weight_hh), gates, 0, 0));
        for (float* each : {of_input + i * all, of_state + i * all}) s.clear_borders(3 * size, each);
    }
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t i = share(walks, part, parts); i < share(walks, part + 1, parts); ++i) {
            const int64_t chunk = i % s.chunks, way = i / s.chunks;
            recur_backward(s, directions[way], taps[way], chunk, way, states, gradient, of_input + way * all,
                           of_state + way * all, scratch + i * 2 * size);
        }
    });
    for (int64_t i = 0; i < s.directions; ++i) {
        const Direction& d = directions[i];
        const float *by_input = of_input + i * all, *by_state = of_state + i * all;
        if (of_inputs)
            multiply(threads, backward_taps(threads, d.input, values_of(threads, d.input, d.weight_ih), gates, 0, 0),
                     s.plan(3 * s.units, s.features, s.rows()), 1, nullptr, by_input, of_inputs, i > 0);
        into_weight(threads, d.input, d.of_weight_ih, [&](float* sums) {
            correlate(threads, forward_taps(threads, d.input, nullptr, s.width(), 0),
                      s.plan(s.features, 3 * s.units, s.rows()), 1, by_input, inputs, sums);
        });
        // A state meets the gates of the step after it.
        const int64_t states_at = s.state(i ? 1 : 0, i), gates_at = i ? 0 : 3 * size;
        into_weight(threads, d.recurrent, d.of_weight_hh, [&](float* sums) {
            correlate(threads, forward_taps(threads, d.recurrent, nullptr, s.width(), 0),
                      s.plan(s.directions * s.units, 3 * s.units, s.rows() - 1), 1, by_state + gates_at,
                      states + states_at, sums);
        });
        sums_of_gates(s, by_input, d.of_bias_ih);
        sums_of_gates(s, by_state, d.of_bias_hh);
    }
}
}
