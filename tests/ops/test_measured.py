"""Choices that are measured once and remembered, whatever becomes of the file that remembers them."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastgan import __version__
from fastgan.ops import measured
from tests.guards.tree import ROOT

KEY = measured.Key("A GPU (80 GB)", "conv2d", "2^10 nhwc 2x2x3x3 s1 g1 linear float32 forward")


def make(fast: str, *, wrong: str = "", broken: str = ""):  # type: ignore[no-untyped-def]
    """(run, timer, calls): `fast` takes 1 ms and others 2; `wrong` computes something else and `broken` raises."""
    calls: list[str] = []

    def run(name: str) -> Tensor:
        calls.append(name)
        if name == broken:
            raise RuntimeError("out of shared memory\nmore")
        return torch.full((2,), 2.0 if name == wrong else 1.0)

    def timer(call) -> float:  # type: ignore[no-untyped-def]
        call()
        return 1.0 if calls[-1] == fast else 2.0

    return run, timer, calls


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache file of a GPU that nothing is known about."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured._entries.cache_clear()
    return tmp_path / "fastgan/implementations/a-gpu-80-gb.json"


@pytest.mark.parametrize("fast", measured.CANDIDATES)
def test_the_fastest_is_measured_once_and_remembered(cache: Path, fast: str) -> None:
    assert measured.lookup(KEY) is None
    run, timer, _ = make(fast)
    assert measured.measure_and_store(KEY, run, (), timer) == fast
    measured._entries.cache_clear()  # as in another process
    assert measured.lookup(KEY) == fast
    stored = json.loads(cache.read_text())["entries"][KEY.op][KEY.shape_class]
    assert set(stored["milliseconds"]) == set(measured.CANDIDATES)
    assert f"({fast} 1)" in measured.summary(KEY.gpu, KEY.op)
    assert "(none yet)" in measured.summary(KEY.gpu, "bias_act")


def test_a_wrong_or_broken_candidate_is_excluded_with_the_reason(cache: Path) -> None:
    run, timer, _ = make("triton", wrong="triton", broken="cudnn_fused")
    entry = measured.measure(run, (), timer)
    assert entry["implementation"] == "reference"
    assert entry["excluded"] == {
        "cudnn_fused": "RuntimeError: out of shared memory",
        "triton": "differs from the reference by 1 where numbers reach 1",
    }


class Moved(torch.autograd.Function):
    """Gives x as it is, and its gradient by one place further on."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return grad.roll(1)


def test_gradients_are_compared_too() -> None:
    """Also where they lie, and where their sum would leave the range of float16; no random number is drawn for it."""
    x, scale = (torch.ones(size, dtype=torch.float16, requires_grad=True) for size in (100_000, 1))
    before = torch.get_rng_state()

    def run(name: str) -> Tensor:
        return scale * (Moved.apply(x) if name == "triton" else x)

    entry = measured.measure(run, (x, scale), lambda call: 1.0)
    assert set(entry["excluded"]) == {"triton"}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_around_the_first_call_holds(cache: Path) -> None:
    """The call that measures and the one that is repeated save the same tensors."""

    def layer(x: Tensor) -> Tensor:
        if measured.lookup(KEY) is None:
            measured.measure_and_store(KEY, lambda name: x.sin(), (x,), lambda call: 1.0)
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert x.grad is not None


def test_what_did_not_fit_into_memory_is_tried_again_in_the_next_run(cache: Path) -> None:
    def run(name: str) -> Tensor:
        if name == "triton":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(2)

    assert measured.measure_and_store(KEY, run, (), lambda call: 1.0) == "reference"
    assert measured.lookup(KEY) == "reference"  # in this process
    assert not cache.exists()


def test_versions_are_known_where_nothing_is_installed_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout on the path, or a Triton that came with the container."""

    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert measured._versions() == {"fastgan": __version__, "torch": torch.__version__, "triton": triton.__version__}


def test_a_cache_of_other_versions_is_not_read(cache: Path) -> None:
    run, timer, _ = make("triton")
    measured.measure_and_store(KEY, run, (), timer)
    content = json.loads(cache.read_text())
    content["versions"]["triton"] = "0.0"
    cache.write_text(json.dumps(content))
    measured._entries.cache_clear()
    assert measured.lookup(KEY) is None


def test_the_packages_table_serves_until_this_machine_has_measured(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is read whatever the versions are; what was measured here goes before it."""
    entries = {KEY.op: {KEY.shape_class: {"implementation": "cudnn_fused", "milliseconds": {}, "excluded": {}}}}
    (tmp_path / cache.name).write_text(json.dumps({"gpu": KEY.gpu, "versions": {"torch": "0"}, "entries": entries}))
    monkeypatch.setattr(measured, "TABLES", tmp_path)
    assert measured.lookup(KEY) == "cudnn_fused"
    run, timer, _ = make("triton")
    measured.measure_and_store(KEY, run, (), timer)
    measured._entries.cache_clear()
    assert measured.lookup(KEY) == "triton"


VERSIONS = json.dumps(measured._versions())
DAMAGES = ["", "{", "[]", '{"versions": 3}']
DAMAGES += [
    f'{{"versions": {VERSIONS}, "entries": {entries}}}'
    for entries in ("3", '{"conv2d": []}', f'{{"conv2d": {{"{KEY.shape_class}": 3}}}}')
]
DAMAGES += [
    f'{{"versions": {VERSIONS}, "entries": {{"conv2d": {{"{KEY.shape_class}": {entry}}}}}}}'
    for entry in ('{"implementation": "x", "excluded": {}}', '{"implementation": "triton", "excluded": ["triton"]}')
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_measured_again(cache: Path, damage: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(damage)
    assert measured.lookup(KEY) is None
    run, timer, _ = make("triton")
    measured.measure_and_store(KEY, run, (), timer)
    measured._entries.cache_clear()
    assert measured.lookup(KEY) == "triton"


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    measured._entries.cache_clear()
    run, timer, calls = make("triton")
    assert measured.measure_and_store(KEY, run, (), timer) == "triton"
    assert measured.lookup(KEY) == "triton"  # in this process
    assert calls


def test_a_disk_that_is_full_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(measured.os, "replace", full)
    run, timer, _ = make("triton")
    assert measured.measure_and_store(KEY, run, (), timer) == "triton"
    assert list(cache.parent.iterdir()) == []


def test_without_a_home_the_temporary_folder_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(measured.Path, "home", homeless)
    monkeypatch.setattr(measured.tempfile, "gettempdir", lambda: str(tmp_path))
    assert tmp_path in measured._cache_path("A GPU").parents


WRITE = """
from fastgan.ops import measured
for number in range(40):
    key = measured.Key("A GPU (80 GB)", "bias_act", f"class {number}")
    measured._store(key, {"implementation": "triton", "excluded": {}})
"""


def test_two_processes_that_write_at_once_leave_a_whole_file(cache: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", WRITE], cwd=ROOT)
    number = 0
    while other.poll() is None:
        number += 1
        measured._store(KEY._replace(shape_class=f"class {number % 40}"), {"implementation": "triton", "excluded": {}})
        json.loads(cache.read_text())
    assert other.returncode == 0
    measured._store(KEY, {"implementation": "triton", "excluded": {}})
    left = measured._read(cache, any_version=False)
    assert {"conv2d", "bias_act"} == set(left)
    assert list(cache.parent.iterdir()) == [cache]
