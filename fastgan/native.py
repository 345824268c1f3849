"""The CUDA library of csrc/, called by pointer: no torch header, no compilation at import, nothing loaded until needed.

Every function checks the return code and raises with CUDA's own message. Arguments are checked in `fastgan.ops`; here
they must be contiguous, of the stated dtype, and all on one GPU. Work is queued on torch's current stream.

Shape legend: L layers with matrices [R_i, K_i], u_i [R_i], v_i [K_i]; N samples of M numbers.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import ImplementationError

_FOLDER = Path(__file__).parent
_LIBRARY = _FOLDER / "libfastgan.so"
_RECORD = _FOLDER / "native_build.txt"
# The version of the functions' arguments in csrc/library.cu.
_INTERFACE = 1
_MAX_LAYERS = 64
_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
DTYPES = tuple(_DTYPES)
_OLDEST_GPU = (8, 0)

_pointer, _int, _int64, _float = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float


class _Layer(ctypes.Structure):
    """`Layer` in csrc/spectral_norm.h."""

    _fields_ = (
        ("weight", _pointer),
        ("u", _pointer),
        ("v", _pointer),
        ("rows", _int64),
        ("columns", _int64),
        ("dtype", _int64),
    )


_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "fastgan_check_device": (),
    "fastgan_power_iteration": (_pointer, _int, _int, _pointer, _pointer, _int, _pointer),
    "fastgan_bilinear": (_pointer, _int, _pointer, _pointer, _int, _pointer),
    "fastgan_outer": (_pointer, _int, _pointer, _int, _pointer),
    "fastgan_gradient_penalty": (
        *(_pointer, _int, _int64, _int64, _float, _int),
        *(_pointer, _pointer, _pointer, _int, _pointer),
    ),
    "fastgan_scale_samples": (_pointer, _int, _int64, _int64, _pointer, _pointer, _pointer, _int, _pointer),
    "fastgan_interpolate": (_pointer, _pointer, _pointer, _int, _int64, _int64, _pointer, _int, _pointer),
}


def build_record() -> str:
    """One line: how the library was built, or why there is none."""
    remedy = "reinstall fastgan on a machine with nvcc"
    try:
        record = _RECORD.read_text(encoding="utf-8").strip()
    except OSError:
        return f"not built: this installation has no record of a build; {remedy}"
    if record.startswith("not built") or _LIBRARY.exists():
        return record
    return f"not built: {_LIBRARY.name} is missing; {remedy}"


def unavailable(device: torch.device) -> str | None:
    """Why the library cannot work on `device`; None if it can."""
    if device.type != "cuda":
        return f"the tensors are on {device}, and it needs a GPU"
    return too_old(device) or _library_problem()


def too_old(gpu: torch.device) -> str | None:
    """Why no kernel, of csrc/ or Triton's, is made for this GPU; None if they are."""
    capability = torch.cuda.get_device_capability(gpu)
    if capability >= _OLDEST_GPU:
        return None
    return f"{gpu} has compute capability {capability[0]}.{capability[1]}, which must be 8.0 or more"


@cache
def _library_problem() -> str | None:
    """Why the library cannot be used at all; asked once per process."""
    try:
        _call("fastgan_check_device")
    except ImplementationError as error:
        return str(error)
    return None


@cache
def _library() -> ctypes.CDLL:
    """The library with the types of its functions.

    Raises:
        ImplementationError: if it was not built, does not load, or belongs to another version of fastgan.
    """
    record = build_record()
    if record.startswith("not built"):
        raise ImplementationError(f"native library {record}")
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise ImplementationError(f"native library does not load: {error}; reinstall fastgan") from error
    if not hasattr(library, "fastgan_interface") or library.fastgan_interface() != _INTERFACE:
        raise ImplementationError("native library belongs to another version of fastgan; reinstall fastgan")
    for name, types in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, _int
    library.fastgan_error_text.argtypes, library.fastgan_error_text.restype = (_int,), ctypes.c_char_p
    library.fastgan_spectral_norm_workspace.argtypes = (_pointer, _int)
    library.fastgan_spectral_norm_workspace.restype = _int64
    library.fastgan_gradient_penalty_workspace.argtypes = (_int64, _int64)
    library.fastgan_gradient_penalty_workspace.restype = _int64
    return library


def _call(name: str, *arguments: Any) -> None:
    library = _library()
    code = getattr(library, name)(*arguments)
    if code:
        text = library.fastgan_error_text(code).decode()
        raise ImplementationError(f"{name}: CUDA error {code}: {text}")


def _device_and_stream(tensor: Tensor) -> tuple[int, int]:
    """Where to queue: torch's current stream on the tensor's GPU; elsewhere CUDA is left to refuse."""
    if tensor.device.type != "cuda":
        return 0, 0
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


