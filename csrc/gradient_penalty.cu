// Per-sample penalty on an input gradient with its derivative, its backward pass, and interpolation.
//
// Shape legend: N samples of M numbers. All sums are float32 and in a fixed order: two runs give the same bits.
#include "gradient_penalty.h"

#include "device.cuh"
#include "spectral_norm.h"

namespace fastgan {
namespace {

// The sum of squares of one chunk of one sample. Grid: N x chunks per sample.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    chunk_squares(const T* __restrict__ gradients, int64_t size, float* __restrict__ sums) {
    const Chunk chunk = chunk_of(blockIdx.x, size);
    const float sum = block_sum<kThreads>(square_sum(gradients, chunk.begin, chunk.end, threadIdx.x, kThreads));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Penalty and factor of each sample, one warp each. Grid: warps for N samples.
__global__ void __launch_bounds__(kThreads)
    penalties(const float* __restrict__ sums, int64_t num_samples, int64_t chunks, float center, bool one_sided,
              float* __restrict__ penalty, float* __restrict__ factor) {
    const int64_t sample = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    if (sample >= num_samples) return;
    const int lane = threadIdx.x % kWarpSize;
    const float square = warp_sum(strided_sum(sums + sample * chunks, chunks, lane, kWarpSize));
    if (lane != 0) return;
    const PenaltyValue value = penalty_of(square, center, one_sided);
    penalty[sample] = value.penalty;
    factor[sample] = value.factor;
}

// out = factors[n] * cotangents[n] * values, sample by sample. Grid: N x chunks per sample.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    scale_chunks(const T* __restrict__ values, int64_t size, const float* __restrict__ factors,
                 const float* __restrict__ cotangents, T* __restrict__ out) {
    const Chunk chunk = chunk_of(blockIdx.x, size);
    const float scale = factors[chunk.sample] * cotangents[chunk.sample];
    scale_range(values, scale, chunk.begin, chunk.end, out, threadIdx.x, kThreads);
}

// out = weights[n] * real + (1 - weights[n]) * fake. Grid: N x chunks per sample.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    interpolate_chunks(const T* __restrict__ real, const T* __restrict__ fake, const float* __restrict__ weights,
                       int64_t size, T* __restrict__ out) {
    const Chunk chunk = chunk_of(blockIdx.x, size);
    interpolate_range(real, fake, weights[chunk.sample], chunk.begin, chunk.end, out, threadIdx.x, kThreads);
}

bool valid(int64_t num_samples, int64_t size, int dtype) {
    const bool known = dtype == kFloat32 || dtype == kBFloat16;
    return known && num_samples > 0 && size > 0 && num_samples * chunks_per_sample(size) <= INT32_MAX;
}

unsigned int num_blocks(int64_t num_samples, int64_t size) {
    return static_cast<unsigned int>(num_samples * chunks_per_sample(size));
}

}  // namespace
}  // namespace fastgan

using namespace fastgan;

// Floats of scratch memory that `fastgan_gradient_penalty` needs.
extern "C" __attribute__((visibility("default"))) int64_t fastgan_gradient_penalty_workspace(int64_t num_samples,
                                                                                           int64_t size) {
    return num_samples * chunks_per_sample(size);
}

// penalty and factor, [N], of gradients, [N, M]: the derivative of penalty[n] is factor[n] * gradients[n].
FASTGAN_API fastgan_gradient_penalty(const void* gradients, int dtype, int64_t num_samples, int64_t size, float center,
                                     int one_sided, float* penalty, float* factor, float* workspace, int device,
                                     cudaStream_t stream) {
    if (!valid(num_samples, size, dtype)) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    const unsigned int blocks = num_blocks(num_samples, size);
    if (dtype == kBFloat16) {
        chunk_squares<<<blocks, kThreads, 0, stream>>>(static_cast<const BFloat16*>(gradients), size, workspace);
    } else {
        chunk_squares<<<blocks, kThreads, 0, stream>>>(static_cast<const float*>(gradients), size, workspace);
    }
    const unsigned int warps = static_cast<unsigned int>(divide_up(num_samples, kWarps));
    penalties<<<warps, kThreads, 0, stream>>>(workspace, num_samples, chunks_per_sample(size), center, one_sided != 0,
                                              penalty, factor);
    return cudaGetLastError();
}

// out, [N, M] = factors[n] * cotangents[n] * values[n].
FASTGAN_API fastgan_scale_samples(const void* values, int dtype, int64_t num_samples, int64_t size,
                                  const float* factors, const float* cotangents, void* out, int device,
                                  cudaStream_t stream) {
    if (!valid(num_samples, size, dtype)) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    const unsigned int blocks = num_blocks(num_samples, size);
    if (dtype == kBFloat16) {
        scale_chunks<<<blocks, kThreads, 0, stream>>>(static_cast<const BFloat16*>(values), size, factors, cotangents,
                                                      static_cast<BFloat16*>(out));
    } else {
        scale_chunks<<<blocks, kThreads, 0, stream>>>(static_cast<const float*>(values), size, factors, cotangents,
                                                      static_cast<float*>(out));
    }
    return cudaGetLastError();
}

// out, [N, M] = weights[n] * real[n] + (1 - weights[n]) * fake[n].
FASTGAN_API fastgan_interpolate(const void* real, const void* fake, const float* weights, int dtype,
                                int64_t num_samples, int64_t size, void* out, int device, cudaStream_t stream) {
    if (!valid(num_samples, size, dtype)) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    const unsigned int blocks = num_blocks(num_samples, size);
    if (dtype == kBFloat16) {
        interpolate_chunks<<<blocks, kThreads, 0, stream>>>(static_cast<const BFloat16*>(real),
                                                            static_cast<const BFloat16*>(fake), weights, size,
                                                            static_cast<BFloat16*>(out));
    } else {
        interpolate_chunks<<<blocks, kThreads, 0, stream>>>(static_cast<const float*>(real),
                                                            static_cast<const float*>(fake), weights, size,
                                                            static_cast<float*>(out));
    }
    return cudaGetLastError();
}
