// Index arithmetic and closed forms of the gradient-penalty kernels, without threads, so that a CPU can test them.
//
// Shape legend: N samples of M numbers each, g_n the input gradient of sample n.
#pragma once

#include <cmath>

#include "host_device.h"

namespace fastgan {

// Numbers that one block adds up. A constant, so that the result does not depend on the GPU.
constexpr int64_t kChunk = 8192;

FASTGAN_HOST_DEVICE int64_t chunks_per_sample(int64_t size) { return divide_up(size, kChunk); }

// What block number `block` works on: numbers [begin, end) of all samples' numbers, which belong to one sample.
struct Chunk {
    int64_t sample, begin, end;
};

FASTGAN_HOST_DEVICE Chunk chunk_of(int64_t block, int64_t size) {
    const int64_t chunks = chunks_per_sample(size), sample = block / chunks;
    const int64_t begin = sample * size + block % chunks * kChunk;
    return {sample, begin, smaller((sample + 1) * size, begin + kChunk)};
}

// A penalty and its derivative: d penalty / d g = factor * g.
struct PenaltyValue {
    float penalty;
    float factor;
};

// (|g| - center)^2, or with `one_sided` max(0, |g| - center)^2; at g = 0 with a center the derivative is taken as 0.
FASTGAN_HOST_DEVICE PenaltyValue penalty_of(float square, float center, bool one_sided) {
    if (center == 0.0f) return {square, 2.0f};
    const float norm = sqrtf(square);
    const float excess = norm - center;
    if (one_sided && excess < 0.0f) return {0.0f, 0.0f};
    return {excess * excess, norm > 0.0f ? 2.0f * excess / norm : (norm == 0.0f ? 0.0f : norm)};
}

// The sum of the squares of values[begin .. end) that thread `lane` takes.
template <typename T>
FASTGAN_HOST_DEVICE float square_sum(const T* values, int64_t begin, int64_t end, int lane, int num_lanes) {
    float sum = 0.0f;
    if (is_aligned(values + begin) && (end - begin) % Pack<T>::kSize == 0) {
        const Pack<T>* packs = reinterpret_cast<const Pack<T>*>(values + begin);
#pragma unroll 4
        for (int64_t p = lane; p < (end - begin) / Pack<T>::kSize; p += num_lanes) {
            const Pack<T> pack = packs[p];
            for (int i = 0; i < Pack<T>::kSize; ++i) sum += to_float(pack.values[i]) * to_float(pack.values[i]);
        }
        return sum;
    }
#pragma unroll 4
    for (int64_t i = begin + lane; i < end; i += num_lanes) sum += to_float(values[i]) * to_float(values[i]);
    return sum;
}

// out[i] = scale * values[i] for the numbers i of [begin, end) that thread `lane` takes.
template <typename T>
FASTGAN_HOST_DEVICE void scale_range(const T* values, float scale, int64_t begin, int64_t end, T* out, int lane,
                                     int num_lanes) {
    if (is_aligned(values + begin) && is_aligned(out + begin) && (end - begin) % Pack<T>::kSize == 0) {
        const Pack<T>* packs = reinterpret_cast<const Pack<T>*>(values + begin);
        for (int64_t p = lane; p < (end - begin) / Pack<T>::kSize; p += num_lanes) {
            const Pack<T> in = packs[p];
            Pack<T> scaled;
#pragma unroll
            for (int i = 0; i < Pack<T>::kSize; ++i) store(scaled.values + i, scale * to_float(in.values[i]));
            reinterpret_cast<Pack<T>*>(out + begin)[p] = scaled;
        }
        return;
    }
    for (int64_t i = begin + lane; i < end; i += num_lanes) store(out + i, scale * to_float(values[i]));
}

// weight * real + (1 - weight) * fake; exact at both ends.
FASTGAN_HOST_DEVICE float between(float real, float fake, float weight) {
    const float difference = real - fake;
    return weight < 0.5f ? fake + weight * difference : real - (1.0f - weight) * difference;
}

// out[i] = between(real[i], fake[i]) for the numbers i of [begin, end) that thread `lane` takes.
template <typename T>
FASTGAN_HOST_DEVICE void interpolate_range(const T* real, const T* fake, float weight, int64_t begin, int64_t end, T* out,
                                           int lane, int num_lanes) {
    for (int64_t i = begin + lane; i < end; i += num_lanes) {
        store(out + i, between(to_float(real[i]), to_float(fake[i]), weight));
    }
}

}  // namespace fastgan
