"""Checkpoints: damaged files, interrupted writes, full disks, and how many are kept."""

import copy
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastgan.errors import CheckpointError, RunFolderError, TrainingError
from fastgan.train import checkpoint as module
from fastgan.train.build import build_state
from fastgan.train.checkpoint import (
    Checkpoint,
    RunFacts,
    list_checkpoints,
    load_newest_checkpoint,
    save_checkpoint,
    set_aside_newer,
)
from fastgan.train.config import RunConfig
from fastgan.train.state import TrainState

FACTS = RunFacts(precision="fp32", dataset_digest="abc", num_classes=0)
FILES = (
    "generator.safetensors",
    "discriminator.safetensors",
    "generator_ema.safetensors",
    "generator_optimizer.safetensors",
    "discriminator_optimizer.safetensors",
    "state.json",
    "manifest.json",
)


@pytest.fixture
def state(tiny: Callable[..., RunConfig]) -> TrainState:
    return build_state(tiny(), num_classes=0, dtype=torch.float32, device="cpu")


def save(state: TrainState, images_seen: int, *, keep: int = 2) -> Path:
    values = state.schedule.to_json() | {"images_seen": images_seen}
    state.schedule = type(state.schedule).from_json(values)
    return save_checkpoint(Path("run"), state, facts=FACTS, keep=keep)


def restore(checkpoint: Checkpoint, state: TrainState) -> None:
    networks = ("generator", "discriminator", "generator_ema")
    checkpoint.restore_networks({name: getattr(state, name) for name in networks})
    checkpoint.restore_progress(state)


def collect() -> tuple[list[str], Callable[[], Checkpoint]]:
    messages: list[str] = []
    return messages, lambda: load_newest_checkpoint(Path("run"), on_damage=messages.append)


def test_only_the_newest_are_kept(state: TrainState) -> None:
    for images_seen in (8, 16, 24, 32):
        save(state, images_seen, keep=3)
    assert [path.name for path in list_checkpoints(Path("run"))] == ["000000016", "000000024", "000000032"]


def test_saving_the_same_clock_again_replaces_it(state: TrainState) -> None:
    save(state, 8)
    with torch.no_grad():
        next(state.generator.parameters()).fill_(3.0)
    path = save(state, 8)
    fresh = copy.deepcopy(state)
    restore(Checkpoint(path), fresh)
    assert (next(fresh.generator.parameters()) == 3.0).all()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(state: TrainState, name: str, damage: str) -> None:
    save(state, 8)
    newest = save(state, 16)
    path, content = newest / name, bytearray((newest / name).read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[:-3])
    else:
        content[len(content) // 2] ^= 0x20
        path.write_bytes(content)
    messages, load = collect()
    assert load().schedule.images_seen == 8
    assert len(messages) == 1
    assert messages[0].startswith("run/checkpoints/000000016")
    assert "damaged" in messages[0]
    assert "\n" not in messages[0]


def test_without_an_intact_checkpoint_there_is_an_error(state: TrainState) -> None:
    messages, load = collect()
    with pytest.raises(CheckpointError, match=r"^run holds no checkpoint; start the run again in another folder$"):
        load()
    (save(state, 8) / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"^none of the 1 checkpoints in run is intact"):
        load()
    assert len(messages) == 1


def test_an_interrupted_write_leaves_no_checkpoint(state: TrainState, monkeypatch: pytest.MonkeyPatch) -> None:
    save(state, 8)

    def die(path: Path, content: bytes) -> None:
        if path.name == "state.json":
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_flushed", die)
        with pytest.raises(KeyboardInterrupt):
            save(state, 16)
    assert [path.name for path in list_checkpoints(Path("run"))] == ["000000008"]
    save(state, 16)
    assert [path.name for path in list_checkpoints(Path("run"))] == ["000000008", "000000016"]
    assert not list(Path("run/checkpoints").glob(".*"))


def test_a_full_disk_is_one_line_and_harms_nothing(state: TrainState, monkeypatch: pytest.MonkeyPatch) -> None:
    save(state, 8)

    def fail(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_flushed", fail)
    with pytest.raises(RunFolderError) as caught:
        save(state, 16)
    assert str(caught.value) == (
        "cannot write checkpoint run/checkpoints/000000016: No space left on device; "
        "earlier checkpoints are unharmed, free space and resume"
    )
    _, load = collect()
    assert load().schedule.images_seen == 8


def test_another_format_is_refused(state: TrainState) -> None:
    path = save(state, 8)
    values = json.loads((path / "state.json").read_text())
    (path / "state.json").write_bytes(module.to_json(values | {"format": 99}))
    files = {name: (path / name).read_bytes() for name in FILES if name != "manifest.json"}
    (path / "manifest.json").write_bytes(module.to_json({name: module.fingerprint(f) for name, f in files.items()}))
    with pytest.raises(CheckpointError, match="has format 99, this version of fastgan reads 1 and 2"):
        Checkpoint(path)


def test_a_checkpoint_of_other_networks_does_not_fit(state: TrainState, tiny: Callable[..., RunConfig]) -> None:
    path = save(state, 8)
    wider = build_state(tiny("generator.channels=4"), num_classes=0, dtype=torch.float32, device="cpu")
    with pytest.raises(
        CheckpointError, match=r"does not fit this configuration: .* is \[.*\] there and \[.*\] here; give its"
    ) as caught:
        restore(Checkpoint(path), wider)
    assert "\n" not in str(caught.value)


def test_optimizer_state_of_other_parameters_is_refused(state: TrainState) -> None:
    with pytest.raises(CheckpointError, match=r"optimizer state 'x\.exp_avg' belongs to no parameter"):
        state.generator_engine.load_state_dict({"x.exp_avg": torch.zeros(1)})
    name = next(iter(dict(state.generator_engine.objective.named_parameters())))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"has shape \[7\] and its parameter has"):
        state.generator_engine.load_state_dict({f"{name}.exp_avg": torch.zeros(7)})


def test_checkpoints_are_ordered_by_number(state: TrainState) -> None:
    for images_seen in (999_999_998, 999_999_999, 1_000_000_000):
        save(state, images_seen)
    assert [path.name for path in list_checkpoints(Path("run"))] == ["999999999", "1000000000"]


def test_weights_that_are_not_finite_are_not_saved(state: TrainState) -> None:
    save(state, 8)
    with torch.no_grad():
        next(state.generator_ema.parameters())[0] = float("nan")
    with pytest.raises(TrainingError, match=r"^generator_ema .* is not finite \(16 images seen\): training diverged"):
        save(state, 16)
    assert [path.name for path in list_checkpoints(Path("run"))] == ["000000008"]


def test_damaged_checkpoints_do_not_count_as_kept(state: TrainState) -> None:
    for images_seen in (8, 16, 24):
        newest = save(state, images_seen, keep=3)
    (newest / "state.json").unlink()
    _, load = collect()
    set_aside_newer(Path("run"), load())
    save(state, 24)
    names = sorted(path.name for path in Path("run/checkpoints").iterdir())
    assert names == ["000000016", "000000024", "000000024.damaged"]


def test_nothing_else_in_the_folder_is_touched(state: TrainState) -> None:
    save(state, 8)
    note = Path("run/checkpoints/notes.txt")
    note.write_text("mine")
    shutil.copytree("run/checkpoints/000000008", "run/checkpoints/best")
    for images_seen in (16, 24, 32):
        save(state, images_seen)
    assert note.read_text() == "mine"
    assert Path("run/checkpoints/best").is_dir()
