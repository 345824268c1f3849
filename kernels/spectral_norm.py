# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Power iteration, u'Wv and c u v' for all layers of a network at once: csrc/spectral_norm.cu in Triton.

The layers are described by a table of addresses and sizes in GPU memory, made once per set of tensors.

Shape legend: L layers with matrices W_i, [R_i, K_i], u_i [R_i], v_i [K_i]; T tiles of ROWS rows over all layers.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.launch import on_its_gpu

# Constants, so that the order of every sum is the same on every GPU.
ROWS, COLUMNS = 16, 256
# At or below this a norm counts as zero.
_EPSILON = tl.constexpr(1e-12)
# What the table holds for every layer: addresses of W, u, v; R; K; first entry in scratch memory of Wv, of W'Wv; first
# tile; number of tiles.
_FIELDS = tl.constexpr(9)


class Table(NamedTuple):
    """The layers of a launch.

    layers: [L, 9] int64. tiles: [T] int32, the layer of every tile. num_rows, num_partial: sizes of scratch memory.
    """

    layers: Tensor
    tiles: Tensor
    num_rows: int
    num_partial: int


@triton.jit
def _load_tile(weight_ptr, first_row, rows, columns, column, DTYPE: tl.constexpr):
    """[ROWS, COLUMNS] of W in float32, 0 outside of it."""
    row = first_row + tl.arange(0, ROWS_OF_TILE)
    c = column + tl.arange(0, COLUMNS_OF_TILE)
    pointer = weight_ptr.to(tl.pointer_type(DTYPE)) + row[:, None] * columns + c[None, :]
    return tl.load(pointer, mask=(row[:, None] < rows) & (c[None, :] < columns), other=0.0).to(tl.float32)


ROWS_OF_TILE, COLUMNS_OF_TILE = tl.constexpr(ROWS), tl.constexpr(COLUMNS)


@triton.jit
def _tile_products(layer, first_row, DTYPE: tl.constexpr):
    """[ROWS] of Wv for one tile of rows."""
    v_ptr = tl.load(layer + 2).to(tl.pointer_type(tl.float32))
    rows, columns = tl.load(layer + 3), tl.load(layer + 4)
    sums = tl.zeros([ROWS_OF_TILE], dtype=tl.float32)
    column = columns * 0
    while column < columns:
        tile = _load_tile(tl.load(layer), first_row, rows, columns, column, DTYPE)
        c = column + tl.arange(0, COLUMNS_OF_TILE)
        v = tl.load(v_ptr + c, mask=c < columns, other=0.0)
        sums += tl.sum(tile * v[None, :], axis=1)
        column += COLUMNS_OF_TILE
    return sums


@triton.jit
def iterate_rows_kernel(table_ptr, tiles_ptr, products_ptr, partial_ptr, DTYPE: tl.constexpr):
    """Wv of one tile of rows, and the tile's share of W'Wv. Grid: (T,)."""
    tile = tl.program_id(0)
    layer = table_ptr + tl.load(tiles_ptr + tile).to(tl.int64) * _FIELDS
    rows, columns = tl.load(layer + 3), tl.load(layer + 4)
    number = tile - tl.load(layer + 7)
    first_row = number * ROWS_OF_TILE
    sums = _tile_products(layer, first_row, DTYPE)
    row = first_row + tl.arange(0, ROWS_OF_TILE)
    tl.store(products_ptr + tl.load(layer + 5) + row, sums, mask=row < rows)
    out_ptr = partial_ptr + tl.load(layer + 6) + number * columns
    column = columns * 0
    while column < columns:
        weights = _load_tile(tl.load(layer), first_row, rows, columns, column, DTYPE)
        c = column + tl.arange(0, COLUMNS_OF_TILE)
        tl.store(out_ptr + c, tl.sum(weights * sums[:, None], axis=0), mask=c < columns)
        column += COLUMNS_OF_TILE


@triton.jit
def _column_sums(partial_ptr, num_tiles, columns, c):
    """[COLUMNS]: the tiles' shares added up in their order."""
    sums = tl.zeros([COLUMNS_OF_TILE], dtype=tl.float32)
    tile = num_tiles * 0
    while tile < num_tiles:
        sums += tl.load(partial_ptr + tile * columns + c, mask=c < columns, other=0.0)
        tile += 1
    return sums


