// Elementary functions of vectors.
#pragma once

#include "vectors.h"

namespace {

// e^x for |x| <= 40, and e^±40 beyond. Added to the magic number, a float is rounded to a whole one, which the
// lowest bits of the sum hold.
inline vec exponential(vec x) {
    x = x > 40.f ? splat(40.f) : x;
    x = x < -40.f ? splat(-40.f) : x;
    constexpr float magic = 3 << 22;
    const vec power = x * 1.44269504f + (magic + 127.f);
    const vec whole = power - (magic + 127.f);
    const vec r = (x - whole * .693359375f) - whole * -2.12194440e-4f;
    vec series = splat(1.9875691500e-4f);
    series = series * r + 1.3981999507e-3f;
    series = series * r + 8.3334519073e-3f;
    series = series * r + 4.1665795894e-2f;
    series = series * r + 1.6666665459e-1f;
    series = series * r + 5.0000001201e-1f;
    series = series * (r * r) + r + 1.f;
    return series * reinterpret_cast<const vec&>(static_cast<const ivec&>(reinterpret_cast<const ivec&>(power) << 23));
}
// A division takes about as long as an exponential: the two sigmoids share one.
inline void sigmoids(vec& a, vec& b) {
    const vec below_a = 1.f + exponential(-a), below_b = 1.f + exponential(-b), shared = 1.f / (below_a * below_b);
    a = below_b * shared;
    b = below_a * shared;
}
inline vec hyperbolic_tangent(vec x) { return 1.f - 2.f / (1.f + exponential(2.f * x)); }

}  // namespace
