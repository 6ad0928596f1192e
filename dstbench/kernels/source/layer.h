// A sparse layer: where its active connections are, its forward pass and its gradients.
#pragma once

#include "packed.h"
#include "walk.h"

struct Layer {
    int64_t inputs, outputs, kernel_rows, kernel_columns, stride, pad_rows, pad_columns;
    int64_t group;         // neighbouring output channels that share their mask: 1, 2 or 4
    int64_t input_block;   // input channels of a block of connections, in the forward pass
    int64_t output_block;  // output channels of a block of connections, in the input's gradient
    int64_t packed;        // whether weights, and their gradients, are given as values alone
    // By blocks of input channels, then by groups of outputs: places in the weight.
    const int32_t* forward_ptr;
    const int32_t* forward_at;
    // By blocks of output channels, then by inputs: places among the values, which are in the order
    // of forward_at, those of a group together. Convolutions and projections do without in groups
    // of MAX_GROUP.
    const int32_t* backward_ptr;
    const int32_t* backward_at;

    int64_t taps() const { return kernel_rows * kernel_columns; }
    int64_t fan_in() const { return inputs * taps(); }
    int64_t groups() const { return outputs / group; }
    int64_t input_blocks() const { return (inputs + input_block - 1) / input_block; }
    int64_t output_blocks() const { return (outputs + output_block - 1) / output_block; }
    int64_t active() const { return forward_ptr[input_blocks() * groups()] * group; }
};

namespace {

// Calls each(connection, its place in the weight) in the order of the weight's rows, which memory
// is read fastest in.
template <typename Each>
void by_rows(const Layer& layer, int64_t first, int64_t last, Each each) {
    for (int64_t o = first; o < last; ++o)
        for (int64_t b = 0; b < layer.input_blocks(); ++b) {
            const int32_t* bounds = layer.forward_ptr + b * layer.groups() + o;
            for (int32_t j = bounds[0]; j < bounds[1]; ++j) each(j, layer.forward_at[j]);
        }
}

// The same for every value, those of a group one after another.
template <typename Each>
void by_values(const Layer& layer, int64_t first, int64_t last, Each each) {
    const int64_t group = layer.group, fan_in = layer.fan_in();
    by_rows(layer, first, last, [&](int64_t j, int64_t at) {
        for (int64_t g = 0; g < group; ++g) each(j * group + g, at + g * fan_in);
    });
}

// The values of active weights, in the order of forward_at, those of a group together.
void gather(int64_t threads, const Layer& layer, const float* weight, float* values) {
    parallel(threads, [&](int64_t part, int64_t parts) {
        by_values(layer, share(layer.groups(), part, parts), share(layer.groups(), part + 1, parts),
                  [&](int64_t value, int64_t at) { values[value] = weight[at]; });
    });
}

// What each connection has, in the weight's shape; zero elsewhere.
void scatter(int64_t threads, const Layer& layer, const float* sums, float* out) {
    const int64_t size = layer.group * layer.fan_in();
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t o = share(layer.groups(), part, parts); o < share(layer.groups(), part + 1, parts); ++o) {
            std::memset(out + o * size, 0, 4 * size);
            by_values(layer, o, o + 1, [&](int64_t value, int64_t at) { out[at] = sums[value]; });
        }
    });
}

// Values of connections of one index at those of another, of the same weight: zero where it has others. There are
// `count` values of each.
void carry_over(int64_t threads, const Layer& before, const Layer& after, int64_t count, const float* const* from,
                float* const* to) {
    const int64_t rows = std::max(before.group, after.group), size = rows * after.fan_in(), all = after.outputs / rows;
    int32_t* old = arena.ints(after.active());  // each connection's place among those before, or -1
    parallel(threads, [&](int64_t part, int64_t parts) {
        std::vector<int32_t> held(size);
        for (int64_t i = share(all, part, parts); i < share(all, part + 1, parts); ++i) {
            const int64_t start = i * size;
            const auto each = [&](const Layer& layer, auto visit) {
                by_values(layer, i * rows / layer.group, (i + 1) * rows / layer.group, visit);
            };
            std::fill(held.begin(), held.end(), -1);
            each(before, [&](int64_t value, int64_t at) { held[at - start] = value; });
            each(after, [&](int64_t value, int64_t at) { old[value] = held[at - start]; });
        }
    });
    parallel(threads, [&](int64_t part, int64_t parts) {
        const int64_t first = share(after.active(), part, parts), last = share(after.active(), part + 1, parts);
        for (int64_t k = 0; k < count; ++k)
            for (int64_t j = first; j < last; ++j) to[k][j] = old[j] < 0 ? 0 : from[k][old[j]];
    });
}

