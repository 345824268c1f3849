"""What an engine cannot do is refused at the start, with the reason and the alternative."""

import re
from pathlib import Path

import pytest

from fastgan.dist import ALONE, World, world_from_environment
from fastgan.errors import ConfigError
from fastgan.parallel import Demands, EngineChoice, check_stages, choose_engine
from fastgan.parallel.zero_config import deepspeed_settings, fitted
from fastgan.train.build_engines import choose_engines
from fastgan.train.config import load_config

TWO = World(rank=0, num_ranks=2, is_launched=True)
PLAIN = Demands(network="discriminator", differentiates_twice=False, compresses=False, overlaps=False)


def demands(**changes: bool) -> Demands:
    return Demands(**{**vars(PLAIN), **changes})


def test_auto_is_ddp_with_several_processes_and_single_with_one() -> None:
    assert choose_engine("auto", None, world=TWO, demands=PLAIN) == EngineChoice("ddp")
    assert choose_engine("auto", None, world=ALONE, demands=PLAIN) == EngineChoice("single")
    assert choose_engine("deepspeed", None, world=TWO, demands=PLAIN) == EngineChoice("deepspeed", 2)


@pytest.mark.parametrize(
    ("kind", "stage", "world", "changes", "message"),
    [
        ("single", None, TWO, {}, "would train 2 unrelated networks, one per process; use ddp"),
        ("ddp", None, ALONE, {}, "needs processes that a launcher starts: torchrun"),
        (
            "deepspeed",
            3,
            TWO,
            {"differentiates_twice": True},
            "cannot differentiate a gradient.*use mode=dual or approximate for each penalty, or stage 2, or fsdp2",
        ),
        ("fsdp2", None, TWO, {"compresses": True}, "parallel.compression=bf16 is not done by.*use ddp or flat"),
        ("auto", None, ALONE, {"overlaps": True}, "parallel.overlap=true: parallel.engine=single.*has nothing to send"),
        *(
            (kind, None, TWO, {"overlaps": True}, f"parallel.engine={kind} .*waits for its gradients .*use ddp or flat")
            for kind in ("fsdp2", "deepspeed")
        ),
    ],
)
def test_an_engine_that_cannot_is_refused(
    kind: str, stage: int | None, world: World, changes: dict[str, bool], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_engine(kind, stage, world=world, demands=demands(**changes))


@pytest.mark.parametrize("mode", ["double", "dual", "approximate"])
def test_stage_3_takes_the_modes_that_do_not_differentiate_twice(mode: str) -> None:
    stage_3 = ["parallel.engine=deepspeed", "parallel.stage=3", f"penalties=[{{kind: r1, weight: 1, mode: {mode}}}]"]
    config = load_config("digits", overrides=stage_3)
    if mode == "double":
        with pytest.raises(ConfigError, match=r"discriminator with parallel\.stage=3 cannot differentiate"):
            choose_engines(config, world=TWO)
    else:
        assert choose_engines(config, world=TWO)["discriminator"] == EngineChoice("deepspeed", 3)


def test_a_stage_that_nobody_reads_is_refused() -> None:
    ddp = EngineChoice("ddp")
    with pytest.raises(ConfigError, match=r"parallel\.stage=1 is only read by deepspeed"):
        check_stages(1, {"parallel.discriminator": (ddp, None)})
    with pytest.raises(ConfigError, match=r"parallel\.generator\.stage=2 is only read by deepspeed"):
        check_stages(None, {"parallel.discriminator": (ddp, None), "parallel.generator": (ddp, 2)})


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"optimizer": {"type": "Adam"}}, "optimizer is set by fastgan's key optimizer"),
        ({"train_batch_size": 64}, "train_batch_size is set by fastgan's key batch_images"),
        ({"fp16": {"enabled": True}}, "fp16 would or may change the training"),
        ({"zero_optimization": {"stage": 1}}, "zero_optimization.stage=1 contradicts stage 2"),
        ({"zero_optimization": {"offload_optimizer": {}}}, "zero_optimization.offload_optimizer would or may change"),
        (
            {"zero_optimization": {"reduce_bucket_size": "auto"}},
            "zero_optimization.reduce_bucket_size='auto' must be a positive whole",
        ),
        ({"zero_optimization": {"reduce_bucket_size": 0}}, "reduce_bucket_size=0 must be a positive whole number"),
        ({"zero_optimization": {"sub_group_size": 0}}, "sub_group_size=0 must be a positive whole number"),
        ({"zero_optimization": {"allgather_bucket_size": 0.5}}, "allgather_bucket_size=0.5 must be a whole number"),
        ({"zero_optimization": {"overlap_comm": "yes"}}, "zero_optimization.overlap_comm='yes' must be true or false"),
        ({"flops_profiler": True}, "flops_profiler=True must be a JSON object"),
        ({"gradient_clipping": "a"}, "gradient_clipping='a' must be a number that is not negative"),
        ({"communication_data_type": "fp8"}, "communication_data_type='fp8' must be one of fp32, bf16, fp16"),
    ],
)
def test_a_deepspeed_key_that_changes_the_training_is_refused(user: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        deepspeed_settings(2, user, on_warning=pytest.fail)


def test_a_deepspeed_json_is_read_by_somebody_and_refused_before_anything_is_built(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"amp": {"enabled": true}}')
    given = f"parallel.deepspeed_config={file}"
    with pytest.raises(ConfigError, match=r"mine\.json is only read by deepspeed; leave it out"):
        choose_engines(load_config("digits", overrides=[given]), world=TWO)
    mixed = load_config("digits", overrides=[given, "parallel.generator.engine=deepspeed"])
    with pytest.raises(ConfigError, match="amp would or may change the training"):
        choose_engines(mixed, world=TWO)
    file.write_text('{"zero_optimization": {"reduce_bucket_size": 5e8}}')
    assert choose_engines(mixed, world=TWO)["generator"] == EngineChoice("deepspeed", 2)


def test_deepspeed_clips_only_when_asked_and_then_says_so() -> None:
    assert deepspeed_settings(2, {}, on_warning=pytest.fail)["gradient_clipping"] == 0
    warnings: list[str] = []
    assert deepspeed_settings(2, {"gradient_clipping": 0.5}, on_warning=warnings.append)["gradient_clipping"] == 0.5
    assert warnings == [
        "parallel.deepspeed_config: gradient_clipping=0.5: gradients are clipped, which other engines do not do"
    ]
    deepspeed_settings(2, {"communication_data_type": "bf16"}, on_warning=warnings.append)
    assert warnings[1].startswith("parallel.deepspeed_config: communication_data_type=bf16: gradients are rounded")


@pytest.mark.parametrize(("num_parameters", "size"), [(300_000, 300_000), (90_000_000, 50_000_000), (0, 1)])
def test_deepspeeds_buffers_fit_the_network_unless_they_are_given(num_parameters: int, size: int) -> None:
    mine = {"reduce_bucket_size": 7, "overlap_comm": True}
    for user, expected in (({}, {"reduce_bucket_size": size}), ({"zero_optimization": mine}, mine)):
        settings = deepspeed_settings(2, user, on_warning=print)
        assert fitted(settings, num_parameters=num_parameters)["zero_optimization"] == {**expected, "stage": 2}


def test_the_world_is_what_the_launcher_says() -> None:
    names = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert world_from_environment(names) == World(3, 4, 1, is_launched=True)
    assert world_from_environment({"MASTER_ADDR": "10.0.0.1"}) is ALONE
    with pytest.raises(ConfigError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not; start with torchrun"):
        world_from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="RANK=3, LOCAL_RANK=1, WORLD_SIZE=2 must satisfy"):
        world_from_environment(names | {"WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="must be whole numbers"):
        world_from_environment(names | {"RANK": "x"})
