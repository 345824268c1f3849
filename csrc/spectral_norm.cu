// Power iteration, u'Wv and c u v' for all layers of a network at once, in one or two launches each.
//
// Shape legend: see spectral_norm.h. All sums are float32 and in a fixed order: two runs give the same bits.
#include "spectral_norm.h"

#include "device.cuh"

namespace fastgan {
namespace {

// Entries of t = Wv for one tile of rows into `products` (shared memory), one warp per row.
template <typename T>
__device__ void tile_products(const Layer& layer, const RowTile& tile, float* products) {
    const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
    for (int r = warp; r < tile.num_rows; r += kWarps) {
        const T* row = first_row<T>(layer, tile) + r * layer.columns;
        const float sum = warp_sum(row_dot(row, layer.v, layer.columns, lane, kWarpSize));
        if (lane == 0) products[r] = sum;
    }
    __syncthreads();
}

// One tile of rows: t, |t|^2 and the tile's share of W't. Grid: all row tiles of all layers.
__global__ void __launch_bounds__(kThreads) iterate_rows(const __grid_constant__ Launch launch, float* memory) {
    __shared__ float products[kRowsPerTile];
    const RowTile tile = row_tile_of(launch, blockIdx.x);
    const Layer& layer = launch.layers[tile.layer];
    const Workspace space = workspace_of(launch);
    float* partial = memory + space.partial_columns + offset_of_partial(launch, tile.layer, tile.number);
    if (layer.dtype == kBFloat16) {
        tile_products<BFloat16>(layer, tile, products);
        weighted_row_sum(first_row<BFloat16>(layer, tile), products, tile.num_rows, layer.columns, partial, threadIdx.x,
                         kThreads);
    } else {
        tile_products<float>(layer, tile, products);
        weighted_row_sum(first_row<float>(layer, tile), products, tile.num_rows, layer.columns, partial, threadIdx.x,
                         kThreads);
    }
    if (threadIdx.x < tile.num_rows) {
        memory[space.row_products + offset_of_rows(launch, tile.layer) + tile.first + threadIdx.x] = products[threadIdx.x];
    }
    if (threadIdx.x == 0) {
        memory[space.tile_squares + blockIdx.x] = ordered_dot(products, products, tile.num_rows);
        // The next launch counts its finished blocks here.
        if (tile.number == 0) reinterpret_cast<unsigned int*>(memory + space.tickets)[tile.layer] = 0;
    }
}

// u, v and sigma of one layer from the sums that all of its column tiles left.
__device__ void write_vectors(const Launch& launch, int index, const float* memory, float norm_rows, float* sigma) {
    const Layer& layer = launch.layers[index];
    const Workspace space = workspace_of(launch);
    const float* squares = memory + space.column_squares + launch.first_column_tile[index];
    const float square = block_sum<kThreads>(strided_sum(squares, num_column_tiles(layer), threadIdx.x, kThreads));
    const float norm_columns = sqrtf(square);
    if (threadIdx.x == 0) sigma[index] = sigma_of(norm_rows, norm_columns);
    if (!moves(norm_rows, norm_columns)) return;
    const float* rows = memory + space.row_products + offset_of_rows(launch, index);
    const float* columns = memory + space.columns + offset_of_columns(launch, index);
    divide(rows, norm_rows, layer.rows, layer.u, threadIdx.x, kThreads);
    divide(columns, norm_columns, layer.columns, layer.v, threadIdx.x, kThreads);
}

// W'u for one tile of columns; the layer's last block to finish writes u, v and sigma. Grid: all column tiles.
__global__ void __launch_bounds__(kThreads)
    iterate_columns(const __grid_constant__ Launch launch, float* memory, float* sigma) {
    __shared__ bool is_last;
    const Column column = column_of(launch, blockIdx.x, threadIdx.x);
    const int index = column.layer;
    const Layer& layer = launch.layers[index];
    const Workspace space = workspace_of(launch);
    const float* squares = memory + space.tile_squares + launch.first_row_tile[index];
    const float square = block_sum<kThreads>(strided_sum(squares, num_row_tiles(layer), threadIdx.x, kThreads));
    const float norm_rows = sqrtf(square);
    float value = 0.0f;
    if (column.number < layer.columns) {
        const float* partial = memory + space.partial_columns + offset_of_partial(launch, index, 0);
        value = scaled_column(column_sum(partial, num_row_tiles(layer), layer.columns, column.number), norm_rows);
        memory[space.columns + offset_of_columns(launch, index) + column.number] = value;
    }
    const float column_square = block_sum<kThreads>(value * value);
    if (threadIdx.x == 0) memory[space.column_squares + blockIdx.x] = column_square;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned int* tickets = reinterpret_cast<unsigned int*>(memory + space.tickets);
        is_last = atomicAdd(tickets + index, 1u) == num_column_tiles(layer) - 1;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    write_vectors(launch, index, memory, norm_rows, sigma);
}

// u'Wv of one tile of rows. Grid: all row tiles.
__global__ void __launch_bounds__(kThreads) bilinear_tiles(const __grid_constant__ Launch launch, float* memory) {
    __shared__ float products[kRowsPerTile];
    const RowTile tile = row_tile_of(launch, blockIdx.x);
    const Layer& layer = launch.layers[tile.layer];
    if (layer.dtype == kBFloat16) {
        tile_products<BFloat16>(layer, tile, products);
    } else {
        tile_products<float>(layer, tile, products);
    }
    if (threadIdx.x == 0) memory[blockIdx.x] = ordered_dot(layer.u + tile.first, products, tile.num_rows);
}

// The sum over a layer's row tiles. Grid: layers.
__global__ void __launch_bounds__(kThreads)
    bilinear_sums(const __grid_constant__ Launch launch, const float* memory, float* out) {
    const float* sums = memory + launch.first_row_tile[blockIdx.x];
    const int64_t size = num_row_tiles(launch.layers[blockIdx.x]);
    const float total = block_sum<kThreads>(strided_sum(sums, size, threadIdx.x, kThreads));
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}

template <typename T>
__device__ void write_outer(const Layer& layer, const RowTile& tile, float coefficient) {
    for (int r = 0; r < tile.num_rows; ++r) {
        T* row = first_row<T>(layer, tile) + r * layer.columns;
        write_outer_row(row, coefficient, layer.u[tile.first + r], layer.v, layer.columns, threadIdx.x, kThreads);
    }
}

// One tile of rows of c u v', written to the layer's `weight`. Grid: all row tiles.
__global__ void __launch_bounds__(kThreads)
    outer_tiles(const __grid_constant__ Launch launch, const float* coefficients) {
    const RowTile tile = row_tile_of(launch, blockIdx.x);
    const Layer& layer = launch.layers[tile.layer];
    if (layer.dtype == kBFloat16) {
        write_outer<BFloat16>(layer, tile, coefficients[tile.layer]);
    } else {
        write_outer<float>(layer, tile, coefficients[tile.layer]);
    }
}

}  // namespace
}  // namespace fastgan