def _launches(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]
) -> Iterator[tuple[int, int, Any]]:
    """(first layer, number of layers, array of layers) for every launch."""
    for first in range(0, len(matrices), _MAX_LAYERS):
        rows = list(zip(matrices, left, right, strict=True))[first : first + _MAX_LAYERS]
        layers = [
            _Layer(w.data_ptr(), u.data_ptr(), v.data_ptr(), w.shape[0], w.shape[1], _DTYPES[w.dtype])
            for w, u, v in rows
        ]
        yield first, len(layers), (_Layer * len(layers))(*layers)


def _workspace(layers: Any, num_layers: int, like: Tensor) -> Tensor:
    size = _library().fastgan_spectral_norm_workspace(layers, num_layers)
    return torch.empty(size, dtype=torch.float32, device=like.device)


def power_iteration_(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *, num_iterations: int = 1
) -> Tensor:
    """u = Wv / |Wv|, v = W'u / |W'u| in place; returns [L] float32, u'Wv of the new vectors, 0 for a zero matrix.

    Args:
        matrices: float32 or bfloat16, [R_i, K_i]. left, right: float32.
    """
    sigma = torch.empty(len(matrices), dtype=torch.float32, device=matrices[0].device)
    place = _device_and_stream(sigma)
    for first, count, layers in _launches(matrices, left, right):
        workspace = _workspace(layers, count, sigma)
        out = sigma[first:].data_ptr()
        _call("fastgan_power_iteration", layers, count, num_iterations, out, workspace.data_ptr(), *place)
    return sigma


def bilinear(matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """[L] float32 of u_i' W_i v_i; arguments as `power_iteration_`."""
    out = torch.empty(len(matrices), dtype=torch.float32, device=matrices[0].device)
    for first, count, layers in _launches(matrices, left, right):
        workspace = _workspace(layers, count, out)
        place = _device_and_stream(out)
        _call("fastgan_bilinear", layers, count, out[first:].data_ptr(), workspace.data_ptr(), *place)
    return out


def outer(
    coefficients: Tensor, left: Sequence[Tensor], right: Sequence[Tensor], *, dtypes: Sequence[torch.dtype]
) -> list[Tensor]:
    """c_i u_i v_i', [R_i, K_i] of dtype `dtypes[i]`; coefficients [L] float32."""
    made = [
        torch.empty(u.shape[0], v.shape[0], dtype=dtype, device=coefficients.device)
        for u, v, dtype in zip(left, right, dtypes, strict=True)
    ]
    for first, count, layers in _launches(made, left, right):
        _call("fastgan_outer", layers, count, coefficients[first:].data_ptr(), *_device_and_stream(coefficients))
    return made


def gradient_penalty(gradients: Tensor, *, center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    """[N] penalties and [N] factors, float32: d penalty_n / d gradients_n = factor_n * gradients_n.

    Args:
        gradients: [N, M], float32 or bfloat16, N and M positive.
    """
    num_samples, size = gradients.shape
    penalty = torch.empty(num_samples, dtype=torch.float32, device=gradients.device)
    factor = torch.empty_like(penalty)
    num_sums = _library().fastgan_gradient_penalty_workspace(num_samples, size)
    workspace = torch.empty(num_sums, dtype=torch.float32, device=gradients.device)
    _call(
        "fastgan_gradient_penalty",
        *(gradients.data_ptr(), _DTYPES[gradients.dtype], num_samples, size, center, int(one_sided)),
        *(penalty.data_ptr(), factor.data_ptr(), workspace.data_ptr()),
        *_device_and_stream(gradients),
    )
    return penalty, factor


def scale_samples(values: Tensor, factors: Tensor, cotangents: Tensor) -> Tensor:
    """factors_n * cotangents_n * values_n, [N, M] in the dtype of `values`; the others [N] float32."""
    out = torch.empty_like(values)
    _call(
        "fastgan_scale_samples",
        *(values.data_ptr(), _DTYPES[values.dtype], *values.shape),
        *(factors.data_ptr(), cotangents.data_ptr(), out.data_ptr()),
        *_device_and_stream(values),
    )
    return out


def interpolate(real: Tensor, fake: Tensor, out: Tensor, *, weights: Tensor) -> None:
    """out_n = weights_n * real_n + (1 - weights_n) * fake_n; all [N, M] of one dtype, weights [N] float32."""
    _call(
        "fastgan_interpolate",
        *(real.data_ptr(), fake.data_ptr(), weights.data_ptr(), _DTYPES[real.dtype], *real.shape, out.data_ptr()),
        *_device_and_stream(real),
    )
