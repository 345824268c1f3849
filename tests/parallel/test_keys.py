"""Every key of the section `parallel` reaches the engines that it is for."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch

from fastgan.dist import World
from fastgan.parallel import EngineChoice
from fastgan.train import build_engines
from fastgan.train.build import build_state
from fastgan.train.config import load_config

TWO = World(rank=0, num_ranks=2, is_launched=True)
MEMBERS = (
    "ensemble.members=[{name: small, network: {channels: 2}, parallel: {engine: deepspeed, stage: 1}},"
    " {name: plain, network: {channels: 2}}]"
)


def engines_made(*overrides: str) -> list[Any]:
    """What `make_engine` was asked for: the generator's engine, then those of the discriminators."""
    config = load_config("digits", overrides=["generator.channels=2", "discriminator.channels=2", *overrides])
    with mock.patch.object(build_engines, "make_engine") as make:
        build_state(config, num_classes=0, dtype=torch.float32, device="cpu", world=TWO)
    return list(make.call_args_list)


def test_each_network_has_its_own_engine_and_stage() -> None:
    choices = [call.args[0] for call in engines_made("parallel.engine=flat", "parallel.discriminator.engine=fsdp2")]
    assert choices == [EngineChoice("flat"), EngineChoice("fsdp2")]
    stages = "parallel.engine=deepspeed", "parallel.stage=0", "parallel.generator.stage=3", "penalties=[]"
    assert [call.args[0].stage for call in engines_made(*stages)] == [3, 0]
    choices = [call.args[0] for call in engines_made(MEMBERS, "parallel.generator.engine=flat")]
    assert choices == [
        EngineChoice(kind, stage) for kind, stage in (("flat", 0), ("ddp", 0), ("deepspeed", 1), ("ddp", 0))
    ]


def test_how_gradients_travel_and_how_long_a_rank_waits() -> None:
    for call in engines_made("parallel.timeout_seconds=7"):
        assert call.kwargs["timeout_seconds"] == 7
        assert (call.kwargs["communication_dtype"], call.kwargs["overlap"]) == (None, False)
    for call in engines_made("parallel.compression=bf16", "parallel.overlap=true"):
        assert (call.kwargs["communication_dtype"], call.kwargs["overlap"]) == (torch.bfloat16, True)


def test_a_deepspeed_json_reaches_the_engines(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"gradient_clipping": 0.5, "zero_optimization": {"reduce_bucket_size": 1000}}')
    for call in engines_made("parallel.engine=deepspeed", "parallel.stage=1", f"parallel.deepspeed_config={file}"):
        settings = call.kwargs["deepspeed"]
        assert settings["gradient_clipping"] == 0.5
        assert settings["zero_optimization"] == {"stage": 1, "reduce_bucket_size": 1000}
