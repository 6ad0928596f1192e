// Group normalization, with or without SiLU, of what a layer is given, and their gradients.
#pragma once

#include "elementary.h"
#include "packed.h"

struct Norm {
    int64_t groups, silu;
    double epsilon;
    const float *scale, *shift;  // (channels)
    float* statistics;           // (n, groups, 2): mean, and 1 / standard deviation
    float *of_scale, *of_shift;  // gradients: (channels)
};

namespace {

// What a channel of an image is multiplied by, and what is then added, to normalize it.
struct Affine {
    float factor, constant;
};
Affine affine(const Norm& norm, const float* statistics, int64_t channel) {
    const float factor = norm.scale[channel] * statistics[1];
    return {factor, norm.shift[channel] - statistics[0] * factor};
}

template <typename Of>
float mean(const float* from, int64_t count, Of of) {
    vec sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        for (int k = 0; k < 4; ++k) sums[k] += of(load(from + i + k * LANES));
    for (; i + LANES <= count; i += LANES) sums[0] += of(load(from + i));
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < count; ++i) total += of(splat(from[i]))[0];
    return total / count;
}

void find_statistics(int64_t threads, int64_t n, int64_t channels, int64_t pixels, const Norm& norm,
                     const float* images) {
    const int64_t size = channels / norm.groups * pixels, count = n * norm.groups;
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t i = share(count, part, parts); i < share(count, part + 1, parts); ++i) {
            const float middle = mean(images + i * size, size, [](vec x) { return x; });
            const float variance = mean(images + i * size, size, [middle](vec x) { return (x - middle) * (x - middle); });
            norm.statistics[2 * i] = middle;
            norm.statistics[2 * i + 1] = 1 / std::sqrt(variance + norm.epsilon);
        }
    });
}

// images: (n, channels, rows, columns), whose statistics are known.
void pack_normalized(int64_t threads, int64_t n, const Packed& p, const Norm& norm, const float* images,
                     float* packed) {
    const int64_t of_group = p.channels / norm.groups;
    pack_images(threads, n, p, images, packed, [&](vec* r, int64_t first, int64_t channel, int64_t, int64_t) {
        const float* statistics = norm.statistics + 2 * (first * norm.groups + channel / of_group);
        for (int64_t i = 0; i < std::min<int64_t>(LANES, n - first); ++i) {
            const Affine a = affine(norm, statistics + 2 * i * norm.groups, channel);
            r[i] = r[i] * a.factor + a.constant;
        }
        for (int64_t i = 0; norm.silu && i < LANES; i += 2) {
            vec one = r[i], other = r[i + 1];
            sigmoids(one, other);
            r[i] *= one, r[i + 1] *= other;
        }
    });
}

// Turns the gradient of what was packed into that of the images, and finds those of scale and shift.
void normalization_gradients(int64_t threads, int64_t n, int64_t channels, int64_t pixels, const Norm& norm,
                             const float* images, float* grad) {
    const int64_t of_group = channels / norm.groups, size = of_group * pixels;
    parallel(threads, [&](int64_t part, int64_t parts) {
        for (int64_t g = share(norm.groups, part, parts); g < share(norm.groups, part + 1, parts); ++g) {
            const int64_t first = g * of_group, last = first + of_group;
            std::memset(norm.of_scale + first, 0, 4 * of_group);
            std::memset(norm.of_shift + first, 0, 4 * of_group);
            for (int64_t i = 0; i < n; ++i) {
                const float* statistics = norm.statistics + 2 * (i * norm.groups + g);
                const float middle = statistics[0], factor = statistics[1];
                const float* x = images + (i * channels + first) * pixels;
                float* d = grad + (i * channels + first) * pixels;
                float along = 0, across = 0;  // the group's means of d, and of d times normalized x
                for (int64_t c = first; c < last; ++c, x += pixels, d += pixels) {
                    const Affine a = affine(norm, statistics, c);
                    vec of_shift{}, of_scale{};
                    for (int64_t at = 0; at < pixels; at += LANES) {
                        const vec value = load(x + at, pixels - at);
                        vec of_y = load(d + at, pixels - at);
                        if (norm.silu) {
                            const vec y = value * a.factor + a.constant, gate = 1.f / (1.f + exponential(-y));
                            of_y *= gate * (1.f + y * (1.f - gate));
                            store(d + at, of_y, pixels - at);
                        }
                        of_shift += of_y;
                        of_scale += of_y * (value - middle);
                    }
                    const float shift = sum(of_shift), scale = sum(of_scale) * factor;
                    norm.of_shift[c] += shift;
                    norm.of_scale[c] += scale;
                    along += norm.scale[c] * shift / size;
                    across += norm.scale[c] * scale / size;
                }
                x -= size, d -= size;
                const float slope = factor * factor * across, constant = middle * slope - factor * along;
                for (int64_t c = first; c < last; ++c, x += pixels, d += pixels) {
                    const float of_y = factor * norm.scale[c];
                    for (int64_t at = 0; at < pixels; ++at) d[at] = d[at] * of_y - x[at] * slope + constant;
                }
            }
        }
    });
}

}  // namespace
