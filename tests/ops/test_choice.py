"""Which implementation runs: forced, refused with the reason, measured once and remembered."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastgan.errors import ImplementationError
from fastgan.ops import conv2d, conv_transpose2d, implementations, measured
from fastgan.ops.choice import KERNEL_OPS, unavailable

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


def test_padding_in_words_is_the_references() -> None:
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(conv2d(x, weight, padding="same"), conv2d(x, weight, padding=1))
    with pytest.raises(ImplementationError, match="padding='same'; the kernels take numbers"):
        conv2d(x, weight, padding="same", impl="triton")


def test_an_unbatched_image_is_torchs() -> None:
    x, weight, bias = torch.randn(2, 6, 6), torch.randn(2, 2, 3, 3), torch.randn(2)
    for op, torchs in ((conv2d, torch.conv2d), (conv_transpose2d, torch.conv_transpose2d)):
        torch.testing.assert_close(op(x, weight, bias, 2, 1), torchs(x, weight, bias, 2, 1))


def test_a_kernel_on_the_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplementationError, match="x is on cpu; move it to a GPU"):
        conv2d(**arguments(), impl="triton")


def test_a_kernel_without_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgan.ops.choice.HAS_TRITON", False)
    assert unavailable("triton", CPU) == "triton is not installed: pip install triton"
    assert unavailable("reference", CPU) is None


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability 7.5, which must be 8.0 or more" in str(unavailable("triton", torch.device("cuda:0")))


def test_the_variable_forces_what_the_caller_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGAN_IMPL", "triton")
    with pytest.raises(ImplementationError, match="conv2d: FASTGAN_IMPL=triton cannot serve: dilation=2"):
        conv2d(**arguments(dilation=2))
    assert conv2d(**arguments(dilation=2), impl="reference").shape == (1, 2, 2, 2)
    assert {implementations()[op] for op in KERNEL_OPS} == {"triton: forced by FASTGAN_IMPL"}
    monkeypatch.setenv("FASTGAN_IMPL", "tritn")
    with pytest.raises(ImplementationError, match=r"FASTGAN_IMPL='tritn' must be one of .*, did you mean 'triton'"):
        conv2d(**arguments())


def test_doctor_says_why_there_is_only_the_reference() -> None:
    if not torch.cuda.is_available():
        assert implementations()["conv2d"] == "reference: no GPU, and the kernels need one"


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
    assert f"{fast} 1" in measured.summary(KEY.gpu)


def test_a_wrong_or_broken_candidate_is_excluded_with_the_reason(cache: Path) -> None:
    run, timer, _ = make("triton", wrong="triton", broken="cudnn_fused")
    entry = measured.measure(run, (), timer)
    assert entry["implementation"] == "reference"
    assert entry["excluded"] == {
        "cudnn_fused": "RuntimeError: out of shared memory",
        "triton": "differs from the reference by 1 where numbers reach 1",
    }


def test_gradients_are_compared_too() -> None:
    x = torch.ones(2, requires_grad=True)
    entry = measured.measure(lambda name: x * 1.0 if name != "triton" else x.detach() + 0 * x, (x,), lambda call: 1.0)
    assert set(entry["excluded"]) == {"triton"}


def test_a_cache_of_other_versions_is_not_read(cache: Path) -> None:
    run, timer, _ = make("triton")
    measured.measure_and_store(KEY, run, (), timer)
    content = json.loads(cache.read_text())
    content["versions"]["triton"] = "0.0"
    cache.write_text(json.dumps(content))
    measured._entries.cache_clear()
    assert measured.lookup(KEY) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"versions": 3}'])
def test_a_damaged_cache_is_measured_again(cache: Path, damage: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(damage)
    assert measured.lookup(KEY) is None
    run, timer, _ = make("triton")
    measured.measure_and_store(KEY, run, (), timer)
    measured._entries.cache_clear()
    assert measured.lookup(KEY) == "triton"
