"""Where runs are put: free names, folders in use, folders that cannot be written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastgan.errors import ConfigError, RunFolderError
from fastgan.train.config import RunConfig, load_config
from fastgan.train.loop import num_weights
from fastgan.train.run_folder import RunLock, create_run_folder, read_config, resume_config, write_run_facts


def test_the_next_free_number_is_taken(tiny: Callable[..., RunConfig]) -> None:
    Path("runs/digits-001").mkdir(parents=True)
    names = [str(create_run_folder(tiny())) for _ in range(3)]
    assert names == ["runs/digits-000", "runs/digits-002", "runs/digits-003"]


def test_a_file_is_no_run(tiny: Callable[..., RunConfig]) -> None:
    Path("config.yaml").write_text("seed: 1")
    with pytest.raises(RunFolderError, match=r"^config\.yaml is a file; give the folder of a run, such as \.$"):
        read_config(Path("config.yaml"))


def test_a_folder_in_use_is_left_alone(tiny: Callable[..., RunConfig]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    with pytest.raises(RunFolderError) as caught:
        create_run_folder(tiny("run_dir=mine"))
    assert str(caught.value) == (
        "run_dir=mine is not empty; choose another folder, or, to continue it: fastgan train --resume mine"
    )
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_used(tiny: Callable[..., RunConfig]) -> None:
    Path("empty").mkdir()
    assert create_run_folder(tiny("run_dir=empty")) == Path("empty")


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_an_unwritable_folder_is_refused(tiny: Callable[..., RunConfig], path: str) -> None:
    Path("file").write_text("x")
    with pytest.raises(RunFolderError, match=f"^cannot write run folder {path}: .*; choose another with run_dir=PATH$"):
        create_run_folder(tiny(f"run_dir={path}"))


def test_the_saved_configuration_comes_back(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("run_dir=run", "seed=5")
    folder = create_run_folder(config)
    write_run_facts(folder, config, precision="fp32")
    assert read_config(folder) == config.model_copy(update={"run_dir": None})
    assert (folder / "environment.json").is_file()


def test_resume_needs_a_run(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(RunFolderError, match=r"^images holds no run: images/config\.yaml is missing; runs are folders"):
        resume_config(Path("images"), asked=None, overrides=[])


def test_resume_into_another_folder_is_refused(tiny: Callable[..., RunConfig]) -> None:
    write_run_facts(create_run_folder(tiny("run_dir=run")), tiny(), precision="fp32")
    with pytest.raises(ConfigError, match=r"^run_dir=other is not the run to resume, run; leave one of them out$"):
        resume_config(Path("run"), asked=None, overrides=["run_dir=other"])


def test_two_runs_that_start_together_get_two_folders(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run makes its folder after this one has looked and before it has made its own."""
    made = Path.mkdir

    def late(self: Path, *arguments: Any, **options: Any) -> None:
        if self.name == "digits-000":
            made(self, parents=True, exist_ok=True)
        made(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    assert create_run_folder(tiny()) == Path("runs/digits-001")


@pytest.mark.usefixtures("workplace")
def test_one_process_at_a_time_trains_in_a_folder() -> None:
    taken = pytest.raises(RunFolderError, match=r"^another process trains in \.; wait for it, or take another folder$")
    with RunLock(Path()), taken, RunLock(Path()):
        pytest.fail("two processes hold the lock")
    with RunLock(Path()):
        pass


def test_home_folders(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert create_run_folder(tiny("run_dir=~/mine")) == tmp_path / "mine"
    with pytest.raises(RunFolderError, match=r"^run_dir=~no-such-user/x names a user without a home folder"):
        create_run_folder(tiny("run_dir=~no-such-user/x"))


def test_a_resumed_run_keeps_the_first_environment(tiny: Callable[..., RunConfig]) -> None:
    folder = create_run_folder(tiny())
    write_run_facts(folder, tiny(), precision="fp32")
    write_run_facts(folder, tiny(), precision="bf16", images_seen=64)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml",
        "environment-000000064.json",
        "environment.json",
    ]
    assert json.loads((folder / "environment-000000064.json").read_text())["precision"] == "bf16"


def test_a_run_of_split_goes_on_by_alternate_without_the_keys_of_split() -> None:
    split = ["schedule.policy=split", "schedule.discriminator_ranks=1", "schedule.delay_steps=2", "schedule.force=true"]
    saved = load_config("digits", overrides=[*split, "schedule.discriminator_updates=2"])
    folder = create_run_folder(saved)
    write_run_facts(folder, saved, precision="fp32")
    resumed = resume_config(folder, asked=None, overrides=["schedule.policy=alternate"])
    assert resumed.schedule.policy == "alternate"
    assert resumed.schedule.discriminator_updates == 2  # which both read
    assert not resumed.schedule.force
    # What is given is still looked at.
    with pytest.raises(ConfigError, match=r"schedule\.force=true is not read by schedule\.policy=alternate"):
        resume_config(folder, asked=None, overrides=["schedule.policy=alternate", "schedule.force=true"])
    with pytest.raises(ConfigError, match=r"schedule\.policy=spilt must be alternate, joint, balance or split"):
        resume_config(folder, asked=None, overrides=["schedule.policy=spilt"])


def test_weights_that_lie_elsewhere_are_counted() -> None:
    network = nn.Linear(3, 2)
    network.weight.data = torch.empty(0)
    network.weight.ds_numel = 6  # as ZeRO-3 leaves it
    assert num_weights(network) == 8
