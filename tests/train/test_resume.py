"""A run that stops and goes on is the run that never stopped, to the last bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fastgan.errors import CheckpointError
from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.config import RunConfig
from fastgan.train.loop import train
from fastgan.train.run_folder import resume_config
from fastgan.train.stats import read_stats

VARIANTS = {
    "digits": (),
    "micro-batches, new fakes, two penalties": (
        "micro_batch_images=4",
        "schedule.share_fakes=false",
        "penalties=[{kind: r1, weight: 1, every: 8}, {kind: wgan_gp, weight: 1, every: 3}]",
        "data.mirror=true",
    ),
    "bf16, three discriminator updates, not cached": (
        "precision=bf16",
        "schedule.discriminator_updates=3",
        "data.cache_bytes=0",
        "generator.spectral_norm=true",
    ),
    "three discriminators, drawn at random": (
        "ensemble={members: [{name: a, network: {channels: 2}}, {name: b, network: {channels: 4}, loss: hinge}]}",
        "ensemble.members.0.penalties=[{kind: r2, weight: 1, every: 3}]",
        "ensemble.combination=random",
        "ensemble.num_drawn=2",
    ),
}


def tensors(run_dir: Path) -> dict[str, bytes]:
    newest = list_checkpoints(run_dir)[-1]
    return {
        f"{path.name}/{name}": value.numpy().tobytes()
        for path in sorted(newest.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_40_steps_equal_20_and_resume_and_20(tiny: Callable[..., RunConfig], variant: str) -> None:
    overrides = VARIANTS[variant]
    step_images = 24 if "schedule.discriminator_updates=3" in overrides else 8
    full, half = f"total_images={40 * step_images}", f"total_images={20 * step_images}"
    # R1 every 8 updates: due at step 24, in the second half, not where the first one ends.
    assert train(tiny(*overrides, full, "run_dir=straight")) == 0
    assert train(tiny(*overrides, half, "run_dir=parts")) == 0
    resumed = resume_config(Path("parts"), asked=None, overrides=[full])
    assert train(resumed, resume=Path("parts")) == 0
    straight, parts = tensors(Path("straight")), tensors(Path("parts"))
    assert len(straight) > 40
    assert {name for name in straight if straight[name] != parts.get(name)} == set()
    assert straight.keys() == parts.keys()
    assert Path("straight/samples.png").read_bytes() == Path("parts/samples.png").read_bytes()
    assert [tick["images_seen"] for tick in read_stats(Path("parts"))][-1] == 40 * step_images


def test_resume_at_the_end_says_so(tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    before = {path: path.read_bytes() for path in sorted(Path("run").rglob("*")) if path.is_file()}
    assert train(resume_config(Path("run"), asked=None, overrides=[]), resume=Path("run")) == 0
    assert "already at 16 images; to train longer, give a larger total_images" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in sorted(Path("run").rglob("*")) if path.is_file()}
    changed = {str(path) for path in before if before[path] != after[path]} | {
        str(p) for p in after.keys() - before.keys()
    }
    assert changed == set()


def test_other_values_are_refused(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    with pytest.raises(CheckpointError) as caught:
        resume_config(Path("run"), asked=None, overrides=["penalties=[]", "generator.channels=4", "seed=3"])
    assert str(caught.value) == (
        "run was trained with seed=0, not seed=3; generator.channels=2, not generator.channels=4; "
        "penalties=[{kind: r1, weight: 1.0, every: 8, mode: double, sigma: 0..., not penalties=[]; "
        "a resumed run must not change them: leave the command line out or as it was, or start a new run"
    )


def test_another_preset_is_refused(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    with pytest.raises(CheckpointError) as caught:
        resume_config(Path("run"), asked=tiny("name=other", "seed=3"), overrides=[])
    assert (
        str(caught.value)
        == f"run is a run of {tiny().name}, not of other; to go on with it: fastgan train --resume run"
    )


def test_the_same_preset_with_many_other_values_is_refused_in_a_short_line(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    others = (
        "seed=3",
        "generator.channels=4",
        "discriminator.channels=4",
        "optimizer.generator.eps=0.5",
        "penalties=[]",
    )
    with pytest.raises(CheckpointError, match="; 2 more keys of other values; a resumed run must not change them"):
        resume_config(Path("run"), asked=tiny(*others), overrides=[])


def test_what_does_not_decide_the_result_may_change(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    free = ["data.max_bad_fraction=0.5", "device=cpu", "micro_batch_images=4", "log.every_images=8"]
    config = resume_config(Path("run"), asked=None, overrides=[*free, "total_images=32"])
    assert train(config, resume=Path("run")) == 0


def test_other_images_are_refused(tiny: Callable[..., RunConfig], workplace: Path) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    (workplace / "images" / "00.png").unlink()
    config = resume_config(Path("run"), asked=None, overrides=["total_images=32"])
    with pytest.raises(CheckpointError, match="holds other images or labels than the run was trained on"):
        train(config, resume=Path("run"))


def test_a_moved_run_goes_on(tiny: Callable[..., RunConfig]) -> None:
    train(tiny("total_images=16", "run_dir=run"))
    moved = Path("run").rename("elsewhere")
    assert train(resume_config(moved, asked=None, overrides=["total_images=32"]), resume=moved) == 0
    assert [path.name for path in list_checkpoints(moved)] == ["000000016", "000000032"]
