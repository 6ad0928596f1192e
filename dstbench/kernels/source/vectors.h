// Vectors of the instruction set that this is compiled for, threads, and memory that is kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE = 16;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE = 8;
#else
constexpr int LANES = 4, TILE = 16;
#endif
constexpr int MAX_GROUP = 4;

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec*>(p) = v; }
// Of `count` floats, if those are fewer; the others are zero, or left as they are.
inline vec load(const float* p, int64_t count) {
    if (count >= LANES) return load(p);
    vec v{};
    std::memcpy(&v, p, 4 * count);
    return v;
}
inline void store(float* p, vec v, int64_t count) {
    if (count >= LANES) store(p, v);
    else std::memcpy(p, &v, 4 * count);
}
inline vec splat(float x) { return x - vec{}; }

// Keeps a vector in a register, where compilers would rather read it again at each use.
inline void keep(vec& v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__AVX__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
}

// Eight bytes, each 1 or 0, as bits, of which the first is the lowest.
inline uint64_t bits_of(const void* bytes) {
    uint64_t eight;
    std::memcpy(&eight, bytes, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    eight = __builtin_bswap64(eight);
#endif
    return eight * 0x0102040810204080 >> 56;
}

inline float sum(vec v) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) v[i] += v[i + half];
    return v[0];
}

// Memory that is kept from one call to the next: fresh pages cost as much as a small layer.
class Arena {
   public:
    ~Arena() { for (auto& each : pools_) std::free(each.data); }
    void reset() { next_ = 0; }
    float* floats(int64_t count) { return static_cast<float*>(bytes(count * 4)); }
    int32_t* ints(int64_t count) { return static_cast<int32_t*>(bytes(count * 4)); }

   private:
    struct Pool { void* data; size_t size; };
    void* bytes(size_t size) {
        size = (size + 127) / 64 * 64;
        if (next_ == pools_.size()) pools_.push_back({nullptr, 0});
        Pool& pool = pools_[next_++];
        if (pool.size < size) {
            std::free(pool.data);
            pool.data = std::aligned_alloc(64, size);
            pool.size = size;
        }
        return pool.data;
    }
    std::vector<Pool> pools_;
    size_t next_ = 0;
};
thread_local Arena arena;

template <typename Body>
void parallel(int64_t threads, Body body) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        body(omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    body(0, 1);
}

inline int64_t share(int64_t count, int64_t part, int64_t parts) { return count * part / parts; }

// Transposition of LANES x LANES floats, by halves, quarters and so on.

template <int S, int... J>
inline vec low(vec a, vec b, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, b, ((J & S) ? LANES + J - S : J)...);
}
template <int S, int... J>
inline vec high(vec a, vec b, std::integer_sequence<int, J...>) {
    return __builtin_shufflevector(a, b, ((J & S) ? LANES + J : J + S)...);
}
template <int S>
inline void swap_quarters(vec* r) {
    if constexpr (S > 0) {
        constexpr auto lanes = std::make_integer_sequence<int, LANES>{};
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (!(i & S)) {
                const vec a = r[i], b = r[i + S];
                r[i] = low<S>(a, b, lanes);
                r[i + S] = high<S>(a, b, lanes);
            }
        swap_quarters<S / 2>(r);
    }
}
template <int S>
inline void add_halves(vec* r) {
    if constexpr (S > 0) {
        constexpr auto lanes = std::make_integer_sequence<int, LANES>{};
#pragma GCC unroll 8
        for (int i = 0; i < S; ++i) r[i] = low<S>(r[i], r[i + S], lanes) + high<S>(r[i], r[i + S], lanes);
        add_halves<S / 2>(r);
    }
}
// The sum over lanes of each of LANES vectors.
inline vec sums(vec* r) {
    add_halves<LANES / 2>(r);
    return r[0];
}
inline void transpose(vec* r) { swap_quarters<LANES / 2>(r); }

// Rows of `count` <= LANES floats, each where at(i) says; those from `rows` on, and the rest of each, are zero.
template <typename At>
inline void load_rows(vec* r, At at, int64_t rows, int64_t count) {
    if (rows >= LANES && count >= LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) r[i] = load(at(i));
        return;
    }
    for (int i = 0; i < LANES; ++i) r[i] = i < rows ? load(at(i), count) : vec{};
}
template <typename At>
inline void store_rows(const vec* r, At at, int64_t rows, int64_t count) {
    if (rows >= LANES && count >= LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) store(at(i), r[i]);
        return;
    }
    for (int64_t i = 0; i < std::min<int64_t>(rows, LANES); ++i) store(at(i), r[i], count);
}
// The same where rows are a stride apart.
inline void load_rows(vec* r, const float* s, int64_t stride, int64_t rows, int64_t count) {
    load_rows(r, [=](int64_t i) { return s + i * stride; }, rows, count);
}
inline void store_rows(const vec* r, float* d, int64_t stride, int64_t rows, int64_t count) {
    store_rows(r, [=](int64_t i) { return d + i * stride; }, rows, count);
}

}  // namespace
