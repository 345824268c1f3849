"""Tile sizes of the convolution kernels, and the rule that picks one. Plain Python.

Shape legend: an implicit GEMM multiplies [M, K] by [K, N]: M output pixels, N output channels, K input channels, once
per tap of the convolution kernel. In the weight gradient M are input channels and K output pixels.
"""

from typing import NamedTuple

# Programs that keep every multiprocessor of a large GPU busy twice. A constant, so that the order in which partial sums
# are added, and with it every bit of the result, does not depend on the GPU.
NUM_PROGRAMS = 264


# Triton moves neighbouring numbers together where sizes are multiples of so many. Elsewhere each has an address of its
# own in registers, and large blocks spill.
TOGETHER = 16


class Tile(NamedTuple):
    """One configuration: block sizes in elements (K for 2-byte numbers), warps and pipeline stages."""

    m: int
    n: int
    k: int
    num_warps: int
    num_stages: int

    def block_k(self, itemsize: int) -> int:
        """K in elements of `itemsize` bytes: float32 takes half as many, so that the same shared memory suffices."""
        return self.k if itemsize <= 2 else self.k // 2


# Convolution and transposed convolution, widest first. The narrow ones serve layers that write images.
CONV_TILES = (
    Tile(128, 128, 32, num_warps=8, num_stages=4),
    Tile(128, 64, 32, num_warps=8, num_stages=4),
    Tile(64, 64, 32, num_warps=4, num_stages=4),
    Tile(128, 32, 32, num_warps=4, num_stages=4),
    Tile(128, 16, 32, num_warps=4, num_stages=4),
)

WEIGHT_GRAD_TILES = (
    Tile(128, 64, 64, num_warps=4, num_stages=3),
    Tile(64, 64, 64, num_warps=4, num_stages=3),
    Tile(16, 64, 64, num_warps=4, num_stages=3),
    Tile(64, 16, 64, num_warps=4, num_stages=3),
)

# Element-wise kernels: numbers per program.
ELEMENTS = 1024


def conv_tile(num_pixels: int, num_channels: int, *, scales_and_adds: bool = False) -> Tile:
    """The tile for M = `num_pixels` of one phase and N = `num_channels` of one group.

    The narrowest tile that holds all channels; below a full GPU of 128-pixel tiles, 64 pixels each. The widest one only
    where the addresses of results, of scales for each image and of noise leave it registers.

    Args:
        scales_and_adds: whether the epilogue reads a scale for each image and noise for each pixel.
    """
    wide, plain, short, narrow, image = CONV_TILES
    if num_channels <= image.n:
        return image
    if num_channels <= narrow.n:
        return narrow
    programs = cdiv(num_pixels, plain.m) * cdiv(num_channels, plain.n)
    if programs < NUM_PROGRAMS:
        return short
    fills = num_channels >= wide.n and programs >= 2 * NUM_PROGRAMS
    has_registers = num_channels % TOGETHER == 0 and not scales_and_adds
    return wide if fills and has_registers else plain


def weight_grad_tile(num_in_channels: int, num_out_channels: int) -> Tile:
    """The tile for M = `num_in_channels` and N = `num_out_channels` of one group."""
    wide, plain, few_in, few_out = WEIGHT_GRAD_TILES
    if num_in_channels <= few_in.m:
        return few_in
    if num_out_channels <= few_out.n:
        return few_out
    return wide if num_in_channels >= wide.m and num_in_channels % TOGETHER == 0 else plain


def num_splits(num_tiles: int, num_pixels: int, tile: Tile) -> int:
    """Into how many parts the pixels of a weight gradient are cut: enough programs, at least four blocks in each."""
    return max(1, min(cdiv(NUM_PROGRAMS, num_tiles), num_pixels // (4 * tile.k)))


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
