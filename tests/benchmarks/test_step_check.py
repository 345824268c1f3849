"""A training step is timed only if it does to the networks what the usual step in float64 does."""

import functools

import pytest
import torch

from benchmarks import bench_compiled_step, train_step
from benchmarks.baselines import usual_step
from benchmarks.baselines.usual_step import Variant
from benchmarks.runner import Options
from benchmarks.step_check import step_error, tolerance
from benchmarks.step_providers import COMPILED, FastganRun, UsualRun, exact_steps, fastgan_provider
from fastgan.train.config import RunConfig, load_config

CPU = torch.device("cpu")
SMALL = [f"{network}.{key}=8" for network in ("generator", "discriminator") for key in ("channels", "max_channels")]
SPECTRAL_NORM = ["generator.spectral_norm=true", "discriminator.spectral_norm=true"]
FASTGANS = Variant(iterate_once=True)


def config(*overrides: str) -> RunConfig:
    return load_config("digits", overrides=[*SMALL, "batch_images=4", *overrides])


def fastgans_error(*overrides: str, right: RunConfig, variant: Variant = FASTGANS) -> float:
    """Of fastgan's step with `overrides`, where that of `right` was asked for."""
    made = FastganRun(config(*overrides), CPU, precision="fp32").train()
    return step_error(made, exact_steps(right, CPU, variant=variant))


@pytest.mark.parametrize(
    ("overrides", "variant"),
    [
        (["penalties=[{kind: r1, weight: 1.0, every: 8}, {kind: r2, weight: 1.0}]"], FASTGANS),
        (["objective.loss=hinge", *SPECTRAL_NORM], FASTGANS),
        (["schedule.policy=joint"], FASTGANS._replace(simultaneous=True)),
    ],
    ids=["penalties", "spectral norm", "joint"],
)
def test_fastgans_step_is_right(overrides: list[str], variant: Variant) -> None:
    right = config(*overrides)
    assert fastgans_error(*overrides, right=right, variant=variant) < 0.2 * tolerance("fp32", CPU)
    # The provider compares with the same.
    found = fastgan_provider("fastgan", right, CPU, precision="fp32").exact()
    assert step_error(found, exact_steps(right, CPU, variant=variant)) == 0


@pytest.mark.parametrize("variant", [Variant(), *(v for v in COMPILED["fp32"].values() if not v.compiled)], ids=str)
def test_usual_steps_are_right(variant: Variant) -> None:
    made = UsualRun(config(), CPU, variant=variant).train()
    assert step_error(made, exact_steps(config(), CPU, variant=Variant())) < 0.2 * tolerance("fp32", CPU)


def test_a_quick_step_can_be_judged_in_bf16() -> None:
    """Emulated where there are no instructions. The sizes of a quick run must not make right steps look wrong."""
    quick = train_step.load_preset("digits", is_quick=True)
    (variant,) = (variant for variant in COMPILED["bf16"].values() if not variant.compiled)
    usual = UsualRun(quick, CPU, variant=variant).train()
    ours = FastganRun(quick, CPU, precision="bf16").train()
    assert step_error(usual, exact_steps(quick, CPU, variant=Variant())) < 0.6 * tolerance("bf16", CPU)
    assert step_error(ours, exact_steps(quick, CPU, variant=FASTGANS)) < 0.6 * tolerance("bf16", CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        "penalties=[{kind: r1, weight: 1.05, every: 8}]",
        "optimizer.generator.learning_rate=2.1e-3",
        "optimizer.discriminator.betas=[0.1, 0.99]",
        "ema.rampup=0.5",
        "objective.loss=non_saturating",
        "schedule.policy=joint",
        "seed=1",
    ],
)
def test_a_wrong_step_is_found(wrong: str) -> None:
    assert fastgans_error(wrong, right=config()) > tolerance("fp32", CPU)


def test_a_spectral_norm_that_iterates_twice_per_update_is_found() -> None:
    wrong = [*SPECTRAL_NORM, "discriminator.spectral_norm_iterations=2"]
    assert fastgans_error(*wrong, right=config(*SPECTRAL_NORM)) > tolerance("bf16", CPU)


def test_the_epsilon_of_the_configuration_is_back_after_the_check() -> None:
    run = FastganRun(config("optimizer.generator.eps=1e-6"), CPU, precision="fp32")
    run.train()
    assert [group["eps"] for group in run.state.generator_engine.optimizer.param_groups] == [1e-6]


def test_tf32_and_bf16_may_differ_more() -> None:
    gpu = torch.device("cuda")
    assert tolerance("fp32", CPU) < tolerance("fp32", gpu) < tolerance("bf16", gpu)


# Dynamo looks for gradients of whatever it is given.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_compiled_step_is_the_usual_one_and_judges_penalised_images_eagerly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # AOTAutograd without Inductor, which takes a minute: it refuses to differentiate twice all the same.
    monkeypatch.setattr(usual_step, "compiled", functools.partial(torch.compile, backend="aot_eager"))
    every_step = config("penalties=[{kind: r1, weight: 1.0}]")
    made = UsualRun(every_step, CPU, variant=COMPILED["fp32"]["torch.compile but in penalties"]).train()
    assert step_error(made, exact_steps(every_step, CPU, variant=Variant())) < 0.2 * tolerance("fp32", CPU)


def test_a_quick_run_says_that_it_does_not_compile() -> None:
    # There is one of bf16, too, where the CPU has instructions for it.
    by_dtype = {case.dtype: case for case in bench_compiled_step.cases(Options(CPU, is_quick=True))}
    case = by_dtype["fp32"]
    assert [provider.name for provider in case.providers] == [*COMPILED["fp32"], "fastgan fp32"]
    with pytest.raises(RuntimeError, match="left out of a quick run"):
        case.providers[1].build()
    on_gpu = list(bench_compiled_step.cases(Options(torch.device("cuda"))))
    assert [case.dtype for case in on_gpu] == ["bf16", "fp32"] * 2
