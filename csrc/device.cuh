// Sums over a block in a fixed order, and the guard around every launch.
#pragma once

#include <cuda_runtime.h>

#include "host_device.h"

namespace fastgan {

__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The sum over all threads of a block of `Threads`, known to all of them.
template <int Threads>
__device__ float block_sum(float value) {
    __shared__ float sums[Threads / 32];
    __shared__ float total;
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        const float sum = warp_sum(threadIdx.x < Threads / 32 ? sums[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) total = sum;
    }
    __syncthreads();
    return total;
}

// Makes `device` current for a scope; `status` says whether that worked.
class DeviceScope {
  public:
    explicit DeviceScope(int device) {
        status = cudaGetDevice(&previous_);
        if (status == cudaSuccess && device != previous_) {
            status = cudaSetDevice(device);
            changed_ = status == cudaSuccess;
        }
    }
    ~DeviceScope() {
        if (changed_) cudaSetDevice(previous_);
    }
    DeviceScope(const DeviceScope&) = delete;
    DeviceScope& operator=(const DeviceScope&) = delete;
    cudaError_t status;

  private:
    int previous_ = 0;
    bool changed_ = false;
};

}  // namespace fastgan

// Entry points return CUDA's error code; 0 is success.
#define FASTGAN_API extern "C" __attribute__((visibility("default"))) int
