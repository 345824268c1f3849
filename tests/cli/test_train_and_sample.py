"""The commands as a user runs them: train, Ctrl-C, resume, sample, and bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.cli.app import run

TINY = [
    "data.path=images",
    "data.fit=exact",
    "batch_images=8",
    "total_images=64",
    "generator.channels=2",
    "generator.max_channels=8",
    "generator.latent_dim=8",
    "discriminator.channels=2",
    "discriminator.max_channels=8",
    "discriminator.spectral_norm=true",
    "log.num_samples=9",
    "log.tensorboard=off",
    "precision=fp32",
    "device=cpu",
]


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(Path("images"), 12)
    return tmp_path


def write_images(folder: Path, count: int, *, size: int = 32) -> None:
    folder.mkdir()
    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (count, size, size), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:02d}.png")


@pytest.fixture
def fastgan(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one command line in this process and checks its exit code."""

    def call(*arguments: str, code: int = 0) -> Done:
        torch.set_num_threads(1)
        capsys.readouterr()
        done = Done(run(arguments), *capsys.readouterr())
        assert done.code == code, done.out + done.err
        return done

    return call


@pytest.fixture
def refused(fastgan: Command) -> Callable[..., str]:
    """Runs one command line that must fail; returns the single line that it fails with."""

    def call(*arguments: str) -> str:
        lines = [line for line in fastgan(*arguments, code=2).err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_train_sample_resume_sample(fastgan: Command) -> None:
    done = fastgan("train", "digits", *TINY)
    folder = Path("runs/digits-000")
    assert "done: runs/digits-000/samples.png" in done.out
    made = {path.name for path in folder.iterdir()}
    assert made == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "environment.json",
        "losses.png",
        "samples",
        "samples.png",
        "stats.jsonl",
    }
    with Image.open(folder / "samples.png") as picture:
        assert picture.mode == "L"
        assert picture.size == (3 * 34 + 2, 3 * 34 + 2)
    first = fastgan("sample", str(folder), "--num", "6", "--columns", "3", "--seed", "1", "--out", "grid.png")
    assert "grid.png: 6 images, generator at 64 images seen" in first.out
    before = Path("grid.png").read_bytes()
    fastgan("train", "--resume", str(folder), "total_images=128")
    fastgan("sample", str(folder), "--num", "6", "--columns", "3", "--seed", "1", "--out", "grid.png")
    assert Path("grid.png").read_bytes() != before


