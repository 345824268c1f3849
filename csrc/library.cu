// What is true of the whole library: CUDA's own error texts, and whether a device can be used.
#include "device.cuh"

extern "C" __attribute__((visibility("default"))) const char* fastgan_error_text(int code) {
    return cudaGetErrorString(static_cast<cudaError_t>(code));
}

// 0 if there is a GPU that this build can use.
FASTGAN_API fastgan_check_device() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    return status == cudaSuccess && count == 0 ? cudaErrorNoDevice : status;
}

// Version of the arguments of all functions; fastgan/native.py expects the same number.
FASTGAN_API fastgan_interface() { return 1; }
