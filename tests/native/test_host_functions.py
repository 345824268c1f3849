"""Index arithmetic and sums of the CUDA kernels, run on the CPU against the ops' references."""

import ctypes

import pytest
import torch
from torch import Tensor

from fastgan import native
from fastgan.ops import gradient_penalty, interpolate, power_iteration_, spectral_norm

# One row, one column, one element, a tile of rows less and more than 16, columns that do and do not divide 16 bytes.
SHAPES = [(1, 9), (9, 1), (1, 1), (15, 8), (16, 64), (17, 30), (40, 257), (2, 3000), (300, 2)]

DTYPES = [torch.float32, torch.bfloat16]
# One number, fewer and more than 16 bytes, whole chunks, and chunks with a rest that does and does not divide 16 bytes.
SIZES = [1, 3, 64, 1000, 8192, 8200, 20001]

int64, float32 = ctypes.c_int64, ctypes.c_float


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def samples(size: int, dtype: torch.dtype, *, seed: int = 0) -> tuple[Tensor, int]:
    """[3, size] and the number of its dtype in the C interface."""
    values = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values, native._DTYPES[dtype]


def make(shapes: list[tuple[int, int]], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def unit(size: int) -> Tensor:
        vector = torch.randn(size, generator=generator)
        return vector / vector.norm()

    matrices = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return matrices, [unit(rows) for rows, _ in shapes], [unit(columns) for _, columns in shapes]


def shifted(tensor: Tensor) -> Tensor:
    """A copy that does not lie at a multiple of 16 bytes, as in a buffer that holds several tensors."""
    return torch.cat([torch.zeros(1, dtype=tensor.dtype), tensor.flatten()])[1:].view(tensor.shape)


def run_host(library: ctypes.CDLL, matrices: list[Tensor], left: list[Tensor], right: list[Tensor]) -> Tensor:
    sigma = torch.full((len(matrices),), float("nan"))
    ((_, count, layers),) = native._launches(matrices, left, right)
    assert library.host_power_iteration(layers, count, ctypes.c_void_p(sigma.data_ptr())) == 0
    return sigma


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_iteration_equals_the_reference_in_double(host_library: ctypes.CDLL, dtype: torch.dtype) -> None:
    matrices, left, right = make([*SHAPES, (15, 8), (16, 64)], dtype)
    matrices[-2], right[-1] = shifted(matrices[-2]), shifted(right[-1])
    exact = [[t.double() for t in side] for side in (matrices, left, right)]
    for _ in range(3):
        sigma = run_host(host_library, matrices, left, right)
        power_iteration_(*exact)
    for got, expected in zip([*left, *right], [*exact[1], *exact[2]], strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-6)
    torch.testing.assert_close(sigma.double(), spectral_norm(*exact), rtol=3e-6, atol=0)


def test_zero_and_tiny_matrices(host_library: ctypes.CDLL) -> None:
    matrices, left, right = make([(3, 4), (3, 4), (5, 2)], torch.float32)
    matrices[0].zero_()
    matrices[2].mul_(1e-9)
    before = left[0].clone(), right[0].clone()
    tiny_left, tiny_right = [u.clone() for u in left], [v.clone() for v in right]
    sigma = run_host(host_library, matrices, left, right)
    assert sigma[0] == 0
    torch.testing.assert_close((left[0], right[0]), before, rtol=0, atol=0)
    exact = [[side[2].double()] for side in (matrices, tiny_left, tiny_right)]
    power_iteration_(*exact)
    torch.testing.assert_close((left[2].double(), right[2].double()), (exact[1][0], exact[2][0]), rtol=0, atol=3e-6)
    assert sigma[2].item() == pytest.approx(spectral_norm(*exact).item(), rel=3e-6)


def test_every_tile_finds_its_layer(host_library: ctypes.CDLL) -> None:
    shapes = [(1, 1), (16, 3), (17, 3), (160, 2), (1, 5)] * 12
    matrices, left, right = make(shapes, torch.float32)
    ((_, count, layers),) = native._launches(matrices, left, right)
    found = torch.empty(1000, dtype=torch.int32)
    total = host_library.host_layers_of_tiles(layers, count, ctypes.c_void_p(found.data_ptr()))
    expected = [index for index, (rows, _) in enumerate(shapes) for _ in range(-(-rows // 16))]
    assert found[:total].tolist() == expected


def test_more_layers_than_fit_one_launch_are_split() -> None:
    matrices, left, right = make([(1, 1)] * 130, torch.float32)
    assert [(first, count) for first, count, _ in native._launches(matrices, left, right)] == [
        (0, 64),
        (64, 64),
        (128, 2),
    ]


def test_invalid_layers_are_refused(host_library: ctypes.CDLL) -> None:
    sigma = torch.zeros(1)
    bad = native._Layer(0, 0, 0, 0, 5, 0)
    assert host_library.host_power_iteration((native._Layer * 1)(bad), 1, ctypes.c_void_p(sigma.data_ptr())) == -1
    bad.rows, bad.dtype = 5, 7
    assert host_library.host_power_iteration((native._Layer * 1)(bad), 1, ctypes.c_void_p(sigma.data_ptr())) == -1
    matrices, left, right = make([(2, 3)] * 64, torch.float32)
    ((_, count, layers),) = native._launches(matrices, left, right)
    one_too_many = (native._Layer * (count + 1))(*layers, layers[0])
    assert (
        host_library.host_layers_of_tiles(one_too_many, count + 1, pointer(torch.empty(100, dtype=torch.int32))) == -1
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigma_of_given_vectors(host_library: ctypes.CDLL, dtype: torch.dtype) -> None:
    matrices, left, right = make(SHAPES, dtype)
    ((_, count, layers),) = native._launches(matrices, left, right)
    sums = torch.full((count,), float("nan"))
    assert host_library.host_bilinear(layers, count, pointer(sums)) == 0
    rows = zip(matrices, left, right, strict=True)
    expected = torch.stack([u.double() @ matrix.double() @ v.double() for matrix, u, v in rows])
    torch.testing.assert_close(sums.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outer_products(host_library: ctypes.CDLL, dtype: torch.dtype) -> None:
    matrices, left, right = make(SHAPES, dtype)
    made = [torch.full_like(matrix, float("nan")) for matrix in matrices]
    made[3] = shifted(made[3])
    ((_, count, layers),) = native._launches(made, left, right)
    coefficients = torch.arange(1.0, count + 1)
    assert host_library.host_outer(layers, count, pointer(coefficients)) == 0
    for got, c, u, v in zip(made, coefficients, left, right, strict=True):
        torch.testing.assert_close(got, torch.outer(c * u, v).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("center", "one_sided"), [(0.0, False), (1.0, False), (1.0, True), (30.0, True)])
def test_penalty_and_its_derivative(
    host_library: ctypes.CDLL, dtype: torch.dtype, size: int, center: float, one_sided: bool
) -> None:
    values, code = samples(size, dtype)
    values[1] = 0
    penalty, factor = torch.empty(3), torch.empty(3)
    options = int64(3), int64(size), float32(center), int(one_sided)
    host_library.host_gradient_penalty(pointer(values), code, *options, pointer(penalty), pointer(factor))
    exact = values.double().requires_grad_()
    expected = gradient_penalty(exact, center=center, one_sided=one_sided, impl="reference")
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(penalty.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(factor[:, None].double() * values.double(), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("center", [0.0, 1.0])
def test_nan_reaches_the_penalty_and_its_derivative(host_library: ctypes.CDLL, center: float) -> None:
    values, code = samples(9, torch.float32)
    values[1, 3] = float("nan")
    penalty, factor = torch.empty(3), torch.empty(3)
    options = int64(3), int64(9), float32(center), 1
    host_library.host_gradient_penalty(pointer(values), code, *options, pointer(penalty), pointer(factor))
    assert penalty.isnan().tolist() == [False, True, False]
    assert (factor[:, None] * values).isnan().any(dim=1).tolist() == [False, True, False]
    assert factor.isnan().tolist() == [False, center > 0, False]


def test_interpolation_is_exact_at_both_ends(host_library: ctypes.CDLL) -> None:
    real, fake = torch.tensor([[[[0.1]]], [[[0.7]]], [[[1e8]]]]), torch.tensor([[[[0.3]]], [[[-0.2]]], [[[1.0]]]])
    for weight in (0.0, 0.3, 0.5, 0.9, 1.0):
        got = [host_library.host_between(r.item(), f.item(), weight) for r, f in zip(real, fake, strict=True)]
        expected = interpolate(real, fake, torch.full((3,), weight))
        assert got == pytest.approx(expected.flatten().tolist(), rel=1e-6)
    assert host_library.host_between(0.1, 1e8, 1.0) == pytest.approx(0.1, rel=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_every_number_is_scaled_and_interpolated_once(host_library: ctypes.CDLL, dtype: torch.dtype, size: int) -> None:
    (real, code), (fake, _) = samples(size, dtype), samples(size, dtype, seed=1)
    weights = torch.tensor([0.25, 0.5, 1.0])
    shape, outs = (int64(3), int64(size)), [shifted(torch.full_like(real, float("nan"))) for _ in range(2)]
    for out in (torch.empty_like(real), outs[0]):
        host_library.host_scale_samples(pointer(real), code, *shape, pointer(weights), pointer(out))
        torch.testing.assert_close(out, (weights[:, None] * real.float()).to(dtype), rtol=0, atol=0)
    host_library.host_interpolate(*map(pointer, (real, fake, weights)), code, *shape, pointer(outs[1]))
    expected = torch.lerp(fake.float(), real.float(), weights[:, None])
    tolerance = {"rtol": 0, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-6}
    torch.testing.assert_close(outs[1].float(), expected, **tolerance)


def test_a_matrix_with_nan_keeps_its_vectors_and_has_sigma_nan(host_library: ctypes.CDLL) -> None:
    for bad in (float("nan"), float("inf")):
        matrices, left, right = make([(20, 300), (4, 4)], torch.float32)
        matrices[0][17, 200] = bad
        before = left[0].clone(), right[0].clone()
        sigma = run_host(host_library, matrices, left, right)
        assert sigma.isnan().tolist() == [True, False]
        torch.testing.assert_close((left[0], right[0]), before, rtol=0, atol=0)


def test_rounding_to_bfloat16_is_torchs(host_library: ctypes.CDLL) -> None:
    special = [0.0, -0.0, float("inf"), -float("inf"), 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40]
    values = torch.cat([torch.tensor(special), torch.randn(1000)])
    out = torch.empty(len(values), dtype=torch.bfloat16)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (values, out)]
    host_library.host_round(pointers[0], int64(len(values)), pointers[1])
    torch.testing.assert_close(out, values.bfloat16(), rtol=0, atol=0)
    values[0] = float("nan")
    host_library.host_round(pointers[0], int64(1), pointers[1])
    assert out[0].isnan()