def test_labels_train_and_sample_by_class(fastgan: Command, refused: Callable[..., str]) -> None:
    settings = [word for word in TINY if not word.startswith("data.")]
    fastgan("train", "digits-labels", *settings, "total_images=16", "run_dir=run")
    fastgan("sample", "run", "--num", "4", "--label", "7", "--out", "sevens.png")
    fastgan("sample", "run", "--num", "4", "--label", "3", "--out", "threes.png")
    assert Path("sevens.png").read_bytes() != Path("threes.png").read_bytes()
    assert refused("sample", "run", "--label", "10") == (
        "label=10 is not a class of this generator: its classes are 0 to 9"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_to_resume(fastgan: Command, number: signal.Signals, code: int) -> None:
    folder = Path("run")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fastgan",
            "train",
            "digits",
            *TINY,
            "total_images=10_000_000",
            "log.every_images=8",
            "run_dir=run",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 240
        while not (folder / "stats.jsonl").exists() or not (folder / "stats.jsonl").read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in err
    assert "to go on: fastgan train --resume run" in out
    (checkpoint,) = (folder / "checkpoints").iterdir()
    resumed = fastgan("train", "--resume", "run", f"total_images={int(checkpoint.name) + 16}")
    assert "done: run/samples.png" in resumed.out


def test_images_of_another_size(refused: Callable[..., str]) -> None:
    write_images(Path("small"), 3, size=28)
    line = refused("train", "digits", *TINY, "data.path=small")
    assert "00.png" in line
    assert "28" in line
    assert "data.fit" in line
    assert not Path("runs").exists()


def test_an_empty_folder(refused: Callable[..., str]) -> None:
    Path("empty").mkdir()
    assert "data.path=empty" in refused("train", "digits", *TINY, "data.path=empty")
    assert not Path("runs").exists()


def test_a_corrupt_image_is_named_and_skipped_below_the_limit(fastgan: Command, refused: Callable[..., str]) -> None:
    Path("images/05.png").write_bytes(b"not an image")
    assert "05.png" in refused("train", "digits", *TINY)
    assert not Path("runs").exists()
    done = fastgan("train", "digits", *TINY, "total_images=16", "data.max_bad_fraction=0.1")
    assert done.err.count("05.png") == 1
    assert done.err.startswith("warning: ")
    assert "images (1 of them unreadable), generator" in done.out


def test_more_labels_than_classes(refused: Callable[..., str]) -> None:
    settings = [word for word in TINY if not word.startswith("data.")]
    line = refused("train", "digits-labels", *settings, "data.num_classes=5")
    assert "num_classes=5" in line
    assert not Path("runs").exists()


def test_a_run_folder_that_cannot_be_written(refused: Callable[..., str]) -> None:
    Path("file").write_text("mine")
    line = refused("train", "digits", *TINY, "run_dir=file/run")
    assert line == "cannot write run folder file/run: Not a directory; choose another with run_dir=PATH"
    assert Path("file").read_text() == "mine"


def test_a_run_of_another_preset_is_not_resumed(fastgan: Command, refused: Callable[..., str]) -> None:
    fastgan("train", "digits", *TINY, "total_images=16", "run_dir=run")
    before = files(Path("run"))
    line = refused("train", "digits-wgan-gp", "--resume", "run")
    assert line == "run is a run of digits, not of digits-wgan-gp; to go on with it: fastgan train --resume run"
    assert files(Path("run")) == before


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_checkpoints(refused: Callable[..., str]) -> None:
    rates = ["optimizer.discriminator.learning_rate=1e30", "optimizer.generator.learning_rate=1e30"]
    line = refused("train", "digits", *TINY, *rates, "run_dir=run", "discriminator.spectral_norm=false")
    assert "at step " in line
    assert "training diverged" in line
    assert "optimizer.discriminator.learning_rate" in line
    assert not Path("run/samples.png").exists()


def test_weights_that_are_not_finite_are_neither_saved_nor_shown(refused: Callable[..., str]) -> None:
    """The losses of the only step are still finite when its update ruins the generator."""
    one_step = ["total_images=8", "optimizer.generator.learning_rate=1e39", "run_dir=run"]
    line = refused("train", "digits", *TINY, *one_step)
    assert "is not finite (8 images seen): training diverged" in line
    assert not Path("run/samples.png").exists()
    assert not list(Path("run").glob("checkpoints/*"))


def test_a_name_that_looks_like_mathematics(fastgan: Command) -> None:
    fastgan("train", "digits", *TINY, "total_images=8", "run_dir=x$\\foo$")
    assert Path("x$\\foo$/losses.png").exists()


def test_out_of_memory_is_one_line(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("fastgan.train.loop.build_state", fail)
    assert refused("train", "digits", *TINY) == (
        "out of memory with batch_images=8, micro_batch_images=None; "
        "give a smaller micro_batch_images, or smaller networks"
    )


def test_a_file_in_the_way_of_the_samples(fastgan: Command, refused: Callable[..., str]) -> None:
    fastgan("train", "digits", *TINY, "total_images=8", "run_dir=run")
    for path in Path("run/samples").iterdir():
        path.unlink()
    Path("run/samples").rmdir()
    Path("run/samples").write_text("mine")
    line = refused("train", "--resume", "run", "total_images=16")
    assert line == "cannot make the folder run/samples: File exists; move what is in its way"


@pytest.mark.parametrize(
    "override",
    [
        "seed=99999999999999999999999",
        "generator.channels=1000000000",
        "batch_images=100000000000",
        'run_dir="a\\0b"',
    ],
)
def test_values_out_of_bounds(refused: Callable[..., str], override: str) -> None:
    assert override.split("=", maxsplit=1)[0] in refused("train", "digits", *TINY, override)


def test_a_preset_without_data_says_what_to_give(refused: Callable[..., str]) -> None:
    line = refused("train", "dcgan-64")
    assert line.startswith("data.path is not set and the preset dcgan-64 has no built-in data; give data.path=FOLDER")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no run: nowhere/config.yaml is missing; runs are folders such as runs/digits-000"),
        (["nowhere", "--num", "0"], "--num 0 must be at least 1"),
        (
            ["nowhere", "--num", "10001"],
            "--num 10001 must be at most 10,000: they go into one picture; use other seeds",
        ),
        (["nowhere", "--seed", "-1"], "--seed -1 must be at least 0"),
        (["nowhere", "--out", "x.jpg"], "--out x.jpg must end in .png, the only format that is written"),
        (["nowhere", "--out", "a/b.png"], "--out a/b.png: the folder a does not exist; make it first"),
    ],
)
def test_bad_sample_requests(refused: Callable[..., str], arguments: list[str], message: str) -> None:
    assert refused("sample", *arguments) == message
