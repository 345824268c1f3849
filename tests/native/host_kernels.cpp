// The kernels' loops over blocks and threads as plain loops, around the same functions that the kernels call.
#include <cmath>
#include <vector>

#include "gradient_penalty.h"
#include "spectral_norm.h"

using namespace fastgan;

namespace {

// Lanes add up as in a butterfly of shuffles.
float warp_sum(std::vector<float> values) {
    for (size_t distance = values.size() / 2; distance > 0; distance /= 2) {
        for (size_t i = 0; i < distance; ++i) values[i] += values[i + distance];
    }
    return values[0];
}

float block_sum(const std::vector<float>& values) {
    std::vector<float> sums;
    for (size_t first = 0; first < values.size(); first += kWarpSize) {
        sums.push_back(warp_sum({values.begin() + first, values.begin() + first + kWarpSize}));
    }
    sums.resize(kWarpSize, 0.0f);
    return warp_sum(sums);
}

template <typename Function>
std::vector<float> threads(int count, Function function) {
    std::vector<float> values(count);
    for (int i = 0; i < count; ++i) values[i] = function(i);
    return values;
}

template <typename T>
void iterate_tile(const Launch& launch, int64_t block, std::vector<float>& memory) {
    const int index = layer_of_tile(launch.first_row_tile, launch.num_layers, block);
    const Layer& layer = launch.layers[index];
    const int64_t tile = block - launch.first_row_tile[index], first = tile * kRowsPerTile;
    const int num_rows = static_cast<int>(smaller(kRowsPerTile, layer.rows - first));
    const T* rows = static_cast<const T*>(layer.weight) + first * layer.columns;
    const Workspace space = workspace_of(launch);
    float* products = &memory[space.row_products + offset_of_rows(launch, index) + first];
    for (int r = 0; r < num_rows; ++r) {
        products[r] = warp_sum(threads(kWarpSize, [&](int lane) {
            return row_dot(rows + r * layer.columns, layer.v, layer.columns, lane, kWarpSize);
        }));
        memory[space.tile_squares + block] += products[r] * products[r];
    }
    float* partial = &memory[space.partial_columns + offset_of_partial(launch, index, tile)];
    for (int t = 0; t < kThreads; ++t) weighted_row_sum(rows, products, num_rows, layer.columns, partial, t, kThreads);
}

void finish_layer(const Launch& launch, int index, std::vector<float>& memory, float* sigma) {
    const Layer& layer = launch.layers[index];
    const Workspace space = workspace_of(launch);
    const float* squares = &memory[space.tile_squares + launch.first_row_tile[index]];
    const float norm_rows = std::sqrt(
        block_sum(threads(kThreads, [&](int t) { return strided_sum(squares, num_row_tiles(layer), t, kThreads); })));
    const float* partial = &memory[space.partial_columns + offset_of_partial(launch, index, 0)];
    float* columns = &memory[space.columns + offset_of_columns(launch, index)];
    float square = 0.0f;
    for (int64_t c = 0; c < layer.columns; ++c) {
        columns[c] = scaled_column(column_sum(partial, num_row_tiles(layer), layer.columns, c), norm_rows);
        square += columns[c] * columns[c];
    }
    const float norm_columns = std::sqrt(square);
    sigma[index] = sigma_of(norm_rows, norm_columns);
    if (!moves(norm_rows, norm_columns)) return;
    const float* rows = &memory[space.row_products + offset_of_rows(launch, index)];
    for (int64_t r = 0; r < layer.rows; ++r) layer.u[r] = rows[r] / norm_rows;
    for (int64_t c = 0; c < layer.columns; ++c) layer.v[c] = columns[c] / norm_columns;
}

template <typename T>
void write_outer(const Layer& layer, float coefficient) {
    for (int64_t r = 0; r < layer.rows; ++r) {
        T* row = static_cast<T*>(layer.weight) + r * layer.columns;
        for (int t = 0; t < kThreads; ++t) {
            write_outer_row(row, coefficient, layer.u[r], layer.v, layer.columns, t, kThreads);
        }
    }
}

// Calls function(chunk, thread) for every thread of every block.
template <typename Function>
void for_chunks(int64_t num_samples, int64_t size, Function function) {
    for (int64_t block = 0; block < num_samples * chunks_per_sample(size); ++block) {
        for (int t = 0; t < kThreads; ++t) function(chunk_of(block, size), t);
    }
}

template <typename T>
void scale(const T* values, int64_t num_samples, int64_t size, const float* scales, T* out) {
    for_chunks(num_samples, size, [&](Chunk chunk, int t) {
        scale_range(values, scales[chunk.sample], chunk.begin, chunk.end, out, t, kThreads);
    });
}

template <typename T>
void interpolate(const T* real, const T* fake, const float* weights, int64_t num_samples, int64_t size, T* out) {
    for_chunks(num_samples, size, [&](Chunk chunk, int t) {
        interpolate_range(real, fake, weights[chunk.sample], chunk.begin, chunk.end, out, t, kThreads);
    });
}

}  // namespace

extern "C" {

int64_t host_power_iteration(const Layer* layers, int num_layers, float* sigma) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return -1;
    // One number more than asked for, which must stay as it is.
    std::vector<float> memory(workspace_of(launch).size + 1, 0.0f);
    memory.back() = 12345.0f;
    for (int64_t block = 0; block < launch.first_row_tile[num_layers]; ++block) {
        const int index = layer_of_tile(launch.first_row_tile, num_layers, block);
        if (layers[index].dtype == kBFloat16) {
            iterate_tile<BFloat16>(launch, block, memory);
        } else {
            iterate_tile<float>(launch, block, memory);
        }
    }
    for (int i = 0; i < num_layers; ++i) finish_layer(launch, i, memory, sigma);
    return memory.back() == 12345.0f ? 0 : -2;
}

// Layer of every row tile; returns their number.
int64_t host_layers_of_tiles(const Layer* layers, int num_layers, int32_t* out) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return -1;
    const int64_t count = launch.first_row_tile[num_layers];
    for (int64_t tile = 0; tile < count; ++tile) out[tile] = layer_of_tile(launch.first_row_tile, num_layers, tile);
    return count;
}

void host_outer(const Layer* layers, int num_layers, const float* coefficients) {
    for (int i = 0; i < num_layers; ++i) {
        if (layers[i].dtype == kBFloat16) {
            write_outer<BFloat16>(layers[i], coefficients[i]);
        } else {
            write_outer<float>(layers[i], coefficients[i]);
        }
    }
}

void host_gradient_penalty(const void* gradients, int dtype, int64_t num_samples, int64_t size, float center,
                           int one_sided, float* penalty, float* factor) {
    const int64_t chunks = chunks_per_sample(size);
    std::vector<float> sums(num_samples * chunks);
    for (int64_t block = 0; block < num_samples * chunks; ++block) {
        const Chunk chunk = chunk_of(block, size);
        sums[block] = block_sum(threads(kThreads, [&](int t) {
            return dtype == kBFloat16
                       ? square_sum(static_cast<const BFloat16*>(gradients), chunk.begin, chunk.end, t, kThreads)
                       : square_sum(static_cast<const float*>(gradients), chunk.begin, chunk.end, t, kThreads);
        }));
    }
    for (int64_t n = 0; n < num_samples; ++n) {
        const float square = warp_sum(
            threads(kWarpSize, [&](int lane) { return strided_sum(&sums[n * chunks], chunks, lane, kWarpSize); }));
        const PenaltyValue value = penalty_of(square, center, one_sided != 0);
        penalty[n] = value.penalty;
        factor[n] = value.factor;
    }
}

void host_scale_samples(const void* values, int dtype, int64_t num_samples, int64_t size, const float* scales, void* out) {
    if (dtype == kBFloat16) {
        scale(static_cast<const BFloat16*>(values), num_samples, size, scales, static_cast<BFloat16*>(out));
    } else {
        scale(static_cast<const float*>(values), num_samples, size, scales, static_cast<float*>(out));
    }
}

void host_interpolate(const void* real, const void* fake, const float* weights, int dtype, int64_t num_samples,
                      int64_t size, void* out) {
    if (dtype == kBFloat16) {
        interpolate(static_cast<const BFloat16*>(real), static_cast<const BFloat16*>(fake), weights, num_samples, size,
                    static_cast<BFloat16*>(out));
    } else {
        interpolate(static_cast<const float*>(real), static_cast<const float*>(fake), weights, num_samples, size,
                    static_cast<float*>(out));
    }
}

float host_between(float real, float fake, float weight) { return between(real, fake, weight); }

void host_round(const float* values, int64_t size, uint16_t* out) {
    for (int64_t i = 0; i < size; ++i) store(reinterpret_cast<BFloat16*>(out) + i, values[i]);
}

}  // extern "C"
