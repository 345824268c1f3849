// What device code and the host tests share: number formats and loads of 16 bytes. Needs no CUDA header.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FASTGAN_HOST_DEVICE __host__ __device__ inline
#else
#define FASTGAN_HOST_DEVICE inline
#endif

namespace fastgan {

// The upper half of a float32.
struct BFloat16 {
    uint16_t bits;
};

FASTGAN_HOST_DEVICE float to_float(float value) { return value; }

FASTGAN_HOST_DEVICE float to_float(BFloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    memcpy(&result, &bits, sizeof(result));
    return result;
}

FASTGAN_HOST_DEVICE void store(float* to, float value) { *to = value; }

// Rounds to nearest, ties to even; NaN stays NaN.
FASTGAN_HOST_DEVICE void store(BFloat16* to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? bits | 0x00400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    to->bits = static_cast<uint16_t>(bits >> 16);
}

// 16 bytes of neighbouring numbers, moved by one instruction.
template <typename T>
struct alignas(16) Pack {
    static constexpr int kSize = 16 / sizeof(T);
    T values[kSize];
};

FASTGAN_HOST_DEVICE bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

FASTGAN_HOST_DEVICE int64_t divide_up(int64_t number, int64_t by) { return (number + by - 1) / by; }

FASTGAN_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace fastgan