@triton.jit
def iterate_columns_kernel(table_ptr, products_ptr, partial_ptr, sigma_ptr):
    """u, v and sigma of one layer. Grid: (L,)."""
    index = tl.program_id(0)
    layer = table_ptr + index.to(tl.int64) * _FIELDS
    u_ptr, v_ptr = (
        tl.load(layer + 1).to(tl.pointer_type(tl.float32)),
        tl.load(layer + 2).to(tl.pointer_type(tl.float32)),
    )
    rows, columns, num_tiles = tl.load(layer + 3), tl.load(layer + 4), tl.load(layer + 8)
    products_ptr += tl.load(layer + 5)
    partial_ptr += tl.load(layer + 6)
    squares = tl.zeros([COLUMNS_OF_TILE], dtype=tl.float32)
    row = rows * 0
    while row < rows:
        r = row + tl.arange(0, COLUMNS_OF_TILE)
        product = tl.load(products_ptr + r, mask=r < rows, other=0.0)
        squares += product * product
        row += COLUMNS_OF_TILE
    rows_norm = tl.sqrt(tl.sum(squares, axis=0))
    # Divided before it is squared, so that the square of sigma, not its fourth power, must fit a float.
    divisor = tl.where(rows_norm <= _EPSILON, 1.0, rows_norm)
    squares = tl.zeros([COLUMNS_OF_TILE], dtype=tl.float32)
    column = columns * 0
    while column < columns:
        c = column + tl.arange(0, COLUMNS_OF_TILE)
        value = _column_sums(partial_ptr, num_tiles, columns, c) / divisor
        squares += value * value
        column += COLUMNS_OF_TILE
    columns_norm = tl.sqrt(tl.sum(squares, axis=0))
    moves = (rows_norm > _EPSILON) & (columns_norm > _EPSILON)
    # A zero matrix has sigma 0 and keeps its vectors; NaN is handed on.
    is_zero = (rows_norm <= _EPSILON) | (columns_norm <= _EPSILON)
    tl.store(sigma_ptr + index, tl.where(is_zero, 0.0, columns_norm))
    num_moved_rows, num_moved_columns = tl.where(moves, rows, 0), tl.where(moves, columns, 0)
    row = rows * 0
    while row < rows:
        r = row + tl.arange(0, COLUMNS_OF_TILE)
        product = tl.load(products_ptr + r, mask=r < rows, other=0.0)
        tl.store(u_ptr + r, product / divisor, mask=r < num_moved_rows)
        row += COLUMNS_OF_TILE
    column = columns * 0
    while column < columns:
        c = column + tl.arange(0, COLUMNS_OF_TILE)
        value = _column_sums(partial_ptr, num_tiles, columns, c) / divisor / tl.where(moves, columns_norm, 1.0)
        tl.store(v_ptr + c, value, mask=c < num_moved_columns)
        column += COLUMNS_OF_TILE


@triton.jit
def bilinear_tiles_kernel(table_ptr, tiles_ptr, sums_ptr, DTYPE: tl.constexpr):
    """u'Wv of one tile of rows. Grid: (T,)."""
    tile = tl.program_id(0)
    layer = table_ptr + tl.load(tiles_ptr + tile).to(tl.int64) * _FIELDS
    first_row = (tile - tl.load(layer + 7)) * ROWS_OF_TILE
    row = first_row + tl.arange(0, ROWS_OF_TILE)
    u = tl.load(tl.load(layer + 1).to(tl.pointer_type(tl.float32)) + row, mask=row < tl.load(layer + 3), other=0.0)
    tl.store(sums_ptr + tile, tl.sum(u * _tile_products(layer, first_row, DTYPE), axis=0))


@triton.jit
def bilinear_sums_kernel(table_ptr, sums_ptr, out_ptr):
    """The sum over one layer's tiles. Grid: (L,)."""
    index = tl.program_id(0)
    layer = table_ptr + index.to(tl.int64) * _FIELDS
    first, num_tiles = tl.load(layer + 7), tl.load(layer + 8)
    sums = tl.zeros([COLUMNS_OF_TILE], dtype=tl.float32)
    tile = num_tiles * 0
    while tile < num_tiles:
        t = tile + tl.arange(0, COLUMNS_OF_TILE)
        sums += tl.load(sums_ptr + first + t, mask=t < num_tiles, other=0.0)
        tile += COLUMNS_OF_TILE
    tl.store(out_ptr + index, tl.sum(sums, axis=0))


