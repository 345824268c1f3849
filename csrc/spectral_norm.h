// Index arithmetic and sums of the spectral-norm kernels, without threads, so that a CPU can run and test them.
//
// Shape legend: L layers; layer i holds a matrix W_i, [R_i, K_i], row by row, and the vectors u_i, [R_i], v_i, [K_i].
//
// One step of the power iteration, u = Wv / |Wv| and v = W'u / |W'u|, reads W from memory once: with t = Wv, both
// u = t / |t| and v = W't / |W't| follow, so a block that holds some rows computes their entries of t and at once their
// share of W't, while the rows are still in cache. The norms come later, from a second launch over W't.
#pragma once

#include "host_device.h"

namespace fastgan {

constexpr int kMaxLayers = 64;
constexpr int kThreads = 256;
constexpr int kWarpSize = 32;
constexpr int kWarps = kThreads / kWarpSize;
// Constants, so that the order of every sum, and with it every bit of the result, is the same on every GPU.
constexpr int kRowsPerTile = 16;
constexpr int kColumnsPerTile = kThreads;
// At or below this a norm counts as zero.
constexpr float kEpsilon = 1e-12f;

enum DType : int32_t { kFloat32 = 0, kBFloat16 = 1 };

// One layer as the caller passes it. u and v are float32, the weight is of type `dtype`.
struct Layer {
    void* weight;
    float* u;
    float* v;
    int64_t rows;
    int64_t columns;
    int64_t dtype;
};

FASTGAN_HOST_DEVICE int64_t num_row_tiles(const Layer& layer) { return divide_up(layer.rows, kRowsPerTile); }

FASTGAN_HOST_DEVICE int64_t num_column_tiles(const Layer& layer) { return divide_up(layer.columns, kColumnsPerTile); }

// The layers of one launch and where each one's tiles and scratch memory begin. Lies in the kernel's arguments.
struct Launch {
    Layer layers[kMaxLayers];
    int32_t first_row_tile[kMaxLayers + 1];
    int32_t first_column_tile[kMaxLayers + 1];
    int32_t num_layers;
};
static_assert(sizeof(Launch) <= 4000, "kernel arguments hold 4 KiB on every driver");

// The last layer whose first tile is at or before `tile`; every layer has at least one tile.
FASTGAN_HOST_DEVICE int layer_of_tile(const int32_t* first_tile, int num_layers, int64_t tile) {
    int low = 0, high = num_layers - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (first_tile[middle] <= tile) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// Some rows of one layer, on which one block works: the layer's tile number `number`, rows [first, first + num_rows).
struct RowTile {
    int layer;
    int64_t number, first;
    int num_rows;
};

FASTGAN_HOST_DEVICE RowTile row_tile_of(const Launch& launch, int64_t block) {
    const int layer = layer_of_tile(launch.first_row_tile, launch.num_layers, block);
    const int64_t number = block - launch.first_row_tile[layer], first = number * kRowsPerTile;
    return {layer, number, first, static_cast<int>(smaller(kRowsPerTile, launch.layers[layer].rows - first))};
}

template <typename T>
FASTGAN_HOST_DEVICE T* first_row(const Layer& layer, const RowTile& tile) {
    return static_cast<T*>(layer.weight) + tile.first * layer.columns;
}

// The layer and the column, perhaps beyond its last one, on which a thread of a block works.
struct Column {
    int layer;
    int64_t number;
};

FASTGAN_HOST_DEVICE Column column_of(const Launch& launch, int64_t block, int thread) {
    const int layer = layer_of_tile(launch.first_column_tile, launch.num_layers, block);
    return {layer, (block - launch.first_column_tile[layer]) * kColumnsPerTile + thread};
}

// False if the layers do not fit one launch or are not valid.
inline bool fill_launch(const Layer* layers, int num_layers, Launch* launch) {
    if (num_layers < 1 || num_layers > kMaxLayers) return false;
    int64_t rows = 0, columns = 0;
    launch->num_layers = num_layers;
    for (int i = 0; i < num_layers; ++i) {
        if (layers[i].rows < 1 || layers[i].columns < 1) return false;
        if (layers[i].dtype != kFloat32 && layers[i].dtype != kBFloat16) return false;
        launch->layers[i] = layers[i];
        launch->first_row_tile[i] = static_cast<int32_t>(rows);
        launch->first_column_tile[i] = static_cast<int32_t>(columns);
        rows += num_row_tiles(layers[i]);
        columns += num_column_tiles(layers[i]);
        if (rows > INT32_MAX || columns > INT32_MAX) return false;
    }
    launch->first_row_tile[num_layers] = static_cast<int32_t>(rows);
    launch->first_column_tile[num_layers] = static_cast<int32_t>(columns);
    return true;
}

// Scratch memory in floats: t; each row tile's |t|^2; each row tile's share of W't; W't / |t|; each column tile's square.
struct Workspace {
    int64_t row_products, tile_squares, partial_columns, columns, column_squares, tickets, size;
};

FASTGAN_HOST_DEVICE int64_t offset_of_rows(const Launch& launch, int layer) {
    return static_cast<int64_t>(launch.first_row_tile[layer]) * kRowsPerTile;
}

FASTGAN_HOST_DEVICE int64_t offset_of_columns(const Launch& launch, int layer) {
    return static_cast<int64_t>(launch.first_column_tile[layer]) * kColumnsPerTile;
}

// Where the row tile `tile` of its layer puts its share of W't, counted from Workspace::partial_columns.
FASTGAN_HOST_DEVICE int64_t offset_of_partial(const Launch& launch, int layer, int64_t tile) {
    int64_t offset = 0;
    for (int i = 0; i < layer; ++i) offset += num_row_tiles(launch.layers[i]) * launch.layers[i].columns;
    return offset + tile * launch.layers[layer].columns;
}

FASTGAN_HOST_DEVICE Workspace workspace_of(const Launch& launch) {
    const int last = launch.num_layers - 1;
    Workspace space;
    space.row_products = 0;
    space.tile_squares = space.row_products + offset_of_rows(launch, launch.num_layers);
    space.columns = space.tile_squares + launch.first_row_tile[launch.num_layers];
    space.column_squares = space.columns + offset_of_columns(launch, launch.num_layers);
    space.tickets = space.column_squares + launch.first_column_tile[launch.num_layers];
    space.partial_columns = space.tickets + launch.num_layers;
    space.size = space.partial_columns + offset_of_partial(launch, last, num_row_tiles(launch.layers[last]));
    return space;
}

// The sum of row[c] * vector[c] over the columns that thread `lane` of `num_lanes` takes.
template <typename T>
FASTGAN_HOST_DEVICE float row_dot(const T* row, const float* vector, int64_t columns, int lane, int num_lanes) {
    float sum = 0.0f;
    if (columns % Pack<T>::kSize == 0 && is_aligned(row) && is_aligned(vector)) {
        const Pack<T>* packs = reinterpret_cast<const Pack<T>*>(row);
        const int64_t num_packs = columns / Pack<T>::kSize;
#pragma unroll 4
        for (int64_t p = lane; p < num_packs; p += num_lanes) {
            const Pack<T> weights = packs[p];
            Pack<float> factors[sizeof(float) / sizeof(T)];
            for (int i = 0; i < static_cast<int>(sizeof(float) / sizeof(T)); ++i) {
                factors[i] = reinterpret_cast<const Pack<float>*>(vector + p * Pack<T>::kSize)[i];
            }
            for (int i = 0; i < Pack<T>::kSize; ++i) {
                sum += to_float(weights.values[i]) * factors[i / Pack<float>::kSize].values[i % Pack<float>::kSize];
            }
        }
        return sum;
    }
#pragma unroll 4
    for (int64_t c = lane; c < columns; c += num_lanes) sum += to_float(row[c]) * vector[c];
    return sum;
}

// out[c] = sum over `num_rows` rows of products[r] * rows[r, c], for the columns that thread `lane` takes.
template <typename T>
FASTGAN_HOST_DEVICE void weighted_row_sum(const T* rows, const float* products, int num_rows, int64_t columns, float* out,
                                          int lane, int num_lanes) {
    if (columns % Pack<T>::kSize == 0 && is_aligned(rows)) {
        for (int64_t p = lane; p < columns / Pack<T>::kSize; p += num_lanes) {
            float sums[Pack<T>::kSize] = {};
#pragma unroll 8
            for (int r = 0; r < num_rows; ++r) {
                const Pack<T> pack = reinterpret_cast<const Pack<T>*>(rows + r * columns)[p];
                for (int i = 0; i < Pack<T>::kSize; ++i) sums[i] += products[r] * to_float(pack.values[i]);
            }
            for (int i = 0; i < Pack<T>::kSize; ++i) out[p * Pack<T>::kSize + i] = sums[i];
        }
        return;
    }
    for (int64_t c = lane; c < columns; c += num_lanes) {
        float sum = 0.0f;
#pragma unroll 8
        for (int r = 0; r < num_rows; ++r) sum += products[r] * to_float(rows[r * columns + c]);
        out[c] = sum;
    }
}

// The sum over row tiles of `partial`, [num_tiles, columns], in column `c`.
FASTGAN_HOST_DEVICE float column_sum(const float* partial, int64_t num_tiles, int64_t columns, int64_t c) {
    float sum = 0.0f;
#pragma unroll 4
    for (int64_t tile = 0; tile < num_tiles; ++tile) sum += partial[tile * columns + c];
    return sum;
}

// The sum of values[i] that thread `lane` takes.
FASTGAN_HOST_DEVICE float strided_sum(const float* values, int64_t size, int lane, int num_lanes) {
    float sum = 0.0f;
    for (int64_t i = lane; i < size; i += num_lanes) sum += values[i];
    return sum;
}

// The sum of a[i] * b[i], in their order.
FASTGAN_HOST_DEVICE float ordered_dot(const float* a, const float* b, int size) {
    float sum = 0.0f;
    for (int i = 0; i < size; ++i) sum += a[i] * b[i];
    return sum;
}

// out[i] = values[i] / norm for the numbers that thread `lane` takes.
FASTGAN_HOST_DEVICE void divide(const float* values, float norm, int64_t size, float* out, int lane, int num_lanes) {
    for (int64_t i = lane; i < size; i += num_lanes) out[i] = values[i] / norm;
}

// An entry of W'u from that of W't: 0 where t is, NaN where its norm is. Divided before it is squared, so that the square
// of sigma, not its fourth power, must fit a float.
FASTGAN_HOST_DEVICE float scaled_column(float sum, float norm_rows) {
    if (norm_rows > kEpsilon) return sum / norm_rows;
    return norm_rows == norm_rows ? 0.0f : norm_rows;
}

// Whether u and v follow from these norms; false for zero and for NaN, where both stay.
FASTGAN_HOST_DEVICE bool moves(float norm_rows, float norm_columns) {
    return norm_rows > kEpsilon && norm_columns > kEpsilon;
}

// u'Wv = |W'u| for the new u and v; 0 for a zero matrix, and NaN is handed on.
FASTGAN_HOST_DEVICE float sigma_of(float norm_rows, float norm_columns) {
    return moves(norm_rows, norm_columns) || norm_columns != norm_columns ? norm_columns : 0.0f;
}

// A row of coefficient * u v', the derivative of u'Wv, in the columns that thread `lane` takes.
template <typename T>
FASTGAN_HOST_DEVICE void write_outer_row(T* row, float coefficient, float u, const float* v, int64_t columns, int lane,
                                         int num_lanes) {
    const float scaled = coefficient * u;
    if (columns % Pack<T>::kSize == 0 && is_aligned(row)) {
        for (int64_t p = lane; p < columns / Pack<T>::kSize; p += num_lanes) {
            Pack<T> pack;
#pragma unroll
            for (int i = 0; i < Pack<T>::kSize; ++i) store(pack.values + i, scaled * v[p * Pack<T>::kSize + i]);
            reinterpret_cast<Pack<T>*>(row)[p] = pack;
        }
        return;
    }
    for (int64_t c = lane; c < columns; c += num_lanes) store(row + c, scaled * v[c]);
}

}  // namespace fastgan