// Calls find(sums), and gives a weight's gradient what that has found for each connection.
template <typename Find>
void into_weight(int64_t threads, const Layer& layer, float* of_weight, Find find) {
    float* sums = layer.packed ? of_weight : arena.floats(layer.active());
    find(sums);
    if (!layer.packed) scatter(threads, layer, sums, of_weight);
}

// Calls work(taps) with a constant for the usual numbers, which is divided by several times as fast.
template <typename Work>
void with_taps(int64_t taps, Work work) {
    if (taps == 9) work(std::integral_constant<uint32_t, 9>{});
    else if (taps == 1) work(std::integral_constant<uint32_t, 1>{});
    else work(uint32_t(taps));
}

// Where the inputs of connections lie, whose values may be null.
Taps forward_taps(int64_t threads, const Layer& layer, const float* values, int64_t plane, int64_t row) {
    int32_t* off = arena.ints(layer.active() / layer.group);
    std::vector<int32_t> places(layer.taps());
    for (int64_t k = 0; k < layer.taps(); ++k)
        places[k] = k / layer.kernel_columns * row + k % layer.kernel_columns * LANES;
    const int64_t count = layer.input_blocks() * layer.groups();
    parallel(threads, [&](int64_t part, int64_t parts) {
        with_taps(layer.taps(), [&](auto taps) {
            for (int64_t i = share(count, part, parts); i < share(count, part + 1, parts); ++i) {
                const uint32_t first = i % layer.groups() * layer.group * layer.fan_in();
                for (int32_t j = layer.forward_ptr[i]; j < layer.forward_ptr[i + 1]; ++j) {
                    const uint32_t tap = layer.forward_at[j] - first, channel = tap / taps;
                    off[j] = channel * plane + places[tap - channel * taps];
                }
            }
        });
    });
    return {layer.groups(), layer.input_blocks(), layer.group, layer.forward_ptr, off, values};
}

// Connections by which an input pixel at (phase_row, phase_column) of a stride reaches outputs,
// whose packed gradients begin `top` rows and `left` columns before the first.
Taps backward_taps(int64_t threads, const Layer& layer, const float* values, const Packed& grad, int64_t phase_row,
                   int64_t phase_column) {
    const int64_t taps = layer.taps(), group = layer.group, count = layer.output_blocks() * layer.inputs;
    const int shift = group / 2;  // of 1, 2 and 4
    const uint32_t fan_in = layer.fan_in();
    const double of_place = 1. / fan_in;  // finds a place's output exactly, and faster than a division
    int32_t* ptr = arena.ints(count + 1);
    int32_t* off = arena.ints(layer.active());
    float* val = arena.floats(layer.active());
    std::vector<int32_t> places(taps, -1);
    for (int64_t k = 0; k < taps; ++k) {
        const int64_t y = phase_row + layer.pad_rows - k / layer.kernel_columns;
        const int64_t x = phase_column + layer.pad_columns - k % layer.kernel_columns;
        if (y % layer.stride == 0 && x % layer.stride == 0)
            places[k] = (y / layer.stride + grad.top) * grad.row() + (x / layer.stride + grad.left) * LANES;
    }
    ptr[0] = 0;
    // With a stride, connections of other phases are left out, so that where one goes depends on all before it.
    parallel(layer.stride == 1 ? threads : 1, [&](int64_t part, int64_t parts) {
        const int64_t first = share(count, part, parts);
        int32_t found = layer.backward_ptr[first];
        for (int64_t i = first; i < share(count, part + 1, parts); ++i) {
            const uint32_t before = i % layer.inputs * taps;
            for (int32_t j = layer.backward_ptr[i]; j < layer.backward_ptr[i + 1]; ++j) {
                const uint32_t from = layer.backward_at[j], at = layer.forward_at[from >> shift];
                const uint32_t output = (at + .5) * of_place, place = at - output * fan_in - before;
                if (places[place] < 0) continue;
                off[found] = (output + from % group) * grad.plane() + places[place];
                val[found++] = values[from];
            }
            ptr[i + 1] = found;
        }
    });
    return {layer.inputs, layer.output_blocks(), 1, ptr, off, val};
}

struct Geometry {
    Packed in, out, grad;  // grad: out with the border that the input's gradient needs
};

