"""Benchmarks of whole runs refuse nonsense before they train, and leave the committed pictures alone."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import split_staleness, wgan_gp_precision
from benchmarks.arguments import picture_path
from benchmarks.record import RECORDS_DIR
from benchmarks.text import last_error
from fastgan.errors import TrainingError

USUAL = split_staleness.PICTURE


@pytest.mark.parametrize("module", [split_staleness, wgan_gp_precision])
@pytest.mark.parametrize("option", ["--seeds=0", "--images=-5", "--images=many"])
def test_numbers_below_one_are_refused(
    module: object, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", option])
    with pytest.raises(SystemExit) as caught:
        module.main()  # type: ignore[attr-defined]
    assert caught.value.code == 2
    assert "must be a whole number, 1 or more" in capsys.readouterr().err


def test_a_picture_goes_where_its_record_goes(tmp_path: Path) -> None:
    assert picture_path(Namespace(out=tmp_path, picture=None), USUAL) == tmp_path / USUAL.name
    assert picture_path(Namespace(out=RECORDS_DIR, picture=None), USUAL) == USUAL
    asked = tmp_path / "folder" / "x.png"
    assert picture_path(Namespace(out=RECORDS_DIR, picture=asked), USUAL) == asked


@pytest.mark.parametrize(
    ("option", "said"),
    [("--set=batch_imges=4", "batch_imges"), ("--out=README.md", "--out README.md cannot be written")],
)
def test_what_cannot_be_is_told_before_anything_is_trained(
    option: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(split_staleness, "train_judge", lambda *_, **__: pytest.fail("too late"))
    monkeypatch.chdir(Path(split_staleness.__file__).parents[1])
    monkeypatch.setattr(sys, "argv", ["x", *([] if "--out" in option else [f"--out={tmp_path}"]), option])
    assert split_staleness.main() == 2
    assert said in capsys.readouterr().err


def test_a_run_that_fails_names_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "warning: x\nerror: batch_images=3 must be even\nTraceback\n  torch.distributed.elastic: exit code 2\n"
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=said)
    monkeypatch.setattr(split_staleness.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(TrainingError, match=r"seed=1 failed: batch_images=3 must be even$"):
        split_staleness.train(["seed=1"], tmp_path, num_processes=2)


def test_without_an_error_line_the_last_line_counts() -> None:
    assert last_error("first\n\n  last  \n\n") == "last"
    assert last_error("\n") == "the process ended without a word"
