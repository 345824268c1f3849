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
void tile_products(const Layer& layer, const RowTile& tile, float* products) {
    for (int r = 0; r < tile.num_rows; ++r) {
        products[r] = warp_sum(threads(kWarpSize, [&](int lane) {
            return row_dot(first_row<T>(layer, tile) + r * layer.columns, layer.v, layer.columns, lane, kWarpSize);
        }));
    }
}

// The count of a layer's finished column tiles.
uint32_t* tickets_of(const Launch& launch, int index, std::vector<float>& memory) {
    return reinterpret_cast<uint32_t*>(&memory[workspace_of(launch).tickets]) + index;
}

template <typename T>
void iterate_rows(const Launch& launch, int64_t block, std::vector<float>& memory) {
    const RowTile tile = row_tile_of(launch, block);
    const Layer& layer = launch.layers[tile.layer];
    const Workspace space = workspace_of(launch);
    float* products = &memory[space.row_products + offset_of_rows(launch, tile.layer) + tile.first];
    tile_products<T>(layer, tile, products);
    memory[space.tile_squares + block] = ordered_dot(products, products, tile.num_rows);
    float* partial = &memory[space.partial_columns + offset_of_partial(launch, tile.layer, tile.number)];
    if (tile.number == 0) *tickets_of(launch, tile.layer, memory) = 0;
    const T* rows = first_row<T>(layer, tile);
    for (int t = 0; t < kThreads; ++t) {
        weighted_row_sum(rows, products, tile.num_rows, layer.columns, partial, t, kThreads);
    }
}

// The sum of `size` values as a block forms it.
float block_total(const float* values, int64_t size) {
    return block_sum(threads(kThreads, [&](int t) { return strided_sum(values, size, t, kThreads); }));
}

float norm_of_rows(const Launch& launch, int index, const std::vector<float>& memory) {
    const float* squares = &memory[workspace_of(launch).tile_squares + launch.first_row_tile[index]];
    return std::sqrt(block_total(squares, num_row_tiles(launch.layers[index])));
}

void write_vectors(const Launch& launch, int index, const std::vector<float>& memory, float* sigma) {
    const Layer& layer = launch.layers[index];
    const Workspace space = workspace_of(launch);
    const float* squares = &memory[space.column_squares + launch.first_column_tile[index]];
    const float norm_rows = norm_of_rows(launch, index, memory);
    const float norm_columns = std::sqrt(block_total(squares, num_column_tiles(layer)));
    sigma[index] = sigma_of(norm_rows, norm_columns);
    if (!moves(norm_rows, norm_columns)) return;
    const float* rows = &memory[space.row_products + offset_of_rows(launch, index)];
    const float* columns = &memory[space.columns + offset_of_columns(launch, index)];
    for (int t = 0; t < kThreads; ++t) {
        divide(rows, norm_rows, layer.rows, layer.u, t, kThreads);
        divide(columns, norm_columns, layer.columns, layer.v, t, kThreads);
    }
}

void iterate_columns(const Launch& launch, int64_t block, std::vector<float>& memory, float* sigma) {
    const Workspace space = workspace_of(launch);
    const int index = column_of(launch, block, 0).layer;
    const float norm_rows = norm_of_rows(launch, index, memory);
    memory[space.column_squares + block] = block_sum(threads(kThreads, [&](int t) {
        const Column column = column_of(launch, block, t);
        const Layer& layer = launch.layers[column.layer];
        if (column.number >= layer.columns) return 0.0f;
        const float* partial = &memory[space.partial_columns + offset_of_partial(launch, column.layer, 0)];
        const float sum = column_sum(partial, num_row_tiles(layer), layer.columns, column.number);
        const float value = scaled_column(sum, norm_rows);
        memory[space.columns + offset_of_columns(launch, column.layer) + column.number] = value;
        return value * value;
    }));
    if (++*tickets_of(launch, index, memory) == num_column_tiles(launch.layers[index])) {
        write_vectors(launch, index, memory, sigma);
    }
}

template <typename T>
float bilinear_tile(const Layer& layer, const RowTile& tile) {
    float products[kRowsPerTile];
    tile_products<T>(layer, tile, products);
    return ordered_dot(layer.u + tile.first, products, tile.num_rows);
}

template <typename T>
void write_outer(const Layer& layer, const RowTile& tile, float coefficient) {
    for (int r = 0; r < tile.num_rows; ++r) {
        T* row = first_row<T>(layer, tile) + r * layer.columns;
        for (int t = 0; t < kThreads; ++t) {
            write_outer_row(row, coefficient, layer.u[tile.first + r], layer.v, layer.columns, t, kThreads);
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
    // One number more than asked for, which must stay as it is; NaN shows what is read before it is written.
    std::vector<float> memory(workspace_of(launch).size + 1, NAN);
    memory.back() = 12345.0f;
    for (int64_t block = 0; block < launch.first_row_tile[num_layers]; ++block) {
        if (layers[row_tile_of(launch, block).layer].dtype == kBFloat16) {
            iterate_rows<BFloat16>(launch, block, memory);
        } else {
            iterate_rows<float>(launch, block, memory);
        }
    }
    for (int64_t block = 0; block < launch.first_column_tile[num_layers]; ++block) {
        iterate_columns(launch, block, memory, sigma);
    }
    return memory.back() == 12345.0f ? 0 : -2;
}

int64_t host_bilinear(const Layer* layers, int num_layers, float* out) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return -1;
    std::vector<float> memory(launch.first_row_tile[num_layers]);
    for (size_t block = 0; block < memory.size(); ++block) {
        const RowTile tile = row_tile_of(launch, block);
        const Layer& layer = layers[tile.layer];
        memory[block] =
            layer.dtype == kBFloat16 ? bilinear_tile<BFloat16>(layer, tile) : bilinear_tile<float>(layer, tile);
    }
    for (int i = 0; i < num_layers; ++i) {
        out[i] = block_total(&memory[launch.first_row_tile[i]], num_row_tiles(layers[i]));
    }
    return 0;
}

// Layer of every row tile; returns their number.
int64_t host_layers_of_tiles(const Layer* layers, int num_layers, int32_t* out) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return -1;
    const int64_t count = launch.first_row_tile[num_layers];
    for (int64_t tile = 0; tile < count; ++tile) out[tile] = layer_of_tile(launch.first_row_tile, num_layers, tile);
    return count;
}

int64_t host_outer(const Layer* layers, int num_layers, const float* coefficients) {
    Launch launch;
    if (!fill_launch(layers, num_layers, &launch)) return -1;
    for (int64_t block = 0; block < launch.first_row_tile[num_layers]; ++block) {
        const RowTile tile = row_tile_of(launch, block);
        if (layers[tile.layer].dtype == kBFloat16) {
            write_outer<BFloat16>(layers[tile.layer], tile, coefficients[tile.layer]);
        } else {
            write_outer<float>(layers[tile.layer], tile, coefficients[tile.layer]);
        }
    }
    return 0;
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