Geometry geometry(const Layer& layer, int64_t blocks, int64_t rows, int64_t columns) {
    const int64_t s = layer.stride, kr = layer.kernel_rows, kc = layer.kernel_columns;
    const int64_t pr = layer.pad_rows, pc = layer.pad_columns;
    const int64_t out_rows = (rows + 2 * pr - kr) / s + 1, out_columns = (columns + 2 * pc - kc) / s + 1;
    const auto before = [s](int64_t kernel, int64_t pad) { return std::max<int64_t>(0, (kernel - 1 - pad + s - 1) / s); };
    const auto after = [s](int64_t size, int64_t pad, int64_t out) { return std::max<int64_t>(0, (size - 1 + pad) / s - (out - 1)); };
    return {spaced({blocks, layer.inputs, rows, columns, pr, pc, pr, pc}),
            spaced({blocks, layer.outputs, out_rows, out_columns, 0, 0, 0, 0}),
            spaced({blocks, layer.outputs, out_rows, out_columns, before(kr, pr), before(kc, pc),
                    after(rows, pr, out_rows), after(columns, pc, out_columns)})};
}

Plan plan_of(const Packed& in, const Packed& out) {
    return {out.blocks, out.rows, out.columns, in.block(), in.row(), 0,
            out.block(), out.plane(), out.row(), LANES, out.start()};
}

template <typename Finish>
void forward(int64_t threads, const Layer& layer, const Geometry& g, const float* values, const float* bias,
             const float* in, Finish finish) {
    const Taps taps = forward_taps(threads, layer, values, g.in.plane(), g.in.row());
    multiply_bands(threads, taps, plan_of(g.in, g.out), layer.stride, bias, in, finish);
}

template <typename Finish>
void input_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* values, const float* grad,
                    Finish finish) {
    const Packed result{g.in.blocks, g.in.channels, g.in.rows, g.in.columns, 0, 0, 0, 0};
    const Taps taps = backward_taps(threads, layer, values, g.grad, 0, 0);
    multiply_bands(threads, taps, plan_of(g.grad, result), 1, nullptr, grad, finish);
}

void clear(int64_t threads, float* out, int64_t size) {
    parallel(threads, [&](int64_t part, int64_t parts) {
        const int64_t first = share(size, part, parts), last = share(size, part + 1, parts);
        std::memset(out + first, 0, 4 * (last - first));
    });
}

// Where four output channels share their connections: adds the input's gradient, packed as the input is.
void add_grouped_input_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* values,
                                const float* grad, float* out) {
    const Taps taps = forward_taps(threads, layer, values, g.in.plane(), g.in.row());
    spread(threads, taps, plan_of(g.in, g.grad), layer.stride, grad, out);
}

float* grouped_input_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* values,
                              const float* grad) {
    float* out = arena.floats(g.in.size());
    clear(threads, out, g.in.size());
    add_grouped_input_gradient(threads, layer, g, values, grad, out);
    return out;
}

// Adds the packed gradient of a linear layer's input.
void add_input_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* values, const float* grad,
                        float* out) {
    if (layer.group == MAX_GROUP) return add_grouped_input_gradient(threads, layer, g, values, grad, out);
    const Taps taps = backward_taps(threads, layer, values, g.grad, 0, 0);
    multiply(threads, taps, plan_of(g.grad, g.in), 1, nullptr, grad, out, true);
}

// The input's gradient of a convolution of stride s: the pixels at (a, b) modulo s are those of a
// convolution of stride 1.
void strided_input_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* values,
                            const float* grad, float* out) {
    const Packed result{g.in.blocks, g.in.channels, g.in.rows, g.in.columns, 0, 0, 0, 0};
    const int64_t s = layer.stride;
    for (int64_t a = 0; a < std::min(s, result.rows); ++a)
        for (int64_t b = 0; b < std::min(s, result.columns); ++b) {
            const Taps taps = backward_taps(threads, layer, values, g.grad, a, b);
            const Plan plan{result.blocks, (result.rows - a + s - 1) / s, (result.columns - b + s - 1) / s,
                            g.grad.block(), g.grad.row(), 0,
                            result.block(), result.plane(), s * result.row(), s * LANES, a * result.row() + b * LANES};
            multiply(threads, taps, plan, 1, nullptr, grad, out);
        }
}

void weight_gradient(int64_t threads, const Layer& layer, const Geometry& g, const float* in, const float* grad,
                     float* out) {
    const Taps taps = forward_taps(threads, layer, nullptr, g.in.plane(), g.in.row());
    into_weight(threads, layer, out, [&](float* sums) {
        correlate(threads, taps, plan_of(g.in, g.grad), layer.stride, grad, in, sums);
    });
}

void bias_gradient(int64_t threads, const Packed& grad, const float* from, float* out) {
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t c = share(grad.channels, part, parts); c < share(grad.channels, part + 1, parts); ++c) {
            vec total{};
            for (int64_t block = 0; block < grad.blocks; ++block)
                for (int64_t y = 0; y < grad.rows; ++y) {
                    const float* p = from + block * grad.block() + c * grad.plane() + grad.start() + y * grad.row();
                    for (int64_t x = 0; x < grad.columns; ++x) total += load(p + x * LANES);
                }
            out[c] = sum(total);
        }
    });
}

int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace
