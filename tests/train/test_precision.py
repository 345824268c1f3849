"""Which number format and device a run takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastgan.errors import ConfigError
from fastgan.train import precision
from fastgan.train.build import build_networks
from fastgan.train.config import RunConfig


@pytest.fixture(autouse=True)
def a_cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_facts", lambda: {"bf16_instructions": ["avx512_bf16"]})


def test_auto_asks_no_cpu_that_would_emulate_bf16(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_facts", lambda: {"bf16_instructions": []})
    monkeypatch.setattr(precision, "_seconds_per_pass", pytest.fail)
    assert precision.choose_precision(tiny("precision=auto"), num_classes=0, device=torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(("fp32", "bf16", "expected"), [(1.0, 0.5, "bf16"), (1.0, 0.95, "fp32"), (1.0, 3.0, "fp32")])
def test_auto_takes_bf16_only_where_it_is_clearly_faster(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, expected: str
) -> None:
    seconds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(precision, "_seconds_per_pass", lambda config, classes, dtype, device: seconds[dtype])
    assert precision.choose_precision(tiny("precision=auto"), num_classes=0, device=torch.device("cpu")) == expected


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("slow", "expected"), [(torch.float32, "bf16"), (torch.bfloat16, "fp32")])
def test_auto_times_both_networks_in_both_formats(
    tiny: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    num_classes: int,
    slow: torch.dtype,
    expected: str,
) -> None:
    """A clock that runs only while a generator works, and twice as fast in the slow format."""
    clock = [0.0]

    def build(*arguments: Any, dtype: torch.dtype, **options: Any) -> Any:
        generator, discriminator = build_networks(*arguments, dtype=dtype, **options)
        assert generator.num_classes == discriminator.num_classes == num_classes
        generator.register_forward_hook(lambda *_: clock.append(clock.pop() + (2.0 if dtype == slow else 1.0)))
        return generator, discriminator

    monkeypatch.setattr(precision, "build_networks", build)
    monkeypatch.setattr(precision, "_now", lambda device: clock[0])
    config = tiny("precision=auto")
    assert precision.choose_precision(config, num_classes=num_classes, device=torch.device("cpu")) == expected


def test_a_given_precision_is_taken_unmeasured(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_seconds_per_pass", pytest.fail)
    assert precision.choose_precision(tiny("precision=bf16"), num_classes=0, device=torch.device("cpu")) == "bf16"


def test_a_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"^device='cuda' but torch sees no CUDA device; run `fastgan doctor`"):
        precision.choose_device("cuda")
