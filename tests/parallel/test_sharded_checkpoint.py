"""Ranks that shard save together: each its own pieces, all or nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from fastgan.errors import CheckpointError
from fastgan.parallel import EngineChoice
from fastgan.parallel.pieces import Piece, assembled
from fastgan.train.checkpoint import Checkpoint, list_checkpoints, load_newest_checkpoint
from fastgan.train.checkpoint_files import fingerprint
from tests.parallel import resume
from tests.parallel.ranks import RankError, Ranks
from tests.parallel.toy import Case

SHARDED = {
    "fsdp2": ("generator", "generator_optimizer", "discriminator", "discriminator_optimizer"),
    "deepspeed-1": ("generator_optimizer", "discriminator_optimizer"),
    "deepspeed-3": ("generator", "generator_optimizer", "discriminator", "discriminator_optimizer"),
}


def case_on(name: str) -> Case:
    kind, _, stage = name.partition("-")
    choice = EngineChoice(kind, int(stage or 0))
    return Case(discriminator=choice, generator=choice, optimizer="adam", num_steps=1, spectral_norm=stage != "3")


@pytest.mark.parametrize("engine", SHARDED)
def test_each_rank_writes_its_pieces_and_sends_nothing(two_ranks: Ranks, tmp_path: Path, engine: str) -> None:
    answers = two_ranks.run(resume.save_after_training, case_on(engine), tmp_path)
    (path,) = list_checkpoints(tmp_path)
    names = {file.name for file in path.glob("*.safetensors")}
    groups = ("generator", "generator_optimizer", "discriminator", "discriminator_optimizer", "generator_ema")
    assert names == {
        name
        for group in groups
        for name in (
            (f"{group}-00000-of-00002.safetensors", f"{group}-00001-of-00002.safetensors")
            if group in SHARDED[engine]
            else (f"{group}.safetensors",)
        )
    }
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest.keys() == names | {"state.json"}
    # Four agreements, and the hashes of all files with their length; no tensor is gathered.
    assert [answer["collectives"] for answer in answers] == [6, 6]


def test_a_missing_piece_is_damage(two_ranks: Ranks, tmp_path: Path) -> None:
    two_ranks.run(resume.save_after_training, case_on("fsdp2"), tmp_path)
    (path,) = list_checkpoints(tmp_path)
    file = path / "generator-00001-of-00002.safetensors"
    manifest = json.loads((path / "manifest.json").read_text())

    def write(content: bytes) -> None:
        file.write_bytes(content)
        changed = manifest | {file.name: fingerprint(content)}
        (path / "manifest.json").write_text(json.dumps(changed))

    write(save({}, metadata={"pieces": "{}"}))
    with pytest.raises(CheckpointError, match=r"is damaged: the pieces of .* do not make a tensor of shape"):
        Checkpoint(path)
    write(save({"x": torch.ones(1)}, metadata={"pieces": "{}"}))
    with pytest.raises(CheckpointError, match=r"is damaged: KeyError\('x'\)"):
        Checkpoint(path)
    file.unlink()
    with pytest.raises(CheckpointError, match="No such file or directory"):
        Checkpoint(path)


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece((4,), 0, torch.ones(2)), Piece((4,), 1, torch.ones(3))],
        [Piece((4,), 0, torch.ones(1)), Piece((4,), 2, torch.ones(2))],
        [Piece((4,), 0, torch.ones(2)), Piece((2, 2), 2, torch.ones(2))],
        [Piece((4,), 1, torch.ones(3))],
        [Piece((4,), 0, torch.ones(5))],
    ],
    ids=["overlap", "gap", "two shapes", "no start", "too long"],
)
def test_pieces_that_do_not_fit(pieces: list[Piece]) -> None:
    with pytest.raises(CheckpointError, match="the pieces of x do not make a tensor of shape"):
        assembled(("x", piece) for piece in pieces)


@pytest.mark.parametrize(
    ("fail", "messages"),
    [
        (
            resume.full_disk_on_rank_1,
            (
                "DistributedError: rank 0 ends because another failed",
                "RunFolderError: .*No space left on device; earlier",
            ),
        ),
        (
            resume.nan_on_rank_1,
            ("DistributedError: rank 0 ends because another failed", "TrainingError: generator .* is not finite"),
        ),
        (
            resume.other_folder_on_rank_1,
            ("DistributedError: rank 0 ends", "RunFolderError: rank 1 does not see .* a file system that all machines"),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("engine", ["fsdp2", "deepspeed-1"])
def test_a_failure_of_one_rank_is_one_of_all(
    two_ranks: Ranks, tmp_path: Path, engine: str, fail: Callable[..., Any], messages: tuple[str, str]
) -> None:
    if engine == "deepspeed-1" and fail is resume.nan_on_rank_1:
        pytest.skip("stage 1 replicates weights: rank 0 has them all")
    answers = two_ranks.run(resume.save_twice, case_on(engine), tmp_path, fail)
    for answer, message in zip(answers, messages, strict=True):
        assert pytest.RaisesExc(Exception, match=message).matches(Exception(answer)), answer
    assert load_newest_checkpoint(tmp_path, on_damage=pytest.fail).schedule.step == 1


@pytest.mark.parametrize("death", [resume.death_of_rank_1, resume.death_of_rank_0_at_the_end])
def test_a_rank_that_dies_in_the_middle_of_a_save(two_ranks: Ranks, tmp_path: Path, death: Callable[..., Any]) -> None:
    with pytest.raises(RankError, match="a rank ended without an answer"):
        two_ranks.run(resume.save_twice, case_on("fsdp2"), tmp_path, death)
    # What was being written does not count, and is in nobody's way.
    assert load_newest_checkpoint(tmp_path, on_damage=pytest.fail).schedule.step == 1
    again = Ranks(2)
    try:
        assert again.run(resume.save_twice, case_on("fsdp2"), tmp_path, resume.nothing) == ["saved", "saved"]
    finally:
        again.close()
    assert load_newest_checkpoint(tmp_path, on_damage=pytest.fail).schedule.step == 2
