"""Eager calls: ops without the dispatcher, and checks that are made once for each kind of call."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fastgan.kernels.spec import Activation, Geometry
from fastgan.ops import contract, conv2d, conv_transpose2d, fused
from fastgan.ops.bias_act import bias_act_op
from fastgan.ops.bias_act_grad import bias_act_grad_op
from fastgan.ops.choice import Case
from fastgan.ops.conv2d_weight_grad import conv2d_weight_grad_op
from fastgan.ops.convolution import Operands, Settings, convolution_op
from fastgan.ops.eager import register

LEAKY = Activation("leaky_relu", 1.5, 2.0)
GEOMETRY = Geometry(2, (1, 1), (0, 0), 1)


class Listener(TorchDispatchMode):
    """Notes the names of fastgan's ops."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastgan":
            self.names.add(func._opname)
        return func(*args, **(kwargs or {}))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Each op by its reference, from two tensors.
OPS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]] = {
    "conv2d": (
        lambda x, w: convolution_op("conv2d", Operands(x, w), Settings(GEOMETRY, "reference", LEAKY)),
        (numbers(2, 3, 6, 6), numbers(4, 3, 4, 4, seed=1)),
    ),
    "conv_transpose2d": (
        lambda x, w: convolution_op("conv_transpose2d", Operands(x, w), Settings(GEOMETRY, "reference", LEAKY)),
        (numbers(2, 3, 3, 3), numbers(3, 4, 4, 4, seed=1)),
    ),
    "conv2d_weight_grad": (
        lambda x, g: conv2d_weight_grad_op(x, g, (4, 4), GEOMETRY, "reference"),
        (numbers(2, 3, 6, 6), numbers(2, 4, 3, 3, seed=1)),
    ),
    "bias_act": (
        lambda x, b: bias_act_op(x, None, b, None, LEAKY, "reference"),
        (numbers(2, 3, 4, 4), numbers(3, seed=1)),
    ),
    "bias_act_grad": (
        lambda g, y: bias_act_grad_op(g, y, Activation("tanh", 1.0, None), "reference"),
        (numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1).tanh()),
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_an_eager_op_is_the_op_that_the_dispatcher_knows(name: str) -> None:
    """Value, derivatives and second derivatives to the last bit."""
    call, tensors = OPS[name]

    def results() -> list[Tensor]:
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        y = call(*inputs)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [y, *first, *second]

    eager = results()
    with Listener() as listener:
        listened = results()
    assert name in listener.names
    for mine, theirs in zip(eager, listened, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.stride() == theirs.stride()
    assert eager[0].grad_fn.name() == f"fastgan::{name}Backward"


@pytest.mark.parametrize("name", OPS)
def test_without_a_gradient_to_come_no_graph_is_made(name: str) -> None:
    call, (first, second) = OPS[name]
    assert call(first, second).grad_fn is None
    with torch.no_grad():
        assert call(first.clone().requires_grad_(), second).grad_fn is None


def test_a_subclass_gets_the_op() -> None:
    seen: list[str] = []

    class Mine(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    call, (x, weight) = OPS["conv2d"]
    expected = call(x, nn.Parameter(weight))
    assert torch.equal(call(x.as_subclass(Mine), nn.Parameter(weight)).as_subclass(Tensor), expected)
    assert any(name.startswith("fastgan.conv2d") for name in seen)


def test_a_function_mode_sees_the_op() -> None:
    seen: list[str] = []

    class Listening(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    call, tensors = OPS["bias_act"]
    with Listening():
        call(*tensors)
    assert "fastgan.bias_act" in seen


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_what_traces_sees_the_op(pre_dispatch: bool) -> None:
    call, tensors = OPS["conv2d"]
    graph = make_fx(call, pre_dispatch=pre_dispatch)(*tensors)
    assert torch.ops.fastgan.conv2d.default in [node.target for node in graph.graph.nodes]


def test_torch_compile_sees_the_op() -> None:
    found: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        found.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    call, (x, weight) = OPS["conv2d"]
    torch.compile(call, backend=backend, fullgraph=True)(x, weight.clone().requires_grad_())
    assert torch.ops.fastgan.conv2d in found


def test_a_torchscript_trace_sees_the_op() -> None:
    call, (x, weight) = OPS["conv2d"]
    traced = torch.jit.trace(call, (x, weight.clone().requires_grad_()), check_trace=False)
    assert "fastgan::conv2d" in str(traced.graph)


@pytest.mark.parametrize("needs", [False, True])
def test_profilers_show_the_name(needs: bool) -> None:
    call, (x, weight) = OPS["conv2d"]
    with torch.profiler.profile(acc_events=True) as profile:
        y = call(x, weight.clone().requires_grad_(needs))
        if needs:
            y.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "fastgan::conv2d" in names
    assert ("fastgan::conv2d_weight_grad" in names) is needs


def unused(*arguments: object) -> Any:
    raise AssertionError


def test_a_sign_that_is_still_to_be_turned_is_turned() -> None:
    negative = torch.tensor([1 + 2j]).conj().imag.reshape(1, 1, 1, 1)
    assert negative.is_neg()
    seen: list[float] = []

    def run(x: Tensor) -> Tensor:
        # As a kernel reads it.
        seen.append(np.frombuffer(ctypes.string_at(x.data_ptr(), 4), dtype=np.float32)[0])
        return x.clone()

    none = lambda *arguments: None  # noqa: E731
    call = register(
        "test_sign", run, fake=torch.empty_like, setup_context=none, backward=none, schema="(Tensor x) -> Tensor"
    )
    call(negative)
    assert seen == [-2.0]


def test_other_numbers_become_floats() -> None:
    seen: list[object] = []

    def run(x: Tensor, gain: float, clamp: float | None) -> Tensor:
        seen.extend((gain, clamp))
        return x.clone()

    schema = "(Tensor x, float gain, float? clamp) -> Tensor"
    call = register("test_floats", run, fake=torch.empty_like, setup_context=unused, backward=unused, schema=schema)
    for gain in (2, np.float32(2), np.int64(2), torch.tensor(2.0), True):
        call(torch.zeros(1), gain, None)
        call(torch.zeros(1), 2.0, gain)
    assert {type(number) for number in seen} == {float, type(None)}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", OPS)
def test_checkpointing_changes_nothing(name: str, reentrant: bool) -> None:
    call, tensors = OPS[name]

    def gradients(run: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        run(*inputs).square().sum().backward()
        return tuple(tensor.grad for tensor in inputs if tensor.grad is not None)

    saved = gradients(lambda *inputs: checkpoint(call, *inputs, use_reentrant=reentrant))
    for mine, theirs in zip(saved, gradients(call), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", OPS)
def test_what_was_saved_for_the_backward_pass_may_not_change(name: str) -> None:
    call, tensors = OPS[name]
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    y = call(*inputs)
    with torch.no_grad():
        for tensor in inputs:
            tensor.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each call whose sizes are checked."""
    monkeypatch.setattr(fused, "_facts", {})
    found: list[str] = []
    ordinary = contract.check_sizes
    monkeypatch.setattr(contract, "check_sizes", lambda op, **sizes: (found.append(op), ordinary(op, **sizes)))
    return found


def test_calls_of_one_kind_are_checked_once(checked: list[str]) -> None:
    x, weight = torch.zeros(2, 4, 6, 6), torch.zeros(4, 4, 3, 3)
    for _ in range(3):
        conv2d(x, weight, torch.zeros(4), padding=1)
        conv_transpose2d(x, weight, padding=(1, 1))
    assert checked == ["conv2d", "conv_transpose2d"]


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.zeros(2, 5, 6, 6)},
        {"x": torch.zeros(4, 6)},
        {"weight": torch.zeros(4, 2, 3, 3)},
        {"weight": torch.zeros(4, 4, 3, 3).double()},
        {"x": torch.zeros(2, 4, 6, 6, device="meta")},
        {"bias": torch.zeros(5)},
        {"bias": torch.zeros(4).long()},
        {"bias": [0.0] * 4},
        {"scale": torch.zeros(3)},
        {"noise": torch.zeros(3, 1, 6, 6)},
        # Equal to what was good, and not the same.
        {"stride": 1.0},
        {"stride": True},
        {"stride": (1, 1.0)},
        {"groups": True},
        {"groups": 1.0},
        {"gain": float("nan")},
        {"activation": "rilu"},
        {"activation": ["linear"]},
        {"clamp": 0},
    ],
    ids=str,
)
def test_a_good_call_does_not_excuse_a_bad_one(change: dict[str, object]) -> None:
    good = {"x": torch.zeros(2, 4, 6, 6), "weight": torch.zeros(4, 4, 3, 3), "bias": torch.zeros(4), "padding": 1}
    conv2d(**good)
    with pytest.raises((ValueError, TypeError), match=r"^conv2d: "):
        conv2d(**good | change)


def test_a_known_call_is_chosen_for_by_the_same_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_facts", {})
    found: list[tuple[str, str | None, str]] = []

    def choose(case: Case, impl: str, run: Callable[[str], Tensor]) -> str:
        found.append((case.op, case.limit(), case.shape_class()))
        return "reference"

    monkeypatch.setattr(fused, "choose", choose)
    x, weight = torch.zeros(2, 4, 6, 6), torch.zeros(4, 4, 3, 3)

    def calls() -> list[tuple[str, str | None, str]]:
        found.clear()
        conv2d(x, weight)
        conv_transpose2d(x, weight)
        conv2d(x.to(memory_format=torch.channels_last), weight)
        conv2d(x, weight, dilation=2)
        conv2d(x[0], weight)
        with torch.autocast("cpu", torch.bfloat16):
            conv2d(x, weight)
        return list(found)

    first = calls()
    assert len(set(first)) == 6
    assert calls() == first


def test_the_memory_for_kinds_of_calls_is_bounded(monkeypatch: pytest.MonkeyPatch, checked: list[str]) -> None:
    monkeypatch.setattr(fused, "_MAX_SIGNATURES", 3)
    for size in range(3, 13):
        conv2d(torch.zeros(1, 1, size, size), torch.zeros(1, 1, 3, 3))
    assert len(checked) == 10
    assert 0 < len(fused._facts) <= 3
