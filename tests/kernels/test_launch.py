"""Where kernels are launched."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import fastgan.kernels
from fastgan.kernels.conv2d import conv2d_kernel
from tests.kernels.ledger import cases


def test_every_kernel_is_launched_on_the_gpu_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton takes the current GPU, which need not be theirs."""
    guarded: list[torch.Tensor] = []
    launched: set[str] = set()

    @contextmanager
    def device_of(x: torch.Tensor) -> Iterator[None]:
        guarded.append(x)
        yield
        guarded.pop()

    def launch(self: Any, grid: object) -> Callable[..., None]:
        assert guarded, self.__name__
        launched.add(self.__name__)
        return lambda *_, **__: None

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(type(conv2d_kernel), "__getitem__", launch)
    for _, case in cases(90):
        case()
    modules = [
        importlib.import_module(f"fastgan.kernels.{name}")
        for _, name, _ in pkgutil.iter_modules(fastgan.kernels.__path__)
    ]
    assert launched == {name for module in modules for name in vars(module) if name.endswith("_kernel")}
