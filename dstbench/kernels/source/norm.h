// Group normalisation of images (n, channels, pixels), and its gradients.
#pragma once

#include "vectors.h"

namespace {

struct Sums { float x, xy; };

inline float total(const float* p, int64_t count) {
    vec a{}, b{};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) a += load(p + i), b += load(p + i + LANES);
    float rest = sum(a + b);
    for (; i < count; ++i) rest += p[i];
    return rest;
}

inline float squares(const float* p, float mean, int64_t count) {
    vec a{}, b{};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        const vec x = load(p + i) - mean, y = load(p + i + LANES) - mean;
        a += x * x, b += y * y;
    }
    float rest = sum(a + b);
    for (; i < count; ++i) rest += (p[i] - mean) * (p[i] - mean);
    return rest;
}

// Sums of x, and of x times y - mean.
inline Sums products(const float* x, const float* y, float mean, int64_t count) {
    vec a{}, b{};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) a += load(x + i), b += load(x + i) * (load(y + i) - mean);
    Sums sums{sum(a), sum(b)};
    for (; i < count; ++i) sums.x += x[i], sums.xy += x[i] * (y[i] - mean);
    return sums;
}

}  // namespace
