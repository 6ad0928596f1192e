// The largest of many scores. Where one ranks is found by counting, which vectors do many at a time.
#pragma once

#include "vectors.h"

namespace {

typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// Scores as integers in the same order, in which negative zero is zero.
struct FloatKeys {
    const float* scores;
    static ivec of(vec score) {
        score += 0.f;
        const ivec bits = reinterpret_cast<const ivec&>(score);
        return bits ^ (bits >> 31 & 0x7fffffff);
    }
    static constexpr int32_t LEAST = int32_t(0x807fffff), MOST = 0x7f800000;  // infinities; beyond them is NaN
};
struct IntegerKeys {
    const float* scores;  // as they are stored
    static ivec of(vec score) { return reinterpret_cast<const ivec&>(score); }
    static constexpr int32_t LEAST = INT32_MIN, MOST = INT32_MAX;
};

template <typename Keys>
int32_t key_of(Keys keys, int64_t i) {
    return Keys::of(load(keys.scores + i, 1))[0];
}

// Bytes that are 1 or 0, as all bits or none.
inline ivec widened(const uint8_t* bytes) {
    int32_t wide[LANES];
    for (int i = 0; i < LANES; ++i) wide[i] = -int32_t(bytes[i]);
    ivec v;
    std::memcpy(&v, wide, sizeof v);
    return v;
}

// Calls each(index, number, keys, which of them are candidates: all bits or none).
template <typename Keys, typename Each>
inline void by_keys(Keys keys, int64_t n, const uint8_t* among, Each each) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) each(i, LANES, Keys::of(load(keys.scores + i)), widened(among + i));
    if (i == n) return;
    uint8_t rest[LANES] = {};
    std::memcpy(rest, among + i, n - i);
    each(i, n - i, Keys::of(load(keys.scores + i, n - i)), widened(rest));
}

// Lanes of which all bits are set, as bits.
inline uint32_t lanes_of(ivec set) {
    const bytes ones = __builtin_convertvector(set & 1, bytes);
    uint8_t padded[(LANES + 7) / 8 * 8] = {};
    std::memcpy(padded, &ones, LANES);
    uint32_t found = 0;
    for (int i = 0; i < LANES; i += 8) found |= uint32_t(bits_of(padded + i)) << i;
    return found;
}

int64_t total(ivec v) {
    int64_t found = 0;
    for (int i = 0; i < LANES; ++i) found += v[i];
    return found;
}

struct Found {
    int32_t* keys;
    int64_t count = 0;

    int64_t at_least(int32_t bound) const {
        int32_t found = 0;
        for (int64_t i = 0; i < count; ++i) found += keys[i] >= bound;
        return found;
    }
    // The largest bound that `rank` keys, of as many at least, reach.
    int32_t ranked(int64_t rank) const {
        int64_t low = INT32_MIN, high = INT32_MAX;
        while (low < high) {
            const int64_t middle = (low + high + 1) >> 1;
            if (at_least(middle) >= rank) low = middle;
            else high = middle - 1;
        }
        return low;
    }
};

// Candidates' keys from low to high, and how many are above; false if any of all candidates is NaN.
template <typename Keys>
bool between(Keys keys, int64_t n, const uint8_t* among, int32_t low, int32_t high, Found& found, int64_t& above) {
    ivec wrong{}, more{};
    int32_t seen[64];
    uint64_t near = 0;
    found.count = 0;
    by_keys(keys, n, among, [&](int64_t i, int64_t, ivec key, ivec candidate) __attribute__((always_inline)) {
        more -= candidate & (key > high);
        wrong |= candidate & ((key < Keys::LEAST) | (key > Keys::MOST));
        std::memcpy(seen + i % 64, &key, sizeof key);
        near |= uint64_t(lanes_of(candidate & (key >= low) & (key <= high))) << i % 64;
        if ((i + LANES) % 64 && i + LANES < n) return;
        for (; near; near &= near - 1) found.keys[found.count++] = seen[__builtin_ctzll(near)];
    });
    above = total(more);
    return !total(wrong);
}

// Bounds between which the candidate of a rank is expected: what a sample says.
template <typename Keys>
std::pair<int32_t, int32_t> expected(Keys keys, int64_t n, const uint8_t* among, int64_t candidates, int64_t rank) {
    constexpr int64_t SAMPLE = 8192;
    if (candidates < 4 * SAMPLE) return {INT32_MIN, INT32_MAX};
    const int64_t step = candidates / SAMPLE | 1;  // odd, lest it sees one of 2:4 alone
    Found sample{arena.ints(n / step + 1)};
    for (int64_t i = 0; i < n; i += step)
        if (among[i]) sample.keys[sample.count++] = key_of(keys, i);
    if (!sample.count) return {INT32_MIN, INT32_MAX};
    const int64_t size = sample.count, at = rank * size / candidates;
    const int64_t margin = 8 + 4 * std::sqrt(double(at) * (size - at) / size);  // four standard deviations
    return {at + margin <= size ? sample.ranked(at + margin) : INT32_MIN,
            at > margin ? sample.ranked(at - margin) : INT32_MAX};
}

template <typename Keys>
int64_t choose_largest(Keys keys, int64_t n, const uint8_t* among, int64_t count, uint8_t* chosen) {
    int64_t candidates = 0, above, i = 0;
    for (uint64_t eight; i + 8 <= n; i += 8) {
        std::memcpy(&eight, among + i, 8);
        candidates += __builtin_popcountll(eight);
    }
    for (; i < n; ++i) candidates += among[i];
    if (candidates < count) return candidates;
    arena.reset();
    const auto [low, high] = expected(keys, n, among, candidates, count);
    Found near{arena.ints(candidates)};
    bool sound = between(keys, n, among, low, high, near, above);
    if (sound && !(above < count && count <= above + near.count))  // the sample has misled
        sound = between(keys, n, among, INT32_MIN, INT32_MAX, near, above);
    if (!sound) return -1;
    const int32_t last = near.ranked(count - above);
    const bool all = above + near.at_least(last) == count;
    by_keys(keys, n, among, [&](int64_t at, int64_t part, ivec key, ivec candidate) __attribute__((always_inline)) {
        const ivec is = (key > last) | (key == last) & int32_t(-all);
        const bytes ones = __builtin_convertvector(candidate & is & 1, bytes);
        if (part == LANES) std::memcpy(chosen + at, &ones, LANES);
        else std::memcpy(chosen + at, &ones, part);
    });
    if (all) return candidates;
    // Of those that are tied, the first.
    int64_t missing = count - above - (last < INT32_MAX ? near.at_least(last + 1) : 0);
    for (int64_t at = 0; missing; ++at)
        if (among[at] && key_of(keys, at) == last) chosen[at] = 1, --missing;
    return candidates;
}

}  // namespace