@triton.jit
def outer_kernel(table_ptr, tiles_ptr, coefficients_ptr, DTYPE: tl.constexpr):
    """c u v' for one tile of rows, written where the table has W. Grid: (T,)."""
    tile = tl.program_id(0)
    index = tl.load(tiles_ptr + tile).to(tl.int64)
    layer = table_ptr + index * _FIELDS
    rows, columns = tl.load(layer + 3), tl.load(layer + 4)
    row = (tile - tl.load(layer + 7)) * ROWS_OF_TILE + tl.arange(0, ROWS_OF_TILE)
    u = tl.load(tl.load(layer + 1).to(tl.pointer_type(tl.float32)) + row, mask=row < rows, other=0.0)
    scaled = u * tl.load(coefficients_ptr + index)
    v_ptr = tl.load(layer + 2).to(tl.pointer_type(tl.float32))
    column = columns * 0
    while column < columns:
        c = column + tl.arange(0, COLUMNS_OF_TILE)
        v = tl.load(v_ptr + c, mask=c < columns, other=0.0)
        pointer = tl.load(layer).to(tl.pointer_type(DTYPE)) + row[:, None] * columns + c[None, :]
        tl.store(pointer, (scaled[:, None] * v[None, :]).to(DTYPE), mask=(row[:, None] < rows) & (c[None, :] < columns))
        column += COLUMNS_OF_TILE


@lru_cache(maxsize=64)
def _table(layers: tuple[tuple[int, int, int, int, int], ...], device: torch.device) -> Table:
    """The table for layers given as (address of W, of u, of v, R, K)."""
    rows: list[list[int]] = []
    tiles: list[int] = []
    num_rows = num_partial = 0
    for index, layer in enumerate(layers):
        num_tiles = triton.cdiv(layer[3], ROWS)
        rows.append([*layer, num_rows, num_partial, len(tiles), num_tiles])
        tiles += [index] * num_tiles
        num_rows, num_partial = num_rows + layer[3], num_partial + num_tiles * layer[4]
    table = torch.tensor(rows, dtype=torch.int64, device=device)
    return Table(table, torch.tensor(tiles, dtype=torch.int32, device=device), num_rows, num_partial)


def table_of(matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> Table:
    """The table of these tensors, which must be contiguous."""
    rows = zip(matrices, left, right, strict=True)
    layers = tuple((w.data_ptr(), u.data_ptr(), v.data_ptr(), w.shape[0], w.shape[1]) for w, u, v in rows)
    return _table(layers, matrices[0].device)


@on_its_gpu
def power_iteration_(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *, num_iterations: int = 1
) -> Tensor:
    """As `fastgan.native.power_iteration_`."""
    table, dtype = table_of(matrices, left, right), _dtype(matrices[0].dtype)
    sizes = (len(matrices), table.num_rows, table.num_partial)
    sigma, products, partial = (torch.empty(n, dtype=torch.float32, device=matrices[0].device) for n in sizes)
    for _ in range(num_iterations):
        iterate_rows_kernel[(len(table.tiles),)](table.layers, table.tiles, products, partial, DTYPE=dtype)
        iterate_columns_kernel[(len(matrices),)](table.layers, products, partial, sigma)
    return sigma


@on_its_gpu
def bilinear(matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """[L] float32 of u_i' W_i v_i."""
    table = table_of(matrices, left, right)
    sums = torch.empty(len(table.tiles), dtype=torch.float32, device=matrices[0].device)
    out = torch.empty(len(matrices), dtype=torch.float32, device=matrices[0].device)
    bilinear_tiles_kernel[(len(table.tiles),)](table.layers, table.tiles, sums, DTYPE=_dtype(matrices[0].dtype))
    bilinear_sums_kernel[(len(matrices),)](table.layers, sums, out)
    return out


@on_its_gpu
def outer(coefficients: Tensor, left: Sequence[Tensor], right: Sequence[Tensor], *, dtype: torch.dtype) -> list[Tensor]:
    """c_i u_i v_i', [R_i, K_i] of `dtype`; coefficients [L] float32."""
    sizes = [(u.shape[0], v.shape[0]) for u, v in zip(left, right, strict=True)]
    made = [torch.empty(size, dtype=dtype, device=coefficients.device) for size in sizes]
    table = table_of(made, left, right)
    outer_kernel[(len(table.tiles),)](table.layers, table.tiles, coefficients, DTYPE=_dtype(dtype))
    return made


def _dtype(dtype: torch.dtype) -> tl.dtype:
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}[dtype]
