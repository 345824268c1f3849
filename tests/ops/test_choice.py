"""Which implementation runs: forced, refused with the reason, measured once and remembered."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from fastgan import native
from fastgan.errors import ImplementationError
from fastgan.kernels.spec import Activation
from fastgan.ops import (
    bias_act,
    bias_act_grad,
    conv2d,
    conv2d_weight_grad,
    conv_transpose2d,
    gradient_penalty,
    implementations,
    interpolate,
    measured,
    spectral_norm,
)
from fastgan.ops.choice import KERNEL_OPS, Case, choose, unavailable
from fastgan.ops.native_choice import OPS, choose_native
from fastgan.ops.shape_class import MAX_GROUPS, convolution_case

CPU = torch.device("cpu")


def arguments(**changes: object) -> dict[str, object]:
    return {"x": torch.zeros(1, 2, 6, 6), "weight": torch.zeros(2, 2, 3, 3)} | changes


def test_auto_on_a_cpu_is_plain_pytorch() -> None:
    x = torch.zeros(1, 2, 6, 6, requires_grad=True)
    assert type(conv2d(x, torch.zeros(2, 2, 3, 3)).grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize("op", [conv2d, conv_transpose2d])
@pytest.mark.parametrize("impl", ["triton", "cudnn_fused"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dilation": 2}, "dilation=2; the kernels take 1"),
        ({"stride": 3}, "stride=3; the kernels take 1 and 2"),
        ({"stride": (1, 2)}, r"stride=\(1, 2\); the kernels take 1 and 2"),
        ({"weight": torch.zeros(2, 2, 1, 3)}, "weight is 1x3; the kernels take 1x1, 3x3, 4x4, 6x6"),
        ({"weight": torch.zeros(2, 2, 5, 5)}, "weight is 5x5; the kernels take"),
        ({"x": torch.zeros(2, 6, 6)}, "without a batch"),
        ({"x": torch.zeros(1, 2, 6, 6).double(), "weight": torch.zeros(2, 2, 3, 3).double()}, "dtype torch.float64"),
    ],
    ids=str,
)
def test_a_forced_kernel_says_what_it_cannot_serve_and_auto_serves_it(op, impl, changes, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImplementationError, match=reason):
        op(**arguments(**changes), impl=impl)
    assert op(**arguments(**changes)).dim() >= 3


@pytest.mark.parametrize(
    ("x", "weight", "groups", "reason"),
    [
        ((1, 1 << 15, 4, 4), (1 << 15, 1 << 15, 3, 3), 1, "weight has 9663676416 numbers; the kernels take up to"),
        ((1, 2048, 4, 4), (2048, 1, 3, 3), 2048, f"groups=2048; the kernels take up to {MAX_GROUPS}"),
        ((1, 1, 1 << 16, 1 << 16), (1, 1, 3, 3), 1, "x has 4294967296 pixels per image; the kernels take up to"),
    ],
)
def test_sizes_beyond_the_kernels_are_named(x, weight, groups: int, reason: str) -> None:  # type: ignore[no-untyped-def]
    tensors = (torch.empty(size, device="meta") for size in (x, weight))
    sizes = {"stride": 1, "padding": 0, "dilation": 1, "groups": groups}
    assert str(convolution_case("conv2d", *tensors, **sizes, activation=Activation()).limit()).startswith(reason)


def test_padding_in_words_is_torchs() -> None:
    x, weight = torch.randn(1, 2, 6, 7), torch.randn(2, 2, 3, 5)
    for padding, dilation in (("same", 1), ("same", (2, 1)), ("valid", 1)):
        expected = torch.conv2d(x, weight, padding=padding, dilation=dilation)
        torch.testing.assert_close(conv2d(x, weight, padding=padding, dilation=dilation), expected)
        with pytest.raises(ImplementationError, match=f"padding='{padding}'; the kernels take numbers"):
            conv2d(x, weight, padding=padding, impl="triton")
    with pytest.raises(ValueError, match="conv2d: padding='same' goes with stride=1, and stride=2; give padding as"):
        conv2d(x, weight, padding="same", stride=2)


def test_forced_kernels_of_the_other_ops_say_what_they_cannot_serve() -> None:
    x, grad = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 2, 2)
    with pytest.raises(ImplementationError, match="conv2d_weight_grad: impl=triton cannot serve: dilation=2"):
        conv2d_weight_grad(x, (2, 2, 3, 3), grad, dilation=2, impl="triton")
    assert conv2d_weight_grad(x, (2, 2, 3, 3), grad, dilation=2).shape == (2, 2, 3, 3)
    with pytest.raises(ImplementationError, match="bias_act: impl=cudnn_fused cannot serve: x has dtype"):
        bias_act(x.double(), impl="cudnn_fused")
    with pytest.raises(ImplementationError, match="bias_act_grad: impl=triton cannot serve: x has dtype"):
        bias_act_grad(x.double(), x.double(), impl="triton")


def test_an_unbatched_image_is_torchs() -> None:
    x, weight, bias = torch.randn(2, 6, 6), torch.randn(2, 2, 3, 3), torch.randn(2)
    for op, torchs in ((conv2d, torch.conv2d), (conv_transpose2d, torch.conv_transpose2d)):
        torch.testing.assert_close(op(x, weight, bias, 2, 1), torchs(x, weight, bias, 2, 1))


def test_a_kernel_on_the_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplementationError, match="the tensors are on cpu; move them to a GPU"):
        conv2d(**arguments(), impl="triton")


def test_a_kernel_without_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgan.ops.native_choice.HAS_TRITON", False)
    assert unavailable("triton", CPU) == "triton is not installed: pip install triton"
    assert unavailable("reference", CPU) is None


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    gpu = torch.device("cuda:0")
    for problem in (unavailable("triton", gpu), native.unavailable(gpu)):
        assert problem == "cuda:0 has compute capability 7.5, which must be 8.0 or more"


def test_torch_compile_can_ask_how_old_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one graph, as `impl="triton"` asks it there."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "_get_device_properties", lambda index: SimpleNamespace(major=9, minor=0), raising=False
    )
    gpu = torch.device("cuda:0")

    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if unavailable("triton", gpu) is None else x

    assert torch.compile(add, fullgraph=True, backend="eager")(torch.zeros(1)) == 1


def test_the_variable_forces_what_the_caller_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGAN_IMPL", "triton")
    with pytest.raises(
        ImplementationError, match=r"FASTGAN_IMPL=triton cannot serve: dilation=2.*; or unset FASTGAN_IMPL"
    ):
        conv2d(**arguments(dilation=2))
    assert conv2d(**arguments(dilation=2), impl="reference").shape == (1, 2, 2, 2)
    assert {implementations()[op] for op in KERNEL_OPS} == {"triton: forced by FASTGAN_IMPL"}
    monkeypatch.setattr("fastgan.ops.native_choice.HAS_TRITON", False)
    assert implementations()["conv2d"].endswith(
        "forced by FASTGAN_IMPL, but it cannot serve: triton is not installed: pip install triton"
    )
    monkeypatch.setenv("FASTGAN_IMPL", "tritn")
    with pytest.raises(ImplementationError, match=r"FASTGAN_IMPL='tritn' must be one of .*, did you mean 'triton'"):
        conv2d(**arguments())
    monkeypatch.setenv("FASTGAN_IMPL", "")
    assert conv2d(**arguments(dilation=2)).shape == (1, 2, 2, 2)
    assert not implementations()["conv2d"].startswith("triton: forced")


def test_kernels_refuse_forward_mode_which_the_reference_has() -> None:
    """A custom op has no tangents, and would give zeros in silence."""
    x, tangent, weight = torch.randn(1, 2, 6, 6), torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3, 3)
    for op in (conv2d, conv_transpose2d):
        _, got = torch.func.jvp(lambda x, op=op: op(x, weight), (x,), (tangent,))
        torch.testing.assert_close(got, op(tangent, weight))
        with pytest.raises(ImplementationError, match="forward-mode differentiation; the kernels have backward"):
            torch.func.jvp(lambda x, op=op: op(x, weight, impl="triton"), (x,), (tangent,))


def test_kernels_refuse_transforms_which_the_reference_has() -> None:
    """A custom op cannot be differentiated by torch.func."""
    x, weight = torch.randn(2, 1, 2, 6, 6), torch.randn(2, 2, 3, 3, requires_grad=True)
    (plain,) = torch.autograd.grad(conv2d(x.flatten(0, 1), weight).sum(), weight)
    for impl in ("auto", "triton"):
        by_sample = torch.vmap(torch.func.grad(lambda w, x, impl=impl: conv2d(x, w, impl=impl).sum()), (None, 0))
        if impl == "auto":
            torch.testing.assert_close(by_sample(weight, x).sum(0), plain)
        else:
            with pytest.raises(ImplementationError, match=r"a transform of torch\.func; the kernels know none"):
                by_sample(weight, x)


@pytest.mark.parametrize("op", OPS)
def test_kernels_of_csrc_refuse_both_which_the_reference_has(op: str) -> None:
    x, tangent, other = torch.randn(3, 2, 3)
    left, right = torch.nn.functional.normalize(x.sum(1), dim=0), torch.ones(3) / 3**0.5

    def call(x: torch.Tensor, impl: str = "auto") -> torch.Tensor:
        if op == "gradient_penalty":
            return gradient_penalty(x, center=1.0, impl=impl).sum()
        if op == "interpolate":
            return interpolate(x, other, torch.tensor([0.2, 0.7]), impl=impl).square().sum()
        return spectral_norm([x], [left], [right], impl=impl).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(call(leaf), leaf)
    torch.testing.assert_close(torch.func.jvp(call, (x,), (tangent,))[1], (slope * tangent).sum())
    torch.testing.assert_close(torch.func.grad(call)(x), slope)
    with pytest.raises(ImplementationError, match=f"{op}: impl=triton cannot serve: forward-mode differentiation"):
        torch.func.jvp(lambda x: call(x, "triton"), (x,), (tangent,))
    with pytest.raises(ImplementationError, match=rf"{op}: impl=triton cannot serve: a transform of torch\.func"):
        torch.func.grad(lambda x: call(x, "triton"))(x)


def test_auto_on_a_gpu_leaves_forward_mode_to_the_reference_for_the_ops_of_csrc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "unavailable", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    like: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    assert choose_native("interpolate", "auto", like) == "native"
    with forward_ad.dual_level():
        assert choose_native("interpolate", "auto", like) == "reference"


def test_auto_measures_training_and_inference_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[measured.Key, str] = {}
    entered: list[torch.device] = []
    is_capturing = True
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_capturing)
    monkeypatch.setattr(measured, "lookup", known.get)
    monkeypatch.setattr(measured, "measure_and_store", lambda key, *_: known.setdefault(key, "triton"))
    x: Any = SimpleNamespace(device=torch.device("cuda:1"), numel=lambda: 1, requires_grad=True)
    case = Case("conv2d", (x,), lambda: None, lambda: "shape")

    assert choose(case, "auto", torch.zeros) == "reference"  # nothing is timed in a CUDA graph
    assert known == {}
    is_capturing = False
    for _ in range(2):
        assert choose(case, "auto", torch.zeros) == "triton"
    with torch.no_grad():
        choose(case, "auto", torch.zeros)
    assert [key.shape_class for key in known] == ["shape forward+backward", "shape forward"]
    assert entered == [x.device] * 3  # events and streams are those of the current GPU
    known[next(iter(known))], is_capturing = "cudnn_fused", True
    assert choose(case, "auto", torch.zeros) == "cudnn_fused"
    assert choose(case._replace(limit=lambda: "too large"), "auto", torch.zeros) == "reference"
    empty: Any = SimpleNamespace(device=x.device, numel=lambda: 0)
    assert choose(case._replace(inputs=(empty,)), "auto", torch.zeros) == "reference"  # there is nothing to time
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose(case, "auto", torch.zeros) == "reference"


def test_doctor_says_why_there_is_only_the_reference() -> None:
    if not torch.cuda.is_available():
        assert implementations()["conv2d"] == "reference: no GPU, and the kernels need one"


def test_doctor_names_what_was_measured_and_what_lies_beyond(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("fastgan.ops.choice.native_choice.explanations", dict)
    entry = {
        "implementation": "reference",
        "milliseconds": {"reference": 1.0},
        "excluded": {"triton": "OSError: no ptxas"},
    }
    monkeypatch.setattr(measured, "_entries", lambda gpu: {"bias_act": {"a": entry, "b": entry | {"excluded": {}}}})
    told = implementations()
    assert "fastest by measurement on A GPU (none yet), new shapes are measured once into" in told["conv2d"]
    assert "kernels other than 1x1, 3x3, 4x4, 6x6, padding in words, unbatched x, float64" in told["conv2d"]
    assert told["conv2d"].endswith("forward-mode derivatives, torch.func and what torch.compile traces: reference")
    assert "on A GPU (reference 2, triton excluded from 1: OSError: no ptxas), new shapes" in told["bias_act"]
    assert "dilation" not in told["bias_act"]