using namespace fastgan;

// Floats of scratch memory that the other functions need for these layers; 0 if the layers are not valid.
extern "C" __attribute__((visibility("default"))) int64_t fastgan_spectral_norm_workspace(const Layer* layers,
                                                                                        int num_layers) {
    Launch launch;
    return fill_launch(layers, num_layers, &launch) ? workspace_of(launch).size : 0;
}

// `num_iterations` times u = Wv / |Wv|, v = W'u / |W'u|; sigma, [L], gets u'Wv, 0 for a zero matrix.
FASTGAN_API fastgan_power_iteration(const Layer* layers, int num_layers, int num_iterations, float* sigma,
                                    float* workspace, int device, cudaStream_t stream) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch) || num_iterations < 1) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    for (int i = 0; i < num_iterations; ++i) {
        iterate_rows<<<launch.first_row_tile[num_layers], kThreads, 0, stream>>>(launch, workspace);
        iterate_columns<<<launch.first_column_tile[num_layers], kThreads, 0, stream>>>(launch, workspace, sigma);
    }
    return cudaGetLastError();
}

// out, [L] = u'Wv.
FASTGAN_API fastgan_bilinear(const Layer* layers, int num_layers, float* out, float* workspace, int device,
                             cudaStream_t stream) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    bilinear_tiles<<<launch.first_row_tile[num_layers], kThreads, 0, stream>>>(launch, workspace);
    bilinear_sums<<<num_layers, kThreads, 0, stream>>>(launch, workspace, out);
    return cudaGetLastError();
}

// weight = coefficients[i] u v', [R_i, K_i], for every layer.
FASTGAN_API fastgan_outer(const Layer* layers, int num_layers, const float* coefficients, int device,
                          cudaStream_t stream) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return cudaErrorInvalidValue;
    const DeviceScope scope(device);
    if (scope.status != cudaSuccess) return scope.status;
    outer_tiles<<<launch.first_row_tile[num_layers], kThreads, 0, stream>>>(launch, coefficients);
    return cudaGetLastError();
}
